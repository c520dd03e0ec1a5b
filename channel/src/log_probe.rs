//! Beside step 4: what a partition asks the log and `control` about once a second. Out: the log's clock and bounds for
//! beats, and how far the archive is behind.

use std::time::Duration;

use natterjack_nats::{
    ClockMarks, KvBuckets, KvError, LeaderReader, LogBounds, Positions, ReadError, log_readers,
    server_time::ClockComparison,
};
use natterjack_protocol::{MsgId, Times};
use natterjack_role::Partition;
use tokio::time::Instant;

use crate::in_flight::InFlight;

/// The log's clock, as of a moment of ours.
#[derive(Debug, Clone, Copy)]
pub struct LogClock {
    pub ts: u64,
    pub at: Instant,
}

impl LogClock {
    pub fn now(&self) -> u64 {
        self.ts + self.at.elapsed().as_millis() as u64
    }
}

/// Up to when a stream may not know what was stored.
#[derive(Debug, Clone, Copy)]
pub struct DedupeSince {
    created_ms: u64,
    /// Something may have been stored before it was made.
    follows: bool,
    /// Where the log's clock was, of which it was set back or which was another's.
    set_back: u64,
}

impl DedupeSince {
    /// 0: it knows everything.
    fn ms(&self) -> u64 {
        if self.follows { self.set_back.max(self.created_ms) } else { self.set_back }
    }
}

/// What the log said, and when.
#[derive(Debug, Clone, Copy)]
pub struct ProbedLog {
    pub bounds: LogBounds,
    pub at: Instant,
    since: DedupeSince,
}

/// How things stood when the log was asked.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    read: MsgId,
    epoch: u64,
}

/// An answer; none: the log does not answer.
pub enum ProbeAnswer {
    Bounds(Option<ProbedLog>),
    ArchiveLag,
}

/// Of one partition.
pub struct LogProbe {
    questions: Questions,
    slack_ms: u64,
    clock: LogClock,
    /// The log's clock beside the server's time.
    compared: ClockComparison,
    since: Option<DedupeSince>,
    /// Where the log's clock stood when it was set back: until it is there again, a cid may be of a message that the
    /// stream has forgotten.
    set_back: u64,
    first: MsgId,
    end: MsgId,
    asked: Asked,
    bounds: InFlight<Option<ProbedLog>>,
    lag: InFlight<Option<u64>>,
    archive_lag: Option<u64>,
}

impl LogProbe {
    /// `bounds`: as they were when the partition began. `set_back`: where the log's clock must have stood then.
    pub fn new(at: &Partition, bounds: &LogBounds, set_back: u64) -> Self {
        let p = at.p;
        Self {
            questions: Questions::new(at),
            slack_ms: at.times.clock_slack.as_millis() as u64,
            clock: LogClock { ts: bounds.ts_ms, at: Instant::now() },
            compared: ClockComparison::new(
                format!("log-{p}"),
                format!("the clock of the nats-server that leads partition {p} of the log"),
            ),
            since: None,
            set_back,
            first: bounds.first,
            end: bounds.last,
            asked: Asked::default(),
            bounds: InFlight::default(),
            lag: InFlight::default(),
            archive_lag: None,
        }
    }

    pub fn clock(&self) -> LogClock {
        self.clock
    }

    /// The log's first id when it answered last.
    pub fn first(&self) -> MsgId {
        self.first
    }

    pub fn archive_lag(&self) -> Option<u64> {
        self.archive_lag
    }

    pub fn dedupe_since(&self, probed: &ProbedLog) -> u64 {
        probed.since.ms().max(self.set_back)
    }

    /// Asks, unless an answer is awaited. `read`: what this partition has read. `epoch`: of the connection that answers
    /// come over.
    pub fn ask(&mut self, read: MsgId, epoch: u64, archive_too: bool) {
        if self.bounds.is_idle() {
            self.asked = Asked { read, epoch };
            self.bounds.start(self.questions.clone().bounds(self.since, self.set_back));
        }
        if archive_too && self.lag.is_idle() {
            self.lag.start(self.questions.clone().archive_lag(self.first, self.end, self.clock.now()));
        }
    }

    /// What was asked before may never be answered, and edges wait for a beat of after.
    pub fn ask_again(&mut self, read: MsgId, epoch: u64) {
        self.bounds.cancel();
        self.ask(read, epoch, true);
    }

    /// The next answer. Cancel-safe.
    pub async fn next(&mut self) -> ProbeAnswer {
        tokio::select! {
            biased;
            bounds = self.bounds.finished() => ProbeAnswer::Bounds(bounds),
            lag = self.lag.finished() => {
                self.archive_lag = lag;
                ProbeAnswer::ArchiveLag
            }
        }
    }

