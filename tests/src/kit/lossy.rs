//! An edge whose answers are lost: each request reaches it and is done, and the connection is reset before the first
//! byte comes back.

use natterjack_testkit::{Flow, Proxy, Side};
use reqwest::Method;
use serde_json::Value;

use super::{api::Api, cluster::Cluster, user::User};

pub struct LossyEdge {
    _proxy: Proxy,
    api: Api,
}

impl LossyEdge {
    /// In front of edge `i`.
    pub async fn start(cluster: &Cluster, i: usize) -> Self {
        let proxy = cluster.proxy_to_edge(i).await;
        proxy.set(Side::FromServer, Flow::ResetAfter(0));
        Self { api: Api::new(proxy.addr(), None), _proxy: proxy }
    }

    /// Returns when the edge has answered, and nobody heard of it.
    pub async fn lose(&self, who: Option<&User>, method: Method, path: &str, body: &Value) {
        let api = who.map_or_else(|| self.api.clone(), |user| self.api.with_token(user.tokens.access.clone()));
        if let Ok((status, body)) = api.try_call(method.clone(), path, Some(body)).await {
            panic!("{method} {path}: the answer came through: {status} {body}");
        }
    }
}
