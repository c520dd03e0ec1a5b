//! A user of a cluster under test.

use natterjack_client::{Builder, Client};
use natterjack_protocol::{Thread, UserId, client::http::Tokens};
use serde_json::json;

use super::cluster::Cluster;

#[derive(Clone)]
pub struct User {
    pub name: String,
    pub password: String,
    pub tokens: Tokens,
}

impl User {
    pub async fn register(cluster: &Cluster, edge: usize, prefix: &str) -> Self {
        // Two tests may use the same word on one cluster.
        let name = format!("{prefix}-{:06x}", rand::random::<u32>() & 0xff_ffff);
        let password = "correct horse battery".to_owned();
        let (status, body) =
            cluster.anonymous(edge).post("/v1/register", &json!({ "name": name, "password": password })).await;
        assert_eq!(status, 200, "registering {name}: {body}");
        Self { name, password, tokens: serde_json::from_value(body).expect("a registration answers with tokens") }
    }

    pub fn id(&self) -> &UserId {
        &self.tokens.user
    }

    pub fn dm(&self, other: &User) -> Thread {
        Thread::dm(self.id(), other.id())
    }

    /// The same user on another device.
    pub async fn log_in(&self, cluster: &Cluster, edge: usize) -> Self {
        let (status, body) =
            cluster.anonymous(edge).post("/v1/login", &json!({ "name": self.name, "password": self.password })).await;
        assert_eq!(status, 200, "logging in {}: {body}", self.name);
        Self { tokens: serde_json::from_value(body).expect("a login answers with tokens"), ..self.clone() }
    }

    pub fn builder<S: Into<String>>(&self, edges: impl IntoIterator<Item = S>) -> Builder {
        Client::builder().edges(edges).tokens(self.tokens.clone()).device(self.tokens.device.as_str())
    }
}
