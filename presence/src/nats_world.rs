//! The I/O of a shard's loop: buckets that are watched, batches that are published, requests of edges, pings, sweeps.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures_util::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use natterjack_nats::{
    BucketRevision, KeyChange, KvBuckets, KvError, Nats, RpcError, ServerTime, WatchProgress, subjects,
};
use natterjack_protocol::{
    Token, UserId,
    internal::{
        devices::{DeviceEntry, UserDevices},
        kv::EdgeInfo,
        presence::{self, PresenceBatch, UserSettings},
        rpc::{EdgeAnswer, EdgeRequest},
    },
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    edges::EdgeRun,
    moment::Moment,
    shard::{Asked, Heard, ShardWorld, Swept},
    table::UserSessions,
};

/// An edge that lives answers in a millisecond; a machine that is out of memory takes longer.
const PING: Duration = Duration::from_secs(2);
/// A bucket that elects its leader answers in 4–9 s. What is not done by then is tried again.
const SWEEP: Duration = Duration::from_secs(10);
/// Sessions that begin and end are heard of together: changes are published as seldom.
const GATHERED: Duration = Duration::from_millis(100);
/// How often it is looked whether all was read.
const LOOK: Duration = Duration::from_millis(20);

/// A watch, and the revision up to which it has to come for "all was read".
struct Awaited {
    progress: WatchProgress,
    newest: u64,
}

pub struct NatsWorld {
    nats: Nats,
    buckets: KvBuckets,
    time: ServerTime,
    began: Instant,
    shard: u32,
    subject: String,
    changes: SelectAll<BoxStream<'static, Change>>,
    /// Of the sessions' bucket.
    sessions: WatchProgress,
    created_ms: u64,
    awaited: Vec<Awaited>,
    asks: mpsc::Receiver<Asked>,
}

/// What one of the watches brought.
enum Change {
    Devices(KeyChange<UserDevices>),
    Settings(KeyChange<UserSettings>),
    Edge(KeyChange<EdgeInfo>),
}

impl NatsWorld {
    /// Waits until the buckets answer.
    pub async fn open(
        nats: &Nats,
        buckets: &KvBuckets,
        time: &ServerTime,
        shard: u32,
        asks: mpsc::Receiver<Asked>,
    ) -> Result<Self, KvError> {
        let (devices, sessions) =
            buckets.devices_of_shard(shard).watch_gathered(GATHERED, BucketRevision::default()).await?;
        let (settings, settings_progress) = buckets.settings_of_shard(shard).watch_with_progress().await?;
        let (edges, edges_progress) = buckets.edges().watch_with_progress().await?;
        let mut awaited = Vec::new();
        for progress in [sessions.clone(), settings_progress, edges_progress] {
            let newest = progress.newest().await?;
            awaited.push(Awaited { progress, newest });
        }
        let changes = [
            devices.map(Change::Devices).boxed(),
            settings.map(Change::Settings).boxed(),
            edges.map(Change::Edge).boxed(),
        ];
        let created_ms = sessions.created_ms();
        Ok(Self {
            nats: nats.clone(),
            buckets: buckets.clone(),
            time: time.clone(),
            began: Instant::now(),
            shard,
            subject: subjects::presence(shard),
            changes: changes.into_iter().collect(),
            sessions,
            created_ms,
            awaited,
            asks,
        })
    }

    /// A revision below all of the bucket that is watched.
    pub fn floor(&self) -> u64 {
        presence::bucket_revision(self.created_ms, 0)
    }

    /// By what one sees whether the watch of the devices moves.
    pub fn progress(&self) -> WatchProgress {
        self.sessions.clone()
    }

    /// None: of no user, or no edge.
    fn take(&self, change: Change) -> Option<Heard> {
        Some(match change {
            // What comes now is of the next bucket.
            Change::Devices(_) if self.sessions.created_ms() != self.created_ms => Heard::BucketLost,
            Change::Devices(KeyChange { name, value, revision }) => Heard::Sessions {
                user: Token::parse(&name).ok()?,
                sessions: value.map(|devices| sessions_of(&devices)),
                revision: presence::bucket_revision(self.created_ms, revision),
            },
            Change::Settings(KeyChange { name, value, revision }) => Heard::Settings {
                user: Token::parse(name.split('.').next()?).ok()?,
                settings: value.unwrap_or_default().presence,
                revision,
            },
            Change::Edge(KeyChange { name, value: None, .. }) => Heard::LeaseGone { edge: Token::parse(&name).ok()? },
            Change::Edge(KeyChange { name, value: Some(info), .. }) => Heard::Lease {
                in_bucket: info.sessions_in.get(self.shard as usize) == Some(&self.created_ms),
                run: EdgeRun { edge: Token::parse(&name).ok()?, incarnation: info.incarnation },
            },
        })
    }
}

