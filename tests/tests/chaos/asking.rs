//! Questions over HTTP beside the devices: lists of threads, what was read, who has read a message. And the last lists,
//! when nothing moves any more.

use std::{collections::BTreeMap, time::Duration};

use natterjack_nats::{Layout, LeaderReader};
use natterjack_protocol::client::http::{ReceiptState, ReceiptsAnswer, ThreadsAnswer};
use natterjack_tests::kit::{Api, Cluster, User};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    raw::Phase,
    record::{Recorder, reading::ListedThread},
    rules::Rng,
    run::People,
};

/// Longer than an edge waits for an id that it does not know.
const ANSWER: Duration = Duration::from_secs(8);

/// While people write: somebody asks something through some edge, again and again.
pub async fn ask(cluster: &Cluster, people: &People, record: &Recorder, phase: watch::Receiver<Phase>, mut rng: Rng) {
    let edges: Vec<Api> = (0..cluster.spec().edges).map(|e| Api::new(cluster.edge_addr(e), None)).collect();
    while *phase.borrow() == Phase::Write {
        let (user, edge) = (&people.users[rng.index(people.users.len())], rng.index(edges.len()));
        let api = edges[edge].with_token(user.tokens.access.clone());
        match rng.range(0, 3) {
            0 => {
                let asked = record.now();
                if let Some(list) = answer(&api, Method::GET, "/v1/threads", None).await {
                    let rows = rows(list, asked, edge, user, false);
                    record.lock().reading.listed.extend(rows);
                }
            }
            1 => acknowledge(&api, user, record, &mut rng).await,
            _ => receipts(&api, user, record, &mut rng).await,
        }
        // A pace, from the seed.
        sleep(Duration::from_millis(rng.range(20, 200))).await;
    }
}

/// Nobody may be there, and then there is no answer.
async fn answer(api: &Api, method: Method, path: &str, body: Option<&Value>) -> Option<Value> {
    match timeout(ANSWER, api.try_call(method, path, body)).await {
        Ok(Ok((200, body))) => Some(body),
        _ => None,
    }
}

/// Something that a device of this user has shown.
async fn acknowledge(api: &Api, user: &User, record: &Recorder, rng: &mut Rng) {
    let name = user.id().as_str();
    let shown = {
        let r = record.lock();
        let all: Vec<_> = r.readers.iter().filter(|x| x.user == name).flat_map(|x| &x.shown).collect();
        // One of the newer ones: the others were read long ago.
        let newer = &all[all.len() - all.len().min(50)..];
        (!newer.is_empty()).then(|| newer[rng.index(newer.len())].message.clone())
    };
    let Some(message) = shown else { return };
    let asked = record.now();
    record.says_read(name, &message.thread, message.id, false);
    let body = json!({ "read": { message.thread.as_str(): message.id } });
    if let Some(answer) = answer(api, Method::POST, "/v1/ack", Some(&body)).await {
        let read: BTreeMap<String, u64> = serde_json::from_value(answer["read"].clone()).unwrap();
        for (thread, id) in read {
            record.told_stored(Some(asked), name, &thread, id);
        }
    }
}

/// Of a message of this user.
async fn receipts(api: &Api, user: &User, record: &Recorder, rng: &mut Rng) {
    let name = user.id().as_str();
    let written = {
        let r = record.lock();
        let all: Vec<_> = r.attempts.values().filter(|a| a.user == name && !a.acks.is_empty()).collect();
        (!all.is_empty()).then(|| all[rng.index(all.len())]).map(|a| (a.thread.clone(), a.acks[0].0))
    };
    let Some((thread, id)) = written else { return };
    let path = format!("/v1/threads/{thread}/messages/{id}/receipts");
    if let Some(answer) = answer(api, Method::GET, &path, None).await {
        let answer: ReceiptsAnswer = serde_json::from_value(answer).unwrap();
        for of in answer.users.iter().filter(|of| of.state == ReceiptState::Read) {
            record.told_receipt(name, of.user.as_str(), &thread, id);
        }
    }
}

fn rows(list: Value, asked: u64, edge: usize, user: &User, settled: bool) -> Vec<ListedThread> {
    let list: ThreadsAnswer = serde_json::from_value(list).unwrap();
    let row = |t: &natterjack_protocol::client::frame::ThreadSummary| ListedThread {
        asked,
        edge,
        user: user.id().to_string(),
        thread: t.thread.to_string(),
        last: t.last.as_ref().map(|e| e.id.0),
        read: t.read.map(|id| id.0),
        unread: t.unread.map(u64::from),
        settled,
    };
    list.threads.iter().map(row).collect()
}

/// Everybody's list through every edge, instead of the last ones before; and where the partitions end.
pub async fn settle(cluster: &Cluster, people: &People, record: &Recorder) {
    let mut listed = Vec::new();
    for edge in 0..cluster.spec().edges {
        for user in &people.users {
            let asked = record.now();
            let (status, list) = cluster.api(user, edge).get("/v1/threads").await;
            if status == 200 {
                listed.extend(rows(list, asked, edge, user, true));
            }
        }
    }
    let nats = cluster.connect_nats().await;
    let layout = Layout::load(&nats).await.unwrap();
    let (tail, mut ends) = (LeaderReader::new(&nats, layout), BTreeMap::new());
    for i in 0..people.users.len() {
        for thread in people.threads(i) {
            let end = tail.bounds(layout.partition(&thread)).await.unwrap().last;
            ends.insert(thread.to_string(), end.0);
        }
    }
    let reading = &mut record.lock().reading;
    reading.listed.retain(|row| !row.settled);
    reading.listed.extend(listed);
    reading.ends = ends;
}
