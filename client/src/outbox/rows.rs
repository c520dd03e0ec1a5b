//! What the outbox holds: a message as it is stored, and what is known of it while it waits.

use std::{collections::VecDeque, time::Instant};

use natterjack_protocol::{Body, Cid, Event, Kind, MsgId, Refusal, Thread, client::frame::ThreadSummary};
use tokio::sync::oneshot;

/// Names a message on this device from the moment it is written; keys grow, also over restarts of a file store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Local(pub u64);

/// A message that the log has not confirmed, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    pub local: Local,
    pub thread: Thread,
    pub kind: Kind,
    pub body: Body,
    /// None: never handed to a socket, so certainly not sent.
    pub cid: Option<Cid>,
    /// Refused for good; stays until it is discarded. `resend_too_old`: it is not known whether it was sent.
    pub failed: Option<Refusal>,
    /// An attempt ended without a clear answer: it may be in the log. It can be discarded all the same.
    pub unsure: bool,
}

/// A change for the store, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Insert(Box<Unsent>),
    Cid(Local, Option<Cid>),
    Fail(Local, Refusal),
    Remove(Local),
    /// How far the user has read, which the server does not have yet.
    Read(Thread, MsgId),
    /// The server has all that was read of this thread.
    ReadStored(Thread),
    /// What is known of a thread.
    Known(Box<ThreadSummary>),
    /// Up to when the list of threads was asked for.
    Listed(String),
    /// One that came.
    Message(Box<Event>),
}

/// Tells `send_and_wait` how it ended.
pub(crate) type Waiter = oneshot::Sender<Result<(Cid, MsgId), Refusal>>;

#[derive(Debug)]
pub(super) struct Item {
    pub row: Unsent,
    pub in_flight: bool,
    pub not_before: Option<Instant>,
    /// Since when its cid has been too far ahead of the log.
    pub ahead_since: Option<Instant>,
    pub refusals: u32,
    pub waiter: Option<Waiter>,
}

/// The messages of a thread.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// In order of writing; an item leaves it when it is settled.
    pub queue: VecDeque<Local>,
    pub in_flight: usize,
    /// One was refused for now: nothing is handed until those in flight have their answers, too.
    pub refused: bool,
}

/// A message to hand over, and the one before it in its thread that has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handed {
    pub local: Local,
    pub cid: Cid,
    pub behind: Option<Cid>,
}

/// How an item ended.
#[derive(Debug)]
pub(crate) enum Settled {
    Sent { local: Local, thread: Thread, cid: Cid, id: MsgId },
    Failed { local: Local, thread: Thread, refusal: Refusal },
}
