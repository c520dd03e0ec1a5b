//! Groups: what their members see of them, and each change.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    cid::Cid,
    ids::{MsgId, UserId},
    log::{HistoryFor, Role},
    schema::GroupName,
    thread::Thread,
};

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewGroup {
    /// Without one each attempt makes a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<Cid>,
    #[schema(value_type = GroupName)]
    pub name: String,
    /// The other members.
    #[serde(default)]
    #[schema(max_items = 500)]
    pub users: Vec<UserId>,
    /// What those who join later may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryFor>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = NewName)]
pub struct NewGroupName {
    #[schema(value_type = GroupName)]
    pub name: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Who)]
pub struct NewMembers {
    #[schema(min_items = 1, max_items = 500)]
    pub users: Vec<UserId>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NewRole {
    pub role: Role,
}

/// It is so.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Changed)]
pub struct GroupChanged {
    pub thread: Thread,
    /// The control entry's place in the thread; if it was so already, that of the group's last change.
    pub id: MsgId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Member)]
pub struct GroupMember {
    pub user: UserId,
    pub role: Role,
}

/// A group as its members see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupInfo {
    pub thread: Thread,
    #[schema(value_type = GroupName)]
    pub name: String,
    pub history: HistoryFor,
    /// The last change this shows.
    pub version: MsgId,
    /// Who is in it now.
    pub members: Vec<GroupMember>,
}
