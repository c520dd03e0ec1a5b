//! Step 5 of a message's life: live subjects into an edge, over a connection of our own (signatures first; the body follows).

use bytes::Bytes;

use crate::{config::NatsConfig, connect::ConnectError};

/// Chosen by the caller, one per subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// The last token of a live subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail8 {
    /// `.e`
    Event,
    /// `.x`
    Ephemeral,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FanInEvent {
    Msg { slot: Slot, subject_tail: Tail8, payload: Bytes, subject: Bytes },
    Reply { token: u64, payload: Bytes, no_responders: bool },
    Connected { epoch: u64 },
    Disconnected,
}

pub struct FanIn;

impl FanIn {
    pub async fn connect(_cfg: &NatsConfig, _name: &str) -> Result<Self, ConnectError> {
        Err(ConnectError::Config("not yet".into()))
    }
    pub fn subscribe(&mut self, _subject: &str, _slot: Slot) {}
    pub fn unsubscribe(&mut self, _slot: Slot) {}
    pub fn publish(&mut self, _subject: &str, _payload: &[u8]) {}
    pub fn request(&mut self, _subject: &str, _payload: &[u8]) -> u64 {
        0
    }
    pub async fn next_batch(&mut self, _out: &mut Vec<FanInEvent>) {}
}
