//! What the chat does: commands to the client, events to the screen.

mod events;
mod group;
mod outbox;
mod people;
mod reading;
mod sessions;
pub mod settings;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use natterjack_client::{
    Client, Local, RequestError,
    protocol::{
        self, Body, Code, DeviceId, Kind, MsgId, Thread, UserId,
        client::{frame::ThreadSummary, http::Profile, presence::PresenceChange},
    },
};
use serde_json::json;
use tokio::time::Instant;

use self::people::contact_words;
use super::{
    line::{self, InputLine},
    names::NameCache,
    presence::{PresenceBook, chosen_words},
    screen::{Screen, Tone, one_line},
};

/// An unconfirmed message is shown as such after this long; most are confirmed earlier.
const MENTION: Duration = Duration::from_millis(500);
/// How long the start waits for an edge that answers.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(300);

pub struct Chat {
    pub client: Client,
    names: NameCache,
    pub screen: Screen,
    current: Option<Thread>,
    /// Written and not confirmed; when to mention it, if that was not done.
    sending: BTreeMap<Local, Option<Instant>>,
    /// The own last message of each thread, for `/edit` and `/recall`.
    mine: HashMap<Thread, MsgId>,
    /// The newest message of each thread that was shown.
    newest: HashMap<Thread, MsgId>,
    presence: PresenceBook,
    /// The devices as they were listed last, for `/sessions end N`.
    listed: Vec<DeviceId>,
}

impl Chat {
    pub fn new(client: Client, names: NameCache, screen: Screen) -> Self {
        Self {
            client,
            names,
            screen,
            current: None,
            sending: BTreeMap::new(),
            mine: HashMap::new(),
            newest: HashMap::new(),
            presence: PresenceBook::default(),
            listed: Vec::new(),
        }
    }

    /// Picks the first thread. Waits for an edge for a while: with `up` both may start at once.
    pub async fn begin(&mut self, to: Option<&str>, group: Option<&str>) -> anyhow::Result<()> {
        let place = match (to, group) {
            (Some(to), _) => to.to_owned(),
            (None, Some(group)) => format!("#{}", group.trim_start_matches('#')),
            (None, None) => {
                let text = "no thread yet: /to NAME opens one, /help lists commands".to_owned();
                self.screen.say_text(Tone::Faint, text);
                return Ok(());
            }
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.go_to(&place).await {
                Err(e) if is_passing(&e) && Instant::now() + told(&e) < deadline => tokio::time::sleep(told(&e)).await,
                done => return done,
            }
        }
    }

    pub fn current(&self) -> Option<&Thread> {
        self.current.as_ref()
    }

    /// The caller keeps the current thread: the next line goes there.
    pub fn go_back_to(&mut self, thread: Option<Thread>) {
        self.current = thread;
    }

    pub async fn place(&mut self, thread: &Thread) -> String {
        self.names.thread(&self.client, thread).await
    }

    /// When `tick` wants to be called.
    pub fn wake(&self) -> Option<Instant> {
        let unknown = self.presence.due().map(Instant::from_std);
        self.sending.values().filter_map(|at| *at).chain(unknown).min()
    }

    pub async fn tick(&mut self) {
        let now = Instant::now();
        for (local, at) in &mut self.sending {
            if at.is_some_and(|t| t <= now) {
                *at = None;
                self.screen.say_text(Tone::Faint, format!("… sending ({})", local.0));
            }
        }
        let unknown = self.presence.stayed_unknown(now.into_std());
        self.say_presence(unknown).await;
    }

    /// One line of input. False: quit. What goes wrong is said and not fatal.
    pub async fn line(&mut self, line: &str) -> bool {
        let line = match line::parse(line) {
            Ok(InputLine::Quit) => return false,
            Ok(line) => line,
            Err(why) => {
                self.screen.problem(&why);
                return true;
            }
        };
        if let Err(e) = self.act(line).await {
            self.screen.problem(&format!("{e:#}"));
        }
        true
    }

