//! What is asked for on slow lines, with the largest content: thread lists and pages over the socket in either codec
//! and over HTTP, and polls, at every edge.

use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use natterjack_protocol::{
    Event, MsgId, Thread,
    client::frame::{ClientFrame, HistoryQuery, Page, ServerFrame, ThreadsQuery},
    limits, size,
};
use natterjack_testkit::{Proxy, within};
use natterjack_tests::kit::{Api, Cluster, Poller, User};

use super::sizes::{PAGE, Reader};

type All = BTreeMap<Thread, Vec<MsgId>>;

/// A part of the thread list: its size, its threads, and where it goes on.
struct Listed(usize, Vec<Thread>, Option<u64>);

/// Either way to ask.
trait Asked {
    async fn threads(&mut self, limit: usize, before: Option<u64>) -> Listed;
    /// Its size, and the page.
    async fn page(&mut self, history: HistoryQuery) -> (usize, Page);
}

struct Socket<'a>(&'a mut Reader, Duration);

impl Asked for Socket<'_> {
    async fn threads(&mut self, limit: usize, before: Option<u64>) -> Listed {
        let (limit, before) = (Some(limit as u16), before.map(MsgId));
        let answer = self
            .0
            .ask(self.1, |r| ClientFrame::Threads(ThreadsQuery { r, limit, before, ..ThreadsQuery::default() }))
            .await;
        let ServerFrame::Threads { threads, next, .. } = &answer else { panic!("a list was asked for: {answer:?}") };
        Listed(size::json(&answer), threads.iter().map(|t| t.thread.clone()).collect(), next.map(|n| n.0))
    }

    async fn page(&mut self, history: HistoryQuery) -> (usize, Page) {
        let answer = self.0.ask(self.1, |r| ClientFrame::History(HistoryQuery { r, ..history })).await;
        let bytes = size::json(&answer);
        let ServerFrame::Page(page) = answer else { panic!("a page was asked for: {answer:?}") };
        (bytes, page)
    }
}

impl Asked for Api {
    async fn threads(&mut self, limit: usize, before: Option<u64>) -> Listed {
        let before = before.map(|b| format!("&before={b}")).unwrap_or_default();
        let (status, list) = self.get(&format!("/v1/threads?limit={limit}{before}")).await;
        assert_eq!(status, 200, "{list}");
        let threads =
            list["threads"].as_array().unwrap().iter().map(|t| t["thread"].as_str().unwrap().parse().unwrap());
        Listed(list.to_string().len(), threads.collect(), list["next"].as_u64())
    }

    async fn page(&mut self, asked: HistoryQuery) -> (usize, Page) {
        let place =
            [("before", asked.before), ("after", asked.after), ("around", asked.around), ("at", asked.at.map(MsgId))];
        let place: String = place.iter().filter_map(|(name, id)| Some(format!("&{name}={}", (*id)?))).collect();
        let (status, page) = self
            .get(&format!("/v1/threads/{}/messages?limit={}{place}", asked.thread.unwrap(), asked.limit.unwrap()))
            .await;
        assert_eq!(status, 200, "{page}");
        (page.to_string().len(), serde_json::from_value(page).unwrap())
    }
}

/// The whole list by the largest pages, and its beginning one by one.
async fn lists(asker: &mut impl Asked, all: &All) {
    for limit in [1, limits::PAGE_MAX] {
        let (mut listed, mut next) = (Vec::new(), None);
        while limit > 1 || listed.len() < 4 {
            let Listed(bytes, threads, more) = asker.threads(limit, next).await;
            assert!(bytes < PAGE, "a list of {bytes} bytes");
            listed.extend(threads);
            next = more;
            if next.is_none() {
                break;
            }
        }
        let once: HashSet<&Thread> = listed.iter().collect();
        assert_eq!(once.len(), listed.len(), "no thread is listed twice");
        assert!(limit == 1 || all.keys().all(|t| once.contains(t)), "every thread is listed");
    }
}

/// The whole conversation downwards, and a page of each other kind.
async fn pages(asker: &mut impl Asked, dm: &Thread, all: &All) {
    let ask =
        HistoryQuery { thread: Some(dm.clone()), limit: Some(limits::PAGE_MAX as u16), ..HistoryQuery::default() };
    let (mut events, mut before) = (Vec::<Event>::new(), None);
    loop {
        let (bytes, page) = asker.page(HistoryQuery { before, ..ask.clone() }).await;
        assert!(bytes < PAGE && page.holes.is_empty(), "a page of {bytes} bytes with holes {:?}", page.holes);
        before = page.events.first().map(|e| e.id);
        events.splice(0..0, page.events);
        if page.prev.is_none() {
            break;
        }
    }
    let ids: Vec<MsgId> = events.iter().filter(|e| !e.kind.is_control()).map(|e| e.id).collect();
    assert_eq!(ids, all[dm]);
    let middle = &events[events.len() / 2];
    let (around, after, at) = (
        HistoryQuery { around: Some(middle.id), ..ask.clone() },
        HistoryQuery { after: Some(middle.id), ..ask.clone() },
        HistoryQuery { at: Some(middle.ts), ..ask },
    );
    // What was stored as one batch has one time.
    let earliest = events.iter().find(|e| e.ts >= middle.ts).expect("itself at least").id;
    for (asked, has) in [(around, middle.id), (after, events[events.len() / 2 + 1].id), (at, earliest)] {
        let (bytes, page) = asker.page(asked.clone()).await;
        assert!(
            bytes < PAGE && page.holes.is_empty() && page.more,
            "a page of {bytes} bytes with holes {:?}",
            page.holes
        );
        assert!(page.events.iter().any(|e| e.id == has), "{has} is not in the page of {asked:?}");
    }
}

/// By a device that has nothing yet.
async fn polls(mut poller: Poller, dm: &Thread, all: &All) {
    let all_of = |p: &Poller| all.iter().all(|(t, ids)| t == dm || p.messages(t) == *ids);
    while !all_of(&poller) || poller.synced.is_none() {
        let answer = poller.poll(0).await.expect("an answer");
        assert!(answer.to_string().len() < limits::POLL_BYTES + 2 * PAGE);
    }
}

async fn timed(what: &str, work: impl Future<Output = ()>) {
    let began = Instant::now();
    work.await;
    eprintln!("{what}: {:?}", began.elapsed());
}

/// All of it beside each other: the sockets, and over `lines`, one to each edge, HTTP and polls.
pub async fn for_everything(
    cluster: &Cluster,
    readers: &mut [Reader],
    lines: &[Proxy],
    (alice, dm, all): (&User, &Thread, &All),
    limit: Duration,
) {
    let sockets = readers.iter_mut().map(async |reader| {
        let mut socket = Socket(reader, limit);
        timed("lists over a socket", lists(&mut socket, all)).await;
        timed("pages over a socket", pages(&mut socket, dm, all)).await;
    });
    let over = |line: &Proxy, user: &User| Api::new(line.addr(), Some(user.tokens.access.clone())).patient(limit);
    let http = lines.iter().map(async |line| {
        let mut api = over(line, alice);
        timed("lists over HTTP", lists(&mut api, all)).await;
        timed("pages over HTTP", pages(&mut api, dm, all)).await;
    });
    let polled = lines.iter().enumerate().map(async |(n, line)| {
        let user = cluster.other_device(alice, &format!("d-poll-{n}"));
        let api = over(line, &user);
        timed("polls", polls(Poller::over(&user, [api]), dm, all)).await;
    });
    within("all that is asked for", limit, async { tokio::join!(join_all(sockets), join_all(http), join_all(polled)) })
        .await;
}
