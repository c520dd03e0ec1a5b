//! The JetStream API in raw requests: async-nats hides the clock of STREAM.INFO, has no batch Direct Get, and keeps
//! what never answers.

use std::time::Duration;

pub(crate) use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::{HeaderMap, Message, StatusCode};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::wire::{client::Nats, inbox::NatsRequestError, rfc3339};

/// A leader answers in well under a millisecond; longer means that there is none.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(3);
/// For all answers to one batch of reads.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After an answer of somebody who does not lead.
const ASK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) mod code {
    pub(crate) const NO_MESSAGE: u64 = 10037;
    pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;
    pub(crate) const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10164;
    pub(crate) const STORE_FAILED: u64 = 10077;
    pub(crate) const STORAGE_EXCEEDED: u64 = 10047;
    pub(crate) const INSUFFICIENT_RESOURCES: u64 = 10023;
    pub(crate) const MESSAGE_TOO_LARGE: u64 = 10054;
    pub(crate) const HEADER_TOO_LARGE: u64 = 10097;
    pub(crate) const DUPLICATE_IN_PROCESS: u64 = 10158;
    pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
    pub(crate) const STREAM_NAME_EXISTS: u64 = 10058;
    pub(crate) const SEALED: u64 = 10109;
    pub(crate) const NO_BATCHES: u64 = 10205;
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum JsError {
    #[error("JetStream: {0}")]
    Request(#[from] NatsRequestError),
    #[error("JetStream: {description} ({err_code})")]
    Api { code: u64, err_code: u64, description: String },
    #[error("JetStream: {0} has no leader now")]
    NoLeader(String),
    #[error("JetStream answered what we do not understand: {0}")]
    Broken(String),
}

impl JsError {
    pub(crate) fn err_code(&self) -> u64 {
        match self {
            Self::Api { err_code, .. } => *err_code,
            _ => 0,
        }
    }
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl From<ApiError> for JsError {
    fn from(e: ApiError) -> Self {
        Self::Api { code: e.code, err_code: e.err_code, description: e.description }
    }
}

#[derive(Deserialize)]
struct OnlyError {
    error: Option<ApiError>,
}

/// The answer, or the error it carries.
pub(crate) fn parse<A: DeserializeOwned>(payload: &[u8]) -> Result<A, JsError> {
    let broken = |e: serde_json::Error| JsError::Broken(e.to_string());
    if let Some(e) = serde_json::from_slice::<OnlyError>(payload).map_err(broken)?.error {
        return Err(e.into());
    }
    serde_json::from_slice(payload).map_err(broken)
}

pub(crate) fn json<Q: Serialize>(q: &Q) -> Bytes {
    serde_json::to_vec(q).expect("requests have string keys and plain values").into()
}

/// `subject` without the prefix `$JS.API.`.
pub(crate) async fn api<Q: Serialize, A: DeserializeOwned>(nats: &Nats, subject: &str, q: &Q) -> Result<A, JsError> {
    let message = nats.inbox().request(&format!("$JS.API.{subject}"), None, json(q), API_TIMEOUT).await?;
    parse(&message.payload)
}

/// Only of what a measurement made.
pub(crate) async fn delete_stream(nats: &Nats, name: &str) -> Result<(), JsError> {
    let message =
        nats.inbox().request(&format!("$JS.API.STREAM.DELETE.{name}"), None, Bytes::new(), API_TIMEOUT).await?;
    parse::<serde_json::Value>(&message.payload).map(drop)
}

/// What a stream stored, or had stored.
#[derive(Debug)]
pub(crate) struct PubAck {
    pub seq: u64,
    pub duplicate: bool,
}

pub(crate) async fn publish(
    nats: &Nats,
    subject: &str,
    headers: Option<HeaderMap>,
    payload: Bytes,
    timeout: Duration,
) -> Result<PubAck, JsError> {
    /// Read once: there is one of these for each message.
    #[derive(Deserialize)]
    struct AckOrError {
        seq: Option<u64>,
        #[serde(default)]
        duplicate: bool,
        error: Option<ApiError>,
    }
    let message = nats.inbox().request(subject, headers, payload, timeout).await?;
    match serde_json::from_slice(&message.payload).map_err(|e| JsError::Broken(e.to_string()))? {
        AckOrError { error: Some(e), .. } => Err(e.into()),
        AckOrError { seq: Some(seq), duplicate, .. } => Ok(PubAck { seq, duplicate }),
        AckOrError { .. } => Err(JsError::Broken("an acknowledgement without its sequence".into())),
    }
}

/// Stores all of them in this order and nothing in between that is not stored before; an error: the first few of them
/// may be stored.
pub(crate) async fn publish_batch(
    nats: &Nats,
    subject: &str,
    messages: Vec<(HeaderMap, Bytes)>,
    timeout: Duration,
) -> Result<(), JsError> {
    #[derive(Deserialize)]
    struct End {
        seq: Option<u64>,
        count: Option<usize>,
        error: Option<ApiError>,
    }
    let many = messages.len();
    let message = nats.inbox().batch(subject, messages, timeout).await?;
    match serde_json::from_slice(&message.payload).map_err(|e| JsError::Broken(e.to_string()))? {
        End { error: Some(e), .. } => Err(e.into()),
        End { count: Some(count), .. } if count == many => Ok(()),
        // Of a server before 2.14, which takes each for a message by itself.
        End { seq: Some(_), count: None, .. } => Err(JsError::Api {
            code: 400,
            err_code: code::NO_BATCHES,
            description: "this nats-server knows no batches".into(),
        }),
        End { .. } => Err(JsError::Broken("a batch ended early".into())),
    }
}

/// A stored message as its stream's leader has it.
#[derive(Debug)]
pub(crate) struct StoredMessage {
    pub subject: String,
    pub seq: u64,
    pub ts: u64,
    /// Empty when it was read by Direct Get.
    pub headers: String,
    pub payload: Bytes,
}

#[derive(Deserialize)]
struct MsgGet {
    message: RawStored,
}

#[derive(Deserialize)]
struct RawStored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Get<'a> {
    Seq(u64),
    LastBySubj(&'a str),
}

/// Always answered by the leader, so it has everything that was acknowledged (a Direct Get may come from a follower).
pub(crate) async fn leader_get(nats: &Nats, stream: &str, get: Get<'_>) -> Result<Option<StoredMessage>, JsError> {
    leader_get_raw(nats, stream, &get).await
}

/// The first message at or after `seq` on a literal subject.
pub(crate) async fn leader_next(
    nats: &Nats,
    stream: &str,
    subject: &str,
    seq: u64,
) -> Result<Option<StoredMessage>, JsError> {
    #[derive(Serialize)]
    struct Next<'a> {
        seq: u64,
        next_by_subj: &'a str,
    }
    leader_get_raw(nats, stream, &Next { seq, next_by_subj: subject }).await
}

async fn leader_get_raw<Q: Serialize>(nats: &Nats, stream: &str, q: &Q) -> Result<Option<StoredMessage>, JsError> {
    let raw = match api::<_, MsgGet>(nats, &format!("STREAM.MSG.GET.{stream}"), q).await {
        Ok(got) => got.message,
        Err(e) if e.err_code() == code::NO_MESSAGE => return Ok(None),
        Err(e) => return Err(e),
    };
    let decode = |s: &str| BASE64_STANDARD.decode(s).map_err(|e| JsError::Broken(e.to_string()));
    Ok(Some(StoredMessage {
        ts: rfc3339::parse_ms(&raw.time).ok_or_else(|| JsError::Broken(format!("time {}", raw.time)))?,
        headers: String::from_utf8_lossy(&decode(&raw.hdrs)?).into_owned(),
        payload: decode(&raw.data)?.into(),
        subject: raw.subject,
        seq: raw.seq,
    }))
}

/// What a batch Direct Get found: by the leader or by a follower, which may have only what it had a moment ago.
pub(crate) struct DirectChunk {
    pub messages: Vec<StoredMessage>,
    /// Matching messages that did not fit.
    pub pending: u64,
    pub up_to: Option<u64>,
}

/// `request` asks for at most `capacity` messages.
pub(crate) async fn direct_get<Q: Serialize>(
    nats: &Nats,
    stream: &str,
    request: &Q,
    capacity: usize,
) -> Result<DirectChunk, JsError> {
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    let last = |m: &Message| m.status.is_some_and(|s| s != StatusCode::OK);
    let (messages, end) =
        nats.inbox().request_many(&subject, json(request), capacity + 1, DIRECT_TIMEOUT, last).await?;
    let status = end.status.map_or(0, |s| s.as_u16());
    if status != 204 && status != 404 {
        let description = end.description.unwrap_or_else(|| format!("status {status}"));
        return Err(JsError::Api { code: u64::from(status), err_code: 0, description });
    }
    let number =
        |name: &str| end.headers.as_ref().and_then(|h| h.get(name)).and_then(|v| v.as_str().parse::<u64>().ok());
    let messages = messages.into_iter().map(direct_message).collect::<Result<_, _>>()?;
    Ok(DirectChunk { messages, pending: number("Nats-Num-Pending").unwrap_or(0), up_to: number("Nats-UpTo-Sequence") })
}

fn direct_message(m: Message) -> Result<StoredMessage, JsError> {
    let header = |name: &str| m.headers.as_ref().and_then(|h| h.get(name)).map(|v| v.as_str());
    let broken = |what: &str| JsError::Broken(format!("an answer without {what}"));
    let subject = header("Nats-Subject").ok_or_else(|| broken("subject"))?.to_owned();
    let seq = header("Nats-Sequence").and_then(|s| s.parse().ok()).ok_or_else(|| broken("sequence"))?;
    let ts = header("Nats-Time-Stamp").and_then(rfc3339::parse_ms).ok_or_else(|| broken("time"))?;
    Ok(StoredMessage { subject, seq, ts, headers: String::new(), payload: m.payload })
}

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

/// A value out of a raw header block.
pub(crate) fn header<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
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
