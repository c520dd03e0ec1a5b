//! What the modules of this binary share: HTTP answers taken apart, a whole history read, a look at every log.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use natterjack_nats::{KvBuckets, Layout, LeaderReader, Nats, Positions, calls::directory::rebuild_group};
use natterjack_protocol::{
    Code, Event, GroupId, Kind, MsgId, Retry, Thread, UserId,
    client::frame::ServerFrame,
    log::{Role, fold::GroupState},
};
use natterjack_testkit::eventually_within;
use natterjack_tests::kit::paging::whole;
use natterjack_tests::kit::{Api, Cluster, RawWs, Received, User};
use serde_json::{Value, json};

pub const SOON: Duration = Duration::from_secs(10);
/// Elections and reconnects are in it.
pub const LONG: Duration = Duration::from_secs(40);

/// The body of a success, or a panic with what came instead.
#[track_caller]
pub fn good((status, body): (u16, Value)) -> Value {
    assert!((200..300).contains(&status), "{status} {body}");
    body
}

/// A typed refusal with the HTTP status of its code.
#[track_caller]
pub fn refused((status, body): (u16, Value), code: Code) {
    assert_eq!((status, body["code"].as_str()), (code.http_status(), Some(code.name())), "{body}");
    assert!(body["message"].as_str().is_some_and(|m| !m.is_empty()), "an error says what to do: {body}");
    if code.retry() == Retry::Later {
        assert!(body["retry_after_ms"].is_u64(), "a retryable error says when: {body}");
    }
}

pub fn gid(thread: &Thread) -> GroupId {
    match thread {
        Thread::Group { gid } => gid.clone(),
        Thread::Dm { .. } => panic!("{thread} is no group"),
    }
}

pub fn ids<'a>(users: impl IntoIterator<Item = &'a User>) -> Vec<String> {
    users.into_iter().map(|u| u.id().to_string()).collect()
}

pub async fn new_group(api: &Api, name: &str, others: &[User]) -> Thread {
    let made = good(api.post("/v1/groups", &json!({ "name": name, "users": ids(others) })).await);
    made["thread"].as_str().unwrap().parse().unwrap()
}

pub async fn add(api: &Api, thread: &Thread, user: &User) -> (u16, Value) {
    api.post(&format!("/v1/groups/{}/members", gid(thread)), &json!({ "users": ids([user]) })).await
}

pub async fn remove(api: &Api, thread: &Thread, user: &User) -> (u16, Value) {
    api.delete(&format!("/v1/groups/{}/members/{}", gid(thread), user.id())).await
}

pub async fn leave(api: &Api, thread: &Thread) -> (u16, Value) {
    api.post(&format!("/v1/groups/{}/leave", gid(thread)), &json!({})).await
}

pub async fn role(api: &Api, thread: &Thread, user: &User, role: Role) -> (u16, Value) {
    api.put(&format!("/v1/groups/{}/members/{}/role", gid(thread), user.id()), &json!({ "role": role })).await
}

/// Who is in a group now, as a member is told.
pub async fn members(api: &Api, thread: &Thread) -> BTreeMap<UserId, Role> {
    let group = good(api.get(&format!("/v1/groups/{}", gid(thread))).await);
    let list = group["members"].as_array().unwrap().iter();
    list.map(|m| {
        (serde_json::from_value(m["user"].clone()).unwrap(), serde_json::from_value(m["role"].clone()).unwrap())
    })
    .collect()
}

pub fn id_of(changed: &Value) -> MsgId {
    serde_json::from_value(changed["id"].clone()).unwrap()
}

pub fn texts(events: &[Event]) -> Vec<String> {
    events.iter().filter_map(|e| e.body.text.clone()).collect()
}

pub async fn history_texts(api: &Api, thread: &Thread) -> Vec<String> {
    texts(&whole(api, thread, false).await)
}

/// Events of a session, live ones and those of pages alike, until the text `last`, each thread in order.
pub async fn seen_until(ws: &mut RawWs, last: &str) -> Vec<Event> {
    frames_until(ws, last).await.0
}

