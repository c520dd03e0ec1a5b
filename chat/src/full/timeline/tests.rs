use super::*;
use crate::full::testing::{dm, event, op, page, user};
use natterjack_client::protocol::Body;

fn keys(timeline: &Timeline) -> Vec<Key> {
    let mut keys = vec![timeline.last_key()];
    while let Some(before) = timeline.before(keys[0]) {
        keys.insert(0, before);
    }
    keys
}

fn ids(timeline: &Timeline) -> Vec<u64> {
    keys(timeline)
        .into_iter()
        .filter_map(|k| if let Key::At(id, walk::TimelinePart::Event) = k { Some(id.0) } else { None })
        .collect()
}

fn gaps(timeline: &Timeline) -> usize {
    keys(timeline).into_iter().filter(|k| matches!(k, Key::At(_, walk::TimelinePart::Gap))).count()
}

#[test]
fn pages_and_live_events_end_in_the_order_of_the_log() {
    let (bob, now) = (dm("bob"), Instant::now());
    let mut t = Timeline::default();
    t.live(event(&bob, 12, "bob", "live"), false);
    t.page(PageWanted::Newest, page(&bob, 8, 11), now);
    assert_eq!(t.older, Older::Unknown);
    t.live(event(&bob, 13, "bob", "live"), false);
    t.page(PageWanted::Older(MsgId(8)), page(&bob, 1, 7), now);
    assert_eq!(ids(&t), (1..=13).collect::<Vec<_>>());
    assert_eq!(t.older, Older::Beginning);
    // Downwards is the same way back.
    let all = keys(&t);
    for pair in all.windows(2) {
        assert_eq!(t.after(pair[0]), Some(pair[1]));
    }
    assert_eq!(t.after(all[all.len() - 1]), None);
}

#[test]
fn what_was_skipped_is_a_gap_until_it_is_filled() {
    let (bob, now) = (dm("bob"), Instant::now());
    let mut t = Timeline::default();
    t.live(event(&bob, 5, "bob", "before"), false);
    t.skipped(MsgId(5), MsgId(20));
    t.live(event(&bob, 20, "bob", "after"), false);
    assert_eq!((ids(&t), gaps(&t)), (vec![5, 20], 1));
    let want = t.want_at(Key::At(MsgId(20), walk::TimelinePart::Gap)).unwrap();
    assert_eq!(want.at(), At::Before(MsgId(20)));
    // The page does not reach down to what is here.
    t.page(want, page(&bob, 15, 19), now);
    assert_eq!((ids(&t), gaps(&t)), (vec![5, 15, 16, 17, 18, 19, 20], 1));
    let want = t.want_at(Key::At(MsgId(15), walk::TimelinePart::Gap)).unwrap();
    t.page(want, page(&bob, 6, 14), now);
    assert_eq!((ids(&t), gaps(&t)), ((5..=20).collect(), 0));
    assert_eq!(t.older, Older::Unknown, "below the gap nothing was learnt");
}

#[test]
fn a_hole_in_a_page_is_shown_and_asked_for_again_later() {
    let (bob, now) = (dm("bob"), Instant::now());
    let mut t = Timeline::default();
    let mut holed = page(&bob, 1, 3);
    holed.events.push(event(&bob, 9, "bob", "after the hole"));
    holed.holes = vec![(MsgId(4), MsgId(8))];
    assert!(t.ask(PageWanted::Newest, now));
    assert!(!t.ask(PageWanted::Newest, now), "one page at a time");
    t.page(PageWanted::Newest, holed, now);
    assert_eq!(gaps(&t), 1);
    let want = t.want_at(Key::At(MsgId(9), walk::TimelinePart::Gap)).unwrap();
    assert_eq!(want, PageWanted::Gap(MsgId(8)));
    assert!(!t.ask(want, now), "not at once");
    let again = t.again().unwrap();
    assert!(t.ask(want, again));
    t.page(want, page(&bob, 4, 8), again);
    assert_eq!((ids(&t), gaps(&t), t.again()), ((1..=9).collect(), 0, None));
}

