//! Step 5, whom to believe: a partition that was silent, and a holder that answers with less than what has come here.
//! Pure.

use std::time::Duration;

use natterjack_protocol::MsgId;
use tokio::time::Instant;

pub struct PartitionDoubts {
    /// While its beats were silent and its heads are not compared yet: up to where nothing was missed.
    suspect_since: Vec<Option<MsgId>>,
    /// Since when its heads are answered by a holder that knows less than what has come here.
    stale_since: Vec<Option<Instant>>,
    /// A holder that has lost its partition and does not know it yet knows within this.
    lease: Duration,
}

impl PartitionDoubts {
    pub fn new(partitions: u32, lease: Duration) -> Self {
        let n = partitions as usize;
        Self { suspect_since: vec![None; n], stale_since: vec![None; n], lease }
    }

    /// It beats again after a silence; `whole`: up to where it had beaten before, if it had.
    pub fn suspect(&mut self, p: u32, whole: Option<MsgId>) {
        if let Some(suspect) = self.suspect_since.get_mut(p as usize) {
            *suspect = suspect.or(whole);
        }
    }

    /// Its heads above `horizon` were compared. Some: nothing was missed up to this id, which lies below the horizon,
    /// so nobody can tell what was missed between the two.
    pub fn compared(&mut self, p: u32, horizon: MsgId) -> Option<MsgId> {
        self.suspect_since.get_mut(p as usize).and_then(Option::take).filter(|whole| horizon > *whole)
    }

    /// May an answer be taken as a barrier? `covers`: it knows everything that has come here. One that does not is from
    /// a holder that is being replaced; if it lasts longer than a lease, the log itself has lost what came here.
    pub fn accepts(&mut self, p: u32, covers: bool, now: Instant) -> bool {
        let Some(stale) = self.stale_since.get_mut(p as usize) else { return true };
        if covers {
            *stale = None;
            return true;
        }
        now.duration_since(*stale.get_or_insert(now)) > self.lease + Duration::from_secs(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn a_silence_longer_than_the_holder_remembers_cannot_be_made_good() {
        let mut doubts = PartitionDoubts::new(2, LEASE);
        doubts.suspect(0, Some(MsgId(50)));
        doubts.suspect(0, Some(MsgId(90)));
        doubts.suspect(1, None);
        assert_eq!(doubts.compared(0, MsgId(60)), Some(MsgId(50)), "since the first silence");
        assert_eq!(doubts.compared(0, MsgId(60)), None, "said once");
        doubts.suspect(0, Some(MsgId(90)));
        assert_eq!((doubts.compared(0, MsgId(60)), doubts.compared(1, MsgId(60))), (None, None));
    }

    #[test]
    fn a_stale_holder_is_believed_after_its_lease() {
        let (mut doubts, now) = (PartitionDoubts::new(1, LEASE), Instant::now());
        assert!(doubts.accepts(0, true, now) && !doubts.accepts(0, false, now));
        let later = now + LEASE + Duration::from_millis(1_001);
        assert!(doubts.accepts(0, false, later));
        assert!(doubts.accepts(0, true, later) && !doubts.accepts(0, false, later), "counted anew");
    }
}
