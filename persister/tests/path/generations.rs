//! The log goes on with a new generation: whatever of the two is archived already, an answer is the same.

use natterjack_protocol::{
    Body, Cid, Kind, MsgId, Thread,
    internal::rpc::{HistoryAnswer, HistoryRequest, PageStart},
};
use natterjack_runtime::{
    Health,
    health::{Readers, State},
};

use super::kit::*;

struct Said {
    team: Thread,
    dm: Thread,
    /// Of the group, in order.
    ids: Vec<MsgId>,
    dm_id: MsgId,
    old: (Cid, MsgId),
    new: (Cid, MsgId),
}

/// Before and after the switch: a group with changes, edits and recalls of what the other generation has; a DM that is
/// quiet since.
async fn talk(w: &mut World) -> Said {
    let (team, dm): (Thread, Thread) = (group("g"), "dm.a.b".parse().unwrap());
    let body = Body { name: Some("toads".into()), users: vec![user("b")], ..Body::default() };
    let (old, new) = (cid(), cid());
    let mut ids = vec![w.send(&team, "a", Kind::GroupCreated, body).await];
    ids.push(w.say(&team, "a", "one").await);
    ids.push(w.send_as(&team, "b", old, Kind::Text, Body::text("two")).await);
    let dm_id = w.say(&dm, "a", "quiet").await;
    w.switch(3).await;
    ids.push(w.send_as(&team, "a", new, Kind::Text, Body::text("three")).await);
    let body = Body { users: vec![user("c")], ..Body::default() };
    ids.push(w.send(&team, "a", Kind::MemberAdded, body).await);
    ids.push(w.send(&team, "a", Kind::Edit, on(ids[1], Some("one, edited"))).await);
    ids.push(w.send(&team, "a", Kind::Recall, on(ids[2], None)).await);
    ids.push(w.say(&team, "c", "last").await);
    assert!(ids.windows(2).all(|w| w[0] < w[1]));
    Said { team, dm, old: (old, ids[2]), new: (new, ids[3]), ids, dm_id }
}

async fn check(w: &World, said: &Said, stage: &str) {
    let Said { team, dm, ids: all, dm_id, .. } = said;
    let page = w.page(team, PageStart::Newest, 50).await;
    assert_eq!(ids(&page.events), *all, "{stage}");
    assert_eq!(page.events[1].body.text.as_deref(), Some("one, edited"), "{stage}");
    assert_eq!(page.events[2].kind, Kind::Recall, "{stage}: by an admin of the group that the former generation made");
    assert!(page.events.windows(2).all(|e| e[1].prev == e[0].id), "{stage}");
    for (n, id) in all.iter().enumerate() {
        assert_eq!(
            ids(&w.page(team, PageStart::After(*id), 3).await.events),
            all[n + 1..(n + 4).min(all.len())],
            "{stage}: after {n}"
        );
        assert_eq!(
            ids(&w.page(team, PageStart::Before(*id), 3).await.events),
            all[n.saturating_sub(3)..n],
            "{stage}: before {n}"
        );
    }
    assert_eq!(ids(&w.page(team, PageStart::Newest, 6).await.events), all[2..], "{stage}: across the border");
    assert_eq!(
        w.between(team, all[0], all[6], 50).await.map(|(e, c)| (ids(&e), c)),
        Ok((all[1..=6].to_vec(), true)),
        "{stage}"
    );
    assert_eq!(w.last_ids(&[team, dm]).await, [*all.last().unwrap(), *dm_id], "{stage}");
    let latest = w.latest("a", &[team, dm]).await.into_iter().map(|e| e.map(|e| e.id)).collect::<Vec<_>>();
    assert_eq!(latest, [all.last().copied(), Some(*dm_id)], "{stage}");
    assert_eq!(ids(&w.page(dm, PageStart::Newest, 5).await.events), [*dm_id], "{stage}");
}

