//! A stream itself: what its leader says of it, and its end.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use super::{API_TIMEOUT, JsError, StreamConfig, code, parse};
use crate::wire::client::Nats;

/// After an answer of somebody who does not lead.
const ASK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, Deserialize)]
pub(crate) struct StreamState {
    pub messages: u64,
    #[serde(default)]
    pub bytes: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    #[serde(default)]
    pub first_ts: String,
    #[serde(default)]
    pub last_ts: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamInfo {
    pub config: StreamConfig,
    pub created: String,
    pub state: StreamState,
    /// The leader's clock when it answered. Absent only from servers that are too old for us.
    #[serde(default)]
    pub ts: String,
    cluster: Option<Group>,
}

/// The servers of a stream, as the one that answers sees them: itself is not among the replicas, unless there is no
/// leader.
#[derive(Debug, Deserialize)]
struct Group {
    #[serde(default)]
    leader: String,
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize)]
struct Replica {
    #[serde(default)]
    name: String,
}

impl StreamInfo {
    /// While there is no leader, or a server has just started, a follower answers too, with whatever it has by then.
    fn is_of_the_leader(&self) -> bool {
        self.cluster
            .as_ref()
            .is_none_or(|group| !group.leader.is_empty() && group.replicas.iter().all(|r| r.name != group.leader))
    }
}

/// As the leader has it, so with everything that was acknowledged. None: there is no such stream.
pub(crate) async fn stream_info(nats: &Nats, stream: &str) -> Result<Option<StreamInfo>, JsError> {
    let deadline = Instant::now() + API_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let message = nats.inbox().request(&format!("$JS.API.STREAM.INFO.{stream}"), None, Bytes::new(), left).await?;
        match parse::<StreamInfo>(&message.payload) {
            Ok(info) if info.is_of_the_leader() => return Ok(Some(info)),
            Ok(_) if left <= ASK_AGAIN => return Err(JsError::NoLeader(stream.to_owned())),
            Ok(_) => tokio::time::sleep(ASK_AGAIN).await,
            Err(e) if e.err_code() == code::STREAM_NOT_FOUND => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

/// Whether a leader answers for this stream within `limit`. Also for one that is not there: nobody waits for that.
pub(crate) async fn has_leader(nats: &Nats, stream: &str, limit: Duration) -> bool {
    tokio::time::timeout(limit, stream_info(nats, stream)).await.is_ok_and(|answer| answer.is_ok())
}

/// Only of what a measurement made.
pub(crate) async fn delete_stream(nats: &Nats, name: &str) -> Result<(), JsError> {
    let message =
        nats.inbox().request(&format!("$JS.API.STREAM.DELETE.{name}"), None, Bytes::new(), API_TIMEOUT).await?;
    parse::<serde_json::Value>(&message.payload).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_leader_says_of_a_stream_is_taken() {
        let of_the_leader = |cluster: serde_json::Value| {
            let info = serde_json::json!({
                "config": StreamConfig::default(), "created": "", "cluster": cluster,
                "state": { "messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0 },
            });
            serde_json::from_value::<StreamInfo>(info).unwrap().is_of_the_leader()
        };
        let replicas = serde_json::json!([{ "name": "n1" }, { "name": "n2" }]);
        assert!(of_the_leader(serde_json::Value::Null), "a server without a cluster");
        assert!(of_the_leader(serde_json::json!({ "leader": "n0" })), "one replica");
        assert!(of_the_leader(serde_json::json!({ "leader": "n0", "replicas": replicas })));
        assert!(!of_the_leader(serde_json::json!({ "replicas": replicas })), "in an election");
        assert!(!of_the_leader(serde_json::json!({ "leader": "n1", "replicas": replicas })), "who has just started");
    }
}
