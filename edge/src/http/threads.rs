//! The list of threads over HTTP: the same as the frame `threads`, read from the leader because there is no session.
//! And what was read in them: the same as the frame `ack`.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use natterjack_protocol::{
    MsgId, Refusal, Thread,
    client::{
        frame::Acknowledged,
        http::{ReadAnswer, ThreadsAnswer},
    },
    schema::{PageLimit, Time},
};
use serde::Deserialize;

use super::{
    Shared,
    extract::{Answer, Authenticated, JsonBody},
    path::ThreadName,
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

/// How far this device has got in some threads, and how far its user has read in some.
///
/// Answered when it is stored, with how far these threads are read then. What is behind the one that is known already
/// changes nothing; beyond what the log has, an id counts as the newest one there is.
#[utoipa::path(post, path = "/v1/ack", tag = "threads", operation_id = "acknowledge", security(("token" = [])),
    request_body = Acknowledged,
    extensions(("x-codes" = json!(["not_member", "not_found"]))),
    responses((status = 200, body = ReadAnswer)))]
pub async fn ack(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    JsonBody(acked): JsonBody<Acknowledged<ThreadName>>,
) -> Answer<ReadAnswer> {
    let named = |ids: BTreeMap<ThreadName, MsgId>| {
        ids.into_iter().map(|(name, id)| Ok((name.thread()?, id))).collect::<Result<BTreeMap<Thread, MsgId>, Refusal>>()
    };
    let acked = Acknowledged { got: named(acked.got)?, read: named(acked.read)? };
    let threads = api.people.threads(&actor.user).await?;
    Ok(Json(ReadAnswer { read: api.cursors.ack_now(&actor.user, &threads, &actor.device, acked).await? }))
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
