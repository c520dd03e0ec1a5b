//! HTTP to the same edges, for what is asked once: accounts, people, groups, the list of edges.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use natterjack_protocol::{Code, Refusal};
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    edges::{Edges, http_base},
    error::RequestError,
};

/// Longer than the slowest honest answer: a group change waits up to 15 s for an election of the log.
const ANSWER: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    pub tls: Arc<rustls::ClientConfig>,
    pub edges: Arc<Mutex<Edges>>,
}

impl Http {
    pub fn new(edges: Edges, tls: Arc<rustls::ClientConfig>) -> Result<Self, RequestError> {
        // No proxy from the environment: the edges are named by address.
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .use_preconfigured_tls((*tls).clone())
            .no_proxy()
            .build()
            .map_err(|e| RequestError::Unreadable(e.to_string()))?;
        Ok(Self { client, tls, edges: Arc::new(Mutex::new(edges)) })
    }

    pub fn with_edges<T>(&self, work: impl FnOnce(&mut Edges) -> T) -> T {
        work(&mut self.edges.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the current edge, and the next ones if a request certainly did not get through; one that reads (GET) is asked again
    /// after any failure. Nothing that changes something is sent twice.
    pub async fn ask<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        access: Option<&str>,
        body: Option<&B>,
    ) -> Result<T, RequestError> {
        let edges = self.with_edges(|e| e.in_turn());
        let mut failure = RequestError::Unreachable { tried: edges.join(", "), why: String::new() };
        for edge in &edges {
            let mut request = self.client.request(method.clone(), format!("{}{path}", http_base(edge)));
            if let Some(access) = access {
                request = request.bearer_auth(access);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            failure = match request.send().await {
                Ok(response) => match read(response).await {
                    Err(RequestError::Refused(r)) if method == Method::GET && r.code == Code::Unavailable => RequestError::Refused(r),
                    done => return done,
                },
                Err(e) if e.is_connect() || method == Method::GET => {
                    RequestError::Unreachable { tried: edges.join(", "), why: root_cause(&e) }
                }
                Err(e) if e.is_timeout() => return Err(RequestError::Timeout(ANSWER)),
                Err(e) => return Err(RequestError::Unreachable { tried: edge.clone(), why: root_cause(&e) }),
            };
        }
        Err(failure)
    }
}

async fn read<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, RequestError> {
    let status = response.status();
    let bytes = response.bytes().await.map_err(|e| RequestError::Unreadable(root_cause(&e)))?;
    if status.is_success() {
        // "Done" may come without a body.
        let body: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        return serde_json::from_slice(body).map_err(|e| RequestError::Unreadable(e.to_string()));
    }
    Err(serde_json::from_slice::<Refusal>(&bytes).map_or_else(|_| strange(status), RequestError::Refused))
}

/// An error that is not ours (a proxy's, for instance).
fn strange(status: StatusCode) -> RequestError {
    if status.is_server_error() {
        RequestError::Refused(Refusal::unavailable(format!("the edge answered {status}")))
    } else {
        RequestError::Unreadable(status.to_string())
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
