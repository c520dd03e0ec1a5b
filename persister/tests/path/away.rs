//! P7: with the archive away, chat goes on from the log, and says what it cannot know.

use std::{sync::atomic::Ordering, time::Duration};

use natterjack_protocol::{
    Body, Code, Event, Kind, MsgId, Times,
    internal::rpc::{HistoryAnswer, HistoryRequest, PageStart, ReadAccess},
    log::{Interval, Intervals},
};

use natterjack_persister::store::ArchiveStore;
use natterjack_testkit::now_ms;

use super::kit::*;

#[tokio::test]
async fn pages_come_from_the_log_alone_and_all_is_archived_afterwards() {
    let w = World::new().await;
    let (t, dm) = (group("g"), "dm.a.b".parse().unwrap());
    let _archive = w.archive("a");
    let old = w.say(&t, "a", "old").await;
    w.archived(&t, old).await;
    w.switch_off(true);
    let cid = cid();
    let new = w.send_as(&t, "a", cid, Kind::Text, Body::text("new")).await;
    let first = w.say(&dm, "a", "first").await;
    let edit = w.send(&t, "a", Kind::Edit, on(old, Some("edited"))).await;

    let page = w.page(&t, PageStart::Newest, 50).await;
    assert_eq!(ids(&page.events), [old, new, edit]);
    assert_eq!(page.events[0].body.text.as_deref(), Some("edited"));
    let begins = w.tail().bounds(w.layout.partition(&t)).await.unwrap().first;
    assert_eq!(page.holes, [(MsgId(1), MsgId(begins.0 - 1))], "the archive may have more below the log");
    assert_eq!(page.prev, MsgId(begins.0 - 1));
    assert_eq!(ids(&w.page(&t, PageStart::After(old), 50).await.events), [new, edit]);
    assert!(w.page(&t, PageStart::After(old), 50).await.holes.is_empty());
    assert_eq!(w.between(&t, old, edit, 10).await.map(|(e, all)| (ids(&e), all)), Ok((vec![new, edit], true)));
    assert_eq!(w.page_as(&t, "a", PageStart::Before(begins), 50).await.unwrap_err().code, Code::Unavailable);
    assert_eq!(w.page_as(&t, "a", PageStart::Time(1), 50).await.unwrap_err().code, Code::Unavailable);
    // Who joined within the log's reach misses nothing.
    let joined = HistoryRequest::Page {
        thread: t.clone(),
        reader: user("b"),
        access: ReadAccess { intervals: Intervals(vec![Interval { since: new, until: None }]), v: new },
        at: PageStart::Newest,
        limit: 50,
        min_id: edit,
    };
    match w.ask(&joined).await.unwrap() {
        HistoryAnswer::Page(p) => {
            assert_eq!((ids(&p.events), p.prev, p.holes.len()), (vec![new, edit], MsgId::NONE, 0))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(w.last_ids(&[&t, &dm, &group("g")]).await, [edit, first, edit]);
    let unknown = group("in-neither");
    let below = w.tail().bounds(w.layout.partition(&unknown)).await.unwrap().first.0 - 1;
    assert_eq!(w.last_ids(&[&unknown]).await, [MsgId(below)], "at most this");
    assert_eq!(
        w.latest("a", &[&t, &unknown]).await.into_iter().map(|e| e.map(|e| e.id)).collect::<Vec<_>>(),
        [Some(new), None]
    );
    assert_eq!((w.is_message(&t, old).await, w.is_message(&t, edit).await), (Ok(true), Ok(false)), "the log has both");
    assert_eq!(w.is_message(&t, MsgId(begins.0 - 1)).await.unwrap_err().code, Code::Unavailable);
    // The log does not reach ten seconds back from the cid: not blindly "no", nor blindly "yes".
    assert_eq!(w.find_cid(&t, "a", cid).await.unwrap_err().code, Code::Unavailable);

    w.switch_off(false);
    w.archived(&t, edit).await;
    w.archived(&dm, first).await;
    let page = w.page(&t, PageStart::Newest, 50).await;
    assert_eq!((ids(&page.events), page.prev, page.holes), (vec![old, new, edit], MsgId::NONE, vec![]));
    assert_eq!(w.last_ids(&[&unknown]).await, [MsgId::NONE]);
}

#[tokio::test]
async fn cids_are_found_in_archive_and_log_the_lowest_id_first() {
    let w = World::new().await;
    let (t, cid, absent) = (group("g"), cid(), cid());
    let id = w.send_as(&t, "a", cid, Kind::Text, Body::text("x")).await;
    for archived in [false, true] {
        let archive = archived.then(|| w.archive("a"));
        if archived {
            w.archived(&t, id).await;
        }
        assert_eq!(w.find_cid(&t, "a", cid).await, Ok(Some(id)));
        assert_eq!(w.find_cid(&t, "b", cid).await, Ok(None));
        assert_eq!(w.find_cid(&t, "a", absent).await, Ok(None));
        assert_eq!(w.find_cid(&group("h"), "a", cid).await, Ok(None));
        drop(archive);
    }
    // A copy that slipped through: its Msg-Id was forgotten.
    let js = natterjack_testkit::raw_jetstream(&w.nats).await;
    let entry = natterjack_protocol::Entry::new(user("a"), cid, Kind::Text, Body::text("x"));
    let subject = natterjack_nats::subjects::chat(w.layout.generation, w.layout.partition(&t), &t);
    let copy = js.publish(subject, entry.encode()).await.unwrap().await.unwrap().sequence;
    assert!(MsgId(copy) > id);
    assert_eq!(w.find_cid(&t, "a", cid).await, Ok(Some(id)));
    w.switch_off(true);
    // A cid from ten seconds after the log's first entry: the log alone can tell.
    let later = natterjack_protocol::Cid::mint(now_ms() + 11_000, [7; 10]);
    assert_eq!(w.find_cid(&t, "a", later).await, Ok(None));
}

/// Final where the archive has to look at each row; where only the log has too many, the archive will tell.
#[tokio::test]
async fn a_resend_is_too_old_only_where_nobody_will_ever_know() {
    let w = World::new().await;
    let t = group("g");
    let first = w.say(&t, "a", "x").await;
    let archive = w.archive("a");
    w.archived(&t, first).await;
    w.store.searches.store(true, Ordering::SeqCst);
    assert_eq!(w.find_cid(&t, "a", cid()).await.unwrap_err().code, Code::ResendTooOld);
    w.store.searches.store(false, Ordering::SeqCst);
    assert_eq!(w.find_cid(&t, "a", cid()).await, Ok(None));
    drop(archive);

    w.switch_off(true);
    // The log reaches back to it, and no further.
    let sought = natterjack_protocol::Cid::mint(now_ms() + 10_000, [7; 10]);
    let js = natterjack_testkit::raw_jetstream(&w.nats).await;
    let subject = natterjack_nats::subjects::chat(w.layout.generation, w.layout.partition(&t), &t);
    let mut acks = Vec::new();
    for _ in 0..=natterjack_protocol::limits::RESEND_ROWS {
        let entry = natterjack_protocol::Entry::new(user("b"), cid(), Kind::Text, Body::text("x"));
        acks.push(js.publish(subject.clone(), entry.encode()).await.unwrap());
        if acks.len() == 500 {
            for ack in acks.drain(..) {
                ack.await.unwrap();
            }
        }
    }
    for ack in acks {
        ack.await.unwrap();
    }
    assert_eq!(w.find_cid(&t, "a", sought).await.unwrap_err().code, Code::Unavailable);
}

/// Entries expire while the archive is away: what is lost is told, and not stepped over in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_loses_before_it_is_archived_is_a_hole() {
    let s = Duration::from_secs;
    let w = World::with(Times { log_max_age: s(2), dedupe_window: s(1), ..Times::default() }).await;
    let t = group("g");
    let archive = w.archive("a");
    let kept = w.say(&t, "a", "kept").await;
    w.archived(&t, kept).await;
    drop(archive);
    let lost = w.say(&t, "a", "lost").await;
    eventually("the log forgets", async || w.tail().last(&t).await.unwrap().is_none()).await;
    let new = w.say(&t, "a", "new").await;
    let page = w.page(&t, PageStart::Newest, 50).await;
    assert_eq!((ids(&page.events), page.holes), (vec![kept, new], vec![(lost, lost)]));
    let page = w.page(&t, PageStart::After(kept), 50).await;
    assert_eq!((ids(&page.events), page.holes), (vec![new], vec![(lost, lost)]));
    let (events, complete) = w.between(&t, MsgId::NONE, new, 10).await.unwrap();
    assert_eq!((ids(&events), complete), (vec![kept], false));
    assert_eq!(w.between(&t, kept, new, 10).await.unwrap_err().code, Code::Unavailable);
    assert_eq!(w.find_cid(&t, "a", cid()).await.unwrap_err().code, Code::Unavailable);
    // The archive goes on behind the hole, and it stays told, in whatever way somebody reads.
    let archive = w.archive("b");
    w.archived(&t, new).await;
    let told = |events: &[Event]| events.iter().map(|e| (e.id, e.kind)).collect::<Vec<_>>();
    let all = [(kept, Kind::Text), (lost, Kind::Lost), (new, Kind::Text)];
    for at in [
        PageStart::Newest,
        PageStart::Before(MsgId::MAX),
        PageStart::After(MsgId::NONE),
        PageStart::Around(lost),
        PageStart::Time(0),
    ] {
        let page = w.page(&t, at, 50).await;
        assert_eq!((told(&page.events), page.holes.len()), (all.to_vec(), 0), "{at:?}");
        assert_eq!(page.events[1].body.target, Some(lost), "{at:?}");
    }
    let page = w.page(&t, PageStart::After(kept), 1).await;
    assert_eq!((told(&page.events), page.more), (all[1..2].to_vec(), true), "it counts as any event");
    let page = w.page(&t, PageStart::Before(new), 1).await;
    assert_eq!((told(&page.events), page.prev), (all[1..2].to_vec(), kept));
    for (after, upto, want) in
        [(kept, new, &all[1..]), (kept, lost, &all[1..2]), (MsgId::NONE, lost, &all[..2]), (lost, new, &all[2..])]
    {
        let (events, complete) = w.between(&t, after, upto, 10).await.unwrap();
        assert_eq!((told(&events), complete), (want.to_vec(), true), "{after} {upto}");
    }
    assert_eq!(w.find_cid(&t, "a", cid()).await, Ok(None));
    assert_eq!(w.latest("a", &[&t]).await[0].as_ref().map(|e| e.id), Some(new), "it is no message");
    // A thread of the same partition that has been quiet since, and one of which nothing else is left.
    let of_one = |n: &u32| w.layout.partition(&group(&format!("q{n}"))) == w.layout.partition(&t);
    let quiet = group(&format!("q{}", (0..).find(of_one).unwrap()));
    assert_eq!(w.last_ids(&[&t, &quiet]).await, [new, lost]);
    assert_eq!(told(&w.page(&quiet, PageStart::Newest, 50).await.events), all[1..2]);
    // Once more, before anybody begins; and the last one that was lost is where the log ends.
    drop(archive);
    let more = [w.say(&t, "a", "lost too").await, w.say(&t, "a", "and this").await];
    eventually("the log forgets", async || w.tail().last(&t).await.unwrap().is_none()).await;
    let _archive = w.archive("c");
    w.archived(&t, more[1]).await;
    let page = w.page(&t, PageStart::Newest, 2).await;
    assert_eq!(told(&page.events), [(new, Kind::Text), (more[1], Kind::Lost)]);
    assert_eq!(page.events[1].body.target, Some(more[0]));
    let ranges: Vec<_> = w.store.inner.lost().await.unwrap().into_iter().map(|l| (l.first, l.last)).collect();
    assert_eq!(ranges, [(lost, lost), (more[0], more[1])]);
}
