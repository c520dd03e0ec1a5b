//! Accounts and people: register, log in, tokens, finding somebody. All of it is `directory`'s; the edge only says who
//! asks.

use axum::{Json, extract::State};
use natterjack_nats::calls::directory;
use natterjack_protocol::{
    Code, DeviceId, Refusal, Token, UserId,
    client::http::{
        AccountDeleted, AccountDeletion, Credentials, ExternalToken, LoggedOut, PasswordChange, Profile, RefreshToken,
        Registration, SessionsEnded, Tokens, Users,
    },
    internal::rpc::AccountProof,
};
use serde::Deserialize;

use super::{
    Shared,
    extract::{Answer, Authenticated, Caller, JsonBody, Path},
    path::UserPath,
    query::Query,
};

/// Users in one question for names.
const IDS: usize = 100;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Find {
    /// Beginning of the name; upper and lower case are the same.
    #[param(min_length = 2, example = "ali")]
    prefix: Option<String>,
    /// Ids separated by commas, at most 100.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}(,[A-Za-z0-9_-]{1,64}){0,99}$", example = "ua,ub")]
    ids: Option<String>,
}

fn device(given: Option<DeviceId>) -> DeviceId {
    given.unwrap_or_else(|| Token::mint('d', rand::random()))
}

/// Makes an account and logs in. The same again within ten minutes is answered like a login.
#[utoipa::path(post, path = "/v1/register", tag = "accounts", operation_id = "register",
    extensions(("x-codes" = json!(["conflict", "account_disabled", "registration_closed", "bad_invite"]))),
    request_body = Registration,
    responses((status = 200, body = Tokens)))]
pub async fn register(
    State(api): Shared,
    Caller(client): Caller,
    JsonBody(c): JsonBody<Registration>,
) -> Answer<Tokens> {
    let attempt = api.limiter.logins(client).registers(&c.name)?;
    let Registration { name, password, device: given, invite } = c;
    let answer = api.directory.ask(directory::register(name, password, device(given), invite)).await;
    attempt.ended(&answer);
    Ok(Json(answer?))
}

/// Logs in to an account that exists. Name the device of an earlier login: it gets in also while others fail with this
/// name, or from this address, all the time.
#[utoipa::path(post, path = "/v1/login", tag = "accounts", operation_id = "login",
    extensions(("x-codes" = json!(["unauthorized", "account_disabled"]))), request_body = Credentials,
    responses((status = 200, body = Tokens)))]
pub async fn login(State(api): Shared, Caller(client): Caller, JsonBody(c): JsonBody<Credentials>) -> Answer<Tokens> {
    let (visitor, named) = (api.limiter.logins(client), c.device.is_some());
    let (name, password, device) = (c.name, c.password, device(c.device));
    let refused = match visitor.tries(&name) {
        Ok(attempt) => {
            let answer = api.directory.ask(directory::login(name.clone(), password.clone(), device.clone())).await;
            attempt.ended(&answer);
            match answer {
                // Too many hash passwords, whoever they are.
                Err(refusal) if refusal.code == Code::RateLimited => refusal,
                answer => return Ok(Json(answer?)),
            }
        }
        Err(refusal) => refusal,
    };
    if !named {
        return Err(refused.into());
    }
    let attempt = visitor.tries_as(&name, &device)?;
    let answer = api.directory.ask(directory::login_of_known(name, password, device)).await;
    attempt.ended(&answer);
    Ok(Json(answer?.ok_or(refused)?))
}

/// Tokens of this server for a token of the configured issuer. The account is made at the first time; nobody can log in
/// to it by name.
#[utoipa::path(post, path = "/v1/login/external", tag = "accounts", operation_id = "loginExternal",
    extensions(("x-codes" = json!(["unauthorized", "account_disabled", "token_expired", "not_found"]))),
    request_body = ExternalToken,
    responses((status = 200, body = Tokens)))]
pub async fn login_external(
    State(api): Shared,
    Caller(client): Caller,
    JsonBody(t): JsonBody<ExternalToken>,
) -> Answer<Tokens> {
    let _used = api.limiter.logins(client).uses(&t.token)?;
    Ok(Json(api.directory.ask(directory::login_external(t.token, device(t.device))).await?))
}

/// New tokens for an old refresh token, which is used up. Within a minute, and until the new one is used, the old one
/// gives the same new one again; afterwards it revokes all that came from the same login.
#[utoipa::path(post, path = "/v1/refresh", tag = "accounts", operation_id = "refresh",
    extensions(("x-codes" = json!(["unauthorized"]))), request_body = RefreshToken,
    responses((status = 200, body = Tokens)))]
pub async fn refresh(
    State(api): Shared,
    Caller(client): Caller,
    JsonBody(t): JsonBody<RefreshToken>,
) -> Answer<Tokens> {
    let used = api.limiter.logins(client).uses(&t.refresh)?;
    let tokens = api.directory.ask(directory::refresh(t.refresh)).await?;
    used.renewed(&tokens.refresh);
    Ok(Json(tokens))
}

