//! Pages of a thread over HTTP: the same question as the frame `history`.

use axum::{Json, extract::State};
use natterjack_protocol::{
    MsgId, Thread,
    frame::{History, Page},
};
use serde::Deserialize;

use super::{
    Shared,
    extract::{Actor, Answer, Path, Query},
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
