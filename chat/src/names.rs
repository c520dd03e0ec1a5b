//! Names for ids: asked once, then remembered. Without an answer the id is shown.

use std::{collections::HashMap, time::Duration};

use natterjack_client::{
    Client,
    protocol::{
        Thread, UserId,
        client::{frame::ThreadSummary, http::Profile},
    },
};
use tokio::time::Instant;

use super::screen::one_line;

/// After a failed look-up the id has to do for this long.
const AGAIN: Duration = Duration::from_secs(30);

pub struct NameCache {
    me: UserId,
    users: HashMap<UserId, String>,
    groups: HashMap<Thread, String>,
    failed: HashMap<String, Instant>,
}

impl NameCache {
    pub fn new(client: &Client) -> Self {
        let me = client.user().clone();
        Self {
            users: HashMap::from([(me.clone(), client.name().to_owned())]),
            me,
            groups: HashMap::new(),
            failed: HashMap::new(),
        }
    }

    pub fn learn(&mut self, profile: &Profile) {
        self.users.insert(profile.user.clone(), shown_name(profile));
    }

    /// Somebody may have another name by now, or none any more: they are asked for again.
    pub fn forget_users(&mut self) {
        self.users.retain(|user, _| *user == self.me);
    }

    pub fn learn_thread(&mut self, summary: &ThreadSummary) {
        if let Some(name) = &summary.name
            && matches!(summary.thread, Thread::Group { .. })
        {
            self.learn_group(summary.thread.clone(), name);
        }
    }

    pub fn learn_group(&mut self, thread: Thread, name: &str) {
        self.groups.insert(thread, one_line(name));
    }

    pub async fn user(&mut self, client: &Client, user: &UserId) -> String {
        if let Some(name) = self.users.get(user) {
            return name.clone();
        }
        if self.may_ask(user.as_str()) {
            match client.profile(user).await {
                Ok(profile) => {
                    self.learn(&profile);
                    return shown_name(&profile);
                }
                Err(e) => tracing::debug!(error = %e, %user, "no name for a user"),
            }
        }
        user.to_string()
    }

    pub async fn users(&mut self, client: &Client, users: &[UserId]) -> String {
        let mut names = Vec::with_capacity(users.len());
        for user in users {
            names.push(self.user(client, user).await);
        }
        names.join(", ")
    }

    /// The other's name, or `#` and the group's.
    pub async fn thread(&mut self, client: &Client, thread: &Thread) -> String {
        let gid = match thread {
            Thread::Dm { .. } => {
                let peer = thread.peer(&self.me).cloned();
                return match peer {
                    Some(peer) => self.user(client, &peer).await,
                    None => thread.to_string(),
                };
            }
            Thread::Group { gid } => gid,
        };
        if let Some(name) = self.groups.get(thread) {
            return format!("#{name}");
        }
        if self.may_ask(gid.as_str()) {
            match client.group(gid).await {
                Ok(group) => {
                    self.learn_group(thread.clone(), &group.name);
                    return format!("#{}", one_line(&group.name));
                }
                Err(e) => tracing::debug!(error = %e, %gid, "no name for a group"),
            }
        }
        format!("#{gid}")
    }

    fn may_ask(&mut self, id: &str) -> bool {
        let now = Instant::now();
        let may = self.failed.get(id).is_none_or(|at| now.duration_since(*at) > AGAIN);
        if may {
            self.failed.insert(id.to_owned(), now);
        }
        may
    }
}

/// No user can have this name: it has a space.
pub fn shown_name(profile: &Profile) -> String {
    if profile.deleted { "deleted user".to_owned() } else { one_line(&profile.name) }
}
