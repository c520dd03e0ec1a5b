//! Nothing can have been stored before the streams of the very first generation, so there no cid counts as old for
//! being older than they are. That it is the first, only the archive can tell: a log that is made anew beside an old
//! archive looks the same. Whoever has found the archive empty writes it down (`KvBuckets::beginning`); `channel` says
//! it in its beats.

use natterjack_protocol::Times;

use crate::{
    keys::values::Beginning,
    layout::Layout,
    leader_read::{LeaderReader, LogBounds, LogError},
    wire::client::Nats,
};

impl Beginning {
    /// The streams as they stand, if nothing speaks against their being new. None: they are not, or they are too old
    /// for anybody to ask.
    pub async fn find(nats: &Nats, layout: Layout, times: &Times) -> Result<Option<Self>, LogError> {
        if !layout.is_the_first() {
            return Ok(None);
        }
        let tail = LeaderReader::new(nats, layout);
        let mut created_ms = Vec::new();
        for p in 0..layout.partitions {
            let bounds = tail.bounds(p).await?;
            if !looks_new(&bounds, times) {
                return Ok(None);
            }
            created_ms.push(bounds.created_ms);
        }
        Ok(Some(Self { created_ms }))
    }

    pub fn is_of(&self, p: u32, created_ms: u64) -> bool {
        self.created_ms.get(p as usize) == Some(&created_ms)
    }
}

/// Is the stream so young that cids count as old, by one clock, and is everything there that it ever stored? One that
/// was purged or put back from a copy has lost entries, or has some that are older than itself.
fn looks_new(bounds: &LogBounds, times: &Times) -> bool {
    let young = bounds.ts_ms.saturating_sub(bounds.created_ms) <= times.young_stream().as_millis() as u64;
    let whole = bounds.first == bounds.origin && (bounds.entries == 0 || bounds.first_ts_ms >= bounds.created_ms);
    young && whole && !bounds.over
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use natterjack_protocol::MsgId;

    use super::*;

    #[test]
    fn only_a_young_and_whole_stream_looks_new() {
        let new = LogBounds {
            first: MsgId(100),
            last: MsgId(99),
            entries: 0,
            first_ts_ms: 0,
            created_ms: 1_000_000,
            ts_ms: 1_000_100,
            max_age: Duration::from_secs(1),
            replicas: 1,
            origin: MsgId(100),
            over: false,
        };
        let times = Times::default();
        let used = LogBounds { last: MsgId(102), entries: 3, first_ts_ms: 1_000_050, ..new };
        assert!(looks_new(&new, &times) && looks_new(&used, &times));
        for other in [
            LogBounds { ts_ms: 1_015_001, ..new },
            LogBounds { first: MsgId(103), last: MsgId(102), ..new },
            LogBounds { first: MsgId(101), ..used },
            LogBounds { first_ts_ms: 999_999, ..used },
            LogBounds { over: true, ..new },
        ] {
            assert!(!looks_new(&other, &times), "{other:?}");
        }
    }
}
