//! Step 4, the loop of one partition: log → fold → chain → frame → live subjects → position.
//!
//! Everything that is said about a partition leaves from this one task through one connection, so program order is the order on
//! the wire: an answer to a heads request, or a beat, stands behind every frame it speaks of. Whatever takes long (KV, the log's
//! bounds, a round trip) runs as a future beside the loop and never holds it; what must not overtake it waits in `window`.

use std::{collections::VecDeque, sync::PoisonError, time::Duration};

use async_nats::{Message, Subscriber};
use futures_util::{StreamExt, future::BoxFuture};
use natterjack_nats::{
    Batch, Buckets, KvError, LogBounds, LogReader, LogRecord, Position, Positions, Record, RoleLease, Start, Tail, time::Compared,
};
use natterjack_protocol::{Entry, MsgId, UserId};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::duty::{acquire, lost};
use crate::{
    error::Error,
    fold::Change,
    folder::Folder,
    last::Last,
    late,
    metrics::Metrics,
    outlet::Outlet,
    quiet::Quiet,
    service::{Heir, Shared, Status},
    start::{self, Log, Plan},
    watch::{Clock, Seen, Since, Watch},
    window::{Control, Pending, Window},
};

mod care;
mod duty;

pub(crate) const ROLE: &str = "channel";
/// Entries read, or published, before the loop looks at everything else: about 2 ms.
const TURN: usize = 1_024;
/// Control entries folded in one go.
const FOLD: usize = 1_024;
/// A round trip begins when this much is unconfirmed, at the latest with the next chore: three quarters of the window stay free meanwhile.
const BARRIER_ENTRIES: usize = 1 << 14;
/// Chores: confirm, save the position, evict, measure.
const CHORES: Duration = Duration::from_millis(200);
/// How long a stopping holder tries to confirm and hand over.
const FINISH: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(100);

/// A future beside the loop; kept over the turns, so that whatever wins a turn cancels nothing.
type Slot<T> = Option<BoxFuture<'static, T>>;

async fn done<T>(slot: &mut Slot<T>) -> T {
    match slot {
        Some(f) => {
            let value = f.await;
            *slot = None;
            value
        }
        None => std::future::pending().await,
    }
}

async fn next_request(heads: &mut Option<Subscriber>) -> Option<Message> {
    match heads {
        Some(requests) => requests.next().await,
        None => std::future::pending().await,
    }
}

struct Partition {
    p: u32,
    shared: Shared,
    status: Status,
    outlet: Outlet,
    reader: LogReader,
    last: Last,
    quiet: Quiet,
    window: Window,
    folder: Folder,
    positions: Positions,
    watch: Watch,
    /// The moments of the map count from here.
    began: Instant,
    clock: Clock,
    /// The log's clock beside the server's time.
    compared: Compared,
    since: Option<Since>,
    /// Where the log's clock stood when it was set back: until it is there again, a cid may be of a message that the stream has forgotten.
    set_back: u64,
    /// The log's first id and its end when its bounds were asked last.
    log_first: MsgId,
    log_end: MsgId,
    /// How things stood when they were asked for.
    asked: Asked,
    /// The end mark of the generation: everything was read.
    end: Option<MsgId>,
    heir: Heir,
    /// Nothing has been read yet, and the reader began by time: the first entry tells where the horizon is.
    horizon_open: bool,
    lease: Option<RoleLease>,
    held: Option<watch::Receiver<bool>>,
    /// This instance publishes.
    holder: bool,
    /// The connection's epoch under which everything published since the last confirmation was written.
    epoch: u64,
    heads: Option<Subscriber>,
    /// Requests answered; see `care`.
    requests: u32,
    archive_lag: Option<u64>,
    saved: Position,
    saved_at: Instant,
    folding_since: Option<Instant>,
    acquiring: Slot<RoleLease>,
    folding: Slot<Vec<(MsgId, Vec<UserId>)>>,
    barrier: Slot<Option<MsgId>>,
    bounds: Slot<Option<Seen>>,
    lag: Slot<Option<u64>>,
    saving: Slot<Result<Position, KvError>>,
    /// Read, and behind an entry that is being judged.
    waiting: VecDeque<Record>,
    /// A late entry, and whether it is a copy.
    judging: Slot<(LogRecord, bool)>,
    judging_since: Option<Instant>,
    /// A standby's look at how far the holder is.
    peek: Slot<Option<Position>>,
    /// Another instance publishes, or did when we began.
    stood_by: bool,
    metrics: Metrics,
}

