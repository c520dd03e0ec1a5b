//! Step 5, the loop: NATS messages in, effects out. The only task that touches the hub, so nothing in it is locked.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use natterjack_nats::{
    fanin::{FanIn, FanInEvent, Slot as Sid, Tail8},
    subjects,
};
use natterjack_protocol::{
    GroupId, MsgId, Refusal, Thread, UserId,
    internal::{
        live::{Beat, LiveMessage},
        rpc::{Answer, Heads, HeadsAnswer},
    },
    log::fold::ThreadItem,
};
use rand::Rng;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Live,
    hub::{Effect, Hub},
    round::{Ask, Barrier, Rounds, Waiter},
    topic::{Gap, LiveEvent, TopicKey},
};
use crate::{
    attach,
    members::{Reading, UserState},
    repair,
    sessions::handle::SessionHandle,
};

/// The slot of `beat.*`; topics come after it.
const BEATS: u32 = 0;
const TICK: Duration = Duration::from_millis(250);
/// A request for heads without an answer is asked again; attach waits 5 s in all.
const ASK_AGAIN: Duration = Duration::from_millis(1_000);
/// How often the frontier is remembered, and how old it must be before what lies below it is forgotten (the horizon of `channel`).
const SNAPSHOT: Duration = Duration::from_secs(30);

/// What a job of the dispatcher came back with.
enum Done {
    Fetched {
        slot: u32,
        birth: u64,
        gap: Gap,
        events: Result<Vec<LiveEvent>, Refusal>,
    },
    /// A user's key was read again; `cut`: they were cut off from this group meanwhile.
    Changed {
        reading: Reading,
        cut: Option<GroupId>,
    },
    /// Nobody answered this request for heads: ask again. It stays open until then, and its round with it.
    AskAgain(u64),
    Nothing,
}

struct Dispatcher {
    live: Live,
    fanin: FanIn,
    hub: Hub,
    rounds: Rounds<oneshot::Sender<Barrier>>,
    jobs: JoinSet<Done>,
    snapshots: VecDeque<(Instant, Vec<MsgId>)>,
    next_sweep: Instant,
    /// Users whose threads this sweep has not looked at yet, and how many are looked at per tick.
    unswept: Vec<UserId>,
    per_tick: usize,
    /// Per partition, while its beats were silent and its heads are not compared yet: up to where nothing was missed.
    doubts: Vec<Option<MsgId>>,
    /// Per partition, since when its heads are answered by somebody who knows less than what has come here.
    stale_since: Vec<Option<Instant>>,
    /// When the round under way was asked last.
    asked_at: Instant,
    /// Fetches under way.
    repairs: isize,
}

pub(super) async fn run(live: Live, fanin: FanIn, mut inbox: mpsc::Receiver<Command>, stop: CancellationToken) {
    let partitions = live.layout.partitions;
    let mut d = Dispatcher {
        fanin,
        hub: Hub::new(partitions, BEATS + 1),
        rounds: Rounds::new(partitions),
        jobs: JoinSet::new(),
        snapshots: VecDeque::new(),
        next_sweep: Instant::now() + live.times.sweep,
        unswept: Vec::new(),
        per_tick: 1,
        doubts: vec![None; partitions as usize],
        stale_since: vec![None; partitions as usize],
        asked_at: Instant::now(),
        repairs: 0,
        live,
    };
    d.fanin.subscribe(subjects::BEATS, Sid(BEATS));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        d.settle();
        tokio::select! {
            // Commands first: a barrier must be written behind the subscriptions it is for, and both before we wait for NATS.
            biased;
            () = stop.cancelled() => break,
            Some(command) = inbox.recv() => {
                d.command(command);
                while let Ok(command) = inbox.try_recv() {
                    d.command(command);
                }
            }
            Some(done) = d.jobs.join_next(), if !d.jobs.is_empty() => match done {
                Ok(done) => d.done(done),
                Err(e) => tracing::error!(error = %e, "a job of the dispatcher failed"),
            },
            _ = tick.tick() => d.tick(),
            () = d.fanin.next_batch(&mut batch) => batch.drain(..).for_each(|event| d.event(event)),
        }
    }
}

