//! The SDK under chaos: it gets the edges once and finds its way.

use std::{collections::HashMap, time::Duration};

use natterjack_client::{Client, ClientEvent, Events, Local};
use natterjack_protocol::Thread;
use tokio::{sync::watch, time::sleep};

use super::{
    raw::Phase,
    record::{Attempt, Recorder},
    rules::Rng,
};

/// Percent of the messages up to which its user has read.
const READS: u64 = 30;

pub struct Sdk {
    pub name: String,
    pub client: Client,
    pub events: Events,
    pub threads: Vec<Thread>,
    pub record: Recorder,
    pub reader: usize,
    pub rng: Rng,
    pub phase: watch::Receiver<Phase>,
}

impl Sdk {
    pub async fn run(mut self) {
        let (mut sent, mut written): (HashMap<Local, String>, u64) = (HashMap::new(), 0);
        loop {
            let pause = Duration::from_millis(self.rng.range(50, 250));
            let phase = *self.phase.borrow();
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => {
                        self.take(&event, &sent);
                        if phase == Phase::Write {
                            self.reads(&event).await;
                        }
                    }
                    None => {
                        self.record.complain(self.reader, "the client has ended");
                        return;
                    }
                },
                // The pace of somebody who writes.
                () = sleep(pause), if phase == Phase::Write => {
                    let thread = self.threads[self.rng.index(self.threads.len())].clone();
                    written += 1;
                    let text = format!("{}-{written} {:x}", self.name, self.rng.next());
                    self.record.attempt(Attempt {
                        writer: self.name.clone(),
                        user: self.client.user().to_string(),
                        thread: thread.to_string(),
                        n: written,
                        text: text.clone(),
                        cid: None,
                        at: self.record.now(),
                        acks: Vec::new(),
                        refused: false,
                        // The SDK keeps to itself what it had to repeat.
                        unsure: true,
                    });
                    match self.client.send_text(thread, text.clone()).await {
                        Ok(local) => {
                            sent.insert(local, text);
                        }
                        Err(e) => self.record.complain(self.reader, format!("send: {e}")),
                    }
                }
                _ = self.phase.changed() => {
                    if *self.phase.borrow() == Phase::Stop {
                        self.client.close().await;
                        return;
                    }
                }
            }
        }
    }

    /// Some of what it is shown its user has read.
    async fn reads(&mut self, event: &ClientEvent) {
        let ClientEvent::Message(e) = event else { return };
        if !self.rng.chance(READS) {
            return;
        }
        self.record.says_read(self.client.user().as_str(), &e.thread.to_string(), e.id.0, true);
        if let Err(e) = self.client.read(e.thread.clone(), e.id).await {
            self.record.complain(self.reader, format!("read: {e}"));
        }
    }

    fn take(&self, event: &ClientEvent, sent: &HashMap<Local, String>) {
        match event {
            ClientEvent::Message(e) => self.record.show(self.reader, e, true),
            ClientEvent::Sent { local, cid, id, .. } => match sent.get(local) {
                Some(text) => self.record.acked(text, cid.to_string(), id.0),
                None => self.record.complain(self.reader, format!("{id} was sent, which nobody wrote")),
            },
            ClientEvent::Failed { local, refusal, .. } => {
                if let Some(text) = sent.get(local) {
                    self.record.with_attempt(text, |a| a.refused = true);
                }
                if refusal.code != natterjack_protocol::Code::NotMember {
                    self.record.complain(self.reader, format!("refused: {refusal:?}"));
                }
            }
            ClientEvent::Read { thread, id } => {
                self.record.told_stored(None, self.client.user().as_str(), &thread.to_string(), id.0);
            }
            ClientEvent::Receipts { thread, receipts } => {
                for r in receipts {
                    let (to, of) = (self.client.user().as_str(), r.user.as_str());
                    self.record.told_receipt(to, of, &thread.to_string(), r.read.0);
                }
            }
            ClientEvent::Connected { .. } => self.record.lock().numbers.sessions += 1,
            ClientEvent::Skipped { .. } | ClientEvent::LoggedOut { .. } | ClientEvent::Ended { .. } => {
                self.record.complain(self.reader, format!("{event:?}"))
            }
            _ => {}
        }
    }
}
