//! Before the chain (step 4): an entry that was stored late may be a copy of an earlier one (P2, the late
//! rule). Whether it is one, a lookup of (thread, sender, cid) below its id tells, the same way for everybody who
//! reads the log.

use std::time::Duration;

use natterjack_nats::{LogRecord, Nats, calls::history::find_cid};
use natterjack_protocol::{Cid, Times, UserId, log::EntryView};

const TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);

/// Sender and cid of an entry that has to be looked up.
pub fn suspect(record: &LogRecord, times: &Times) -> Option<(UserId, Cid)> {
    // A change of the thread is guarded by compare-and-set instead.
    if record.control {
        return None;
    }
    let view = EntryView::parse(&record.payload).ok()?;
    view.is_late(record.ts, times).then(|| Some((UserId::parse(view.from).ok()?, view.cid)))?
}

/// Asks until somebody can tell: nobody may be shown the entry before, nor what comes after it.
pub async fn is_copy(nats: Nats, record: LogRecord, (sender, cid): (UserId, Cid)) -> (LogRecord, bool) {
    let request = find_cid(record.thread.clone(), sender, cid, Some(record.id));
    loop {
        match nats.call(&request, TIMEOUT).await {
            Ok((found, _)) => return (record, found.is_some()),
            Err(e) => {
                tracing::warn!(
                    id = %record.id, error = %e,
                    "whether a late entry is a copy cannot be told; its partition waits"
                )
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{Body, Entry, Kind, MsgId};

    use super::*;

    #[test]
    fn only_messages_stored_long_after_their_cid_or_lookup() {
        let (c, t) = (1_800_000_000_000, Times::default());
        let entry = Entry::new(UserId::parse("a").unwrap(), Cid::mint(c, [0; 10]), Kind::Text, Body::text("hi"));
        let at = |entry: &Entry, ts, control| {
            let record =
                LogRecord { id: MsgId(9), ts, thread: "dm.a.b".parse().unwrap(), control, payload: entry.encode() };
            suspect(&record, &t).is_some()
        };
        assert!(!at(&entry, c + 40_000, false));
        assert!(at(&entry, c + 40_001, false));
        assert!(!at(&entry, c + 90_000, true));
        assert!(!at(&Entry { seen: Some(c + 30_000), ..entry }, c + 40_001, false));
    }
}
