//! `manifest.json`: what a backup is of, and what every file in it must be. Written last: a folder without it is no
//! backup.

use std::collections::BTreeMap;

use natterjack_protocol::MsgId;
use serde::{Deserialize, Serialize};

/// Of the folder. A newer one is refused, an older one is read.
pub const FORMAT: u32 = 1;
pub(super) const NAME: &str = "manifest.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The version that made it.
    pub natterjack: String,
    /// When it was begun, milliseconds since 1970 by the clock of the machine that made it: all that was acknowledged
    /// before is in it.
    pub begun_ms: u64,
    pub origin: Origin,
    /// Of the log, when the backup was made.
    pub generation: u32,
    pub partitions: u32,
    pub kv_shards: u32,
    /// One for each partition of the generation, and of the one before, which comes first.
    pub logs: Vec<LogCopy>,
    /// By their names in the folder, `/` between the parts.
    pub files: BTreeMap<String, Sum>,
}

/// Where it comes from, and so where `restore` puts it unless it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The folder of `natterjack up`.
    Up,
    /// Processes of their own with the archive in a SQLite file.
    Sqlite,
    /// Processes of their own with the archive on CQL servers, whose snapshot is in `archive/`.
    Cql,
}

/// What was above the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCopy {
    pub generation: u32,
    pub partition: u32,
    /// The archive that was copied has everything up to here. 0: nothing.
    pub watermark: MsgId,
    /// When that entry was stored, as the archive has it.
    pub watermark_ts: u64,
    /// The partition's last id.
    pub last: MsgId,
    pub entries: u64,
    /// What the log had lost before it was archived, as ranges of ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<(MsgId, MsgId)>,
}

impl LogCopy {
    pub(super) fn file(&self) -> String {
        format!("log-{}-{}.jsonl", self.generation, self.partition)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// No id that the backup knows is above this one.
    pub fn highest(&self) -> MsgId {
        self.logs.iter().map(|l| l.last.max(l.watermark)).max().unwrap_or_default()
    }
}
