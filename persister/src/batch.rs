//! What the log handed over, sorted for the store (step 7): by thread, each oldest first, with the times of the log.
//! Pure. Before it `nats::LogReader`, after it `fold` and the store.

use std::collections::{HashMap, HashSet};

use natterjack_nats::{Position, Record};
use natterjack_protocol::{MsgId, Thread};

use crate::store::{PartitionKey, Row, UnknownSubject};

/// A batch, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct SortedBatch {
    /// In the order of their first entry.
    pub threads: Vec<(Thread, Vec<Row>)>,
    pub unknown_subjects: Vec<UnknownSubject>,
    /// Where the watermark stands once all of it is written.
    pub end: Position,
}

/// `from`: the watermark before this batch. An event has the time at which the log stored it, live and archived alike,
/// also when that clock was set back.
///
/// `hidden`: copies, which stand nowhere (P2).
pub fn sort(key: PartitionKey, from: Position, records: Vec<Record>, hidden: &HashSet<MsgId>) -> SortedBatch {
    let mut sorted = SortedBatch { threads: Vec::new(), unknown_subjects: Vec::new(), end: from };
    let mut places: HashMap<Thread, usize> = HashMap::new();
    for record in records {
        let ts = record.ts();
        sorted.end = Position { id: record.id(), ts };
        match record {
            Record::Entry(e) if hidden.contains(&e.id) => {}
            Record::Entry(e) => {
                let row = Row::from_log(&e.thread, e.id, ts, e.control, &e.payload);
                let place = *places.entry(e.thread).or_insert_with(|| {
                    sorted.threads.push((row.thread.clone(), Vec::new()));
                    sorted.threads.len() - 1
                });
                sorted.threads[place].1.push(row);
            }
            Record::End { .. } => {}
            Record::UnknownSubject { id, subject, payload, .. } => {
                sorted.unknown_subjects.push(UnknownSubject { key, id, ts, subject, payload })
            }
        }
    }
    sorted
}

/// The ids of entries that nobody could read: acknowledged, kept, and somebody has to look.
pub fn unreadable(sorted: &SortedBatch) -> Vec<MsgId> {
    let rows = sorted.threads.iter().flat_map(|(_, rows)| rows);
    let ids = rows.filter(|r| r.raw.is_some() && r.body.data == r.raw).map(|r| r.id);
    ids.chain(sorted.unknown_subjects.iter().map(|s| s.id)).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use natterjack_nats::LogRecord;
    use natterjack_protocol::{Body, Cid, Entry, Kind, Token};

    use super::*;

    const KEY: PartitionKey = PartitionKey { generation: 1, partition: 0 };

    fn record(id: u64, ts: u64, thread: &str, control: bool, kind: Kind) -> Record {
        let entry = Entry::new(Token::parse("a").unwrap(), Cid::mint(ts, [1; 10]), kind, Body::text("x"));
        Record::Entry(LogRecord {
            id: MsgId(id),
            ts,
            thread: thread.parse().unwrap(),
            control,
            payload: entry.encode(),
        })
    }

    #[test]
    fn times_are_the_logs_and_threads_keep_their_order() {
        let from = Position { id: MsgId(4), ts: 100 };
        let log = vec![
            record(5, 90, "dm.a.b", false, Kind::Text),
            record(6, 120, "group.g", true, Kind::MemberAdded),
            record(7, 110, "dm.a.b", false, Kind::Text),
        ];
        let sorted = sort(KEY, from, log.clone(), &HashSet::new());
        let spelled: Vec<_> = sorted
            .threads
            .iter()
            .map(|(t, rows)| (t.to_string(), rows.iter().map(|r| (r.id.0, r.ts)).collect::<Vec<_>>()))
            .collect();
        assert_eq!(spelled, [("dm.a.b".to_owned(), vec![(5, 90), (7, 110)]), ("group.g".to_owned(), vec![(6, 120)])]);
        assert_eq!(sorted.end, Position { id: MsgId(7), ts: 110 });
        assert_eq!(sort(KEY, from, log.clone(), &HashSet::new()), sorted);
        let hidden = sort(KEY, from, log, &HashSet::from([MsgId(7)]));
        assert_eq!(
            (hidden.end, hidden.threads[0].1.len()),
            (sorted.end, 1),
            "a hidden entry is passed over, not waited for"
        );
        assert_eq!(sort(KEY, from, Vec::new(), &HashSet::new()).end, from);
    }

    #[test]
    fn what_nobody_can_read_is_kept() {
        let junk = Bytes::from_static(b"junk");
        let log = vec![
            record(1, 1, "dm.a.b", false, Kind::Text),
            Record::Entry(LogRecord {
                id: MsgId(2),
                ts: 2,
                thread: "dm.a.b".parse().unwrap(),
                control: false,
                payload: junk.clone(),
            }),
            Record::UnknownSubject { id: MsgId(3), ts: 3, subject: "chat.1.0.x".into(), payload: junk.clone() },
            record(4, 4, "group.g", false, Kind::MemberAdded),
            record(5, 5, "group.g", true, Kind::Text),
        ];
        let sorted = sort(KEY, Position::default(), log, &HashSet::new());
        assert_eq!(unreadable(&sorted), [MsgId(2), MsgId(4), MsgId(5), MsgId(3)]);
        let row = &sorted.threads[0].1[1];
        assert_eq!((row.kind, row.raw.as_ref()), (Kind::Unknown, Some(&junk)));
        assert_eq!(sorted.unknown_subjects[0].payload, junk);
        assert!(
            sorted.threads[1].1.iter().all(|r| r.kind == Kind::Unknown),
            "who is in a thread is decided on its guarded subject only"
        );
    }
}
