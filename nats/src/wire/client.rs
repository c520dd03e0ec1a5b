//! One connection of a process to NATS, for everything but the fan-in of live subjects.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{AuthError, Client, ConnectErrorKind, ConnectOptions, Event, ServerError, connection::State};
use futures_util::future::BoxFuture;
use natterjack_protocol::limits;

use crate::{
    config::NatsConfig,
    nats_role,
    wire::{
        inbox::Inbox,
        login::{self, NatsLogin},
        raw::link::{self, LinkAccess},
        tls,
    },
};

/// Two missed pings end a link: a half-open connection is noticed after 10–15 s instead of minutes.
const PING: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum NatsConnectError {
    #[error("nats: {0}")]
    Config(String),
    #[error("nats at {urls}: {reason}; is nats-server running there, with JetStream (-js)?")]
    Unreachable { urls: String, reason: String },
    #[error("nats at {urls} refuses this login: {reason}")]
    Refused { urls: String, reason: String },
    #[error("nats at {urls}: {reason}")]
    Tls { urls: String, reason: String },
}

/// Cheap to clone; all clones share one TCP connection.
#[derive(Clone)]
pub struct Nats {
    client: Client,
    inner: Arc<Inner>,
}

struct Inner {
    cfg: NatsConfig,
    inbox: Inbox,
    notices: Arc<AtomicU64>,
}

impl Nats {
    /// Boxed, so that the client behind it is compiled once, in this crate.
    pub fn connect<'a>(cfg: &'a NatsConfig, role: &'a str) -> BoxFuture<'a, Result<Self, NatsConnectError>> {
        Box::pin(Self::open(cfg, role))
    }

    async fn open(cfg: &NatsConfig, role: &str) -> Result<Self, NatsConnectError> {
        crate::metrics::describe();
        let urls = shown(&cfg.urls);
        let (addrs, login) = (login::addresses(cfg)?, NatsLogin::new(cfg)?);
        if tls::required(cfg) {
            // Files that are no good become no better by waiting.
            tls::connector(&cfg.tls).map_err(NatsConnectError::Config)?;
        }
        let notices = Arc::new(AtomicU64::new(0));
        let deadline = tokio::time::Instant::now() + Duration::from_millis(cfg.connect_deadline_ms);
        let mut pause = Duration::from_millis(20);
        let client = loop {
            let e = match options(cfg, role, &login, notices.clone()).connect(addrs.clone()).await {
                Ok(client) => break client,
                Err(e) => e,
            };
            if matches!(e.kind(), ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation) {
                return Err(NatsConnectError::Refused { urls, reason: format!("{e}; {}", login.advice()) });
            }
            if tokio::time::Instant::now() + pause > deadline {
                // The library keeps the reason to itself.
                let why = check_servers(cfg, role).await?.into_iter().filter_map(|(_, found)| found.err());
                let telling = why.into_iter().find(|e| !matches!(e, NatsConnectError::Unreachable { .. }));
                return Err(telling.unwrap_or(NatsConnectError::Unreachable { urls, reason: e.to_string() }));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        let inbox = Inbox::open(client.clone())
            .await
            .map_err(|e| NatsConnectError::Unreachable { urls, reason: e.to_string() })?;
        Ok(Self { client, inner: Arc::new(Inner { cfg: cfg.clone(), inbox, notices }) })
    }

    /// Changes whenever something written or subscribed on this connection may have been lost: on a reconnect (counted
    /// before anything is written to the new connection), on a disconnect, a slow-consumer notice, a server that
    /// leaves. Compare it around a piece of work.
    pub fn epoch(&self) -> u64 {
        self.connections() + self.inner.notices.load(Ordering::Relaxed)
    }

    /// How many connections there have been, this one and the first included. Counted before anything is written to it.
    pub(crate) fn connections(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// What it was connected with: for a connection beside this one.
    pub fn config(&self) -> &NatsConfig {
        &self.inner.cfg
    }

    /// Does the server carry the largest message there may be? What to do, if not.
    pub fn carries_all(&self) -> Result<usize, String> {
        match self.client.max_payload() {
            least @ 0..limits::PAYLOAD_BYTES => Err(format!(
                "max_payload of nats-server is {least} bytes, at least {} are needed; set `max_payload: 1MB` or more \
                 in its configuration",
                limits::PAYLOAD_BYTES
            )),
            bytes => Ok(bytes),
        }
    }

    pub fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// 2.14: batches of messages, which the log is read and written with.
    pub(crate) fn is_server_compatible(&self) -> bool {
        self.client.is_server_compatible(2, 14, 0)
    }

    pub(crate) fn server_version(&self) -> String {
        self.client.server_info().version
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inner.inbox
    }
}

/// Asks each server of the configuration by itself, as our own connections do: host and port, and what is wrong with
/// it.
pub async fn check_servers(
    cfg: &NatsConfig,
    role: &str,
) -> Result<Vec<(String, Result<(), NatsConnectError>)>, NatsConnectError> {
    let (access, mut found) = (LinkAccess::new(cfg, role)?, Vec::new());
    for server in link::servers(cfg)? {
        let address = server.address.clone();
        found.push((address, link::open(server, access.clone(), link::PATIENT).await.map(drop)));
    }
    Ok(found)
}

fn options(cfg: &NatsConfig, role: &str, login: &NatsLogin, notices: Arc<AtomicU64>) -> ConnectOptions {
    let name = format!("{} {role}", cfg.name);
    let login = login.clone();
    let mut o = ConnectOptions::with_auth_callback(move |nonce| {
        // Small files at most; the nonce is text.
        ready(login.answer(&String::from_utf8_lossy(&nonce)).map_err(AuthError::new))
    });
    o = o
        .name(name)
        .custom_inbox_prefix(nats_role::inbox(cfg.role))
        .require_tls(tls::required(cfg))
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
                        metrics::counter!(crate::metrics::NATS_NOTICES).increment(1);
                        tracing::warn!(%event, "nats connection");
                    }
                    Event::Connected if notices.load(Ordering::Relaxed) > 0 => tracing::info!("nats connected again"),
                    // The first connection, and one that we close: no news.
                    Event::Connected | Event::Closed => tracing::debug!(%event, "nats connection"),
                    Event::ServerError(ServerError::Other(said)) if nats_role::denied(&said) => {}
                    other => tracing::warn!(event = %other, "nats connection"),
                }
            }
        });
    // Read again by the library for each connection.
    if let Some(ca) = &cfg.tls.ca {
        o = o.add_root_certificates(ca.clone());
    }
    if let (Some(certificate), Some(key)) = (&cfg.tls.certificate, &cfg.tls.key) {
        o = o.add_client_certificate(certificate.clone(), key.clone());
    }
    if cfg.tls.first { o.tls_first() } else { o }
}

/// Addresses without what stands before `@`.
pub(crate) fn shown(urls: &[String]) -> String {
    urls.iter().map(|u| u.rsplit('@').next().unwrap_or_default()).collect::<Vec<_>>().join(", ")
}
