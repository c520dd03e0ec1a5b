//! The schema: brought up to date under a lock, one version after the other.
//!
//! The lock is a row that expires, taken and kept by conditional writes, so of many processes that start at once one
//! migrates, and one that dies in the middle blocks nobody for long. Each statement can be repeated: a migration that
//! was cut off begins again.

use std::time::Duration;

use scylla::statement::prepared::PreparedStatement;
use tokio::time::{Instant, sleep};

use super::{
    buckets,
    config::{Buckets, CqlConfig},
    contacts, cursors, falls, invites, lost, messages, names, operations, positions, refresh_tokens,
    session::Requests,
    threads, users,
};
use crate::store::ArchiveError;

/// Every change of the schema, in the order in which they are applied; the row `schema` counts them. Only append.
const MIGRATIONS: &[&[&str]] = &[
    &[
        messages::SCHEMA,
        messages::CONTROLS_SCHEMA,
        operations::SCHEMA,
        buckets::SCHEMA,
        threads::SCHEMA,
        threads::USER_THREADS_SCHEMA,
        positions::SCHEMA,
        positions::STRAYS_SCHEMA,
        users::SCHEMA,
        names::SCHEMA,
        contacts::SCHEMA,
        contacts::RELATIONS_SCHEMA,
        refresh_tokens::SCHEMA,
        refresh_tokens::FAMILIES_SCHEMA,
    ],
    &[users::LOGINS_SCHEMA],
    &[refresh_tokens::USES_SCHEMA, refresh_tokens::SALTS_SCHEMA],
    &[refresh_tokens::DEVICES_SCHEMA],
    &[falls::SCHEMA],
    &[lost::SCHEMA],
    &[refresh_tokens::OPEN_LOGINS_SCHEMA, invites::SCHEMA],
    &[names::HELD_SCHEMA, users::DELETIONS_SCHEMA],
    &[cursors::SCHEMA, cursors::SHARDS_SCHEMA],
];

const META: &str = "CREATE TABLE IF NOT EXISTS meta (key text PRIMARY KEY, holder text, version int, bucket_rows int, \
                    bucket_span bigint)";

/// A change of the schema takes under a second per table and server; the lock is renewed before each.
const LOCK_SECONDS: i32 = 60;
/// Longer than a lock that was left behind.
const PATIENCE: Duration = Duration::from_secs(90);
const AGAIN: Duration = Duration::from_millis(250);

/// What the keyspace was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    version: usize,
    pub(super) buckets: Buckets,
}

