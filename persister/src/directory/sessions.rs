//! The logins of a user: which there are, and ending some of them everywhere.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use natterjack_protocol::{
    Code, DeviceId, Refusal, UserId,
    client::http::UserSession,
    internal::rpc::{DirectoryAnswer, EndedLogins},
};

use super::{Directory, store_refusal};
use crate::store::{
    ArchiveStore,
    accounts::{Accounts, Family, OpenLogin},
};

/// Logins that are ended at once.
const AT_ONCE: usize = 16;

impl<S: ArchiveStore + Accounts> Directory<S> {
    pub(super) async fn sessions(&self, actor: &UserId, device: &DeviceId) -> Result<DirectoryAnswer, Refusal> {
        let logins = self.store.open_logins(actor, None, self.time.earliest_ms()).await.map_err(store_refusal)?;
        Ok(DirectoryAnswer::Sessions(by_device(logins, Some(device))))
    }

    pub(super) async fn end_sessions(&self, actor: &UserId, which: &EndedLogins) -> Result<DirectoryAnswer, Refusal> {
        let ended = self.end_logins(actor, which).await?;
        if let (EndedLogins::Of(device), 0) = (which, ended)
            && !self.store.has_device(actor, device).await.map_err(store_refusal)?
        {
            return Err(Refusal::new(Code::NotFound, "you have not logged in on a device with this id"));
        }
        Ok(DirectoryAnswer::Ended(ended))
    }

    /// Edges are told before the store ends the login: whoever repeats this after a failure in between finds it again,
    /// and tells them again.
    pub(super) async fn end_logins(&self, user: &UserId, which: &EndedLogins) -> Result<u32, Refusal> {
        let of = if let EndedLogins::Of(device) = which { Some(device) } else { None };
        let mut ended = 0;
        loop {
            let mut over = self.store.open_logins(user, of, self.time.earliest_ms()).await.map_err(store_refusal)?;
            over.retain(|login| !matches!(which, EndedLogins::AllBut(keep) if *keep == login.family.id));
            if over.is_empty() {
                return Ok(ended);
            }
            for some in over.chunks(AT_ONCE) {
                try_join_all(some.iter().map(|login| self.end_login(&login.family))).await?;
                ended += u32::try_from(some.len()).unwrap_or(u32::MAX);
            }
        }
    }

    async fn end_login(&self, family: &Family) -> Result<(), Refusal> {
        self.tell_edges(family).await?;
        self.store.end_login(family).await.map_err(store_refusal)
    }
}

/// A row for each device, since its newest login.
pub(super) fn by_device(logins: Vec<OpenLogin>, this: Option<&DeviceId>) -> Vec<UserSession> {
    let mut since: BTreeMap<DeviceId, u64> = BTreeMap::new();
    for login in logins {
        let newest = since.entry(login.family.device).or_default();
        *newest = login.since.max(*newest);
    }
    let mut all: Vec<UserSession> = since
        .into_iter()
        .map(|(device, since)| UserSession { this: this == Some(&device), ..row(device, since) })
        .collect();
    all.sort_by_key(|s| (!s.this, u64::MAX - s.since));
    all
}

fn row(device: DeviceId, since: u64) -> UserSession {
    UserSession {
        device,
        name: None,
        class: None,
        app: None,
        edge: None,
        since,
        last_active: None,
        connected: false,
        this: false,
    }
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::Token;

    use super::*;

    #[test]
    fn a_device_has_one_row_and_the_one_that_asks_comes_first() {
        let id = |s: &str| Token::parse(s).unwrap();
        let login =
            |f: &str, d: &str, since| OpenLogin { family: Family { id: id(f), user: id("u"), device: id(d) }, since };
        let logins = vec![login("f1", "a", 10), login("f2", "b", 20), login("f3", "a", 30), login("f4", "c", 5)];
        let shown = |this: &str| -> Vec<(String, u64, bool)> {
            by_device(logins.clone(), Some(&id(this)))
                .into_iter()
                .map(|s| (s.device.to_string(), s.since, s.this))
                .collect()
        };
        let row = |d: &str, since, this| (d.to_owned(), since, this);
        assert_eq!(shown("c"), [row("c", 5, true), row("a", 30, false), row("b", 20, false)]);
        assert_eq!(shown("gone"), [row("a", 30, false), row("b", 20, false), row("c", 5, false)]);
        assert_eq!(by_device(Vec::new(), None), []);
    }
}
