//! Pages over archive and log: right after the ack, around the watermark, over edits and recalls in the log's tail,
//! from a very long tail.

use std::time::Duration;

use futures_util::future::join_all;
use natterjack_protocol::{
    Body, Kind, MsgId,
    internal::rpc::{AskedThread, HeardOf, HistoryAnswer, HistoryRequest, PageStart, ReadAccess},
    log::{Interval, Intervals, Role},
};
use tokio::time::{Instant, sleep};

use super::{kit::*, later::members};

/// P1: from the ack on, a message is in every page; while the archive is killed and started again all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_your_acks_around_the_watermark() {
    let w = World::new().await;
    let threads: Vec<_> = ["dm.a.b", "group.g1", "group.g2"].iter().map(|t| t.parse().unwrap()).collect();
    let churn = async {
        for i in 0.. {
            let archive = w.archive(if i % 2 == 0 { "one" } else { "two" });
            // Before, while and after the archive fetches, which it does every 100 ms.
            sleep(Duration::from_millis(i * 37 % 190)).await;
            drop(archive);
        }
    };
    let talk = async {
        let until = Instant::now() + Duration::from_secs(6);
        let mut sent: Vec<Vec<MsgId>> = vec![Vec::new(); threads.len()];
        // On a slow machine longer, until there is enough to judge by.
        while Instant::now() < until || sent.iter().any(|s| s.len() <= 30) {
            for (thread, sent) in threads.iter().zip(&mut sent) {
                let id = w.say(thread, "a", "x").await;
                sent.push(id);
                let newest = w.page(thread, PageStart::Newest, 20).await;
                let want = &sent[sent.len().saturating_sub(20)..];
                assert_eq!(ids(&newest.events), want);
                assert_eq!(newest.prev, if sent.len() > 20 { sent[sent.len() - 21] } else { MsgId::NONE });
                assert!(newest.holes.is_empty() && !newest.more);
                let from = sent[sent.len() * 2 / 3].0 - 1;
                let after = w.page(thread, PageStart::After(MsgId(from)), 200).await;
                let want: Vec<_> = sent.iter().copied().filter(|i| i.0 > from).take(200).collect();
                assert_eq!(ids(&after.events), want);
                let (events, complete) = w.between(thread, want[0], id, 200).await.unwrap();
                assert!(complete || want.len() > 200);
                assert_eq!(ids(&events), want[1..]);
            }
        }
        sent
    };
    let sent = tokio::select! {
        sent = talk => sent,
        () = churn => unreachable!("it goes on for ever"),
    };
    let _archive = w.archive("last");
    for (thread, sent) in threads.iter().zip(&sent) {
        w.archived(thread, sent[sent.len() - 1]).await;
        assert_eq!(w.last_ids(&[thread]).await, sent[sent.len() - 1..]);
        let mut down = Vec::new();
        let mut page = w.page(thread, PageStart::Newest, 7).await;
        loop {
            down.splice(0..0, ids(&page.events));
            if page.prev.is_none() {
                break;
            }
            page = w.page(thread, PageStart::Before(page.prev.next()), 7).await;
        }
        assert_eq!(&down, sent, "scrolled all the way up, nothing missing, nothing twice");
    }
}

