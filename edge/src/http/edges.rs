//! Which edges there are, and how this one is.

use axum::{Json, extract::State};
use natterjack_protocol::{
    Refusal,
    client::http::{EdgeUrls, EdgeWell},
};

use super::{Shared, extract::Answer};
use crate::address::Came;

/// Where to connect: edges that live, are not leaving and are in touch with the log; perhaps none. Needs no token.
#[utoipa::path(get, path = "/v1/edges", tag = "edges", operation_id = "listEdges",
    responses((status = 200, body = EdgeUrls)))]
pub async fn list(State(api): Shared, came: Came) -> Json<EdgeUrls> {
    // This one says of itself what it knows: its lease, as it last saw it, is from before it was cut off.
    let ready = api.status.now().ready().is_ok();
    Json(EdgeUrls { edges: if ready { api.edges.all(&came) } else { api.edges.others(&came) } })
}

/// Asked by load balancers again and again, for nobody.
pub fn is_check(path: &str) -> bool {
    matches!(path, "/health" | "/ready")
}

/// 200 as long as the process answers and does not leave.
#[utoipa::path(get, path = "/health", tag = "edges", operation_id = "health",
    responses((status = 200, body = EdgeWell)))]
pub async fn health() -> Json<EdgeWell> {
    Json(EdgeWell { ok: true })
}

/// 200 if new clients should come: for load balancers.
#[utoipa::path(get, path = "/ready", tag = "edges", operation_id = "ready", responses((status = 200, body = EdgeWell)))]
pub async fn ready(State(api): Shared) -> Answer<EdgeWell> {
    // The status knows at once that the edge leaves, the health that something stands still.
    let well = api.status.now().ready().is_ok() && api.health.report().ready;
    if well {
        Ok(Json(EdgeWell { ok: true }))
    } else {
        Err(Refusal::unavailable("this edge takes no new clients now").into())
    }
}
