//! Messages over HTTP: pages of a thread (the same question as the frame `history`), and sending (the same as the frame `send`).

use axum::{Json, extract::State};
use natterjack_protocol::{
    Body, Cid, Kind, MsgId, Thread,
    frame::{History, Page},
};
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    extract::{self, Actor, Answer, Path, Query},
    openapi::schema,
};
use crate::pages::Question;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Place {
    /// The page that ends just below this id.
    #[param(value_type = Option<u64>)]
    before: Option<MsgId>,
    /// The page that begins just above this id.
    #[param(value_type = Option<u64>)]
    after: Option<MsgId>,
    /// Half a page on each side of this id.
    #[param(value_type = Option<u64>)]
    around: Option<MsgId>,
    /// The page that begins at this time, milliseconds since 1970.
    at: Option<u64>,
    /// 1 to 200; 50 if missing.
    limit: Option<u16>,
}

/// At most one of before, after, around and at; none: the newest page. Oldest first.
#[utoipa::path(get, path = "/v1/threads/{thread}/messages", tag = "threads", security(("token" = [])),
    params(("thread" = String, Path, example = "dm.ua.ub"), Place),
    responses((status = 200, body = schema::Page), (status = "default", body = schema::Refusal)))]
pub async fn page(State(api): Shared, Actor(actor): Actor, Path(thread): Path<Thread>, Query(p): Query<Place>) -> Answer<Page> {
    let asked = History { r: 0, thread: Some(thread), before: p.before, after: p.after, around: p.around, at: p.at, limit: p.limit };
    let question = Question::of(&asked)?;
    Ok(Json(api.pages.page(&actor.user, None, question, MsgId::NONE).await?))
}

#[derive(Deserialize, utoipa::ToSchema)]
pub struct Message {
    /// The client's id, a UUID of version 7 in the server's time; the same for every attempt.
    #[schema(value_type = String, example = "019f2314-e9e8-715a-9122-334455667788")]
    cid: Cid,
    #[schema(value_type = String, example = "text")]
    kind: Kind,
    #[schema(value_type = schema::Body)]
    body: Body,
}

/// The log has it.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Sent {
    #[schema(value_type = String)]
    cid: Cid,
    #[schema(value_type = String, example = "dm.ua.ub")]
    thread: Thread,
    /// The message's id; the same for every attempt with this cid.
    #[schema(value_type = u64)]
    id: MsgId,
}

/// Sends; answered when the log has the message. Safe to repeat with the same cid, through any edge.
#[utoipa::path(post, path = "/v1/threads/{thread}/messages", tag = "threads", security(("token" = [])),
    params(("thread" = String, Path, example = "dm.ua.ub")), request_body = Message,
    responses((status = 200, body = Sent), (status = "default", body = schema::Refusal)))]
pub async fn send(
    State(api): Shared,
    Actor(actor): Actor,
    Path(thread): Path<Thread>,
    extract::Body(m): extract::Body<Message>,
) -> Answer<Sent> {
    let id = Box::pin(api.posts.post(actor, thread.clone(), m.cid, m.kind, m.body)).await?;
    Ok(Json(Sent { cid: m.cid, thread, id }))
}
