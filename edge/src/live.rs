//! Step 5: the way from live subjects to sessions. One dispatcher task owns the fan-in connection and every topic, so
//! nothing in it is locked; everybody else talks to it through [`LiveHandle`].

pub mod batch_acks;
pub mod dispatch;
pub mod event;
pub mod feed;
pub mod heads_batch;
pub mod jobs;
#[cfg(test)]
mod model;
mod partitions;
mod sweep;
pub mod topic;
mod topics;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;
use natterjack_protocol::{MsgId, Refusal, Thread, internal::rpc::HeardOf};
use tokio::sync::{mpsc, oneshot};

use self::{event::TopicKey, heads_batch::Barrier, topic::VisibleRange};
use crate::{
    refusals::{EdgeError, refuse},
    sessions::handle::{SessionHandle, SessionId},
};

/// Commands that may wait for the dispatcher; beyond that the sender waits.
const COMMANDS: usize = 4_096;

/// Per thread (by its hash) up to where everything is in the pages.
pub type SkipUntil = Vec<(u64, MsgId)>;

enum Command {
    Subscribe {
        session: Arc<SessionHandle>,
        topics: Vec<(TopicKey, VisibleRange)>,
    },
    Heads {
        session: SessionId,
        threads: Vec<(TopicKey, Thread)>,
        reply: oneshot::Sender<Barrier>,
    },
    Heard {
        session: SessionId,
        threads: Vec<(TopicKey, Thread)>,
        reply: oneshot::Sender<Vec<Option<HeardOf>>>,
    },
    GoLive {
        session: Arc<SessionHandle>,
        topics: Vec<(TopicKey, SkipUntil)>,
        then: Option<Bytes>,
        reply: oneshot::Sender<bool>,
    },
    Unsubscribe {
        session: SessionId,
        topics: Vec<TopicKey>,
    },
    Detach {
        session: SessionId,
    },
}

#[derive(Default)]
struct Flags {
    /// A `Detach` found no room in the queue.
    missed_detach: AtomicBool,
    /// Some topic waits for a gap to be filled.
    repairing: AtomicBool,
}

/// The dispatcher's end of the commands.
pub struct LiveInbox {
    commands: mpsc::Receiver<Command>,
    flags: Arc<Flags>,
}

/// Commands for the dispatcher. Clones share it.
#[derive(Clone)]
pub struct LiveHandle {
    commands: mpsc::Sender<Command>,
    flags: Arc<Flags>,
}

pub fn channel() -> (LiveHandle, LiveInbox) {
    let (sender, receiver) = mpsc::channel(COMMANDS);
    let flags = Arc::<Flags>::default();
    (LiveHandle { commands: sender, flags: flags.clone() }, LiveInbox { commands: receiver, flags })
}

impl LiveHandle {
    async fn command(&self, command: Command) -> Result<(), Refusal> {
        self.commands.send(command).await.map_err(|_| refuse(EdgeError::Stopping))
    }

    /// Subscribes a session to topics. It catches up on each until [`LiveHandle::go_live`].
    pub async fn subscribe(
        &self,
        session: &Arc<SessionHandle>,
        topics: Vec<(TopicKey, VisibleRange)>,
    ) -> Result<(), Refusal> {
        self.command(Command::Subscribe { session: session.clone(), topics }).await
    }

    /// The barrier behind every `subscribe` before it, with the heads of these threads from the holders of their
    /// partitions. Without threads it is one of all partitions: a thread may begin on any. Waits until each has
    /// answered.
    pub async fn heads(&self, session: SessionId, threads: Vec<(TopicKey, Thread)>) -> Result<Barrier, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Heads { session, threads, reply }).await?;
        answer.await.map_err(|_| refuse(EdgeError::Stopping))
    }

    /// What came here of each thread. None: the session is not subscribed to it, or something of it is missing.
    pub async fn heard(
        &self,
        session: SessionId,
        threads: Vec<(TopicKey, Thread)>,
    ) -> Result<Vec<Option<HeardOf>>, Refusal> {
        let (reply, heard) = oneshot::channel();
        self.command(Command::Heard { session, threads, reply }).await?;
        heard.await.map_err(|_| refuse(EdgeError::Stopping))
    }

    /// Pages have gone out as far as `topics` say. `then` is queued behind what was held meanwhile. False: that was too
    /// much to be held.
    pub async fn go_live(
        &self,
        session: &Arc<SessionHandle>,
        topics: Vec<(TopicKey, SkipUntil)>,
        then: Option<Bytes>,
    ) -> Result<bool, Refusal> {
        let (reply, live) = oneshot::channel();
        self.command(Command::GoLive { session: session.clone(), topics, then, reply }).await?;
        live.await.map_err(|_| refuse(EdgeError::Stopping))
    }

    pub async fn unsubscribe(&self, session: SessionId, topics: Vec<TopicKey>) -> Result<(), Refusal> {
        self.command(Command::Unsubscribe { session, topics }).await
    }

    /// Ends a session's part here; idempotent, waits for nothing.
    pub fn detach(&self, session: &Arc<SessionHandle>) {
        session.gone.store(true, Relaxed);
        // With a full queue the dispatcher finds it by its mark, at its next tick.
        if self.commands.try_send(Command::Detach { session: session.id }).is_err() {
            self.flags.missed_detach.store(true, Relaxed);
        }
    }

    /// While a gap is being filled, not everything below the frontiers has been shown.
    pub fn is_repairing(&self) -> bool {
        self.flags.repairing.load(Relaxed)
    }
}
