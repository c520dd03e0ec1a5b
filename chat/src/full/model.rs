//! What the full-screen chat knows and decides (pure): something happens, `update` changes the state and says what to
//! do about it.
//!
//! No terminal, no client, no clock: `shell` has those. Keys: `keys`; what the SDK says: `events`; what an effect
//! brought: `answers`.

mod answers;
mod effects;
mod events;
mod keys;
mod panel;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use natterjack_client::{
    Local,
    protocol::{Body, Kind, Thread, UserId},
};

pub use self::{
    effects::{Done, Job, JobFailure, UiEffect, UiInput},
    panel::{Notice, Panel},
};
use super::{
    editor::Editor,
    layout::{Areas, areas},
    lines::Look,
    people::NameBook,
    scroll::Anchor,
    threads::{ThreadRow, ThreadTable},
    timeline::{Delivery, Key, PendingMessage},
};
use crate::{
    presence::PresenceBook,
    screen::{Said, Tone},
};

/// How long somebody counts as typing after the last word of it; they say it every few seconds.
const TYPING: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    Connecting,
    /// What was missed is coming.
    Catching {
        edge: String,
    },
    Live {
        edge: String,
    },
    Waiting {
        until: Instant,
    },
    /// Another device is in; how that is told.
    Displaced(String),
}

pub struct Model {
    pub people: NameBook,
    pub threads: ThreadTable,
    pub current: Option<Thread>,
    pub editor: Editor,
    pub size: (u16, u16),
    /// On a narrow screen the list is shown in place of the messages.
    pub list_first: bool,
    pub panel: Option<Panel>,
    pub notice: Option<Notice>,
    pub link: ConnectionState,
    pub degraded: bool,
    pub typing: BTreeMap<(Thread, UserId), Instant>,
    /// How those are shown whom this user talks to.
    pub presence: PresenceBook,
    /// A device that never was in sync: what comes before it is attached is history, not news.
    fresh: bool,
    /// How many threads there were when it was said last who is to be watched.
    watched_of: usize,
    /// Begin with the latest thread, unless another was asked for.
    pick_first: bool,
    next_ticket: u64,
    /// When the others were told that we type.
    told_typing: Option<Instant>,
    /// Sends that have no local key yet, and the first look at the outbox: until then the SDK may name keys that are
    /// not known here.
    unnamed: usize,
    early: Vec<(Local, Delivery)>,
    /// When to ask again for a page that is needed and did not come.
    ask_again: Option<Instant>,
}

impl Model {
    /// `fresh`: this device has no state of an earlier run; `pick_first`: nobody said in which thread to begin.
    pub fn new(me: UserId, name: &str, fresh: bool, pick_first: bool) -> Self {
        Self {
            people: NameBook::new(me, name),
            threads: ThreadTable::default(),
            current: None,
            editor: Editor::default(),
            size: (80, 24),
            list_first: false,
            panel: None,
            notice: None,
            link: ConnectionState::Connecting,
            degraded: false,
            typing: BTreeMap::new(),
            presence: PresenceBook::default(),
            fresh,
            watched_of: 0,
            pick_first,
            next_ticket: 1,
            told_typing: None,
            unnamed: 1,
            early: Vec::new(),
            ask_again: None,
        }
    }

    /// What to do first.
    pub fn start() -> Vec<UiEffect> {
        vec![UiEffect::Job(Job::Outbox), UiEffect::Job(Job::Threads { sync: false })]
    }

    pub fn update(&mut self, input: UiInput, now: Instant) -> Vec<UiEffect> {
        let mut effects = Vec::new();
        match input {
            UiInput::Key(key) => self.key(key, now, &mut effects),
            UiInput::Paste(text) => self.insert(&text, now, &mut effects),
            UiInput::Resize(width, height) => self.size = (width, height),
            UiInput::Event(event) => self.event(*event, now, &mut effects),
            UiInput::Done(done) => self.done(done, now, &mut effects),
            UiInput::Tick => {}
        }
        self.typing.retain(|_, until| *until > now);
        self.notice.take_if(|n| n.until <= now);
        self.presence.stayed_unknown(now);
        self.look(&mut effects);
        self.fetch(now, &mut effects);
        self.watch(&mut effects);
        effects
    }

