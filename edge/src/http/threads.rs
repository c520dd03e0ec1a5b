//! The list of threads over HTTP: the same as the frame `threads`, read from the leader because there is no session.

use axum::{Json, extract::State};
use natterjack_protocol::{MsgId, client::frame::ThreadSummary};
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    extract::{Actor, Answer},
    openapi::{scalar, schema},
    query::{Query, number},
};

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Turn {
    #[serde(default, deserialize_with = "number")]
    #[param(inline, value_type = Option<scalar::PageLimit>)]
    limit: Option<u16>,
    /// The `next` of the page before.
    #[serde(default, deserialize_with = "number")]
    #[param(inline, value_type = Option<scalar::Time>)]
    before: Option<MsgId>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct Threads {
    #[schema(value_type = Vec<schema::ThreadSummary>)]
    threads: Vec<ThreadSummary>,
    /// None: that was the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<scalar::Time>)]
    next: Option<MsgId>,
}

/// Newest activity first.
#[utoipa::path(get, path = "/v1/threads", tag = "threads", operation_id = "listThreads", params(Turn), security(("token" = [])),
    responses((status = 200, body = Threads)))]
pub async fn list(State(api): Shared, Actor(actor): Actor, Query(turn): Query<Turn>) -> Answer<Threads> {
    let all = api.people.threads(&actor.user).await?.threads.into_iter().collect();
    let (threads, next) = api.threads.page(&actor.user, all, turn.limit, turn.before).await?;
    Ok(Json(Threads { threads, next }))
}
