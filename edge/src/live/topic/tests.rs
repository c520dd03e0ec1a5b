//! What sessions see of a group that their user leaves and joins again.

use bytes::Bytes;
use natterjack_protocol::{Body, Cid, Event, Kind, client::frame::ServerFrame, codec::Codec};

use super::*;
use crate::members::Members;

fn user(s: &str) -> UserId {
    UserId::parse(s).unwrap()
}

fn group() -> Thread {
    "group.g".parse().unwrap()
}

fn event(id: u64, prev: u64, kind: Kind) -> LiveEvent {
    let users = if kind.is_control() { vec![user("m")] } else { vec![] };
    let body = Body { users, ..Body::default() };
    LiveEvent::fetched(Event {
        id: MsgId(id),
        prev: MsgId(prev),
        thread: group(),
        ts: id,
        from: user("a"),
        cid: Cid::mint(id, [0; 10]),
        kind,
        body,
    })
}

struct Play {
    topic: Topic,
    session: Arc<SessionHandle>,
}

impl Play {
    fn new(range: VisibleRange) -> Self {
        let session = SessionHandle::new(
            SessionId(1),
            user("s"),
            user("m"),
            user("m"),
            Codec::Msgpack,
            Members::default().enter(&user("m")),
            Default::default(),
        );
        let mut topic = Topic::new(TopicKey::Group("g".parse().unwrap()), 1);
        topic.subscribe(&session, range);
        Self { topic, session }
    }

    /// A chain of events, all of them there.
    fn events(&mut self, events: &[(u64, Kind)]) {
        for (id, kind) in events {
            let prev = self.topic.shown_upto(group().hash64()).unwrap_or_default();
            assert_eq!(self.topic.event(event(*id, prev.0, *kind), &mut Unwritten::new()), None);
        }
    }

    fn live(&mut self, until: u64) -> Vec<u64> {
        self.topic.go_live(self.session.id, &[(group().hash64(), MsgId(until))]);
        self.shown()
    }

    fn shown(&self) -> Vec<u64> {
        let mut out = Vec::new();
        self.session.outbox.take(&mut out, usize::MAX);
        let id = |bytes: &Bytes| match ServerFrame::decode(Codec::Msgpack, bytes) {
            Ok(Some(ServerFrame::Event(e))) => e.id.0,
            other => panic!("an event: {other:?}"),
        };
        out.iter().map(id).collect()
    }
}

fn range(since: u64) -> VisibleRange {
    VisibleRange { since: MsgId(since), known_at: MsgId(since), until: None }
}

/// A new holder of the partition publishes once more what lies before this member's last joining.
#[test]
fn an_old_removal_does_not_end_a_later_membership() {
    let mut p = Play::new(range(30));
    p.events(&[(20, Kind::MemberRemoved), (25, Kind::Text), (30, Kind::MemberAdded), (31, Kind::Text)]);
    assert_eq!(p.live(30), [31]);
    p.events(&[(40, Kind::MemberRemoved), (41, Kind::Text)]);
    assert_eq!(p.shown(), [0; 0], "the one that removes is not theirs");
    assert!(p.topic.is_empty());
    assert_eq!(p.topic.expelled, [user("m")]);
}

/// The fold is ahead of the events, or behind them.
#[test]
fn what_lies_before_the_end_is_shown_and_nothing_after() {
    let mut p = Play::new(range(10));
    p.topic.attached(0, MsgId(10));
    p.topic.end(p.session.id, group().hash64(), MsgId(13));
    p.events(&[(11, Kind::Text), (12, Kind::Text)]);
    assert_eq!(p.live(11), [12]);
    p.events(&[(13, Kind::MemberRemoved), (14, Kind::Text)]);
    assert!(p.topic.is_empty() && p.shown().is_empty());

    let mut late = Play::new(range(10));
    late.topic.attached(0, MsgId(10));
    late.events(&[(11, Kind::Text), (14, Kind::Text)]);
    late.topic.end(late.session.id, group().hash64(), MsgId(13));
    assert!(!late.topic.is_empty(), "it still catches up");
    assert_eq!(late.live(10), [11]);
    assert!(late.topic.is_empty());
}

/// Removed while the pages are still being read: what came before it is not lost with the subscriber.
#[test]
fn what_was_collected_before_a_removal_is_shown() {
    let mut p = Play::new(range(10));
    p.topic.attached(0, MsgId(10));
    p.events(&[(11, Kind::Text), (12, Kind::Text), (13, Kind::MemberRemoved), (14, Kind::Text)]);
    assert_eq!(p.live(11), [12]);
    assert!(p.topic.is_empty());
    assert_eq!(p.topic.expelled, [user("m")]);
}

#[test]
fn a_user_who_joined_again_while_attaching_sees_what_follows() {
    let mut p = Play::new(range(10));
    p.topic.subscribe(&p.session.clone(), range(30));
    p.events(&[(20, Kind::MemberRemoved), (25, Kind::Text), (30, Kind::MemberAdded), (31, Kind::Text)]);
    assert_eq!(p.live(30), [31]);
}

#[test]
fn typing_in_a_group_is_shown_to_whom_the_typist_lets_see_it_and_not_over_a_block() {
    let mut play = Play::new(range(1));
    play.live(1);
    let frame = ServerFrame::Typing { thread: group(), user: user("a") };
    let shown = |play: &Play, from: &str, only: Option<&[&str]>| {
        let only = only.map(|only| only.iter().map(|u| user(u)).collect());
        play.topic.typing(7, &user(from), only.as_ref(), &frame);
        let mut out = Vec::new();
        play.session.outbox.take(&mut out, usize::MAX);
        !out.is_empty()
    };
    assert!(shown(&play, "a", None) && shown(&play, "a", Some(&["b", "m"])));
    assert!(!shown(&play, "a", Some(&["b"])), "no contact of theirs");
    assert!(!shown(&play, "m", None), "their own");
    let blocked = natterjack_protocol::log::fold::ThreadItem { v: MsgId(5), blocks: true, ..Default::default() };
    play.session.state.merge(&Thread::dm(&user("a"), &user("m")), blocked);
    assert!(!shown(&play, "a", None), "a block hides it in a group, too");
}
