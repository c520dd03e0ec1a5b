//! What a poll has collected, and how far the client's cursors may move with it. Pure.
//!
//! The frames are those of the socket in their order. What a socket's client works out from `prev`, holes and errors is
//! worked out here too, because the edge knows more: a `prev` that the reader may not see is no gap, and after attach
//! nothing is missing.

use std::collections::{BTreeMap, BTreeSet};

use natterjack_protocol::{
    Code, MsgId, Refusal, Thread, Token,
    client::{
        frame::{Displaced, Page, ServerFrame},
        poll::PollAnswer,
    },
    codec::Codec,
};

use super::watched::Watched;
use crate::devices::hello::NotIn;

pub struct Collected {
    frames: Vec<ServerFrame>,
    bytes: usize,
    /// As the client has them, moved on by what it is given.
    cursors: BTreeMap<Thread, MsgId>,
    moved: BTreeSet<Thread>,
    /// Threads of which something is missing: their cursors stay.
    gaps: BTreeSet<Thread>,
    attached: Option<String>,
    leaving: bool,
    /// The client said how far it is in sync.
    in_sync_once: bool,
    news: bool,
    watched: Option<Watched>,
    displaced: Option<Displaced>,
}

impl Collected {
    /// `in_sync_once`: it brought a `synced`.
    pub fn new(cursors: BTreeMap<Thread, MsgId>, in_sync_once: bool) -> Self {
        Self {
            frames: Vec::new(),
            bytes: 0,
            cursors,
            moved: BTreeSet::new(),
            gaps: BTreeSet::new(),
            attached: None,
            leaving: false,
            in_sync_once,
            news: false,
            watched: None,
            displaced: None,
        }
    }

    /// Whose presence the client wants to know.
    pub fn watch(&mut self, watched: Watched) {
        self.watched = Some(watched);
    }

    /// A frame from the outbox, in JSON.
    pub fn add(&mut self, bytes: &[u8]) {
        match ServerFrame::decode(Codec::Json, bytes) {
            Ok(Some(frame)) => self.frame(frame, bytes.len()),
            Ok(None) => {}
            Err(e) => tracing::error!(error = %e, "a frame of this edge cannot be read"),
        }
    }

    pub fn frame(&mut self, frame: ServerFrame, bytes: usize) {
        match &frame {
            ServerFrame::Attached { synced } => {
                self.attached = Some(synced.clone());
                return;
            }
            ServerFrame::Page(page) => self.page(page),
            ServerFrame::Event(event) => self.moves(&event.thread, event.id),
            ServerFrame::Error { refusal, .. } => {
                if let Some(thread) = &refusal.thread {
                    match refusal.code {
                        // The client has to forget it; a page from the beginning may follow.
                        Code::Invalid | Code::NotMember => drop(self.cursors.remove(thread)),
                        _ => drop(self.gaps.insert(thread.clone())),
                    }
                }
            }
            // The same change may come by signal and by looking.
            ServerFrame::Member { .. } if self.frames.contains(&frame) => return,
            ServerFrame::Member { .. } | ServerFrame::Contacts | ServerFrame::Read { .. } => {}
            ServerFrame::Draining { .. } => self.leaving = true,
            // What a watch is answered with is less than what is known from the beginning.
            ServerFrame::Presence { r: None, users } => {
                self.watched.iter_mut().for_each(|watched| watched.changed(users));
                return;
            }
            ServerFrame::Displaced(by) => {
                self.displaced = Some(by.clone());
                return;
            }
            // Typing is over before the next poll would show it, and receipts are asked for; the others are about
            // sockets.
            _ => return,
        }
        // Without `synced` the end of a membership is told each time: no cursor passes it. What was read within the
        // last minute is, too. Answered at once, it would be asked for again at once.
        let may_be_old = match frame {
            ServerFrame::Member { .. } => !self.in_sync_once && !self.attached(),
            ServerFrame::Read { .. } => !self.attached(),
            _ => false,
        };
        self.news |= !may_be_old;
        self.bytes += bytes;
        self.frames.push(frame);
    }

    fn page(&mut self, page: &Page) {
        let Some(thread) = &page.thread else { return };
        let follows = self.cursors.get(thread).is_none_or(|cursor| page.prev <= *cursor);
        if !follows || !page.holes.is_empty() {
            self.gaps.insert(thread.clone());
        }
        if let Some(last) = page.events.last() {
            self.moves(thread, last.id);
        }
    }

    fn moves(&mut self, thread: &Thread, id: MsgId) {
        if self.gaps.contains(thread) {
            return;
        }
        let cursor = self.cursors.entry(thread.clone()).or_default();
        if id > *cursor {
            *cursor = id;
            self.moved.insert(thread.clone());
        }
    }

    /// Have all cursors been answered?
    pub fn attached(&self) -> bool {
        self.attached.is_some()
    }

    pub fn has_news(&self) -> bool {
        self.news || self.watched.as_ref().is_some_and(Watched::is_news)
    }

    pub fn leaving(&self) -> bool {
        self.leaving
    }

    /// Of frames, as they came.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The session was displaced: by whom, if it was said.
    pub fn displaced(self) -> Refusal {
        let unnamed = || Refusal::new(Code::Displaced, "another device of this user has taken over");
        self.displaced.map_or_else(unnamed, |by| NotIn::Displaced(by).into())
    }

