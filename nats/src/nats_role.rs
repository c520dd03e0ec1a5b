//! Whom a process is to NATS: the user whose permissions it has, and the subjects that its answers come to.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatsRole {
    Edge,
    Channel,
    Persister,
    Presence,
    Provision,
    Doctor,
}

impl NatsRole {
    pub const ALL: [Self; 6] =
        [Self::Edge, Self::Channel, Self::Persister, Self::Presence, Self::Provision, Self::Doctor];

    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Channel => "channel",
            Self::Persister => "persister",
            Self::Presence => "presence",
            Self::Provision => "provision",
            Self::Doctor => "doctor",
        }
    }
}

/// The beginning of the subjects that answers come to.
pub(crate) fn inbox(role: Option<NatsRole>) -> String {
    role.map_or_else(|| "_INBOX".to_owned(), |role| format!("_INBOX_{}", role.name()))
}

/// True: the server said that this user may not do that. It is logged.
pub(crate) fn denied(said: &str) -> bool {
    let denied = said.to_ascii_lowercase().contains("permissions violation");
    if denied {
        metrics::counter!(crate::metrics::NATS_DENIED).increment(1);
        tracing::error!(
            said,
            "nats-server does not let this user; compare its permissions with `natterjack provision \
             --print-permissions`"
        );
    }
    denied
}