    async fn act(&mut self, line: InputLine) -> anyhow::Result<()> {
        match line {
            InputLine::Nothing | InputLine::Quit => {}
            InputLine::Text(text) => self.send(Kind::Text, Body::text(text)).await?,
            InputLine::To(name) => self.go_to(&name).await?,
            InputLine::Group(change) => self.group(change).await?,
            InputLine::Threads => self.threads(false).await?,
            InputLine::ArchivedThreads => self.threads(true).await?,
            InputLine::Set(command) => self.set(command).await?,
            InputLine::ReadAll => self.read_all().await?,
            InputLine::History(n) => self.history(n).await?,
            InputLine::Find(prefix) => {
                let found = self.client.find(&prefix).await?;
                found.iter().for_each(|p| self.names.learn(p));
                let lines = found.iter().map(|p| format!("  {} ({})", one_line(&p.name), p.user));
                self.list("users", lines, json!({ "users": found }), "nobody");
            }
            InputLine::Contacts => self.contacts().await?,
            InputLine::Contact(name, change) => {
                let user = self.user(&name).await?.user;
                let state = self.client.contact(&user, change).await?;
                let text = state.map_or("done".to_owned(), |s| format!("{name}: {}", contact_words(s)));
                self.screen.say(Tone::Good, "contact", Some(text), json!({ "user": user, "state": state }));
            }
            InputLine::Blocks => self.blocks().await?,
            InputLine::Block(name) => {
                let user = self.user(&name).await?.user;
                self.client.block(&user).await?;
                self.done("blocked", format!("{name} can no longer write to you"), &user);
            }
            InputLine::Unblock(name) => {
                let user = self.user(&name).await?.user;
                self.client.unblock(&user).await?;
                self.done("unblocked", format!("{name} may write to you again"), &user);
            }
            InputLine::Edit(id, text) => {
                let target = Some(self.target(id)?);
                self.send(Kind::Edit, Body { target, ..Body::text(text) }).await?;
            }
            InputLine::Recall(id) => {
                let target = Some(self.target(id)?);
                self.send(Kind::Recall, Body { target, ..Body::default() }).await?;
            }
            InputLine::Receipts(id) => self.receipts(id).await?,
            InputLine::GiveReceipts(receipts) => self.give_receipts(receipts).await?,
            InputLine::Read(id) => self.read(id).await?,
            InputLine::Typing => self.client.typing(self.here()?),
            InputLine::Choose(choice) => {
                let change = PresenceChange { choice: Some(choice), ..PresenceChange::default() };
                let now = self.client.set_presence(change).await?;
                let text = format!("you are shown as {}", chosen_words(now.choice));
                self.screen.say(
                    Tone::Good,
                    "presence_settings",
                    Some(text),
                    json!({ "choice": now.choice, "since": now.since }),
                );
            }
            InputLine::Sessions => self.sessions().await?,
            InputLine::EndSession(which) => self.end_session(&which).await?,
            InputLine::EndOtherSessions => self.end_other_sessions().await?,
            InputLine::TakeOver => self.take_over().await?,
            InputLine::Outbox => self.outbox().await?,
            InputLine::Discard(which) => self.discard(which).await?,
            InputLine::Help => {
                self.screen.say(Tone::Plain, "help", Some(line::HELP.to_owned()), json!({ "text": line::HELP }))
            }
        }
        Ok(())
    }

    async fn send(&mut self, kind: Kind, body: Body) -> anyhow::Result<()> {
        let thread = self.here()?;
        let local = self.client.send(thread.clone(), kind, body).await?;
        self.sending.insert(local, Some(Instant::now() + MENTION));
        self.screen.say(Tone::Faint, "sending", None, json!({ "local": local.0, "thread": thread }));
        Ok(())
    }

    fn here(&self) -> anyhow::Result<Thread> {
        self.current.clone().context("no thread yet: /to NAME first")
    }

