//! A log that ends below what somebody has read of it: a server lost its last entries with the power, or its folder
//! was put back from an older copy. It would give ids again. Whoever finds it has the log go on in a new generation
//! (ADR 11).

use std::time::Duration;

use natterjack_protocol::MsgId;

use crate::{
    keys::{KvBuckets, values::Position},
    kv::KvError,
    layout::Layout,
    leader_read::{LeaderReader, LogError},
    wire::client::Nats,
};

/// A deposed leader does not know the newest entries and answers for a few seconds all the same: so often, and so long
/// apart, everybody who answers for a replicated stream has to say that they are not there.
const LOOKS: u32 = 20;
const APART: Duration = Duration::from_millis(500);

/// Where it is written down that partitions of a generation may have lost their end: their archive says so to readers.
pub struct LostEnds(KvBuckets);

impl LostEnds {
    pub fn new(nats: &Nats, layout: Layout) -> Self {
        Self(KvBuckets::new(nats, layout))
    }

    /// The highest id that anybody knew of.
    pub async fn of(&self, p: u32) -> Result<Option<MsgId>, KvError> {
        Ok(self.0.lost_end(p).load().await?.map(|at| at.id))
    }

    pub(crate) async fn note(&self, p: u32, known: MsgId) -> Result<(), KvError> {
        self.0.lost_end(p).merge_max(&Position { id: known, ts: 0 }).await
    }
}

/// A look at the end of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// It lies before what was read.
    pub lost: bool,
    /// The generation has its end mark.
    pub over: bool,
}

impl LeaderReader {
    /// Does the log not have what was `read` in it? Also if it has gone on since: then there is something else, stored
    /// later. Never of a generation that is over, which takes nothing more.
    pub async fn lost_its_end(&self, p: u32, read: Position) -> Result<bool, LogError> {
        Ok(self.look(p, read, None).await?.lost)
    }

    /// For who goes on reading behind `read`: also of a generation that is over, for nothing comes behind its end
    /// mark. `owed`: that mark was not read yet, so it does not stand under `read`, either.
    pub(crate) async fn ends_before(&self, p: u32, read: MsgId, owed: bool) -> Result<End, LogError> {
        self.look(p, Position { id: read, ts: 0 }, Some(owed)).await
    }

    async fn look(&self, p: u32, read: Position, owed: Option<bool>) -> Result<End, LogError> {
        let end = |lost| End { lost, over: false };
        for look in 0..LOOKS {
            let bounds = self.bounds(p).await?;
            if bounds.over {
                let lost = owed.is_some_and(|owed| read.id > bounds.last || owed && read.id == bounds.last);
                return Ok(End { lost, over: true });
            }
            if read.id.is_none() {
                return Ok(end(false));
            }
            if read.id <= bounds.last {
                let stored = if read.ts == 0 { None } else { self.stored_at(p, read.id).await? };
                return Ok(end(stored.is_some_and(|ts| ts > read.ts)));
            }
            if bounds.replicas <= 1 || look + 1 == LOOKS {
                return Ok(end(true));
            }
            tokio::time::sleep(APART).await;
        }
        Ok(end(true))
    }
}