/// Before a question about the log's bounds.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    read: MsgId,
    epoch: u64,
}

/// The position, the log's bounds as of later, and whether the log lost what the position stands for.
async fn asked(positions: &Positions, tail: &Tail, p: u32) -> Result<(Option<Position>, LogBounds, bool), String> {
    let position = positions.load(p).await.map_err(|e| e.to_string())?;
    let lost = match position {
        Some(read) => tail.lost_its_end(p, read).await.map_err(|e| e.to_string())?,
        None => false,
    };
    Ok((position, tail.bounds(p).await.map_err(|e| e.to_string())?, lost))
}

/// Runs one partition until `stop`, or until something ends it that waiting does not cure. What its map knows, if it has come to the end
/// of its generation.
pub(crate) async fn run(shared: &Shared, p: u32, status: &Status, heir: &Heir, stop: &CancellationToken) -> Result<Option<Last>, Error> {
    let begin = Partition::begin(shared.clone(), p, status.clone(), heir.clone());
    let Some(mut partition) = stop.run_until_cancelled(begin).await.transpose()? else { return Ok(None) };
    match stop.run_until_cancelled(partition.work()).await {
        Some(Err(e)) => Err(e),
        Some(Ok(())) | None => {
            if timeout(FINISH, partition.finish()).await.is_err() {
                tracing::warn!(partition = p, "the last confirmation did not come; whoever goes on repeats some events");
            }
            Ok(partition.end.map(|_| partition.last))
        }
    }
}

impl Partition {
    /// Asks where to begin until it is told.
    async fn begin(shared: Shared, p: u32, status: Status, heir: Heir) -> Result<Self, Error> {
        let times = &shared.times;
        let (own, tail) = (Buckets::new(&shared.frames, shared.layout), Tail::new(&shared.frames, shared.layout));
        let positions = Positions::new(&own, ROLE);
        let horizon_ms = times.horizon.as_millis() as u64;
        let (position, bounds) = loop {
            match asked(&positions, &tail, p).await {
                Ok((Some(read), _, true)) => return Err(Error::LostEnd { p, read: read.id }),
                Ok((position, bounds, _)) => break (position, bounds),
                Err(why) => status.set(Err(why)),
            }
            tokio::time::sleep(RETRY).await;
        };
        // Over, or about to be: there may be no later layout yet.
        let closed = shared.closed || bounds.over;
        let log = Log { first: bounds.first, last: bounds.last, now_ms: bounds.ts_ms, created_ms: bounds.created_ms, closed };
        let Plan { from, published, alarm } = start::choose(position, log, horizon_ms);
        if let Some(alarm) = alarm {
            tracing::error!(partition = p, ?position, ?log, alarm);
        }
        tracing::debug!(partition = p, ?from, published = %published.id, "reading the log");
        let known = if let Start::After(id) = from { id } else { MsgId::NONE };
        let inherited = heir.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let last = match inherited {
            Some(heir) if known.next() == bounds.origin && bounds.first == bounds.origin => heir.begins(bounds.first, 0),
            _ => Last::new(horizon_ms, known),
        };
        let lease = RoleLease::new(&own, ROLE, p, &shared.instance, times);
        Ok(Self {
            p,
            outlet: Outlet::new(&shared.frames, shared.layout.generation, p, times),
            reader: LogReader::new(&shared.log, shared.layout, p, from),
            last,
            quiet: Quiet::new(times.head_after),
            window: Window::new(published, known),
            folder: Folder::new(&shared.log, Buckets::new(&shared.log, shared.layout), p),
            positions,
            watch: Watch::new(tail, &own, p, times, shared.layout.former.is_some()),
            began: Instant::now(),
            clock: Clock { ts: bounds.ts_ms, at: Instant::now() },
            compared: Compared::new(format!("log-{p}"), format!("the clock of the nats-server that leads partition {p} of the log")),
            since: None,
            set_back: start::set_back(published, bounds.ts_ms, times),
            log_first: bounds.first,
            log_end: bounds.last,
            asked: Asked::default(),
            // The mark itself may have expired, or was read by somebody long ago.
            end: (closed && known >= bounds.last).then_some(bounds.last),
            heir,
            horizon_open: known.is_none() && bounds.first.0 > 1,
            lease: None,
            held: None,
            holder: false,
            epoch: shared.frames.epoch(),
            heads: None,
            requests: 0,
            archive_lag: None,
            saved: published,
            saved_at: Instant::now(),
            folding_since: None,
            acquiring: Some(Box::pin(acquire(lease))),
            folding: None,
            barrier: None,
            bounds: None,
            lag: None,
            saving: None,
            waiting: VecDeque::new(),
            judging: None,
            judging_since: None,
            peek: None,
            stood_by: false,
            metrics: Metrics::new(p),
            status,
            shared,
        })
    }

