//! Two edges and one bucket in memory, with paused time: who gets in, who is told, and what is written afterwards.

use std::sync::{
    Weak,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use futures_util::future::{BoxFuture, ready};
use natterjack_nats::LeaseStanding;
use natterjack_protocol::{
    Code, DeviceId,
    client::frame::DeviceClass,
    codec::Codec,
    internal::{devices::UserDevices, kv::EdgeInfo},
};

use super::*;
use crate::{members::Members, sessions::handle::SessionHandle};

fn id(s: &str) -> Token {
    Token::parse(s).unwrap()
}

#[derive(Default)]
struct Bucket {
    made: u64,
    values: HashMap<UserId, (UserDevices, u64)>,
    /// What a follower that lags by one write has of each.
    before: HashMap<UserId, (UserDevices, u64)>,
    revision: u64,
}

/// What all edges share.
#[derive(Default)]
struct Shared {
    bucket: Mutex<Bucket>,
    away: AtomicBool,
    edges: Mutex<HashMap<Token, Member>>,
}

/// One edge as the others know it.
struct Member {
    devices: Weak<Devices>,
    frozen: bool,
    /// Its lease has run out.
    over: bool,
}

struct Memory(Arc<Shared>);

impl Memory {
    fn away(&self) -> Option<KvError> {
        self.0.away.load(Relaxed).then(|| KvError::NoBucket("sessions".into()))
    }
}

impl DeviceWorld for Memory {
    fn load<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Option<(UserDevices, u64)>, KvError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.away().map_or_else(|| Ok(self.0.bucket.lock().values.get(user).cloned()), Err)
        })
    }

    fn load_near<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Option<(UserDevices, u64)>, KvError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.away().map_or_else(|| Ok(self.0.bucket.lock().before.get(user).cloned()), Err)
        })
    }

    fn store<'a>(
        &'a self,
        user: &'a UserId,
        value: &'a UserDevices,
        revision: u64,
    ) -> BoxFuture<'a, Result<u64, KvError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if let Some(away) = self.away() {
                return Err(away);
            }
            let mut bucket = self.0.bucket.lock();
            if bucket.values.get(user).map_or(0, |(_, r)| *r) != revision {
                return Err(KvError::Conflict);
            }
            bucket.revision += 1;
            let revision = bucket.revision;
            if let Some(before) = bucket.values.insert(user.clone(), (value.clone(), revision)) {
                bucket.before.insert(user.clone(), before);
            }
            Ok(revision)
        })
    }

    fn ask<'a>(&'a self, edge: &'a Token, request: &'a EdgeRequest) -> BoxFuture<'a, Option<EdgeAnswer>> {
        let there = self.0.edges.lock().get(edge).filter(|m| !m.frozen).and_then(|m| m.devices.upgrade());
        Box::pin(ready(there.map(|devices| devices.answer(request))))
    }

    fn lease<'a>(&'a self, edge: &'a Token) -> BoxFuture<'a, Result<Option<EdgeInfo>, KvError>> {
        let lives = self.0.edges.lock().get(edge).is_some_and(|m| !m.over);
        let listen = ([127, 0, 0, 1], 1).into();
        let lease = crate::address::lease(None, listen, false, "m".into(), edge.as_str());
        Box::pin(ready(Ok(lives.then_some(lease))))
    }

    fn made(&self) -> BoxFuture<'_, Result<Vec<u64>, KvError>> {
        Box::pin(ready(Ok(vec![self.0.bucket.lock().made])))
    }

    fn seems_gone(&self, place: &SessionPlace) -> bool {
        self.0.edges.lock().get(&place.edge).is_none_or(|m| m.over)
    }
}

struct TestEdge {
    devices: Arc<Devices>,
    sessions: Sessions,
    standing: LeaseStanding,
}

impl TestEdge {
    fn new(shared: &Arc<Shared>, name: &str) -> Self {
        let (sessions, standing) = (Sessions::default(), LeaseStanding::forever());
        let time = ServerTime::fixed(1_900_000_000_000);
        let own = (id(name), name.into());
        let (world, policy) = (Box::new(Memory(shared.clone())), DevicePolicy::default());
        let devices = Devices::new(world, own, policy, sessions.clone(), standing.clone(), time, &Times::default());
        let member = Member { devices: Arc::downgrade(&devices), frozen: false, over: false };
        shared.edges.lock().insert(id(name), member);
        Self { devices, sessions, standing }
    }

