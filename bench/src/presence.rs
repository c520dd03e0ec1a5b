//! Presence: users who watch each other while some of them change, and an edge that is killed with everybody on it.
//!
//! What changes is the choice of users (available, away): a write of one key, so that what is measured is how it is
//! told and not what a connect costs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use natterjack_protocol::{
    UserId,
    client::{
        frame::{ClientFrame, ServerFrame, WatchQuery},
        presence::{PresenceChoice, PresenceSettings, PresenceState},
    },
    codec::Codec,
    internal::presence::UserSettings,
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    connection::LoadConnection,
    cpu::Snapshot,
    report::LoadReport,
    system::{System, User, now_ms},
};

/// Log-ins in progress at once.
const AT_ONCE: usize = 32;
/// What was learned after the watches has been told by then.
const SETTLED: Duration = Duration::from_secs(10);
/// Longer than a lease, the debounce and a sweep.
const OFFLINE: Duration = Duration::from_secs(40);

#[derive(Default)]
struct Seen {
    /// Frames of presence, and users in them.
    frames: AtomicU64,
    changes: AtomicU64,
    counts: AtomicBool,
    over: AtomicBool,
}

/// `users` watch `watched` others each; of all users `permille` change each second.
pub async fn changes(
    system: &System,
    users: usize,
    watched: usize,
    permille: usize,
    time: Duration,
) -> Result<LoadReport> {
    let all = system.users(users).await?;
    let seen = Arc::new(Seen::default());
    let mut sockets = watch_all(system, &all, &all, watched, &seen).await?;
    sleep(SETTLED).await;
    let (before, begun) = (Snapshot::take(&system.processes), Instant::now());
    seen.counts.store(true, Relaxed);
    let changed = change(system, &all, (users * permille / 1_000).max(1), time).await?;
    let used = before.until(&Snapshot::take(&system.processes));
    let seconds = begun.elapsed().as_secs_f64();
    seen.counts.store(false, Relaxed);
    let (frames, told) = (seen.frames.load(Relaxed), seen.changes.load(Relaxed));
    let edges = used.iter().filter(|u| u.role == "edges").map(|u| u.cpu_seconds).sum::<f64>();
    seen.over.store(true, Relaxed);
    while let Some(done) = sockets.join_next().await {
        done?;
    }
    let notes = vec![
        format!("{:.1} % of a core per edge", edges / seconds * 100.0 / system.urls.len() as f64),
        format!(
            "{:.0} changes/s, {:.0} told/s in {:.0} frames/s",
            changed as f64 / seconds,
            told as f64 / seconds,
            frames as f64 / seconds
        ),
    ];
    Ok(LoadReport {
        load: format!("presence: {users} users watch {watched} each, {permille} ‰ change a second"),
        seconds,
        sent: changed,
        delivered: told,
        missing: 0,
        ack: None,
        delivery: None,
        used,
        per: "change told",
        units: told,
        notes,
    })
}

/// `users` on the second edge, each watched by somebody on the first, and the second edge is killed.
pub async fn edge_killed(system: &System, users: usize, watched: usize) -> Result<LoadReport> {
    let (there, here) = (system.users(users).await?, system.users(users.div_ceil(watched)).await?);
    let connections: Vec<LoadConnection> = stream::iter(there.clone())
        .map(|user| LoadConnection::open(system.url(1), user))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut sockets = JoinSet::new();
    for (user, theirs) in here.into_iter().zip(there.chunks(watched)) {
        let theirs: Vec<UserId> = theirs.iter().map(|u| u.id.clone()).collect();
        sockets.spawn(offline(LoadConnection::open(system.url(0), user).await?, theirs));
    }
    sleep(SETTLED).await;
    let (before, begun) = (Snapshot::take(&system.processes), Instant::now());
    system.kill_edge(1)?;
    let (mut frames, mut last, mut missing) = (0, Duration::ZERO, 0);
    while let Some(done) = sockets.join_next().await {
        let watcher = done??;
        frames += watcher.frames;
        missing += watcher.missing;
        last = last.max(watcher.last.saturating_duration_since(begun));
    }
    let used = before.until(&Snapshot::take(&system.processes));
    drop(connections);
    Ok(LoadReport {
        load: format!("presence: an edge with {users} users is killed"),
        seconds: last.as_secs_f64(),
        sent: users as u64,
        delivered: users as u64 - missing,
        missing,
        ack: None,
        delivery: None,
        used,
        per: "user",
        units: users as u64,
        notes: vec![format!(
            "everybody offline {:.1} s after the kill, {:.1} frames for each of {} watchers of {watched}",
            last.as_secs_f64(),
            frames as f64 / users.div_ceil(watched).max(1) as f64,
            users.div_ceil(watched)
        )],
    })
}

