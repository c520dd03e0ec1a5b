//! Pairs of users: each message is acknowledged by the log and delivered to the other user, on another edge.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use natterjack_protocol::Thread;
use tokio::{
    sync::{AcquireError, Semaphore},
    task::JoinSet,
    time::{sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    alarm::Alarm,
    connection::{FrameSeen, LoadConnection, is_event, look, send_frame, stamped},
    cpu::Snapshot,
    report::{LoadReport, histogram},
    system::{System, now_ms},
};

pub const BODY: usize = 128;
/// The request of the message that begins the conversation; its acknowledgement may come late.
const WARM: u32 = u32::MAX;
/// What is still on its way when the sending ends.
const DRAIN: Duration = Duration::from_secs(5);
/// For each pair. Making a hundred of them ready to write takes the load itself some 30 ms, and their first messages
/// would be late.
const READY: Duration = Duration::from_millis(1);

struct Side {
    count: u64,
    latency: Histogram<u64>,
}

pub async fn run(
    system: &System,
    pairs: usize,
    window: usize,
    rate: Option<u64>,
    time: Duration,
) -> Result<LoadReport> {
    let users = system.users(pairs * 2).await?;
    let connections =
        stream::iter(users.into_iter().enumerate()).map(|(n, user)| LoadConnection::open(system.url(n), user));
    let mut connections: Vec<LoadConnection> = connections.buffered(32).try_collect().await?;
    let mut tasks = Vec::new();
    while let (Some(to), Some(from)) = (connections.pop(), connections.pop()) {
        tasks.push((from, to));
    }
    // The first message of a pair starts the conversation; it is not part of the figure.
    let mut warm = JoinSet::new();
    for (from, to) in tasks {
        warm.spawn(async move {
            let thread = Thread::dm(&from.user.id, &to.user.id);
            let (mut from, mut to) = (from, to);
            one(&mut from, &mut to, &thread).await.map(|()| (from, to, thread))
        });
    }
    let mut ready = Vec::new();
    while let Some(pair) = warm.join_next().await {
        ready.push(pair??);
    }
    let before = Snapshot::take(&system.processes);
    let begun = Instant::now() + READY * pairs as u32;
    let end = begun + time;
    let each = rate.map(|r| Duration::from_secs_f64(pairs as f64 / r as f64));
    let (alarm, mut running) = (Alarm::new(), JoinSet::new());
    for (n, (from, to, thread)) in ready.into_iter().enumerate() {
        // Evenly, not all pairs at the same moment.
        let beat = each.map(|each| (alarm.clone(), begun + each.mul_f64(n as f64 / pairs as f64), each));
        running.spawn(pair(from, to, thread, window, beat, begun, end));
    }
    let (mut acks, mut deliveries) = (Side { count: 0, latency: histogram() }, Side { count: 0, latency: histogram() });
    while let Some(done) = running.join_next().await {
        let (ack, delivery) = done??;
        acks.count += ack.count;
        acks.latency.add(&ack.latency)?;
        deliveries.count += delivery.count;
        deliveries.latency.add(&delivery.latency)?;
    }
    let used = before.until(&Snapshot::take(&system.processes));
    Ok(LoadReport {
        load: match rate {
            Some(rate) => format!("pairs: {pairs} pairs, {rate} sends/s, {BODY} B"),
            None => format!("pairs: {pairs} pairs, {window} unacknowledged each, {BODY} B"),
        },
        seconds: time.as_secs_f64(),
        sent: acks.count,
        delivered: deliveries.count,
        missing: acks.count - deliveries.count.min(acks.count),
        ack: Some((&acks.latency).into()),
        delivery: Some((&deliveries.latency).into()),
        used,
        per: "message",
        units: acks.count,
        notes: Vec::new(),
    })
}

async fn one(from: &mut LoadConnection, to: &mut LoadConnection, thread: &Thread) -> Result<()> {
    from.socket.send(Message::Binary(send_frame(WARM, thread, now_ms(), stamped(0, BODY)))).await?;
    let arrives = async {
        while let Some(message) = to.socket.next().await {
            if let Message::Binary(bytes) = message?
                && matches!(look(&bytes), FrameSeen::Event { .. })
            {
                return Ok(());
            }
        }
        bail!("the edge closed the connection")
    };
    timeout(DRAIN, arrives).await.context("the first message of a pair did not arrive")?
}

/// One direction of one pair. `beat`: who wakes it, the first send and the time between two; else a new one with every
/// acknowledgement.
async fn pair(
    from: LoadConnection,
    to: LoadConnection,
    thread: Thread,
    window: usize,
    beat: Option<(Alarm, Instant, Duration)>,
    begun: Instant,
    end: Instant,
) -> Result<(Side, Side)> {
    let room = Semaphore::new(window);
    let handed: Mutex<HashMap<u32, u64>> = Mutex::default();
    let (mut sink, mut source) = from.socket.split();
    let mut incoming = to.socket;
    let stamp = |at: Instant| (at - begun).as_micros() as u64;
    let sending = async {
        if beat.is_none() {
            sleep_until(begun.into()).await;
        }
        for r in 0u32.. {
            // Open loop: the intended moment counts, not the one at which we got round to it.
            let at = match &beat {
                Some((alarm, first, each)) => {
                    let at = *first + *each * r;
                    alarm.until(at).await;
                    at
                }
                None => {
                    room.acquire().await?.forget();
                    Instant::now()
                }
            };
            if at >= end {
                break;
            }
            let at = stamp(at.max(begun));
            handed.lock().map_err(|_| anyhow!("a task failed"))?.insert(r, at);
            sink.feed(Message::Binary(send_frame(r, &thread, now_ms(), stamped(at, BODY)))).await?;
            // As a client does: what may go now goes in one write.
            if beat.is_some() || room.available_permits() == 0 {
                sink.flush().await?;
            }
        }
        sink.flush().await?;
        anyhow::Ok(())
    };
    let acking = async {
        let mut side = Side { count: 0, latency: histogram() };
        let mut last = Instant::now();
        while let Ok(Some(message)) = timeout(quiet(end, last), source.next()).await {
            let Message::Binary(bytes) = message? else { continue };
            if is_event(&bytes) {
                continue;
            }
            match look(&bytes) {
                FrameSeen::Sent { r } if r != WARM => {
                    last = Instant::now();
                    side.count += 1;
                    let begun = handed.lock().map_err(|_| anyhow!("a task failed"))?.remove(&r).unwrap_or_default();
                    side.latency.record(stamp(last).saturating_sub(begun).max(1))?;
                    room.add_permits(1);
                }
                FrameSeen::Refused(why) => bail!("a send was refused: {why}"),
                _ => {}
            }
        }
        // The sender may still wait for a permit that no acknowledgement will bring.
        room.close();
        Ok(side)
    };
    let delivering = async {
        let mut side = Side { count: 0, latency: histogram() };
        let mut last = Instant::now();
        while let Ok(Some(message)) = timeout(quiet(end, last), incoming.next()).await {
            let Message::Binary(bytes) = message? else { continue };
            if let FrameSeen::Event { stamp: s, .. } = look(&bytes) {
                last = Instant::now();
                side.count += 1;
                side.latency.record(stamp(last).saturating_sub(s).max(1))?;
            }
        }
        anyhow::Ok(side)
    };
    let sending = async {
        match sending.await {
            // Closed by the acknowledging side: over.
            Err(e) if !e.is::<AcquireError>() => Err(e),
            _ => Ok(()),
        }
    };
    let ((), acks, deliveries) = tokio::try_join!(sending, acking, delivering)?;
    Ok((acks, deliveries))
}

/// How long to wait for the next frame: until the sending ends, and then until nothing came for half a second.
fn quiet(end: Instant, last: Instant) -> Duration {
    (end.max(last) + Duration::from_millis(500)).saturating_duration_since(Instant::now())
}
