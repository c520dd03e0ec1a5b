//! A model of an edge with a log; whatever is lost, doubled, cut short or answered late, the app sees the log's order
//! exactly once.

use std::collections::BTreeMap;

use natterjack_protocol::Code;
use proptest::prelude::*;

use super::*;
use crate::chain::tests::{FILL, event};

const PAGE: usize = 4;

fn threads() -> Vec<Thread> {
    ["dm.a.b", "dm.a.c", "group.g"].map(|t| t.parse().unwrap()).to_vec()
}

/// The log as this reader may see it, with ids of hidden entries between.
#[derive(Default)]
struct Edge {
    log: BTreeMap<Thread, Vec<Event>>,
    hidden: BTreeMap<Thread, u64>,
    next: u64,
    frontier: u64,
}

impl Edge {
    fn append(&mut self, thread: &Thread, visible: bool) -> Option<Event> {
        self.next += 1;
        self.frontier = self.next;
        let last_hidden = self.hidden.get(thread).copied().unwrap_or(0);
        let prev = self.log.get(thread).and_then(|l| l.last()).map_or(0, |e| e.id.0).max(last_hidden);
        if !visible {
            self.hidden.insert(thread.clone(), self.next);
            return None;
        }
        let e = event(thread, self.next, prev);
        self.log.entry(thread.clone()).or_default().push(e.clone());
        Some(e)
    }

    fn slice(&self, thread: &Thread, from: usize, to: usize) -> Page {
        let all = self.log.get(thread).map_or(&[][..], |v| v);
        let prev = if from == 0 { MsgId::NONE } else { all[from - 1].id };
        Page {
            thread: Some(thread.clone()),
            events: all[from..to].to_vec(),
            prev,
            more: to < all.len(),
            ..Page::default()
        }
    }

    fn newest(&self, thread: &Thread) -> Page {
        let n = self.log.get(thread).map_or(0, Vec::len);
        self.slice(thread, n.saturating_sub(PAGE), n)
    }

    fn page(&self, thread: &Thread, want: Want) -> Page {
        let all = self.log.get(thread).map_or(&[][..], |v| v);
        match want {
            Want::Newest => self.newest(thread),
            Want::Before(id) => {
                let to = all.partition_point(|e| e.id < id);
                self.slice(thread, to.saturating_sub(PAGE), to)
            }
            Want::After(id) => {
                let from = all.partition_point(|e| e.id <= id);
                self.slice(thread, from, (from + PAGE).min(all.len()))
            }
        }
    }

    fn pages_for(&self, cursors: &BTreeMap<Thread, MsgId>, known_only: bool) -> Vec<Page> {
        let news = self.log.iter().filter(|(t, log)| match cursors.get(*t) {
            Some(c) => log.last().is_some_and(|e| e.id > *c),
            None => !known_only,
        });
        news.map(|(t, _)| self.newest(t)).collect()
    }
}

/// The client's side: a connection with questions under way.
struct Device {
    resume: Resume,
    seen: BTreeMap<Thread, Vec<u64>>,
    under_way: Vec<Ask>,
    stored: (BTreeMap<Thread, MsgId>, Option<SyncPoint>),
    now: Instant,
}

impl Device {
    fn resume(
        cursors: impl IntoIterator<Item = (Thread, Cursor)>,
        synced: Option<SyncPoint>,
        most_waiting: usize,
    ) -> Resume {
        Resume { most_waiting, ..Resume::new(cursors, synced, FILL) }
    }

    fn drain(&mut self) {
        while let Some(out) = self.resume.next_out() {
            match out {
                Out::Event(e) => {
                    self.seen.entry(e.thread.clone()).or_default().push(e.id.0);
                    self.stored.0.insert(e.thread.clone(), e.id);
                }
                Out::Skipped { .. } => panic!("nothing is skipped below the policy"),
                Out::Synced(s) => self.stored.1 = Some(s),
            }
        }
        self.now += Duration::from_millis(500);
        while let Some(ask) = self.resume.ask(self.now) {
            self.under_way.push(ask);
        }
    }

    fn connect(&mut self, edge: &Edge) {
        let (said, _) = self.resume.hello();
        self.under_way.clear();
        self.resume.connected(&said);
        for page in edge.pages_for(&said, false) {
            self.resume.newest(page, self.now);
        }
        self.resume.synced(edge.frontier.to_string(), 1_000_000 + edge.frontier);
        self.drain();
    }

