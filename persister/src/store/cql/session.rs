//! The one place that talks to the driver: connecting, the bounds on requests in flight, and what the driver's errors
//! mean.
//!
//! Deadlines are the driver's own. A future that is dropped leaves its request behind in the connection, and 1,024 of
//! those end it.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use scylla::{
    client::{PoolSize, execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    deserialize::row::DeserializeRow,
    errors::{DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError},
    policies::load_balancing::DefaultPolicy,
    response::query_result::QueryRowsResult,
    serialize::row::SerializeRow,
    statement::{
        Statement,
        batch::{Batch, BatchStatement, BatchType},
        prepared::PreparedStatement,
    },
    value::Row,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::config::CqlConfig;
use crate::store::ArchiveError;

/// Requests in flight. Beyond a few hundred a server only queues them (256 to 512, measured). Overflow: they wait.
const READS: usize = 128;
const WRITES: usize = 256;
/// A half-open connection is given up after the sum of these. A server may be slow: it is not gone before requests of
/// the patient are.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_ANSWER: Duration = PATIENCE;
/// Of those that write the archive: nobody waits for them, and a server that takes seconds is better than none.
const PATIENCE: Duration = Duration::from_secs(10);
/// A server gives up a conditional write after one second in a crowd.
const CROWDED: Duration = Duration::from_millis(1_900);
/// A server takes its time to make a table.
const CHANGE: Duration = Duration::from_secs(30);
/// Connections to each server (Scylla: spread over its shards).
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

pub(super) struct Requests {
    session: Arc<Session>,
    /// Of one request with all its attempts, and of the queue before it.
    timeout: Duration,
    reads: Semaphore,
    writes: Semaphore,
}

impl Requests {
    /// `keyspace` may be missing on the servers yet; it is used by name only.
    pub(super) async fn connect(cfg: &CqlConfig) -> Result<Self, ArchiveError> {
        let (consistency, serial) = cfg.consistency.levels();
        let mut near = DefaultPolicy::builder();
        if let Some(dc) = &cfg.local_dc {
            near = near.prefer_datacenter(dc.clone());
        }
        let profile = ExecutionProfile::builder()
            .request_timeout(Some(cfg.request_timeout()))
            .consistency(consistency)
            .serial_consistency(Some(serial))
            .load_balancing_policy(near.build())
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(&cfg.contact_points)
            .default_execution_profile_handle(profile.into_handle())
            .pool_size(PoolSize::PerHost(CONNECTIONS))
            .connection_timeout(PATIENCE)
            .hostname_resolution_timeout(Some(cfg.request_timeout()))
            .keepalive_interval(KEEPALIVE)
            .keepalive_timeout(KEEPALIVE_ANSWER)
            .keyspaces_to_fetch([&cfg.keyspace]);
        if let (Some(user), Some(password)) = (&cfg.user, &cfg.password) {
            builder = builder.user(user, password);
        }
        let session = builder.build().await.map_err(connecting)?;
        Ok(Self::over(Arc::new(session), cfg.request_timeout()))
    }

    /// On the same connections, with deadlines for those who can wait, and with places of their own.
    pub(super) fn patient(&self) -> Self {
        Self::over(self.session.clone(), PATIENCE.max(self.timeout))
    }

    fn over(session: Arc<Session>, timeout: Duration) -> Self {
        Self { session, timeout, reads: Semaphore::new(READS), writes: Semaphore::new(WRITES) }
    }

    /// A change of the schema. Waits until all servers agree.
    pub(super) async fn change(&self, cql: &str) -> Result<(), ArchiveError> {
        let mut statement = Statement::new(cql);
        statement.set_request_timeout(Some(CHANGE));
        self.session.query_unpaged(statement, ()).await.map(drop).map_err(failed)
    }

    pub(super) async fn use_keyspace(&self, keyspace: &str) -> Result<(), ArchiveError> {
        self.session.use_keyspace(keyspace, true).await.map_err(|e| ArchiveError::Unavailable(e.to_string()))
    }

    /// A statement that may be sent twice.
    pub(super) async fn prepare(&self, cql: &str) -> Result<PreparedStatement, ArchiveError> {
        let mut statement = self.prepare_condition(cql).await?;
        statement.set_is_idempotent(true);
        Ok(statement)
    }

    /// A conditional statement: sent twice it would find its own first effect.
    pub(super) async fn prepare_condition(&self, cql: &str) -> Result<PreparedStatement, ArchiveError> {
        let mut statement = self.session.prepare(cql).await.map_err(preparing)?;
        statement.set_request_timeout(Some(self.timeout));
        Ok(statement)
    }

    /// Likewise, for around a change of the schema.
    pub(super) async fn prepare_patient_condition(&self, cql: &str) -> Result<PreparedStatement, ArchiveError> {
        let mut statement = self.prepare_condition(cql).await?;
        statement.set_request_timeout(Some(CHANGE));
        Ok(statement)
    }

    pub(super) async fn read<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, ArchiveError>
    where
        R: for<'r> DeserializeRow<'r, 'r>,
    {
        let _permit = self.place(&self.reads, "read").await?;
        let rows = answer("read", self.session.execute_unpaged(statement, values)).await?;
        let rows = rows.into_rows_result().map_err(|e| ArchiveError::Failed(e.to_string()))?;
        let typed = rows.rows::<R>().map_err(|e| ArchiveError::Corrupt(e.to_string()))?;
        typed.collect::<Result<_, _>>().map_err(|e| ArchiveError::Corrupt(e.to_string()))
    }

    pub(super) async fn read_one<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Option<R>, ArchiveError>
    where
        R: for<'r> DeserializeRow<'r, 'r>,
    {
        Ok(self.read(statement, values).await?.into_iter().next())
    }

    pub(super) async fn write(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<(), ArchiveError> {
        let _permit = self.place(&self.writes, "write").await?;
        answer("write", self.session.execute_unpaged(statement, values)).await.map(drop)
    }

    /// Was the condition true, so that it was written?
    pub(super) async fn decide(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<bool, ArchiveError> {
        let _permit = self.place(&self.writes, "write").await?;
        let result = answer("condition", self.session.execute_unpaged(statement, values)).await?;
        applied(&result.into_rows_result().map_err(|e| ArchiveError::Failed(e.to_string()))?)
    }

    /// Likewise, where many want the same row, or rows of one partition: they get into each other's way. Sent again
    /// when its end is not known, so false may be said of what it has written itself: look.
    pub(super) async fn decide_in_a_crowd(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow + Copy,
    ) -> Result<bool, ArchiveError> {
        let began = Instant::now();
        loop {
            match self.decide(statement, values).await {
                Err(ArchiveError::Unavailable(_)) if began.elapsed() < CROWDED => {}
                decided => return decided,
            }
        }
    }

    /// The same statement for many rows of one partition, in one request.
    pub(super) async fn write_rows<V: SerializeRow>(
        &self,
        statement: &PreparedStatement,
        rows: &[V],
    ) -> Result<(), ArchiveError> {
        if let [one] = rows {
            return self.write(statement, one).await;
        }
        let _permit = self.place(&self.writes, "write").await?;
        let mut batch =
            Batch::new_with_statements(BatchType::Unlogged, vec![BatchStatement::from(statement.clone()); rows.len()]);
        batch.set_is_idempotent(true);
        batch.set_request_timeout(Some(self.timeout));
        answer("batch", self.session.batch(&batch, rows)).await.map(drop)
    }

    /// All of it or, if it fails, perhaps nothing; never a part for good.
    pub(super) async fn write_both<V: SerializeRow>(
        &self,
        statements: [&PreparedStatement; 2],
        values: (V, V),
    ) -> Result<(), ArchiveError> {
        let _permit = self.place(&self.writes, "write").await?;
        let mut batch =
            Batch::new_with_statements(BatchType::Logged, statements.map(|s| BatchStatement::from(s.clone())).into());
        batch.set_is_idempotent(true);
        batch.set_request_timeout(Some(self.timeout));
        answer("batch", self.session.batch(&batch, values)).await.map(drop)
    }

    async fn place<'a>(&self, line: &'a Semaphore, kind: &'static str) -> Result<SemaphorePermit<'a>, ArchiveError> {
        metrics::gauge!(crate::metrics::CQL_FREE_REQUESTS, "kind" => kind).set(line.available_permits() as f64);
        // Only the waiting is cut off here: nothing was sent yet.
        match tokio::time::timeout(self.timeout, line.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(ArchiveError::Unavailable("it is shutting down".into())),
            Err(_) => Err(ArchiveError::Unavailable("too many requests wait for it already".into())),
        }
    }
}

/// Cassandra answers with this column alone when it was applied and with all of them when not, Scylla always with all:
/// by its name.
fn applied(rows: &QueryRowsResult) -> Result<bool, ArchiveError> {
    let broken = || ArchiveError::Failed("a conditional statement was answered without [applied]".into());
    let (at, _) = rows.column_specs().get_by_name("[applied]").ok_or_else(broken)?;
    let row: Row = rows.first_row().map_err(|e| ArchiveError::Failed(e.to_string()))?;
    row.columns.get(at).and_then(|c| c.as_ref()?.as_boolean()).ok_or_else(broken)
}

async fn answer<T>(
    kind: &'static str,
    request: impl Future<Output = Result<T, ExecutionError>>,
) -> Result<T, ArchiveError> {
    let began = Instant::now();
    // On the heap: the driver's futures are large, and ours would carry several of them.
    let result = Box::pin(request).await.map_err(failed);
    metrics::histogram!(crate::metrics::CQL_REQUEST_SECONDS, "kind" => kind).record(began.elapsed());
    if let Err(e) = &result {
        let why = if matches!(e, ArchiveError::Unavailable(_)) { "unavailable" } else { "refused" };
        metrics::counter!(crate::metrics::CQL_ERRORS, "kind" => kind, "why" => why).increment(1);
    }
    result
}

fn connecting(e: NewSessionError) -> ArchiveError {
    // Also a wrong password: it may be set right at any time, and chat goes on without the archive until then.
    ArchiveError::Unavailable(e.to_string())
}

fn preparing(e: PrepareError) -> ArchiveError {
    match e {
        PrepareError::AllAttemptsFailed { first_attempt } => attempt(&first_attempt),
        e => ArchiveError::Unavailable(e.to_string()),
    }
}

fn failed(e: ExecutionError) -> ArchiveError {
    match &e {
        ExecutionError::BadQuery(_) => ArchiveError::Failed(e.to_string()),
        ExecutionError::LastAttemptError(last) => attempt(last),
        _ => ArchiveError::Unavailable(e.to_string()),
    }
}

/// A mistake of ours, or of who set it up, does not go away by waiting; whatever else a server says may.
fn attempt(e: &RequestAttemptError) -> ArchiveError {
    let ours = match e {
        RequestAttemptError::DbError(db, _) => {
            matches!(
                db,
                DbError::SyntaxError
                    | DbError::Invalid
                    | DbError::AlreadyExists { .. }
                    | DbError::AuthenticationError
                    | DbError::Unauthorized
                    | DbError::ConfigError
                    | DbError::ProtocolError
            )
        }
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => true,
        _ => false,
    };
    if ours { ArchiveError::Failed(e.to_string()) } else { ArchiveError::Unavailable(e.to_string()) }
}
