//! Plain HTTP against one edge.

use std::{net::SocketAddr, time::Duration};

use natterjack_testkit::{document, patience};
use reqwest::Method;
use serde_json::Value;

const ANSWER: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Api {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
    limit: Duration,
}

impl Api {
    pub fn new(edge: SocketAddr, token: Option<String>) -> Self {
        let http = reqwest::Client::builder().build().unwrap();
        Self { base: format!("http://{edge}"), token, http, limit: ANSWER }
    }

    /// Over TLS, believing this authority (PEM) and nobody else.
    pub fn secure(edge: SocketAddr, ca: &str) -> Self {
        let ca = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_built_in_root_certs(false).add_root_certificate(ca).build().unwrap();
        Self { base: format!("https://{edge}"), token: None, http, limit: ANSWER }
    }

    /// Waits so long for each answer.
    pub fn patient(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// Status and body; a body that is not JSON becomes a string. Whatever comes is one of the document's answers.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_call(method.clone(), path, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e:?}"))
    }

    /// Likewise, for when nobody may be there.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let mut request =
            self.http.request(method.clone(), format!("{}{path}", self.base)).timeout(patience(self.limit));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        document::judge(method.as_str(), path, status, &body);
        Ok((status, body))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, None).await
    }
}
