//! Who exists, and which threads they are in, by the leader of their key. A key that is gone is rebuilt, never taken
//! for "nobody".

use futures_util::{StreamExt, stream};
use natterjack_nats::KvBuckets;
use natterjack_protocol::{
    Code, GroupId, Refusal, UserId,
    log::fold::{self, GroupState, UserThreads},
};

use crate::{directory::Directory, refusals::refuse};

/// Leader reads at once for one request: a group of 500 takes 500 reads of about 0.3 ms.
const READS: usize = 32;

#[derive(Clone)]
pub struct People {
    buckets: KvBuckets,
    directory: Directory,
}

impl People {
    pub fn new(buckets: &KvBuckets, directory: &Directory) -> Self {
        Self { buckets: buckets.clone(), directory: directory.clone() }
    }

    pub async fn threads(&self, user: &UserId) -> Result<UserThreads, Refusal> {
        for rebuilt in [false, true] {
            match self.buckets.threads(user).load().await {
                Ok(Some(threads)) => return Ok(threads),
                Ok(None) if rebuilt => break,
                Ok(None) => self.directory.rebuild_threads(user).await.map_err(|e| no_such(user, e))?,
                Err(e) => return Err(refuse(e)),
            }
        }
        Err(Refusal::new(Code::NotFound, format!("no such user: {user}")))
    }

    /// All of them, or a refusal that names one who is not there.
    pub async fn exist(&self, users: &[UserId]) -> Result<(), Refusal> {
        self.take(users.to_vec(), usize::MAX).await
    }

    /// All of them are there and their threads have at most so many bytes, or a refusal that names one.
    pub async fn have_room(&self, users: Vec<UserId>, most: usize) -> Result<(), Refusal> {
        self.take(users, most).await
    }

    /// Owned, because a stream of borrowing futures is not `Send` enough for a connection's task.
    async fn take(&self, users: Vec<UserId>, most: usize) -> Result<(), Refusal> {
        let mut reads = stream::iter(users).map(|user| self.clone().takes(user, most)).buffer_unordered(READS);
        while let Some(read) = reads.next().await {
            read?;
        }
        Ok(())
    }

    async fn takes(self, user: UserId, most: usize) -> Result<(), Refusal> {
        match self.buckets.threads(&user).size().await {
            Ok(Some(bytes)) if bytes > most => Err(fold::full(&user)),
            Ok(Some(_)) => Ok(()),
            Ok(None) => self.directory.rebuild_threads(&user).await.map_err(|e| no_such(&user, e)),
            Err(e) => Err(refuse(e)),
        }
    }

    /// As it stands now; none also while `channel` has not folded its first entry yet.
    pub async fn group(&self, gid: &GroupId) -> Result<Option<GroupState>, Refusal> {
        self.buckets.group(gid).load().await.map_err(refuse)
    }

    /// As it stands now, rebuilt if its key was lost; none: there is no such group.
    pub async fn group_or_rebuild(&self, gid: &GroupId) -> Result<Option<GroupState>, Refusal> {
        match self.group(gid).await? {
            Some(group) => Ok(Some(group)),
            None => match self.directory.rebuild_group(gid).await {
                Ok(()) => self.group(gid).await,
                Err(e) if e.code == Code::NotFound => Ok(None),
                Err(e) => Err(e),
            },
        }
    }
}

fn no_such(user: &UserId, e: Refusal) -> Refusal {
    if e.code == Code::NotFound { Refusal::new(Code::NotFound, format!("no such user: {user}")) } else { e }
}