    /// Answers one question; `trouble` makes it a refusal or a page with a hole.
    fn answer(&mut self, edge: &Edge, which: usize, trouble: u8) {
        if self.under_way.is_empty() {
            return;
        }
        let now = self.now;
        match self.under_way.swap_remove(which % self.under_way.len()) {
            Ask::Sync(_) if trouble == 1 => self.resume.sync_refused(&Refusal::unavailable(""), now, 0.5),
            Ask::Sync(cursors) => {
                for page in edge.pages_for(&cursors, true) {
                    self.resume.newest(page, now);
                }
                self.resume.sync_done();
            }
            Ask::Page { thread, .. } if trouble == 1 => {
                self.resume.page_refused(thread, &Refusal::unavailable(""), now, 0.5)
            }
            Ask::Page { thread, want } => {
                let mut page = edge.page(&thread, want);
                if trouble == 2 && page.events.len() > 1 {
                    let lost = page.events.remove(page.events.len() / 2);
                    page.holes.push((lost.id, lost.id));
                }
                self.resume.page(thread, page, now);
            }
        }
        self.drain();
    }
}

#[derive(Debug, Clone)]
enum Action {
    /// Thread, visible, delivered live, delivered twice.
    Append(usize, bool, bool, bool),
    Answer(usize, u8),
    Reconnect,
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0usize..3, prop::bool::weighted(0.8), prop::bool::weighted(0.7), prop::bool::weighted(0.1))
            .prop_map(|(t, v, l, d)| Action::Append(t, v, l, d)),
        3 => (0usize..8, 0u8..3).prop_map(|(w, t)| Action::Answer(w, t)),
        1 => Just(Action::Reconnect),
        1 => Just(Action::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_app_sees_the_logs_order_exactly_once(
        actions in prop::collection::vec(action(), 1..120),
        most in prop::sample::select(vec![0, 900, 1 << 20]),
    ) {
        let mut edge = Edge::default();
        let mut device = Device {
            resume: Device::resume([], None, most),
            seen: BTreeMap::new(),
            under_way: Vec::new(),
            stored: Default::default(),
            now: Instant::now(),
        };
        device.connect(&edge);
        for action in actions {
            match action {
                Action::Append(t, visible, live, twice) => {
                    if let Some(e) = edge.append(&threads()[t], visible) {
                        // The edge never loses the first event of a thread: for that one nothing would name a
                        // predecessor here.
                        let first = !device.seen.contains_key(&e.thread);
                        for _ in 0..usize::from(live || first) + usize::from(twice) {
                            device.resume.live(e.clone(), device.now);
                        }
                        device.drain();
                    }
                }
                Action::Answer(which, trouble) => device.answer(&edge, which, trouble),
                Action::Reconnect => device.connect(&edge),
                Action::Restart => {
                    let (cursors, synced) = device.stored.clone();
                    let cursors = cursors.into_iter().map(|(t, id)| (t, Cursor { id, ts: id.0 }));
                    device.resume = Device::resume(cursors, synced, most);
                    device.connect(&edge);
                }
            }
        }
        device.connect(&edge);
        for _ in 0..10_000 {
            device.now += Duration::from_secs(2);
            device.drain();
            if device.under_way.is_empty() {
                break;
            }
            device.answer(&edge, 0, 0);
        }
        prop_assert!(device.resume.is_whole());
        for (thread, log) in &edge.log {
            let all: Vec<u64> = log.iter().map(|e| e.id.0).collect();
            prop_assert_eq!(device.seen.get(thread), Some(&all), "{}", thread);
        }
    }
}

/// 1,000 threads of which each has a page of the longest messages that does not reach its cursor.
#[test]
fn what_waits_of_all_threads_is_bounded() {
    let thread = |n: u64| format!("group.g{n}").parse::<Thread>().unwrap();
    let fill = Most { count: 10_000, bytes: 500_000 };
    let mut r = Resume::new((0..1_000).map(|n| (thread(n), Cursor { id: MsgId(5), ts: n })), None, fill);
    let long = |n| Event { body: natterjack_protocol::Body::text("\0".repeat(10_000)), ..event(&thread(n), 90, 80) };
    let page = |n, prev| Page { thread: Some(thread(n)), events: vec![long(n)], prev: MsgId(prev), ..Page::default() };
    let now = Instant::now();
    for n in 0..1_000 {
        r.newest(page(n, 80), now);
    }
    assert!(r.waiting() < ASKS * fill.bytes + 62_000, "{}", r.waiting());
    // All of them come to their end all the same, also those whose pages were let go.
    let mut again = 0;
    while let Some(Ask::Page { thread: t, want }) = r.ask(now) {
        let n = t.to_string().trim_start_matches("group.g").parse().unwrap();
        again += usize::from(want == Want::Newest);
        let answer =
            if want == Want::Newest { page(n, 80) } else { Page { thread: Some(t.clone()), ..Page::default() } };
        r.page(t, answer, now);
    }
    assert!(r.is_whole() && again > 900, "{again}");
    let got = std::iter::from_fn(|| r.next_out()).filter(|out| matches!(out, Out::Event(_))).count();
    assert_eq!(got, 1_000);
}

