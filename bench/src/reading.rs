//! What reading costs: all members of a group read the same message at once; and users who start, each with the list of
//! their threads (`starts`).

pub mod starts;

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures_util::{
    SinkExt, StreamExt, TryStreamExt,
    future::{try_join, try_join_all},
    stream,
};
use natterjack_nats::{Kv, Layout, subjects};
use natterjack_protocol::{
    Event, MsgId, Thread, UserId,
    client::frame::{Acknowledged, ClientFrame, ServerFrame},
    codec::Codec,
};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{
    connection::{LoadConnection, send_frame, stamped},
    cpu::{self, Snapshot},
    groups,
    report::{LoadReport, histogram},
    system::{System, User, now_ms},
};

const BODY: usize = 128;
/// Log-ins in progress at once.
const AT_ONCE: usize = 32;
/// What connecting has left to do is done by then, and counted.
const SETTLED: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);
/// What was read is gathered for a second before authors are told.
const RECEIPTS: Duration = Duration::from_secs(10);

struct Member {
    connection: LoadConnection,
    /// The message that is read in this round.
    message: MsgId,
    /// Frames of receipts, and who has read the message as they say.
    frames: u64,
    told: HashSet<UserId>,
}

/// In each round one member writes and all acknowledge it as read.
pub async fn at_once(system: &System, members: usize, rounds: usize) -> Result<LoadReport> {
    if members < 2 || rounds == 0 {
        bail!("at least two members and one round");
    }
    let users = system.users(members).await?;
    let thread = groups::create(system, &users).await?;
    let open = |(n, user)| Member::open(system.url(n), user);
    let mut group: Vec<Member> =
        stream::iter(users.into_iter().enumerate()).map(open).buffered(AT_ONCE).try_collect().await?;
    sleep(SETTLED).await;
    let written_before = writes(system).await?;
    let (mut confirmed, mut last) = (histogram(), histogram());
    let (mut used, mut seconds, mut told) = (Vec::new(), 0.0, 0);
    for round in 0..rounds {
        let (author, others) = group.split_first_mut().context("a group has members")?;
        let shown = others.iter_mut().map(|m| m.shown(round));
        let (id, _) = timeout(PATIENCE, try_join(author.write(&thread, round), try_join_all(shown)))
            .await
            .context("the message did not reach everybody")??;
        let (before, begun) = (Snapshot::take(&system.processes), Instant::now());
        let reads = group.iter_mut().map(|m| m.read(&thread, id, begun));
        let took = timeout(PATIENCE, try_join_all(reads)).await.context("not all of it was confirmed")??;
        for each in &took {
            confirmed.record(each.as_micros() as u64)?;
        }
        last.record(took.iter().max().map_or(0, |d| d.as_micros() as u64))?;
        // A receipt that is pushed may be lost: who was not told of is counted.
        if let Ok(ended) = timeout(RECEIPTS, group[0].told_of(members - 1)).await {
            ended?;
        }
        told += group[0].told.len();
        cpu::add(&mut used, before.until(&Snapshot::take(&system.processes)));
        seconds += begun.elapsed().as_secs_f64();
    }
    let read = (members * rounds) as u64;
    let written = writes(system).await? - written_before;
    let ms = |us: u64| us as f64 / 1_000.0;
    let notes = vec![
        format!(
            "the last reader's `read` after {:.0} ms, in the slowest round {:.0} ms",
            ms(last.value_at_quantile(0.5)),
            ms(last.max())
        ),
        format!(
            "{:.1} frames `receipts` to the author for each message, of {} of {} readers",
            group[0].frames as f64 / rounds as f64,
            told,
            (members - 1) * rounds
        ),
        format!("{written} writes to KV of what {read} have read"),
    ];
    for member in &mut group {
        member.connection.bye().await;
    }
    Ok(LoadReport {
        load: format!("reading: {members} members of a group read the same message at once, {rounds} times"),
        seconds,
        sent: read,
        delivered: confirmed.len(),
        missing: read - confirmed.len(),
        ack: Some((&confirmed).into()),
        delivery: None,
        used,
        per: "reader",
        units: read,
        notes,
    })
}

/// How often keys of users were written, ever.
async fn writes(system: &System) -> Result<u64> {
    let mut writes = 0;
    for shard in 0..Layout::load(&system.nats).await?.kv_shards {
        writes += Kv::new(&system.nats, subjects::users_bucket(shard)).last_revision().await?;
    }
    Ok(writes)
}

impl Member {
    async fn open(url: &str, user: User) -> Result<Self> {
        let connection = LoadConnection::open(url, user).await?;
        Ok(Self { connection, message: MsgId::NONE, frames: 0, told: HashSet::new() })
    }

    /// Every frame comes through here, so that no receipt is missed.
    async fn until<T>(&mut self, mut wanted: impl FnMut(ServerFrame) -> Option<T>) -> Result<T> {
        loop {
            let frame = self.connection.frame().await?;
            if let Some(ServerFrame::Receipts { receipts, .. }) = &frame {
                self.frames += 1;
                let read = receipts.iter().filter(|r| r.read >= self.message);
                self.told.extend(read.map(|r| r.user.clone()));
            }
            if let Some(ServerFrame::Error { refusal, .. }) = &frame {
                bail!("refused: {refusal}");
            }
            if let Some(found) = frame.and_then(&mut wanted) {
                return Ok(found);
            }
        }
    }

    async fn say(&mut self, frame: bytes::Bytes) -> Result<()> {
        Ok(self.connection.socket.send(Message::Binary(frame)).await?)
    }

    async fn write(&mut self, thread: &Thread, round: usize) -> Result<MsgId> {
        self.say(send_frame(round as u32, thread, now_ms(), stamped(round as u64, BODY))).await?;
        self.until(|frame| if let ServerFrame::Sent { id, .. } = frame { Some(id) } else { None }).await
    }

    async fn shown(&mut self, round: usize) -> Result<()> {
        let stamp = format!("{round} ");
        let is_it = |e: &Event| e.body.text.as_ref().is_some_and(|text| text.starts_with(&stamp));
        self.until(|frame| matches!(&frame, ServerFrame::Event(e) if is_it(e)).then_some(())).await
    }

    /// How long it took from the beginning to the confirmation.
    async fn read(&mut self, thread: &Thread, id: MsgId, begun: Instant) -> Result<Duration> {
        self.message = id;
        self.told.clear();
        let acked = Acknowledged { got: BTreeMap::new(), read: [(thread.clone(), id)].into() };
        self.say(ClientFrame::Ack(acked).encode(Codec::Msgpack)).await?;
        let confirms = |frame| matches!(&frame, ServerFrame::Read { threads } if threads.get(thread) == Some(&id));
        self.until(|frame| confirms(frame).then(|| begun.elapsed())).await
    }

    async fn told_of(&mut self, readers: usize) -> Result<()> {
        while self.told.len() < readers {
            self.until(|frame| matches!(frame, ServerFrame::Receipts { .. }).then_some(())).await?;
        }
        Ok(())
    }
}