    /// A phone of `u` says hello and is in.
    async fn hello(&self, device: &str, had: Option<&Token>) -> Result<Phone, NotIn> {
        let actor = Actor { user: id("u"), device: id(device), family: id("f") };
        let hello = DeviceHello { class: DeviceClass::Phone, session: had.cloned(), ..DeviceHello::default() };
        let claim = self.devices.claim(&actor, hello).await?;
        let state = Members::default().enter(&actor.user);
        let (number, session) = (self.sessions.next_id(), claim.session().clone());
        let came = crate::address::Came::default();
        let handle = SessionHandle::new(number, session, actor.user, actor.device, Codec::Json, state, came);
        claim.enter(&handle, actor.family)?;
        Ok(Phone { handle, _claim: claim, sessions: self.sessions.clone() })
    }
}

struct Phone {
    handle: Arc<SessionHandle>,
    _claim: SessionClaim,
    sessions: Sessions,
}

impl Phone {
    fn session(&self) -> &Token {
        &self.handle.session
    }

    fn is_in(&self) -> bool {
        !self.handle.outbox.is_closed()
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.sessions.leave(&self.handle);
    }
}

fn two() -> (Arc<Shared>, TestEdge, TestEdge) {
    let shared = Arc::new(Shared::default());
    let (a, b) = (TestEdge::new(&shared, "e1"), TestEdge::new(&shared, "e2"));
    (shared, a, b)
}

/// Of an edge that nobody else is beside.
pub fn alone(sessions: &Sessions) -> Arc<Devices> {
    let (world, own) = (Box::new(Memory(Arc::default())), (id("e1"), "i1".into()));
    let (policy, time) = (DevicePolicy::default(), ServerTime::fixed(1_900_000_000_000));
    Devices::new(world, own, policy, sessions.clone(), LeaseStanding::forever(), time, &Times::default())
}

fn connected(shared: &Shared) -> Vec<DeviceId> {
    let bucket = shared.bucket.lock();
    let devices = bucket.values.get(&id("u")).map(|(v, _)| v.devices.clone()).unwrap_or_default();
    devices.into_iter().filter(|d| d.session.is_some()).map(|d| d.id).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}");
}

