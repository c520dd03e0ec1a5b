//! A key beside the log whose value has a type: read from the leader, created, replaced by compare-and-set, merged,
//! watched. `keys` says which keys there are.
//!
//! A value is stored as MessagePack `[version, value]`. One that cannot be read, or is of a later version, is an error
//! and never "absent": writing over it would lose what only it says. [`KvValue::REWRITTEN`] is the exception.

use std::{collections::BTreeMap, marker::PhantomData, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use natterjack_protocol::merge::MaxMerge;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    kv::{Kv, KvError},
    kv_watch::{BucketRevision, WatchEvent, WatchPace, WatchProgress},
};

/// Attempts of a merge before it gives up. Two writers that alternate need two; a stampede gets jitter.
const MERGE_ATTEMPTS: u32 = 20;
/// Of those, how many may fail because the bucket did not answer: each has waited for it already.
const UNAVAILABLE_ATTEMPTS: u32 = 4;
/// After one of those. An election takes 4–9 s.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(200);

/// What stands under a key of a bucket.
pub trait KvValue: Serialize + DeserializeOwned {
    /// To be raised when builds that do not know the new shape must not read it.
    const VERSION: u8 = 1;
    /// Whoever writes it writes it again: a value that cannot be read counts as absent and is written over.
    const REWRITTEN: bool = false;
}

pub struct TypedKey<T> {
    kv: Kv,
    key: String,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for TypedKey<T> {
    fn clone(&self) -> Self {
        Self::new(self.kv.clone(), self.key.clone())
    }
}

impl<T> TypedKey<T> {
    pub(crate) fn new(kv: Kv, key: String) -> Self {
        Self { kv, key, value: PhantomData }
    }

    pub fn name(&self) -> &str {
        &self.key
    }

    pub async fn delete(&self) -> Result<(), KvError> {
        self.kv.delete(&self.key).await
    }

    /// Deletes it if it still has this revision.
    pub async fn delete_revision(&self, revision: u64) -> Result<(), KvError> {
        self.kv.delete_revision(&self.key, revision).await
    }

    /// Bytes of the value, also of one that cannot be read. None: there is no such key.
    pub async fn size(&self) -> Result<Option<usize>, KvError> {
        Ok(self.kv.get(&self.key).await?.map(|(value, _)| value.len()))
    }

    /// Also of a value that cannot be read.
    pub async fn exists(&self) -> Result<bool, KvError> {
        Ok(self.size().await?.is_some())
    }
}

impl<T: KvValue> TypedKey<T> {
    pub async fn load(&self) -> Result<Option<T>, KvError> {
        Ok(self.load_with_revision().await?.map(|(value, _)| value))
    }

    /// With the revision to replace it by.
    pub async fn load_with_revision(&self) -> Result<Option<(T, u64)>, KvError> {
        Ok(self.read().await?.and_then(|(value, revision)| Some((value?, revision))))
    }

    /// Perhaps not the newest: for a decision that a compare-and-set follows, and for nothing else. Cheaper by far than
    /// asking the leader.
    pub async fn load_near(&self) -> Result<Option<(T, u64)>, KvError> {
        let Some(stored) = self.kv.get_near(&self.key).await? else { return Ok(None) };
        Ok(self.decoded(stored)?.and_then(|(value, revision)| Some((value?, revision))))
    }

    /// Value and revision; no value: it cannot be read and will be written again.
    async fn read(&self) -> Result<Option<(Option<T>, u64)>, KvError> {
        match self.kv.get(&self.key).await? {
            Some(stored) => self.decoded(stored),
            None => Ok(None),
        }
    }

    fn decoded(&self, (bytes, revision): (Bytes, u64)) -> Result<Option<(Option<T>, u64)>, KvError> {
        match decode(&bytes) {
            Ok(value) => Ok(Some((Some(value), revision))),
            Err(reason) if T::REWRITTEN => {
                tracing::warn!(key = self.key, reason, "a value cannot be read; it is written again");
                Ok(Some((None, revision)))
            }
            Err(reason) => Err(KvError::Corrupt { key: self.key.clone(), reason }),
        }
    }

