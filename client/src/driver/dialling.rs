//! The way to an edge: which one, with what hello, and when again.

use std::{collections::BTreeMap, time::Duration};

use natterjack_protocol::{
    Code, MsgId, Refusal, Thread,
    client::{
        close::Back,
        frame::{Displaced, Hello},
        http::EdgeUrls,
    },
};

use super::{Driver, DriverOptions};
use crate::{
    auth::Auth,
    backoff,
    clock::now,
    connection::{Connection, Lost, dial},
    error::RequestError,
    events::ClientEvent,
};

/// Until the first look at the list of edges, and between two.
const EDGES_SOON: Duration = Duration::from_secs(2);
const EDGES_EVERY: Duration = Duration::from_secs(300);

pub(super) type Hellos = BTreeMap<Thread, MsgId>;

/// What a dial came to: the connection, or why there is none; the edge, what `hello` said, the token it used.
pub(super) struct Dialled {
    pub result: Result<Connection, Lost>,
    pub edge: String,
    pub said: Hellos,
    pub access: String,
}

pub(super) enum Next {
    Wait(Duration),
    /// Until the app takes over from this one.
    StayAway(Displaced),
    End(Box<ClientEvent>),
}

impl Driver {
    /// The access token could not be renewed; a server that said when was asked for all edges.
    pub(super) fn not_asked(&mut self, e: &RequestError) -> Next {
        let told = match e {
            RequestError::Refused(refusal) => refusal.retry_after_ms,
            _ => None,
        };
        match self.lost(Lost::Broken(e.to_string()), "", String::new(), Duration::ZERO) {
            Next::Wait(wait) => Next::Wait(told.map_or(wait, |ms| wait.max(backoff::told(ms, 0, rand::random())))),
            end => end,
        }
    }

    /// Whether, where and when to come back.
    pub(super) fn lost(&mut self, lost: Lost, edge: &str, access: String, lived: Duration) -> Next {
        tracing::debug!(?lost, ?lived, edge, "connection lost");
        let (back, random) = (lost.back(), rand::random());
        self.refused_by(&lost, edge, access);
        let (edges, at) = self.auth.http().with_edges(|e| {
            e.next();
            (e.len(), e.choose(now()))
        });
        let wait =
            self.backoff.lost(back, lived, edges, random).map(|wait| wait.max(at.saturating_duration_since(now())));
        match (wait, lost) {
            (Some(wait), _) => Next::Wait(wait),
            (None, Lost::Displaced(by)) => Next::StayAway(by),
            (None, Lost::Closed { code, reason, .. }) => Next::End(Box::new(ClientEvent::Ended { code, reason })),
            (None, Lost::Refused(refusal)) => {
                Next::End(Box::new(ClientEvent::Ended { code: 0, reason: refusal.message }))
            }
            (None, Lost::Broken(reason)) => Next::End(Box::new(ClientEvent::Ended { code: 0, reason })),
            (None, Lost::NoUpgrade { status, .. }) => {
                Next::End(Box::new(ClientEvent::Ended { code: status, reason: String::new() }))
            }
        }
    }

    /// What an edge said about its next dial, and about the token.
    pub(super) fn refused_by(&mut self, lost: &Lost, edge: &str, access: String) {
        if let Some(ms) = lost.told() {
            let until = now() + backoff::told(ms, 0, rand::random());
            self.auth.http().with_edges(|e| e.bar(edge, until));
        }
        if lost.back() == Back::AfterLogin {
            self.stale = Some(access);
        }
    }

    pub(super) fn logged_out(&mut self, e: &RequestError) {
        let refusal = match e {
            RequestError::Refused(r) => r.clone(),
            other => Refusal::new(Code::Unauthorized, other.to_string()),
        };
        self.core.tell(ClientEvent::LoggedOut { refusal });
    }

    /// A connection to the current edge, on its way; borrows nothing of the driver.
    pub(super) fn dial(&mut self) -> impl Future<Output = Result<Dialled, RequestError>> + Send + use<> {
        let (auth, stale) = (self.auth.clone(), self.stale.clone());
        let (said, synced) = self.core.resume.hello();
        let DriverOptions { codec, class, heartbeat, .. } = self.options;
        let (name, app, session) = (self.options.name.clone(), self.options.app.clone(), self.session.clone());
        async move {
            let access = auth.access(stale.as_deref()).await?;
            let edge = auth.http().with_edges(|e| e.current().to_owned());
            let (token, device, cursors) = (access.clone(), auth.device.clone(), said.clone());
            let hello = Hello { token, device, class, name, app, session, cursors, synced };
            let result = dial(edge.clone(), auth.http().clone(), codec, hello, heartbeat).await;
            Ok(Dialled { result, edge, said, access })
        }
    }

    /// As `dial`, not before the chosen edge takes us.
    pub(super) fn dial_later(
        &mut self,
        wait: Duration,
    ) -> impl Future<Output = Result<Dialled, RequestError>> + Send + use<> {
        let at = self.auth.http().with_edges(|e| e.choose(now())).max(now() + wait);
        let dial = self.dial();
        async move {
            tokio::time::sleep_until(at.into()).await;
            dial.await
        }
    }
}

/// Soon after the start, then from time to time.
pub(super) async fn learn_edges(auth: &Auth) {
    let mut wait = EDGES_SOON.mul_f64(rand::random());
    loop {
        tokio::time::sleep(wait).await;
        match auth.http().ask_any::<(), EdgeUrls>(reqwest::Method::GET, "/v1/edges", None, None).await {
            Ok((from, EdgeUrls { edges })) => {
                auth.http().with_edges(|e| e.learn(&from, &edges));
                wait = EDGES_EVERY.mul_f64(0.5 + rand::random::<f64>());
            }
            Err(e) => {
                tracing::debug!(error = %e, "the list of edges was not read");
                if let RequestError::Refused(Refusal { retry_after_ms: Some(ms), .. }) = e {
                    tokio::time::sleep(backoff::told(ms, 0, rand::random())).await;
                }
                wait = (wait * 2)
                    .clamp(EDGES_SOON.mul_f64(0.5), EDGES_EVERY.mul_f64(0.5))
                    .mul_f64(0.5 + rand::random::<f64>());
            }
        }
    }
}
