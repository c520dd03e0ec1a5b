//! What the tests of the full screen share.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use natterjack_client::{
    ClientEvent,
    protocol::{
        Body, Cid, Event, Kind, MsgId, Thread, Token, UserId,
        client::frame::{Page, ThreadSummary},
    },
};
use ratatui::{Terminal, backend::TestBackend};

use super::{
    model::{Done, Job, Model, UiEffect, UiInput},
    timeline::PageWanted,
    view,
};

/// Saturday 21 November 2026, 11:25.
pub const TS: u64 = 1_795_260_309_000;

pub fn user(name: &str) -> UserId {
    Token::parse(name).unwrap()
}

pub fn dm(other: &str) -> Thread {
    Thread::dm(&user("me"), &user(other))
}

pub fn event(thread: &Thread, id: u64, from: &str, text: &str) -> Event {
    Event {
        thread: thread.clone(),
        id: MsgId(id),
        prev: MsgId(id - 1),
        ts: TS + id * 1_000,
        from: user(from),
        cid: Cid::mint(TS + id, [0; 10]),
        kind: Kind::Text,
        body: Body::text(text),
    }
}

pub fn op(thread: &Thread, id: u64, from: &str, kind: Kind, target: u64, body: Body) -> Event {
    Event { kind, body: Body { target: Some(MsgId(target)), ..body }, ..event(thread, id, from, "") }
}

/// Ids from `first` to `last`, with nothing missing between them.
pub fn page(thread: &Thread, first: u64, last: u64) -> Page {
    let events = (first..=last).map(|id| event(thread, id, "bob", &format!("message {id}"))).collect();
    Page { events, prev: MsgId(first - 1), ..Page::default() }
}

/// Nothing of it was read.
pub fn summary(name: &str, last: Option<Event>) -> ThreadSummary {
    let active = last.as_ref().map_or(0, |e| e.ts);
    ThreadSummary { last, active, read: Some(MsgId::NONE), ..ThreadSummary::of(dm(name)) }
}

/// A model on a screen, with a clock of its own.
pub struct Chat {
    pub model: Model,
    pub now: Instant,
    /// All but who is to be watched, and what was read.
    pub effects: Vec<UiEffect>,
    pub watched: Vec<UserId>,
    pub read: HashMap<Thread, MsgId>,
}

impl Chat {
    /// Connected, in the thread with bob, which has the messages 1 to `messages`.
    pub fn with(width: u16, height: u16, messages: u64) -> Self {
        let mut chat = Self::new(width, height);
        chat.connect();
        let last = Some(event(&dm("bob"), messages.max(1), "bob", "x"));
        let bob = summary("bob", last);
        chat.done(Done::Threads { threads: vec![bob], failed: None });
        assert_eq!(chat.pages(), [PageWanted::Newest]);
        chat.page(PageWanted::Newest, if messages > 0 { page(&dm("bob"), 1, messages) } else { Page::default() });
        chat.effects.clear();
        chat
    }

    pub fn new(width: u16, height: u16) -> Self {
        let mut chat = Self {
            model: Model::new(user("me"), "me", true, true),
            now: Instant::now(),
            effects: Vec::new(),
            watched: Vec::new(),
            read: HashMap::new(),
        };
        chat.input(UiInput::Resize(width, height));
        chat.done(Done::Outbox { rows: Vec::new() });
        chat
    }

    pub fn connect(&mut self) {
        self.sdk(ClientEvent::Connected { edge: "ws://edge".into() });
        self.sdk(ClientEvent::Attached);
    }

    pub fn input(&mut self, input: UiInput) {
        for effect in self.model.update(input, self.now) {
            match effect {
                UiEffect::Watch(users) => self.watched = users,
                UiEffect::Read(thread, id) => drop(self.read.insert(thread, id)),
                effect => self.effects.push(effect),
            }
        }
    }

    pub fn sdk(&mut self, event: ClientEvent) {
        self.input(UiInput::Event(Box::new(event)));
    }

    pub fn message(&mut self, event: Event) {
        self.sdk(ClientEvent::Message(event));
    }

    pub fn done(&mut self, done: Done) {
        self.input(UiInput::Done(done));
    }

    pub fn page(&mut self, want: PageWanted, page: Page) {
        self.done(Done::Page { thread: dm("bob"), want, result: Ok(page) });
    }

    pub fn key(&mut self, code: KeyCode) {
        self.input(UiInput::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }

    pub fn control(&mut self, c: char) {
        self.input(UiInput::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)));
    }

    pub fn write(&mut self, line: &str) {
        line.chars().for_each(|c| self.key(KeyCode::Char(c)));
        self.key(KeyCode::Enter);
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.input(UiInput::Tick);
    }

    /// The pages asked for since the last time.
    pub fn pages(&mut self) -> Vec<PageWanted> {
        let mut pages = Vec::new();
        self.effects.retain(|e| match e {
            UiEffect::Job(Job::Page { want, .. }) => {
                pages.push(*want);
                false
            }
            _ => true,
        });
        pages
    }

    /// The sends asked for since the last time: ticket and text.
    pub fn sends(&mut self) -> Vec<(u64, String)> {
        let mut sends = Vec::new();
        self.effects.retain(|e| match e {
            UiEffect::Job(Job::Send { ticket, body, .. }) => {
                sends.push((*ticket, body.text.clone().unwrap_or_default()));
                false
            }
            _ => true,
        });
        sends
    }

    /// Every line of the screen, without the spaces at its end.
    pub fn screen(&self) -> Vec<String> {
        let (width, height) = self.model.size;
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view::draw(&self.model, frame, self.now)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y: u16| {
            let mut line = String::new();
            let mut x = 0;
            while x < width {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                // A wide character covers the cell behind it.
                x += u16::try_from(super::wrap::width(symbol)).unwrap().max(1);
            }
            line.trim_end().to_owned()
        };
        (0..height).map(line).collect()
    }

    pub fn sees(&self, text: &str) -> bool {
        self.screen().iter().any(|l| l.contains(text))
    }
}