    /// The value that stands, then every change, without end (see [`Kv::watch`]).
    pub async fn watch(&self) -> Result<impl Stream<Item = KeyChange<T>> + Send + Unpin + use<T>, KvError>
    where
        T: Send + 'static,
    {
        TypedKeys::new(self.kv.clone(), self.key.clone()).watch().await
    }

    /// Writes it whatever there was. Returns the new revision.
    pub async fn put(&self, value: &T) -> Result<u64, KvError> {
        self.kv.put(&self.key, encode(value)).await
    }

    /// Writes it if there is none, also where one was deleted or has expired; otherwise [`KvError::Conflict`]. Of many
    /// who create, one does.
    pub async fn create(&self, value: &T) -> Result<u64, KvError> {
        self.compare_and_set(value, 0).await
    }

    /// Writes it if there is none; what is there already is left as it is.
    pub async fn create_if_absent(&self, value: &T) -> Result<(), KvError> {
        match self.create(value).await {
            Ok(_) | Err(KvError::Conflict) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Writes it if the key still has this revision; 0: if there is none.
    pub async fn compare_and_set(&self, value: &T, revision: u64) -> Result<u64, KvError> {
        self.kv.cas(&self.key, encode(value), revision).await
    }

    /// Reads, asks `merge` for the new value, writes it if nobody was faster; otherwise again. None: the key stays as
    /// it is. `merge` may be asked several times, and with its own result, if the outcome of a write was not known.
    pub async fn merge(&self, mut merge: impl FnMut(Option<T>) -> Option<T>) -> Result<(), KvError> {
        let mut unavailable = 0;
        for attempt in 1.. {
            let failed = match self.try_merge(&mut merge).await {
                Ok(()) => break,
                Err(e) if attempt == MERGE_ATTEMPTS => return Err(e),
                Err(e) => e,
            };
            let pause = match failed {
                KvError::Conflict => Duration::from_millis(rand::random_range(0..=1 << attempt.min(7))),
                KvError::Unavailable { .. } if unavailable < UNAVAILABLE_ATTEMPTS => {
                    unavailable += 1;
                    UNAVAILABLE_PAUSE
                }
                e => return Err(e),
            };
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    async fn try_merge(&self, merge: &mut impl FnMut(Option<T>) -> Option<T>) -> Result<(), KvError> {
        let (found, revision) = self.read().await?.unwrap_or((None, 0));
        if let Some(value) = merge(found) {
            self.compare_and_set(&value, revision).await?;
        }
        Ok(())
    }

    /// Moves it forward to what both know; never back.
    pub async fn merge_max(&self, value: &T) -> Result<(), KvError>
    where
        T: MaxMerge + Clone,
    {
        self.merge(|found| max_merged(found, value)).await
    }
}

/// None: `found` knows as much already.
fn max_merged<T: MaxMerge + Clone>(found: Option<T>, value: &T) -> Option<T> {
    let Some(mut merged) = found else { return Some(value.clone()) };
    merged.merge_max(value).then_some(merged)
}

/// All keys of one kind.
pub struct TypedKeys<T> {
    kv: Kv,
    /// `*` stands for one token of a key.
    pattern: String,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for TypedKeys<T> {
    fn clone(&self) -> Self {
        Self { kv: self.kv.clone(), pattern: self.pattern.clone(), value: PhantomData }
    }
}

/// A key that has changed. One whose value cannot be read is logged and left out: who watches goes on with what it
/// knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange<T> {
    /// What stands from the first wildcard on; empty if there is none.
    pub name: String,
    /// None: deleted or expired.
    pub value: Option<T>,
    pub revision: u64,
}

impl<T> TypedKeys<T> {
    pub(crate) fn new(kv: Kv, pattern: String) -> Self {
        Self { kv, pattern, value: PhantomData }
    }

    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// What every key of these begins with.
    fn prefix(&self) -> &str {
        self.pattern.split_once('*').map_or(self.pattern.as_str(), |(prefix, _)| prefix)
    }

    /// One of these, by the name that a [`KeyChange`] gave.
    pub fn key(&self, name: &str) -> TypedKey<T> {
        TypedKey::new(self.kv.clone(), format!("{}{name}", self.prefix()))
    }
}

impl<T: KvValue + Send + 'static> TypedKeys<T> {
    /// The values that stand, then every change, without end (see [`Kv::watch`]).
    pub async fn watch(&self) -> Result<impl Stream<Item = KeyChange<T>> + Send + Unpin + use<T>, KvError> {
        Ok(self.watch_with_progress().await?.0)
    }

    /// Likewise, and by what one sees whether the stream moves.
    pub async fn watch_with_progress(
        &self,
    ) -> Result<(impl Stream<Item = KeyChange<T>> + Send + Unpin + use<T>, WatchProgress), KvError> {
        self.watch_at_pace(WatchPace::AtOnce, BucketRevision::default()).await
    }

    /// Likewise, for keys of which many change, of what has changed since `from`: what changes within `every` comes
    /// together. A bucket that is lost reports nothing as gone: its watcher looks at [`WatchProgress::created_ms`].
    pub async fn watch_gathered(
        &self,
        every: Duration,
        from: BucketRevision,
    ) -> Result<(impl Stream<Item = KeyChange<T>> + Send + Unpin + use<T>, WatchProgress), KvError> {
        self.watch_at_pace(WatchPace::Gathered(every), from).await
    }

    async fn watch_at_pace(
        &self,
        pace: WatchPace,
        from: BucketRevision,
    ) -> Result<(impl Stream<Item = KeyChange<T>> + Send + Unpin + use<T>, WatchProgress), KvError> {
        let (changes, progress) = self.kv.watch_at_pace(&self.pattern, pace, from).await?;
        let keys = self.clone();
        let typed = changes.filter_map(move |WatchEvent { key, value, revision }| {
            let change = keys.change(&key, value.as_ref());
            std::future::ready(change.map(|(name, value)| KeyChange { name, value, revision }))
        });
        Ok((typed, progress))
    }

    /// Those that stand now and can be read.
    pub async fn list(&self) -> Result<BTreeMap<String, T>, KvError> {
        let standing = self.kv.list(&self.pattern).await?;
        let read = |(key, value): (String, Bytes)| match self.change(&key, Some(&value))? {
            (name, Some(value)) => Some((name, value)),
            _ => None,
        };
        Ok(standing.into_iter().filter_map(read).collect())
    }

    /// The name and the value of a key of these; none: it cannot be read.
    fn change(&self, key: &str, value: Option<&Bytes>) -> Option<(String, Option<T>)> {
        let name = key.strip_prefix(self.prefix()).unwrap_or(key).to_owned();
        match value.map(|v| decode(v)).transpose() {
            Ok(value) => Some((name, value)),
            Err(reason) => {
                tracing::warn!(key, reason, "a value cannot be read; it is left out");
                None
            }
        }
    }
}

pub(crate) fn encode<T: KvValue>(value: &T) -> Bytes {
    rmp_serde::to_vec_named(&(T::VERSION, value)).expect("values have string keys and plain values").into()
}

fn decode<T: KvValue>(bytes: &[u8]) -> Result<T, String> {
    // The version first (one byte below 128): of a later one nothing else can be understood.
    match bytes {
        [0x92, version @ ..=0x7f, ..] if *version > T::VERSION => {
            Err(format!("its version is {version}, this build reads up to {}", T::VERSION))
        }
        _ => rmp_serde::from_slice::<(u8, T)>(bytes).map(|(_, value)| value).map_err(|e| e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Old {
        a: u64,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct New {
        a: u64,
        b: String,
    }

    impl KvValue for Old {}

    impl KvValue for New {
        const VERSION: u8 = 2;
    }

    #[test]
    fn a_later_version_is_refused_by_its_number() {
        assert_eq!(decode::<Old>(&encode(&Old { a: 7 })), Ok(Old { a: 7 }));
        let later = encode(&New { a: 7, b: "x".into() });
        assert_eq!(decode::<New>(&later), Ok(New { a: 7, b: "x".into() }));
        assert_eq!(decode::<Old>(&later), Err("its version is 2, this build reads up to 1".into()));
        for bad in [&b""[..], b"rubbish", &[0x92], &[0x92, 1], &[0x92, 1, 0xc0]] {
            assert!(decode::<Old>(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_max_merge_never_goes_back() {
        assert_eq!(max_merged(None, &5u64), Some(5));
        assert_eq!(max_merged(Some(5u64), &5), None);
        assert_eq!(max_merged(Some(6u64), &5), None);
        assert_eq!(max_merged(Some(5u64), &6), Some(6));
    }
}