impl Dispatcher {
    fn event(&mut self, event: FanInEvent) {
        match event {
            FanInEvent::Msg { slot: Sid(BEATS), payload, .. } => self.beat(&payload),
            FanInEvent::Msg { slot: Sid(slot), subject_tail: Tail8::Ephemeral, payload, .. } => self.hub.ephemeral(slot, &payload),
            FanInEvent::Msg { slot: Sid(slot), payload, .. } => match LiveMessage::parse(&payload) {
                Ok(message) => {
                    if let LiveMessage::Event { header, .. } = &message {
                        self.live.echoes.heard(header);
                    }
                    self.hub.live(slot, message, &payload);
                    self.settle();
                }
                Err(e) => {
                    tracing::error!(error = %e, bytes = payload.len(), "a live message is dropped: does every channel run this version?")
                }
            },
            FanInEvent::Reply { token, payload, no_responders } => self.heads(token, &payload, no_responders),
            FanInEvent::Disconnected => {
                tracing::warn!("the fan-in connection to NATS is lost");
                metrics::counter!("natterjack_edge_fanin_disconnects_total").increment(1);
            }
            FanInEvent::Connected { epoch } => {
                if epoch > 1 {
                    tracing::info!(epoch, "the fan-in connection to NATS is up again");
                }
                self.rounds.restart();
                self.read_everybody_again();
            }
        }
    }

    fn beat(&mut self, payload: &[u8]) {
        match Beat::decode(payload) {
            // Of the partitions of a generation before or after.
            Ok(beat) if beat.generation != self.live.layout.generation => {}
            Ok(beat) => {
                let whole = self.live.clock.frontier(beat.p);
                self.live.fence.heard(beat.p);
                // Whoever was silent may have published what never came here, in threads that never did, too.
                if self.live.clock.beat(beat) {
                    if let Some(doubt) = self.doubts.get_mut(beat.p as usize) {
                        *doubt = doubt.or(whole);
                    }
                    self.sweep_all();
                }
            }
            Err(e) => tracing::warn!(error = %e, "a beat of another version"),
        }
    }

    fn heads(&mut self, token: u64, payload: &[u8], no_responders: bool) {
        let answer = if no_responders { None } else { rmp_serde::from_slice::<Answer<HeadsAnswer>>(payload).ok() };
        let Some(Answer::Ok(answer)) = answer else {
            // Between two holders of the partition: the next one answers. Those who wait have a deadline of their own.
            self.ask_again(token);
            return;
        };
        if let Some(p) = self.rounds.partition(token)
            && !self.may_be_a_barrier(p, answer.frontier)
        {
            metrics::counter!("natterjack_edge_stale_heads_total").increment(1);
            self.ask_again(token);
            return;
        }
        if let Some(learnt) = self.rounds.answered(token, &answer) {
            if let Some(whole) = self.doubts.get_mut(learnt.p as usize).and_then(Option::take)
                && learnt.horizon > whole
            {
                tracing::warn!(partition = learnt.p, %whole, horizon = %learnt.horizon, "silent for longer than channel remembers: all sessions resume");
                self.hub.give_up_all();
            }
            self.hub.attached(&learnt.slots, learnt.p, learnt.frontier);
            for (key, thread, head) in learnt.heads {
                self.hub.head(&key, &thread, head);
            }
        }
        for (reply, barrier) in self.rounds.finished() {
            // Who does not wait any more does not need it.
            let _ = reply.send(barrier);
        }
    }

    fn ask_again(&mut self, token: u64) {
        self.jobs.spawn(async move {
            sleep(Duration::from_millis(100)).await;
            Done::AskAgain(token)
        });
    }

