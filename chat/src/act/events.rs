//! What the client reports, shown on the screen.

use natterjack_client::{
    ClientEvent,
    protocol::{self, Kind, Thread, client::presence::PresenceOf},
};
use serde_json::json;
use tokio::time::Instant;

use super::Chat;
use crate::{
    outcome,
    presence::presence_words,
    screen::{Tone, standing, took_over, words},
};

impl Chat {
    pub async fn show(&mut self, event: ClientEvent) {
        let screen = &mut self.screen;
        match event {
            ClientEvent::Connected { edge } => {
                self.presence.forget();
                screen.say(Tone::Faint, "connected", Some(format!("connected to {edge}")), json!({ "edge": edge }))
            }
            ClientEvent::Attached => screen.say(Tone::Faint, "attached", None, json!({})),
            ClientEvent::Reconnecting { wait } => {
                screen.say(
                    Tone::Faint,
                    "reconnecting",
                    Some("reconnecting…".into()),
                    json!({ "wait_ms": wait.as_millis() as u64 }),
                );
            }
            ClientEvent::Message(event) => {
                self.message(&event).await;
                self.newest.insert(event.thread.clone(), event.id);
                self.looked_at(&event.thread).await;
                // Somebody who gets a message before choosing a thread can answer at once. A script chooses its thread.
                let to_us = event.kind.is_message() && event.from != *self.client.user();
                if to_us && self.current.is_none() && !self.screen.is_json() {
                    self.enter(event.thread).await;
                }
            }
            ClientEvent::Sent { local, thread, cid, id } => {
                self.sending.remove(&local);
                self.mine.insert(thread.clone(), id);
                let object = json!({ "local": local.0, "thread": thread, "cid": cid, "id": id });
                screen.say(Tone::Good, "sent", Some(format!("✓ sent #{id}")), object);
            }
            ClientEvent::Failed { local, thread, refusal } => {
                self.sending.remove(&local);
                let object =
                    json!({ "local": local.0, "thread": thread, "code": refusal.code, "message": refusal.message });
                screen.say(Tone::Bad, "failed", Some(format!("✗ {}", outcome(&refusal))), object);
            }
            ClientEvent::Typing { thread, user } => {
                let (place, who) =
                    (self.names.thread(&self.client, &thread).await, self.names.user(&self.client, &user).await);
                let text = format!("[{place}] {who} is typing…");
                self.screen.say(
                    Tone::Faint,
                    "typing",
                    Some(text),
                    json!({ "thread": thread, "user": user, "name": who }),
                );
            }
            ClientEvent::Read { thread, id } => {
                screen.say(Tone::Faint, "read", None, json!({ "thread": thread, "id": id }));
            }
            ClientEvent::Settings { thread, settings } => {
                screen.say(Tone::Faint, "set", None, json!({ "thread": thread, "settings": settings }));
            }
            ClientEvent::Receipts { thread, receipts } => {
                screen.say(Tone::Faint, "receipts", None, json!({ "thread": thread, "users": receipts }));
            }
            ClientEvent::Member { thread, id, open, role, .. } => {
                let object = json!({ "thread": thread, "id": id, "open": open, "role": role });
                let place = self.names.thread(&self.client, &thread).await;
                self.screen.say(Tone::Faint, "member", standing(&thread, &place, role), object);
            }
            ClientEvent::Presence { users } => {
                // A script gets all of it as it comes.
                if screen.is_json() {
                    for of in &users {
                        let name = self.names.user(&self.client, &of.user).await;
                        let object =
                            json!({ "user": of.user, "name": name, "state": of.state, "last_seen": of.last_seen });
                        self.screen.say(Tone::Faint, "presence", None, object);
                    }
                }
                let changed = self.presence.hear(users, Instant::now().into_std());
                self.say_presence(changed).await;
            }
            ClientEvent::Contacts => {
                self.names.forget_users();
                screen.say(Tone::Faint, "contacts_changed", Some("your contacts changed: /contacts".into()), json!({}))
            }
            ClientEvent::Skipped { thread, from, to } => {
                let text = format!("older missed messages are not fetched: /history shows what is before #{to}");
                screen.say(Tone::Faint, "skipped", Some(text), json!({ "thread": thread, "from": from, "to": to }));
            }
            ClientEvent::Degraded { on } => {
                let text = if on {
                    "the server has no connection to the log, messages wait…"
                } else {
                    "the server reaches the log again"
                };
                screen.say(Tone::Faint, "degraded", Some(text.into()), json!({ "on": on }));
            }
            ClientEvent::Displaced(displaced) => {
                let object = json!({ "by": displaced.by, "since": displaced.since });
                screen.say(
                    Tone::Bad,
                    "displaced",
                    Some(format!("{}: /here takes over again", took_over(&displaced.by))),
                    object,
                );
            }
            ClientEvent::LoggedOut { .. } | ClientEvent::Ended { .. } => {}
        }
    }

    /// To a person, of whoever they write to.
    pub(super) async fn say_presence(&mut self, changed: Vec<PresenceOf>) {
        for of in changed {
            if self.current.as_ref().is_some_and(|t| t.peer(self.client.user()) == Some(&of.user)) {
                let who = self.names.user(&self.client, &of.user).await;
                self.screen.say_text(Tone::Faint, format!("{who} is {}", presence_words(&of)));
            }
        }
    }

    /// A person who has the thread before them has read what stands there. A script says so itself.
    pub(super) async fn looked_at(&mut self, thread: &Thread) {
        if self.current.as_ref() == Some(thread)
            && !self.screen.is_json()
            && let Some(id) = self.newest.get(thread)
        {
            let _ = self.client.read(thread.clone(), *id).await;
        }
    }

    pub(super) async fn message(&mut self, event: &protocol::Event) {
        if let (Kind::GroupCreated | Kind::GroupRenamed, Some(name)) = (event.kind, &event.body.name) {
            self.names.learn_group(event.thread.clone(), name);
        }
        if &event.from == self.client.user() && event.kind.is_message() {
            self.mine.insert(event.thread.clone(), event.id);
        }
        let (who, text) = self.words(event).await;
        let place = self.names.thread(&self.client, &event.thread).await;
        self.screen.message(event, &who, &place, text);
    }

    pub(super) async fn words(&mut self, event: &protocol::Event) -> (String, String) {
        let who = self.names.user(&self.client, &event.from).await;
        let users = self.names.users(&self.client, &event.body.users).await;
        let text = words(event, &who, &users);
        (who, text)
    }
}
