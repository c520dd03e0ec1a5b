//! One connection, until it is lost or replaced.

use std::time::Duration;

use natterjack_protocol::{Refusal, client::close};
use tokio::task::JoinSet;

use super::{
    BURST, Driver,
    dialling::{Dialled, Hellos},
    room, until,
};
use crate::{
    backoff::Backoff,
    clock::now,
    connection::{Connection, Lost},
    core::Signal,
    error::RequestError,
    events::Marks,
    outbox::Handed,
    waking::{PROBE, SleepWatch},
};

/// Events that wait for a slow app before the socket is read no further.
const OUT: usize = 1_024;
/// Between two attempts to leave a draining edge; doubled so many times at most, for it is there for 20 s.
const LEAVE_AGAIN: Duration = Duration::from_millis(300);
const LEAVE_SLOWER: u32 = 4;
/// Until a socket that does not drain is looked at again.
const FULL_AGAIN: Duration = Duration::from_millis(50);

impl Driver {
    /// One connection, and what replaces it when it drains; why it ended, and the token it used. None: closed by the
    /// app.
    pub(super) async fn live(
        &mut self,
        connection: Connection,
        said: Hellos,
        access: String,
    ) -> Option<(Lost, String)> {
        let (mut connection, mut access) = (connection, access);
        let stop = self.stop.clone();
        self.welcomed(&connection, &said);
        let mut replacement: JoinSet<Result<Dialled, RequestError>> = JoinSet::new();
        let mut attempts = 0;
        loop {
            // What is due waits for room, too.
            let due = if self.pump(&connection).await { self.core.due() } else { Some(now() + FULL_AGAIN) };
            let due = due.into_iter().chain(self.flush_at).min();
            let can_read = self.core.out.len() < OUT;
            // Order: the end, then what makes room, then what fills it.
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    connection.close().await;
                    return None;
                }
                () = self.woken.notified() => self.probe(&connection),
                room = room(self.events.clone()), if !self.core.out.is_empty() => self.give(room),
                Some(next) = replacement.join_next() => match next {
                    Ok(Ok(Dialled { result: Ok(new), said, access: token, .. })) => {
                        let old = std::mem::replace(&mut connection, new);
                        self.aside.spawn(old.close());
                        (access, attempts) = (token, 0);
                        self.welcomed(&connection, &said);
                    }
                    // Until the old one closes; then the usual way back is taken.
                    failed => {
                        if let Ok(Ok(Dialled { result: Err(lost), edge, access, .. })) = failed {
                            self.refused_by(&lost, &edge, access);
                        }
                        self.auth.http().with_edges(crate::edges::Edges::next);
                        replacement.spawn(self.dial_later(LEAVE_AGAIN * (1 << attempts)));
                        attempts = LEAVE_SLOWER.min(attempts + 1);
                    }
                },
                frame = connection.incoming.recv(), if can_read => match frame {
                    Some(frame) => {
                        if let Some(Signal::Draining { edges }) = self.core.frame(frame, now(), rand::random())
                            && replacement.is_empty()
                        {
                            self.auth.http().with_edges(|e| e.leave_for(&edges, rand::random::<u32>() as usize));
                            replacement.spawn(self.dial_later(Duration::ZERO));
                        }
                    }
                    None => {
                        let lost = match connection.lost().await {
                            // By ourselves: its welcome is on the way.
                            Lost::Closed { code, .. } if code == close::REPLACED.code && !replacement.is_empty() => {
                                Lost::Broken("replaced by the next connection".into())
                            }
                            lost => lost,
                        };
                        return Some((lost, access));
                    }
                },
                Some(first) = self.commands.recv() => self.command(first, Some(&connection)).await,
                () = self.marks.changed.notified() => self.flush_soon(),
                () = until(due) => {
                    if self.flush_at.is_some_and(|t| t <= now()) {
                        self.flush().await;
                    }
                    // While something comes, or waits for the app, the pong may be behind it.
                    if self.core.probe.is_overdue(now()) && can_read && connection.silence() >= PROBE / 2 {
                        return Some((Lost::Broken("no answer to a ping".into()), access));
                    }
                }
            }
        }
    }

    /// Asks the edge whether it is there and what time it is; sends wait for that.
    fn probe(&mut self, connection: &Connection) {
        // What failed over another network, or before a sleep, says nothing about the next attempt.
        self.backoff = Backoff::default();
        self.core.probe.ask(connection.ping(), now());
    }

    /// Messages to hand over now; none if the device slept since the last look.
    pub(super) fn hand(&mut self, connection: &Connection) -> Vec<Handed> {
        if self.sleep.has_slept() {
            self.probe(connection);
        }
        self.core.hand(now())
    }

    fn welcomed(&mut self, connection: &Connection, said: &Hellos) {
        self.core.connected(&connection.welcome, said, connection.edge.clone(), now());
        self.session = Some(connection.welcome.session.clone());
        self.auth.date_tokens();
        self.sleep = SleepWatch::start();
        while self.aside.try_join_next().is_some() {}
    }

    /// Hands over what may go: cids stored first, then the frames. False: the socket does not drain, everything waits
    /// where it is.
    async fn pump(&mut self, connection: &Connection) -> bool {
        let now = now();
        if connection.outgoing.capacity() < BURST {
            return false;
        }
        for frame in self.core.asks(now) {
            let _ = connection.outgoing.try_send(frame);
        }
        let handed = self.hand(connection);
        if handed.is_empty() {
            if self.core.outbox.has_changes() || self.core.read.has_changes() || self.core.known.has_changes() {
                self.flush_soon();
            }
        } else if self.store_changes(Marks::default()).await.is_ok() {
            for frame in self.core.send(&handed) {
                let _ = connection.outgoing.try_send(frame);
            }
        } else {
            for Handed { cid, .. } in handed {
                let later = Refusal::unavailable("the client's file cannot be written");
                self.core.outbox.refused(cid, later, now, rand::random());
            }
        }
        let waiting = self.core.outbox.waiting();
        self.waiting.send_if_modified(|n| std::mem::replace(n, waiting) != waiting);
        true
    }
}