    async fn work(&mut self) -> Result<(), Error> {
        let mut beats = interval(self.shared.times.beat);
        let mut chores = interval(CHORES);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        chores.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.publish().await?;
            let more = self.may_publish() && self.window.next_unpublished().is_some_and(Pending::ready);
            let quiet_until = self.quiet.next_due();
            tokio::select! {
                // In this order, because: who publishes is decided before anything is said; what has finished makes room; requests
                // and beats are few and must not starve under load; reading comes last, since there is nearly always something.
                biased;
                lease = done(&mut self.acquiring) => self.take_over(lease).await,
                () = lost(&mut self.held) => self.stand_by(),
                confirmed = done(&mut self.barrier) => self.confirm(confirmed),
                folded = done(&mut self.folding) => {
                    self.folding_since = None;
                    self.window.folded(folded);
                }
                saved = done(&mut self.saving) => self.saved(saved),
                position = done(&mut self.peek) => if let (false, Some(position)) = (self.holder, position) {
                    self.window.confirm(position.id);
                },
                request = next_request(&mut self.heads) => self.answer(request).await?,
                bounds = done(&mut self.bounds) => self.bounds(bounds).await?,
                lag = done(&mut self.lag) => self.archive_lag = lag,
                _ = beats.tick() => self.ask_bounds(),
                _ = chores.tick() => self.chores().await?,
                () = sleep_until(quiet_until.unwrap_or_else(Instant::now)), if quiet_until.is_some() => self.quiet_threads().await?,
                () = std::future::ready(()), if more => {}
                (record, copy) = done(&mut self.judging) => self.judged(record, copy),
                batch = self.reader.next_batch(TURN), if self.may_read() => self.take(batch?),
            }
        }
    }

    fn read_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn may_read(&self) -> bool {
        !self.window.full() && self.judging.is_none()
    }

    fn take(&mut self, batch: Batch) {
        self.metrics.lag.set(batch.pending as f64);
        if let Some((_, to)) = batch.hole {
            self.last.forget_up_to(to);
        }
        if let (true, Some(first)) = (std::mem::take(&mut self.horizon_open), batch.records.first()) {
            let before = MsgId(first.id().0.saturating_sub(1));
            if before > self.saved.id {
                // The time to begin at lies behind what is owed: the log's clock was set back since.
                tracing::warn!(partition = self.p, from = %self.saved.id, "the log is read on from the position, not from a time");
                self.last.forget_up_to(self.saved.id);
                self.reader = LogReader::new(&self.shared.log, self.shared.layout, self.p, Start::After(self.saved.id));
                return;
            }
            self.last.forget_up_to(before);
        }
        self.waiting.extend(batch.records);
        self.work_in();
    }

    /// Step by step through what was read: the chain is made here, once, in the log's order; it is published from the window. What is
    /// hidden is nobody's `prev`, so everything waits behind a late entry until it is known to be none.
    fn work_in(&mut self) {
        while self.judging.is_none()
            && let Some(record) = self.waiting.pop_front()
        {
            match record {
                Record::Entry(record) => match late::suspect(&record, &self.shared.times) {
                    None => self.link(record),
                    Some(whose) => {
                        self.metrics.late.increment(1);
                        self.judging_since = Some(Instant::now());
                        self.judging = Some(Box::pin(late::is_copy(self.shared.log.clone(), record, whose)));
                    }
                },
                Record::End { id, ts } => {
                    tracing::info!(partition = self.p, id = %id, "the generation is over");
                    self.end = Some(id);
                    self.window.read(id, ts, None);
                }
                Record::Poison { id, ts, subject, .. } => {
                    self.metrics.strays.increment(1);
                    tracing::error!(partition = self.p, id = %id, subject, "an entry's subject names no thread; passed over");
                    self.window.read(id, ts, None);
                }
            }
        }
    }

    fn link(&mut self, record: LogRecord) {
        let (id, ts, hash) = (record.id, record.ts, record.thread.hash64());
        let prev = self.last.advance(hash, id, self.read_ms());
        let control = if record.control { control(&record) } else { None };
        self.window.read(id, ts, Some(Pending { record, hash, prev, control }));
    }

    fn judged(&mut self, record: LogRecord, copy: bool) {
        self.judging_since = None;
        if copy {
            self.metrics.copies.increment(1);
            tracing::info!(partition = self.p, id = %record.id, "a copy of an earlier entry, stored late; shown to nobody");
            self.window.read(record.id, record.ts, None);
        } else {
            self.link(record);
        }
        self.work_in();
    }

    fn may_publish(&self) -> bool {
        self.holder && self.window.warm() && self.outlet.nats().connected()
    }

    /// One turn of publishing: from the first entry that has not left, up to one that waits for its fold.
    async fn publish(&mut self) -> Result<(), Error> {
        if !self.may_publish() {
            return Ok(());
        }
        let epoch = self.outlet.nats().epoch();
        if epoch != self.epoch {
            // What was written may be lost: all that is unconfirmed goes out again. Edges drop what they have, by id.
            self.epoch = epoch;
            self.barrier = None;
            // What was asked before may never be answered, and edges wait for a beat of after.
            self.bounds = None;
            self.ask_bounds();
            let again = self.window.rewind();
            self.metrics.republished.increment(again as u64);
            tracing::info!(partition = self.p, entries = again, "the connection broke; publishing again from the last confirmed entry");
        }
        let now = Instant::now();
        for _ in 0..TURN {
            let Some(pending) = self.window.next_unpublished() else { break };
            if !pending.ready() {
                if self.folding.is_none() {
                    self.folding_since = Some(now);
                    self.folding = Some(Box::pin(self.folder.clone().fold(self.window.unfolded(FOLD))));
                }
                break;
            }
            self.outlet.entry(pending).await?;
            if self.quiet.published(now, pending.record.thread.clone(), pending.hash, pending.record.id) {
                self.metrics.heads_dropped.increment(1);
            }
            self.window.advance();
        }
        if self.window.unconfirmed() >= BARRIER_ENTRIES {
            self.begin_barrier();
        }
        Ok(())
    }

    fn begin_barrier(&mut self) {
        if self.barrier.is_none() && self.may_publish() && self.window.frontier() > self.window.confirmed().id {
            let (nats, frontier) = (self.outlet.nats().clone(), self.window.frontier());
            self.barrier = Some(Box::pin(async move { nats.flush_barrier().await.ok().map(|()| frontier) }));
        }
    }

    fn confirm(&mut self, frontier: Option<MsgId>) {
        // Compared with the epoch from before the first of these frames was written, not just with that of the round trip.
        if let Some(frontier) = frontier
            && self.outlet.nats().epoch() == self.epoch
        {
            self.window.confirm(frontier);
        }
    }
}

/// None: not to be understood; it will be published as what it is, and folded into nothing.
fn control(record: &LogRecord) -> Option<Box<Control>> {
    let entry = Entry::on(true, &record.payload).ok()?;
    Some(Box::new(Control { change: Change { id: record.id, thread: record.thread.clone(), entry }, folded: None }))
}
