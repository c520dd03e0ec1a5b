//! Who is here, asked once, and what the caller chose of their own presence. What changes is pushed on the socket
//! (`watch`).

use axum::{Json, extract::State};
use natterjack_protocol::{
    Refusal, UserId,
    client::presence::{PresenceChange, PresenceList, PresenceSettings},
};
use serde::Deserialize;

use super::{
    Shared,
    extract::{Answer, Authenticated, JsonBody},
    query::Query,
};

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PresenceQuery {
    /// Ids of users, separated by commas, at most 500.
    #[param(pattern = "^[\\w-]{1,64}(,[\\w-]{1,64}){0,499}$", example = "u2q8v1m0c5t7r9x3k,u7h4n6p2d0w8j1z5s")]
    users: String,
}

/// How these users are shown to the caller now: for members of large groups, of whom a socket would watch too many.
#[utoipa::path(get, path = "/v1/presence", tag = "people", operation_id = "listPresence", security(("token" = [])),
    params(PresenceQuery),
    responses((status = 200, body = PresenceList)))]
pub async fn list(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Query(q): Query<PresenceQuery>,
) -> Answer<PresenceList> {
    Ok(Json(PresenceList { users: api.presence.pull(&actor.user, users(&q.users)?).await? }))
}

fn users(list: &str) -> Result<Vec<UserId>, Refusal> {
    let one = |id: &str| UserId::parse(id).map_err(|e| Refusal::invalid(format!("query: users: {e}")));
    list.split(',').map(one).collect()
}

/// What the caller chose.
#[utoipa::path(get, path = "/v1/presence/settings", tag = "people", operation_id = "showPresenceSettings",
    security(("token" = [])),
    responses((status = 200, body = PresenceSettings)))]
pub async fn settings(State(api): Shared, Authenticated(actor): Authenticated) -> Answer<PresenceSettings> {
    Ok(Json(api.presence.choices.load(&actor.user).await?))
}

/// Chooses anew. It holds on all devices, and stays until it is chosen otherwise.
#[utoipa::path(put, path = "/v1/presence/settings", tag = "people", operation_id = "changePresenceSettings",
    security(("token" = [])),
    request_body = PresenceChange, responses((status = 200, body = PresenceSettings)))]
pub async fn change(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    JsonBody(change): JsonBody<PresenceChange>,
) -> Answer<PresenceSettings> {
    Ok(Json(api.presence.choices.change(&actor.user, change).await?))
}
