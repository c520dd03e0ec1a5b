//! Answers to our own requests: one wildcard subscription per process and a table of who waits for which.
//!
//! async-nats keeps the table entry of a request whose answer never comes for the life of the client; here an entry
//! lives exactly as long as whoever waits for it.
//!
//! Requests that come together are handed over together: async-nats writes to its connection as soon as it has
//! anything, and a write with what it wakes costs more than the rest of a request.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, HeaderMap, Message, StatusCode, Subject, client::PublishErrorKind, connection::State};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

#[derive(Debug, Clone, thiserror::Error)]
pub enum NatsRequestError {
    #[error("no answer in time")]
    Timeout,
    #[error("nobody listens on this subject")]
    NoResponders,
    #[error("not sent: {0}")]
    NotSent(String),
    /// Nothing that waiting changes: `max_payload` of the server, or what was to be sent, is wrong.
    #[error("{0}; see max_payload of nats-server")]
    TooLarge(String),
}

fn not_sent(e: &async_nats::PublishError) -> NatsRequestError {
    match e.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            metrics::counter!(crate::metrics::NATS_TOO_LARGE).increment(1);
            tracing::error!(error = %e, "a message is larger than nats-server takes");
            NatsRequestError::TooLarge(e.to_string())
        }
        _ => NatsRequestError::NotSent(e.to_string()),
    }
}

enum Waiter {
    One(oneshot::Sender<Result<Message, NatsRequestError>>),
    Many(mpsc::Sender<Message>),
}

/// The step of a fast batch with which it ends.
const COMMIT: u8 = 2;
/// How an answer begins that only says how far a batch has come.
const FLOW: &[u8] = br#"{"type":"ack""#;

type Table = Arc<Mutex<HashMap<u64, Waiter>>>;

/// How many requests may wait to be handed over. Who comes later waits for room, within its own time.
const WAITING: usize = 4096;

/// A request on its way to async-nats.
struct Outgoing {
    token: u64,
    subject: Subject,
    reply: String,
    headers: Option<HeaderMap>,
    payload: Bytes,
}

pub(crate) struct Inbox {
    client: Client,
    base: String,
    next: AtomicU64,
    table: Table,
    outgoing: mpsc::Sender<Outgoing>,
    _answers: AbortOnDropHandle<()>,
    _requests: AbortOnDropHandle<()>,
}

/// Takes the entry out of the table, whatever became of the request.
struct Entry<'a> {
    token: u64,
    table: &'a Table,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.table.lock().remove(&self.token);
    }
}

impl Inbox {
    pub(crate) async fn open(client: Client) -> Result<Self, async_nats::SubscribeError> {
        let base = client.new_inbox();
        let mut answers = client.subscribe(format!("{base}.>")).await?;
        let table = Table::default();
        let prefix = base.len() + 1;
        let answering = tokio::spawn({
            let table = table.clone();
            async move {
                while let Some(message) = answers.next().await {
                    let Some(token) = message.subject.get(prefix..).and_then(token) else { continue };
                    dispatch(&table, token, Ok(message));
                }
            }
        });
        let (outgoing, waiting) = mpsc::channel(WAITING);
        let asking = tokio::spawn(hand_over(client.clone(), waiting, table.clone()));
        Ok(Self {
            client,
            base,
            next: AtomicU64::new(1),
            table,
            outgoing,
            _answers: AbortOnDropHandle::new(answering),
            _requests: AbortOnDropHandle::new(asking),
        })
    }

    fn register(&self, waiter: Waiter) -> (Entry<'_>, String) {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        self.table.lock().insert(token, waiter);
        (Entry { token, table: &self.table }, format!("{}.{token}", self.base))
    }

    async fn send(
        &self,
        subject: &str,
        reply: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), NatsRequestError> {
        connected(&self.client).await;
        publish(&self.client, subject.into(), reply, headers, payload).await
    }

    /// One request, one answer. Cancel-safe: dropping it forgets the answer.
    pub(crate) async fn request(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Message, NatsRequestError> {
        let (tx, rx) = oneshot::channel();
        let (entry, reply) = self.register(Waiter::One(tx));
        let outgoing = Outgoing { token: entry.token, subject: subject.into(), reply, headers, payload };
        let answer = async {
            let handed_over = self.outgoing.send(outgoing).await;
            handed_over.map_err(|_| NatsRequestError::NotSent("this process is ending".into()))?;
            rx.await.map_err(|_| NatsRequestError::Timeout)?
        };
        let message = tokio::time::timeout(timeout, answer).await.map_err(|_| NatsRequestError::Timeout)??;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            Err(NatsRequestError::NoResponders)
        } else {
            Ok(message)
        }
    }

