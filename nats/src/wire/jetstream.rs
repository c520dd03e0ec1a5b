//! The JetStream API in raw requests: async-nats hides the clock of STREAM.INFO, has no batch Direct Get, and keeps
//! what never answers.

mod stored;
mod stream;

use std::time::Duration;

use async_nats::HeaderMap;
pub(crate) use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use self::{
    stored::{DirectChunk, Get, StoredMessage, direct_get, direct_get_last, header, leader_get, leader_next},
    stream::{delete_stream, has_leader, stream_info},
};
use crate::wire::{client::Nats, inbox::NatsRequestError};

/// A leader answers in well under a millisecond; longer means that there is none.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(3);

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
