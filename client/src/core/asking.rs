//! What the client says by itself: what was missed, what was read, whom it watches; then what the app asks.

use std::time::Instant;

use natterjack_protocol::{
    client::frame::{ClientFrame, HistoryQuery, SyncQuery, WatchQuery},
    limits::PAGE_MAX,
};

use super::{Core, Pending};
use crate::{chain::Want, resume::Ask};

impl Core {
    /// Questions that may be asked now: those of resume, then the app's.
    pub fn asks(&mut self, now: Instant) -> Vec<ClientFrame> {
        let mut frames = Vec::new();
        while let Some(ask) = self.resume.ask(now) {
            frames.push(match ask {
                Ask::Sync(cursors) => ClientFrame::Sync(SyncQuery { r: self.request(Pending::Sync), cursors }),
                Ask::Page { thread, want } => {
                    let r = self.request(Pending::Page(thread.clone()));
                    let (before, after) = match want {
                        Want::Newest => (None, None),
                        Want::Before(id) => (Some(id), None),
                        Want::After(id) => (None, Some(id)),
                    };
                    let limit = Some(PAGE_MAX as u16);
                    ClientFrame::History(HistoryQuery {
                        r,
                        thread: Some(thread),
                        before,
                        after,
                        limit,
                        ..HistoryQuery::default()
                    })
                }
            });
        }
        if self.attached
            && let Some(acked) = self.read.say_now(now)
        {
            frames.push(ClientFrame::Ack(acked));
        }
        if self.attached
            && let Some(users) = self.watch.say_now(now)
        {
            frames.push(ClientFrame::Watch(WatchQuery { r: self.request(Pending::Watch), users }));
        }
        if self.attached {
            for question in std::mem::take(&mut self.questions) {
                if question.is_given_up() {
                    continue;
                }
                let r = self.next_request;
                let frame = question.frame(r);
                self.request(Pending::App(question));
                frames.push(frame);
            }
        }
        frames
    }
}
