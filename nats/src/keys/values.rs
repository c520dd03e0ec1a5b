//! What stands in keys and is of no use outside of this crate's rooms, and how every value is merged and versioned.

use std::collections::BTreeSet;

use natterjack_protocol::{
    MsgId,
    internal::{
        cursors::UserCursors,
        devices::UserDevices,
        kv::{EdgeInfo, PublicKey, RevokedLogin},
        presence::UserSettings,
        thread_settings::UserDrafts,
    },
    log::fold::{GroupState, UserThreads},
    merge::MaxMerge,
};
use serde::{Deserialize, Serialize};

use crate::{layout::Layout, typed_key::KvValue};

impl KvValue for Layout {}

impl KvValue for GroupState {}

impl KvValue for UserThreads {}

impl KvValue for UserCursors {}

impl KvValue for UserDrafts {}

impl KvValue for UserDevices {}

impl KvValue for UserSettings {}

impl KvValue for PublicKey {}

impl KvValue for RevokedLogin {}

/// Written again every second.
impl KvValue for EdgeInfo {
    const REWRITTEN: bool = true;
}

/// The instance that holds a role's lease, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseHolder(pub String);

impl KvValue for LeaseHolder {
    const REWRITTEN: bool = true;
}

/// Where somebody is in a partition of a generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub id: MsgId,
    /// When the log stored that entry, milliseconds since 1970.
    pub ts: u64,
}

/// Whoever wrote it goes on and writes it again.
impl KvValue for Position {
    const REWRITTEN: bool = true;
}

/// The later one, whole.
impl MaxMerge for Position {
    fn merge_max(&mut self, other: &Self) -> bool {
        let grows = (self.id, self.ts) < (other.id, other.ts);
        if grows {
            *self = *other;
        }
        grows
    }
}

/// How far a partition's clock has been, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClockMark(pub u64);

impl KvValue for ClockMark {
    const REWRITTEN: bool = true;
}

impl MaxMerge for ClockMark {
    fn merge_max(&mut self, other: &Self) -> bool {
        self.0.merge_max(&other.0)
    }
}

/// The streams before which nothing was stored, by the time each was made: one that is made again later is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    pub created_ms: Vec<u64>,
}

/// Without it nothing is wrong but slower.
impl KvValue for Beginning {
    const REWRITTEN: bool = true;
}

/// Which roles read the log, besides those that always do. One that cannot be read is an error: nobody may conclude
/// that there are no others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogReaderList(pub BTreeSet<String>);

impl KvValue for LogReaderList {}

/// When the last backup was begun, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup(pub u64);

impl KvValue for LastBackup {
    const REWRITTEN: bool = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_moves_forward_only() {
        let at = |id| Position { id: MsgId(id), ts: id };
        let mut position = at(5);
        assert!(!position.merge_max(&at(5)) && !position.merge_max(&at(4)));
        assert!(position.merge_max(&at(6)));
        assert_eq!(position, at(6));
    }
}