#[test]
fn trouble_waits_longer_each_time_and_a_refusal_ends_it() {
    let now = Instant::now();
    let mut t = Timeline::default();
    t.live(event(&dm("bob"), 5, "bob", "x"), false);
    let want = PageWanted::Older(MsgId(5));
    t.page_failed(want, "away".into(), false, now);
    let first = t.again().unwrap() - now;
    t.page_failed(want, "away".into(), false, now);
    assert!(t.again().unwrap() - now > first);
    t.page_failed(want, "no longer a member".into(), true, now);
    assert_eq!(t.older, Older::Refused("no longer a member".into()));
    // A thread that does not exist yet is empty, not broken.
    let mut t = Timeline::default();
    t.page_failed(PageWanted::Newest, "there is no such thread".into(), true, now);
    assert_eq!(t.older, Older::Beginning);
}

#[test]
fn edits_recalls_and_reactions_are_laid_over_their_message() {
    let (bob, now) = (dm("bob"), Instant::now());
    let mut t = Timeline::default();
    t.page(PageWanted::Newest, page(&bob, 1, 4), now);
    t.live(op(&bob, 5, "bob", Kind::Edit, 2, Body::text("better")), false);
    t.live(op(&bob, 6, "mallory", Kind::Edit, 3, Body::text("forged")), false);
    t.live(op(&bob, 7, "bob", Kind::Recall, 4, Body::default()), false);
    let frog = || Body { emoji: Some("🐸".into()), ..Body::default() };
    t.live(op(&bob, 8, "me", Kind::Reaction, 1, frog()), false);
    t.live(op(&bob, 9, "bob", Kind::Reaction, 1, frog()), false);
    t.live(op(&bob, 10, "bob", Kind::Reaction, 1, Body { remove: true, ..frog() }), false);
    let text = |id: u64| t.events[&MsgId(id)].body.text.clone();
    assert_eq!(text(2).as_deref(), Some("better"));
    assert_eq!(text(3).as_deref(), Some("message 3"));
    assert_eq!((t.events[&MsgId(4)].kind, text(4)), (Kind::Recall, None));
    assert_eq!(t.ops.reactions(MsgId(1)).as_deref(), Some("🐸"));
    let folded: Vec<_> = t.events.values().filter(|e| t.is_folded(e)).map(|e| e.id.0).collect();
    assert_eq!(folded, [5, 7, 8, 9, 10], "a forged edit is a line of its own");
    // A page that comes later does not undo what came live.
    t.page(PageWanted::Newest, page(&bob, 1, 4), now);
    assert_eq!(t.events[&MsgId(2)].body.text.as_deref(), Some("better"));
}

#[test]
fn an_edit_that_came_before_its_message_was_read_is_applied() {
    let (bob, now) = (dm("bob"), Instant::now());
    let mut t = Timeline::default();
    t.live(op(&bob, 5, "bob", Kind::Edit, 2, Body::text("better")), false);
    t.page(PageWanted::Older(MsgId(5)), page(&bob, 1, 4), now);
    assert_eq!(t.events[&MsgId(2)].body.text.as_deref(), Some("better"));
    assert!(t.ops.is_edited(MsgId(2)));
}

#[test]
fn what_nobody_scrolls_in_is_kept_small() {
    let bob = dm("bob");
    let mut t = Timeline { older: Older::Beginning, ..Timeline::default() };
    for id in 1..=5_000 {
        t.live(event(&bob, id, "bob", "x"), false);
    }
    assert!(t.events.len() <= 2 * KEEP, "{}", t.events.len());
    assert_eq!(t.older, Older::Unknown, "what was forgotten can be fetched");
    let mut t = Timeline::default();
    (1..=5_000).for_each(|id| t.live(event(&bob, id, "bob", "x"), true));
    assert_eq!(t.events.len(), 5_000, "not under the eyes of somebody who reads it");
    assert_eq!(t.last_of(&user("bob")), Some(MsgId(5_000)));
}
