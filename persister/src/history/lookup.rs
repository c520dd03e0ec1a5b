//! Was (thread, sender, cid) stored already, and under which id? For resends that are older than the log's own dedupe window.
//! Never a guess: what cannot be looked at makes the answer `unavailable`, not "no".

use natterjack_protocol::{Cid, MsgId, Thread, UserId, entry::Entry, limits, rpc::HistoryAnswer};

use super::{History, HistoryError, tail::first_at};
use crate::store::{CidLookup, Store, StoreError};

const CHUNK: usize = 1_000;

impl<S: Store> History<S> {
    pub(super) async fn find_cid(&self, thread: &Thread, sender: &UserId, cid: Cid) -> Result<HistoryAnswer, HistoryError> {
        // Before anything is looked at: a copy stored later than this is not covered by the answer, and `seen` says so.
        let bounds = self.bounds(thread).await?;
        let seen = bounds.ts_ms;
        let since = cid.unix_ms().saturating_sub(self.times.cid_ahead.as_millis() as u64);
        let archived = match self.watermark(thread).await {
            Ok((_, Some(_))) => return Err(HistoryError::OutOfReach),
            Ok((watermark, None)) => match self.store.find_cid(thread, sender, cid, since, limits::RESEND_ROWS).await {
                Ok(found) => Some((watermark, found)),
                Err(StoreError::Unavailable(_)) => None,
                Err(e) => return Err(e.into()),
            },
            Err(HistoryError::Store(StoreError::Unavailable(_))) => None,
            Err(e) => return Err(e),
        };
        let found = match archived {
            // The archive's is the lowest there is.
            Some((_, CidLookup::Found(id))) => Some(id),
            Some((_, CidLookup::TooMany)) => return Err(HistoryError::ResendTooOld),
            Some((watermark, CidLookup::Absent)) => self.find_in_log(thread, sender, cid, watermark).await?,
            None => {
                let reaches_back = bounds.entries > 0 && bounds.first_ts_ms <= since;
                if !reaches_back {
                    return Err(HistoryError::OutOfReach);
                }
                let p = self.layout.partition(thread);
                let from = first_at(&self.log, p, bounds.first, bounds.last, since).await?;
                self.find_in_log(thread, sender, cid, MsgId(from.0 - 1)).await?
            }
        };
        Ok(HistoryAnswer::FindCid { found, seen })
    }

    async fn find_in_log(&self, thread: &Thread, sender: &UserId, cid: Cid, after: MsgId) -> Result<Option<MsgId>, HistoryError> {
        let Some(last) = self.log.last(thread).await?.map(|r| r.id).filter(|id| *id > after) else { return Ok(None) };
        let (mut after, mut looked_at) = (after, 0);
        while after < last {
            let records = self.log.after(thread, after, last, CHUNK).await?;
            let Some(newest) = records.last().map(|r| r.id) else { return Err(HistoryError::Stale) };
            looked_at += records.len();
            let is_it = |payload: &[u8]| Entry::decode(payload).is_ok_and(|e| e.cid == cid && &e.from == sender);
            if let Some(r) = records.iter().find(|r| is_it(&r.payload)) {
                return Ok(Some(r.id));
            }
            if looked_at > limits::RESEND_ROWS {
                return Err(HistoryError::ResendTooOld);
            }
            if records.len() < CHUNK && newest < last {
                return Err(HistoryError::Stale);
            }
            after = newest;
        }
        Ok(None)
    }
}
