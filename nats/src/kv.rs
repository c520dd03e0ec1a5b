//! State beside the log: a thin key-value store over bucket streams (one value per key). Bytes; `typed_key` gives them
//! types.
//!
//! Every read goes to the stream's leader: what was written is read, by anybody. async-nats' KV reads by Direct Get,
//! which a follower may answer with the value before last.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    subjects,
    wire::{
        HeaderMap,
        client::Nats,
        inbox::NatsRequestError,
        jetstream::{self, Get, JsError, StoredMessage, code},
        rfc3339,
    },
};

const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, thiserror::Error)]
pub enum KvError {
    #[error("the key was changed by somebody else")]
    Conflict,
    #[error("bucket {0} does not exist; run `natterjack provision`")]
    NoBucket(String),
    /// The outcome of a write is unknown.
    #[error("bucket {bucket} does not answer: {reason}")]
    Unavailable { bucket: String, reason: String },
    #[error("the value is too large for bucket {bucket}: {reason}")]
    TooLarge { bucket: String, reason: String },
    #[error("bucket {bucket} refuses: {reason}")]
    Rejected { bucket: String, reason: String },
    #[error("the value of {key} cannot be read: {reason}")]
    Corrupt { key: String, reason: String },
}

#[derive(Clone)]
pub struct Kv {
    nats: Nats,
    bucket: String,
    stream: String,
}

/// A bucket's last message of a key.
enum Last {
    Value(Bytes, u64),
    /// Deleted or expired; the revision is needed to write over it.
    Tombstone(u64),
    Nothing,
}

impl Kv {
    pub fn new(nats: &Nats, bucket: String) -> Self {
        let stream = subjects::bucket_stream(&bucket);
        Self { nats: nats.clone(), bucket, stream }
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(crate) fn nats(&self) -> &Nats {
        &self.nats
    }

    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// When the bucket was made, milliseconds since 1970.
    pub async fn made_ms(&self) -> Result<u64, KvError> {
        let info = jetstream::stream_info(&self.nats, &self.stream).await.map_err(|e| self.error(e))?;
        let created = info.ok_or_else(|| KvError::NoBucket(self.bucket.clone()))?.created;
        let broken =
            || KvError::Unavailable { bucket: self.bucket.clone(), reason: format!("it was made at `{created}`") };
        rfc3339::parse_ms(&created).ok_or_else(broken)
    }

    /// The revision that was given last, to whichever key.
    pub async fn last_revision(&self) -> Result<u64, KvError> {
        let info = jetstream::stream_info(&self.nats, &self.stream).await.map_err(|e| self.error(e))?;
        Ok(info.ok_or_else(|| KvError::NoBucket(self.bucket.clone()))?.state.last_seq)
    }

    /// Value and revision; none also for a key that was deleted or has expired.
    pub async fn get(&self, key: &str) -> Result<Option<(Bytes, u64)>, KvError> {
        Ok(match self.last(key).await? {
            Last::Value(value, revision) => Some((value, revision)),
            Last::Tombstone(_) | Last::Nothing => None,
        })
    }

    /// By any server, which may have only what was there a moment ago: for a decision that a compare-and-set follows.
    /// Cheaper than [`Kv::get`] by far.
    pub(crate) async fn get_near(&self, key: &str) -> Result<Option<(Bytes, u64)>, KvError> {
        let subject = subjects::bucket_key(&self.bucket, key);
        let stored = jetstream::direct_get_last(&self.nats, &self.stream, &subject).await.map_err(|e| self.error(e))?;
        // Only what was deleted is empty.
        Ok(stored.filter(|m| !m.payload.is_empty()).map(|m| (m.payload, m.seq)))
    }

    async fn last(&self, key: &str) -> Result<Last, KvError> {
        let subject = subjects::bucket_key(&self.bucket, key);
        let stored = jetstream::leader_get(&self.nats, &self.stream, Get::LastBySubj(&subject))
            .await
            .map_err(|e| self.error(e))?;
        Ok(match stored {
            None => Last::Nothing,
            Some(m) if is_tombstone(&m) => Last::Tombstone(m.seq),
            Some(m) => Last::Value(m.payload, m.seq),
        })
    }

    /// Writes whatever was there; returns the new revision.
    pub async fn put(&self, key: &str, value: Bytes) -> Result<u64, KvError> {
        self.write(key, None, value).await
    }

    /// Writes if the key still has `revision` (0: must not be there; deleted and expired keys are not).
    pub async fn cas(&self, key: &str, value: Bytes, revision: u64) -> Result<u64, KvError> {
        match self.write(key, Some(expecting(revision)), value.clone()).await {
            Err(KvError::Conflict) if revision == 0 => match self.last(key).await? {
                Last::Tombstone(r) => self.write(key, Some(expecting(r)), value).await,
                // Expired between the two: once more, and whoever was faster has it.
                Last::Nothing => self.write(key, Some(expecting(0)), value).await,
                Last::Value(..) => Err(KvError::Conflict),
            },
            other => other,
        }
    }

    pub async fn delete(&self, key: &str) -> Result<(), KvError> {
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "DEL");
        self.write(key, Some(headers), Bytes::new()).await.map(|_| ())
    }

    /// Deletes if the key still has `revision`.
    pub async fn delete_revision(&self, key: &str, revision: u64) -> Result<(), KvError> {
        let mut headers = expecting(revision);
        headers.insert("KV-Operation", "DEL");
        self.write(key, Some(headers), Bytes::new()).await.map(|_| ())
    }

    async fn write(&self, key: &str, headers: Option<HeaderMap>, value: Bytes) -> Result<u64, KvError> {
        let subject = subjects::bucket_key(&self.bucket, key);
        match jetstream::publish(&self.nats, &subject, headers, value, WRITE_TIMEOUT).await {
            Ok(ack) => Ok(ack.seq),
            Err(e) => Err(self.error(e)),
        }
    }

    pub(crate) fn error(&self, e: JsError) -> KvError {
        match e.err_code() {
            code::WRONG_LAST_SEQUENCE | code::WRONG_LAST_SEQUENCE_CONSTANT => return KvError::Conflict,
            code::STREAM_NOT_FOUND => return KvError::NoBucket(self.bucket.clone()),
            _ => {}
        }
        let (bucket, reason) = (self.bucket.clone(), e.to_string());
        match e {
            JsError::Request(NatsRequestError::TooLarge(_)) => KvError::TooLarge { bucket, reason },
            JsError::Request(NatsRequestError::NotSent(_)) => KvError::Rejected { bucket, reason },
            // 5xx: no leader, no room, no quorum; they pass.
            JsError::Api { code, .. } if code < 500 => KvError::Rejected { bucket, reason },
            _ => KvError::Unavailable { bucket, reason },
        }
    }
}

fn expecting(revision: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string());
    headers
}

fn is_tombstone(m: &StoredMessage) -> bool {
    tombstone_headers(
        jetstream::header(&m.headers, "KV-Operation"),
        jetstream::header(&m.headers, "Nats-Marker-Reason"),
    )
}

/// A deleted key says `DEL` or `PURGE`; one that the server expired carries the reason.
pub(crate) fn tombstone_headers(operation: Option<&str>, marker: Option<&str>) -> bool {
    matches!(operation, Some("DEL" | "PURGE")) || marker.is_some()
}