/// What a user's devices say of presence.
fn sessions_of(devices: &UserDevices) -> UserSessions {
    let run = |d: &DeviceEntry| {
        let place = d.session.as_ref()?;
        Some(EdgeRun { edge: place.edge.clone(), incarnation: place.incarnation.clone() })
    };
    UserSessions { runs: devices.devices.iter().filter_map(run).collect(), left: devices.last_left() }
}

impl ShardWorld for NatsWorld {
    fn now(&self) -> Moment {
        Moment { server: self.time.now_ms(), monotonic: self.began.elapsed().as_millis() as u64 }
    }

    async fn heard(&mut self) -> Heard {
        loop {
            if self.sessions.created_ms() != self.created_ms {
                return Heard::BucketLost;
            }
            if !self.awaited.is_empty() && self.awaited.iter().all(|a| a.progress.seen() >= a.newest) {
                self.awaited.clear();
                return Heard::AllRead;
            }
            tokio::select! {
                Some(change) = self.changes.next() => {
                    if let Some(heard) = self.take(change) {
                        return heard;
                    }
                }
                Some(asked) = self.asks.recv() => return Heard::Asked(asked),
                () = sleep(LOOK), if !self.awaited.is_empty() => {}
            }
        }
    }

    async fn publish(&mut self, batch: &PresenceBatch) {
        let bytes = rmp_serde::to_vec_named(batch).expect("a batch has string keys and plain values");
        // Edges find by its number that one is missing.
        if let Err(e) = self.nats.publish(self.subject.as_str(), bytes.into()).await {
            tracing::warn!(error = %e, "a batch of presence was not sent");
        }
    }

    fn ping(&self, run: EdgeRun) -> impl Future<Output = bool> + Send + 'static {
        let nats = self.nats.clone();
        async move {
            match nats.request::<_, EdgeAnswer>(&subjects::edge_service(&run.edge), &EdgeRequest::Ping, PING).await {
                Ok(answer) => *answer.incarnation == *run.incarnation,
                // Nobody listens there, says the server; or it was heard and not answered, if we are still connected.
                Err(RpcError::NoResponders) => false,
                Err(RpcError::Timeout) => nats.flush_barrier().await.is_err(),
                // Nothing is known: not silence, at any rate.
                Err(_) => true,
            }
        }
    }

    fn sweep(&self, user: UserId, run: EdgeRun, since: u64) -> impl Future<Output = Swept> + Send + 'static {
        let key = self.buckets.devices(&user);
        async move {
            let mut left = false;
            let swept = key.merge(|found: Option<UserDevices>| {
                let mut devices = found?;
                left = end_sessions(&mut devices, &run, since);
                left.then_some(devices)
            });
            match timeout(SWEEP, swept).await {
                Ok(Ok(())) if left => Swept::Yes,
                Ok(Ok(())) => Swept::Gone,
                Ok(Err(e)) => {
                    tracing::debug!(%user, error = %e, "a session of a dead edge is not swept yet");
                    Swept::Failed
                }
                Err(_) => Swept::Failed,
            }
        }
    }
}

/// Ends every session of this run. False: there is none.
fn end_sessions(devices: &mut UserDevices, run: &EdgeRun, since: u64) -> bool {
    let of_run =
        |d: &&DeviceEntry| d.session.as_ref().is_some_and(|s| s.edge == run.edge && *s.incarnation == *run.incarnation);
    let ended: Vec<_> = devices.devices.iter().filter(of_run).map(|d| (d.id.clone(), d.session.clone())).collect();
    let mut any = false;
    for (device, session) in ended {
        any |= session.is_some_and(|s| devices.leave(&device, &s.session, since, &[]));
    }
    any
}
