//! Messages over HTTP: pages of a thread (the same question as the frame `history`), and sending (the same as the
//! frame `send`).

use axum::{Json, extract::State};
use natterjack_protocol::{
    MsgId, UserId,
    client::{
        frame::{HistoryQuery, Page, SendMessage},
        http::{MessageSent, NewMessage, ReceiptsAnswer},
    },
    schema::PageLimit,
    text,
};
use serde::Deserialize;

use super::{
    Shared,
    extract::{self, Answer, Authenticated, Path},
    openapi::place,
    path::{MessagePath, ThreadPath},
    query::{Query, number},
};
use crate::{pages::PageQuestion, threads::page_limit};

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

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReceiptsPage {
    /// The `next` of the page before.
    #[param(inline)]
    after: Option<UserId>,
    #[serde(default, deserialize_with = "number")]
    #[param(inline, value_type = Option<PageLimit>)]
    limit: Option<u16>,
}

/// Who has got and read a message, of those who may read it: for any message of any age.
#[utoipa::path(get, path = "/v1/threads/{thread}/messages/{id}/receipts", tag = "threads",
    operation_id = "listReceipts", params(MessagePath, ReceiptsPage), security(("token" = [])),
    extensions(("x-codes" = json!(["not_member", "not_found", "forbidden"]))),
    responses((status = 200, body = ReceiptsAnswer)))]
pub async fn receipts(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(MessagePath { thread, id }): Path<MessagePath>,
    Query(page): Query<ReceiptsPage>,
) -> Answer<ReceiptsAnswer> {
    text::number(id.0).map_err(|e| e.of("path: id"))?;
    let limit = page_limit(page.limit)?;
    Ok(Json(api.receipts.of_message(&actor.user, thread.thread()?, id, page.after.as_ref(), limit).await?))
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
