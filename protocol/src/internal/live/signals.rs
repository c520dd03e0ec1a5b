//! Live messages beside the events of a thread, in MessagePack: ephemeral ones, and the heartbeat of a partition.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    client::{frame::Receipt, thread_settings::ThreadSettings},
    codec::Codec,
    ids::{MsgId, UserId},
    log::BadEntry,
    thread::Thread,
};

/// Ephemeral messages on `live.*.x`: truth by pull or last-value-wins, so they may be lost. In MessagePack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum Ephemeral {
    Typing {
        thread: Thread,
        user: UserId,
        /// Who of the thread may be shown it: the contacts of one who lets nobody else see that they are here. None:
        /// everybody.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<BTreeSet<UserId>>,
    },
    /// Contacts of this user changed: ask again.
    Contacts,
    /// How far these users have come in this thread.
    Receipts { thread: Thread, receipts: Vec<Receipt> },
    /// Up to where this user has read; it is stored.
    Read { threads: BTreeMap<Thread, MsgId> },
    /// What this user has set for a thread; it is stored.
    Settings { thread: Thread, settings: ThreadSettings },
}

impl Ephemeral {
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec_named(self).expect("plain values").into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BadEntry> {
        Codec::Msgpack.decode(bytes).map_err(|e| BadEntry(e.to_string()))
    }
}

/// On `beat.<p>` once a second: a sign of life, the log's clock, and how far this partition has been published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Of the log's streams; the partitions of another one are others.
    #[serde(default = "first_generation")]
    pub generation: u32,
    pub p: u32,
    /// The stream leader's clock, milliseconds since 1970.
    pub ts: u64,
    /// What was stored before this moment, likewise, the stream's dedupe map does not know: when it was made, or
    /// where its clock stood when it was set back. 0: nothing was.
    pub dedupe_since: u64,
    /// Every event up to this id has been published on the connection that sends this beat.
    pub frontier: MsgId,
    /// How old the first entry is that the archive does not have yet, milliseconds; none: not known.
    #[serde(default)]
    pub archive_lag_ms: Option<u64>,
}

fn first_generation() -> u32 {
    1
}

impl Beat {
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec_named(self).expect("plain values").into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, BadEntry> {
        Codec::Msgpack.decode(bytes).map_err(|e| BadEntry(e.to_string()))
    }
}