async fn check_cids(w: &World, said: &Said, stage: &str) {
    assert_eq!(w.find_cid(&said.team, "b", said.old.0).await, Ok(Some(said.old.1)), "{stage}");
    assert_eq!(w.find_cid(&said.team, "a", said.new.0).await, Ok(Some(said.new.1)), "{stage}");
    assert_eq!(w.find_cid(&said.team, "a", cid()).await, Ok(None), "{stage}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_the_same_whatever_is_archived() {
    let mut w = World::new().await;
    let old = w.layout;
    let said = talk(&mut w).await;
    check(&w, &said, "nothing is archived").await;
    check_cids(&w, &said, "nothing is archived").await;
    w.switch_off(true);
    // Only the hole below the log is told.
    let page = w.page(&said.team, PageStart::Newest, 50).await;
    let first = w.history_of(old, &said.team).await;
    assert_eq!((ids(&page.events), page.holes), (said.ids.clone(), vec![(MsgId(1), MsgId(first.0 - 1))]));
    assert_eq!(w.last_ids(&[&said.team, &said.dm]).await, [*said.ids.last().unwrap(), said.dm_id]);
    w.switch_off(false);
    let new = w.hold_back(w.layout).await;
    let archive = w.archive("a");
    w.archived_in(old, &said.team, said.old.1).await;
    w.archived_in(old, &said.dm, said.dm_id).await;
    check(&w, &said, "the old generation is archived").await;
    check_cids(&w, &said, "the old generation is archived").await;
    assert_eq!(w.position(w.layout, &said.team).await, None);
    drop(archive);
    for lease in new {
        lease.release().await;
    }
    let _archive = w.archive("b");
    w.archived(&said.team, *said.ids.last().unwrap()).await;
    check(&w, &said, "all is archived").await;
    check_cids(&w, &said, "all is archived").await;
}

/// A thread is folded in its order: the new generation waits for the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_comes_to_the_new_generation_when_the_old_one_is_written() {
    let mut w = World::new().await;
    let old = w.layout;
    let said = talk(&mut w).await;
    let held = w.hold_back(old).await;
    let (health, first) = (Health::new(), format!("archive.{}-0", old.generation));
    let _archive = w.archive_watched(Readers::new(&health), "a");
    eventually("it stands by in the old one", async || health.report().parts.get(&*first) == Some(&State::Ok)).await;
    assert_eq!(
        health.report().parts.len(),
        old.partitions as usize,
        "and not before the old one is read: {:?}",
        health.report()
    );
    check(&w, &said, "the new one waits").await;
    assert_eq!(w.position(w.layout, &said.team).await, None);
    for lease in held {
        lease.release().await;
    }
    w.archived(&said.team, *said.ids.last().unwrap()).await;
    check(&w, &said, "both").await;
    let group = w.group(&said.team).await;
    assert_eq!(group.version, said.ids[4]);
    assert_eq!(group.present().map(|(u, _)| u.to_string()).collect::<Vec<_>>(), ["a", "b", "c"]);
    // The end mark is no entry of anybody.
    let position = w.position(old, &said.team).await.unwrap();
    assert!(position > said.old.1);
}

/// An instance that was not told answers from what there was when it was asked.
#[tokio::test]
async fn read_your_acks_across_the_switch() {
    let mut w = World::new().await;
    let t = group("g");
    for n in 0..4 {
        let cid = cid();
        let id = w.send_as(&t, "a", cid, Kind::Text, Body::text(format!("{n}"))).await;
        let request = HistoryRequest::LastEntries { threads: vec![t.clone()] };
        assert!(matches!(w.ask(&request).await, Ok(HistoryAnswer::LastEntries(last)) if last[0].id == id));
        assert_eq!(ids(&w.page(&t, PageStart::Newest, 1).await.events), [id]);
        assert_eq!(w.find_cid(&t, "a", cid).await, Ok(Some(id)));
        if n == 1 {
            w.switch(5).await;
        }
    }
}
