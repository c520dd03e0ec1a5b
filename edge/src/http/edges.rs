//! Which edges there are, and how this one is.

use axum::{Json, extract::State};
use natterjack_protocol::Refusal;
use serde::Serialize;

use super::{Shared, extract::Answer};
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
    let ready = api.status.now().ready().is_ok();
    Json(EdgeList { edges: if ready { api.edges.all(&came) } else { api.edges.others(&came) } })
}

/// Asked by load balancers again and again, for nobody.
pub fn is_check(path: &str) -> bool {
    matches!(path, "/health" | "/ready")
}

/// All that is said of this edge on the clients' port. What is wrong, and numbers, are on the operators' address (`admin.listen`).
#[derive(Serialize, utoipa::ToSchema)]
pub struct Well {
    /// Always true.
    ok: bool,
}

/// 200 as long as the process answers and does not leave.
#[utoipa::path(get, path = "/health", tag = "edges", operation_id = "health", responses((status = 200, body = Well)))]
pub async fn health() -> Json<Well> {
    Json(Well { ok: true })
}

/// 200 if new clients should come: for load balancers.
#[utoipa::path(get, path = "/ready", tag = "edges", operation_id = "ready", responses((status = 200, body = Well)))]
pub async fn ready(State(api): Shared) -> Answer<Well> {
    // The status knows at once that the edge leaves, the health that something stands still.
    let well = api.status.now().ready().is_ok() && api.health.report().ready;
    if well { Ok(Json(Well { ok: true })) } else { Err(Refusal::unavailable("this edge takes no new clients now").into()) }
}