/// Likewise, and the other frames that came between.
pub async fn frames_until(ws: &mut RawWs, last: &str) -> (Vec<Event>, Vec<ServerFrame>) {
    let (mut events, mut others): (Vec<Event>, _) = (Vec::new(), Vec::new());
    let mut earlier = std::mem::take(&mut ws.passed_over).into_iter();
    while !events.iter().any(|e| e.body.text.as_deref() == Some(last)) {
        let next = match earlier.next() {
            Some(frame) => Received::Frame(frame),
            None => ws.next().await,
        };
        match next {
            Received::Frame(ServerFrame::Event(e)) => events.push(*e),
            Received::Frame(ServerFrame::Page(p)) if p.r.is_none() => events.extend(p.events),
            Received::Frame(other) => others.push(other),
            Received::Unknown => {}
            Received::Closed(code, why) => {
                panic!("closed with {code} {why:?} before {last:?}; seen {:?}", texts(&events))
            }
        }
    }
    ws.passed_over = earlier.collect();
    (in_order(events), others)
}

/// As a client takes them: what it has already is dropped (a page and the live path may overlap); what is new is newer.
pub fn in_order(events: Vec<Event>) -> Vec<Event> {
    let (mut newest, mut had) = (BTreeMap::<Thread, MsgId>::new(), HashSet::new());
    let mut taken = Vec::new();
    for e in events {
        if had.insert((e.thread.clone(), e.id)) {
            let before = newest.insert(e.thread.clone(), e.id);
            assert!(before.is_none_or(|b| b < e.id), "{} comes after {before:?}", e.id);
            taken.push(e);
        }
    }
    taken
}

/// The state of the installation beside its processes: KV, log, directory.
pub struct Insight {
    pub nats: Nats,
    pub layout: Layout,
    pub buckets: KvBuckets,
    pub tail: LeaderReader,
}

impl Insight {
    pub async fn of(cluster: &Cluster) -> Self {
        let nats = cluster.connect_nats().await;
        let layout = Layout::load(&nats).await.unwrap();
        Self { buckets: KvBuckets::new(&nats, layout), tail: LeaderReader::new(&nats, layout), nats, layout }
    }

    pub async fn group(&self, thread: &Thread) -> Option<GroupState> {
        self.buckets.group(&gid(thread)).load().await.unwrap()
    }

    /// What archive and log say: the key is deleted and built again from them.
    pub async fn rebuilt_group(&self, thread: &Thread) -> GroupState {
        let gid = gid(thread);
        self.buckets.group(&gid).delete().await.unwrap();
        assert!(self.group(thread).await.is_none(), "the key is gone");
        self.nats.call(&rebuild_group(&gid), SOON).await.unwrap();
        self.group(thread).await.expect("built again")
    }

    /// Waits until the archive has everything that the log has now.
    pub async fn archived(&self) {
        let positions = Positions::new(&self.buckets, "persister");
        for p in 0..self.layout.partitions {
            let bounds = self.tail.bounds(p).await.unwrap();
            let last = if bounds.entries == 0 { MsgId::NONE } else { bounds.last };
            eventually_within("the archive has it all", Duration::from_secs(20), async || {
                let at = positions.load(p).await.unwrap().map_or(MsgId::NONE, |at| at.id);
                if at >= last { Ok(()) } else { Err(format!("partition {p}: {at} of {last}")) }
            })
            .await;
        }
    }
}

/// Nobody panicked, nobody died.
pub fn all_well(cluster: &Cluster) {
    for p in cluster.processes() {
        assert!(p.is_running(), "{} has ended:\n{}", p.name(), p.log_tail(20));
        let log = p.log();
        assert!(!log.contains("panicked at"), "{} has panicked:\n{}", p.name(), p.log_tail(40));
    }
}

pub fn kinds(events: &[Event]) -> Vec<Kind> {
    events.iter().map(|e| e.kind).collect()
}

/// What a new session gets until it is attached: events of its pages, and refusals.
pub async fn pages_end(ws: &mut RawWs) -> (Vec<Event>, Vec<natterjack_protocol::Refusal>) {
    let (mut events, mut refusals) = (Vec::new(), Vec::new());
    loop {
        match ws.next().await {
            Received::Frame(ServerFrame::Page(p)) => events.extend(p.events),
            Received::Frame(ServerFrame::Event(e)) => events.push(*e),
            Received::Frame(ServerFrame::Error { refusal, .. }) => refusals.push(refusal),
            Received::Frame(ServerFrame::Attached { .. }) => return (events, refusals),
            Received::Closed(code, why) => panic!("closed with {code} {why:?}; {refusals:?}"),
            _ => {}
        }
    }
}
