//! Messages over HTTP: pages of a thread (the same question as the frame `history`), and sending (the same as the
//! frame `send`).

use axum::{Json, extract::State};
use natterjack_protocol::{
    MsgId,
    client::{
        frame::{HistoryQuery, Page, SendMessage},
        http::{MessageSent, NewMessage},
    },
};
use serde::Deserialize;

use super::{
    Shared,
    extract::{self, Answer, Authenticated, Path},
    openapi::place,
    path::ThreadPath,
    query::{Query, number},
};
use crate::pages::PageQuestion;

/// Described by `place`, which can say that they exclude each other.
#[derive(Deserialize)]
pub struct Wanted {
    #[serde(default, deserialize_with = "number")]
    before: Option<MsgId>,
    #[serde(default, deserialize_with = "number")]
    after: Option<MsgId>,
    #[serde(default, deserialize_with = "number")]
    around: Option<MsgId>,
    #[serde(default, deserialize_with = "number")]
    at: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    limit: Option<u16>,
}

/// At most one of before, after, around and at; none: the newest page. Oldest first.
#[utoipa::path(get, path = "/v1/threads/{thread}/messages", tag = "threads", operation_id = "getMessages",
    params(ThreadPath, place::Place), security(("token" = [])),
    extensions(("x-codes" = json!(["not_member", "not_found"]))),
    responses((status = 200, body = Page)))]
pub async fn page(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(ThreadPath { thread }): Path<ThreadPath>,
    Query(p): Query<Wanted>,
) -> Answer<Page> {
    let asked = HistoryQuery {
        r: 0,
        thread: Some(thread.thread()?),
        before: p.before,
        after: p.after,
        around: p.around,
        at: p.at,
        limit: p.limit,
    };
    let question = PageQuestion::of(&asked)?;
    Ok(Json(api.pages.page(&actor.user, None, question, MsgId::NONE).await?))
}

/// Sends; answered when the log has the message. Safe to repeat with the same cid, through any edge.
#[utoipa::path(post, path = "/v1/threads/{thread}/messages", tag = "threads", operation_id = "sendMessage",
    params(ThreadPath), request_body = NewMessage, security(("token" = [])),
    extensions(("x-codes" = json!(["displaced", "not_member", "blocked", "not_found", "limit_reached", "clock_ahead",
    "out_of_order", "resend_too_old",
        "storage_behind"]))),
    responses((status = 200, body = MessageSent)))]
pub async fn send(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(ThreadPath { thread }): Path<ThreadPath>,
    extract::JsonBody(m): extract::JsonBody<NewMessage>,
) -> Answer<MessageSent> {
    let thread = thread.thread()?;
    let send = SendMessage { r: 0, cid: m.cid, thread: thread.clone(), kind: m.kind, body: m.body, behind: m.behind };
    let id = Box::pin(api.http_sends.post(actor, send)).await?;
    Ok(Json(MessageSent { cid: m.cid, thread, id }))
}
