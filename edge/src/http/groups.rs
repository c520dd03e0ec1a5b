//! Groups. Every change is a control entry that `control` appends; an answer comes when the log has it and, if `channel` keeps up,
//! when it has been folded, so that who asked can go on at once. A request whose answer was lost may be repeated: what is so already is
//! answered like a change, and is none.

use axum::{Json, extract::State};
use natterjack_protocol::{
    Body as EntryBody, Cid, Code, GroupId, Kind, MsgId, Refusal, Thread, Token, UserId,
    log::{HistoryFor, Role},
    text,
};
use serde::{Deserialize, Serialize};

use super::{
    Api, Shared,
    extract::{Actor, Answer, Body, Path},
    openapi::{scalar, schema},
    path::{GroupPath, MemberPath},
};
use crate::control::ThreadChange;

#[derive(Deserialize, utoipa::ToSchema)]
pub struct NewGroup {
    /// Without one each attempt makes a group.
    #[serde(default)]
    #[schema(value_type = Option<scalar::Cid>)]
    cid: Option<Cid>,
    #[schema(value_type = scalar::GroupName)]
    name: String,
    /// The other members.
    #[serde(default)]
    #[schema(value_type = Vec<scalar::Id>, max_items = 500)]
    users: Vec<UserId>,
    /// What those who join later may read.
    #[serde(default)]
    #[schema(value_type = Option<schema::HistoryFor>)]
    history: Option<HistoryFor>,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub struct NewName {
    #[schema(value_type = scalar::GroupName)]
    name: String,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub struct Who {
    #[schema(value_type = Vec<scalar::Id>, min_items = 1, max_items = 500)]
    users: Vec<UserId>,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub struct NewRole {
    #[schema(value_type = schema::Role)]
    role: Role,
}

/// It is so.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Changed {
    #[schema(value_type = scalar::Thread)]
    thread: Thread,
    /// The control entry's place in the thread; if it was so already, that of the group's last change.
    #[schema(value_type = scalar::MsgId)]
    id: MsgId,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct Member {
    #[schema(value_type = scalar::Id)]
    user: UserId,
    #[schema(value_type = schema::Role)]
    role: Role,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct GroupInfo {
    #[schema(value_type = scalar::Thread)]
    thread: Thread,
    #[schema(value_type = scalar::GroupName)]
    name: String,
    #[schema(value_type = schema::HistoryFor)]
    history: HistoryFor,
    /// The last change this shows.
    #[schema(value_type = scalar::MsgId)]
    version: MsgId,
    members: Vec<Member>,
}

async fn make(api: &Api, group: &GroupId, actor: UserId, kind: Kind, body: EntryBody) -> Answer<Changed> {
    done(api, ThreadChange { thread: Thread::group(group), actor, kind, body, cid: None }).await
}

async fn done(api: &Api, change: ThreadChange) -> Answer<Changed> {
    let id = api.control.append(&change).await?;
    api.control.folded(&change.thread, &change.actor, id).await;
    Ok(Json(Changed { thread: change.thread, id }))
}

/// As it is kept. What is no name is refused where the change is judged, after it is known that it was not made before.
fn group_name(name: String) -> String {
    text::group_name(&name).unwrap_or(name)
}

fn of(mut users: Vec<UserId>) -> EntryBody {
    users.sort();
    users.dedup();
    EntryBody { users, ..EntryBody::default() }
}

/// The creator is the owner. The same cid of the same user is the same group, whatever the body, and is answered as the first time.
#[utoipa::path(post, path = "/v1/groups", tag = "groups", operation_id = "createGroup", request_body = NewGroup, security(("token" = [])),
    extensions(("x-codes" = json!(["not_found", "conflict", "limit_reached", "clock_ahead"]))),
    responses((status = 200, body = Changed)))]
pub async fn create(State(api): Shared, Actor(actor): Actor, Body(new): Body<NewGroup>) -> Answer<Changed> {
    let id = new.cid.map_or_else(|| Token::mint('g', rand::random()), |cid| cid.group_id(&actor.user));
    let history = Some(new.history.unwrap_or_default());
    let body = EntryBody { name: Some(group_name(new.name)), history, ..of(new.users) };
    done(&api, ThreadChange { thread: Thread::group(&id), actor: actor.user, kind: Kind::GroupCreated, body, cid: new.cid }).await
}

/// For members.
#[utoipa::path(get, path = "/v1/groups/{group}", tag = "groups", operation_id = "getGroup", params(GroupPath), security(("token" = [])),
    extensions(("x-codes" = json!(["not_member", "not_found"]))),
    responses((status = 200, body = GroupInfo)))]
