//! The threads of this user as the list shows them (pure): pinned ones first, then the latest activity, with what came
//! while nobody looked.

use std::collections::HashMap;

use natterjack_client::protocol::{
    MsgId, Thread,
    client::{
        frame::{Receipt, ThreadSummary},
        thread_settings::ThreadSettings,
    },
};

use super::{editor::Editor, scroll::Anchor, timeline::Timeline};

#[derive(Debug)]
pub struct ThreadRow {
    pub thread: Thread,
    /// Of the last event, ms since 1970; 0: none.
    pub active: u64,
    /// Messages of others that this user has not read, on any device.
    pub unread: usize,
    /// Up to here the user has read, and the newest message that is known.
    pub read: MsgId,
    pub last: MsgId,
    /// Of a conversation of two: up to here the other one has it, and has read it.
    pub peer_got: MsgId,
    pub peer_read: MsgId,
    /// May write here.
    pub open: bool,
    pub settings: ThreadSettings,
    pub timeline: Timeline,
    pub anchor: Anchor,
    /// What was being written when another thread was opened.
    pub draft: Editor,
}

impl ThreadRow {
    /// Of the other one.
    pub fn receipts(&mut self, receipts: &[Receipt]) {
        if matches!(self.thread, Thread::Dm { .. }) {
            for receipt in receipts {
                self.peer_got = self.peer_got.max(receipt.got);
                self.peer_read = self.peer_read.max(receipt.read);
            }
        }
    }

    /// Here, or on another device: what somebody has begun there goes on here, unless something was begun here.
    pub fn set(&mut self, settings: ThreadSettings) {
        let here = self.draft.text();
        if here.is_empty() || self.settings.draft.as_deref() == Some(here) {
            self.draft = Editor::default();
            self.draft.insert(settings.draft.as_deref().unwrap_or_default());
        }
        self.settings = settings;
    }

    /// Here, or on another device.
    pub fn was_read(&mut self, upto: MsgId) {
        self.read = self.read.max(upto);
        if self.read >= self.last {
            self.unread = 0;
        }
    }
}

#[derive(Debug, Default)]
pub struct ThreadTable {
    all: HashMap<Thread, ThreadRow>,
}

impl ThreadTable {
    pub fn get(&self, thread: &Thread) -> Option<&ThreadRow> {
        self.all.get(thread)
    }

    pub fn get_mut(&mut self, thread: &Thread) -> Option<&mut ThreadRow> {
        self.all.get_mut(thread)
    }

    pub fn entry(&mut self, thread: &Thread) -> &mut ThreadRow {
        self.all.entry(thread.clone()).or_insert_with(|| ThreadRow {
            thread: thread.clone(),
            active: 0,
            unread: 0,
            read: MsgId::NONE,
            last: MsgId::NONE,
            peer_got: MsgId::NONE,
            peer_read: MsgId::NONE,
            open: true,
            settings: ThreadSettings::default(),
            timeline: Timeline::default(),
            anchor: Anchor::default(),
            draft: Editor::default(),
        })
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn learn(&mut self, summary: &ThreadSummary) {
        let entry = self.entry(&summary.thread);
        entry.open = summary.open;
        entry.active = entry.active.max(summary.active);
        if let Some(settings) = &summary.settings {
            entry.set(settings.clone());
        }
        let last = summary.last.as_ref().map_or(MsgId::NONE, |e| e.id);
        // What came since is counted here.
        if last >= entry.last {
            entry.last = last;
            if summary.read.is_some_and(|read| read >= entry.read)
                && let Some(unread) = summary.unread
            {
                entry.unread = usize::from(unread);
            }
        }
        entry.was_read(summary.read.unwrap_or_default());
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut ThreadRow> {
        self.all.values_mut()
    }

    pub fn sorted(&self) -> Vec<&ThreadRow> {
        let mut all: Vec<_> = self.all.values().filter(|row| !row.settings.archived).collect();
        all.sort_by(|a, b| {
            (b.settings.pinned, b.active).cmp(&(a.settings.pinned, a.active)).then_with(|| a.thread.cmp(&b.thread))
        });
        all
    }

    /// So many entries down (or up) the list, round its ends.
    pub fn beside(&self, current: Option<&Thread>, by: isize) -> Option<Thread> {
        let all = self.sorted();
        let count = isize::try_from(all.len()).ok().filter(|n| *n > 0)?;
        let at = match current.and_then(|c| all.iter().position(|e| &e.thread == c)) {
            Some(at) => isize::try_from(at).ok()? + by,
            None => 0,
        };
        let at = usize::try_from(at.rem_euclid(count)).ok()?;
        Some(all[at].thread.clone())
    }

    /// The next one with something unread, else the next one.
    pub fn next_unread(&self, current: Option<&Thread>) -> Option<Thread> {
        let unread =
            self.sorted().into_iter().find(|e| e.unread > 0 && Some(&e.thread) != current).map(|e| e.thread.clone());
        unread.or_else(|| self.beside(current, 1))
    }

    pub fn unsent(&self) -> usize {
        self.all.values().map(|e| e.timeline.waiting()).sum()
    }
}
