//! What an edge needs to know before it starts.

use std::net::SocketAddr;

use natterjack_nats::NatsConfig;
use natterjack_protocol::{Times, Token, internal::devices::DevicePolicy, limits};
use serde::{Deserialize, Serialize};

use crate::{admission::limits::Limits, server::tls};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub nats: NatsConfig,
    pub times: Times,
    /// Of this process: shown in logs, new at every start.
    pub instance: String,
    /// Of this edge: the same after a restart.
    pub edge_id: Token,
    /// Address of the listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where clients reach this edge, for instance `wss://edge1.example.org`; each one by the way on which it came if
    /// not given (`address`).
    pub public_url: Option<String>,
    /// Connections at once, WebSocket and HTTP together.
    pub max_connections: usize,
    /// Members of a group at once.
    pub max_group_members: usize,
    /// What one address and one user may do.
    pub limits: Limits,
    /// How many devices of a user may be connected at once; the same at all edges.
    pub devices: DevicePolicy,
    /// None: plain, something in front of the edge speaks TLS, or nobody does.
    pub tls: Option<tls::Files>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nats: NatsConfig::default(),
            times: Times::default(),
            instance: "edge".into(),
            edge_id: Token::parse("edge").expect("these are four letters"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            max_connections: limits::CONNECTIONS,
            max_group_members: limits::GROUP_MEMBERS,
            limits: Limits::default(),
            devices: DevicePolicy::default(),
            tls: None,
        }
    }
}
