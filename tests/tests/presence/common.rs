//! What somebody was told of others, and when.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use natterjack_client::{Client, ClientEvent};
use natterjack_protocol::{
    UserId,
    client::{
        frame::{ClientFrame, ServerFrame, WatchQuery},
        presence::{PresenceOf, PresenceState},
    },
    codec::Codec,
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::{Cluster, ClusterSpec, RawWs, Received, User};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// On a machine that does other things, too.
pub const SOON: Duration = Duration::from_secs(5);

pub fn spec() -> ClusterSpec {
    ClusterSpec { presences: 1, ..ClusterSpec::default() }
}

type Told = Arc<Mutex<Vec<(Instant, PresenceOf)>>>;

/// Somebody who watches others through the SDK.
pub struct Friend {
    pub client: Client,
    told: Told,
    /// In these threads somebody was shown as typing.
    pub typing: Arc<Mutex<Vec<UserId>>>,
    _reads: AbortOnDropHandle<()>,
}

impl Friend {
    pub async fn watching(cluster: &Cluster, user: &User, edge: usize, others: &[&User]) -> Self {
        let (client, mut events) = cluster.client(user, edge).await;
        let (told, typing) = (Told::default(), Arc::<Mutex<Vec<UserId>>>::default());
        let reads = tokio::spawn({
            let (told, typing) = (told.clone(), typing.clone());
            async move {
                while let Some(event) = events.next().await {
                    match event {
                        ClientEvent::Presence { users } => {
                            told.lock().unwrap().extend(users.into_iter().map(|p| (Instant::now(), p)));
                        }
                        ClientEvent::Typing { user, .. } => typing.lock().unwrap().push(user),
                        _ => {}
                    }
                }
            }
        });
        client.watch(Some(others.iter().map(|u| u.id().clone()).collect())).await.unwrap();
        Self { client, told, typing, _reads: AbortOnDropHandle::new(reads) }
    }

    /// What was told of somebody, in order, each state once in a row.
    pub fn history(&self, of: &User) -> Vec<(Instant, PresenceState)> {
        let told = self.told.lock().unwrap();
        let mut all: Vec<(Instant, PresenceState)> =
            told.iter().filter(|(_, p)| p.user == *of.id()).map(|(at, p)| (*at, p.state)).collect();
        all.dedup_by_key(|(_, state)| *state);
        all
    }

    pub fn last(&self, of: &User) -> Option<PresenceOf> {
        self.told.lock().unwrap().iter().rev().find(|(_, p)| p.user == *of.id()).map(|(_, p)| p.clone())
    }

    pub fn state(&self, of: &User) -> Option<PresenceState> {
        self.last(of).map(|p| p.state)
    }

    pub async fn sees(&self, of: &User, state: PresenceState, limit: Duration) {
        eventually_within(&format!("{} is {state:?}", of.id()), limit, async || {
            let now = self.state(of);
            if now == Some(state) { Ok(()) } else { Err(format!("{now:?}; {:?}", self.history(of))) }
        })
        .await;
    }

    /// For so long it stays as it is.
    pub async fn stays(&self, of: &User, state: PresenceState, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            assert_eq!(self.state(of), Some(state), "{:?}", self.history(of));
            sleep(Duration::from_millis(50)).await; // between two looks
        }
    }
}

/// A socket that does not come back by itself.
pub struct Bare {
    ws: RawWs,
}

impl Bare {
    pub async fn connect(cluster: &Cluster, user: &User, edge: usize) -> Self {
        let ws = cluster.raw(user, edge, Codec::Json).await;
        Self { ws }
    }

    pub async fn watch(&mut self, users: Option<Vec<UserId>>) -> u32 {
        let r = self.ws.request();
        self.ws.send(&ClientFrame::Watch(WatchQuery { r, users })).await;
        r
    }

    /// The next frame that `wanted` takes; none: not in time.
    pub async fn frame<T>(&mut self, limit: Duration, mut wanted: impl FnMut(ServerFrame) -> Option<T>) -> Option<T> {
        timeout(limit, async {
            loop {
                match self.ws.next_within(limit * 2).await {
                    Received::Frame(frame) => {
                        if let Some(found) = wanted(frame) {
                            return found;
                        }
                    }
                    Received::Unknown => {}
                    Received::Closed(code, why) => panic!("closed: {code} {why}"),
                }
            }
        })
        .await
        .ok()
    }

    pub async fn bye(&mut self) {
        self.ws.send(&ClientFrame::Bye).await;
    }

    /// Reads until it is closed; keeps the connection alive.
    pub fn hold(mut self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            let ping = ClientFrame::Ping.encode(Codec::Json);
            // Its edge may be gone: that is what some tests are about.
            while self.ws.try_send_bytes(&ping).await.is_ok() {
                let closed = timeout(Duration::from_secs(10), async {
                    while !matches!(self.ws.next_within(Duration::from_secs(60)).await, Received::Closed(..)) {}
                });
                if closed.await.is_ok() {
                    return;
                }
            }
        }))
    }
}

/// States by user, from an answer over HTTP.
pub fn states(answer: &serde_json::Value) -> BTreeMap<String, String> {
    let users = answer["users"].as_array().cloned().unwrap_or_default();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    users.iter().map(|u| (text(&u["user"]), text(&u["state"]))).collect()
}
