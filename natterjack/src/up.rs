//! `natterjack up`: everything on one machine, as four processes with one data folder. nats-server and the two edges
//! are supervised children; channel, persister and presence run in this process, so that killing an edge does not stop
//! them.
//!
//! Starts in the order of dependencies and stops in the reverse order: edges, the roles in this process, nats-server.

mod backoff;
mod data;
mod edges;
mod mark;
pub mod nats_server;
mod ports;
mod state;
mod supervise;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use natterjack_nats::Nats;
use natterjack_runtime::{Health, Lifecycle, admin::Admin, lifecycle, telemetry::Metrics};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::{
    data::{DataFolder, archive_in, nats_url, runs_in},
    ports::{is_free, nats_port_alone},
    state::StateFile,
    supervise::Unclean,
};
use crate::{roles, settings::Settings};

/// The layers of the configuration that children get besides what this process decides.
pub struct Forward {
    pub config: Option<PathBuf>,
    pub set: Vec<(String, String)>,
}

/// Everything answers within a second on an idle machine; a cold disk or a long replay of the log takes longer.
const READY: Duration = Duration::from_secs(60);
/// Between attempts to begin a new generation of the log.
const AGAIN: Duration = Duration::from_secs(1);
/// After the edges' 20 s: the roles in this process write what they hold (10 s), nats-server closes its files (5 s).
const REST_OF_DRAIN: Duration = Duration::from_secs(15);

pub async fn run(
    mut settings: Settings,
    forward: Forward,
    die_with_parent: bool,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let drain = settings.process.drain + REST_OF_DRAIN;
    let life = Lifecycle::install(lifecycle::LifecycleOptions { drain, die_with_parent })?;
    let data = data::DataFolder::open(&settings.up.data)?;
    let (mark, last_end) = mark::Mark::read(data.root())?;
    let server = nats_server::find(settings.up.nats_server.as_deref()).await?;
    let ports = ports::choose(&settings.up, settings.admin)?;
    let admin = Admin::bind(ports.admin.map(|a| a[0])).await?;
    settings.archive = data.archive();
    settings.nats.urls = vec![format!("nats://127.0.0.1:{}", ports.nats)];
    settings.nats.sync_always = settings.up.sync == natterjack_nats::server_config::DiskSync::Always;
    settings.nats.default_max_bytes =
        Some(natterjack_nats::server_config::max_bytes_for(data.free_bytes()?, settings.nats.partitions));
    let state = Arc::new(state::StateFile::new(&settings, &ports));

    // Three tokens, so that the parts stop one after the other.
    let (edges_stop, roles_stop, nats_stop) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let health = Health::expecting(roles::IN_UP.into_iter().flat_map(roles::parts).copied());
    let unclean = supervise::Unclean::default();

    let server =
        nats_server::keep(server, &data, &ports, settings.up.sync, state.clone(), unclean.clone(), nats_stop.clone());
    let announce = async {
        tokio::select! {
            () = edges_stop.cancelled() => return Ok(()),
            answered = timeout(READY, ready(&health, &settings, &ports)) => {
                answered.map_err(|_| anyhow!("not ready within {} s: {:?}", READY.as_secs(), health.report().parts))??;
            }
        }
        state.ready()?;
        say_ready(&settings, &ports);
        Ok(())
    };
    let edges = async {
        // No edge starts before the log continues above every id that can have been acknowledged.
        if let Some(()) = edges_stop.run_until_cancelled(after_the_last_end(&settings, last_end)).await.transpose()? {
            mark.set()?;
        }
        let ended = edges::keep(&settings, &forward, &ports, state.clone(), unclean.clone(), edges_stop.clone()).await;
        roles_stop.cancel();
        ended
    };
    let chat = async {
        let ended = async {
            tokio::select! {
                laid_out = provision(&settings, &data) => laid_out?,
                () = edges_stop.cancelled() => return Ok(()),
            };
            tokio::try_join!(edges, roles::all_in_up(&settings, &health, roles_stop.clone()), announce).map(|_| ())
        };
        let ended = ended.await;
        nats_stop.cancel();
        // Not an error of this join: nats-server is stopped in order then, too.
        Ok(ended)
    };
    let stop = async {
        life.stop().cancelled().await;
        edges_stop.cancel();
        std::future::pending::<()>().await;
    };
    let admin = async { Ok(admin.serve(health.clone(), metrics, nats_stop.clone()).await?) };
    let work = async {
        tokio::select! {
            ended = async { tokio::try_join!(server, chat, admin) } => ended?.1,
            () = stop => Ok(()),
        }
    };
    let ended = life.run(Box::pin(work)).await;
    state.remove();
    ended??;
    // nats-server has ended, too: its data is with the kernel, and most likely on the disk.
    mark.clear();
    unclean.check()?;
    tracing::info!(
        "stopped cleanly: everything that was acknowledged is in the log; the log and the archive are closed"
    );
    Ok(())
}

