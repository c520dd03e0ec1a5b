//! One connection of a process to NATS, for everything but the fan-in of live subjects.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, connection::State};
use futures_util::future::BoxFuture;
use natterjack_protocol::{Code, Refusal, limits, rpc::Answer};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::NatsConfig,
    inbox::{Inbox, RequestError},
};

/// Two missed pings end a link: a half-open connection is noticed after 10–15 s instead of minutes.
const PING: Duration = Duration::from_secs(5);
const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("nats: {0}")]
    Config(String),
    #[error("nats at {urls}: {reason}; is nats-server running there, with JetStream (-js)?")]
    Unreachable { urls: String, reason: String },
    #[error("nats at {urls} refuses these credentials: {reason}")]
    Refused { urls: String, reason: String },
    #[error("nats at {0}: the fan-in reader speaks plain TCP only; use nats:// (a TLS proxy may stand in between)")]
    TlsUnsupported(String),
}

/// An answer that is not what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RpcError {
    #[error("nobody answers requests of this kind now")]
    NoResponders,
    #[error("no answer in time")]
    Timeout,
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("too many requests at once")]
    Full,
    #[error("the request is too large: {0}")]
    TooLarge(String),
    #[error("{0}")]
    Broken(String),
}

impl From<RequestError> for RpcError {
    fn from(e: RequestError) -> Self {
        match e {
            RequestError::Timeout => Self::Timeout,
            RequestError::NoResponders => Self::NoResponders,
            RequestError::NotSent(s) => Self::Broken(s),
            RequestError::TooLarge(s) => Self::TooLarge(s),
        }
    }
}

impl From<RpcError> for Refusal {
    fn from(e: RpcError) -> Self {
        match e {
            RpcError::Refused(refusal) => refusal,
            RpcError::Full => Refusal::unavailable("too many requests at once; try again"),
            RpcError::TooLarge(_) => Refusal::new(Code::Internal, "a part of the system was asked for too much; the operator has to look"),
            RpcError::NoResponders | RpcError::Timeout => Refusal::unavailable("a part of the system does not answer; try again"),
            RpcError::Broken(_) => Refusal::unavailable("a part of the system answered nonsense; try again"),
        }
    }
}

/// Cheap to clone; all clones share one TCP connection.
#[derive(Clone)]
pub struct Nats {
    pub client: Client,
    inner: Arc<Inner>,
}

struct Inner {
    cfg: NatsConfig,
    inbox: Inbox,
    notices: Arc<AtomicU64>,
}

impl Nats {
    /// Boxed, so that the client behind it is compiled once, in this crate.
    pub fn connect<'a>(cfg: &'a NatsConfig, role: &'a str) -> BoxFuture<'a, Result<Self, ConnectError>> {
        Box::pin(Self::open(cfg, role))
    }

