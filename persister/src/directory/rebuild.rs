//! A key in `users` or `groups` was lost (a bucket, or a crash during registration): makes it again from archive and
//! log.
//!
//! The watermark is read before the archive's rows, the log from there to its end after both, so nothing falls between.
//! A user's key needs a second look: `channel` merges into a key that is there and passes by one that is not, so an
//! entry folded while we were computing is only found by reading on after the key was made. A group's does not:
//! `channel` asks for it and waits.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::try_join_all;
use natterjack_nats::{KvError, Layout, LeaderReader, LogReader, ReadFrom, Record};
use natterjack_protocol::{
    Code, Entry, GroupId, MsgId, Refusal, Thread, UserId,
    log::fold::{ThreadItem, UserThreads},
};

use super::{
    Directory, kv_refusal,
    refold::{self, ControlRecord},
    store_refusal,
};
use crate::store::{ArchiveStore, PartitionKey, accounts::Accounts};

/// The part of the log above the watermark is read within this, or somebody else has to wait less: less than the
/// asker's 15 s.
const READ: Duration = Duration::from_secs(10);
const BATCH: usize = 1_000;
/// Others write the same key: one `channel`, perhaps another instance. More rounds than that is a sick bucket.
const ROUNDS: usize = 10;

/// A part of one partition's log.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    layout: Layout,
    p: u32,
    /// Everything up to here is known.
    after: MsgId,
}

/// What is known of a user's threads.
struct KnownThreads {
    archived: Vec<(Thread, ThreadItem)>,
    /// Not archived yet, and up to where they were read.
    controls: Vec<ControlRecord>,
    ends: Vec<Stretch>,
}

fn busy() -> Refusal {
    Refusal::unavailable("membership is being rebuilt; try again in a moment")
}

impl<S: ArchiveStore + Accounts> Directory<S> {
    pub(super) async fn rebuild_threads(&self, user: &UserId) -> Result<(), Refusal> {
        // Before the line, which anybody could fill with ids that are nobody's.
        let profiles = self.store.profiles(std::slice::from_ref(user)).await.map_err(store_refusal)?;
        if profiles.iter().all(|p| p.deleted) {
            return Err(Refusal::new(Code::NotFound, "no such user"));
        }
        let place = self.rebuilds.enter().ok_or_else(busy)?;
        let _turn = place.turn().await;
        let KnownThreads { archived, mut controls, ends } = self.look(user).await?;
        let built = self.fold_user(user, &archived, &controls).await?;
        let threads = built.threads.len();
        self.put_threads(user, built).await?;
        // The second look, from where the first one ended.
        let (more, _) = self.controls(&ends).await?;
        if !more.is_empty() {
            controls.extend(more);
            let built = self.fold_user(user, &archived, &controls).await?;
            self.put_threads(user, built).await?;
        }
        metrics::counter!(crate::metrics::DIRECTORY_REBUILT, "key" => "threads").increment(1);
        tracing::info!(%user, threads, "a list of threads was built again");
        Ok(())
    }

    /// As archive and log have them, whatever stands in the bucket.
    pub(super) async fn computed_threads(&self, user: &UserId) -> Result<UserThreads, Refusal> {
        let place = self.rebuilds.enter().ok_or_else(busy)?;
        let _turn = place.turn().await;
        let KnownThreads { archived, controls, .. } = self.look(user).await?;
        self.fold_user(user, &archived, &controls).await
    }

    async fn look(&self, user: &UserId) -> Result<KnownThreads, Refusal> {
        // The former generation first: in this order the entries of a thread are folded.
        let partitions =
            self.generations().await?.into_iter().flat_map(|layout| (0..layout.partitions).map(move |p| (layout, p)));
        let marks = try_join_all(partitions.map(|(layout, p)| self.mark(layout, p))).await?;
        let archived = self.store.user_threads(user).await.map_err(store_refusal)?;
        let (controls, ends) = self.controls(&marks).await?;
        Ok(KnownThreads { archived, controls, ends })
    }

    async fn fold_user(
        &self,
        user: &UserId,
        archived: &[(Thread, ThreadItem)],
        controls: &[ControlRecord],
    ) -> Result<UserThreads, Refusal> {
        let mut groups = BTreeMap::new();
        for thread in refold::groups_touching(user, controls) {
            let group = self.store.group(&thread).await.map_err(store_refusal)?;
            groups.insert(thread, group);
        }
        Ok(refold::user(user, archived.to_vec(), &groups, controls))
    }

    async fn put_threads(&self, user: &UserId, built: UserThreads) -> Result<(), Refusal> {
        self.buckets.threads(user).merge(built).await.map_err(kv_refusal)
    }

