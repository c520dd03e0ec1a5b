//! A value of which somebody may have too much for one key: a single key as long as it is small, then a tree of keys
//! (`protocol::parts`). A key is named by its place, `0` for the whole, then a hex digit for each cut below it.
//!
//! A key that has grown too large is cut: its parts are written first, then the key, on the condition that nobody has
//! changed it meanwhile. So who reads finds everything at any moment, and who writes at the same time fails and does it
//! again. What a crash in between leaves is merged with what comes later: values only grow. All parts of a key that is
//! cut are there, so one that is missing was lost, as the whole would be.

use std::{marker::PhantomData, time::Duration};

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use natterjack_protocol::parts::{DEEPEST, PARTS, Parts, part_of};

use crate::{
    kv::{Kv, KvError},
    typed_key::{KvValue, TypedKey, encode},
};

/// A key is cut when its value is larger: so much is written for each change.
const KEY_BYTES: usize = 64 * 1024;
/// The place of the whole.
const ROOT: &str = "0";
/// Keys read or written at once.
const AT_ONCE: usize = 32;
/// Of a merge that others are faster than.
const ATTEMPTS: u32 = 20;

pub struct KvTree<T> {
    kv: Kv,
    /// What all its keys begin with.
    prefix: String,
    value: PhantomData<fn() -> T>,
}

/// What a change came to.
#[derive(Debug)]
pub enum TreeChange<T> {
    /// The key or a part of it is not there: it was lost, or never was.
    Lost,
    Done {
        /// The whole and its revision, if it stands under one key.
        whole: Option<(T, u64)>,
    },
}

impl<T> Clone for KvTree<T> {
    fn clone(&self) -> Self {
        Self::new(self.kv.clone(), self.prefix.clone())
    }
}

impl<T> KvTree<T> {
    pub(crate) fn new(kv: Kv, prefix: String) -> Self {
        Self { kv, prefix, value: PhantomData }
    }

    /// The key of the whole, as long as that is not cut.
    pub fn root(&self) -> TypedKey<T> {
        self.key(ROOT)
    }

    fn key(&self, place: &str) -> TypedKey<T> {
        TypedKey::new(self.kv.clone(), format!("{}.{place}", self.prefix))
    }

    /// Also of a value that cannot be read.
    pub async fn exists(&self) -> Result<bool, KvError> {
        self.root().exists().await
    }
}

fn parts_of(place: &str) -> impl Iterator<Item = String> {
    (0..PARTS).map(move |part| format!("{place}{part:x}"))
}

/// How often it was cut above this place.
fn depth(place: &str) -> usize {
    place.len() - ROOT.len()
}

