//! The role: opens the store, connects, then archives every partition whose lease it gets, and serves `history` and
//! `directory`.

use std::{path::PathBuf, time::Duration};

use futures_util::future::BoxFuture;
use natterjack_nats::{
    Beginning, KvBuckets, Layout, LayoutError, Nats, NatsConfig, NatsConnectError, ServeError, ServerTime,
};
use natterjack_protocol::Times;
use natterjack_role::RoleSetup;
use natterjack_runtime::{Health, Resources, clock::wall_ms, health::Readers, resources::free_bytes};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    archive::Archive,
    cursors::CursorCopier,
    directory::{self, DirectoryError, Logins, RegistrationRule},
    external::External,
    history::{self, History},
    losses,
    password::{self, Cost},
    space,
    store::{ArchiveError, ArchiveStore, Cql, CqlConfig, Sqlite, accounts::Accounts},
};

/// What is said to a name is meant for whoever had it: 30 days.
const NAME_HOLD: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Nobody waits longer for an archive that is away: looking messages up is right, too.
const DECLARE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub nats: NatsConfig,
    pub times: Times,
    /// The name of this instance in the role leases: different for every process.
    pub instance: String,
    pub store: StoreConfig,
    /// What one password hash costs.
    pub password: Cost,
    /// Who may make an account with a name and a password.
    pub registration: RegistrationRule,
    /// For so long nobody else gets a name that was given up.
    pub name_hold: Duration,
    /// Whose tokens are taken as logins besides names and passwords.
    pub external: Option<External>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nats: NatsConfig::default(),
            times: Times::default(),
            instance: uuid::Uuid::now_v7().to_string(),
            store: StoreConfig::default(),
            password: Cost::default(),
            registration: RegistrationRule::default(),
            name_hold: NAME_HOLD,
            external: None,
        }
    }
}

/// Which archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreConfig {
    /// One file; every persister must be able to open it, so all of them run on one machine.
    Sqlite { path: PathBuf },
    /// Servers that any number of persisters can reach.
    Cql(CqlConfig),
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self::Sqlite { path: "natterjack.db".into() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the archive cannot be opened: {0}")]
    Store(#[from] ArchiveError),
    #[error(transparent)]
    Connect(#[from] NatsConnectError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("directory: {0}")]
    Directory(#[from] DirectoryError),
    #[error("a part of the persister failed badly: see the log")]
    Panicked,
}

/// Runs until `stop` is cancelled and everything is drained, or until a part of it cannot go on.
/// Boxed here, so that the persister is compiled once, in this crate, and not again wherever it is run.
pub fn run(cfg: Config, health: Health, stop: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        match cfg.store.clone() {
            StoreConfig::Sqlite { path } => run_with(cfg, Sqlite::open(path).await?, health, stop).await,
            StoreConfig::Cql(cql) => run_with(cfg, Cql::open(cql).await?, health, stop).await,
        }
    })
}

/// The same over any store.
pub async fn run_with<S: ArchiveStore + Accounts>(
    cfg: Config,
    store: S,
    health: Health,
    stop: CancellationToken,
) -> Result<(), Error> {
    crate::metrics::describe();
    health.set(CONNECTING, Err("connecting to NATS".into()));
    let nats = Nats::connect(&cfg.nats, "persister").await?;
    let Some(layout) = stop.run_until_cancelled(Layout::load_at_start(&nats)).await.transpose()? else { return Ok(()) };
    let Some(time) = stop.run_until_cancelled(ServerTime::start(&nats, wall_ms)).await else { return Ok(()) };
    if let Some(declared) =
        stop.run_until_cancelled(timeout(DECLARE, declare_beginning(&nats, layout, &cfg.times, &store))).await
    {
        match declared {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::info!(
                why,
                "whether the log is the first one here is not known; its first messages are looked up"
            ),
            Err(_) => tracing::info!(
                "whether the log is the first one here was not known in time; its first messages are looked up"
            ),
        }
    }
    let folder = match &cfg.store {
        StoreConfig::Sqlite { path } => Some(space::folder(path)),
        StoreConfig::Cql(_) => None,
    };
    let disk = folder
        .as_deref()
        .and_then(|f| free_bytes(f).ok())
        .map_or_else(|| "on servers".into(), |free| space::disk(free).unwrap_or_else(|why| why));
    tracing::info!(
        "this persister takes {} logins at once; archive: {disk}; it may have {}",
        password::at_once(),
        Resources::now()
    );
    let _space = AbortOnDropHandle::new(tokio::spawn(space::watch(nats.clone(), folder)));
    // The parts end together: whichever cannot go on takes the others with it.
    let stop = stop.child_token();
    let mut parts: JoinSet<Result<(), Error>> = JoinSet::new();
    let closing = store.clone();
    let history = History::new(&nats, layout, cfg.times.clone(), store.clone());
    let readers = Readers::new(&health);
    let setup = RoleSetup { nats: nats.clone(), layout, times: cfg.times.clone(), instance: cfg.instance, readers };
    parts.spawn({
        let copier = CursorCopier { buckets: KvBuckets::new(&nats, layout), store: store.patient() };
        let (setup, stop) = (setup.clone(), stop.clone());
        async move {
            natterjack_role::run_shards(copier, setup, stop).await;
            Ok(())
        }
    });
    parts.spawn({
        let archive = Archive { history: history.clone(), store: store.patient() };
        let stop = stop.clone();
        async move {
            natterjack_role::run(archive, setup, stop).await;
            Ok(())
        }
    });
    parts.spawn({
        let (nats, health, store, stop) = (nats.clone(), health.clone(), store.clone(), stop.clone());
        async move {
            let losses = losses::start(&nats, store).await?;
            let service = history::start(&nats, history.clone()).await?;
            health.set("history", Ok(()));
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow_generations(&nats, layout, &history) => {}
            }
            service.drain().await;
            losses.drain().await;
            health.remove("history");
            Ok(())
        }
    });
    parts.spawn({
        let (nats, times, health, stop) = (nats.clone(), cfg.times.clone(), health.clone(), stop.clone());
        let logins = Logins {
            password: cfg.password,
            registration: cfg.registration,
            name_hold: cfg.name_hold,
            external: cfg.external,
        };
        let base = directory::Base { nats, layout, store, times, time };
        async move { Ok(directory::run(base, logins, health, stop).await?) }
    });
    let mut outcome = Ok(());
    while let Some(ended) = parts.join_next().await {
        let ended = ended.unwrap_or(Err(Error::Panicked));
        stop.cancel();
        outcome = outcome.and(ended);
    }
    closing.close().await;
    health.remove(CONNECTING);
    outcome
}

/// The part of the health that stands for all partitions before each has its own.
const CONNECTING: &str = "archive";

/// Answers are about the newest generation as soon as there is one, however far the archive is. Never ends.
async fn follow_generations<S: ArchiveStore>(nats: &Nats, mut newest: Layout, history: &History<S>) {
    loop {
        newest = newest.next_generation(nats).await;
        history.goes_on(newest);
    }
}

/// Says that nothing was stored before the log, if that is so: then the messages of its first seconds need no lookup.
async fn declare_beginning<S: ArchiveStore>(
    nats: &Nats,
    layout: Layout,
    times: &Times,
    store: &S,
) -> Result<(), String> {
    let Some(beginning) = Beginning::find(nats, layout, times).await.map_err(|e| e.to_string())? else { return Ok(()) };
    if !store.is_empty().await.map_err(|e| e.to_string())? {
        return Ok(());
    }
    KvBuckets::new(nats, layout).beginning().put(&beginning).await.map(drop).map_err(|e| e.to_string())
}
