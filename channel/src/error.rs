//! What ends a partition's task or the whole role; everything that passes by itself is waited for where it happens.

use natterjack_nats::{ConnectError, ReadError, layout::LayoutError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("channel: {0}")]
    Connect(#[from] ConnectError),
    #[error("channel: {0}")]
    Layout(#[from] LayoutError),
    #[error("reading the log: {0}")]
    Read(#[from] ReadError),
    /// The client's task has ended: nothing more will be sent on it.
    #[error("publishing live events: {0}")]
    Connection(String),
    #[error("channel: a partition's task panicked: {0}")]
    Panicked(String),
}
