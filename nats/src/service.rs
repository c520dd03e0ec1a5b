//! Answering requests of other roles: bounded concurrency, a typed answer to everything, also when full and after a
//! panic.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt, StreamExt};
use natterjack_protocol::{Code, Refusal, internal::rpc::Reply};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::wire::{
    client::Nats,
    core::{NatsMessage, NatsSubject, Subscription},
};

#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot serve {subject}: {reason}")]
pub struct ServeError {
    pub subject: String,
    pub reason: String,
}

/// Serves until it is drained or dropped.
pub struct Service {
    stop: CancellationToken,
    tracker: TaskTracker,
    task: Option<AbortOnDropHandle<()>>,
}

/// `queue`: instances share the requests; none: every instance answers (so there must be one). Requests beyond
/// `concurrency` are answered `Full` at once: waiting here would only hide the overload from whoever could retry
/// elsewhere.
pub async fn serve<Q, A, H, F>(
    nats: &Nats,
    subject: String,
    queue: Option<&str>,
    concurrency: usize,
    handler: H,
) -> Result<Service, ServeError>
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + 'static,
    H: Fn(Q) -> F + Send + Sync + 'static,
    F: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    let subscription = match queue {
        Some(q) => nats.queue_subscribe(&subject, q).await,
        None => nats.subscribe(subject.as_str()).await,
    };
    let requests = subscription.map_err(|e| ServeError { subject: subject.clone(), reason: e.to_string() })?;
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let serving =
        answer_all(nats.clone(), subject, requests, concurrency, Arc::new(handler), stop.clone(), tracker.clone());
    Ok(Service { stop, tracker, task: Some(AbortOnDropHandle::new(tokio::spawn(serving))) })
}

impl Service {
    /// Takes no new requests, finishes those it has.
    pub async fn drain(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
        self.tracker.close();
        self.tracker.wait().await;
    }
}

async fn answer_all<Q, A, H, F>(
    nats: Nats,
    subject: String,
    mut requests: Subscription,
    concurrency: usize,
    handler: Arc<H>,
    stop: CancellationToken,
    tracker: TaskTracker,
) where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + 'static,
    H: Fn(Q) -> F + Send + Sync + 'static,
    F: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(concurrency));
    loop {
        // Stopping comes first; what is already here is then answered by the drain below.
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            m = requests.next() => m,
        };
        let Some(message) = message else { return };
        start(&nats, &subject, message, &room, &handler, &tracker).await;
    }
    requests.unsubscribe().await;
    while let Some(Some(message)) = requests.next().now_or_never() {
        start(&nats, &subject, message, &room, &handler, &tracker).await;
    }
}

async fn start<Q, A, H, F>(
    nats: &Nats,
    subject: &str,
    message: NatsMessage,
    room: &Arc<Semaphore>,
    handler: &Arc<H>,
    tracker: &TaskTracker,
) where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + 'static,
    H: Fn(Q) -> F + Send + Sync + 'static,
    F: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    let Some(reply) = message.reply else { return };
    let Ok(permit) = room.clone().try_acquire_owned() else {
        metrics::counter!(crate::metrics::SERVICE_FULL, "subject" => subject.to_owned()).increment(1);
        send(nats, subject, reply, Reply::<()>::Busy).await;
        return;
    };
    let (nats, handler, subject) = (nats.clone(), handler.clone(), subject.to_owned());
    tracker.spawn(async move {
        let answer: Reply<A> = match rmp_serde::from_slice::<Q>(&message.payload) {
            Err(e) => Reply::Refused(Refusal::new(Code::BadFrame, format!("request not understood: {e}"))),
            Ok(request) => match AssertUnwindSafe(async { handler(request).await }).catch_unwind().await {
                Ok(result) => result.into(),
                Err(_) => {
                    tracing::error!(subject, "a handler panicked");
                    Reply::Refused(Refusal::new(Code::Internal, "something went wrong on the server"))
                }
            },
        };
        send(&nats, &subject, reply, answer).await;
        drop(permit);
    });
}

async fn send<A: Serialize>(nats: &Nats, subject: &str, reply: NatsSubject, answer: Reply<A>) {
    let encoded = rmp_serde::to_vec_named(&answer);
    drop(answer);
    let why = match encoded {
        Ok(bytes) if bytes.len() <= nats.max_payload() => return publish(nats, subject, reply, bytes).await,
        Ok(bytes) => format!("it has {} bytes, max_payload of nats-server is {}", bytes.len(), nats.max_payload()),
        Err(e) => e.to_string(),
    };
    tracing::error!(subject, why, "an answer cannot be sent; it is refused instead");
    metrics::counter!(crate::metrics::SERVICE_UNSENDABLE, "subject" => subject.to_owned()).increment(1);
    let refusal = Refusal::new(Code::Internal, "the answer to this is too large; the operator has to look");
    let refused =
        rmp_serde::to_vec_named(&Reply::<()>::Refused(refusal)).expect("a refusal has string keys and plain values");
    publish(nats, subject, reply, refused).await;
}

/// An answer that is lost with the connection is a timeout at the asker's.
async fn publish(nats: &Nats, subject: &str, reply: NatsSubject, bytes: Vec<u8>) {
    if let Err(e) = nats.publish(reply, bytes.into()).await {
        tracing::warn!(subject, error = %e, "an answer was not sent");
    }
}