    /// A holder that has lost its partition and does not know it yet answers, too, with what it has read. It knows within the lease; who
    /// is behind for longer than that is behind because the log itself lost what came here.
    fn may_be_a_barrier(&mut self, p: u32, frontier: MsgId) -> bool {
        let Some(stale) = self.stale_since.get_mut(p as usize) else { return true };
        // A beat, too, says what some holder has published, also of threads that nobody here has.
        let beaten = self.live.clock.frontier(p).is_none_or(|known| known <= frontier);
        if beaten && self.hub.covered_by(p, frontier) {
            *stale = None;
            return true;
        }
        stale.get_or_insert_with(Instant::now).elapsed() > self.live.times.role_lease + Duration::from_secs(1)
    }

    fn command(&mut self, command: Command) {
        match command {
            // A job may still ask for a seat when the session has gone.
            Command::Sit { session, .. } if session.gone.load(Relaxed) => {}
            Command::Sit { session, topics } => {
                for (key, place) in topics {
                    self.hub.sit(&session, &key, place);
                }
            }
            Command::Barrier { session, threads, reply } => {
                let slots = self.hub.slots_of(session);
                let everywhere = threads.is_empty();
                self.rounds.wait(Waiter { slots, threads, everywhere, reply: Some(reply) });
            }
            Command::GoLive { session, topics, then, reply } => {
                // Membership may have changed while the pages went out.
                for (thread, item) in session.state.snapshot() {
                    if !item.intervals.open() {
                        self.put_right(&session, &thread, &item);
                    }
                }
                let live = self.hub.go_live(session.id, &topics);
                if let Some(frame) = then.filter(|_| live) {
                    session.outbox.push(frame);
                    for (thread, item) in session.state.snapshot() {
                        self.put_right(&session, &thread, &item);
                    }
                }
                // Who does not wait any more is gone.
                let _ = reply.send(live);
            }
            Command::Stand { session, topics } => topics.iter().for_each(|key| self.hub.leave_topic(session, key)),
            Command::Leave { session } => self.hub.leave(session),
        }
    }

    /// Says whether anything waits for a fetch.
    fn note_repairs(&mut self, begun: isize) {
        self.repairs += begun;
        self.live.repairing.store(self.repairs > 0, Relaxed);
    }

    /// Carries out what the hub asked for, then begins a round of heads if somebody waits.
    fn settle(&mut self) {
        for effect in std::mem::take(&mut self.hub.effects) {
            match effect {
                Effect::Subscribe(slot, TopicKey::User(user)) => self.fanin.subscribe(&subjects::live_user_all(&user), Sid(slot)),
                Effect::Subscribe(slot, TopicKey::Group(gid)) => self.fanin.subscribe(&subjects::live_group_all(&gid), Sid(slot)),
                Effect::Unsubscribe(slot) => self.fanin.unsubscribe(Sid(slot)),
                Effect::Fetch { slot, birth, gap } => {
                    metrics::counter!("natterjack_edge_gaps_total").increment(1);
                    self.note_repairs(1);
                    let (history, deadline) = (self.live.history.clone(), self.live.times.attach);
                    self.jobs.spawn(async move {
                        let events = repair::fetch(&history, &gap, deadline).await;
                        Done::Fetched { slot, birth, gap, events }
                    });
                }
                Effect::Changed { user, thread, id } => {
                    let Some(state) = self.live.members.get(&user) else { continue };
                    state.signalled();
                    // Every signal is said twice.
                    if !thread.parse().is_ok_and(|t| state.knows(&t, id)) {
                        self.read_again(user, Some((thread, id)), None);
                    }
                }
                Effect::Cut { user, group } => self.read_again(user, None, Some(group)),
            }
        }
        for ask in self.rounds.begin() {
            self.asked_at = Instant::now();
            self.ask(ask);
        }
    }