async fn watch_all(
    system: &System,
    all: &[User],
    of: &[User],
    watched: usize,
    seen: &Arc<Seen>,
) -> Result<JoinSet<()>> {
    let open = |(n, user)| LoadConnection::open(system.url(n), user);
    let connections: Vec<LoadConnection> =
        stream::iter(all.iter().cloned().enumerate()).map(open).buffer_unordered(AT_ONCE).try_collect().await?;
    let mut sockets = JoinSet::new();
    for (n, connection) in connections.into_iter().enumerate() {
        // Those behind it, so that each is watched by as many.
        let users = (1..=watched.min(of.len())).map(|k| of[(n + k * 7) % of.len()].id.clone()).collect();
        sockets.spawn(listen(watching(connection, users).await?, seen.clone()));
    }
    Ok(sockets)
}

async fn watching(mut connection: LoadConnection, users: Vec<UserId>) -> Result<LoadConnection> {
    let watch = ClientFrame::Watch(WatchQuery { r: 1, users: Some(users) });
    connection.socket.send(Message::Binary(watch.encode(Codec::Msgpack))).await?;
    Ok(connection)
}

fn presence(message: &Message) -> Option<ServerFrame> {
    let Message::Binary(bytes) = message else { return None };
    let frame = ServerFrame::decode(Codec::Msgpack, bytes).ok()??;
    matches!(frame, ServerFrame::Presence { .. }).then_some(frame)
}

/// Counts what it is told. Pings, so that it stays.
async fn listen(mut connection: LoadConnection, seen: Arc<Seen>) {
    let mut ping = interval(Duration::from_secs(20));
    while !seen.over.load(Relaxed) {
        tokio::select! {
            message = timeout(Duration::from_secs(1), connection.socket.next()) => {
                let Ok(Some(Ok(message))) = message else { continue };
                if let Some(ServerFrame::Presence { r: None, users }) = presence(&message)
                    && seen.counts.load(Relaxed)
                {
                    seen.frames.fetch_add(1, Relaxed);
                    seen.changes.fetch_add(users.len() as u64, Relaxed);
                }
            }
            _ = ping.tick() => {
                let _ = connection.socket.send(Message::Binary(ClientFrame::Ping.encode(Codec::Msgpack))).await;
            }
        }
    }
}

/// So many users a second choose otherwise.
async fn change(system: &System, all: &[User], a_second: usize, time: Duration) -> Result<u64> {
    let (mut tick, end) = (interval(Duration::from_secs(1).div_f64(a_second as f64)), Instant::now() + time);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut changed = 0;
    while Instant::now() < end {
        tick.tick().await;
        let user = &all[changed as usize % all.len()].id;
        let choice = if (changed as usize / all.len()).is_multiple_of(2) {
            PresenceChoice::Away
        } else {
            PresenceChoice::Available
        };
        let presence = PresenceSettings { choice, since: now_ms(), ..PresenceSettings::default() };
        system.buckets.settings(user).put(&UserSettings { presence }).await?;
        changed += 1;
    }
    Ok(changed)
}

struct Ended {
    frames: u64,
    /// When the last of them was shown as offline.
    last: Instant,
    missing: u64,
}

/// Until everybody it watches is offline.
async fn offline(connection: LoadConnection, users: Vec<UserId>) -> Result<Ended> {
    let mut online: std::collections::HashSet<UserId> = users.iter().cloned().collect();
    let mut connection = watching(connection, users).await?;
    let mut ended = Ended { frames: 0, last: Instant::now(), missing: 0 };
    let deadline = tokio::time::Instant::now() + SETTLED + OFFLINE;
    while !online.is_empty() {
        let Ok(message) = tokio::time::timeout_at(deadline, connection.socket.next()).await else { break };
        let message = message.context("the first edge closed the connection")??;
        if let Some(ServerFrame::Presence { r: None, users }) = presence(&message) {
            let before = online.len();
            for shown in users.iter().filter(|p| p.state == PresenceState::Offline) {
                online.remove(&shown.user);
            }
            if online.len() < before {
                (ended.frames, ended.last) = (ended.frames + 1, Instant::now());
            }
        }
    }
    ended.missing = online.len() as u64;
    Ok(ended)
}
