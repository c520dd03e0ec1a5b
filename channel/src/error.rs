//! What ends a partition's task or the whole role; everything that passes by itself is waited for where it happens.

use natterjack_nats::{ConnectError, ReadError, layout::LayoutError};
use natterjack_protocol::MsgId;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("channel: {0}")]
    Connect(#[from] ConnectError),
    #[error("channel: {0}")]
    Layout(#[from] LayoutError),
    #[error("reading the log: {0}")]
    Read(#[from] ReadError),
    /// The log does not have what was published from it.
    #[error("partition {p} of the log ends before {read}, which was published from it")]
    LostEnd { p: u32, read: MsgId },
    /// The client's task has ended: nothing more will be sent on it.
    #[error("publishing live events: {0}")]
    Connection(String),
    #[error("channel: a partition's task panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// What is known of a partition whose log lost its end.
    pub fn lost_end(&self) -> Option<MsgId> {
        match self {
            Self::LostEnd { read, .. } | Self::Read(ReadError::LostEnd { read, .. }) => Some(*read),
            _ => None,
        }
    }
}