/// Revokes the refresh tokens of this login, whichever of them this is. Done also for one that is unknown or over.
#[utoipa::path(post, path = "/v1/logout", tag = "accounts", operation_id = "logout",
    request_body = RefreshToken,
    responses((status = 200, body = LoggedOut)))]
pub async fn logout(
    State(api): Shared,
    Caller(client): Caller,
    JsonBody(t): JsonBody<RefreshToken>,
) -> Answer<LoggedOut> {
    let _used = api.limiter.logins(client).uses(&t.refresh)?;
    api.directory.ask(directory::logout(t.refresh)).await?;
    Ok(Json(LoggedOut { logged_out: true }))
}

/// Sets another password and ends all logins but the one that asks.
#[utoipa::path(post, path = "/v1/password", tag = "accounts", operation_id = "changePassword",
    request_body = PasswordChange,
    security(("token" = [])), extensions(("x-codes" = json!(["forbidden", "conflict"]))),
    responses((status = 200, body = SessionsEnded)))]
pub async fn change_password(
    State(api): Shared,
    Caller(client): Caller,
    Authenticated(actor): Authenticated,
    JsonBody(c): JsonBody<PasswordChange>,
) -> Answer<SessionsEnded> {
    // A budget that nobody else can use up: whoever has no token of this device is not here.
    let attempt = api.limiter.logins(client).tries_as(actor.user.as_str(), &actor.device)?;
    let change = directory::change_password(actor.user, actor.family, c.old, c.new);
    let ended = api.directory.ask(change).await;
    attempt.ended(&ended);
    Ok(Json(SessionsEnded { ended: ended? }))
}

/// Deletes the account for good; what its user wrote stays.
///
/// All its logins end, it leaves its groups, its contacts are gone, and nobody else gets its name for a while. With the
/// password, or, if the account has none, a token of the issuer that was made in the last ten minutes.
#[utoipa::path(post, path = "/v1/account/delete", tag = "accounts", operation_id = "deleteAccount",
    request_body = AccountDeletion,
    security(("token" = [])), extensions(("x-codes" = json!(["forbidden", "conflict", "not_found"]))),
    responses((status = 200, body = AccountDeleted)))]
pub async fn delete(
    State(api): Shared,
    Caller(client): Caller,
    Authenticated(actor): Authenticated,
    JsonBody(c): JsonBody<AccountDeletion>,
) -> Answer<AccountDeleted> {
    let proof = match (c.password, c.token) {
        (Some(password), None) => AccountProof::Password(password),
        (None, Some(token)) => AccountProof::Token(token),
        _ => return Err(Refusal::invalid("password, token: send one of them").into()),
    };
    // As of a change of the password.
    let attempt = api.limiter.logins(client).tries_as(actor.user.as_str(), &actor.device)?;
    let deleted = api.directory.ask(directory::delete_account(actor.user, proof)).await;
    attempt.ended(&deleted);
    deleted?;
    Ok(Json(AccountDeleted { deleted: true }))
}

/// Users whose name begins with `prefix`, at most 20, and those of `ids`; without both, nobody.
#[utoipa::path(get, path = "/v1/users", tag = "accounts", operation_id = "findUsers", params(Find),
    security(("token" = [])),
    responses((status = 200, body = Users)))]
pub async fn find(State(api): Shared, Authenticated(actor): Authenticated, Query(q): Query<Find>) -> Answer<Users> {
    let mut users = Vec::new();
    if let Some(prefix) = q.prefix {
        users = api.directory.ask(directory::find(actor.user, prefix)).await?;
    }
    if let Some(ids) = q.ids {
        let ids: Result<Vec<UserId>, _> = ids.split(',').map(UserId::parse).collect();
        let ids = ids.map_err(|e| Refusal::invalid(format!("query: ids: {e}; separated by commas")))?;
        if ids.len() > IDS {
            return Err(Refusal::invalid(format!("query: ids: at most {IDS} at once")).into());
        }
        users.extend(api.directory.ask(directory::profiles(ids)).await?);
    }
    Ok(Json(Users { users }))
}

/// The name of a user; none, and `deleted`, if their account was deleted.
#[utoipa::path(get, path = "/v1/users/{user}", tag = "accounts", operation_id = "getUser", params(UserPath),
    security(("token" = [])),
    extensions(("x-codes" = json!(["not_found"]))),
    responses((status = 200, body = Profile)))]
pub async fn profile(
    State(api): Shared,
    _actor: Authenticated,
    Path(UserPath { user }): Path<UserPath>,
) -> Answer<Profile> {
    let profiles = api.directory.ask(directory::profiles(vec![user.clone()])).await?;
    let profile = profiles.into_iter().find(|p| p.user == user);
    Ok(Json(profile.ok_or_else(|| Refusal::new(Code::NotFound, format!("no such user: {user}")))?))
}
