//! The caller's own logins: where they are, and ending them. `directory` ends one, and the control bucket tells every
//! edge.

use axum::{Json, extract::State};
use natterjack_nats::calls::directory;
use natterjack_protocol::{
    client::http::{SessionList, SessionsEnded},
    internal::rpc::EndedLogins,
};

use super::{
    Shared,
    extract::{Answer, Authenticated, Path},
    path::DevicePath,
};

/// The devices on which the caller is logged in; the one that asks comes first, then the newest login.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", operation_id = "listSessions", security(("token" = [])),
    responses((status = 200, body = SessionList)))]
pub async fn list(State(api): Shared, Authenticated(actor): Authenticated) -> Answer<SessionList> {
    Ok(Json(SessionList { sessions: api.directory.ask(directory::sessions(actor.user, actor.device)).await? }))
}

/// Ends the logins on a device, also on the one that asks. Every edge closes their sockets.
#[utoipa::path(delete, path = "/v1/sessions/{device}", tag = "sessions", operation_id = "endSession",
    params(DevicePath),
    security(("token" = [])), extensions(("x-codes" = json!(["not_found"]))),
    responses((status = 200, body = SessionsEnded)))]
pub async fn end(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(DevicePath { device }): Path<DevicePath>,
) -> Answer<SessionsEnded> {
    Ok(Json(SessionsEnded {
        ended: api.directory.ask(directory::end_sessions(actor.user, EndedLogins::Of(device))).await?,
    }))
}

/// Ends all logins but the one that asks.
#[utoipa::path(post, path = "/v1/sessions/end_others", tag = "sessions", operation_id = "endOtherSessions",
    security(("token" = [])),
    responses((status = 200, body = SessionsEnded)))]
pub async fn end_others(State(api): Shared, Authenticated(actor): Authenticated) -> Answer<SessionsEnded> {
    Ok(Json(SessionsEnded {
        ended: api.directory.ask(directory::end_sessions(actor.user, EndedLogins::AllBut(actor.family))).await?,
    }))
}