pub async fn show(State(api): Shared, Actor(actor): Actor, Path(GroupPath { group: id }): Path<GroupPath>) -> Answer<GroupInfo> {
    let group = api.people.group_or_rebuild(&id).await?.ok_or_else(|| Refusal::new(Code::NotFound, "no such group"))?;
    if group.role(&actor.user).is_none() {
        return Err(Refusal::new(Code::NotMember, "you are not in this group").into());
    }
    let members = group.present().map(|(user, role)| Member { user: user.clone(), role }).collect();
    Ok(Json(GroupInfo { thread: Thread::group(&id), history: group.history, version: group.version, members, name: group.name }))
}

/// For admins and owners.
#[utoipa::path(patch, path = "/v1/groups/{group}", tag = "groups", operation_id = "renameGroup", params(GroupPath), request_body = NewName,
    security(("token" = [])), extensions(("x-codes" = json!(["forbidden", "not_member", "not_found"]))),
    responses((status = 200, body = Changed)))]
pub async fn rename(
    State(api): Shared,
    Actor(actor): Actor,
    Path(GroupPath { group: id }): Path<GroupPath>,
    Body(new): Body<NewName>,
) -> Answer<Changed> {
    make(&api, &id, actor.user, Kind::GroupRenamed, EntryBody { name: Some(group_name(new.name)), ..EntryBody::default() }).await
}

/// For admins and owners.
#[utoipa::path(post, path = "/v1/groups/{group}/members", tag = "groups", operation_id = "addMembers", params(GroupPath), request_body = Who,
    security(("token" = [])), extensions(("x-codes" = json!(["forbidden", "not_member", "not_found", "limit_reached"]))),
    responses((status = 200, body = Changed)))]
pub async fn add(
    State(api): Shared,
    Actor(actor): Actor,
    Path(GroupPath { group: id }): Path<GroupPath>,
    Body(who): Body<Who>,
) -> Answer<Changed> {
    make(&api, &id, actor.user, Kind::MemberAdded, of(who.users)).await
}

/// For admins and owners; admins and owners are removed by owners.
#[utoipa::path(delete, path = "/v1/groups/{group}/members/{user}", tag = "groups", operation_id = "removeMember", params(MemberPath),
    security(("token" = [])), extensions(("x-codes" = json!(["forbidden", "not_member", "not_found"]))),
    responses((status = 200, body = Changed)))]
pub async fn remove(State(api): Shared, Actor(actor): Actor, Path(MemberPath { group: id, user }): Path<MemberPath>) -> Answer<Changed> {
    make(&api, &id, actor.user, Kind::MemberRemoved, of(vec![user])).await
}

/// For owners. A group keeps at least one owner.
#[utoipa::path(put, path = "/v1/groups/{group}/members/{user}/role", tag = "groups", operation_id = "setRole", params(MemberPath),
    request_body = NewRole, security(("token" = [])),
    extensions(("x-codes" = json!(["forbidden", "not_member", "not_found", "conflict"]))),
    responses((status = 200, body = Changed)))]
pub async fn role(
    State(api): Shared,
    Actor(actor): Actor,
    Path(MemberPath { group: id, user }): Path<MemberPath>,
    Body(new): Body<NewRole>,
) -> Answer<Changed> {
    make(&api, &id, actor.user, Kind::RoleChanged, EntryBody { role: Some(new.role), ..of(vec![user]) }).await
}

/// The last owner cannot leave others behind.
#[utoipa::path(post, path = "/v1/groups/{group}/leave", tag = "groups", operation_id = "leaveGroup", params(GroupPath),
    security(("token" = [])), extensions(("x-codes" = json!(["not_member", "not_found", "conflict"]))),
    responses((status = 200, body = Changed)))]
pub async fn leave(State(api): Shared, Actor(actor): Actor, Path(GroupPath { group: id }): Path<GroupPath>) -> Answer<Changed> {
    make(&api, &id, actor.user, Kind::MemberLeft, EntryBody::default()).await
}
