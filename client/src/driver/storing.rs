//! What the app says, and what has to be in the store before it counts.

use std::time::Duration;

use natterjack_protocol::{
    MsgId, Refusal,
    client::frame::{ActivityReport, ClientFrame, TypingIn},
    limits::NUMBER_MAX,
};
use tokio::sync::oneshot;

use super::{BURST, Command, Driver};
use crate::{
    clock::now,
    connection::Connection,
    error::SendError,
    events::Marks,
    outbox::{Change, Handed, Local},
};

/// What may be lost in a crash without harm (cursors, rows that were sent) is stored this much later, together.
const FLUSH: Duration = Duration::from_millis(200);

impl Driver {
    /// A command and whatever else has come meanwhile: messages written together are stored together.
    pub(super) async fn command(&mut self, first: Command, connection: Option<&Connection>) {
        let mut added: Vec<(Local, oneshot::Sender<Result<Local, SendError>>)> = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Send { stored, .. } if self.core.outbox.waiting() >= self.options.outbox_max => {
                    let _ = stored.send(Err(SendError::Full(self.options.outbox_max)));
                }
                Command::Send { thread, kind, body, stored, waiter } => {
                    added.push((self.core.outbox.add(thread, kind, *body, waiter), stored));
                }
                Command::Ask(question) => self.core.question(question),
                Command::Read(thread, id) => {
                    self.core.read.read(thread, id.min(MsgId(NUMBER_MAX)));
                    self.flush_soon();
                }
                Command::Known(answer) => drop(answer.send(self.core.known.sorted())),
                Command::ListedUpTo(answer) => drop(answer.send(self.core.known.up_to())),
                Command::Listed(synced) => {
                    self.core.known.listed_up_to(synced);
                    self.flush_soon();
                }
                Command::Typing(thread) => {
                    if let Some(connection) = connection {
                        let _ = connection.outgoing.try_send(ClientFrame::Typing(TypingIn { thread }));
                    }
                }
                Command::Watch(users) => self.core.watch.is(users),
                Command::Report(active) => {
                    if let Some(connection) = connection {
                        let _ = connection.outgoing.try_send(ClientFrame::Report(ActivityReport { active }));
                    }
                }
                Command::Rows(answer) => {
                    let _ = answer.send(self.core.outbox.rows());
                }
                Command::Discard(local, answer) => {
                    let _ = answer.send(self.core.outbox.discard(local));
                    self.flush_soon();
                }
                Command::TakeOver(answer) => {
                    let displaced = self.displaced.take().is_some_and(|away| away.send(()).is_ok());
                    let _ = answer.send(displaced);
                }
            }
            next = if added.len() < 64 { self.commands.try_recv().ok() } else { None };
        }
        if added.is_empty() {
            return;
        }
        // With a connection the cids are minted now, so that row and cid are one write.
        let drains = connection.filter(|c| c.outgoing.capacity() >= BURST);
        let handed = drains.map(|c| self.hand(c)).unwrap_or_default();
        match self.store_changes(Marks::default()).await {
            Ok(()) => {
                // Before the answers: who has one must find the message counted.
                self.waiting.send_replace(self.core.outbox.waiting());
                for (local, stored) in added {
                    let _ = stored.send(Ok(local));
                }
                for frame in self.core.send(&handed) {
                    let Some(connection) = connection else { break };
                    let _ = connection.outgoing.try_send(frame);
                }
            }
            Err(why) => {
                let now = now();
                for Handed { cid, .. } in handed {
                    self.core.outbox.refused(
                        cid,
                        Refusal::unavailable("the client's file cannot be written"),
                        now,
                        rand::random(),
                    );
                }
                for (local, stored) in added {
                    self.core.outbox.forget(local);
                    let _ = stored.send(Err(SendError::Store(why.clone())));
                }
            }
        }
    }

    pub(super) fn flush_soon(&mut self) {
        if self.flush_at.is_none() && self.store.keeps() {
            self.flush_at = Some(now() + FLUSH);
        }
    }

    pub(super) async fn flush(&mut self) {
        self.flush_at = None;
        let marks = self.marks.take();
        if self.store_changes(marks).await.is_err() {
            self.flush_soon();
        }
    }

    pub(super) async fn store_changes(&mut self, marks: Marks) -> Result<(), crate::error::StoreError> {
        let mut changes: Vec<Change> = self.core.outbox.take_changes();
        changes.extend(self.core.read.take_changes());
        changes.extend(self.core.known.take_changes());
        if !self.store.keeps() || (changes.is_empty() && marks.is_empty()) {
            return Ok(());
        }
        self.store.apply(changes, marks).await.map_err(|(e, changes, marks)| {
            tracing::warn!(error = %e, "the client's file was not written");
            self.core.outbox.put_back(changes);
            self.marks.put_back(marks);
            e
        })
    }
}
