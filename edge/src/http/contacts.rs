//! Contacts are `directory`'s. A block is membership of the DM, so the log decides it, and it holds from its place in
//! the log on.

use axum::{Json, extract::State};
use natterjack_nats::calls::directory::change_contact;
use natterjack_protocol::{
    Body, Kind, Refusal, Thread, UserId,
    client::http::{BlockChanged, BlockedUser, Blocks, ContactWish, Contacts, Relation},
};

use super::{
    Api, Shared,
    extract::{Answer, Authenticated, JsonBody, Path},
    path::UserPath,
};
use crate::control::ThreadChange;

/// Contacts, and requests on either side.
#[utoipa::path(get, path = "/v1/contacts", tag = "people", operation_id = "listContacts", security(("token" = [])),
    responses((status = 200, body = Contacts)))]
pub async fn list(State(api): Shared, Authenticated(actor): Authenticated) -> Answer<Contacts> {
    Ok(Json(Contacts { contacts: api.directory.contacts(&actor.user).await? }))
}

/// Ask, accept, decline, take back or end. A request to somebody who has asked already accepts.
#[utoipa::path(post, path = "/v1/contacts/{user}", tag = "people", operation_id = "changeContact", params(UserPath),
    request_body = ContactWish,
    security(("token" = [])), extensions(("x-codes" = json!(["not_found", "blocked", "limit_reached"]))),
    responses((status = 200, body = Relation)))]
pub async fn change(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(UserPath { user: other }): Path<UserPath>,
    JsonBody(wish): JsonBody<ContactWish>,
) -> Answer<Relation> {
    let state = api.directory.ask(change_contact(actor.user, other, wish.change)).await?;
    Ok(Json(Relation { state }))
}

/// Whom the caller blocks.
#[utoipa::path(get, path = "/v1/blocks", tag = "people", operation_id = "listBlocks", security(("token" = [])),
    responses((status = 200, body = Blocks)))]
pub async fn blocks(State(api): Shared, Authenticated(actor): Authenticated) -> Answer<Blocks> {
    let threads = api.people.threads(&actor.user).await?.threads;
    let blocked = threads.iter().filter(|(_, item)| item.blocks).filter_map(|(thread, _)| thread.peer(&actor.user));
    Ok(Json(Blocks { blocks: blocked.map(|user| BlockedUser { user: user.clone() }).collect() }))
}

/// Neither can write to the other any more; only who blocked sees that. Also before the first message.
#[utoipa::path(put, path = "/v1/blocks/{user}", tag = "people", operation_id = "block", params(UserPath),
    security(("token" = [])),
    extensions(("x-codes" = json!(["not_found"]))),
    responses((status = 200, body = BlockChanged)))]
pub async fn block(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(UserPath { user }): Path<UserPath>,
) -> Answer<BlockChanged> {
    decide(&api, actor.user, user, Kind::Blocked).await
}

/// Takes the block back.
#[utoipa::path(delete, path = "/v1/blocks/{user}", tag = "people", operation_id = "unblock", params(UserPath),
    security(("token" = [])),
    extensions(("x-codes" = json!(["not_found"]))),
    responses((status = 200, body = BlockChanged)))]
pub async fn unblock(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(UserPath { user }): Path<UserPath>,
) -> Answer<BlockChanged> {
    decide(&api, actor.user, user, Kind::Unblocked).await
}

async fn decide(api: &Api, actor: UserId, user: UserId, kind: Kind) -> Answer<BlockChanged> {
    if actor == user {
        return Err(Refusal::invalid("path: user: nobody can block themselves").into());
    }
    api.people.exist(std::slice::from_ref(&user)).await?;
    let thread = Thread::dm(&actor, &user);
    let change = ThreadChange { thread: thread.clone(), actor: actor.clone(), kind, body: Body::default(), cid: None };
    let id = api.control.append(&change).await?;
    api.control.folded(&thread, &actor, id).await;
    Ok(Json(BlockChanged { thread, id, blocked: kind == Kind::Blocked }))
}