/// What is in the log's tail is laid over the page exactly as the archive will do it.
#[tokio::test]
async fn a_page_is_the_same_before_and_after_it_is_archived() {
    let w = World::new().await;
    let t = group("g");
    let members = |users: &[&str]| Body {
        users: users.iter().map(|u| user(u)).collect(),
        name: Some("g".into()),
        ..Body::default()
    };
    let first = w.archive("first");
    w.send(&t, "owner", Kind::GroupCreated, members(&["a", "b"])).await;
    let edited = w.say(&t, "a", "one").await;
    let recalled = w.say(&t, "a", "secret").await;
    let by_admin = w.say(&t, "a", "rude").await;
    let kept = w.say(&t, "a", "kept").await;
    w.archived(&t, kept).await;
    drop(first);

    w.send(&t, "a", Kind::Edit, on(edited, Some("uno"))).await;
    w.send(&t, "b", Kind::Edit, on(kept, Some("hijacked"))).await;
    w.send(&t, "a", Kind::Edit, on(recalled, Some("secret, too"))).await;
    w.send(&t, "b", Kind::Recall, on(kept, None)).await;
    w.send(&t, "a", Kind::Recall, on(recalled, None)).await;
    w.send(&t, "owner", Kind::RoleChanged, Body { role: Some(Role::Admin), ..members(&["b"]) }).await;
    w.send(&t, "b", Kind::Recall, on(by_admin, None)).await;
    let in_tail = w.say(&t, "b", "in the tail").await;
    let last = w.send(&t, "b", Kind::Edit, on(in_tail, Some("changed in the tail"))).await;
    // Of the same partition: in another one it might have the id of a message here.
    let other =
        (0..).map(|n| group(&format!("other{n}"))).find(|g| w.layout.partition(g) == w.layout.partition(&t)).unwrap();
    let elsewhere = w.say(&other, "a", "elsewhere").await;
    let messages = async || {
        for id in [edited, recalled, by_admin, kept, in_tail] {
            assert_eq!(w.is_message(&t, id).await, Ok(true), "{id}, recalled or not");
        }
        // A change of the group, an operation, of another thread, of the future, of nobody.
        for id in [MsgId(edited.0 - 1), last, elsewhere, elsewhere.next(), MsgId(1), MsgId((1 << 53) - 1)] {
            assert_eq!(w.is_message(&t, id).await, Ok(false), "{id}");
        }
    };
    messages().await;

    let before = w.page(&t, PageStart::Newest, 50).await;
    let text = |id: MsgId| {
        before.events.iter().find(|e| e.id == id).map(|e| (e.kind, e.body.text.clone().unwrap_or_default()))
    };
    assert_eq!(text(edited), Some((Kind::Text, "uno".into())));
    assert_eq!(text(kept), Some((Kind::Text, "kept".into())));
    assert_eq!(text(recalled), Some((Kind::Recall, String::new())));
    assert_eq!(text(by_admin), Some((Kind::Recall, String::new())));
    assert_eq!(text(in_tail), Some((Kind::Text, "changed in the tail".into())));
    assert!(!format!("{before:?}").contains("secret"));
    // Neither a change of the group, nor an operation, nor what was taken back.
    assert_eq!(w.unread("reader", &t, MsgId::NONE).await, Some(3), "edited, kept, in the tail");
    assert_eq!(w.unread("b", &t, MsgId::NONE).await, Some(2), "not their own");
    assert_eq!((w.unread("a", &t, kept).await, w.unread("a", &t, in_tail).await), (Some(1), Some(0)));
    let latest = w.latest("a", &[&t]).await;
    assert_eq!(
        latest[0].as_ref().map(|e| (e.id, e.body.text.as_deref())),
        Some((in_tail, Some("changed in the tail")))
    );
    assert!(latest[0].as_ref().is_some_and(|e| e.prev.is_none()), "for showing: no part of a chain");

    let _second = w.archive("second");
    w.archived(&t, last).await;
    messages().await;
    assert_eq!(w.page(&t, PageStart::Newest, 50).await, before);
    assert_eq!(w.latest("a", &[&t]).await, latest);
}

