//! What this device knows of the user's threads: the lists that it got, and what has come since. Pure.

use std::collections::{BTreeMap, BTreeSet};

use natterjack_protocol::{
    Event, Kind, MsgId, Thread, UserId,
    client::{frame::ThreadSummary, thread_settings::ThreadSettings},
    limits::UNREAD_MAX,
    log::Role,
};

use crate::outbox::Change;

#[derive(Default)]
pub(crate) struct KnownThreads {
    threads: BTreeMap<Thread, ThreadSummary>,
    /// Up to when the list was asked for.
    up_to: Option<String>,
    /// There is a store that keeps it.
    kept: bool,
    /// What the store has not been told.
    changed: BTreeSet<Thread>,
    changes: Vec<Change>,
}

impl KnownThreads {
    /// As a run before left it.
    pub fn new(kept: bool, threads: Vec<ThreadSummary>, up_to: Option<String>) -> Self {
        let threads = threads.into_iter().map(|summary| (summary.thread.clone(), summary)).collect();
        Self { threads, up_to, kept, ..Self::default() }
    }

    pub fn up_to(&self) -> Option<String> {
        self.up_to.clone()
    }

    /// All of a list has come that was asked for then.
    pub fn listed_up_to(&mut self, synced: String) {
        self.changes.push(Change::Listed(synced.clone()));
        self.up_to = Some(synced);
    }

    /// Pinned ones first, then by what happened last.
    pub fn sorted(&self) -> Vec<ThreadSummary> {
        let mut all: Vec<_> = self.threads.values().cloned().collect();
        let pinned = |t: &ThreadSummary| t.settings.as_ref().is_some_and(|s| s.pinned);
        all.sort_by(|a, b| (pinned(b), b.active).cmp(&(pinned(a), a.active)).then_with(|| a.thread.cmp(&b.thread)));
        all
    }

    /// What has come live meanwhile is newer than what a list says.
    pub fn listed(&mut self, page: &[ThreadSummary]) {
        for listed in page {
            let mut summary = listed.clone();
            if let Some(known) = self.threads.get(&summary.thread) {
                if known.last.as_ref().map(|e| e.id) > summary.last.as_ref().map(|e| e.id) {
                    let known = known.clone();
                    summary = ThreadSummary {
                        last: known.last,
                        cut: known.cut,
                        active: known.active,
                        read: known.read.max(summary.read),
                        unread: known.unread,
                        ..summary
                    };
                }
                summary.settings = summary.settings.or_else(|| known.settings.clone());
            }
            self.changed.insert(summary.thread.clone());
            self.threads.insert(summary.thread.clone(), summary);
        }
    }

    /// One that came live or with what was missed.
    pub fn event(&mut self, me: &UserId, event: &Event) {
        if self.kept {
            self.changes.push(Change::Message(Box::new(event.clone())));
        }
        let known = self.changed_entry(&event.thread);
        known.active = known.active.max(event.ts);
        let read = known.read.unwrap_or_default();
        let last = known.last.as_ref().map_or(MsgId::NONE, |e| e.id);
        let counts = |unread: &u8| *unread < UNREAD_MAX;
        match event.kind {
            kind if kind.is_message() || kind.is_control() => {
                if event.id <= last {
                    return;
                }
                let mut shown = event.clone();
                known.cut = shown.body.cut_for_preview();
                known.last = Some(shown);
                if kind == Kind::GroupRenamed || known.name.is_none() {
                    known.name = event.body.name.clone().or(known.name.take());
                }
                if kind.is_message() && event.from != *me && event.id > read {
                    known.unread = known.unread.map(|unread| UNREAD_MAX.min(unread + 1));
                }
            }
            Kind::Recall => {
                let Some(target) = event.body.target else { return };
                if target > read && event.from != *me {
                    known.unread = known.unread.map(|n| if counts(&n) { n.saturating_sub(1) } else { n });
                }
                if target == last
                    && let Some(last) = &mut known.last
                {
                    (last.kind, last.body) = (Kind::Recall, natterjack_protocol::Body::default());
                    known.cut = false;
                }
            }
            Kind::Edit if event.body.target == Some(last) => {
                if let Some(last) = &mut known.last {
                    last.body.text = event.body.text.clone();
                    known.cut = last.body.cut_for_preview();
                }
            }
            _ => {}
        }
    }

    pub fn was_read(&mut self, thread: &Thread, id: MsgId) {
        if !self.threads.contains_key(thread) {
            return;
        }
        let known = self.changed_entry(thread);
        known.read = known.read.max(Some(id));
        if known.last.as_ref().is_none_or(|last| id >= last.id) {
            known.unread = Some(0);
        }
        if let Some(settings) = &mut known.settings {
            settings.unread = false;
        }
    }

    pub fn set(&mut self, thread: &Thread, settings: &ThreadSettings) {
        self.changed_entry(thread).settings = Some(settings.clone());
    }