/// Connects to the server that was just started, and makes or verifies streams and buckets.
async fn provision(settings: &Settings, data: &data::DataFolder) -> anyhow::Result<()> {
    let log = || format!("nats-server says why in {}", data.nats_log().display());
    let nats = Nats::connect(&settings.nats, "up").await.with_context(log)?;
    natterjack_nats::provision(&nats, &settings.nats, &settings.times).await.with_context(log)?;
    Ok(())
}

/// A log that is synced every 100 ms may have lost its last entries with the machine, and which ones cannot be known.
/// So it continues in a new generation, above every id that can have been acknowledged. One that is synced before each
/// acknowledgement lost nothing.
async fn after_the_last_end(settings: &Settings, last_end: mark::LastEnd) -> anyhow::Result<()> {
    if last_end != mark::LastEnd::Machine || settings.up.sync == natterjack_nats::server_config::DiskSync::Always {
        return Ok(());
    }
    tracing::warn!(
        "the machine went down while natterjack ran: entries that were not yet on the disk are lost, and the log \
         continues in a new generation"
    );
    let nats = Nats::connect(&settings.nats, "up").await?;
    let found = natterjack_nats::Layout::load(&nats).await?.generation;
    while let Err(e) = natterjack_nats::renew(&nats, found, natterjack_nats::IdFloor::default()).await {
        // Most often the generation before is still being archived, by the roles beside us.
        tracing::warn!(error = %e, "cannot begin the new generation yet; trying again");
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

async fn ready(health: &Health, settings: &Settings, ports: &ports::Ports) -> anyhow::Result<()> {
    health.ready().await;
    Ok(edges::ready(settings, ports).await?)
}

#[expect(clippy::print_stdout, reason = "the line that people and scripts wait for")]
fn say_ready(settings: &Settings, ports: &ports::Ports) {
    let [a, b] = edges::urls(settings, ports);
    println!(
        "natterjack {} · data in {} · one nats-server, no replica: {}",
        env!("CARGO_PKG_VERSION"),
        settings.up.data.display(),
        match settings.up.sync {
            natterjack_nats::server_config::DiskSync::Interval =>
                "acknowledged messages survive the death of any process; a power loss may lose the last 0.1 s (--sync \
                 always: nothing, at most 5,000 sends a second)",
            natterjack_nats::server_config::DiskSync::Always =>
                "acknowledged messages survive the death of any process and a power loss",
        }
    );
    if let Some([here, one, two]) = ports.admin {
        println!(
            "for operators (/health, /ready, /metrics): channel, persister and presence http://{here}, edges \
             http://{one} and \
             http://{two}"
        );
    }
    if let Some(url) = &settings.edge.url {
        println!("clients are told to connect to {url} (edge.url)");
    }
    if settings.up.host.is_unspecified()
        && let Some([a, b]) = edges::from_elsewhere(settings, ports)
    {
        println!(
            "from another machine or a phone in this network: {a} or {b}{}",
            if settings.edge.tls.is_some() { "" } else { " · not encrypted: passwords cross the network in clear" }
        );
    }
    println!(
        "ready: edges {a} and {b} · chat in two terminals: natterjack chat --edge {a} --name alice --register   and   \
         natterjack chat --edge {b} --name bob --register --to alice"
    );
}