/// The channel service is away and its fold behind, so the asker does not know yet that the reader was removed.
#[tokio::test]
async fn a_page_ends_where_the_log_ends_the_membership() {
    let w = World::new().await;
    let t = group("g");
    let members = |users: &[&str]| Body {
        users: users.iter().map(|u| user(u)).collect(),
        name: Some("g".into()),
        ..Body::default()
    };
    let created = w.send(&t, "owner", Kind::GroupCreated, members(&["m", "n"])).await;
    w.send(&t, "owner", Kind::MemberRemoved, members(&["n"])).await;
    let before = w.say(&t, "owner", "before").await;
    w.send(&t, "owner", Kind::MemberRemoved, members(&["m"])).await;
    w.say(&t, "owner", "not for m").await;
    w.send(&t, "owner", Kind::MemberAdded, members(&["m"])).await;
    let last = w.say(&t, "owner", "for m again, as soon as it is folded").await;
    let access = ReadAccess { intervals: Intervals(vec![Interval { since: created, until: None }]), v: created };
    for archived in [false, true] {
        let _archive = archived.then(|| w.archive("one"));
        if archived {
            w.archived(&t, last).await;
        }
        let ask = |at| HistoryRequest::Page {
            thread: t.clone(),
            reader: user("m"),
            access: access.clone(),
            at,
            limit: 50,
            min_id: last,
        };
        let HistoryAnswer::Page(newest) = w.ask(&ask(PageStart::Newest)).await.unwrap() else {
            panic!("a page was asked for")
        };
        assert_eq!(newest.events.last().map(|e| e.id), Some(before));
        let HistoryAnswer::Page(after) = w.ask(&ask(PageStart::After(before))).await.unwrap() else {
            panic!("a page was asked for")
        };
        assert!(after.events.is_empty() && !after.more);
        let latest = HistoryRequest::Latest {
            reader: user("m"),
            threads: vec![AskedThread { thread: t.clone(), access: access.clone(), read: None, heard: None }],
        };
        let HistoryAnswer::Latest(latest) = w.ask(&latest).await.unwrap() else { panic!("the latest was asked for") };
        assert_eq!(latest[0].last.as_ref().map(|e| e.id), Some(before));
    }
}

/// An edge to which a thread's events come asks for what is as new as these; everybody else for all there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_is_as_new_as_its_asker_has_heard() {
    let w = World::new().await;
    let _archive = w.archive("first");
    let t = group("g");
    w.send(&t, "o", Kind::GroupCreated, members(&["a", "b"])).await;
    let one = w.say(&t, "a", "one").await;
    let latest = async |heard: Option<(MsgId, MsgId)>| {
        let heard = heard.map(|(since, head)| HeardOf { since, head });
        let latest = w.latest_of("b", vec![asked(&t, Some(MsgId::NONE), heard)]).await.remove(0);
        (latest.newest.id, latest.last.unwrap().body.text, latest.unread.unwrap())
    };
    for _ in 0..20 {
        assert_eq!(latest(None).await, (one, Some("one".into()), 1));
    }
    for n in 0..50 {
        let before = latest(None).await;
        let said = w.say(&t, "a", "two").await;
        let new = (said, Some("two".into()), before.2 + 1);
        let old = latest(Some((before.0, MsgId::NONE))).await;
        assert!(old == before || old == new, "{n}: {old:?}");
        match n % 3 {
            0 => assert_eq!(latest(Some((before.0, said))).await, new),
            1 => assert_eq!(latest(Some((said, MsgId::NONE))).await, new),
            _ => assert_eq!(latest(None).await, new),
        }
        let recalled = w.send(&t, "a", Kind::Recall, on(said, None)).await;
        assert_eq!(latest(Some((said, recalled))).await, (recalled, None, before.2), "{n}");
    }
}

