//! State beside the log: a thin key-value store over bucket streams (one value per key).
//!
//! Every read goes to the stream's leader: what was written is read, by anybody. async-nats' KV reads by Direct Get, which a
//! follower may answer with the value before last.

use std::time::Duration;

use bytes::Bytes;
use natterjack_protocol::{GroupId, UserId};

use crate::{
    layout::Layout,
    subjects,
    wire::{
        HeaderMap,
        client::Nats,
        inbox::NatsRequestError,
        jetstream::{self, Get, JsError, StoredMessage, code},
    },
};

const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts of a read-modify-write before it gives up. Two writers that alternate need two; a stampede gets jitter.
const UPDATE_ATTEMPTS: u32 = 20;

#[derive(Debug, Clone, thiserror::Error)]
pub enum KvError {
    #[error("the key was changed by somebody else")]
    Conflict,
    #[error("bucket {0} does not exist; run `natterjack provision`")]
    NoBucket(String),
    /// The outcome of a write is unknown.
    #[error("bucket {bucket} does not answer: {reason}")]
    Unavailable { bucket: String, reason: String },
    #[error("bucket {bucket} refuses: {reason}")]
    Rejected { bucket: String, reason: String },
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

    /// Value and revision; none also for a key that was deleted or has expired.
    pub async fn get(&self, key: &str) -> Result<Option<(Bytes, u64)>, KvError> {
        Ok(match self.last(key).await? {
            Last::Value(value, revision) => Some((value, revision)),
            Last::Tombstone(_) | Last::Nothing => None,
        })
    }

    async fn last(&self, key: &str) -> Result<Last, KvError> {
        let subject = subjects::bucket_key(&self.bucket, key);
        let stored = jetstream::leader_get(&self.nats, &self.stream, Get::LastBySubj(&subject)).await.map_err(|e| self.error(e))?;
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

    /// Reads, asks `f` for the new value, writes it if nobody was faster; otherwise again. `f` returns none to leave the key as it is.
    /// Returns the revision that now stands (0: there is none). An unknown outcome is tried again too, so `f` must accept its own result.
    pub async fn update<F>(&self, key: &str, mut f: F) -> Result<u64, KvError>
    where
        F: FnMut(Option<&[u8]>) -> Option<Bytes>,
    {
        let mut last_error = KvError::Conflict;
        for attempt in 0..UPDATE_ATTEMPTS {
            let result = match self.get(key).await {
                Ok(current) => {
                    let revision = current.as_ref().map_or(0, |(_, r)| *r);
                    match f(current.as_ref().map(|(v, _)| v.as_ref())) {
                        None => return Ok(revision),
                        Some(value) => self.cas(key, value, revision).await,
                    }
                }
                Err(e) => Err(e),
            };
            match result {
                Ok(revision) => return Ok(revision),
                Err(e @ KvError::Conflict) => {
                    last_error = e;
                    tokio::time::sleep(Duration::from_millis(rand::random_range(0..=2 << attempt.min(6)))).await;
                }
                // A leader election: the request has already waited; a few of those are enough.
                Err(e @ KvError::Unavailable { .. }) if attempt < 4 => {
                    last_error = e;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(e) => return Err(e),
            }
        }
        Err(last_error)
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
            JsError::Request(NatsRequestError::NotSent(_) | NatsRequestError::TooLarge(_)) => KvError::Rejected { bucket, reason },
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
    tombstone_headers(jetstream::header(&m.headers, "KV-Operation"), jetstream::header(&m.headers, "Nats-Marker-Reason"))
}

/// A deleted key says `DEL` or `PURGE`; one that the server expired carries the reason.
pub(crate) fn tombstone_headers(operation: Option<&str>, marker: Option<&str>) -> bool {
    matches!(operation, Some("DEL" | "PURGE")) || marker.is_some()
}

/// The buckets by what is in them.
#[derive(Clone)]
pub struct KvBuckets {
    nats: Nats,
    layout: Layout,
}

impl KvBuckets {
    pub fn new(nats: &Nats, layout: Layout) -> Self {
        Self { nats: nats.clone(), layout }
    }

    pub(crate) fn generation(&self) -> u32 {
        self.layout.generation
    }

    pub fn leases(&self) -> Kv {
        Kv::new(&self.nats, subjects::LEASES.into())
    }

    pub fn roles(&self) -> Kv {
        Kv::new(&self.nats, subjects::ROLES.into())
    }

    pub fn control(&self) -> Kv {
        Kv::new(&self.nats, subjects::CONTROL.into())
    }

    /// The shard that holds this group.
    pub fn groups(&self, gid: &GroupId) -> Kv {
        Kv::new(&self.nats, subjects::groups_bucket(self.layout.shard(gid.as_str())))
    }

    /// The shard that holds this user's keys.
    pub fn users(&self, uid: &UserId) -> Kv {
        Kv::new(&self.nats, subjects::users_bucket(self.layout.shard(uid.as_str())))
    }
}