    /// One request, up to `capacity` answers (more are dropped: ask with a limit), until `last` says that one closes
    /// the row. The closing answer is returned beside them. The timeout is for the whole.
    pub(crate) async fn request_many(
        &self,
        subject: &str,
        payload: Bytes,
        capacity: usize,
        timeout: Duration,
        last: impl Fn(&Message) -> bool,
    ) -> Result<(Vec<Message>, Message), NatsRequestError> {
        let (tx, mut rx) = mpsc::channel(capacity + 1);
        let (_entry, reply) = self.register(Waiter::Many(tx));
        let answers = async {
            self.send(subject, reply, None, payload).await?;
            let mut got = Vec::new();
            loop {
                let message = rx.recv().await.ok_or(NatsRequestError::Timeout)?;
                if message.status == Some(StatusCode::NO_RESPONDERS) {
                    return Err(NatsRequestError::NoResponders);
                }
                if last(&message) {
                    return Ok((got, message));
                }
                got.push(message);
            }
        };
        tokio::time::timeout(timeout, answers).await.map_err(|_| NatsRequestError::Timeout)?
    }

    /// A fast batch (ADR 7): the stream stores these in this order, each only if it has all before it. Returns what
    /// closes the batch: its acknowledgement, or the first answer that says that something is wrong.
    pub(crate) async fn batch(
        &self,
        subject: &str,
        messages: Vec<(HeaderMap, Bytes)>,
        timeout: Duration,
    ) -> Result<Message, NatsRequestError> {
        let many = messages.len();
        // One about the flow at the beginning, one for each message at most, and the last.
        let (tx, mut rx) = mpsc::channel(many + 2);
        let (entry, _) = self.register(Waiter::Many(tx));
        let answer = async {
            for (n, (headers, payload)) in (1..).zip(messages) {
                let step = if n == many { COMMIT } else { u8::from(n > 1) };
                // The id of a batch is one among those of all clients; ours begins like our inbox.
                let reply = format!("{}.{}-{}.{many}.fail.{n}.{step}.$FI", self.base, entry.token, self.name());
                self.send(subject, reply, Some(headers), payload).await?;
            }
            loop {
                let message = rx.recv().await.ok_or(NatsRequestError::Timeout)?;
                if message.status == Some(StatusCode::NO_RESPONDERS) {
                    return Err(NatsRequestError::NoResponders);
                }
                if !message.payload.starts_with(FLOW) {
                    return Ok(message);
                }
            }
        };
        tokio::time::timeout(timeout, answer).await.map_err(|_| NatsRequestError::Timeout)?
    }

    /// What no other inbox has in its name.
    fn name(&self) -> &str {
        self.base.rsplit('.').next().unwrap_or(&self.base)
    }

    /// A message to ourselves and back: the server has taken everything that was written before it.
    pub(crate) async fn round_trip(&self, timeout: Duration) -> Result<(), NatsRequestError> {
        let (tx, rx) = oneshot::channel();
        let (_entry, reply) = self.register(Waiter::One(tx));
        let there_and_back = async {
            self.client.publish(reply, Bytes::new()).await.map_err(|e| not_sent(&e))?;
            rx.await.map_err(|_| NatsRequestError::Timeout)?
        };
        tokio::time::timeout(timeout, there_and_back).await.map_err(|_| NatsRequestError::Timeout)??;
        Ok(())
    }
}

/// Nothing is handed to a broken connection: async-nats would write it minutes later, when everybody has given up on
/// it.
async fn connected(client: &Client) {
    while client.connection_state() != State::Connected {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn publish(
    client: &Client,
    subject: Subject,
    reply: String,
    headers: Option<HeaderMap>,
    payload: Bytes,
) -> Result<(), NatsRequestError> {
    let sent = match headers {
        Some(h) => client.publish_with_reply_and_headers(subject, reply, h, payload).await,
        None => client.publish_with_reply(subject, reply, payload).await,
    };
    sent.map_err(|e| not_sent(&e))
}

/// Hands the requests to async-nats, all those at once that are made while the runtime goes through what is ready.
async fn hand_over(client: Client, mut waiting: mpsc::Receiver<Outgoing>, table: Table) {
    let mut together = Vec::new();
    while let Some(first) = waiting.recv().await {
        together.push(first);
        tokio::task::yield_now().await;
        while let Ok(next) = waiting.try_recv() {
            together.push(next);
        }
        for Outgoing { token, subject, reply, headers, payload } in together.drain(..) {
            connected(&client).await;
            // Its asker may have given up on it.
            if table.lock().contains_key(&token)
                && let Err(e) = publish(&client, subject, reply, headers, payload).await
            {
                dispatch(&table, token, Err(e));
            }
        }
    }
}

/// `42`, or `42-name.…` for a batch.
fn token(after_base: &str) -> Option<u64> {
    after_base.split(['-', '.']).next()?.parse().ok()
}

fn dispatch(table: &Table, token: u64, answer: Result<Message, NatsRequestError>) {
    let mut table = table.lock();
    match (table.get(&token), answer) {
        (Some(Waiter::Many(tx)), Ok(message)) => {
            // Full only if the server sends more than was asked for; the asker then runs into its timeout.
            let _ = tx.try_send(message);
        }
        (Some(Waiter::One(_)), answer) => {
            if let Some(Waiter::One(tx)) = table.remove(&token) {
                let _ = tx.send(answer);
            }
        }
        (Some(Waiter::Many(_)), Err(_)) | (None, _) => {}
    }
}
