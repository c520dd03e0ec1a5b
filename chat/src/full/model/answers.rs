//! What an effect brought (pure).

use std::time::Instant;

use natterjack_client::{
    Local, Unsent,
    protocol::{Thread, client::frame::ThreadSummary},
};

use super::{Delivery, Done, Model, Notice, Panel, PendingMessage, UiEffect};
use crate::outcome;
use crate::screen::{Said, Tone};

/// Threads in the list: beyond them /to and a new message still find one.
const LISTED: usize = 1_000;

impl Model {
    pub(super) fn done(&mut self, done: Done, now: Instant, effects: &mut Vec<UiEffect>) {
        match done {
            Done::Send { ticket, thread, result } => self.kept(ticket, &thread, result),
            Done::Page { thread, want, result } => {
                if let Ok(page) = &result {
                    page.events.iter().for_each(|e| self.people.meet(e, now, effects));
                }
                let timeline = &mut self.threads.entry(&thread).timeline;
                match result {
                    Ok(page) => timeline.page(want, page, now),
                    Err(failure) => timeline.page_failed(want, failure.why, failure.is_final, now),
                }
            }
            Done::Threads { threads, failed } => {
                self.list(&threads, now, effects);
                // It is asked for again with the next connection; threads also appear with their messages.
                if let Some(failure) = failed {
                    self.say(Tone::Bad, format!("the list of threads: {}", failure.why), now);
                }
            }
            Done::Messages { thread, events } => {
                events.iter().for_each(|e| self.people.meet(e, now, effects));
                let timeline = &mut self.threads.entry(&thread).timeline;
                // Whatever has come meanwhile is newer, and has its page.
                if timeline.is_empty() {
                    events.into_iter().for_each(|event| timeline.live(event, false));
                }
            }
            Done::Draft { failed: None } => {}
            Done::Draft { failed: Some(failure) } => {
                self.say(Tone::Bad, format!("what you have begun stays on this device: {}", failure.why), now)
            }
            Done::Outbox { rows } => self.outbox(rows),
            Done::User { user, name } => name.into_iter().for_each(|name| self.people.learn_user(user.clone(), name)),
            Done::Group { gid, name } => {
                name.into_iter().for_each(|name| self.people.learn_group(&Thread::group(&gid), &name));
            }
            Done::Command { line, said, entered } => self.said(line, said, entered, now, effects),
        }
    }

    fn kept(&mut self, ticket: u64, thread: &Thread, result: Result<Local, String>) {
        let timeline = &mut self.threads.entry(thread).timeline;
        if let Some(pending) = timeline.pending.iter_mut().find(|p| p.ticket == ticket) {
            match &result {
                Ok(local) => pending.local = Some(*local),
                Err(why) => pending.state = Delivery::Refused(format!("not sent: {why}")),
            }
        }
        self.named(thread, result.ok());
    }

    /// A local key is known now: its outcome may have come before it.
    fn named(&mut self, thread: &Thread, local: Option<Local>) {
        if let Some(i) = self.early.iter().position(|(l, _)| Some(*l) == local) {
            let (local, delivery) = self.early.swap_remove(i);
            self.settled(thread, local, delivery);
        }
        self.unnamed = self.unnamed.saturating_sub(1);
        if self.unnamed == 0 {
            self.early.clear();
        }
    }

    /// What an earlier run did not send.
    fn outbox(&mut self, rows: Vec<Unsent>) {
        for row in rows {
            let ticket = self.ticket();
            let timeline = &mut self.threads.entry(&row.thread).timeline;
            if timeline.pending.iter().any(|p| p.local == Some(row.local)) {
                continue;
            }
            let state = row.failed.map_or(Delivery::Waiting, |refusal| Delivery::Refused(outcome(&refusal)));
            let text = row.body.text.unwrap_or_default();
            timeline.pending.push(PendingMessage { ticket, local: Some(row.local), kind: row.kind, text, state });
            self.unnamed += 1;
            self.named(&row.thread, Some(row.local));
        }
        self.unnamed = self.unnamed.saturating_sub(1);
    }

    fn list(&mut self, threads: &[ThreadSummary], now: Instant, effects: &mut Vec<UiEffect>) {
        for summary in threads.iter().take(LISTED) {
            if let Some(name) = &summary.name {
                self.people.learn_group(&summary.thread, name);
            }
            self.people.meet_thread(&summary.thread, now, effects);
            self.threads.learn(summary);
        }
        // What was known before there is a connection may be nothing yet.
        if threads.is_empty() && !self.is_online() {
            return;
        }
        if self.pick_first && self.current.is_none() {
            match self.threads.beside(None, 0) {
                Some(first) => self.open(first, now, effects),
                None => self.say(Tone::Faint, "nobody to write to yet: /to NAME, or /help", now),
            }
        }
    }

    fn said(
        &mut self,
        line: String,
        said: Vec<Said>,
        entered: Option<(Thread, String)>,
        now: Instant,
        effects: &mut Vec<UiEffect>,
    ) {
        self.notice = None;
        if let Some((thread, place)) = entered {
            self.people.learn_group(&thread, &place);
            self.panel = None;
            self.open(thread, now, effects);
            // The title says the rest.
            if let Some(problem) = said.into_iter().find(|s| s.tone == Tone::Bad) {
                self.notice = Some(Notice::new(problem, now));
            }
            return;
        }
        match said.as_slice() {
            [] => {}
            [one] if !one.text.contains('\n') => self.notice = Some(Notice::new(one.clone(), now)),
            _ => self.panel = Some(Panel::new(line, said)),
        }
    }
}
