//! Which edges there are, and how this one is.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use natterjack_protocol::{Refusal, error::Code};
use serde::Serialize;

use super::{Shared, extract::Failure, openapi::schema};
use crate::address::Came;

#[derive(Serialize, utoipa::ToSchema)]
pub struct EdgeList {
    /// In no order; `/v1/ws` is the path of the socket.
    #[schema(example = json!(["ws://127.0.0.1:8081"]))]
    edges: Vec<String>,
}

/// Where to connect: edges that live, are not leaving and are in touch with the log; perhaps none. Needs no token.
#[utoipa::path(get, path = "/v1/edges", tag = "edges", operation_id = "listEdges", responses((status = 200, body = EdgeList)))]
pub async fn list(State(api): Shared, came: Came) -> Json<EdgeList> {
    // This one says of itself what it knows: its lease, as it last saw it, is from before it was cut off.
    let ready = api.gate.now().ready().is_ok();
    Json(EdgeList { edges: if ready { api.edges.all(&came) } else { api.edges.others(&came) } })
}

/// 200 as long as the process answers.
#[utoipa::path(get, path = "/health", tag = "edges", operation_id = "health", responses((status = 200, body = schema::Report)))]
pub async fn health(State(api): Shared) -> Response {
    Json(api.health.report()).into_response()
}

/// 200 if new clients should come: beats of all partitions arrive, the lease is held, not leaving.
#[utoipa::path(get, path = "/ready", tag = "edges", operation_id = "ready", responses((status = 200, body = schema::Report)))]
pub async fn ready(State(api): Shared) -> Result<Response, Failure> {
    api.gate.now().ready().map_err(Refusal::unavailable)?;
    let report = api.health.report();
    if report.ready { Ok(Json(report).into_response()) } else { Err(Refusal::unavailable(report.failing()).into()) }
}

/// For Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "edges", operation_id = "metrics", extensions(("x-codes" = json!(["not_found"]))),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(api): Shared) -> Result<Response, Failure> {
    match &api.metrics {
        Some(metrics) => {
            let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            Ok((StatusCode::OK, text, metrics.render()).into_response())
        }
        None => Err(Refusal::new(Code::NotFound, "metrics are served on the admin address of this process").into()),
    }
}
