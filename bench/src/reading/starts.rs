//! Users who start: each connects, asks for the list of their threads, and stays. Their devices were here before and
//! have missed nothing; or they are new, have nothing, and get the newest page of each thread besides.
//!
//! What is seeded: groups with some messages in each, written over the wire. Users and what they have read are minted
//! in KV; that a group has so many members stands in their keys alone: a group takes 500, and nobody writes here.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use natterjack_protocol::{
    MsgId, Thread,
    client::frame::{ClientFrame, ServerFrame, ThreadsQuery},
    codec::Codec,
    internal::cursors::UserCursors,
    log::{
        Role,
        fold::{ThreadItem, UserThreads},
    },
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    connection::{LoadConnection, send_frame, stamped},
    cpu::Snapshot,
    groups,
    report::{LoadReport, histogram},
    system::{System, User, now_ms},
};

const BODY: usize = 128;
/// Groups, or as many as users have threads.
const GROUPS: usize = 500;
/// In each of them.
const MESSAGES: usize = 20;
/// Of a user's threads every tenth has so many unread messages, the others none.
const UNREAD: usize = 10;
const UNREAD_EVERY: usize = 10;
/// Groups that are filled, and users that are made, at once.
const FILLING: usize = 16;
const MINTING: usize = 64;
/// Long before they start, or it would be told again to each who was here before.
const READ_AGO_S: u64 = 86_400;
/// The archive has what was seeded.
const SETTLED: Duration = Duration::from_secs(5);
/// Behind the last connect.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before somebody who was refused tries again.
const AGAIN: Duration = Duration::from_secs(1);

struct Group {
    thread: Thread,
    /// As a member has it.
    item: ThreadItem,
    messages: Vec<MsgId>,
}

struct Device {
    url: String,
    user: User,
    synced: Option<String>,
}

struct Started {
    /// Its list has so many bytes. None: it never came.
    list: Option<(LoadConnection, usize)>,
    /// From the first TCP connect on.
    took: Duration,
    /// The load itself was so late.
    late: Duration,
    /// Attempts.
    failed: u64,
    last_error: Option<String>,
}

