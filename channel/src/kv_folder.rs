//! Step 4, control entries, the thin part: reads and writes the keys that `fold` asks for. In: control entries in log
//! order. Out: who gets a `member` signal. Nothing of them is published, and the position does not pass them, before
//! this is done.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream};
use metrics::{counter, histogram};
use natterjack_nats::{
    KvBuckets, KvError, Nats, RpcError, TreeChange,
    calls::directory::{DirectoryCall, rebuild_group, rebuild_threads},
};
use natterjack_protocol::{
    GroupId, MsgId, Retry, UserId,
    log::fold::{ThreadItem, UserThreads},
};
use tokio::time::Instant;

use crate::fold::{self, ControlChange, UserChange};

/// Writes in flight; a group of 500 is written in 20–60 ms.
const WRITES: usize = 256;
/// Groups in flight: one control entry each as a rule, so this is seldom more than a few.
const GROUPS: usize = 64;
/// How often a lost key is asked for before the entry goes on without it: 3.6 s at most, for which its partition waits.
/// `directory` goes on rebuilding after a timeout; the next attempt reads the key first.
const REBUILDS: u32 = 3;
const REBUILD_TIMEOUT: Duration = Duration::from_secs(1);
const REBUILD_PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct KvFolder {
    nats: Nats,
    buckets: KvBuckets,
    p: u32,
}

/// A read or write that did not work.
enum KeyError {
    /// Somebody was faster, or the outcome is unknown: read again and fold again.
    Again,
    /// The value is not there or is no value: only `directory` can bring it back.
    Lost(String),
    /// Waiting does not help.
    Never(String),
}

impl KvFolder {
    pub fn new(nats: &Nats, buckets: KvBuckets, p: u32) -> Self {
        Self { nats: nats.clone(), buckets, p }
    }

    /// Waits through every outage of KV; goes on, with an alarm, only without what waiting cannot bring back.
    /// May be dropped at any time and done again.
    pub async fn fold(self, changes: Vec<ControlChange>) -> Vec<(MsgId, Vec<UserId>)> {
        let started = Instant::now();
        let mut users = fold::by_dm_user(&changes);
        let mut folded: HashMap<MsgId, Vec<UserId>> = HashMap::new();
        let this = &self;
        let work: Vec<_> =
            fold::by_group(&changes).into_iter().map(|(gid, changes)| this.group(gid, changes)).collect();
        let mut groups = stream::iter(work).buffer_unordered(GROUPS);
        while let Some((changes, items)) = groups.next().await {
            let Some(items) = items else { continue };
            for change in &changes {
                folded.insert(change.id, Vec::new());
            }
            for (id, user, item) in items {
                folded.entry(id).or_default().push(user.clone());
                let thread = changes[0].thread.clone();
                users.entry(user).or_default().push(UserChange::Item { thread, item });
            }
        }
        drop(groups);
        // Only behind the groups: a user's item is made from the group's state, and must not be ahead of it for those
        // who read both.
        let work: Vec<_> = users.into_iter().map(|(user, changes)| this.user(user, changes)).collect();
        stream::iter(work).buffer_unordered(WRITES).for_each(|()| std::future::ready(())).await;
        histogram!(crate::metrics::FOLD_SECONDS).record(started.elapsed());
        changes.iter().map(|c| (c.id, fold::signals(c, folded.get(&c.id)))).collect()
    }