    fn ask(&mut self, ask: Ask) {
        let request = Heads { threads: ask.hashes.clone() };
        let payload = rmp_serde::to_vec_named(&request).expect("a list of numbers");
        let token = self.fanin.request(&subjects::heads(self.live.layout.generation, ask.p), &payload);
        self.rounds.asked(token, ask);
    }

    fn done(&mut self, done: Done) {
        if matches!(done, Done::Fetched { .. }) {
            self.note_repairs(-1);
        }
        match done {
            Done::Fetched { slot, birth, gap, events: Ok(events) } => self.hub.repaired(slot, birth, &gap.thread, events),
            Done::Fetched { slot, birth, gap, events: Err(why) } => {
                tracing::warn!(thread = %gap.thread, after = %gap.after, upto = %gap.upto, %why, "a gap cannot be filled: its sessions resume");
                metrics::counter!("natterjack_edge_gaps_given_up_total").increment(1);
                self.hub.give_up(slot, birth);
            }
            Done::Changed { reading, cut } => self.changed(&reading, cut),
            Done::AskAgain(token) => {
                if let Some(ask) = self.rounds.unanswered(token) {
                    self.ask(ask);
                }
            }
            Done::Nothing => {}
        }
    }

    /// The membership of a user changed: tell their devices, begin or end to listen.
    fn changed(&mut self, state: &Arc<UserState>, cut: Option<GroupId>) {
        let user = &state.user;
        let own = TopicKey::User(user.clone());
        let sessions: Vec<Arc<SessionHandle>> = self.hub.sessions_of(&own);
        let untold = state.untold();
        // What was said in a conversation that began while nothing came here (a lost connection, a lost message) is not lost.
        let begun: Vec<_> =
            untold.iter().filter(|(t, ..)| matches!(t, Thread::Dm { .. })).map(|(t, ..)| (own.clone(), t.clone())).collect();
        if !begun.is_empty() && !sessions.is_empty() {
            self.rounds.wait(Waiter { slots: Vec::new(), threads: begun, everywhere: false, reply: None });
        }
        for (thread, item, audible) in &untold {
            if *audible {
                let frame = attach::changes::member(thread, item);
                sessions.iter().for_each(|s| s.frame(&frame));
            }
        }
        let groups: HashSet<Thread> = untold.into_iter().map(|(t, ..)| t).chain(cut.map(|gid| Thread::group(&gid))).collect();
        for thread in groups.into_iter().filter(|t| matches!(t, Thread::Group { .. })) {
            let Some(item) = state.item(&thread) else { continue };
            // Who is still attaching looks when it goes live.
            for session in sessions.iter().filter(|s| !self.hub.filling(s.id, &own)).cloned().collect::<Vec<_>>() {
                self.put_right(&session, &thread, &item);
            }
        }
    }

    /// A session sits on a group's topic as long as its user is in the group.
    fn put_right(&mut self, session: &Arc<SessionHandle>, thread: &Thread, item: &ThreadItem) {
        let Thread::Group { gid } = thread else { return };
        if let Some(until) = item.intervals.0.last().and_then(|i| i.until) {
            self.hub.end(session.id, gid, until);
        } else if item.intervals.open() && !self.hub.sits(session.id, &TopicKey::Group(gid.clone())) {
            let (live, session, thread, item) = (self.live.clone(), session.clone(), thread.clone(), item.clone());
            let joining = session.joins();
            self.jobs.spawn(async move {
                attach::join(&live, &session, &thread, &item).await;
                drop(joining);
                Done::Nothing
            });
        }
    }

    /// Reads a user's key from its leader; `at_least`: it must know this control entry of this thread.
    fn read_again(&mut self, user: UserId, at_least: Option<(String, MsgId)>, cut: Option<GroupId>) {
        let Some(state) = self.live.members.get(&user) else { return };
        state.signalled();
        let (live, reading) = (self.live.clone(), Reading::of(state));
        self.jobs.spawn(async move {
            for attempt in 0..20u32 {
                match attach::read_threads(&live, &user).await {
                    Ok(threads) => {
                        let knows =
                            at_least.as_ref().is_none_or(|(t, id)| threads.threads.iter().any(|(k, i)| i.v >= *id && k.to_string() == *t));
                        reading.load(threads);
                        if knows {
                            break;
                        }
                    }
                    Err(e) => tracing::debug!(%user, error = %e, "threads cannot be read"),
                }
                sleep(Duration::from_millis(50 * u64::from(attempt.min(10) + 1))).await;
            }
            Done::Changed { reading, cut }
        });
    }

