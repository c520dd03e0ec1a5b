//! What a device is shown: live, after hello, and what it fetches to fill a hole.

use std::time::Instant;

use natterjack_protocol::{Event, Thread, client::frame::Page};

use super::{AGAIN, Raw};

impl Raw {
    pub(super) fn adopt(&mut self, synced: String) {
        if !synced.is_empty() && self.lines.values().all(|l| !l.catching) {
            self.synced = Some(synced);
        }
    }

    pub(super) fn live(&mut self, e: Event) {
        let line = self.lines.entry(e.thread.clone()).or_default();
        if line.catching {
            line.held.push(e);
        } else if e.id <= line.cursor {
            self.record.lock().numbers.old_events += 1;
        } else if e.prev <= line.cursor || line.cursor.is_none() {
            self.show(e, true);
        } else {
            (line.catching, line.suspect) = (true, true);
            line.held.push(e);
        }
    }

    /// After hello: the newest page of a thread. One that does not follow is not shown; everything above the cursor is
    /// fetched upwards.
    pub(super) fn newest(&mut self, page: Page) {
        let Some(thread) = page.thread.clone().or_else(|| page.events.first().map(|e| e.thread.clone())) else {
            return;
        };
        let line = self.lines.entry(thread).or_default();
        let follows = page.prev <= line.cursor && page.holes.is_empty() && !page.more;
        if line.catching || !follows {
            line.catching = true;
            self.record.lock().numbers.fills += 1;
            return;
        }
        for e in page.events {
            self.show(e, false);
        }
    }

    pub(super) fn caught(&mut self, thread: &Thread, page: Page) {
        let Some(line) = self.lines.get_mut(thread) else { return };
        line.asked = false;
        let hole = page.holes.iter().map(|(from, _)| *from).min();
        let (more, empty, suspect) = (page.more, page.events.is_empty(), line.suspect);
        let held = line.held.first().map(|e| e.id);
        for e in page.events.into_iter().filter(|e| hole.is_none_or(|h| e.id < h)) {
            if suspect && e.id > self.lines[thread].cursor && held.is_some_and(|h| e.id < h) {
                self.record.complain(
                    self.reader,
                    format!("session {}: {} of {thread} was missing below the live event {held:?}", self.session, e.id),
                );
            }
            self.show(e, false);
        }
        let line = self.lines.get_mut(thread).expect("as above");
        if hole.is_some() || more {
            line.ask_at = (hole.is_some() || empty).then(|| Instant::now() + AGAIN);
            return;
        }
        (line.catching, line.suspect) = (false, false);
        let mut held = std::mem::take(&mut line.held).into_iter();
        // The answer has spoken for what lies below the first held event; later ones are judged like live ones.
        if let Some(first) = held.next() {
            self.show(first, true);
        }
        for e in held {
            self.live(e);
        }
    }

    pub(super) fn show(&mut self, e: Event, live: bool) {
        let line = self.lines.entry(e.thread.clone()).or_default();
        if e.id > line.cursor {
            line.cursor = e.id;
            self.record.show(self.reader, &e, live);
        }
    }
}
