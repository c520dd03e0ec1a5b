//! Step 5: the way from live subjects to sessions. One dispatcher task owns the NATS fan-in connection and every topic;
//! sessions talk to it through this handle.

pub mod dispatch;
pub mod echoes;
pub mod hub;
#[cfg(test)]
mod model;
pub mod round;
pub mod topic;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;
use natterjack_nats::{Buckets, Fence, Layout, Nats, ServerTime, Tail};
use natterjack_protocol::{MsgId, Refusal, Thread, Times};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{
    echoes::Echoes,
    round::Barrier,
    topic::{Place, TopicKey},
};
use crate::{
    clock::Clock,
    history::HistoryClient,
    members::Members,
    sessions::handle::{SessionHandle, SessionId},
};

/// Commands that may wait for the dispatcher; sessions wait for a place beyond that.
const COMMANDS: usize = 4_096;

pub(crate) enum Command {
    /// Seats a session on topics.
    Sit {
        session: Arc<SessionHandle>,
        topics: Vec<(TopicKey, Place)>,
    },
    /// The barrier behind every `Sit` before it, with the heads of these threads from the holders of their partitions. Without threads it is
    /// one of all partitions: a thread may begin on any.
    Barrier {
        session: SessionId,
        threads: Vec<(TopicKey, Thread)>,
        reply: oneshot::Sender<Barrier>,
    },
    /// Pages have gone out up to `floors`. `then` is queued behind what was collected meanwhile. The reply: false, if that was too much to
    /// be kept.
    GoLive {
        session: Arc<SessionHandle>,
        topics: Vec<(TopicKey, Vec<(u64, MsgId)>)>,
        then: Option<Bytes>,
        reply: oneshot::Sender<bool>,
    },
    /// The session is not in these any more.
    Stand {
        session: SessionId,
        topics: Vec<TopicKey>,
    },
    Leave {
        session: SessionId,
    },
}

/// What attach, join and the dispatcher's own jobs need. Clones share it.
#[derive(Clone)]
pub struct Live {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) nats: Nats,
    /// Beats open it.
    pub(crate) fence: Fence,
    pub(crate) buckets: Buckets,
    pub(crate) layout: Layout,
    pub(crate) times: Times,
    pub(crate) clock: Clock,
    pub(crate) members: Members,
    pub(crate) history: HistoryClient,
    pub(crate) tail: Tail,
    pub(crate) echoes: Echoes,
    /// A `Leave` found no place in the queue.
    pub(crate) unseen_leaves: Arc<AtomicBool>,
    /// Some topic waits for a gap to be filled.
    pub(crate) repairing: Arc<AtomicBool>,
}

impl Live {
    pub(crate) async fn command(&self, command: Command) -> Result<(), Refusal> {
        self.commands.send(command).await.map_err(|_| Refusal::unavailable("this edge is stopping"))
    }

    /// Ends a session's part here; idempotent, waits for nothing.
    pub fn detach(&self, session: &Arc<SessionHandle>) {
        session.gone.store(true, Relaxed);
        // With a full queue the dispatcher finds it by its mark, at its next tick.
        if self.commands.try_send(Command::Leave { session: session.id }).is_err() {
            self.unseen_leaves.store(true, Relaxed);
        }
    }

    /// The frontier of every partition, for `pong`. None while a gap is being filled: not everything below it has been shown yet.
    pub fn synced(&self) -> Option<String> {
        let frontiers = (0..self.layout.partitions).map(|p| self.clock.frontier(p).unwrap_or_default());
        (!self.repairing.load(Relaxed)).then(|| crate::attach::plan::encode_synced(self.layout.generation, frontiers))
    }
}

pub struct Started {
    pub live: Live,
    pub clock: Clock,
    pub members: Members,
    pub history: HistoryClient,
    /// Ends when `stop` is cancelled.
    pub task: tokio::task::JoinHandle<()>,
}

/// Connects the fan-in reader and starts the dispatcher.
pub async fn start(
    cfg: &crate::Config,
    nats: &Nats,
    time: ServerTime,
    layout: &Layout,
    buckets: &Buckets,
    stop: CancellationToken,
) -> Result<Started, natterjack_nats::connect::ConnectError> {
    let fanin = natterjack_nats::fanin::FanIn::connect(&cfg.nats, &format!("edge-{}-fanin", cfg.edge_id)).await?;
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let clock = Clock::new(layout.partitions, &cfg.times, time);
    let members = Members::default();
    let history = HistoryClient::new(nats.clone(), cfg.times.attach);
    let live = Live {
        commands,
        nats: nats.clone(),
        buckets: buckets.clone(),
        layout: *layout,
        times: cfg.times.clone(),
        clock: clock.clone(),
        fence: Fence::new(nats, *layout),
        members: members.clone(),
        history: history.clone(),
        tail: Tail::new(nats, *layout),
        echoes: Echoes::default(),
        unseen_leaves: Arc::default(),
        repairing: Arc::default(),
    };
    let task = tokio::spawn(dispatch::run(live.clone(), fanin, inbox, stop));
    Ok(Started { live, clock, members, history, task })
}