/// `users` with `threads` each connect within `within`, evenly.
pub async fn run(
    system: &System,
    (users, threads): (usize, usize),
    within: Duration,
    fresh: bool,
) -> Result<LoadReport> {
    if threads == 0 {
        bail!("users have at least one thread");
    }
    let seeding = Instant::now();
    let groups = GROUPS.min(users).max(threads);
    let groups: Vec<Group> =
        stream::iter(0..groups).map(|n| group(system, n)).buffer_unordered(FILLING).try_collect().await?;
    let all: Vec<User> =
        stream::iter(0..users).map(|n| user(system, &groups, n, threads)).buffered(MINTING).try_collect().await?;
    let seeded = seeding.elapsed();
    sleep(SETTLED).await;
    let synced = if fresh { None } else { Some(synced(system).await?) };

    let (before, begun) = (Snapshot::take(&system.processes), Instant::now());
    let (last, mut starting) = (begun + within, JoinSet::new());
    for (n, user) in all.into_iter().enumerate() {
        let due = begun + within.mul_f64(n as f64 / users as f64);
        let device = Device { url: system.url(n).to_owned(), user, synced: synced.clone() };
        starting.spawn(start(device, threads, due, last + PATIENCE));
    }
    let (mut latency, mut stays) = (histogram(), Vec::new());
    let (mut bytes, mut failed, mut late, mut why) = (0, 0, Duration::ZERO, None);
    while let Some(started) = starting.join_next().await {
        let Started { list, took, late: by, failed: times, last_error } = started?;
        (failed, late, why) = (failed + times, late.max(by), last_error.or(why));
        if let Some((connection, of_list)) = list {
            latency.record(took.as_micros() as u64)?;
            bytes += of_list;
            stays.push(connection);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let used = before.until(&Snapshot::take(&system.processes));
    drop(stays);
    let (sent, delivered) = (users as u64, latency.len());
    let why = why.map(|e| format!(", for instance: {e}")).unwrap_or_default();
    Ok(LoadReport {
        load: format!(
            "reading: {users} users start within {within:?}, {}, a list of {threads} threads each",
            if fresh { "on devices that are new" } else { "on devices that were here before" }
        ),
        seconds,
        sent,
        delivered,
        missing: sent - delivered,
        ack: None,
        delivery: Some((&latency).into()),
        used,
        per: "start",
        units: delivered,
        notes: vec![
            format!(
                "delivery is from TCP connect to the list in hand; {:.0} bytes of the list each",
                bytes as f64 / delivered.max(1) as f64
            ),
            format!("the load was late by {late:.0?} at most; {failed} attempts failed{why}"),
            format!("{} groups with {MESSAGES} messages each, all made in {:.0} s", groups.len(), seeded.as_secs_f64()),
        ],
    })
}

/// With its messages; how a member has it is read from the key of the one who made it.
async fn group(system: &System, n: usize) -> Result<Group> {
    let users = system.users(2).await?;
    let thread = groups::create(system, &users).await?;
    let key = system.buckets.threads(&users[0].id);
    let mut connection = LoadConnection::open(system.url(n), users[0].clone()).await?;
    for r in 0..MESSAGES {
        let frame = send_frame(r as u32, &thread, now_ms(), stamped(r as u64, BODY));
        connection.socket.feed(Message::Binary(frame)).await?;
    }
    connection.socket.flush().await?;
    let mut messages = Vec::with_capacity(MESSAGES);
    while messages.len() < MESSAGES {
        match timeout(PATIENCE, connection.frame()).await.context("a message was not acknowledged")?? {
            Some(ServerFrame::Sent { id, .. }) => messages.push(id),
            Some(ServerFrame::Error { refusal, .. }) => bail!("a send was refused: {refusal}"),
            _ => {}
        }
    }
    connection.bye().await;
    messages.sort();
    let mut item = key.load().await?.and_then(|mut k| k.threads.remove(&thread)).context("a group has its maker")?;
    item.role = Some(Role::Member);
    Ok(Group { thread, item, messages })
}

async fn user(system: &System, groups: &[Group], n: usize, threads: usize) -> Result<User> {
    let (mut theirs, mut cursors) = (UserThreads::default(), UserCursors::default());
    for k in 0..threads {
        // Distinct, and each group in as many lists.
        let group = &groups[(n + k * (groups.len() / threads)) % groups.len()];
        let unread = if k % UNREAD_EVERY == 0 { UNREAD } else { 0 };
        cursors.add_read(&group.thread, group.messages[MESSAGES - 1 - unread], now_ms() / 1_000 - READ_AGO_S);
        theirs.threads.insert(group.thread.clone(), group.item.clone());
    }
    system.user(&theirs, &cursors).await
}

/// What a device that has everything brings: the same for all.
async fn synced(system: &System) -> Result<String> {
    let user = system.users(1).await?.remove(0);
    let (mut connection, synced) = LoadConnection::open_again(system.url(0), user, None).await?;
    connection.bye().await;
    Ok(synced)
}

async fn start(device: Device, threads: usize, due: Instant, end: Instant) -> Started {
    sleep_until(due).await;
    let begun = Instant::now();
    let mut started = Started { list: None, took: Duration::ZERO, late: begun - due, failed: 0, last_error: None };
    loop {
        let attempt = timeout_at(end, list(&device, threads, &mut started)).await;
        started.took = begun.elapsed();
        match attempt {
            Ok(Ok(list)) => started.list = Some(list),
            Ok(Err(e)) => {
                started.fails(e.to_string());
                sleep(AGAIN).await;
                continue;
            }
            Err(_) => {}
        }
        return started;
    }
}

impl Started {
    fn fails(&mut self, why: String) {
        (self.failed, self.last_error) = (self.failed + 1, Some(why));
    }
}

/// All pages of it, and their bytes. A page that is refused is asked for again, on the same connection.
async fn list(device: &Device, threads: usize, started: &mut Started) -> Result<(LoadConnection, usize)> {
    let (user, synced) = (device.user.clone(), device.synced.clone());
    let (mut connection, _) = LoadConnection::open_again(&device.url, user, synced).await?;
    let (mut before, mut bytes, mut rows) = (None, 0, 0);
    for r in 1.. {
        let asks = ClientFrame::Threads(ThreadsQuery { r, before, ..ThreadsQuery::default() });
        connection.socket.send(Message::Binary(asks.encode(Codec::Msgpack))).await?;
        loop {
            let message = connection.socket.next().await.context("the edge closed the connection")??;
            let Message::Binary(answer) = message else { continue };
            match ServerFrame::decode(Codec::Msgpack, &answer)? {
                Some(ServerFrame::Threads { threads: page, next, .. }) => {
                    (bytes, rows) = (bytes + answer.len(), rows + page.len());
                    match next {
                        None if rows == threads => return Ok((connection, bytes)),
                        None => bail!("a list of {rows} threads instead of {threads}"),
                        next => before = next,
                    }
                    break;
                }
                Some(ServerFrame::Error { refusal, .. }) => {
                    started.fails(format!("refused: {refusal}"));
                    sleep(AGAIN).await;
                    break;
                }
                _ => {}
            }
        }
    }
    bail!("a list without an end")
}
