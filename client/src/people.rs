//! People and groups over HTTP: found, asked, added; decided by the log, so a change is done when the call returns. A
//! call whose answer is lost asks again by itself; if it fails all the same, it may have been done, and may be called
//! again.

use natterjack_protocol::{
    Cid, GroupId, MsgId, Thread, UserId,
    client::http::{
        Blocks, Contact, ContactChange, ContactState, ContactWish, Contacts, GroupChanged, GroupInfo, NewGroup,
        NewGroupName, NewMembers, NewRole, Profile, ReceiptOf, ReceiptsAnswer, Relation, Users,
    },
    client::presence::{PresenceChange, PresenceList, PresenceOf, PresenceSettings},
    client::thread_settings::{SettingsChange, ThreadSettings},
    limits::PAGE_MAX,
    log::{HistoryFor, Role},
};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{client::Client, error::RequestError};

impl Client {
    /// Users whose name begins with this; case is ignored.
    pub async fn find(&self, prefix: &str) -> Result<Vec<Profile>, RequestError> {
        let found: Users = self.get(&format!("/v1/users?prefix={}", escape(prefix))).await?;
        Ok(found.users)
    }

    /// The user of exactly this name; case is ignored.
    pub async fn find_name(&self, name: &str) -> Result<Option<Profile>, RequestError> {
        Ok(self.find(name).await?.into_iter().find(|p| natterjack_protocol::text::same_user(&p.name, name)))
    }

    pub async fn profile(&self, user: &UserId) -> Result<Profile, RequestError> {
        self.get(&format!("/v1/users/{user}")).await
    }

    pub async fn contacts(&self) -> Result<Vec<Contact>, RequestError> {
        let list: Contacts = self.get("/v1/contacts").await?;
        Ok(list.contacts)
    }

    /// The state afterwards; none: they are strangers (again).
    pub async fn contact(&self, user: &UserId, change: ContactChange) -> Result<Option<ContactState>, RequestError> {
        let Relation { state } =
            self.change(Method::POST, &format!("/v1/contacts/{user}"), Some(&ContactWish { change })).await?;
        Ok(state)
    }

