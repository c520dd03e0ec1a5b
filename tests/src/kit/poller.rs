//! A client without a WebSocket: it polls, keeps what the protocol says it has to keep, and fills what it is told is
//! missing.

use std::collections::BTreeMap;

use natterjack_protocol::{
    Event, MsgId, Refusal, Thread,
    client::frame::{Page, ServerFrame},
    codec::Codec,
};
use serde_json::{Value, json};

use super::{api::Api, cluster::Cluster, user::User};

pub struct Poller {
    pub user: User,
    /// Tried in turn, the next one after a failure.
    apis: Vec<Api>,
    at: usize,
    pub cursors: BTreeMap<Thread, MsgId>,
    pub synced: Option<String>,
    /// Of the last answer.
    pub session: Option<String>,
    /// Every event shown, in the order of being shown.
    pub shown: Vec<Event>,
    /// Frames that are neither pages nor events.
    pub told: Vec<ServerFrame>,
}

impl Poller {
    /// Polls `edges`, the first one first.
    pub fn new(cluster: &Cluster, user: &User, edges: impl IntoIterator<Item = usize>) -> Self {
        Self::over(user, edges.into_iter().map(|e| cluster.api(user, e)))
    }

    pub fn over(user: &User, apis: impl IntoIterator<Item = Api>) -> Self {
        Self {
            user: user.clone(),
            apis: apis.into_iter().collect(),
            at: 0,
            cursors: BTreeMap::new(),
            synced: None,
            session: None,
            shown: Vec::new(),
            told: Vec::new(),
        }
    }

    pub fn api(&self) -> &Api {
        &self.apis[self.at % self.apis.len()]
    }

    /// The edge it talks to now is not to be asked again first.
    pub fn go_elsewhere(&mut self) {
        self.at += 1;
    }

    /// The body of one poll's request.
    pub fn ask(&self, wait_ms: u64) -> Value {
        let mut ask = json!({ "cursors": self.cursors, "wait_ms": wait_ms });
        if let Some(synced) = &self.synced {
            ask["synced"] = json!(synced);
        }
        if let Some(session) = &self.session {
            ask["session"] = json!(session);
        }
        ask
    }

    /// One poll. None: this edge could not; the next call asks another one.
    pub async fn poll(&mut self, wait_ms: u64) -> Option<Value> {
        let ask = self.ask(wait_ms);
        match self.api().try_call(reqwest::Method::POST, "/v1/sync", Some(&ask)).await {
            Ok((200, answer)) => self.take(&answer).await.then_some(answer),
            Ok((status, body)) => {
                let refusal: Refusal =
                    serde_json::from_value(body.clone()).unwrap_or_else(|e| panic!("{status} {body}: {e}"));
                assert!(status == 503 || status == 429, "{status} {refusal:?}");
                self.go_elsewhere();
                None
            }
            // Killed, or not back yet.
            Err(_) => {
                self.go_elsewhere();
                None
            }
        }
    }

    /// As docs/protocol.md says; false: a gap could not be filled now, nothing was kept.
    pub async fn take(&mut self, answer: &Value) -> bool {
        let moved: BTreeMap<Thread, MsgId> = serde_json::from_value(answer["cursors"].clone()).unwrap();
        let mut cursors = self.cursors.clone();
        let mut news: BTreeMap<Thread, Vec<Event>> = BTreeMap::new();
        let mut told = Vec::new();
        for frame in answer["frames"].as_array().unwrap() {
            let frame = ServerFrame::decode(Codec::Json, frame.to_string().as_bytes())
                .unwrap()
                .expect("a frame of this version");
            match frame {
                ServerFrame::Page(page) => news.entry(page.thread.clone().unwrap()).or_default().extend(page.events),
                ServerFrame::Event(event) => news.entry(event.thread.clone()).or_default().push(*event),
                other => told.push(other),
            }
        }
        for (thread, events) in &mut news {
            if let Some(id) = moved.get(thread) {
                cursors.insert(thread.clone(), *id);
                continue;
            }
            // Downwards from the first event until it meets the cursor.
            let cursor = cursors.get(thread).copied().unwrap_or_default();
            let mut first = events.first().map_or(MsgId::MAX, |e| e.id);
            loop {
                let path = format!("/v1/threads/{thread}/messages?before={first}&limit=200");
                let Ok((200, body)) = self.api().try_call(reqwest::Method::GET, &path, None).await else {
                    self.go_elsewhere();
                    return false;
                };
                let page: Page = serde_json::from_value(body).unwrap();
                let below: Vec<Event> = page.events.into_iter().filter(|e| e.id > cursor).collect();
                first = below.first().map_or(first, |e| e.id);
                let met = page.prev <= cursor || below.is_empty();
                events.splice(0..0, below);
                if met {
                    break;
                }
            }
            if let Some(last) = events.last() {
                cursors.insert(thread.clone(), last.id);
            }
        }
        for event in news.into_values().flatten() {
            let had = self.cursors.get(&event.thread).is_some_and(|c| event.id <= *c);
            if !had {
                self.shown.push(event);
            }
        }
        self.session = answer["session"].as_str().map(str::to_owned);
        self.told.extend(told);
        self.cursors = cursors;
        if let Some(synced) = answer["synced"].as_str() {
            self.synced = Some(synced.to_owned());
        }
        true
    }

    /// Messages of a thread in the order they were shown.
    pub fn messages(&self, thread: &Thread) -> Vec<MsgId> {
        self.shown.iter().filter(|e| e.thread == *thread && !e.kind.is_control()).map(|e| e.id).collect()
    }
}
