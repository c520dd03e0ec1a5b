//! The only file that runs the role crates: settings in, running roles out.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::try_join_all;
use natterjack_nats::{NatsConfig, NatsRole, RoleConfig};
use natterjack_runtime::{Health, Lifecycle, admin::Admin, lifecycle, telemetry::Metrics};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::settings::Settings;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerRole {
    Edge,
    Channel,
    Persister,
    Presence,
}

/// The parts of its health that a process waits for: without this list it would be ready before they have reported.
pub fn parts(role: ServerRole) -> &'static [&'static str] {
    match role {
        ServerRole::Edge => &["edge"],
        ServerRole::Channel => &["channel"],
        ServerRole::Persister => &["archive", "history", "directory"],
        ServerRole::Presence => &["presence"],
    }
}

impl std::fmt::Display for ServerRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Edge => "edge",
            Self::Channel => "channel",
            Self::Persister => "persister",
            Self::Presence => "presence",
        })
    }
}

/// A role as a process of its own.
pub async fn serve(
    role: ServerRole,
    settings: Settings,
    die_with_parent: bool,
    metrics: Metrics,
) -> anyhow::Result<()> {
    // The role drains by its own bound; ours is for one that does not come to its end.
    let drain = settings.process.drain + Duration::from_secs(2);
    let life = Lifecycle::install(lifecycle::LifecycleOptions { drain, die_with_parent })?;
    let admin = Admin::bind(settings.admin).await?;
    let health = Health::expecting(parts(role).iter().copied());
    let (stop, admin_stop) = (life.stop(), CancellationToken::new());
    let work = async {
        tokio::select! {
            ended = run(role, &settings, health.clone(), stop) => ended,
            failed = admin.serve(health.clone(), metrics.clone(), admin_stop) => failed.map_err(Into::into),
            never = say_ready(role, &health) => never,
        }
    };
    life.run(Box::pin(work)).await??;
    tracing::info!("{role} stopped cleanly: requests are finished, files are closed");
    Ok(())
}

/// Once, and then nothing.
async fn say_ready<T>(role: ServerRole, health: &Health) -> T {
    health.ready().await;
    tracing::info!("{role} is ready");
    std::future::pending().await
}

async fn run(role: ServerRole, settings: &Settings, health: Health, stop: CancellationToken) -> anyhow::Result<()> {
    match role {
        ServerRole::Edge => Box::pin(natterjack_edge::run(edge(settings), health, stop)).await.context("edge"),
        ServerRole::Channel => Box::pin(natterjack_channel::run(on_nats(settings, NatsRole::Channel), health, stop))
            .await
            .context("channel"),
        ServerRole::Presence => Box::pin(natterjack_presence::run(on_nats(settings, NatsRole::Presence), health, stop))
            .await
            .context("presence"),
        ServerRole::Persister => {
            Box::pin(natterjack_persister::run(persister(settings), health, stop)).await.context("persister")
        }
    }
}

/// The roles that `up` runs in its own process.
pub const IN_UP: [ServerRole; 3] = [ServerRole::Channel, ServerRole::Persister, ServerRole::Presence];

/// All of them in this process until `stop`. A failure at the first start ends the process; a later one restarts the
/// role, so that a passing fault (a full disk, for instance) does not take the others down.
pub async fn all_in_up(settings: &Settings, health: &Health, stop: CancellationToken) -> anyhow::Result<()> {
    try_join_all(IN_UP.map(|role| keep(role, settings, health, stop.clone()))).await.map(|_| ())
}

/// A role that fails this soon after the very first start was never going to run.
const STARTING: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);

async fn keep(role: ServerRole, settings: &Settings, health: &Health, stop: CancellationToken) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        // A task of its own: supervision of the children must not wait for a fold or a batch.
        let (s, health, role_stop) = (settings.clone(), health.clone(), stop.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move { run(role, &s, health, role_stop).await }));
        match task.await.unwrap_or_else(|panic| Err(panic.into())) {
            Ok(()) if stop.is_cancelled() => return Ok(()),
            Ok(()) => tracing::error!(%role, "the role ended without a stop; starting it again"),
            Err(e) if stop.is_cancelled() || began.elapsed() < STARTING => return Err(e),
            Err(e) => tracing::error!(%role, error = format!("{e:#}"), "the role failed; starting it again"),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Unique per start unless configured: a lease must never take two processes for the same holder.
fn instance(settings: &Settings, role: &str) -> String {
    settings.process.instance.clone().unwrap_or_else(|| format!("{role}-{}", uuid::Uuid::now_v7().simple()))
}

/// The connection of this role, with its permissions.
pub fn nats(s: &Settings, role: NatsRole) -> NatsConfig {
    NatsConfig { role: Some(role), ..s.nats.clone() }
}

fn edge(s: &Settings) -> natterjack_edge::Config {
    natterjack_edge::Config {
        nats: nats(s, NatsRole::Edge),
        times: s.times.clone(),
        instance: instance(s, "edge"),
        edge_id: s.edge.id.clone(),
        listen: s.edge.listen,
        public_url: s.edge.url.clone(),
        max_connections: s.edge.max_connections,
        max_group_members: s.edge.max_group_members,
        tls: s.edge.tls.clone(),
        limits: s.limits.clone(),
        devices: s.devices,
    }
}

/// Of a role that keeps all of its state on NATS.
fn on_nats(s: &Settings, role: NatsRole) -> RoleConfig {
    RoleConfig { nats: nats(s, role), times: s.times.clone(), instance: instance(s, role.name()) }
}

pub fn store(s: &Settings) -> natterjack_persister::StoreConfig {
    match &s.cql {
        Some(cql) => natterjack_persister::StoreConfig::Cql(cql.clone()),
        None => natterjack_persister::StoreConfig::Sqlite { path: s.archive.clone() },
    }
}

fn persister(s: &Settings) -> natterjack_persister::Config {
    natterjack_persister::Config {
        nats: nats(s, NatsRole::Persister),
        times: s.times.clone(),
        instance: instance(s, "persister"),
        store: store(s),
        registration: s.registration,
        name_hold: s.name_hold,
        external: s.external.clone(),
        ..natterjack_persister::Config::default()
    }
}
