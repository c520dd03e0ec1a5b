//! Reads of what a stream has stored: one message by its leader, or many by Direct Get.

use std::time::Duration;

use async_nats::{Message, StatusCode};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{JsError, api, code, json};
use crate::wire::{client::Nats, rfc3339};

/// For all answers to one batch of reads.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(5);

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

/// A subject's newest message by Direct Get, which costs the server a fraction of [`leader_get`]: no JSON, no base64,
/// no turn in the queue of its API. A follower may answer with what it had a moment ago.
pub(crate) async fn direct_get_last(
    nats: &Nats,
    stream: &str,
    subject: &str,
) -> Result<Option<StoredMessage>, JsError> {
    let asked = format!("$JS.API.DIRECT.GET.{stream}");
    let m = nats.inbox().request(&asked, None, json(&Get::LastBySubj(subject)), DIRECT_TIMEOUT).await?;
    match m.status.map_or(200, |s| s.as_u16()) {
        200 => direct_message(m).map(Some),
        404 => Ok(None),
        status => {
            let description = m.description.unwrap_or_else(|| format!("status {status}"));
            Err(JsError::Api { code: u64::from(status), err_code: 0, description })
        }
    }
}

fn direct_message(m: Message) -> Result<StoredMessage, JsError> {
    let header = |name: &str| m.headers.as_ref().and_then(|h| h.get(name)).map(|v| v.as_str());
    let broken = |what: &str| JsError::Broken(format!("an answer without {what}"));
    let subject = header("Nats-Subject").ok_or_else(|| broken("subject"))?.to_owned();
    let seq = header("Nats-Sequence").and_then(|s| s.parse().ok()).ok_or_else(|| broken("sequence"))?;
    let ts = header("Nats-Time-Stamp").and_then(rfc3339::parse_ms).ok_or_else(|| broken("time"))?;
    Ok(StoredMessage { subject, seq, ts, headers: String::new(), payload: m.payload })
}

/// A value out of a raw header block.
pub(crate) fn header<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
