//! Every answer of `history` with the largest content there is: from the archive, from the log, and from both.

use futures_util::future::join_all;
use natterjack_protocol::{Body, Event, Kind, MsgId, Thread, internal::rpc::PageStart, limits, size};

use super::kit::*;

const MESSAGES: u64 = 48;
/// The largest event: 10,000 characters that JSON spells with six bytes each, and the rest.
const EVENT: usize = 6 * limits::TEXT_CHARS + 500;

/// Texts of four bytes a character, of control characters, and bytes.
fn large(n: u64) -> (Kind, Body) {
    match n % 3 {
        0 => (Kind::Text, Body::text("\u{1F600}".repeat(limits::TEXT_CHARS))),
        1 => (Kind::Text, Body::text("\0".repeat(limits::TEXT_CHARS))),
        _ => (Kind::Custom, Body { data: Some(vec![0xa5; limits::CUSTOM_BYTES].into()), ..Body::default() }),
    }
}

async fn say_all(w: &World, t: &Thread, numbers: std::ops::Range<u64>) -> Vec<MsgId> {
    let mut sent = Vec::new();
    for n in numbers {
        let (kind, body) = large(n);
        sent.push(w.send(t, "a", kind, body).await);
    }
    sent
}

fn bounded(what: &str, events: &[Event], most: usize) {
    assert!(!events.is_empty(), "{what}: nothing");
    let bytes = size::json(events);
    assert!(bytes < most + EVENT, "{what}: {bytes} bytes");
}

async fn every_answer(w: &World, t: &Thread, sent: &[MsgId]) {
    let (mut down, mut at) = (Vec::new(), PageStart::Newest);
    loop {
        let page = w.page(t, at, 200).await;
        bounded("down", &page.events, limits::PAGE_BYTES);
        assert!(page.holes.is_empty());
        down.splice(0..0, ids(&page.events));
        if page.prev.is_none() {
            break;
        }
        at = PageStart::Before(page.prev.next());
    }
    assert_eq!(down, sent);
    let (mut up, mut at) = (Vec::new(), PageStart::After(MsgId::NONE));
    loop {
        let page = w.page(t, at, 200).await;
        bounded("up", &page.events, limits::PAGE_BYTES);
        up.extend(ids(&page.events));
        if !page.more {
            break;
        }
        at = PageStart::After(up[up.len() - 1]);
    }
    assert_eq!(up, sent);
    for id in sent.iter().step_by(7) {
        let page = w.page(t, PageStart::Around(*id), 200).await;
        bounded("around", &page.events, limits::PAGE_BYTES);
        assert!(ids(&page.events).contains(id));
    }
    let (mut all, last) = (Vec::new(), sent[sent.len() - 1]);
    while all.last() != Some(&last) {
        let after = all.last().copied().unwrap_or_default();
        let (events, complete) = w.between(t, after, last, 1_000).await.unwrap();
        bounded("between", &events, limits::ANSWER_BYTES);
        all.extend(ids(&events));
        assert_eq!(complete, all.last() == Some(&last));
    }
    assert_eq!(all, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_fits_with_the_largest_content() {
    let w = World::new().await;
    let t: Thread = "dm.a.b".parse().unwrap();
    let mut sent = say_all(&w, &t, 0..MESSAGES / 2).await;
    // The log alone.
    every_answer(&w, &t, &sent).await;
    let archive = w.archive("one");
    w.archived(&t, sent[sent.len() - 1]).await;
    drop(archive);
    sent.extend(say_all(&w, &t, MESSAGES / 2..MESSAGES).await);
    // Half of each.
    every_answer(&w, &t, &sent).await;
    let _archive = w.archive("two");
    w.archived(&t, sent[sent.len() - 1]).await;
    every_answer(&w, &t, &sent).await;

    // A list of as many threads as can be asked about, each with such a message.
    let threads: Vec<Thread> = (0..60).map(|n| group(&format!("g{n}"))).collect();
    let last = join_all(threads.iter().zip(0..).map(|(t, n)| say_all(&w, t, n..n + 1))).await;
    let mut shown = Vec::new();
    while shown.len() < threads.len() {
        let rest: Vec<&Thread> = threads[shown.len()..].iter().collect();
        let latest: Vec<Event> = w.latest("reader", &rest).await.into_iter().map(Option::unwrap).collect();
        bounded("latest", &latest, limits::ANSWER_BYTES);
        shown.extend(ids(&latest));
    }
    assert_eq!(shown, last.concat());
}

/// What an edit makes larger is counted as it is shown, in every kind of answer: with a tail that is read whole, and
/// with one whose texts are too many for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_count() {
    let w = World::new().await;
    for (name, count) in [("dm.a.b", 30), ("dm.a.c", 70)] {
        edits_of(&w, &name.parse().unwrap(), count).await;
    }
}

async fn edits_of(w: &World, t: &Thread, count: usize) {
    let mut sent = Vec::new();
    for _ in 0..count {
        sent.push(w.say(t, "a", "x").await);
    }
    let (first, last) = (sent[0], sent[count - 1]);
    let archive = w.archive(&t.to_string());
    w.archived(t, last).await;
    drop(archive);
    let long = "\0".repeat(limits::TEXT_CHARS);
    for id in &sent {
        w.send(t, "a", Kind::Edit, on(*id, Some(&long))).await;
    }
    let check = |what: &str, events: &[Event], most: usize| {
        bounded(what, events, most);
        assert!(events.iter().all(|e| e.body.text.as_deref() == Some(&long)), "{what}");
    };
    let (mut down, mut at) = (Vec::new(), PageStart::Before(last.next()));
    loop {
        let page = w.page(t, at, 200).await;
        check("down", &page.events, limits::PAGE_BYTES);
        down.splice(0..0, ids(&page.events));
        if page.prev.is_none() {
            break;
        }
        at = PageStart::Before(page.prev.next());
    }
    assert_eq!(down, sent);
    let mut up = vec![first];
    while up[up.len() - 1] < last {
        let page = w.page(t, PageStart::After(up[up.len() - 1]), 200).await;
        check("up", &page.events, limits::PAGE_BYTES);
        assert_eq!((page.prev, page.more), (up[up.len() - 1], true));
        up.extend(ids(&page.events));
    }
    assert_eq!(up[..count], sent);
    let mut all = vec![first];
    while all[all.len() - 1] < last {
        let (events, complete) = w.between(t, all[all.len() - 1], last, 1_000).await.unwrap();
        check("between", &events, limits::ANSWER_BYTES);
        all.extend(ids(&events));
        assert_eq!(complete, all.last() == Some(&last));
    }
    assert_eq!(all, sent);
}