    /// Takes an answer in. False: the log says that it ends before what was read, and may yet say more: no beat.
    pub fn take(&mut self, p: u32, probed: &ProbedLog, end_was_read: bool) -> Result<bool, ReadError> {
        let ProbedLog { bounds, at, since } = probed;
        // An end mark below what was read, or in its place, is that of a log that lost its end, and that somebody else
        // has ended.
        let in_its_place = bounds.over && bounds.last == self.asked.read && !end_was_read;
        if bounds.last < self.asked.read || in_its_place {
            if bounds.over || bounds.replicas <= 1 {
                return Err(ReadError::LostEnd { p, read: self.asked.read });
            }
            // A deposed leader, or else the reader will find it when its consumer is made again.
            return Ok(false);
        }
        let before = self.clock.now();
        if bounds.ts_ms + self.slack_ms < before {
            self.set_back = self.set_back.max(before);
        }
        self.clock = LogClock { ts: bounds.ts_ms, at: *at };
        (self.since, self.first, self.end) = (Some(*since), bounds.first, bounds.last);
        Ok(true)
    }

    pub fn compare_clocks(&mut self, server_ms: u64) {
        self.compared.look(self.clock.now(), server_ms);
    }

    /// Was the last question asked over the connection that is there now? One of before a reconnect speaks for a log
    /// that may have lost its end since.
    pub fn asked_over(&self, epoch: u64) -> bool {
        self.asked.epoch == epoch
    }
}

#[derive(Clone)]
struct Questions {
    tail: LeaderReader,
    archive: Positions,
    clocks: ClockMarks,
    p: u32,
    timeout: Duration,
    buckets: KvBuckets,
    times: Times,
    /// There was a generation before: the archive may not have come to this one yet.
    follows: bool,
}

impl Questions {
    fn new(at: &Partition) -> Self {
        let buckets = at.buckets();
        Self {
            tail: at.tail(),
            archive: Positions::new(&buckets, log_readers::PERSISTER),
            clocks: ClockMarks::new(&buckets),
            p: at.p,
            timeout: at.times.beat_silence,
            buckets,
            times: at.times.clone(),
            follows: at.layout.former.is_some(),
        }
    }

    /// None: the log does not answer; then no beat goes out, and the edges see for themselves.
    /// `set_back`: where the log's clock stood when it was set back.
    async fn bounds(self, known: Option<DedupeSince>, set_back: u64) -> Option<ProbedLog> {
        let bounds = tokio::time::timeout(self.timeout, self.tail.bounds(self.p)).await;
        match bounds {
            Ok(Ok(bounds)) => {
                let at = Instant::now();
                match self.dedupe_since(&bounds, known, set_back).await {
                    Ok(since) => Some(ProbedLog { bounds, at, since }),
                    Err(e) => {
                        tracing::debug!(
                            partition = self.p, error = %e,
                            "how far the log's clock has been is not known now"
                        );
                        None
                    }
                }
            }
            Ok(Err(e)) => {
                tracing::debug!(partition = self.p, error = %e, "the log does not say its bounds now");
                None
            }
            Err(_) => None,
        }
    }

    async fn dedupe_since(
        &self,
        bounds: &LogBounds,
        known: Option<DedupeSince>,
        set_back: u64,
    ) -> Result<DedupeSince, KvError> {
        let known = known.filter(|since| since.created_ms == bounds.created_ms);
        let mut noted = match known {
            Some(since) => since.set_back,
            None => self.clocks.of(self.p).await?,
        };
        // For whoever publishes beats after this instance.
        if set_back > noted {
            self.clocks.note(self.p, set_back).await?;
            noted = set_back;
        }
        // As long as it makes a difference, the persister may still say that nothing was stored before this stream.
        let young = bounds.ts_ms.saturating_sub(bounds.created_ms) <= self.times.young_stream().as_millis() as u64;
        let follows = match known {
            Some(since) if !since.follows || !young => since.follows,
            _ if self.follows => true,
            _ => {
                let beginning = self.buckets.beginning().load().await;
                !beginning.is_ok_and(|found| found.is_some_and(|b| b.is_of(self.p, bounds.created_ms)))
            }
        };
        Ok(DedupeSince { created_ms: bounds.created_ms, follows, set_back: noted })
    }

    /// How old the first entry is that the archive does not have. None: not known.
    async fn archive_lag(self, first: MsgId, last: MsgId, now_ms: u64) -> Option<u64> {
        let position = self.archive.load(self.p).await.ok()?.map(|p| p.id);
        let archived = position.or(self.follows.then(|| MsgId(first.0.saturating_sub(1))))?;
        if archived >= last {
            return Some(0);
        }
        // The next id may have aged out of the log, or be none of ours: then it is not known how long that took.
        let next = self.tail.get(self.p, archived.next()).await.ok()??;
        Some(now_ms.saturating_sub(next.ts))
    }
}
