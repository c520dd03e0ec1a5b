//! Conversations that nobody has touched since the system was started, waking up one after the other; then the same
//! ones again, warm.
//!
//! Every user has a few, so that what an edge reads when one of them connects is of a usual size.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow, bail};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use natterjack_protocol::{Thread, UserId};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    connection::{FrameSeen, LoadConnection, look, send_frame, stamped},
    cpu::Snapshot,
    report::{LoadReport, histogram},
    system::{System, User, now_ms},
};

const BODY: usize = 128;
/// Conversations that each user begins; he is in as many again.
const EACH: usize = 20;
/// Of those that wake up.
const RATE: u64 = 1_000;
/// Users that make the conversations at once.
const FILLING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes them, starts the system anew, and wakes up `time` × RATE of them.
pub async fn run(system: &mut System, threads: usize, time: Duration) -> Result<Vec<LoadReport>> {
    let users = system.users((threads / EACH).max(EACH + 1)).await?;
    let begun = Instant::now();
    let fill = |n: usize| fill(system, n, &users);
    stream::iter(0..users.len()).map(fill).buffer_unordered(FILLING).try_collect::<()>().await?;
    let made = users.len() * EACH;
    let note =
        format!("{made} conversations made in {:.0} s, then the system was restarted", begun.elapsed().as_secs_f64());
    system.restart().await?;

    // Who writes, and those behind them, who only read: each conversation is one that was made.
    let writers = ((time.as_secs() * RATE) as usize).div_ceil(EACH).min(users.len());
    let online = (writers + EACH).min(users.len());
    let open = |n: usize| LoadConnection::open(system.url(n), users[n].clone());
    let mut members: Vec<LoadConnection> = stream::iter(0..online).map(open).buffered(32).try_collect().await?;
    let mut reports = Vec::new();
    for name in ["cold", "the same, warm"] {
        let before = Snapshot::take(&system.processes);
        let latency;
        // All around the ring, or the first part of it.
        (members, latency) = wake(members, if online == users.len() { online } else { writers }, name).await?;
        let sent = latency.len();
        reports.push(LoadReport {
            load: format!("cold: {sent} of {made} conversations, {name}, {RATE} sends/s, {BODY} B"),
            seconds: sent as f64 / RATE as f64,
            sent,
            delivered: sent,
            missing: 0,
            ack: None,
            delivery: Some((&latency).into()),
            used: before.until(&Snapshot::take(&system.processes)),
            per: "message",
            units: sent,
            notes: if name == "cold" { vec![note.clone()] } else { Vec::new() },
        });
    }
    if let [LoadReport { delivery: Some(cold), .. }, LoadReport { delivery: Some(warm), notes, .. }] =
        reports.as_mut_slice()
    {
        notes.push(format!("cold p99 is {:.1} × warm p99", cold.p99_us as f64 / warm.p99_us.max(1) as f64));
    }
    Ok(reports)
}

/// The user's conversations with those behind him in the ring.
async fn fill(system: &System, n: usize, users: &[User]) -> Result<()> {
    let mut connection = LoadConnection::open(system.url(n), users[n].clone()).await?;
    for k in 1..=EACH {
        let thread = Thread::dm(&users[n].id, &users[(n + k) % users.len()].id);
        let mut again = 0;
        loop {
            connection.socket.send(Message::Binary(send_frame(k as u32, &thread, now_ms(), stamped(0, BODY)))).await?;
            let why = loop {
                match timeout(PATIENCE, connection.socket.next())
                    .await?
                    .ok_or_else(|| anyhow!("the edge closed the connection"))??
                {
                    Message::Binary(bytes) => match look(&bytes) {
                        FrameSeen::Sent { .. } => break None,
                        FrameSeen::Refused(why) => break Some(why),
                        _ => {}
                    },
                    Message::Close(why) => bail!("the edge closed the connection: {why:?}"),
                    _ => {}
                }
            };
            let Some(why) = why else { break };
            // A system that makes thousands of conversations a second may ask to wait.
            again += 1;
            if again > 50 {
                bail!("a send was refused again and again: {why}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    connection.bye().await;
    Ok(())
}

/// The first `writers` send to those behind them, in turns, at the rate; how long each message took to the other.
async fn wake(
    members: Vec<LoadConnection>,
    writers: usize,
    name: &'static str,
) -> Result<(Vec<LoadConnection>, Histogram<u64>)> {
    let ids: Arc<Vec<UserId>> = Arc::new(members.iter().map(|c| c.user.id.clone()).collect());
    let n = ids.len();
    let begun = Instant::now() + Duration::from_millis(100);
    let mut running = JoinSet::new();
    for (at, connection) in members.into_iter().enumerate() {
        let writes = if at < writers { EACH } else { 0 };
        let reads = (1..=EACH).filter(|k| (at + n - k) % n < writers).count();
        running.spawn(member(at, connection, ids.clone(), writers, (writes, reads), begun));
    }
    let mut latency = histogram();
    let mut members: Vec<Option<LoadConnection>> = std::iter::repeat_with(|| None).take(n).collect();
    let most = Duration::from_secs_f64((writers * EACH) as f64 / RATE as f64) + PATIENCE;
    let collecting = async {
        while let Some(ended) = running.join_next().await {
            let (at, connection, seen) = ended??;
            latency.add(&seen)?;
            members[at] = Some(connection);
        }
        anyhow::Ok(())
    };
    timeout(most, collecting).await.map_err(|_| anyhow!("{name}: not all messages arrived within {most:?}"))??;
    Ok((members.into_iter().flatten().collect(), latency))
}

/// Until it has written and read so many.
async fn member(
    at: usize,
    mut connection: LoadConnection,
    ids: Arc<Vec<UserId>>,
    writers: usize,
    (writes, reads): (usize, usize),
    begun: Instant,
) -> Result<(usize, LoadConnection, Histogram<u64>)> {
    let mut latency = histogram();
    let mut sent = 0;
    while sent < writes || latency.len() < reads as u64 {
        let due = begun + Duration::from_secs_f64((sent * writers + at) as f64 / RATE as f64);
        tokio::select! {
            () = sleep_until(due), if sent < writes => {
                sent += 1;
                let thread = Thread::dm(&ids[at], &ids[(at + sent) % ids.len()]);
                let stamp = (due - begun).as_micros() as u64;
                let frame = send_frame(sent as u32, &thread, now_ms(), stamped(stamp, BODY));
                connection.socket.send(Message::Binary(frame)).await?;
            }
            message = connection.socket.next() => {
                let closed = || anyhow!("the edge closed the connection");
                let Message::Binary(bytes) = message.ok_or_else(closed)?? else { continue };
                match look(&bytes) {
                    // Our own come back as well.
                    FrameSeen::Event { stamp, from } if from != connection.user.id => {
                        latency.record((begun.elapsed().as_micros() as u64).saturating_sub(stamp).max(1))?;
                    }
                    FrameSeen::Refused(why) => bail!("a send was refused: {why}"),
                    _ => {}
                }
            }
        }
    }
    Ok((at, connection, latency))
}