/// Creates what is missing and selects the keyspace.
pub(super) async fn prepare(requests: &Requests, cfg: &CqlConfig) -> Result<Found, ArchiveError> {
    let CqlConfig { keyspace, replication, local_dc, .. } = cfg;
    if keyspace.is_empty() || !keyspace.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(ArchiveError::Failed(format!("{keyspace:?} cannot be a keyspace: letters, digits and _")));
    }
    // Mostly it is there, and the user of the persister need not be allowed to make it.
    if requests.use_keyspace(keyspace).await.is_err() {
        let place = local_dc.as_deref().unwrap_or("replication_factor").replace('\'', "");
        let create = format!(
            "CREATE KEYSPACE IF NOT EXISTS \"{keyspace}\" WITH replication = {{'class': 'NetworkTopologyStrategy', \
             '{place}': {replication}}}"
        );
        // Up to ScyllaDB 2025.3 there are no conditional writes in a keyspace with tablets, and those are its default.
        // Others do not know the word.
        match requests.change(&format!("{create} AND tablets = {{'enabled': false}}")).await {
            Err(ArchiveError::Failed(_)) => requests.change(&create).await?,
            made => made?,
        }
        requests.use_keyspace(keyspace).await?;
    }
    if let Ok(meta) = Meta::prepare(requests).await
        && let Some(found) = meta.read(requests).await?
        && found.version == MIGRATIONS.len()
    {
        return Ok(found);
    }
    requests.change(META).await?;
    let meta = Meta::prepare(requests).await?;
    let me = uuid::Uuid::now_v7().to_string();
    let began = Instant::now();
    loop {
        match update(requests, &meta, &me, cfg.buckets).await {
            // Also a conditional write that nobody knows the end of: all of it can be repeated, by the same holder.
            Err(ArchiveError::Unavailable(why)) if began.elapsed() < PATIENCE => {
                tracing::debug!(why, "the schema is not up to date yet; trying again");
                sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}

async fn update(requests: &Requests, meta: &Meta, me: &str, buckets: Buckets) -> Result<Found, ArchiveError> {
    if !meta.lock(requests, me).await? {
        return Err(ArchiveError::Unavailable("another process holds the lock of the schema".into()));
    }
    let migrated = migrate(requests, meta, me, buckets).await;
    if let Err(e) = requests.decide(&meta.unlock, (me,)).await {
        tracing::warn!(error = %e, "the lock of the schema was not released; it expires");
    }
    migrated
}

/// As `Cql::schema_version`.
pub(super) async fn version(requests: &Requests, cfg: &CqlConfig) -> Result<Option<(usize, usize)>, ArchiveError> {
    if requests.use_keyspace(&cfg.keyspace).await.is_err() {
        return Ok(None);
    }
    match Meta::prepare(requests).await {
        Ok(meta) => Ok(meta.read(requests).await?.map(|found| (found.version, MIGRATIONS.len()))),
        // No such table.
        Err(ArchiveError::Failed(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

async fn migrate(requests: &Requests, meta: &Meta, me: &str, buckets: Buckets) -> Result<Found, ArchiveError> {
    let mut found = meta.read(requests).await?.unwrap_or(Found { version: 0, buckets });
    if found.version > MIGRATIONS.len() {
        let (there, known) = (found.version, MIGRATIONS.len());
        return Err(ArchiveError::Failed(format!(
            "the keyspace has schema {there}, this build knows {known}: use the newer build"
        )));
    }
    for (n, statements) in MIGRATIONS.iter().enumerate().skip(found.version) {
        for cql in *statements {
            if !requests.decide(&meta.renew, (LOCK_SECONDS, me, me)).await? {
                return Err(ArchiveError::Unavailable("the lock of the schema went to another process".into()));
            }
            requests.change(cql).await?;
        }
        let done = if n == 0 {
            let rows = i32::try_from(found.buckets.rows).unwrap_or(i32::MAX);
            requests.decide(&meta.first, (1, rows, super::int(found.buckets.span))).await?
        } else {
            requests.decide(&meta.next, (n as i32 + 1, n as i32)).await?
        };
        if !done {
            return Err(ArchiveError::Unavailable("another process changes the schema".into()));
        }
        found.version = n + 1;
        tracing::info!(version = found.version, "the schema of the archive was brought up to date");
    }
    Ok(found)
}

struct Meta {
    read: PreparedStatement,
    lock: PreparedStatement,
    renew: PreparedStatement,
    unlock: PreparedStatement,
    first: PreparedStatement,
    next: PreparedStatement,
}

impl Meta {
    async fn prepare(r: &Requests) -> Result<Self, ArchiveError> {
        Ok(Self {
            read: r.prepare("SELECT version, bucket_rows, bucket_span FROM meta WHERE key = 'schema'").await?,
            lock: r
                .prepare_patient_condition(
                    "INSERT INTO meta (key, holder) VALUES ('lock', ?) IF NOT EXISTS USING TTL ?",
                )
                .await?,
            renew: r
                .prepare_patient_condition("UPDATE meta USING TTL ? SET holder = ? WHERE key = 'lock' IF holder = ?")
                .await?,
            unlock: r.prepare_patient_condition("DELETE FROM meta WHERE key = 'lock' IF holder = ?").await?,
            first: r
                .prepare_patient_condition(
                    "UPDATE meta SET version = ?, bucket_rows = ?, bucket_span = ? WHERE key = 'schema' IF version = \
                     null",
                )
                .await?,
            next: r
                .prepare_patient_condition("UPDATE meta SET version = ? WHERE key = 'schema' IF version = ?")
                .await?,
        })
    }

    async fn read(&self, r: &Requests) -> Result<Option<Found>, ArchiveError> {
        let row: Option<(Option<i32>, Option<i32>, Option<i64>)> = r.read_one(&self.read, ()).await?;
        Ok(row.and_then(|(version, rows, span)| {
            let buckets = Buckets { rows: u32::try_from(rows?).ok()?, span: super::uint(span?) };
            Some(Found { version: usize::try_from(version?).ok()?, buckets })
        }))
    }

    /// True also if it is ours already.
    async fn lock(&self, r: &Requests, me: &str) -> Result<bool, ArchiveError> {
        Ok(r.decide(&self.lock, (me, LOCK_SECONDS)).await? || r.decide(&self.renew, (LOCK_SECONDS, me, me)).await?)
    }
}
