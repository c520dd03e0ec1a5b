//! What stands in the stream of a partition: entries, the end mark, and what is none of ours.

use bytes::Bytes;
use natterjack_protocol::MsgId;

use crate::{leader_read::LogRecord, subjects};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Entry(LogRecord),
    /// Its subject is none of ours. It was acknowledged, so it is kept, and alarmed.
    UnknownSubject {
        id: MsgId,
        ts: u64,
        subject: String,
        payload: Bytes,
    },
    /// The generation is over; nothing comes behind this.
    End {
        id: MsgId,
        ts: u64,
    },
}

impl Record {
    /// What stands in the stream of this partition under this subject; `at`: its id and when it was stored.
    pub fn stored(generation: u32, p: u32, (id, ts): (MsgId, u64), subject: String, payload: Bytes) -> Self {
        match subjects::parse_entry(&subject) {
            Some(s) => Self::Entry(LogRecord { id, ts, thread: s.thread, control: s.control, payload }),
            None if subject == subjects::end(generation, p) => Self::End { id, ts },
            None => Self::UnknownSubject { id, ts, subject, payload },
        }
    }

    pub fn subject(&self, generation: u32, p: u32) -> String {
        match self {
            Self::Entry(r) if r.control => subjects::ctl(generation, p, &r.thread),
            Self::Entry(r) => subjects::chat(generation, p, &r.thread),
            Self::UnknownSubject { subject, .. } => subject.clone(),
            Self::End { .. } => subjects::end(generation, p),
        }
    }

    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Entry(LogRecord { payload, .. }) | Self::UnknownSubject { payload, .. } => payload,
            Self::End { .. } => &[],
        }
    }

    pub fn id(&self) -> MsgId {
        match self {
            Self::Entry(r) => r.id,
            Self::UnknownSubject { id, .. } | Self::End { id, .. } => *id,
        }
    }

    /// Bytes of payload.
    pub(super) fn size(&self) -> usize {
        self.payload().len()
    }

    pub fn ts(&self) -> u64 {
        match self {
            Self::Entry(r) => r.ts,
            Self::UnknownSubject { ts, .. } | Self::End { ts, .. } => *ts,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct LogBatch {
    /// At least one, in order, without a hole between them.
    pub records: Vec<Record>,
    /// Entries in the log behind the last record, when the server sent it.
    pub pending: u64,
    /// Ids (first, last) that the log does not have, just before the first record: expired before they were read, or
    /// lost. Alarm.
    pub hole: Option<(MsgId, MsgId)>,
}
