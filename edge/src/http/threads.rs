//! The list of threads over HTTP: the same as the frame `threads`, read from the leader because there is no session.

use axum::{Json, extract::State};
use natterjack_protocol::{
    MsgId,
    client::http::ThreadsAnswer,
    schema::{PageLimit, Time},
};
use serde::Deserialize;

use super::{
    Shared,
    extract::{Answer, Authenticated},
    query::{Query, number},
};

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Turn {
    #[serde(default, deserialize_with = "number")]
    #[param(inline, value_type = Option<PageLimit>)]
    limit: Option<u16>,
    /// The `next` of the page before.
    #[serde(default, deserialize_with = "number")]
    #[param(inline, value_type = Option<Time>)]
    before: Option<MsgId>,
}

/// Newest activity first.
#[utoipa::path(get, path = "/v1/threads", tag = "threads", operation_id = "listThreads", params(Turn),
    security(("token" = [])),
    responses((status = 200, body = ThreadsAnswer)))]
pub async fn list(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Query(turn): Query<Turn>,
) -> Answer<ThreadsAnswer> {
    let all = api.people.threads(&actor.user).await?.threads.into_iter().collect();
    let (threads, next) = api.threads.page(&actor.user, all, turn.limit, turn.before).await?;
    Ok(Json(ThreadsAnswer { threads, next }))
}
