//! Was (thread, sender, cid) stored already, and under which id? For resends that are older than the log's own dedupe
//! window, and for the late rule, which hides what such a window let through. Never a guess: what cannot be looked at
//! makes the answer `unavailable`, not "no".

use natterjack_nats::LogRecord;
use natterjack_protocol::{
    Cid, Entry, Most, MsgId, Thread, UserId, internal::rpc::HistoryAnswer, limits, log::EntryView,
};

use super::{HistoryError, View};
use crate::{
    store::{ArchiveError, ArchiveStore, CidLookup},
    write::Copies,
};

/// By so much the log's clock may have been behind meanwhile.
const STEP_MS: u64 = 3 * 3_600_000;
const CHUNK: Most = Most { count: 1_000, bytes: 1 << 20 };

impl<S: ArchiveStore> Copies for View<S> {
    type Error = HistoryError;

    async fn is_copy(&self, record: &LogRecord) -> Result<bool, HistoryError> {
        Self::is_copy(self, record).await
    }
}

impl<S: ArchiveStore> View<S> {
    pub(super) async fn find_cid(
        &self,
        thread: &Thread,
        sender: &UserId,
        cid: Cid,
        below: Option<MsgId>,
    ) -> Result<HistoryAnswer, HistoryError> {
        // A resend may be told that it is too old (by an archive that has no index of cids); whether an entry is a copy
        // has to be decided.
        let rows = if below.is_some() { usize::MAX } else { limits::RESEND_ROWS };
        let below = below.unwrap_or(MsgId::MAX);
        // Before anything is looked at: a copy stored later than this is not covered by the answer, and `seen` says so.
        let bounds = self.bounds(thread).await?;
        let seen = bounds.ts_ms;
        let since = cid.unix_ms().saturating_sub(self.times.cid_ahead.as_millis() as u64);
        let archived = match self.watermark(thread).await {
            Ok((_, Some(_))) => return Err(HistoryError::OutOfReach),
            Ok((watermark, None)) => match self.store.find_cid(thread, sender, cid, since, rows).await {
                Ok(found) => Some((watermark, found)),
                Err(ArchiveError::Unavailable(_)) => None,
                Err(e) => return Err(e.into()),
            },
            Err(HistoryError::Store(ArchiveError::Unavailable(_))) => None,
            Err(e) => return Err(e),
        };
        let found = match archived {
            // The archive's is the lowest there is.
            Some((_, CidLookup::Found(id))) => Some(id).filter(|id| *id < below),
            Some((_, CidLookup::TooMany)) => return Err(HistoryError::ResendTooOld),
            Some((watermark, CidLookup::Absent)) => {
                self.find_in_log(thread, (sender, cid), watermark, below, rows).await?
            }
            None => {
                let reaches_back = bounds.entries > 0 && bounds.first_ts_ms <= since;
                if !reaches_back {
                    return Err(HistoryError::OutOfReach);
                }
                // Found by halving: what was stored while the clock was behind must not lead it past what is sought.
                let from = self.log.first_at(thread, bounds.first, bounds.last, since.saturating_sub(STEP_MS)).await?;
                self.find_in_log(thread, (sender, cid), MsgId(from.0 - 1), below, rows).await?
            }
        };
        Ok(HistoryAnswer::FindCid { found, seen })
    }

    /// The lowest id with `after < id < below`.
    async fn find_in_log(
        &self,
        thread: &Thread,
        (sender, cid): (&UserId, Cid),
        after: MsgId,
        below: MsgId,
        rows: usize,
    ) -> Result<Option<MsgId>, HistoryError> {
        let Some(last) = self.log.last(thread).await?.map(|r| r.id).filter(|id| *id > after) else { return Ok(None) };
        let (mut after, mut looked_at) = (after, 0);
        while after < last && after.next() < below {
            let records = self.log.after(thread, after, last, CHUNK).await?;
            let Some(newest) = records.last().map(|r| r.id) else { return Err(HistoryError::Stale) };
            looked_at += records.len();
            let is_it = |payload: &[u8]| Entry::decode(payload).is_ok_and(|e| e.cid == cid && &e.from == sender);
            if let Some(r) = records.iter().find(|r| is_it(&r.payload)) {
                return Ok(Some(r.id).filter(|id| *id < below));
            }
            // When they are archived, the archive can tell.
            if looked_at > rows {
                return Err(HistoryError::OutOfReach);
            }
            if !CHUNK.full(&records) && newest < last {
                return Err(HistoryError::Stale);
            }
            after = newest;
        }
        Ok(None)
    }

    /// The late rule (P2): is this entry a copy of an earlier one that the dedupe window did not cover? Log and archive
    /// alone decide, so everybody decides alike. An error: it cannot be told now, and nobody may be shown the entry.
    pub(crate) async fn is_copy(&self, record: &LogRecord) -> Result<bool, HistoryError> {
        // A change of the thread is guarded by compare-and-set instead.
        let Some(view) = (!record.control).then(|| EntryView::parse(&record.payload).ok()).flatten() else {
            return Ok(false);
        };
        if !view.is_late(record.ts, &self.times) {
            return Ok(false);
        }
        let Ok(sender) = UserId::parse(view.from) else { return Ok(false) };
        let found = self.find_cid(&record.thread, &sender, view.cid, Some(record.id)).await?;
        let copy = matches!(found, HistoryAnswer::FindCid { found: Some(_), .. });
        if copy {
            metrics::counter!(crate::metrics::HISTORY_LATE_COPIES).increment(1);
        }
        Ok(copy)
    }

    pub(super) async fn without_copies(&self, records: Vec<LogRecord>) -> Result<Vec<LogRecord>, HistoryError> {
        let mut kept = Vec::with_capacity(records.len());
        for record in records {
            if !self.is_copy(&record).await? {
                kept.push(record);
            }
        }
        Ok(kept)
    }
}