    fn target(&self, id: Option<MsgId>) -> anyhow::Result<MsgId> {
        let last = || self.current.as_ref().and_then(|t| self.mine.get(t)).copied();
        id.or_else(last).context("which message? Name it by #ID")
    }

    async fn user(&mut self, name: &str) -> anyhow::Result<Profile> {
        match self.client.find_name(name).await? {
            Some(profile) => {
                self.names.learn(&profile);
                Ok(profile)
            }
            None => bail!("there is no user {name:?}; /find looks for the beginning of a name"),
        }
    }

    async fn users(&mut self, names: &[String]) -> anyhow::Result<Vec<UserId>> {
        let mut users = Vec::with_capacity(names.len());
        for name in names {
            users.push(self.user(name).await?.user);
        }
        Ok(users)
    }

    async fn go_to(&mut self, name: &str) -> anyhow::Result<()> {
        let thread = match name.strip_prefix('#') {
            None => {
                let other = self.user(name).await?.user;
                self.client.dm(&other)
            }
            Some(group) => self.find_group(group).await?,
        };
        self.enter(thread).await;
        Ok(())
    }

    async fn enter(&mut self, thread: Thread) {
        let place = self.names.thread(&self.client, &thread).await;
        self.screen.say(Tone::Faint, "thread", Some(format!("→ {place}")), json!({ "thread": thread, "place": place }));
        self.presence.forget();
        // Of a group nobody is watched: it may be large.
        let peer = thread.peer(self.client.user()).cloned();
        if let Err(e) = self.client.watch(Some(peer.into_iter().collect())).await {
            tracing::debug!(error = %e, "nobody is watched");
        }
        self.current = Some(thread.clone());
        self.looked_at(&thread).await;
    }

    async fn find_group(&mut self, name: &str) -> anyhow::Result<Thread> {
        let lower = name.to_lowercase();
        let is_it = |t: &ThreadSummary| match &t.thread {
            Thread::Group { gid } => {
                gid.as_str() == name
                    || t.thread.to_string() == name
                    || t.name.as_ref().is_some_and(|n| n.to_lowercase() == lower)
            }
            Thread::Dm { .. } => false,
        };
        self.client.sync_threads().await?;
        let known = self.client.known_threads().await?;
        known.iter().for_each(|t| self.names.learn_thread(t));
        match known.iter().find(|t| is_it(t)) {
            Some(found) => Ok(found.thread.clone()),
            None => bail!("you are in no group {name:?}"),
        }
    }

    fn list(&mut self, kind: &str, lines: impl Iterator<Item = String>, object: serde_json::Value, empty: &str) {
        let text = lines.collect::<Vec<_>>().join("\n");
        self.screen.say(Tone::Plain, kind, Some(if text.is_empty() { empty.to_owned() } else { text }), object);
    }

    fn done(&mut self, kind: &str, text: String, user: &UserId) {
        self.screen.say(Tone::Good, kind, Some(text), json!({ "user": user }));
    }
}

/// Will it be better in a moment?
fn is_passing(e: &anyhow::Error) -> bool {
    match e.downcast_ref::<RequestError>() {
        Some(RequestError::Unreachable { .. } | RequestError::Timeout(_)) => true,
        Some(RequestError::Refused(r)) => matches!(r.code, Code::Unavailable | Code::RateLimited),
        _ => false,
    }
}

/// How long to wait before asking again.
fn told(e: &anyhow::Error) -> Duration {
    let told = match e.downcast_ref::<RequestError>() {
        Some(RequestError::Refused(r)) => r.retry_after_ms.unwrap_or(0),
        _ => 0,
    };
    Duration::from_millis(told).clamp(AGAIN, PATIENCE)
}

/// The group's id in a thread's name.
fn gid(thread: &Thread) -> anyhow::Result<&protocol::GroupId> {
    match thread {
        Thread::Group { gid } => Ok(gid),
        Thread::Dm { .. } => Err(anyhow!("this is not a group: /to #GROUP first")),
    }
}