    pub(super) async fn rebuild_group(&self, gid: &GroupId) -> Result<(), Refusal> {
        let place = self.rebuilds.enter().ok_or_else(busy)?;
        let _turn = place.turn().await;
        let thread = Thread::group(gid);
        let generations = self.generations().await?.into_iter();
        let marks = try_join_all(generations.map(|layout| self.mark(layout, layout.partition(&thread)))).await?;
        let archived = self.store.group(&thread).await.map_err(store_refusal)?;
        let (controls, _) = self.controls(&marks).await?;
        let Some(built) = refold::group(&thread, archived, &controls) else {
            return Err(Refusal::new(Code::NotFound, "no such group"));
        };
        let key = self.buckets.group(gid);
        for _ in 0..ROUNDS {
            let revision = match key.load_with_revision().await.map_err(kv_refusal)? {
                Some((standing, _)) if standing.version >= built.version => return Ok(()),
                Some((_, revision)) => revision,
                None => 0,
            };
            match key.compare_and_set(&built, revision).await {
                Ok(_) => {
                    metrics::counter!(crate::metrics::DIRECTORY_REBUILT, "key" => "group").increment(1);
                    tracing::info!(group = %gid, version = %built.version, "a group was built again");
                    return Ok(());
                }
                Err(KvError::Conflict) => {}
                Err(e) => return Err(kv_refusal(e)),
            }
        }
        Err(busy())
    }

    /// The log's generations, the former one first.
    async fn generations(&self) -> Result<Vec<Layout>, Refusal> {
        let newest = Layout::load(&self.nats).await.map_err(|e| {
            tracing::warn!(error = %e, "a key cannot be rebuilt: the layout of the log is not known");
            busy()
        })?;
        Ok(newest.previous().into_iter().chain([newest]).collect())
    }

    /// The archive's watermark of a partition.
    async fn mark(&self, layout: Layout, p: u32) -> Result<Stretch, Refusal> {
        let key = PartitionKey { generation: layout.generation, partition: p };
        let position = self.store.position(key).await.map_err(store_refusal)?;
        Ok(Stretch { layout, p, after: position.map_or(MsgId::NONE, |w| w.id) })
    }

    /// The control entries behind each of these places up to the end of the log as it is now, in order within a
    /// partition; and the ends.
    async fn controls(&self, from: &[Stretch]) -> Result<(Vec<ControlRecord>, Vec<Stretch>), Refusal> {
        let read = try_join_all(from.iter().map(|s| self.controls_of(*s)));
        let parts = tokio::time::timeout(READ, read).await.map_err(|_| busy())??;
        let (mut all, mut ends) = (Vec::new(), Vec::new());
        for (controls, end) in parts {
            all.extend(controls);
            ends.push(end);
        }
        Ok((all, ends))
    }

    async fn controls_of(
        &self,
        Stretch { layout, p, after }: Stretch,
    ) -> Result<(Vec<ControlRecord>, Stretch), Refusal> {
        let bounds = LeaderReader::new(&self.nats, layout).bounds(p).await.map_err(|e| {
            tracing::warn!(p, error = %e, "a key cannot be rebuilt: the log does not answer");
            busy()
        })?;
        let mut found = Vec::new();
        if bounds.last <= after || bounds.first > bounds.last {
            return Ok((found, Stretch { layout, p, after: after.max(bounds.last) }));
        }
        // Without a watermark nothing is known to be missing below the log's beginning.
        if !after.is_none() && bounds.first > after.next() {
            return Err(hole(p));
        }
        let mut reader = LogReader::briefly(&self.nats, layout, p, ReadFrom::After(after));
        while reader.position() < bounds.last {
            let batch = reader.next_batch(BATCH).await.map_err(|e| {
                tracing::warn!(p, error = %e, "a key cannot be rebuilt: the log cannot be read");
                busy()
            })?;
            if batch.hole.is_some() {
                return Err(hole(p));
            }
            found.extend(batch.records.into_iter().filter_map(control));
        }
        Ok((found, Stretch { layout, p, after: reader.position() }))
    }
}

/// What cannot be read is no change of anything: `channel` and the archive skip it as well.
fn control(record: Record) -> Option<ControlRecord> {
    match record {
        Record::Entry(r) if r.control => {
            let entry = Entry::on(true, &r.payload).ok()?;
            Some(ControlRecord { id: r.id, thread: r.thread, entry })
        }
        Record::Entry(_) | Record::UnknownSubject { .. } | Record::End { .. } => None,
    }
}

fn hole(p: u32) -> Refusal {
    tracing::error!(p, "a key cannot be rebuilt: the log begins above the archive's watermark");
    Refusal::unavailable("membership cannot be rebuilt: the archive is behind the log")
}