    /// None: given up.
    async fn group<'a>(
        &self,
        gid: GroupId,
        changes: Vec<&'a ControlChange>,
    ) -> (Vec<&'a ControlChange>, Option<Vec<(MsgId, UserId, ThreadItem)>>) {
        let mut attempts = KeyAttempts::new(self, rebuild_group(&gid), gid.to_string());
        loop {
            match self.try_group(&gid, &changes).await {
                Ok(items) => return (changes, Some(items)),
                Err(e) => {
                    if !attempts.failed(e).await {
                        return (changes, None);
                    }
                }
            }
        }
    }

    async fn try_group(
        &self,
        gid: &GroupId,
        changes: &[&ControlChange],
    ) -> Result<Vec<(MsgId, UserId, ThreadItem)>, KeyError> {
        let key = self.buckets.group(gid);
        let (mut group, revision) = match key.load_with_revision().await? {
            Some((group, revision)) => (Some(group), revision),
            None => (None, 0),
        };
        if fold::lost(group.as_ref(), changes) {
            return Err(KeyError::Lost("there is no such key".into()));
        }
        let before = group.as_ref().map(|g| g.version);
        let items = fold::fold_group(&mut group, changes);
        match &group {
            Some(g) if before != Some(g.version) => drop(key.compare_and_set(g, revision).await?),
            _ => {}
        }
        Ok(items)
    }

    async fn user(&self, uid: UserId, changes: Vec<UserChange>) {
        let mut attempts = KeyAttempts::new(self, rebuild_threads(&uid), format!("threads of {uid}"));
        while let Err(e) = self.try_user(&uid, &changes).await {
            if !attempts.failed(e).await {
                return;
            }
        }
    }

    async fn try_user(&self, uid: &UserId, changes: &[UserChange]) -> Result<(), KeyError> {
        // A key that is not there was lost, or the user never was: never "no threads", and never made here.
        let by_hash = changes.iter().map(|change| (change.thread().hash64(), change)).collect();
        let apply = |threads: &mut UserThreads, changes: &[(u64, &UserChange)]| {
            fold::fold_user(threads, uid, changes.iter().map(|(_, change)| *change))
        };
        match self.buckets.threads(uid).change(None, by_hash, apply).await? {
            TreeChange::Done { .. } => Ok(()),
            TreeChange::Lost => Err(KeyError::Lost("there is no such key".into())),
        }
    }
}

impl From<KvError> for KeyError {
    fn from(e: KvError) -> Self {
        match e {
            KvError::Conflict | KvError::Unavailable { .. } => Self::Again,
            KvError::Corrupt { reason, .. } => Self::Lost(reason),
            KvError::NoBucket(_) | KvError::TooLarge { .. } | KvError::Rejected { .. } => Self::Never(e.to_string()),
        }
    }
}

/// How one key is tried again.
struct KeyAttempts<'a> {
    folder: &'a KvFolder,
    rebuild: DirectoryCall<()>,
    key: String,
    rebuilds: u32,
    pause: Duration,
}

impl<'a> KeyAttempts<'a> {
    fn new(folder: &'a KvFolder, rebuild: DirectoryCall<()>, key: String) -> Self {
        Self { folder, rebuild, key, rebuilds: 0, pause: Duration::from_millis(2) }
    }

    /// Waits as the failure asks. False: give up, with an alarm.
    async fn failed(&mut self, e: KeyError) -> bool {
        let why = match e {
            KeyError::Again => {
                counter!(crate::metrics::FOLD_RETRIES).increment(1);
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(Duration::from_secs(1));
                return true;
            }
            KeyError::Lost(_) if self.rebuilds < REBUILDS => {
                self.rebuilds += 1;
                match self.folder.nats.call(&self.rebuild, REBUILD_TIMEOUT).await {
                    Ok(()) => return true,
                    // There is nothing to bring back.
                    Err(RpcError::Refused(r)) if r.code.retry() == Retry::Never => r.message,
                    Err(_) => {
                        tokio::time::sleep(REBUILD_PAUSE).await;
                        // The key first: somebody else may have had it rebuilt.
                        return true;
                    }
                }
            }
            KeyError::Lost(why) | KeyError::Never(why) => why,
        };
        counter!(crate::metrics::FOLD_ABANDONED).increment(1);
        tracing::error!(
            partition = self.folder.p,
            key = self.key,
            why,
            "a control entry could not be folded into this key; going on without"
        );
        false
    }
}