impl<T: KvValue + Parts + Send + Sync + 'static> KvTree<T> {
    /// The whole. None: it, or a part of it, is not there.
    pub async fn load(&self) -> Result<Option<T>, KvError> {
        match self.root().load().await? {
            Some(root) if root.is_cut() => self.load_parts().await,
            whole => Ok(whole),
        }
    }

    async fn load_parts(&self) -> Result<Option<T>, KvError> {
        let (mut whole, mut places) = (T::default(), parts_of(ROOT).collect::<Vec<_>>());
        while !places.is_empty() {
            let read = |place: String| async move { Ok::<_, KvError>((self.key(&place).load().await?, place)) };
            let read: Vec<_> = stream::iter(places).map(read).buffer_unordered(AT_ONCE).try_collect().await?;
            places = Vec::new();
            for (part, place) in read {
                match part {
                    None => return Ok(None),
                    Some(part) if part.is_cut() => places.extend(parts_of(&place)),
                    Some(part) => drop(whole.merge_max(&part)),
                }
            }
        }
        Ok(Some(whole))
    }

    /// The part in which something with this hash stands, and how many such parts there are if all are as large.
    pub async fn load_part(&self, hash: u64) -> Result<Option<(T, usize)>, KvError> {
        let mut place = ROOT.to_owned();
        loop {
            match self.key(&place).load().await? {
                None => return Ok(None),
                Some(part) if part.is_cut() => place = below(&place, hash),
                Some(part) => return Ok(Some((part, PARTS.saturating_pow(depth(&place) as u32)))),
            }
        }
    }

    /// Writes it if there is none.
    pub async fn create_if_absent(&self, value: &T) -> Result<(), KvError> {
        self.root().create_if_absent(value).await
    }

    /// Changes what stands under these hashes: `apply` gets each part with the changes that fall into it, and says
    /// whether it is to be written. `known`: the whole as it stood a moment ago. A part that somebody else has written
    /// meanwhile is a [`KvError::Conflict`]: everything is to be done again, from the leader.
    pub async fn change<C>(
        &self,
        mut known: Option<(T, u64)>,
        changes: Vec<(u64, C)>,
        mut apply: impl FnMut(&mut T, &[(u64, C)]) -> bool,
    ) -> Result<TreeChange<T>, KvError> {
        let (mut left, mut whole) = (vec![(ROOT.to_owned(), changes)], None);
        while let Some((place, changes)) = left.pop() {
            let standing = match known.take() {
                Some(known) => Some(known),
                None => self.key(&place).load_with_revision().await?,
            };
            let Some((mut part, revision)) = standing else { return Ok(TreeChange::Lost) };
            if part.is_cut() {
                let mut by_place: Vec<Vec<(u64, C)>> = (0..PARTS).map(|_| Vec::new()).collect();
                changes.into_iter().for_each(|c| by_place[part_of(c.0, depth(&place))].push(c));
                left.extend(parts_of(&place).zip(by_place).filter(|(_, changes)| !changes.is_empty()));
                continue;
            }
            let stands = if apply(&mut part, &changes) {
                self.write(place.clone(), part, revision).await?
            } else {
                Some((part, revision))
            };
            if place == ROOT {
                whole = stands;
            }
        }
        Ok(TreeChange::Done { whole })
    }

    /// Merges it into what is there, whatever that is.
    pub async fn merge(&self, value: T) -> Result<(), KvError> {
        self.merge_part(ROOT.to_owned(), value).await
    }

    /// Writes it where that revision stands. What is too large is cut; none: it was.
    fn write(&self, place: String, mut value: T, revision: u64) -> BoxFuture<'_, Result<Option<(T, u64)>, KvError>> {
        Box::pin(async move {
            let bytes = encode(&value);
            let key = self.key(&place);
            if bytes.len() <= KEY_BYTES || depth(&place) == DEEPEST {
                return Ok(Some((value, self.kv.cas(key.name(), bytes, revision).await?)));
            }
            let parts = parts_of(&place).zip(value.cut(depth(&place)));
            let merged = parts.map(|(place, part)| self.merge_part(place, part));
            stream::iter(merged).buffer_unordered(AT_ONCE).try_for_each(async |()| Ok(())).await?;
            key.compare_and_set(&value, revision).await?;
            Ok(None)
        })
    }

    fn merge_part(&self, place: String, mut part: T) -> BoxFuture<'_, Result<(), KvError>> {
        Box::pin(async move {
            for attempt in 1.. {
                let standing = self.key(&place).load_with_revision().await?;
                let is_there = standing.is_some();
                let (mut merged, revision) = standing.unwrap_or_default();
                if merged.is_cut() {
                    // Also into those for which there is nothing: they may be lost.
                    let parts = parts_of(&place).zip(part.cut(depth(&place)));
                    let merged = parts.map(|(place, part)| self.merge_part(place, part)).collect::<Vec<_>>();
                    return stream::iter(merged).buffer_unordered(AT_ONCE).try_for_each(async |()| Ok(())).await;
                }
                if !merged.merge_max(&part) && is_there {
                    return Ok(());
                }
                match self.write(place.clone(), merged, revision).await {
                    Err(KvError::Conflict) if attempt < ATTEMPTS => {
                        tokio::time::sleep(Duration::from_millis(rand::random_range(0..=2 << attempt.min(6)))).await;
                    }
                    written => return written.map(drop),
                }
            }
            Ok(())
        })
    }

    /// Its parts first, so that what a crash leaves is found again by the whole.
    pub async fn delete(&self) -> Result<(), KvError> {
        let (mut all, mut next) = (Vec::new(), vec![ROOT.to_owned()]);
        while !next.is_empty() {
            let read = |place: String| async move { Ok::<_, KvError>((self.key(&place).load().await, place)) };
            let read: Vec<_> = stream::iter(next).map(read).buffer_unordered(AT_ONCE).try_collect().await?;
            next = Vec::new();
            for (part, place) in read {
                match part {
                    Ok(None) => continue,
                    Ok(Some(part)) if part.is_cut() => next.extend(parts_of(&place)),
                    Ok(Some(_)) | Err(KvError::Corrupt { .. }) => {}
                    Err(e) => return Err(e),
                }
                all.push(place);
            }
        }
        for place in all.iter().rev() {
            self.key(place).delete().await?;
        }
        Ok(())
    }
}

fn below(place: &str, hash: u64) -> String {
    format!("{place}{:x}", part_of(hash, depth(place)))
}