    async fn open(cfg: &NatsConfig, role: &str) -> Result<Self, ConnectError> {
        let urls = shown(&cfg.urls);
        let addrs: Vec<async_nats::ServerAddr> = cfg
            .urls
            .iter()
            .map(|u| {
                u.parse().map_err(|e| ConnectError::Config(format!("`{}` is not a server address: {e}", shown(std::slice::from_ref(u)))))
            })
            .collect::<Result<_, _>>()?;
        let notices = Arc::new(AtomicU64::new(0));
        let deadline = tokio::time::Instant::now() + Duration::from_millis(cfg.connect_deadline_ms);
        let mut pause = Duration::from_millis(20);
        let client = loop {
            match options(cfg, role, notices.clone()).await?.connect(addrs.clone()).await {
                Ok(client) => break client,
                Err(e)
                    if matches!(
                        e.kind(),
                        async_nats::ConnectErrorKind::Authentication | async_nats::ConnectErrorKind::AuthorizationViolation
                    ) =>
                {
                    return Err(ConnectError::Refused { urls, reason: e.to_string() });
                }
                Err(e) if tokio::time::Instant::now() + pause > deadline => {
                    return Err(ConnectError::Unreachable { urls, reason: e.to_string() });
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        let inbox = Inbox::open(client.clone()).await.map_err(|e| ConnectError::Unreachable { urls, reason: e.to_string() })?;
        Ok(Self { client, inner: Arc::new(Inner { cfg: cfg.clone(), inbox, notices }) })
    }

    /// Changes whenever something written or subscribed on this connection may have been lost: on a reconnect (counted before anything
    /// is written to the new connection), on a disconnect, a slow-consumer notice, a server that leaves. Compare it around a piece of work.
    pub fn epoch(&self) -> u64 {
        // `connects` counts the first connection too.
        self.client.statistics().connects.load(Ordering::Relaxed) + self.inner.notices.load(Ordering::Relaxed)
    }

    /// For a connection beside this one.
    pub(crate) fn config(&self) -> &NatsConfig {
        &self.inner.cfg
    }

    /// Does the server carry the largest message there may be? What to do, if not.
    pub fn carries_all(&self) -> Result<usize, String> {
        match self.client.max_payload() {
            least @ 0..limits::PAYLOAD_BYTES => Err(format!(
                "max_payload of nats-server is {least} bytes, at least {} are needed; set `max_payload: 1MB` or more in its configuration",
                limits::PAYLOAD_BYTES
            )),
            bytes => Ok(bytes),
        }
    }

    pub fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Everything published on this connection before has reached the server (`flush()` only empties a socket buffer). An error if the
    /// connection broke meanwhile; whoever published before calling this compares `epoch` from before the first publish to after this.
    pub async fn flush_barrier(&self) -> Result<(), RpcError> {
        let before = self.epoch();
        self.inner.inbox.round_trip(BARRIER_TIMEOUT).await?;
        if self.epoch() == before { Ok(()) } else { Err(RpcError::Broken("the connection broke".into())) }
    }

    /// A request to another role, in MessagePack.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(&self, subject: &str, q: &Q, timeout: Duration) -> Result<A, RpcError> {
        let payload = rmp_serde::to_vec_named(q).map_err(|e| RpcError::Broken(format!("request: {e}")))?;
        let message = self.inner.inbox.request(subject, None, payload.into(), timeout).await?;
        match rmp_serde::from_slice::<Answer<A>>(&message.payload).map_err(|e| RpcError::Broken(format!("answer: {e}")))? {
            Answer::Ok(answer) => Ok(answer),
            Answer::No(refusal) => Err(RpcError::Refused(refusal)),
            Answer::Full => Err(RpcError::Full),
        }
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inner.inbox
    }
}

async fn options(cfg: &NatsConfig, role: &str, notices: Arc<AtomicU64>) -> Result<ConnectOptions, ConnectError> {
    let name = format!("{} {role}", cfg.name);
    let mut o = ConnectOptions::new()
        .name(name)
        .ping_interval(PING)
        .request_timeout(Some(Duration::from_secs(5)))
        // Full jitter up to 2 s: a restarted server is not met by everybody at once.
        .reconnect_delay_callback(|attempts| {
            if attempts <= 1 {
                Duration::ZERO
            } else {
                let most = (50u64 << attempts.min(6)).min(2_000);
                Duration::from_millis(rand::random_range(10..=most))
            }
        })
        .event_callback(move |event| {
            let notices = notices.clone();
            async move {
                match event {
                    Event::Disconnected | Event::SlowConsumer(_) | Event::LameDuckMode => {
                        notices.fetch_add(1, Ordering::Relaxed);
                        metrics::counter!("natterjack_nats_notices_total").increment(1);
                        tracing::warn!(%event, "nats connection");
                    }
                    Event::Connected if notices.load(Ordering::Relaxed) > 0 => tracing::info!("nats connected again"),
                    // The first connection, and one that we close: no news.
                    Event::Connected | Event::Closed => tracing::debug!(%event, "nats connection"),
                    other => tracing::warn!(event = %other, "nats connection"),
                }
            }
        });
    if let Some(user) = &cfg.user {
        o = o.user_and_password(user.clone(), cfg.password.clone().unwrap_or_default());
    }
    if let Some(path) = &cfg.creds {
        o = o.credentials_file(path).await.map_err(|e| ConnectError::Config(format!("credentials file {path}: {e}")))?;
    }
    Ok(o)
}

/// Addresses without what stands before `@`.
pub(crate) fn shown(urls: &[String]) -> String {
    urls.iter().map(|u| u.rsplit('@').next().unwrap_or_default()).collect::<Vec<_>>().join(", ")
}
