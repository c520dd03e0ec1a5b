//! Receipts to authors who are online. Out: what the cursors of this edge's users have come to is gathered for a second
//! and published once for each thread. In: what edges publish goes to the sessions of those who wrote. Lost ones do no
//! harm: the whole truth is asked for (`receipts`).
//!
//! Who gives no receipts publishes none and is pushed none.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use natterjack_nats::{KvBuckets, Nats, subjects};
use natterjack_protocol::{
    MsgId, Thread, UserId,
    client::{
        frame::{Receipt, ServerFrame},
        presence::PresenceChoice,
    },
    internal::live::Ephemeral,
};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::sessions::handle::SessionHandle;

/// What is gathered.
const GATHER: Duration = Duration::from_secs(1);
/// Receipts in one message: a user and two ids are at most 90 bytes.
const RECEIPTS: usize = 500;
/// What a user chose counts for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Users whose choice is kept; beyond that all are read anew.
const KEPT: usize = 10_000;
/// Receipts of a thread that wait to be pushed. Overflow: dropped.
const WAITING: usize = 1_024;

/// How far each of some users has come in a thread.
type ByUser = BTreeMap<UserId, Receipt>;

/// Who gives receipts, and so gets them.
struct Givers {
    buckets: KvBuckets,
    known: Mutex<HashMap<UserId, (bool, Instant)>>,
}

impl Givers {
    /// Not known counts as no.
    async fn gives(&self, user: &UserId) -> bool {
        let kept = self.known.lock().get(user).filter(|(_, at)| at.elapsed() < FRESH).map(|(gives, _)| *gives);
        if let Some(gives) = kept {
            return gives;
        }
        let Ok(settings) = self.buckets.settings(user).load().await else { return false };
        let settings = settings.unwrap_or_default().presence;
        let gives = settings.receipts && settings.choice != PresenceChoice::Hidden;
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(user.clone(), (gives, Instant::now()));
        gives
    }
}

/// Out of this edge. Clones share it.
#[derive(Clone)]
pub struct ReceiptPublisher(Arc<Outgoing>);

struct Outgoing {
    nats: Nats,
    givers: Givers,
    gathered: Mutex<HashMap<Thread, ByUser>>,
    tasks: TaskTracker,
}

impl ReceiptPublisher {
    pub fn new(nats: &Nats, buckets: &KvBuckets) -> Self {
        let givers = Givers { buckets: buckets.clone(), known: Mutex::default() };
        Self(Arc::new(Outgoing { nats: nats.clone(), givers, gathered: Mutex::default(), tasks: TaskTracker::new() }))
    }

    /// It is stored that the user has come so far; what was read was got.
    pub fn add(&self, user: &UserId, thread: &Thread, got: MsgId, read: MsgId) {
        let mut gathered = self.0.gathered.lock();
        let first = gathered.is_empty();
        let receipt = gathered.entry(thread.clone()).or_default().entry(user.clone()).or_insert_with(|| Receipt {
            user: user.clone(),
            got: MsgId::NONE,
            read: MsgId::NONE,
        });
        receipt.read = receipt.read.max(read);
        receipt.got = receipt.got.max(got).max(receipt.read);
        if first {
            self.0.tasks.spawn(self.0.clone().publish_soon());
        }
    }
}

impl Outgoing {
    async fn publish_soon(self: Arc<Self>) {
        sleep(GATHER).await;
        let gathered = std::mem::take(&mut *self.gathered.lock());
        for (thread, users) in gathered {
            let mut receipts = Vec::with_capacity(users.len());
            for (user, receipt) in users {
                if self.givers.gives(&user).await {
                    receipts.push(receipt);
                }
            }
            for some in receipts.chunks(RECEIPTS) {
                self.publish(&thread, some).await;
            }
        }
    }

    async fn publish(&self, thread: &Thread, receipts: &[Receipt]) {
        let payload = Ephemeral::Receipts { thread: thread.clone(), receipts: receipts.to_vec() }.encode();
        for subject in subjects::live_x_subjects_of(thread) {
            if let Err(e) = self.nats.publish(subject, payload.clone()).await {
                tracing::debug!(%thread, error = %e, "receipts are not published");
                return;
            }
        }
    }
}

/// What came for sessions here: those of authors.
struct Arrived {
    /// And since when each may know of the thread.
    to: Vec<(Arc<SessionHandle>, MsgId)>,
    thread: Thread,
    receipts: Vec<Receipt>,
}

/// Into this edge's sessions. Clones share it.
#[derive(Clone)]
pub struct ReceiptPushes(mpsc::Sender<Arrived>);

pub struct ReceiptInbox(mpsc::Receiver<Arrived>);

pub fn channel() -> (ReceiptPushes, ReceiptInbox) {
    let (arrived, inbox) = mpsc::channel(WAITING);
    (ReceiptPushes(arrived), ReceiptInbox(inbox))
}

impl ReceiptPushes {
    /// Waits for nothing.
    pub fn push(&self, to: Vec<(Arc<SessionHandle>, MsgId)>, thread: Thread, receipts: Vec<Receipt>) {
        if !to.is_empty() && self.0.try_send(Arrived { to, thread, receipts }).is_err() {
            metrics::counter!(crate::metrics::RECEIPTS_DROPPED).increment(1);
        }
    }
}

/// Until `stop`.
pub async fn run(buckets: KvBuckets, mut inbox: ReceiptInbox, stop: CancellationToken) {
    let givers = Givers { buckets, known: Mutex::default() };
    while let Some(Some(Arrived { to, thread, receipts })) = stop.run_until_cancelled(inbox.0.recv()).await {
        for (session, since) in to {
            let from_then = |id: MsgId| if id >= since { id } else { MsgId::NONE };
            let may_know =
                |r: &&Receipt| r.user != session.user && r.got >= since && !session.state.blocked_with(&r.user);
            let receipts = receipts.iter().filter(may_know);
            let receipts: Vec<Receipt> = receipts.map(|r| Receipt { read: from_then(r.read), ..r.clone() }).collect();
            if !receipts.is_empty() && givers.gives(&session.user).await {
                session.frame(&ServerFrame::Receipts { thread: thread.clone(), receipts });
            }
        }
    }
}
