//! `natterjack chat` on a terminal, full screen (step 1 for people): the loop that owns the terminal and the client.
//!
//! What it knows and decides is in `model`, what it looks like in `view`; both are pure and know neither terminal nor
//! client. `work` carries out what the model asks for, `terminal` gives the screen back whatever happens.

mod editor;
mod layout;
mod lines;
mod model;
mod people;
mod scroll;
mod terminal;
#[cfg(test)]
mod testing;
mod threads;
mod timeline;
mod view;
mod work;
mod wrap;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crossterm::event::{Event as FromTerminal, EventStream};
use futures_util::StreamExt;
use natterjack_client::{Client, Events, protocol::client::thread_settings::SettingsChange};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    model::{Model, UiEffect, UiInput},
    terminal::FullScreen,
    work::Work,
};
use super::{act::Chat, names::NameCache, screen::Screen};

/// Frames come no faster: a page of what was missed is drawn once, not once per message.
const FRAME: Duration = Duration::from_millis(25);
/// The outbox is a local file; whoever quits does not wait longer for it.
const STORE: Duration = Duration::from_secs(3);

pub struct Begin {
    pub to: Option<String>,
    pub group: Option<String>,
    /// This device has no state of an earlier run.
    pub fresh: bool,
}

/// Until somebody quits, or it cannot go on.
pub async fn run(client: &Client, mut events: Events, begin: Begin) -> anyhow::Result<()> {
    let begin_with = (begin.to.is_some() || begin.group.is_some()).then_some((begin.to, begin.group));
    let mut model = Model::new(client.user().clone(), client.name(), begin.fresh, begin_with.is_none());
    let mut work =
        Work::new(client.clone(), Chat::new(client.clone(), NameCache::new(client), Screen::kept()), begin_with);
    let ended = Box::pin(talk(&mut model, &mut work, client, &mut events)).await;
    // A file that does not answer is no reason to stay, nor is an edge.
    let _ = tokio::time::timeout(STORE, work.finish_sends()).await;
    if let Some((thread, draft)) = model.begun() {
        let change = SettingsChange { draft: Some(draft), ..SettingsChange::default() };
        let _ = tokio::time::timeout(STORE, client.set_thread(&thread, &change)).await;
    }
    ended
}

async fn talk(model: &mut Model, work: &mut Work, client: &Client, events: &mut Events) -> anyhow::Result<()> {
    let mut ends = Ends::watch().context("watch for signals")?;
    let mut screen = FullScreen::enter().context("the terminal cannot be a full screen (--plain needs none)")?;
    let mut keys = EventStream::new();
    let (width, height) = screen.size()?;
    model.update(UiInput::Resize(width, height), Instant::now());
    let mut effects = Model::start();
    let mut drawn: Option<Instant> = None;
    let mut changed = true;
    loop {
        for effect in effects.drain(..) {
            match effect {
                UiEffect::Job(job) => work.start(job),
                UiEffect::Typing(thread) => client.typing(thread),
                UiEffect::Watch(users) => client.watch(Some(users)).await?,
                UiEffect::Read(thread, id) => client.read(thread, id).await?,
                UiEffect::Redraw => screen.clear()?,
                UiEffect::Suspend => screen.suspend()?,
                UiEffect::Quit => return Ok(()),
                UiEffect::End(why) => bail!(why),
            }
            changed = true;
        }
        let now = Instant::now();
        let due = drawn.map_or(now, |at| at + FRAME);
        if changed && due <= now {
            let size = screen.size()?;
            if size != model.size {
                effects = model.update(UiInput::Resize(size.0, size.1), now);
                continue;
            }
            screen.draw(|frame| view::draw(model, frame, now)).context("draw")?;
            (drawn, changed) = (Some(now), false);
        }
        let wake = if changed { Some(due) } else { model.wake(now) };
        // Order: whoever wants to leave comes first, then what people do, then what they are told.
        let input = tokio::select! {
            biased;
            () = ends.next() => return Ok(()),
            key = keys.next() => match key {
                Some(Ok(FromTerminal::Key(key))) => UiInput::Key(key),
                Some(Ok(FromTerminal::Paste(text))) => UiInput::Paste(text),
                Some(Ok(FromTerminal::Resize(width, height))) => UiInput::Resize(width, height),
                Some(Ok(_)) => UiInput::Tick,
                Some(Err(e)) => return Err(e).context("read the terminal"),
                None => bail!("the terminal is gone"),
            },
            done = work.done() => UiInput::Done(done),
            event = events.next() => match event {
                Some(event) => UiInput::Event(Box::new(event)),
                None => bail!("the client has stopped"),
            },
            () = until(wake) => UiInput::Tick,
        };
        changed = true;
        effects.extend(model.update(input, Instant::now()));
    }
}

/// A time in the past is now.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The ways in which somebody else ends us: all give the terminal back first.
struct Ends([Signal; 3]);

impl Ends {
    fn watch() -> std::io::Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]))
    }

    /// Safe to drop while it waits.
    async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