/// The archive is far behind: thousands of entries of one thread are in the log only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_from_a_very_long_tail() {
    let w = World::new().await;
    let (t, other) = (group("g"), group("other"));
    let mut sent = Vec::new();
    for chunk in 0..10 {
        sent.extend(
            join_all((0..300).map(|i| w.say(&t, "a", if (chunk, i) == (9, 150) { "long" } else { "x" }))).await,
        );
        // Nothing of this thread for a while: windows have to widen.
        if chunk == 4 {
            for _ in 0..10 {
                join_all((0..300).map(|_| w.say(&other, "a", "x"))).await;
            }
        }
    }
    sent.sort();
    let edit = w.send(&t, "a", Kind::Edit, on(sent[2_990], Some("edited"))).await;
    sent.push(edit);
    let check = async |at, limit: usize, want: std::ops::Range<usize>| {
        let page = w.page(&t, at, limit as u16).await;
        assert_eq!(ids(&page.events), sent[want.clone()], "{at:?}");
        assert_eq!(page.prev, if want.start == 0 { MsgId::NONE } else { sent[want.start - 1] }, "{at:?}");
        assert_eq!(page.more, want.end < sent.len(), "{at:?}");
        assert!(page.holes.is_empty());
        page
    };
    for archived in [false, true] {
        let _archive = archived.then(|| w.archive("a"));
        if archived {
            w.archived(&t, edit).await;
        }
        let n = sent.len();
        let newest = check(PageStart::Newest, 50, n - 50..n).await;
        assert_eq!(
            newest.events.iter().find(|e| e.id == sent[2_990]).and_then(|e| e.body.text.as_deref()),
            Some("edited")
        );
        check(PageStart::Before(sent[n - 10]), 50, n - 60..n - 10).await;
        check(PageStart::Before(sent[1_500]), 50, 1_450..1_500).await;
        check(PageStart::Before(sent[1_510]), 50, 1_460..1_510).await;
        check(PageStart::Before(sent[20]), 50, 0..20).await;
        check(PageStart::After(sent[99]), 50, 100..150).await;
        check(PageStart::After(MsgId(0)), 200, 0..200).await;
        check(PageStart::Around(sent[1_000]), 20, 991..1_011).await;
        let at = w.tail().get(w.layout.partition(&t), sent[1_500]).await.unwrap().unwrap().ts;
        let timed = w.page(&t, PageStart::Time(at), 5).await;
        let first = timed.events[0].clone();
        assert!(first.ts >= at && first.id <= sent[1_500]);
        let place = sent.iter().position(|i| *i == first.id).unwrap();
        let older = w.page(&t, PageStart::Before(first.id), 1).await.events[0].clone();
        assert!(older.ts < at && older.id == sent[place - 1]);
        let (events, complete) = w.between(&t, sent[10], sent[2_000], 500).await.unwrap();
        assert_eq!((ids(&events), complete), (sent[11..511].to_vec(), false));
    }
}

/// Somebody asks for what cannot exist, or for more than there may be in one answer.
#[tokio::test]
async fn strange_questions_get_typed_answers() {
    let w = World::new().await;
    let t = group("g");
    let id = w.say(&t, "a", "x").await;
    for _ in 0..2 {
        let page = w.page(&t, PageStart::After(MsgId(1 << 52)), 10).await;
        assert_eq!((page.events.len(), page.prev, page.more), (0, id, false));
        assert_eq!(ids(&w.page(&t, PageStart::Before(MsgId(u64::MAX)), 10).await.events), [id]);
        assert_eq!(ids(&w.page(&t, PageStart::Newest, 0).await.events), [id]);
        assert_eq!(ids(&w.page(&t, PageStart::Around(MsgId(0)), u16::MAX).await.events), [id]);
        assert_eq!(ids(&w.page(&t, PageStart::Time(u64::MAX), 10).await.events), []);
        assert_eq!(w.between(&t, MsgId(u64::MAX), id, 10).await.unwrap(), (vec![], true));
        assert_eq!(w.page(&group("none"), PageStart::Newest, 10).await.events, []);
        let archive = w.archive("a");
        w.archived(&t, id).await;
        drop(archive);
    }
    // Somebody claims to have seen what nobody wrote.
    let future = HistoryRequest::Between { thread: t.clone(), after: id, upto: MsgId(1 << 52), limit: 10 };
    assert_eq!(w.ask(&future).await.unwrap_err().code, natterjack_protocol::Code::Unavailable);
    let many = HistoryRequest::LastEntries { threads: vec![t; 2_000] };
    assert_eq!(w.ask(&many).await.unwrap_err().code, natterjack_protocol::Code::Invalid);
}