    /// How these users are shown now, at most 500: of those whom [`Client::watch`] does not watch.
    pub async fn presence(&self, users: &[UserId]) -> Result<Vec<PresenceOf>, RequestError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let list: PresenceList = self.get(&format!("/v1/presence?users={}", users.join(","))).await?;
        Ok(list.users)
    }

    /// How far a message has come with each of those who may read it besides its author: one of any age. Refused to who
    /// gives no receipts.
    pub async fn receipts(&self, thread: &Thread, id: MsgId) -> Result<Vec<ReceiptOf>, RequestError> {
        let path = format!("/v1/threads/{thread}/messages/{id}/receipts?limit={PAGE_MAX}");
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let after = next.map(|user: UserId| format!("&after={user}")).unwrap_or_default();
            let page: ReceiptsAnswer = self.get(&format!("{path}{after}")).await?;
            all.extend(page.users);
            next = page.next;
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    /// Mutes, pins, archives a thread, marks it as unread, keeps a draft: on all devices of the user. What is not in
    /// `change` stays.
    pub async fn set_thread(&self, thread: &Thread, change: &SettingsChange) -> Result<ThreadSettings, RequestError> {
        self.change(Method::PATCH, &format!("/v1/threads/{thread}/settings"), Some(change)).await
    }

    /// Marks everything as read that has been written until now.
    pub async fn read_all(&self) -> Result<(), RequestError> {
        self.done::<()>(Method::POST, "/v1/threads/read", None).await
    }

    /// What this user chose of their own presence.
    pub async fn presence_settings(&self) -> Result<PresenceSettings, RequestError> {
        self.get("/v1/presence/settings").await
    }

    /// Chooses it anew, on all devices.
    pub async fn set_presence(&self, change: PresenceChange) -> Result<PresenceSettings, RequestError> {
        self.change(Method::PUT, "/v1/presence/settings", Some(&change)).await
    }

    /// Whom this user blocks.
    pub async fn blocks(&self) -> Result<Vec<UserId>, RequestError> {
        let list: Blocks = self.get("/v1/blocks").await?;
        Ok(list.blocks.into_iter().map(|b| b.user).collect())
    }

    pub async fn block(&self, user: &UserId) -> Result<(), RequestError> {
        self.done::<()>(Method::PUT, &format!("/v1/blocks/{user}"), None).await
    }

    pub async fn unblock(&self, user: &UserId) -> Result<(), RequestError> {
        self.done::<()>(Method::DELETE, &format!("/v1/blocks/{user}"), None).await
    }

    /// `history`: what members who join later may read; none: the server's default, from their joining on. Called again
    /// it makes another group: see [`Client::create_group_as`].
    pub async fn create_group(
        &self,
        name: &str,
        users: &[UserId],
        history: Option<HistoryFor>,
    ) -> Result<Thread, RequestError> {
        let cid = self.new_cid().await?;
        self.create_group_as(cid, name, users, history).await
    }

    /// The group that has this client id: made by the first call, found by each one after it, whatever its name and
    /// users.
    pub async fn create_group_as(
        &self,
        cid: Cid,
        name: &str,
        users: &[UserId],
        history: Option<HistoryFor>,
    ) -> Result<Thread, RequestError> {
        let new = NewGroup { cid: Some(cid), name: name.to_owned(), users: users.to_vec(), history };
        let made: GroupChanged = self.change(Method::POST, "/v1/groups", Some(&new)).await?;
        Ok(made.thread)
    }

    /// A client id in the server's time, for [`Client::create_group_as`].
    pub async fn new_cid(&self) -> Result<Cid, RequestError> {
        Ok(Cid::mint(self.server_time().await?, rand::random()))
    }

    /// The server's time, milliseconds since 1970: what times of messages and settings are of.
    pub async fn server_time(&self) -> Result<u64, RequestError> {
        let http = self.auth().http();
        if http.now_ms().is_none() {
            http.ask::<(), Value>(Method::GET, "/v1/edges", None, None).await?;
        }
        http.now_ms().ok_or_else(|| RequestError::Unreadable("an answer without the header Natterjack-Now".into()))
    }

    pub async fn group(&self, gid: &GroupId) -> Result<GroupInfo, RequestError> {
        self.get(&format!("/v1/groups/{gid}")).await
    }

    pub async fn rename_group(&self, gid: &GroupId, name: &str) -> Result<(), RequestError> {
        self.done(Method::PATCH, &format!("/v1/groups/{gid}"), Some(&NewGroupName { name: name.to_owned() })).await
    }

    pub async fn add_members(&self, gid: &GroupId, users: &[UserId]) -> Result<(), RequestError> {
        self.done(Method::POST, &format!("/v1/groups/{gid}/members"), Some(&NewMembers { users: users.to_vec() })).await
    }

    pub async fn remove_member(&self, gid: &GroupId, user: &UserId) -> Result<(), RequestError> {
        self.done::<()>(Method::DELETE, &format!("/v1/groups/{gid}/members/{user}"), None).await
    }

    pub async fn set_role(&self, gid: &GroupId, user: &UserId, role: Role) -> Result<(), RequestError> {
        self.done(Method::PUT, &format!("/v1/groups/{gid}/members/{user}/role"), Some(&NewRole { role })).await
    }

    pub async fn leave_group(&self, gid: &GroupId) -> Result<(), RequestError> {
        self.done::<()>(Method::POST, &format!("/v1/groups/{gid}/leave"), None).await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.auth().ask::<(), T>(Method::GET, path, None).await
    }

    pub(crate) async fn change<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, RequestError> {
        self.auth().ask(method, path, body).await
    }

    async fn done<B: Serialize>(&self, method: Method, path: &str, body: Option<&B>) -> Result<(), RequestError> {
        self.change::<B, Value>(method, path, body).await.map(|_| ())
    }
}

/// For a query: everything but unreserved characters as %XX.
fn escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for b in s.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}
