//! Groups. Every change is a control entry that `control` appends; an answer comes when the log has it and, if
//! `channel` keeps up, when it has been folded, so that who asked can go on at once. A request whose answer was lost
//! may be repeated: what is so already is answered like a change, and is none.

use axum::{Json, extract::State};
use natterjack_protocol::{
    Body, Code, GroupId, Kind, Refusal, Thread, Token, UserId,
    client::http::{GroupChanged, GroupInfo, GroupMember, NewGroup, NewGroupName, NewMembers, NewRole},
    text,
};

use super::{
    Api, Shared,
    extract::{Answer, Authenticated, JsonBody, Path},
    path::{GroupPath, MemberPath},
};
use crate::control::ThreadChange;

async fn make(api: &Api, group: &GroupId, actor: UserId, kind: Kind, body: Body) -> Answer<GroupChanged> {
    done(api, ThreadChange { thread: Thread::group(group), actor, kind, body, cid: None }).await
}

async fn done(api: &Api, change: ThreadChange) -> Answer<GroupChanged> {
    let id = api.control.append(&change).await?;
    api.control.folded(&change.thread, &change.actor, id).await;
    Ok(Json(GroupChanged { thread: change.thread, id }))
}

/// As it is kept. What is no name is refused where the change is judged, after it is known that it was not made before.
fn group_name(name: String) -> String {
    text::group_name(&name).unwrap_or(name)
}

fn of(mut users: Vec<UserId>) -> Body {
    users.sort();
    users.dedup();
    Body { users, ..Body::default() }
}

/// The creator is the owner.
///
/// The same cid of the same user is the same group, whatever the body, and is answered as the first time.
#[utoipa::path(post, path = "/v1/groups", tag = "groups", operation_id = "createGroup", request_body = NewGroup,
    security(("token" = [])),
    extensions(("x-codes" = json!(["not_found", "conflict", "limit_reached", "clock_ahead"]))),
    responses((status = 200, body = GroupChanged)))]
pub async fn create(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    JsonBody(new): JsonBody<NewGroup>,
) -> Answer<GroupChanged> {
    let id = new.cid.map_or_else(|| Token::mint('g', rand::random()), |cid| cid.group_id(&actor.user));
    let history = Some(new.history.unwrap_or_default());
    let body = Body { name: Some(group_name(new.name)), history, ..of(new.users) };
    done(
        &api,
        ThreadChange { thread: Thread::group(&id), actor: actor.user, kind: Kind::GroupCreated, body, cid: new.cid },
    )
    .await
}

/// For members.
#[utoipa::path(get, path = "/v1/groups/{group}", tag = "groups", operation_id = "getGroup", params(GroupPath),
    security(("token" = [])),
    extensions(("x-codes" = json!(["not_member", "not_found"]))),
    responses((status = 200, body = GroupInfo)))]
pub async fn show(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(GroupPath { group: id }): Path<GroupPath>,
) -> Answer<GroupInfo> {
    let group = api.people.group_or_rebuild(&id).await?.ok_or_else(|| Refusal::new(Code::NotFound, "no such group"))?;
    if group.role(&actor.user).is_none() {
        return Err(Refusal::new(Code::NotMember, "you are not in this group").into());
    }
    let members = group.present().map(|(user, role)| GroupMember { user: user.clone(), role }).collect();
    Ok(Json(GroupInfo {
        thread: Thread::group(&id),
        history: group.history,
        version: group.version,
        members,
        name: group.name,
    }))
}

/// For admins and owners.
#[utoipa::path(patch, path = "/v1/groups/{group}", tag = "groups", operation_id = "renameGroup", params(GroupPath),
    request_body = NewGroupName,
    security(("token" = [])), extensions(("x-codes" = json!(["forbidden", "not_member", "not_found"]))),
    responses((status = 200, body = GroupChanged)))]
pub async fn rename(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(GroupPath { group: id }): Path<GroupPath>,
    JsonBody(new): JsonBody<NewGroupName>,
) -> Answer<GroupChanged> {
    make(&api, &id, actor.user, Kind::GroupRenamed, Body { name: Some(group_name(new.name)), ..Body::default() }).await
}

/// For admins and owners.
#[utoipa::path(post, path = "/v1/groups/{group}/members", tag = "groups", operation_id = "addMembers",
    params(GroupPath), request_body = NewMembers,
    security(("token" = [])), extensions(("x-codes" = json!(["forbidden", "not_member", "not_found",
    "limit_reached"]))),
    responses((status = 200, body = GroupChanged)))]
pub async fn add(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(GroupPath { group: id }): Path<GroupPath>,
    JsonBody(who): JsonBody<NewMembers>,
) -> Answer<GroupChanged> {
    make(&api, &id, actor.user, Kind::MemberAdded, of(who.users)).await
}

/// For admins and owners; admins and owners are removed by owners.
#[utoipa::path(delete, path = "/v1/groups/{group}/members/{user}", tag = "groups", operation_id = "removeMember",
    params(MemberPath),
    security(("token" = [])), extensions(("x-codes" = json!(["forbidden", "not_member", "not_found"]))),
    responses((status = 200, body = GroupChanged)))]
pub async fn remove(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(MemberPath { group: id, user }): Path<MemberPath>,
) -> Answer<GroupChanged> {
    make(&api, &id, actor.user, Kind::MemberRemoved, of(vec![user])).await
}

/// For owners. A group keeps at least one owner.
#[utoipa::path(put, path = "/v1/groups/{group}/members/{user}/role", tag = "groups", operation_id = "setRole",
    params(MemberPath),
    request_body = NewRole, security(("token" = [])),
    extensions(("x-codes" = json!(["forbidden", "not_member", "not_found", "conflict"]))),
    responses((status = 200, body = GroupChanged)))]
pub async fn role(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(MemberPath { group: id, user }): Path<MemberPath>,
    JsonBody(new): JsonBody<NewRole>,
) -> Answer<GroupChanged> {
    make(&api, &id, actor.user, Kind::RoleChanged, Body { role: Some(new.role), ..of(vec![user]) }).await
}

/// The last owner cannot leave others behind.
#[utoipa::path(post, path = "/v1/groups/{group}/leave", tag = "groups", operation_id = "leaveGroup", params(GroupPath),
    security(("token" = [])), extensions(("x-codes" = json!(["not_member", "not_found", "conflict"]))),
    responses((status = 200, body = GroupChanged)))]
pub async fn leave(
    State(api): Shared,
    Authenticated(actor): Authenticated,
    Path(GroupPath { group: id }): Path<GroupPath>,
) -> Answer<GroupChanged> {
    make(&api, &id, actor.user, Kind::MemberLeft, Body::default()).await
}
