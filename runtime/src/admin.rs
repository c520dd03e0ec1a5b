//! HTTP for operators, on an address of its own (`admin.listen`): `/health` (alive, with every part), `/ready` (200 or
//! 503), `/metrics`. Clients get none of it: their port says only whether they should come.

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

/// Where an address without a port listens, if nobody else does.
pub const PORT: u16 = 9100;

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
    /// Without an address there is no server, and [`Admin::serve`] only waits. With port 0 it is [`PORT`], or a free
    /// one if that is taken.
    pub async fn bind(addr: Option<SocketAddr>) -> Result<Self, Error> {
        let Some(addr) = addr else { return Ok(Self { listener: None }) };
        let usual = async || if addr.port() == 0 { TcpListener::bind((addr.ip(), PORT)).await.ok() } else { None };
        let listener = match usual().await {
            Some(listener) => listener,
            None => TcpListener::bind(addr).await.map_err(|source| Error::Bind { addr, source })?,
        };
        // Who named a port knows it.
        if addr.port() == 0
            && let Ok(addr) = listener.local_addr()
        {
            tracing::info!(%addr, "for operators: /health, /ready and /metrics");
        }
        Ok(Self { listener: Some(listener) })
    }

    /// Serves until `stop`.
    pub fn serve(
        self,
        health: Health,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let Some(listener) = self.listener else {
                stop.cancelled().await;
                return Ok(());
            };
            axum::serve(listener, router(health, metrics))
                .with_graceful_shutdown(async move { stop.cancelled().await })
                .await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_port_the_usual_one_or_another_and_a_named_one_or_none() {
        // An address of this test alone.
        let ip = [127, 77, 2, 1];
        let port = |admin: &Admin| admin.listener.as_ref().map(|l| l.local_addr().unwrap().port());
        let first = Admin::bind(Some((ip, 0).into())).await.unwrap();
        let second = Admin::bind(Some((ip, 0).into())).await.unwrap();
        assert_eq!(port(&first), Some(PORT));
        assert!(port(&second).is_some_and(|p| p != PORT));
        let why = Admin::bind(Some((ip, PORT).into())).await.map(|_| ()).unwrap_err().to_string();
        assert!(
            why.contains("admin.listen") && why.contains("127.77.2.1:9100") && why.contains("choose another"),
            "{why}"
        );
        assert_eq!(port(&Admin::bind(None).await.unwrap()), None);
    }
}
