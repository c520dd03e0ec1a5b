//! HTTP to the same edges, for what is asked once: accounts, people, groups, the list of edges.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use natterjack_protocol::{Code, Refusal};
use reqwest::{
    Method, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::HeaderMap,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    backoff,
    clock::{ServerClock, now},
    edges::{Edges, http_base},
    error::RequestError,
    told,
};

/// Longer than the slowest honest answer: a group change waits up to 15 s for an election of the log.
const ANSWER: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(3);
/// No attempt begins later. A used refresh token may come again for 60 s: that is this, an attempt, and time to spare.
const ATTEMPTS: Duration = Duration::from_secs(30);
/// Before the same edge is asked again.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    pub tls: Arc<rustls::ClientConfig>,
    pub edges: Arc<Mutex<Edges>>,
    clock: ServerClock,
}

impl Http {
    pub fn new(edges: Edges, tls: Arc<rustls::ClientConfig>) -> Result<Self, RequestError> {
        // No proxy from the environment: the edges are named by address.
        let edges = Arc::new(Mutex::new(edges));
        let client = reqwest::Client::builder()
            .dns_resolver(Arc::new(Names(edges.clone())))
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            // An edge never redirects. A captive portal does, and a password or a refresh token is not for it.
            .redirect(reqwest::redirect::Policy::none())
            .use_preconfigured_tls((*tls).clone())
            .no_proxy()
            .build()
            .map_err(|e| RequestError::Unreadable(e.to_string()))?;
        Ok(Self { client, tls, edges, clock: ServerClock::default() })
    }

    pub fn with_edges<T>(&self, work: impl FnOnce(&mut Edges) -> T) -> T {
        work(&mut self.edges.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn names(&self) -> Names {
        Names(self.edges.clone())
    }

    /// The server's time. None before the first answer.
    pub fn now_ms(&self) -> Option<u64> {
        self.clock.now_ms(now())
    }

    pub fn clock(&self) -> ServerClock {
        self.clock.clone()
    }

    /// Asks the current edge, and the next ones if no answer comes or it is `unavailable`; the only one twice. What
    /// changes something may be repeated like what reads: done by an attempt whose answer was lost, it is not done
    /// again (docs/protocol.md, HTTP).
    pub async fn ask<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        access: Option<&str>,
        body: Option<&B>,
    ) -> Result<T, RequestError> {
        self.ask_any(method, path, access, body).await.map(|(_, answer)| answer)
    }

    /// Likewise, with the edge that answered.
    pub async fn ask_any<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        access: Option<&str>,
        body: Option<&B>,
    ) -> Result<(String, T), RequestError> {
        let edges = self.with_edges(|e| e.in_turn());
        let attempts = edges.iter().cycle().take(edges.len().max(2));
        let began = Instant::now();
        let mut failure = RequestError::Unreachable { tried: edges.join(", "), why: String::new() };
        for (n, edge) in attempts.enumerate() {
            if n >= edges.len() {
                match pause(&failure) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => break,
                }
            }
            if began.elapsed() > ATTEMPTS {
                break;
            }
            let mut request = self.client.request(method.clone(), format!("{}{path}", http_base(edge)));
            if let Some(access) = access {
                request = request.bearer_auth(access);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let unreachable =
                |e: &reqwest::Error| RequestError::Unreachable { tried: edges.join(", "), why: root_cause(e) };
            failure = match request.send().await {
                Ok(response) => {
                    self.learn(response.headers());
                    let status = response.status();
                    let told = told::retry_after(response.headers());
                    match response.bytes().await.as_deref() {
                        Ok(bytes) => match read(status, told, bytes) {
                            Err(RequestError::Refused(r)) if r.code == Code::Unavailable => RequestError::Refused(r),
                            done => return done.map(|answer| (edge.clone(), answer)),
                        },
                        Err(e) => unreachable(e),
                    }
                }
                Err(e) if e.is_timeout() && !e.is_connect() => RequestError::Timeout(ANSWER),
                Err(e) => unreachable(&e),
            };
        }
        Err(failure)
    }

    fn learn(&self, headers: &HeaderMap) {
        if let Some(ms) = headers.get("natterjack-now").and_then(|v| v.to_str().ok()?.parse().ok()) {
            self.clock.learn(ms, now());
        }
    }
}

/// Finds the addresses of an edge, without those that it may not have.
pub(crate) struct Names(Arc<Mutex<Edges>>);

impl Names {
    pub async fn find(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let may = self.0.lock().unwrap_or_else(PoisonError::into_inner).dialable(host);
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        let good: Vec<SocketAddr> = found.into_iter().filter(|a| may(a.ip())).collect();
        if good.is_empty() {
            return Err(io::Error::other(format!(
                "{host} leads to no address but this machine's own, and the app did not name it"
            )));
        }
        Ok(good)
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = Self(self.0.clone());
        Box::pin(async move {
            // The port is put in by whoever asked.
            let found = names.find(name.as_str(), 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Before the same edge is asked again; none: it wants to be left alone for longer.
fn pause(failure: &RequestError) -> Option<Duration> {
    let told = match failure {
        RequestError::Refused(Refusal { retry_after_ms: Some(ms), .. }) => backoff::told(*ms, 0, rand::random()),
        _ => PAUSE,
    };
    (told <= LONGEST_PAUSE).then_some(told)
}

/// `told`: what the head says of when to come back.
fn read<T: DeserializeOwned>(status: StatusCode, told: Option<u64>, bytes: &[u8]) -> Result<T, RequestError> {
    if status.is_success() {
        return serde_json::from_slice(bytes).map_err(|e| RequestError::Unreadable(e.to_string()));
    }
    let refusal = serde_json::from_slice::<Refusal>(bytes).ok().or_else(|| strange(status));
    Err(refusal.map_or_else(
        || RequestError::Unreadable(status.to_string()),
        |r| RequestError::Refused(Refusal { retry_after_ms: told::longer(r.retry_after_ms, told), ..r }),
    ))
}

/// An error that is not ours (a proxy's, for instance).
fn strange(status: StatusCode) -> Option<Refusal> {
    let why = format!("the edge, or a proxy before it, answered {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(Refusal::new(Code::RateLimited, why)),
        status => status.is_server_error().then(|| Refusal::unavailable(why)),
    }
}

/// The innermost reason, without the address in front: a path may hold what people typed.
fn root_cause(e: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if cause.is::<reqwest::Error>() {
        return (if e.is_timeout() { "no answer in time" } else { "the request failed" }).to_owned();
    }
    cause.to_string()
}
