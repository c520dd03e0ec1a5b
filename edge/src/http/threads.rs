//! The list of threads over HTTP: the same as the frame `threads`, read from the leader because there is no session.
//! And what was read in them: the same as the frame `ack`.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use natterjack_protocol::{
    MsgId, Refusal, Thread,
    client::{
        frame::Acknowledged,
        http::{AllRead, ReadAnswer, ThreadsAnswer},
        thread_settings::{SettingsChange, ThreadSettings},
    },
    schema::{PageLimit, Synced, Time},
};
use serde::Deserialize;

use super::{
    Shared,
    extract::{Answer, Authenticated, JsonBody, Path},
    path::{ThreadName, ThreadPath},
    query::{Query, number},
};
use crate::threads::{ListQuery, ListedThreads};

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
    /// Those alone of which something has changed since: the `synced` of an earlier list.
    #[param(inline, value_type = Option<Synced>)]
    since: Option<String>,
    /// Those that the user has archived, instead of those they have not. Without meaning beside `since`.
    #[serde(default)]
    #[param(inline)]
    archived: bool,
}

/// Mutes, pins, archives a thread, marks it as unread, keeps a draft: on all devices of the user.
///
/// What is missing in the body stays as it is. Answered when it is stored, with all that is set then.
#[utoipa::path(patch, path = "/v1/threads/{thread}/settings", tag = "threads", operation_id = "setThread",
    params(ThreadPath), security(("token" = [])), request_body = SettingsChange,
    extensions(("x-codes" = json!(["not_member", "not_found", "limit_reached"]))),
    responses((status = 200, body = ThreadSettings)))]
pub async fn set(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(ThreadPath { thread }): Path<ThreadPath>,
    JsonBody(change): JsonBody<SettingsChange>,
) -> Answer<ThreadSettings> {
    let thread = thread.thread()?;
    let item = api.people.thread(&actor.user, &thread).await?;
    Ok(Json(api.threads.settings.set(&actor.user, &thread, item, change).await?))
}

/// Marks everything as read.
///
/// That is: all that has been written when it is asked. Answered when it is stored.
#[utoipa::path(post, path = "/v1/threads/read", tag = "threads", operation_id = "readAll", security(("token" = [])),
    responses((status = 200, body = AllRead)))]
pub async fn read_all(State(api): Shared, Authenticated(actor): Authenticated) -> Answer<AllRead> {
    let all = api.people.threads(&actor.user).await?.threads.into_iter().collect();
    Ok(Json(AllRead { threads: api.threads.read_all(&actor.user, all).await? }))
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

/// Pinned ones first, then by what happened last.
///
/// With `since` those alone of which something has changed: somebody wrote, reacted or edited, a membership changed, on
/// some device it was read or set. One may come again that has not changed.
#[utoipa::path(get, path = "/v1/threads", tag = "threads", operation_id = "listThreads", params(Turn),
    security(("token" = [])),
    responses((status = 200, body = ThreadsAnswer)))]
pub async fn list(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Query(turn): Query<Turn>,
) -> Answer<ThreadsAnswer> {
    let all = api.people.threads(&actor.user).await?.threads.into_iter().collect();
    let Turn { limit, before, since, archived } = turn;
    let list = api.threads.page(&actor.user, all, ListQuery { limit, before, since, archived, session: None }).await?;
    let ListedThreads { threads, next, synced } = list;
    Ok(Json(ThreadsAnswer { threads, next, synced }))
}
