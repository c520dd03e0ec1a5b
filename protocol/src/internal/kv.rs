//! Values in KV that are not the fold of a log: keys, ended logins, edges. Where they stand is said in
//! `nats/src/keys.rs`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, UserId};

/// A public key that signs access tokens: by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// Ed25519, 32 bytes.
    #[serde(with = "serde_bytes")]
    pub ed25519: Vec<u8>,
    /// Tokens of this key are refused from here on, milliseconds since 1970.
    pub until: u64,
}

/// A login that is over: by the family of its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedLogin {
    pub user: UserId,
    pub device: DeviceId,
    /// Its last access token is good for nobody any more from here on, milliseconds since 1970.
    pub until: u64,
}

/// An edge that lives, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeInfo {
    /// Where clients reach it, if its operator said so: `wss://edge1.example.org`.
    pub url: Option<String>,
    /// Where it listens, perhaps on no address in particular.
    pub listen: SocketAddr,
    /// It speaks TLS itself.
    pub tls: bool,
    /// The machine, or the container, that `listen` is of: two edges with the same one share their addresses.
    pub machine: String,
    pub incarnation: Arc<str>,
    /// When this incarnation took the key, milliseconds since 1970, server time: one before it may have been frozen,
    /// and is over for certain a lifetime of the lease later.
    #[serde(default)]
    pub started: u64,
    pub sessions: u32,
    pub draining: bool,
    /// Beats of every partition reach it.
    pub healthy: bool,
    /// Of each shard of `sessions`, when the bucket was made that has the sessions of this edge; milliseconds since
    /// 1970.
    #[serde(default)]
    pub sessions_in: Vec<u64>,
    /// A peer that says for whom it speaks and is no trusted proxy: limits by address may count everybody as one.
    #[serde(default)]
    pub unheeded: Option<IpAddr>,
}
