//! Groups whose members are all online: every message is delivered to each of them, the sender's own socket included.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use natterjack_protocol::Thread;
use serde::Deserialize;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    connection::{FrameSeen, LoadConnection, is_event, look, send_frame, stamped},
    cpu::Snapshot,
    report::{LoadReport, histogram},
    system::{System, User, now_ms},
};

const BODY: usize = 128;
/// One delivery of so many is timed: decoding each would measure us.
const TIMED: u64 = 64;

#[derive(Deserialize)]
struct Created {
    thread: Thread,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    delivered: AtomicU64,
    over: AtomicBool,
}

/// `window` messages in flight in each group, of the first `writers` members.
pub async fn run(
    system: &System,
    (groups, members): (usize, usize),
    window: usize,
    writers: usize,
    time: Duration,
) -> Result<LoadReport> {
    if writers == 0 || writers > members.min(window) {
        bail!("at least one writer, at most as many as there are members and messages in flight");
    }
    let mut running = JoinSet::new();
    let mut lines = Vec::new();
    for _ in 0..groups {
        let users = system.users(members).await?;
        let thread = create(system, &users).await?;
        let open = |(n, user)| LoadConnection::open(system.url(n), user);
        let connections: Vec<LoadConnection> =
            stream::iter(users.into_iter().enumerate()).map(open).buffered(32).try_collect().await?;
        lines.push((thread, connections));
    }
    let counters = Arc::new(Counters::default());
    let before = Snapshot::take(&system.processes);
    let begun = Instant::now();
    for (thread, connections) in lines {
        for (n, connection) in connections.into_iter().enumerate() {
            let own = (n..window).step_by(writers).count();
            let writer = (n < writers).then(|| (thread.clone(), own));
            running.spawn(member(connection, writer, begun, counters.clone()));
        }
    }
    sleep(time).await;
    counters.over.store(true, Relaxed);
    let used = before.until(&Snapshot::take(&system.processes));
    // The figure is what came until now; what is still on its way only has to arrive.
    let (sent, delivered) = (counters.sent.load(Relaxed), counters.delivered.load(Relaxed));
    let mut latency = histogram();
    while let Some(done) = running.join_next().await {
        latency.add(&done??)?;
    }
    let expected = counters.sent.load(Relaxed) * members as u64;
    Ok(LoadReport {
        load: format!(
            "groups: {groups} groups of {members} online, {window} in flight each, {writers} writing, {BODY} B"
        ),
        seconds: time.as_secs_f64(),
        sent,
        delivered,
        missing: expected.saturating_sub(counters.delivered.load(Relaxed)),
        ack: None,
        delivery: Some((&latency).into()),
        used,
        per: "delivery",
        units: delivered,
        notes: Vec::new(),
    })
}

/// Of the first of them, through the first edge.
pub async fn create(system: &System, users: &[User]) -> Result<Thread> {
    let owner = users.first().context("a group has members")?;
    let others: Vec<_> = users[1..].iter().map(|u| u.id.to_string()).collect();
    let url = format!("{}/v1/groups", system.url(0).replacen("ws", "http", 1));
    let body = serde_json::json!({ "name": "bench", "users": others });
    let answer = reqwest::Client::new().post(url).bearer_auth(&owner.token).json(&body).send().await?;
    if !answer.status().is_success() {
        bail!("a group could not be created: {}", answer.text().await?);
    }
    Ok(answer.json::<Created>().await?.thread)
}

/// `writes`: where to, and how many may be unacknowledged.
async fn member(
    connection: LoadConnection,
    writes: Option<(Thread, usize)>,
    begun: Instant,
    counters: Arc<Counters>,
) -> Result<Histogram<u64>> {
    let room = Semaphore::new(writes.as_ref().map_or(0, |(_, window)| *window));
    let (mut sink, mut source) = connection.socket.split();
    let stamp = || begun.elapsed().as_micros() as u64;
    let over = || counters.over.load(Relaxed);
    let writing = async {
        let Some((thread, _)) = &writes else { return Ok(()) };
        for r in 0u32.. {
            // Closed by the reader: over, and this acknowledgement never came.
            let Ok(permit) = room.acquire().await else { break };
            permit.forget();
            if over() {
                break;
            }
            sink.feed(Message::Binary(send_frame(r, thread, now_ms(), stamped(stamp(), BODY)))).await?;
            // As a client does: what may go now goes in one write.
            if room.available_permits() == 0 {
                sink.flush().await?;
            }
        }
        sink.flush().await?;
        anyhow::Ok(())
    };
    let reading = async {
        let mut latency = histogram();
        let mut seen = 0u64;
        loop {
            // Nothing for a second after the end: all that was on its way has come.
            let Ok(message) = timeout(Duration::from_secs(1), source.next()).await else {
                if over() {
                    break;
                }
                continue;
            };
            let Message::Binary(bytes) = message.context("the edge closed the connection")?? else { continue };
            if is_event(&bytes) {
                counters.delivered.fetch_add(1, Relaxed);
                seen += 1;
                if seen.is_multiple_of(TIMED)
                    && let FrameSeen::Event { stamp: s, .. } = look(&bytes)
                {
                    latency.record(stamp().saturating_sub(s).max(1))?;
                }
                continue;
            }
            match look(&bytes) {
                FrameSeen::Sent { .. } => {
                    counters.sent.fetch_add(1, Relaxed);
                    room.add_permits(1);
                }
                FrameSeen::Refused(why) => bail!("a send was refused: {why}"),
                _ => {}
            }
        }
        room.close();
        Ok(latency)
    };
    let ((), latency) = tokio::try_join!(writing, reading)?;
    Ok(latency)
}
