//! Messages over HTTP: pages of a thread (the same question as the frame `history`), and sending (the same as the frame `send`).

use axum::{Json, extract::State};
use natterjack_protocol::{
    Body, Cid, Kind, MsgId, Thread,
    client::frame::{HistoryQuery, Page, SendMessage},
};
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    extract::{self, Actor, Answer, Path},
    openapi::{message, place, scalar, schema},
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
    params(ThreadPath, place::Place), security(("token" = [])), extensions(("x-codes" = json!(["not_member", "not_found"]))),
    responses((status = 200, body = schema::Page)))]
pub async fn page(
    State(api): Shared,
    Actor(actor): Actor,
    Path(ThreadPath { thread }): Path<ThreadPath>,
    Query(p): Query<Wanted>,
) -> Answer<Page> {
    let asked =
        HistoryQuery { r: 0, thread: Some(thread.thread()?), before: p.before, after: p.after, around: p.around, at: p.at, limit: p.limit };
    let question = PageQuestion::of(&asked)?;
    Ok(Json(api.pages.page(&actor.user, None, question, MsgId::NONE).await?))
}

/// Described by `message::NewMessage`: which fields the body needs depends on the kind.
#[derive(Deserialize)]
pub struct Message {
    pub cid: Cid,
    pub kind: Kind,
    pub body: Body,
    pub behind: Option<Cid>,
}

/// The log has it.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Sent {
    #[schema(value_type = scalar::Cid)]
    cid: Cid,
    #[schema(value_type = scalar::Thread)]
    thread: Thread,
    /// The message's id; the same for every attempt with this cid.
    #[schema(value_type = scalar::MsgId)]
    id: MsgId,
}

/// Sends; answered when the log has the message. Safe to repeat with the same cid, through any edge.
#[utoipa::path(post, path = "/v1/threads/{thread}/messages", tag = "threads", operation_id = "sendMessage",
    params(ThreadPath), request_body = message::NewMessage, security(("token" = [])),
    extensions(("x-codes" = json!(["not_member", "blocked", "not_found", "limit_reached", "clock_ahead", "out_of_order", "resend_too_old",
        "storage_behind"]))),
    responses((status = 200, body = Sent)))]
pub async fn send(
    State(api): Shared,
    Actor(actor): Actor,
    Path(ThreadPath { thread }): Path<ThreadPath>,
    extract::Body(m): extract::Body<Message>,
) -> Answer<Sent> {
    let thread = thread.thread()?;
    let send = SendMessage { r: 0, cid: m.cid, thread: thread.clone(), kind: m.kind, body: m.body, behind: m.behind };
    let id = Box::pin(api.http_sends.post(actor, send)).await?;
    Ok(Json(Sent { cid: m.cid, thread, id }))
}
