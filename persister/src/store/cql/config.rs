//! Where the CQL servers are, and what is asked of them.

use std::{fmt, time::Duration};

use scylla::statement::{Consistency as Level, SerialConsistency};
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CqlConfig {
    /// `host:port` of some servers; the others are learnt from them.
    pub contact_points: Vec<String>,
    /// Letters, digits and `_`.
    pub keyspace: String,
    pub user: Option<String>,
    pub password: Option<String>,
    /// Copies of every row (in `local_dc`, or in each data centre), for a keyspace that is not there yet.
    pub replication: u32,
    pub consistency: Consistency,
    /// The data centre to talk to; None: any.
    pub local_dc: Option<String>,
    /// One request, with all its attempts.
    pub request_timeout_ms: u64,
    /// How a thread is cut into partitions. Only read when the keyspace is new: all writers must cut alike, so it is
    /// kept there.
    pub buckets: Buckets,
}

impl Default for CqlConfig {
    fn default() -> Self {
        Self {
            contact_points: vec!["127.0.0.1:9042".into()],
            keyspace: "natterjack".into(),
            user: None,
            password: None,
            replication: 3,
            consistency: Consistency::default(),
            local_dc: None,
            request_timeout_ms: 2_000,
            buckets: Buckets::default(),
        }
    }
}

/// Without the password.
impl fmt::Debug for CqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contact_points, keyspace, user, replication, consistency, local_dc, .. } = self;
        write!(
            f,
            "CqlConfig {{ {contact_points:?} {keyspace} {user:?} rf {replication} {consistency:?} dc {local_dc:?} }}"
        )
    }
}

impl CqlConfig {
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

/// How many copies have to answer. Whatever is less than a quorum loses what was acknowledged when a copy is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// More than half of the copies in the local data centre.
    #[default]
    LocalQuorum,
    /// More than half of all copies.
    Quorum,
    /// One: for a single server.
    One,
}

impl Consistency {
    pub fn parse(s: &str) -> Option<Self> {
        match s {
            "local_quorum" => Some(Self::LocalQuorum),
            "quorum" => Some(Self::Quorum),
            "one" => Some(Self::One),
            _ => None,
        }
    }

    pub(super) fn levels(self) -> (Level, SerialConsistency) {
        match self {
            Self::LocalQuorum => (Level::LocalQuorum, SerialConsistency::LocalSerial),
            Self::Quorum => (Level::Quorum, SerialConsistency::Serial),
            Self::One => (Level::One, SerialConsistency::LocalSerial),
        }
    }
}

/// A bucket is closed by whichever comes first. 5,000 rows of the usual 300 bytes are 1.5 MB, of the largest (48 KiB)
/// 240 MB: what a server still reads and compacts in one piece. Half a year, so that the rows of a quiet thread do not
/// lie in every file there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    pub rows: u32,
    /// Milliseconds of archived time.
    pub span: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { rows: 5_000, span: 180 * 24 * 3_600_000 }
    }
}
