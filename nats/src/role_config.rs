//! What a role is given that keeps all of its state on NATS, and why it may not start.

use natterjack_protocol::Times;

use crate::{config::NatsConfig, layout_store::LayoutError, wire::client::NatsConnectError};

#[derive(Debug, Clone)]
pub struct RoleConfig {
    pub nats: NatsConfig,
    pub times: Times,
    /// The name of this instance in the role leases: different for every process.
    pub instance: String,
}

/// Why a role did not start; what happens later is waited for where it happens.
#[derive(Debug, thiserror::Error)]
pub enum RoleStartError {
    #[error(transparent)]
    Connect(#[from] NatsConnectError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
}