    /// After a loss of the connection anything may have been missed, a new thread too.
    fn read_everybody_again(&mut self) {
        for state in self.live.members.all() {
            self.read_again(state.user.clone(), None, None);
        }
        self.sweep_all();
    }

    /// Compares heads of everything that somebody here is in, at once.
    fn sweep_all(&mut self) {
        self.compare(self.live.members.all(), self.hub.active());
    }

    /// Who lost an event and its head may never have heard of the thread, so the sweep goes through all threads of everybody here,
    /// a few users per tick: 18,000 users with 50 threads are seven requests in each.
    fn sweep_some(&mut self) {
        let from = self.unswept.len().saturating_sub(self.per_tick);
        let users = self.unswept.split_off(from);
        self.compare(users.iter().filter_map(|u| self.live.members.get(u)).collect(), Vec::new());
    }

    fn compare(&mut self, users: Vec<Arc<UserState>>, active: Vec<(TopicKey, Thread)>) {
        let of = |s: Arc<UserState>| s.snapshot().into_iter().map(move |(t, _)| (TopicKey::of(&t, &s.user), t)).collect::<Vec<_>>();
        let threads: HashSet<_> = users.into_iter().flat_map(of).chain(active).collect();
        if !threads.is_empty() {
            // Every partition: one that was silent must have answered before it is trusted again.
            self.rounds.wait(Waiter { slots: Vec::new(), threads: threads.into_iter().collect(), everywhere: true, reply: None });
        }
    }

    fn tick(&mut self) {
        self.live.clock.look();
        if self.live.unseen_leaves.swap(false, Relaxed) {
            self.hub.leave_gone();
        }
        let now = Instant::now();
        // A holder that is frozen or has just died took the question with it; its successor answers the next.
        if self.asked_at.elapsed() >= ASK_AGAIN {
            self.asked_at = now;
            for ask in self.rounds.overdue() {
                self.ask(ask);
            }
        }
        if now >= self.next_sweep {
            // Jittered by a quarter, so that edges that started together do not ask together.
            self.next_sweep = now + self.live.times.sweep.mul_f64(rand::rng().random_range(0.75..1.25));
            self.unswept = self.live.members.all().into_iter().map(|s| s.user.clone()).collect();
            // In the same order each time, so that nobody waits for nearly two sweeps.
            self.unswept.sort_unstable();
            let ticks = self.live.times.sweep.mul_f64(0.75).div_duration_f64(TICK).max(1.0);
            self.per_tick = ((self.unswept.len() as f64 / ticks).ceil() as usize).max(1);
            self.compare(Vec::new(), self.hub.active());
        }
        if !self.unswept.is_empty() {
            self.sweep_some();
        }
        if self.snapshots.back().is_none_or(|(at, _)| at.elapsed() >= SNAPSHOT) {
            let frontier = (0..self.live.layout.partitions).map(|p| self.live.clock.frontier(p).unwrap_or_default()).collect();
            self.snapshots.push_back((now, frontier));
            let old = self.live.times.horizon + self.live.times.sweep;
            while self.snapshots.len() > 1 && self.snapshots[1].0.elapsed() >= old {
                self.snapshots.pop_front();
            }
            if let Some((at, frontier)) = self.snapshots.front()
                && at.elapsed() >= old
            {
                self.hub.forget_below(frontier);
            }
            metrics::gauge!("natterjack_edge_topics").set(self.hub.topics() as f64);
        }
    }
}
