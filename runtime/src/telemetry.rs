//! Logs to standard error (text for people, JSON for machines) and metrics for Prometheus. Called once, before anything
//! can log.

use std::{io::IsTerminal, time::Duration};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub format: Format,
    /// A filter as `tracing` has it: `info`, `warn,natterjack_edge=debug`, …
    pub filter: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log.filter: {0}")]
    Filter(String),
    #[error("telemetry is already set up: {0}")]
    Twice(String),
}

/// Gives what `/metrics` shows.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// Microseconds to ten seconds: from an ack in memory to an election.
const SECONDS: [f64; 14] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0];

pub fn init(config: &Config) -> Result<Metrics, Error> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|e| Error::Filter(format!("{:?} is not a filter: {e}", config.filter)))?;
    let twice = |e: &dyn std::fmt::Display| Error::Twice(e.to_string());
    let registry = tracing_subscriber::registry().with(filter);
    match config.format {
        Format::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
        Format::Text => registry
            .with(fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr))
            .try_init(),
    }
    .map_err(|e| twice(&e))?;
    let handle = PrometheusBuilder::new()
        .set_buckets(&SECONDS)
        .map_err(|e| twice(&e))?
        .install_recorder()
        .map_err(|e| twice(&e))?;
    crate::metrics::describe();
    Ok(Metrics { handle })
}

impl Metrics {
    /// The text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Samples of histograms wait in memory until somebody folds them into buckets; without this they would grow for
    /// ever. Runs until dropped.
    pub async fn upkeep(self) {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            self.handle.run_upkeep();
        }
    }
}
