//! The checklist of an edge: what it can start without the log, then one [`generation`] of the log after the other.

mod generation;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use natterjack_nats::{KvError, Layout, LayoutError, Nats, NatsConnectError, ServeError, ServerTime};
use natterjack_protocol::Token;
use natterjack_runtime::{Health, Resources, clock::wall_ms};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    Config,
    admission::limits::AdmissionLimits,
    server::{
        accept,
        capacity::Capacity,
        tls::{Tls, TlsError},
    },
};
use generation::generation;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("edge.listen: cannot listen on {addr}: {source}; is another edge running there?")]
    Listen { addr: std::net::SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Connect(#[from] NatsConnectError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("state: {0}")]
    State(#[from] KvError),
    #[error("edge.id: another edge runs with the id {0}; give each its own")]
    IdInUse(Token),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("the dispatcher of live messages has ended; this edge can deliver nothing")]
    LiveEnded,
}

/// Runs an edge until `stop` is cancelled and everybody has left, or something it cannot do without has failed.
/// Boxed here, so that the edge is compiled once, in this crate, and not again wherever it is run.
pub fn run(cfg: Config, health: Health, stop: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(serve(cfg, health, stop))
}

async fn serve(cfg: Config, health: Health, stop: CancellationToken) -> Result<(), Error> {
    crate::metrics::describe();
    health.set("edge", Err("starting".into()));
    let tls = cfg.tls.clone().map(Tls::open).transpose()?;
    let listener = accept::bind(cfg.listen).map_err(|source| Error::Listen { addr: cfg.listen, source })?;
    let nats = Nats::connect(&cfg.nats, "edge").await?;
    let mut next = stop.run_until_cancelled(Layout::load_at_start(&nats)).await.transpose()?;
    let Some(time) = stop.run_until_cancelled(ServerTime::start(&nats, wall_ms)).await else { return Ok(()) };
    let limiter = AdmissionLimits::new(cfg.limits.clone());
    let _reloads = tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(async move { tls.watch().await })));
    let has = Resources::now();
    let capacity = Capacity::of(cfg.max_connections, &has);
    let base =
        Base { cfg, capacity, has, tls, listener: Arc::new(listener), nats, time, limiter, health: health.clone() };
    while let Some(layout) = next {
        next = Box::pin(generation(&base, layout, &stop)).await?;
    }
    health.remove("edge");
    Ok(())
}

/// What outlives a generation of the log.
struct Base {
    cfg: Config,
    capacity: Capacity,
    has: Resources,
    tls: Option<Arc<Tls>>,
    listener: Arc<TcpListener>,
    nats: Nats,
    time: ServerTime,
    limiter: AdmissionLimits,
    health: Health,
}
