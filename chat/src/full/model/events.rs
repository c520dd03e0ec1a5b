//! What the SDK says (pure): messages, deliveries, the connection.

use std::time::Instant;

use natterjack_client::{
    ClientEvent, Local,
    protocol::{
        self, Thread,
        client::{presence::PresenceOf, thread_settings::ThreadSettings},
        limits::WATCHED_USERS,
    },
};

use super::{ConnectionState, Delivery, Job, Model, TYPING, UiEffect};
use crate::{
    outcome,
    screen::{Tone, standing, took_over},
};

impl Model {
    pub(super) fn event(&mut self, event: ClientEvent, now: Instant, effects: &mut Vec<UiEffect>) {
        match event {
            ClientEvent::Connected { edge } => {
                self.presence.forget();
                self.link = ConnectionState::Catching { edge };
            }
            ClientEvent::Attached => {
                self.fresh = false;
                if let ConnectionState::Catching { edge } = &self.link {
                    self.link = ConnectionState::Live { edge: edge.clone() };
                }
                self.threads.iter_mut().for_each(|e| e.timeline.forgive());
                effects.push(UiEffect::Job(Job::Threads { sync: true }));
            }
            ClientEvent::Reconnecting { wait } => {
                self.degraded = false;
                self.link = ConnectionState::Waiting { until: now + wait };
            }
            ClientEvent::Degraded { on } => self.degraded = on,
            ClientEvent::Message(event) => self.message(event, now, effects),
            ClientEvent::Sent { local, thread, id, .. } => self.settled(&thread, local, Delivery::Sent(id)),
            ClientEvent::Failed { local, thread, refusal } => {
                if self.current.as_ref() != Some(&thread) {
                    let place = self.people.thread(&thread);
                    self.say(Tone::Bad, format!("to {place}, {}", outcome(&refusal)), now);
                }
                self.settled(&thread, local, Delivery::Refused(outcome(&refusal)));
            }
            ClientEvent::Typing { thread, user } => {
                self.people.meet_user(&user, now, effects);
                if user != self.people.me {
                    self.typing.insert((thread, user), now + TYPING);
                }
            }
            ClientEvent::Read { thread, id } => {
                let entry = self.threads.entry(&thread);
                entry.was_read(id);
                if entry.unread == 0 {
                    entry.timeline.new_from = None;
                }
            }
            ClientEvent::Settings { thread, settings } => self.set(&thread, settings),
            ClientEvent::Receipts { thread, receipts } => self.threads.entry(&thread).receipts(&receipts),
            ClientEvent::Member { thread, open, role, .. } => {
                self.people.meet_thread(&thread, now, effects);
                self.threads.entry(&thread).open = open;
                if let Some(text) = standing(&thread, &self.people.thread(&thread), role) {
                    self.say(Tone::Faint, text, now);
                }
            }
            ClientEvent::Presence { users } => drop(self.presence.hear(users, now)),
            ClientEvent::Contacts => self.say(Tone::Faint, "your contacts changed: /contacts", now),
            ClientEvent::Skipped { thread, from, to } => self.threads.entry(&thread).timeline.skipped(from, to),
            ClientEvent::Displaced(displaced) => {
                self.degraded = false;
                self.link = ConnectionState::Displaced(took_over(&displaced.by));
            }
            ClientEvent::LoggedOut { refusal } => effects.push(UiEffect::End(format!("logged out: {refusal}"))),
            ClientEvent::Ended { code, reason } => {
                effects.push(UiEffect::End(format!("the server ended the session: {reason} ({code})")))
            }
        }
    }

    /// What is being written in the thread on the screen is in the editor.
    fn set(&mut self, thread: &Thread, settings: ThreadSettings) {
        let is_here = self.current.as_ref() == Some(thread);
        let entry = self.threads.entry(thread);
        if is_here {
            std::mem::swap(&mut entry.draft, &mut self.editor);
            entry.set(settings);
            std::mem::swap(&mut entry.draft, &mut self.editor);
        } else {
            entry.set(settings);
        }
    }

    /// Whoever is at the end of a thread has seen it.
    pub(super) fn look(&mut self, effects: &mut Vec<UiEffect>) {
        if self.shows_messages()
            && let Some(here) = self.here_mut()
            && here.anchor.is_end()
        {
            here.unread = 0;
            if here.last > here.read && !here.timeline.is_empty() {
                here.read = here.last;
                effects.push(UiEffect::Read(here.thread.clone(), here.last));
            }
        }
    }

    /// Whom this user talks to is watched, as far as the list is known.
    pub(super) fn watch(&mut self, effects: &mut Vec<UiEffect>) {
        if self.threads.len() == self.watched_of {
            return;
        }
        self.watched_of = self.threads.len();
        let latest = self.threads.sorted().into_iter().filter_map(|row| row.thread.peer(&self.people.me)).cloned();
        effects.push(UiEffect::Watch(latest.take(WATCHED_USERS).collect()));
    }

    /// How the other one of a conversation of two is shown, while that is known.
    pub fn peer_presence(&self, thread: &Thread) -> Option<&PresenceOf> {
        self.presence.of(thread.peer(&self.people.me)?).filter(|_| self.is_online())
    }

    fn message(&mut self, event: protocol::Event, now: Instant, effects: &mut Vec<UiEffect>) {
        self.people.meet(&event, now, effects);
        self.people.meet_thread(&event.thread, now, effects);
        self.typing.remove(&(event.thread.clone(), event.from.clone()));
        let mine = event.from == self.people.me;
        let is_here = self.current.as_ref() == Some(&event.thread);
        let shown = is_here && self.shows_messages();
        let entry = self.threads.entry(&event.thread);
        let looked_at = shown && entry.anchor.is_end();
        if event.kind.is_message() && !mine && !looked_at && !self.fresh {
            entry.unread += 1;
            entry.timeline.new_from.get_or_insert(event.id);
        }
        entry.active = entry.active.max(event.ts);
        entry.last = entry.last.max(event.id);
        entry.timeline.live(event, is_here && !entry.anchor.is_end());
    }

    pub(super) fn settled(&mut self, thread: &Thread, local: Local, delivery: Delivery) {
        let timeline = &mut self.threads.entry(thread).timeline;
        if timeline.pending.iter().any(|p| p.local == Some(local)) {
            match delivery {
                Delivery::Sent(id) => timeline.sent(local, id),
                Delivery::Refused(why) => timeline.refused(local, why),
                Delivery::Waiting => {}
            }
        } else if self.unnamed > 0 {
            self.early.push((local, delivery));
        }
    }
}
