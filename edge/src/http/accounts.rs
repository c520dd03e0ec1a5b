//! Accounts and people: register, log in, tokens, finding somebody. All of it is `directory`'s; the edge only says who asks.

use axum::{Json, extract::State, http::StatusCode};
use natterjack_protocol::{
    DeviceId, Refusal, Token, UserId,
    error::Code,
    rpc::{DirectoryRequest, Profile, Tokens},
};
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    extract::{Actor, Answer, Body, Caller, Failure, Path, Query},
    openapi::schema,
};

/// Users in one question for names.
const IDS: usize = 100;

#[derive(Deserialize, utoipa::ToSchema)]
pub struct Credentials {
    /// 2 to 32 characters; upper and lower case are the same.
    #[schema(example = "alice")]
    name: String,
    /// 8 to 256 characters.
    password: String,
    /// Of an earlier login on this device; a new one is made if it is missing.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    device: Option<DeviceId>,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub struct ExternalToken {
    /// A signed JWT of the configured issuer (RS256, ES256 or EdDSA).
    token: String,
    /// Of an earlier login on this device; a new one is made if it is missing.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    device: Option<DeviceId>,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub struct RefreshToken {
    refresh: String,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Find {
    /// Beginning of the name.
    prefix: Option<String>,
    /// Instead: ids separated by commas, at most 100.
    ids: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct Users {
    #[schema(value_type = Vec<schema::Profile>)]
    users: Vec<Profile>,
}

fn device(given: Option<DeviceId>) -> DeviceId {
    given.unwrap_or_else(|| Token::mint('d', rand::random()))
}

/// Makes an account and logs in.
#[utoipa::path(post, path = "/v1/register", tag = "accounts", request_body = Credentials,
    responses((status = 200, body = schema::Tokens), (status = "default", body = schema::Refusal)))]
pub async fn register(State(api): Shared, Caller(client): Caller, Body(c): Body<Credentials>) -> Answer<Tokens> {
    api.door.registers(client)?;
    let request = DirectoryRequest::Register { name: c.name, password: c.password, device: device(c.device) };
    Ok(Json(api.directory.tokens(&request).await?))
}

#[utoipa::path(post, path = "/v1/login", tag = "accounts", request_body = Credentials,
    responses((status = 200, body = schema::Tokens), (status = "default", body = schema::Refusal)))]
pub async fn login(State(api): Shared, Caller(client): Caller, Body(c): Body<Credentials>) -> Answer<Tokens> {
    api.door.logs_in(client, &c.name)?;
    let request = DirectoryRequest::Login { name: c.name, password: c.password, device: device(c.device) };
    Ok(Json(api.directory.tokens(&request).await?))
}

/// Tokens of this server for a token of the configured issuer. The account is made at the first time; nobody can log in to it by name.
#[utoipa::path(post, path = "/v1/login/external", tag = "accounts", request_body = ExternalToken,
    responses((status = 200, body = schema::Tokens), (status = "default", body = schema::Refusal)))]
pub async fn login_external(State(api): Shared, Caller(client): Caller, Body(t): Body<ExternalToken>) -> Answer<Tokens> {
    api.door.logs_in_elsewhere(client)?;
    let request = DirectoryRequest::LoginExternal { token: t.token, device: device(t.device) };
    Ok(Json(api.directory.tokens(&request).await?))
}

/// New tokens for an old refresh token, which is used up; using it again revokes all that came from the same login.
#[utoipa::path(post, path = "/v1/refresh", tag = "accounts", request_body = RefreshToken,
    responses((status = 200, body = schema::Tokens), (status = "default", body = schema::Refusal)))]
pub async fn refresh(State(api): Shared, Caller(client): Caller, Body(t): Body<RefreshToken>) -> Answer<Tokens> {
    api.door.refreshes(client)?;
    Ok(Json(api.directory.tokens(&DirectoryRequest::Refresh { refresh: t.refresh }).await?))
}

/// Revokes the refresh tokens of this login.
#[utoipa::path(post, path = "/v1/logout", tag = "accounts", request_body = RefreshToken,
    responses((status = 204), (status = "default", body = schema::Refusal)))]
pub async fn logout(State(api): Shared, Caller(client): Caller, Body(t): Body<RefreshToken>) -> Result<StatusCode, Failure> {
    api.door.refreshes(client)?;
    api.directory.done(&DirectoryRequest::Logout { refresh: t.refresh }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Users whose name begins with `prefix` (at most 20), or the names of `ids`.
#[utoipa::path(get, path = "/v1/users", tag = "accounts", params(Find), security(("token" = [])),
    responses((status = 200, body = Users), (status = "default", body = schema::Refusal)))]
pub async fn find(State(api): Shared, Actor(actor): Actor, Query(q): Query<Find>) -> Answer<Users> {
    let request = match (q.prefix, q.ids) {
        (Some(prefix), None) => DirectoryRequest::Find { actor: actor.user, prefix },
        (None, Some(ids)) => {
            let users: Result<Vec<UserId>, _> = ids.split(',').filter(|i| !i.is_empty()).map(|i| UserId::parse(i.trim())).collect();
            let users = users.map_err(|e| Refusal::invalid(format!("ids: {e}")))?;
            if users.len() > IDS {
                return Err(Refusal::invalid(format!("ids: at most {IDS} at once")).into());
            }
            DirectoryRequest::Profiles { users }
        }
        _ => return Err(Refusal::invalid("give one of prefix and ids").into()),
    };
    Ok(Json(Users { users: api.directory.profiles(&request).await? }))
}

#[utoipa::path(get, path = "/v1/users/{user}", tag = "accounts", params(("user" = String, Path)), security(("token" = [])),
    responses((status = 200, body = schema::Profile), (status = "default", body = schema::Refusal)))]
pub async fn profile(State(api): Shared, _actor: Actor, Path(user): Path<UserId>) -> Answer<Profile> {
    let profiles = api.directory.profiles(&DirectoryRequest::Profiles { users: vec![user.clone()] }).await?;
    let profile = profiles.into_iter().find(|p| p.user == user);
    Ok(Json(profile.ok_or_else(|| Refusal::new(Code::NotFound, format!("no such user: {user}")))?))
}
