//! JetStream alone, in the same run and on the same server: what of a figure is the log itself.

use std::time::Duration;

use anyhow::Result;
use futures_util::FutureExt;
use natterjack_nats::baseline::{self, BaselineLoad};

use super::{
    alarm::Alarm,
    cpu::Snapshot,
    report::{LoadReport, histogram},
    system::System,
};

pub async fn run(
    system: &System,
    pairs: usize,
    window: usize,
    rate: Option<u64>,
    body: usize,
    time: Duration,
) -> Result<LoadReport> {
    let nats: Vec<_> = system.processes.iter().filter(|p| p.role == "nats-server").cloned().collect();
    let before = Snapshot::take(&nats);
    let alarm = Alarm::new();
    let until = |at| alarm.until(at).boxed();
    let outcome = baseline::run(&system.nats, &BaselineLoad { pairs, window, rate, body, time }, &until).await?;
    let used = before.until(&Snapshot::take(&nats));
    let mut latency = histogram();
    for us in &outcome.acks_us {
        latency.record((*us).max(1))?;
    }
    let sent = outcome.acks_us.len() as u64;
    Ok(LoadReport {
        load: match rate {
            Some(rate) => format!("JetStream alone: {pairs} pairs, {rate} publishes/s, {body} B"),
            None => format!("JetStream alone: {pairs} pairs, {window} unacknowledged each, {body} B"),
        },
        seconds: time.as_secs_f64(),
        sent,
        delivered: outcome.heard,
        missing: sent.saturating_sub(outcome.heard),
        ack: Some((&latency).into()),
        delivery: None,
        used,
        per: "message",
        units: sent,
        notes: Vec::new(),
    })
}
