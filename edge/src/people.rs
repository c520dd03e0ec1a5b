//! Who exists, and which threads they are in, by the leader of their key. A key that is gone is rebuilt, never taken
//! for "nobody".

use futures_util::{StreamExt, stream};
use natterjack_nats::KvBuckets;
use natterjack_protocol::{
    Code, GroupId, Refusal, Thread, UserId,
    log::fold::{self, GroupState, ThreadItem, UserThreads},
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
        Err(no_such_user(user))
    }

    /// One of them.
    pub async fn thread(&self, user: &UserId, thread: &Thread) -> Result<Option<ThreadItem>, Refusal> {
        Ok(self.part(user, thread).await?.0.threads.remove(thread))
    }

    /// The part of somebody's threads in which this one stands, or would stand, and how many such parts there are.
    async fn part(&self, user: &UserId, thread: &Thread) -> Result<(UserThreads, usize), Refusal> {
        for rebuilt in [false, true] {
            match self.buckets.threads(user).load_part(thread.hash64()).await {
                Ok(Some(part)) => return Ok(part),
                Ok(None) if rebuilt => break,
                Ok(None) => self.directory.rebuild_threads(user).await.map_err(|e| no_such(user, e))?,
                Err(e) => return Err(refuse(e)),
            }
        }
        Err(no_such_user(user))
    }

    /// All of them, or a refusal that names one who is not there.
    pub async fn exist(&self, users: &[UserId]) -> Result<(), Refusal> {
        let exists = |user: UserId| {
            let people = self.clone();
            async move {
                match people.buckets.threads(&user).exists().await {
                    Ok(true) => Ok(()),
                    Ok(false) => people.directory.rebuild_threads(&user).await.map_err(|e| no_such(&user, e)),
                    Err(e) => Err(refuse(e)),
                }
            }
        };
        all(users.iter().cloned().map(exists).collect()).await
    }

    /// All of them are there, and have at most so many threads that one more can be added, or a refusal that names one.
    pub async fn have_room(&self, users: Vec<UserId>, thread: &Thread, most: usize) -> Result<(), Refusal> {
        let has_room = |user: UserId| {
            let (people, thread) = (self.clone(), thread.clone());
            async move { people.thread_with_room(&user, &thread, most).await.map(drop) }
        };
        all(users.into_iter().map(has_room).collect()).await
    }

    /// One of somebody's threads, if they take another one.
    pub async fn thread_with_room(
        &self,
        user: &UserId,
        thread: &Thread,
        most: usize,
    ) -> Result<Option<ThreadItem>, Refusal> {
        let (mut part, parts) = self.part(user, thread).await?;
        let item = part.threads.remove(thread);
        let count = match part.threads.len() * parts {
            exactly if parts == 1 => exactly,
            // Parts of one size are so by chance: near the limit all are counted.
            about if about + about / 4 < most => about,
            _ => self.threads(user).await?.threads.len(),
        };
        if count < most || item.is_some() { Ok(item) } else { Err(fold::full(user)) }
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

/// Owned, because a stream of borrowing futures is not `Send` enough for a connection's task.
async fn all<F: Future<Output = Result<(), Refusal>>>(reads: Vec<F>) -> Result<(), Refusal> {
    let mut reads = stream::iter(reads).buffer_unordered(READS);
    while let Some(read) = reads.next().await {
        read?;
    }
    Ok(())
}

fn no_such_user(user: &UserId) -> Refusal {
    Refusal::new(Code::NotFound, format!("no such user: {user}"))
}

fn no_such(user: &UserId, e: Refusal) -> Refusal {
    if e.code == Code::NotFound { no_such_user(user) } else { e }
}