    pub fn answer(self, session: &Token) -> PollAnswer {
        let Self { frames, cursors, moved, gaps, attached, watched, .. } = self;
        let cursors = cursors.into_iter().filter(|(t, _)| moved.contains(t) && !gaps.contains(t)).collect();
        // With a gap open the old one has to be kept: what it says of the thread without a cursor would not be true.
        let synced = attached.filter(|s| !s.is_empty() && gaps.is_empty());
        let presence = watched.and_then(Watched::answer);
        PollAnswer { frames, cursors, synced, presence, session: session.clone() }
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{Body, Cid, Event, Kind, UserId};

    use super::*;

    fn thread() -> Thread {
        "dm.a.b".parse().unwrap()
    }

    fn event(id: u64, prev: u64) -> Event {
        Event {
            thread: thread(),
            id: MsgId(id),
            prev: MsgId(prev),
            ts: 1,
            from: UserId::parse("a").unwrap(),
            cid: Cid::mint(1, [0; 10]),
            kind: Kind::Text,
            body: Body::text("x"),
        }
    }

    fn live(id: u64, prev: u64) -> ServerFrame {
        ServerFrame::Event(Box::new(event(id, prev)))
    }

    fn page(ids: &[u64], prev: u64, holes: &[(u64, u64)]) -> ServerFrame {
        let holes = holes.iter().map(|(a, b)| (MsgId(*a), MsgId(*b))).collect();
        let events = ids.iter().map(|id| event(*id, 0)).collect();
        ServerFrame::Page(Page { thread: Some(thread()), events, prev: MsgId(prev), holes, ..Page::default() })
    }

    fn collected(cursor: Option<u64>, frames: &[ServerFrame]) -> PollAnswer {
        let mut c = Collected::new(cursor.map(|c| (thread(), MsgId(c))).into_iter().collect(), true);
        frames.iter().for_each(|f| c.add(&f.encode(Codec::Json)));
        c.answer(&Token::parse("s1").unwrap())
    }

    fn attached() -> ServerFrame {
        ServerFrame::Attached { synced: "1.9.9".into() }
    }

    #[test]
    fn cursors_follow_pages_and_events() {
        let all = collected(Some(5), &[page(&[6, 7], 5, &[]), attached(), live(9, 7), live(12, 9)]);
        assert_eq!((all.frames.len(), all.cursors[&thread()], all.synced.as_deref()), (3, MsgId(12), Some("1.9.9")));
        let new = collected(None, &[page(&[6, 7], 3, &[]), attached()]);
        assert_eq!(new.cursors[&thread()], MsgId(7), "the newest page is where a device without a cursor begins");
        // 8 is an entry this reader may not see.
        let unseen = collected(Some(7), &[attached(), live(9, 8)]);
        assert_eq!(unseen.cursors[&thread()], MsgId(9));
        assert!(collected(Some(7), &[attached()]).cursors.is_empty(), "only what moved");
    }

    #[test]
    fn a_gap_a_hole_or_an_unread_page_keeps_the_cursor_and_synced() {
        let gap = page(&[16, 17], 15, &[]);
        let hole = page(&[6, 9], 5, &[(7, 8)]);
        let unread = ServerFrame::error(None, Refusal::unavailable("later").with_thread(&thread()));
        for missing in [gap, hole, unread] {
            let a = collected(Some(5), &[missing, attached(), live(18, 17)]);
            assert_eq!((a.cursors.len(), a.synced), (0, None));
            assert_eq!(a.frames.len(), 2);
        }
        let incomplete = collected(Some(5), &[ServerFrame::Attached { synced: String::new() }]);
        assert_eq!(incomplete.synced, None);
        assert_eq!(collected(Some(5), &[page(&[6], 5, &[])]).synced, None, "not attached yet: cut by its size");
    }

    #[test]
    fn a_cursor_that_has_to_be_forgotten_begins_again() {
        let wrong = Refusal::new(Code::Invalid, "ahead of the log").with_thread(&thread());
        let a = collected(Some(5_000), &[ServerFrame::error(None, wrong), page(&[6, 7], 3, &[]), attached()]);
        assert_eq!((a.cursors[&thread()], a.synced.is_some()), (MsgId(7), true));
    }

    #[test]
    fn who_has_taken_over_is_named() {
        let mut c = Collected::new(BTreeMap::new(), true);
        let by = natterjack_protocol::client::frame::OtherDevice {
            device: UserId::parse("d2").unwrap(),
            name: Some("Annas Telefon".into()),
            class: natterjack_protocol::client::frame::DeviceClass::Phone,
        };
        c.frame(ServerFrame::Displaced(Displaced { by, since: 5 }), 0);
        assert!(!c.has_news());
        let refusal = c.displaced();
        assert!(refusal.code == Code::Displaced && refusal.message.contains("Annas Telefon"), "{refusal:?}");
    }

    #[test]
    fn what_concerns_sockets_only_is_left_out_and_a_change_is_told_once() {
        let member = ServerFrame::Member {
            thread: thread(),
            id: MsgId(3),
            open: true,
            role: None,
            intervals: Default::default(),
        };
        let typing = ServerFrame::Typing { thread: thread(), user: UserId::parse("a").unwrap() };
        let a =
            collected(None, &[attached(), typing, ServerFrame::Degraded { on: true }, member.clone(), member.clone()]);
        assert_eq!(a.frames, std::slice::from_ref(&member));
        for in_sync_once in [true, false] {
            let mut c = Collected::new(BTreeMap::new(), in_sync_once);
            c.frame(member.clone(), 0);
            c.frame(attached(), 0);
            assert_eq!(
                (c.has_news(), c.frames.len()),
                (in_sync_once, 1),
                "what may be old is told, and not waited for"
            );
        }
    }
}