#[test]
fn more_cursors_than_a_hello_takes_are_said_by_sync_and_synced_waits_for_it() {
    // Of two partitions: those with the small ids were active last.
    let cursor = |n: u64| Cursor { id: MsgId(if n > 2_000 { n } else { n << 40 }), ts: n };
    let cursors = (1..=2_500u64).map(|n| (format!("group.g{n}").parse().unwrap(), cursor(n)));
    let mut r = Resume::new(cursors, None, FILL);
    let (said, _) = r.hello();
    assert_eq!(said.len(), CURSORS_PER_HELLO);
    let latest = (1_501..=2_500u64).map(|n| (format!("group.g{n}").parse().unwrap(), cursor(n).id)).collect();
    assert_eq!(said, latest, "of the threads that were active last, whatever their ids");
    r.connected(&said);
    r.synced("s1".into(), 7);
    let now = Instant::now();
    let mut synced_threads = 0;
    while let Some(Ask::Sync(cursors)) = r.ask(now) {
        assert!(r.next_out().is_none(), "not in sync before all is said");
        assert!(r.ask(now).is_none(), "one at a time");
        synced_threads += cursors.len();
        r.sync_done();
    }
    assert_eq!(synced_threads, 1_500);
    assert_eq!(r.next_out(), Some(Out::Synced(SyncPoint { mark: "s1".into(), at_ms: 7 })));
}

#[test]
fn at_most_eight_threads_are_filled_at_a_time() {
    let mut r = Resume::new(
        (1..=20u64).map(|n| (format!("group.g{n}").parse().unwrap(), Cursor { id: MsgId(n), ts: n })),
        None,
        FILL,
    );
    let (said, _) = r.hello();
    r.connected(&said);
    let now = Instant::now();
    for n in 1..=20u64 {
        let thread: Thread = format!("group.g{n}").parse().unwrap();
        r.live(event(&thread, 1_000, 900), now);
    }
    assert_eq!(std::iter::from_fn(|| r.ask(now)).count(), ASKS);
    r.page("group.g1".parse().unwrap(), Page::default(), now);
    assert_eq!(std::iter::from_fn(|| r.ask(now)).count(), 1);
    r.page_refused("group.g2".parse().unwrap(), &Refusal::new(Code::NotMember, ""), now, 0.0);
    assert_eq!(std::iter::from_fn(|| r.next_out()).count(), 2, "both gave out what they held");
}

#[test]
fn an_incomplete_attach_is_asked_again_and_is_no_sync() {
    let thread: Thread = "dm.a.b".parse().unwrap();
    let mut r = Resume::new([(thread.clone(), Cursor { id: MsgId(5), ts: 5 })], None, FILL);
    let (said, _) = r.hello();
    r.connected(&said);
    let now = Instant::now();
    r.incomplete(now);
    assert!(r.ask(now).is_none() && !r.is_whole());
    let due = r.due().unwrap();
    assert_eq!(r.ask(due), Some(Ask::Sync([(thread, MsgId(5))].into())));
    r.sync_refused(&Refusal::unavailable(""), due, 0.0);
    assert!(r.ask(due).is_none());
    assert!(matches!(r.ask(r.due().unwrap()), Some(Ask::Sync(_))));
    r.sync_done();
    assert!(r.is_whole() && r.next_out().is_none());
}

/// Edge: "the page of this thread cannot be read", then live events that lie behind it; the thread is new to this
/// device.
#[test]
fn what_follows_a_page_that_could_not_be_read_waits_for_it() {
    let thread: Thread = "dm.a.b".parse().unwrap();
    let mut r = Resume::new([], None, FILL);
    let (said, _) = r.hello();
    r.connected(&said);
    let now = Instant::now();
    r.page_missing(&Refusal::unavailable("").with_thread(&thread), now, 0.0);
    r.page_missing(&Refusal::unavailable("").with_thread(&thread), now, 0.0);
    r.live(event(&thread, 30, 20), now);
    r.synced("s1".into(), 7);
    assert!(r.next_out().is_none() && r.ask(now).is_none() && !r.is_whole());
    let due = r.due().unwrap();
    assert_eq!(r.ask(due), Some(Ask::Page { thread: thread.clone(), want: Want::Newest }));
    assert!(r.ask(due).is_none());
    let events = [(10, 0), (20, 10), (30, 20)].map(|(id, prev)| event(&thread, id, prev)).to_vec();
    r.page(thread.clone(), Page { thread: Some(thread), events, ..Page::default() }, due);
    let ids: Vec<_> = std::iter::from_fn(|| r.next_out())
        .filter_map(|o| if let Out::Event(e) = o { Some(e.id.0) } else { None })
        .collect();
    assert_eq!(ids, [10, 20, 30]);
    assert!(r.is_whole());
}
