//! What the client reports, shown on the screen.

use natterjack_client::{
    ClientEvent,
    protocol::{self, Kind},
};
use serde_json::json;

use super::Chat;
use crate::{
    outcome,
    screen::{Tone, presence_words, standing, took_over, words},
};

impl Chat {
    pub async fn show(&mut self, event: ClientEvent) {
        let screen = &mut self.screen;
        match event {
            ClientEvent::Connected { edge } => {
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
            ClientEvent::Member { thread, id, open, role, .. } => {
                let object = json!({ "thread": thread, "id": id, "open": open, "role": role });
                let place = self.names.thread(&self.client, &thread).await;
                self.screen.say(Tone::Faint, "member", standing(&thread, &place, role), object);
            }
            ClientEvent::Presence { users } => {
                for shown in users {
                    let who = self.names.user(&self.client, &shown.user).await;
                    // A script gets all of it; a person what is about whoever they write to.
                    let here = self.current.as_ref().is_some_and(|t| t.peer(self.client.user()) == Some(&shown.user));
                    let text = here.then(|| format!("{who} is {}", presence_words(&shown)));
                    let object =
                        json!({ "user": shown.user, "name": who, "state": shown.state, "last_seen": shown.last_seen });
                    self.screen.say(Tone::Faint, "presence", text, object);
                }
            }
            ClientEvent::Contacts => {
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
                screen.say(Tone::Bad, "displaced", Some(took_over(&displaced.by)), object);
            }
            ClientEvent::LoggedOut { .. } | ClientEvent::Ended { .. } => {}
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
