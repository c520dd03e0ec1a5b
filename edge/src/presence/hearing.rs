//! Per shard: is its holder heard, and is a batch missing? Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Instances that may speak of one shard at the same time: one that lost its lease and does not know it yet, and its
/// successors.
const SPEAKERS: usize = 4;

/// What a batch means for what is known of its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Nothing is missing.
    Whole,
    /// Something was not heard: everybody of the shard who is watched has to be asked for.
    Missed,
    /// Likewise, and nothing was known meanwhile.
    MissedInSilence,
}

#[derive(Debug, Default, Clone)]
struct ShardHearing {
    /// Who spoke, and the number of their last batch; the last one spoke last.
    speakers: Vec<(u64, u64)>,
    heard: Option<Instant>,
    silent: bool,
}

pub struct Hearing {
    shards: Vec<ShardHearing>,
    silence: Duration,
}

impl Hearing {
    /// Until something is heard of a shard it is silent.
    pub fn new(shards: u32, silence: Duration) -> Self {
        let shard = ShardHearing { silent: true, ..ShardHearing::default() };
        Self { shards: vec![shard; shards as usize], silence }
    }

    /// A batch came, or a beat (`empty`).
    pub fn batch(&mut self, shard: u32, epoch: u64, seq: u64, empty: bool, now: Instant) -> Option<Continuity> {
        let hearing = self.shards.get_mut(shard as usize)?;
        hearing.heard = Some(now);
        let in_silence = std::mem::take(&mut hearing.silent);
        let before = hearing.speakers.iter().position(|(e, _)| *e == epoch).map(|at| hearing.speakers.remove(at));
        if hearing.speakers.len() == SPEAKERS {
            hearing.speakers.remove(0);
        }
        hearing.speakers.push((epoch, seq));
        let follows = before.is_some_and(|(_, last)| seq == last + u64::from(!empty));
        Some(match (follows, in_silence) {
            (true, _) => Continuity::Whole,
            (false, false) => Continuity::Missed,
            (false, true) => Continuity::MissedInSilence,
        })
    }

    pub fn is_silent(&self, shard: u32) -> bool {
        self.shards.get(shard as usize).is_none_or(|s| s.silent)
    }

    /// Shards of which nothing was heard for too long, each once.
    pub fn fallen_silent(&mut self, now: Instant) -> Vec<u32> {
        let mut fallen = Vec::new();
        for (shard, hearing) in self.shards.iter_mut().enumerate() {
            let late = hearing.heard.is_some_and(|at| now.saturating_duration_since(at) >= self.silence);
            if late && !hearing.silent {
                hearing.silent = true;
                fallen.push(shard as u32);
            }
        }
        fallen
    }

    /// Something that came was dropped unread: whatever comes next does not follow.
    pub fn lost_count(&mut self) {
        self.shards.iter_mut().for_each(|s| s.speakers.clear());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_number_another_speaker_and_silence_are_noticed() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut hearing = Hearing::new(1, Duration::from_secs(3));
        assert!(hearing.is_silent(0));
        assert_eq!(hearing.batch(0, 7, 3, true, at(0)), Some(Continuity::MissedInSilence));
        assert_eq!(hearing.batch(0, 7, 4, false, at(100)), Some(Continuity::Whole));
        assert_eq!(hearing.batch(0, 7, 4, true, at(200)), Some(Continuity::Whole), "a beat");
        assert_eq!(hearing.batch(0, 7, 6, false, at(300)), Some(Continuity::Missed));
        assert_eq!(hearing.batch(0, 7, 7, true, at(400)), Some(Continuity::Missed), "the last batch did not come");
        assert_eq!(hearing.batch(0, 8, 0, true, at(500)), Some(Continuity::Missed), "another instance");
        assert_eq!(hearing.batch(0, 7, 8, false, at(600)), Some(Continuity::Whole), "both speak");
        assert_eq!(hearing.batch(0, 8, 1, false, at(600)), Some(Continuity::Whole));
        assert_eq!(hearing.fallen_silent(at(3_599)), Vec::<u32>::new());
        assert_eq!((hearing.fallen_silent(at(3_600)), hearing.fallen_silent(at(9_000))), (vec![0], vec![]));
        assert!(hearing.is_silent(0));
        assert_eq!(hearing.batch(0, 8, 1, true, at(9_100)), Some(Continuity::Whole), "it was silent and said nothing");
        hearing.lost_count();
        assert_eq!(hearing.batch(0, 8, 2, false, at(9_200)), Some(Continuity::Missed));
        assert_eq!(hearing.batch(1, 8, 1, true, at(9_200)), None, "there is no such shard");
    }
}
