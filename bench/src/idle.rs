//! Idle connections: memory each, CPU each per second, and what a connect costs, attach included.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::sleep;

use super::{
    connection::LoadConnection,
    cpu::Snapshot,
    report::LoadReport,
    system::{System, User},
};

/// Log-ins in progress at once.
const AT_ONCE: usize = 32;

pub async fn run(system: &System, connections: usize, time: Duration) -> Result<LoadReport> {
    // The first connections pay for what all later ones share.
    let warm = open(system, system.users(connections / 10).await?).await?;
    // Memory includes what the system keeps of a user; to make him is no part of a connect.
    let empty = Snapshot::take(&system.processes);
    let users = system.users(connections).await?;
    sleep(Duration::from_secs(1)).await;
    let before = Snapshot::take(&system.processes);
    let begun = Instant::now();
    let mut open = open(system, users).await?;
    let connecting = begun.elapsed();
    sleep(Duration::from_secs(1)).await;
    let connected = Snapshot::take(&system.processes);
    let begun = Instant::now();
    sleep(time).await;
    let held = begun.elapsed().as_secs_f64();
    let after = Snapshot::take(&system.processes);

    let n = connections.max(1) as f64;
    let grown: i64 = connected.rss() as i64 - empty.rss() as i64;
    let connect_cpu: f64 = before.until(&connected).iter().map(|u| u.cpu_seconds).sum();
    let connect = before.until(&connected).into_iter().map(|u| format!("{} {:.0}", u.role, u.cpu_seconds * 1e6 / n));
    let grown_each = empty.grown(&connected).into_iter();
    let grown_each = grown_each.map(|(role, bytes)| format!("{role} {:.1}", bytes as f64 / 1024.0 / n));
    let idle_cpu: f64 = connected.until(&after).iter().map(|u| u.cpu_seconds).sum();
    let notes = vec![
        format!(
            "{:.0} connects/s, {:.0} µs of server CPU each ({}), token check and attach included",
            n / connecting.as_secs_f64(),
            connect_cpu * 1e6 / n,
            connect.collect::<Vec<_>>().join(", ")
        ),
        format!(
            "{:.1} KiB resident per connection, all servers together ({})",
            grown as f64 / 1024.0 / n,
            grown_each.collect::<Vec<_>>().join(", ")
        ),
        format!("{:.2} µs CPU per connection and second while idle", idle_cpu * 1e6 / n / held),
    ];
    for connection in &mut open {
        connection.bye().await;
    }
    drop(warm);
    Ok(LoadReport {
        load: format!("idle: {connections} connections"),
        seconds: held,
        sent: 0,
        delivered: 0,
        missing: 0,
        ack: None,
        delivery: None,
        used: connected.until(&after),
        per: "connection and run",
        units: connections as u64,
        notes,
    })
}

async fn open(system: &System, users: Vec<User>) -> Result<Vec<LoadConnection>> {
    let connect = |(n, user)| LoadConnection::open(system.url(n), user);
    stream::iter(users.into_iter().enumerate()).map(connect).buffer_unordered(AT_ONCE).try_collect().await
}