    /// When time alone changes something.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let typing = self.typing.values().min().copied();
        let notice = self.notice.as_ref().map(|n| n.until);
        // Seconds are counted down.
        let second = matches!(self.link, ConnectionState::Waiting { until } if until > now)
            .then(|| now + Duration::from_millis(500));
        typing.into_iter().chain(notice).chain(self.presence.due()).chain(self.ask_again).chain(second).min()
    }

    pub fn is_online(&self) -> bool {
        matches!(self.link, ConnectionState::Live { .. })
    }

    pub fn here(&self) -> Option<&ThreadRow> {
        self.threads.get(self.current.as_ref()?)
    }

    fn here_mut(&mut self) -> Option<&mut ThreadRow> {
        self.threads.get_mut(self.current.as_ref()?)
    }

    pub fn areas(&self) -> Areas {
        let (width, height) = self.size;
        areas(width, height, |w| self.editor.shown(usize::from(w)).lines.len(), self.list_first)
    }

    /// How the items of the current thread look on this screen.
    pub fn in_pane<'a>(&'a self, entry: &'a ThreadRow, areas: &Areas) -> Look<'a> {
        Look {
            people: &self.people,
            timeline: &entry.timeline,
            width: usize::from(areas.messages.width.max(1)),
            online: self.is_online(),
            got: entry.peer_got,
            read: entry.peer_read,
        }
    }

    pub fn open(&mut self, thread: Thread, now: Instant, effects: &mut Vec<UiEffect>) {
        self.pick_first = false;
        self.list_first = false;
        self.people.meet_thread(&thread, now, effects);
        if self.current.as_ref() == Some(&thread) {
            return;
        }
        let draft = std::mem::take(&mut self.editor);
        if let Some(left) = self.here_mut() {
            left.draft = draft;
            left.timeline.new_from = None;
            left.anchor = Anchor::default();
            left.timeline.trim();
            let begun = left.draft.text();
            if left.settings.draft.as_deref().unwrap_or_default() != begun && !begun.starts_with('/') {
                let (thread, draft) = (left.thread.clone(), begun.to_owned());
                left.settings.draft = (!draft.is_empty()).then(|| draft.clone());
                effects.push(UiEffect::Job(Job::Draft { thread, draft }));
            }
        } else {
            self.editor = draft;
        }
        let entry = self.threads.entry(&thread);
        let draft = std::mem::take(&mut entry.draft);
        if self.editor.is_empty() {
            self.editor = draft;
        }
        if entry.timeline.is_empty() {
            effects.push(UiEffect::Job(Job::Messages(thread.clone())));
        }
        self.current = Some(thread);
    }

    /// What is being written when somebody leaves, if it is to be kept.
    pub fn begun(&self) -> Option<(Thread, String)> {
        let (here, text) = (self.here()?, self.editor.text());
        let kept = here.settings.draft.as_deref().unwrap_or_default();
        (text != kept && !text.starts_with('/')).then(|| (here.thread.clone(), text.to_owned()))
    }

    /// Gives a message to the outbox, in the current thread.
    fn send(&mut self, kind: Kind, body: Body, effects: &mut Vec<UiEffect>) {
        let Some(thread) = self.current.clone() else { return };
        let ticket = self.ticket();
        self.unnamed += 1;
        let entry = self.threads.entry(&thread);
        let text = body.text.clone().unwrap_or_default();
        entry.timeline.pending.push(PendingMessage { ticket, local: None, kind, text, state: Delivery::Waiting });
        entry.anchor = Anchor::default();
        if entry.settings.draft.take().is_some() {
            effects.push(UiEffect::Job(Job::Draft { thread: thread.clone(), draft: String::new() }));
        }
        self.told_typing = None;
        effects.push(UiEffect::Job(Job::Send { ticket, thread, kind, body: Box::new(body) }));
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn say(&mut self, tone: Tone, text: impl Into<String>, now: Instant) {
        self.notice = Some(Notice::new(Said { tone, text: text.into() }, now));
    }

    fn shows_messages(&self) -> bool {
        self.panel.is_none() && !self.areas().messages.is_empty()
    }

    /// Asks for what is on the screen, or less than a screen above it, and is not here.
    fn fetch(&mut self, now: Instant, effects: &mut Vec<UiEffect>) {
        self.ask_again = None;
        let areas = self.areas();
        let (Some(here), true) = (self.here(), self.is_online()) else { return };
        let want = here.timeline.first_want().or_else(|| {
            let look = self.in_pane(here, &areas);
            let (lowest, _) = here.anchor.lowest(&here.timeline, |k| look.height(k));
            let (mut lines, mut at) = (0, Some(lowest));
            while let Some(key) = at.filter(|_| lines <= 2 * usize::from(areas.messages.height)) {
                if let Some(want) = here.timeline.want_at(key) {
                    return Some(want);
                }
                lines += look.height(key);
                at = here.timeline.before(key);
            }
            None
        });
        let (Some(want), Some(thread)) = (want, self.current.clone()) else { return };
        let Some(here) = self.here_mut() else { return };
        if here.timeline.ask(want, now) {
            effects.push(UiEffect::Job(Job::Page { thread, want }));
        } else {
            self.ask_again = here.timeline.again();
        }
    }

    fn scroll(&mut self, by: impl FnOnce(Anchor, usize, &ThreadRow, &dyn Fn(Key) -> usize) -> Anchor) {
        let areas = self.areas();
        let Some(here) = self.here() else { return };
        let look = self.in_pane(here, &areas);
        let anchor = by(here.anchor, usize::from(areas.messages.height), here, &|k| look.height(k));
        if let Some(here) = self.here_mut() {
            here.anchor = anchor;
        }
    }
}

#[cfg(test)]
mod tests;
