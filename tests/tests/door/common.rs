//! What the tests at the door share.

use std::time::Duration;

use natterjack_nats::{Layout, Tail};
use natterjack_protocol::{Cid, Most, MsgId, Thread};
use natterjack_tests::kit::{Api, Cluster, mint::now_ms};
use serde_json::{Value, json};

pub const SOON: Duration = Duration::from_secs(15);

pub fn cid() -> Cid {
    Cid::mint(now_ms(), rand::random())
}

pub fn text(cid: Cid, text: &str) -> Value {
    json!({ "cid": cid, "kind": "text", "body": { "text": text } })
}

/// Sends over HTTP.
pub async fn post(api: &Api, thread: &Thread, cid: Cid, words: &str) -> (u16, Value) {
    api.post(&format!("/v1/threads/{thread}/messages"), &text(cid, words)).await
}

pub fn id_of(answer: &(u16, Value)) -> MsgId {
    assert_eq!(answer.0, 200, "{}", answer.1);
    serde_json::from_value(answer.1["id"].clone()).unwrap()
}

/// The messages of a thread as the log has them.
pub async fn log_of(cluster: &Cluster, thread: &Thread) -> Vec<MsgId> {
    let nats = cluster.connect_nats().await;
    let tail = Tail::new(&nats, Layout::load(&nats).await.unwrap());
    let last = tail.last(thread).await.unwrap().map(|r| r.id).unwrap_or_default();
    let records = tail.after(thread, MsgId::NONE, last, Most::count(10_000)).await.unwrap();
    records.into_iter().filter(|r| !r.control).map(|r| r.id).collect()
}