    pub fn member(&mut self, thread: &Thread, open: bool, role: Option<Role>) {
        let known = self.changed_entry(thread);
        (known.open, known.role) = (open, role);
    }

    /// It is not in any list yet: everything that is not read is not known.
    fn changed_entry(&mut self, thread: &Thread) -> &mut ThreadSummary {
        self.changed.insert(thread.clone());
        self.threads.entry(thread.clone()).or_insert_with(|| ThreadSummary::of(thread.clone()))
    }

    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.changes.is_empty()
    }

    pub fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        let known = changed.iter().filter_map(|thread| self.threads.get(thread).cloned());
        let known = known.map(|summary| Change::Known(Box::new(summary)));
        // The list is complete up to then only with what is in it.
        known.chain(std::mem::take(&mut self.changes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::{Body, Cid};

    use super::*;

    fn thread() -> Thread {
        "dm.a.b".parse().unwrap()
    }

    fn event(id: u64, from: &str, kind: Kind, body: Body) -> Event {
        Event {
            thread: thread(),
            id: MsgId(id),
            prev: MsgId::NONE,
            ts: id * 10,
            from: from.parse().unwrap(),
            cid: Cid::mint(1, [0; 10]),
            kind,
            body,
        }
    }

    fn known(unread: u8) -> KnownThreads {
        let mut known = KnownThreads::default();
        known.listed(&[ThreadSummary {
            last: Some(event(5, "b", Kind::Text, Body::text("five"))),
            active: 50,
            read: Some(MsgId(4)),
            unread: Some(unread),
            ..ThreadSummary::of(thread())
        }]);
        known
    }

    fn row(known: &KnownThreads) -> ThreadSummary {
        known.sorted().remove(0)
    }

    #[test]
    fn what_comes_live_is_counted_once_and_recalled_messages_are_not() {
        let (mut known, me) = (known(1), "a".parse().unwrap());
        let target = |id| Body { target: Some(MsgId(id)), ..Body::default() };
        known.event(&me, &event(5, "b", Kind::Text, Body::text("five")));
        assert_eq!(row(&known).unread, Some(1), "it is in the list already");
        known.event(&me, &event(6, "b", Kind::Text, Body::text("six")));
        known.event(&me, &event(7, "a", Kind::Text, Body::text("mine")));
        known.event(&me, &event(8, "b", Kind::Reaction, target(7)));
        let now = row(&known);
        assert_eq!((now.unread, now.active, now.last.unwrap().id), (Some(2), 80, MsgId(7)));
        known.event(&me, &event(9, "b", Kind::Recall, target(6)));
        assert_eq!(row(&known).unread, Some(1));
        known.event(&me, &event(10, "a", Kind::Edit, Body { text: Some("better".into()), ..target(7) }));
        assert_eq!(row(&known).last.unwrap().body.text.as_deref(), Some("better"));
        known.event(&me, &event(11, "a", Kind::Recall, target(7)));
        let last = row(&known).last.unwrap();
        assert_eq!((last.kind, last.body), (Kind::Recall, Body::default()), "a recalled text is not shown");
        known.was_read(&thread(), MsgId(6));
        assert_eq!(row(&known).unread, Some(1), "somebody has to count again");
        known.was_read(&thread(), MsgId(11));
        assert_eq!((row(&known).unread, row(&known).read), (Some(0), Some(MsgId(11))));
    }

    #[test]
    fn a_list_that_is_older_than_what_came_does_not_take_it_back() {
        let (mut known, me) = (known(1), "a".parse().unwrap());
        let older = row(&known);
        known.event(&me, &event(6, "b", Kind::Text, Body::text("six")));
        known.set(&thread(), &ThreadSettings { pinned: true, ..ThreadSettings::default() });
        known.listed(&[ThreadSummary { name: Some("b".into()), settings: None, ..older }]);
        let now = row(&known);
        assert_eq!((now.unread, now.last.unwrap().id, now.name.as_deref()), (Some(2), MsgId(6), Some("b")));
        assert!(now.settings.unwrap().pinned);
    }

    #[test]
    fn pinned_first_and_what_changed_is_stored_once() {
        let mut known = known(0);
        let other: Thread = "group.g".parse().unwrap();
        known.member(&other, true, Some(Role::Member));
        assert_eq!(row(&known).thread, thread());
        known.set(&other, &ThreadSettings { pinned: true, ..ThreadSettings::default() });
        assert_eq!(row(&known).thread, other);
        known.listed_up_to("2.7".into());
        let changes = known.take_changes();
        assert_eq!((changes.len(), changes.last()), (3, Some(&Change::Listed("2.7".into()))));
        assert!(!known.has_changes());
        let again = KnownThreads::new(true, known.sorted(), known.up_to());
        assert_eq!((again.sorted(), again.up_to()), (known.sorted(), Some("2.7".into())));
    }
}