#[tokio::test(start_paused = true)]
async fn of_two_phones_at_two_edges_at_the_same_moment_one_is_in() {
    for _ in 0..50 {
        let (shared, e1, e2) = two();
        let (one, other) = tokio::join!(e1.hello("a", None), e2.hello("b", None));
        let both = [one.ok(), other.ok()];
        let inside: Vec<&Phone> = both.iter().flatten().filter(|p| p.is_in()).collect();
        assert_eq!(inside.len(), 1);
        assert_eq!(connected(&shared), [inside[0].handle.device.clone()]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_displaced_is_closed_first_and_comes_back_only_when_its_user_wants_it() {
    let (_shared, e1, e2) = two();
    let a = e1.hello("a", None).await.ok().unwrap();
    let b = e2.hello("b", None).await.ok().unwrap();
    assert!(!a.is_in() && b.is_in());
    let back = e1.hello("a", Some(a.session())).await.err().unwrap();
    assert!(matches!(back, NotIn::Displaced(by) if by.by.device == id("b")));
    assert!(b.is_in());
    let again = e1.hello("a", None).await.ok().unwrap();
    assert!(again.is_in() && !b.is_in());
}

#[tokio::test(start_paused = true)]
async fn the_same_device_replaces_itself_at_another_edge() {
    let (_shared, e1, e2) = two();
    let old = e1.hello("a", None).await.ok().unwrap();
    let new = e2.hello("a", Some(old.session())).await.ok().unwrap();
    until("the older connection is closed", || !old.is_in()).await;
    assert!(new.is_in());
}

/// A backup that was restored, or a second tab.
#[tokio::test(start_paused = true)]
async fn of_two_installations_with_one_device_id_the_last_one_stays() {
    let (_shared, e1, e2) = two();
    let one = e1.hello("a", None).await.ok().unwrap();
    let (other, again) = tokio::join!(e2.hello("a", None), e1.hello("a", Some(one.session())));
    let both = [other.ok(), again.ok()];
    let stays = || both.iter().flatten().filter(|p| p.is_in()).count() == 1;
    until("one is told that it was replaced", stays).await;
    assert!(!one.is_in());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_edge_is_waited_for_until_its_lease_is_over_and_checks_when_it_wakes_up() {
    let (shared, e1, e2) = two();
    let a = e1.hello("a", None).await.ok().unwrap();
    shared.edges.lock().get_mut(&id("e1")).unwrap().frozen = true;
    let opened = Instant::now();
    let runs_out = async {
        sleep(Duration::from_secs(7)).await;
        shared.edges.lock().get_mut(&id("e1")).unwrap().over = true;
    };
    let (b, ()) = tokio::join!(e2.hello("b", None), runs_out);
    assert!(b.is_ok() && opened.elapsed() >= Duration::from_secs(7));
    assert!(a.is_in(), "it is frozen");
    assert!(e1.devices.check_all(0).await);
    assert!(!a.is_in());
    assert!(e1.standing.stands());
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_keeps_its_lease_and_does_not_close_keeps_the_newcomer_out() {
    let (shared, e1, e2) = two();
    let a = e1.hello("a", None).await.ok().unwrap();
    shared.edges.lock().get_mut(&id("e1")).unwrap().frozen = true;
    let asked = Instant::now();
    let refused = e2.hello("b", None).await.err().unwrap();
    assert!(matches!(refused, NotIn::Refused(r) if r.code == Code::Unavailable));
    // Its client waits for the answer: what may come before that, the lease and the bucket, is included.
    let times = Times::default();
    assert!(asked.elapsed() >= times.edge_lease && asked.elapsed() + CLAIM * 2 < times.welcome);
    // Who comes next does not get in either.
    assert!(e2.hello("c", None).await.is_err() && a.is_in());
    shared.edges.lock().get_mut(&id("e1")).unwrap().frozen = false;
    assert!(e2.hello("c", None).await.is_ok() && !a.is_in());
}

#[tokio::test(start_paused = true)]
async fn without_the_bucket_people_come_in_and_are_counted_when_it_is_back() {
    let (shared, e1, e2) = two();
    shared.away.store(true, Relaxed);
    let (a, b) = (e1.hello("a", None).await.ok().unwrap(), e2.hello("b", None).await.ok().unwrap());
    assert!(a.is_in() && b.is_in(), "nobody is kept out");
    shared.away.store(false, Relaxed);
    until("one of them is told", || a.is_in() != b.is_in()).await;
    let inside = if a.is_in() { &a } else { &b };
    until("the other one is in", || connected(&shared) == [inside.handle.device.clone()]).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_bucket_is_filled_again() {
    let (shared, e1, _e2) = two();
    let a = e1.hello("a", None).await.ok().unwrap();
    let _watch = AbortOnDropHandle::new(tokio::spawn(e1.devices.clone().watch_bucket()));
    until("it says where its sessions are", || *e1.devices.sessions_in().borrow() == [0]).await;
    *shared.bucket.lock() = Bucket { made: 1, ..Bucket::default() };
    until("written again", || connected(&shared) == [id("a")]).await;
    until("and says so", || *e1.devices.sessions_in().borrow() == [1]).await;
    assert!(a.is_in());
}

#[tokio::test(start_paused = true)]
async fn a_place_is_given_back_and_messages_over_http_take_none() {
    let (shared, e1, e2) = two();
    let a = e1.hello("a", None).await.ok().unwrap();
    let b = e2.hello("b", None).await.ok().unwrap();
    let sends = async |device: &str| {
        let actor = Actor { user: id("u"), device: id(device), family: id("f") };
        e1.devices.may_send(&actor).await.map_err(|e| e.code)
    };
    drop(a);
    assert_eq!(sends("a").await, Err(Code::Displaced));
    assert_eq!((sends("b").await, sends("bot").await), (Ok(()), Ok(())));
    drop(b);
    until("nobody is in", || connected(&shared).is_empty()).await;
    assert_eq!(sends("a").await, Ok(()));
    e2.devices.released().await;
    // 5,000 that come and go leave nothing behind.
    for n in 0..5_000 {
        drop(e1.hello(if n % 2 == 0 { "a" } else { "b" }, None).await);
    }
    e1.devices.released().await;
    assert!(connected(&shared).is_empty() && e1.devices.claims.lock().is_empty());
}
