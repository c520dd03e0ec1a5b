//! The door for operators, on an address of its own: `/health` (alive, with every part), `/ready` (200 or 503), `/metrics`.

use std::net::SocketAddr;

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{health::Health, telemetry::Metrics};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("admin.listen: cannot listen on {addr}: {source}; choose another address or leave it empty")]
    Bind { addr: SocketAddr, source: std::io::Error },
    #[error("admin server: {0}")]
    Serve(#[from] std::io::Error),
}

/// Bound before anything else starts, so that a taken port is an error at start-up.
pub struct Admin {
    listener: Option<TcpListener>,
}

#[derive(Clone)]
struct Shown {
    health: Health,
    metrics: Metrics,
}

impl Admin {
    /// Without an address there is no server, and [`Admin::serve`] only waits.
    pub async fn bind(addr: Option<SocketAddr>) -> Result<Self, Error> {
        let listener = match addr {
            Some(addr) => Some(TcpListener::bind(addr).await.map_err(|source| Error::Bind { addr, source })?),
            None => None,
        };
        Ok(Self { listener })
    }

    /// Serves until `stop`.
    pub fn serve(self, health: Health, metrics: Metrics, stop: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let Some(listener) = self.listener else {
                stop.cancelled().await;
                return Ok(());
            };
            axum::serve(listener, router(health, metrics)).with_graceful_shutdown(async move { stop.cancelled().await }).await?;
            Ok(())
        })
    }
}

fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/health", get(|State(s): State<Shown>| async move { Json(s.health.report()) }))
        .route("/ready", get(ready))
        .route("/metrics", get(|State(s): State<Shown>| async move { s.metrics.render() }))
        .with_state(Shown { health, metrics })
}

async fn ready(State(s): State<Shown>) -> impl IntoResponse {
    let report = s.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}
