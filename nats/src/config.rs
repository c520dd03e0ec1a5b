//! Where NATS is and how the log on it is laid out; the same for every role of one installation.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::nats_role::NatsRole;

#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct NatsConfig {
    /// `nats://host:port` or `tls://host:port`, one or several of the same cluster. A login before the `@` counts for
    /// all of them.
    pub urls: Vec<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    /// Path of a file with the seed of an NKey.
    pub nkey: Option<PathBuf>,
    /// Path of a credentials file (JWT and seed).
    pub creds: Option<PathBuf>,
    pub tls: TlsFiles,
    /// Whose permissions this process has: its answers come to subjects that only this role may hear. None: to those
    /// of everybody.
    pub role: Option<NatsRole>,
    /// Shown in the server's list of connections, before the role.
    pub name: String,
    /// How long a role waits for its first connection, in milliseconds.
    pub connect_deadline_ms: u64,
    /// Copies of every stream and bucket: 1 or 3.
    pub replicas: usize,
    /// Partitions of the log when it is made; later ones are the layout's (`provision::switch`).
    pub partitions: u32,
    /// Shards of the buckets `groups` and `users`; fixed for ever.
    pub kv_shards: u32,
    /// Bytes each partition of the log may hold; if set, an existing log must agree.
    pub max_bytes: Option<i64>,
    /// What a new partition gets if `max_bytes` is not set; never compared. `up` passes 25 % of the free disk /
    /// partitions.
    pub default_max_bytes: Option<i64>,
    /// A single server syncs before each acknowledgement; only `server::single_config` reads it.
    pub sync_always: bool,
}

/// Read again for each connection, so files may be replaced while everything runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsFiles {
    /// Certificates of the authorities to believe, in PEM. None: those that the machine believes.
    pub ca: Option<PathBuf>,
    /// Ours, with those between it and the root.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Never without TLS, also where a server would do without.
    pub required: bool,
    /// The servers expect the handshake before they say anything (`handshake_first`).
    pub first: bool,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".into()],
            user: None,
            password: None,
            token: None,
            nkey: None,
            creds: None,
            tls: TlsFiles::default(),
            role: None,
            name: "natterjack".into(),
            connect_deadline_ms: 15_000,
            replicas: 1,
            partitions: 2,
            kv_shards: 2,
            max_bytes: None,
            default_max_bytes: None,
            sync_always: false,
        }
    }
}

/// By hand: a password must not reach a log through a derived `Debug`.
impl std::fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsConfig")
            .field("hosts", &self.urls.iter().map(|u| u.rsplit('@').next().unwrap_or_default()).collect::<Vec<_>>())
            .field("replicas", &self.replicas)
            .field("partitions", &self.partitions)
            .field("kv_shards", &self.kv_shards)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let cfg = NatsConfig {
            urls: vec!["nats://u:hidden@h:1".into()],
            password: Some("hidden".into()),
            ..NatsConfig::default()
        };
        assert!(!format!("{cfg:?}").contains("hidden"), "{cfg:?}");
    }
}
