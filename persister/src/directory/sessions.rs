//! The logins of a user: which there are, with what the user's devices said of themselves and where they are connected,
//! and ending some of them everywhere.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::try_join_all;
use natterjack_protocol::{
    Code, DeviceId, Refusal, UserId,
    client::http::UserSession,
    internal::{
        devices::UserDevices,
        rpc::{DirectoryAnswer, EndedLogins},
    },
};
use tokio::time::timeout;

use super::{Directory, store_refusal};
use crate::store::{
    ArchiveStore,
    accounts::{Accounts, Family, OpenLogin},
};

/// Logins that are ended at once.
const AT_ONCE: usize = 16;
/// A list of logins waits so long for the bucket of devices, and then comes without them.
const DEVICES: Duration = Duration::from_secs(2);

impl<S: ArchiveStore + Accounts> Directory<S> {
    pub(super) async fn sessions(&self, actor: &UserId, device: &DeviceId) -> Result<DirectoryAnswer, Refusal> {
        Ok(DirectoryAnswer::Sessions(self.sessions_of(actor, Some(device)).await?))
    }

    /// `this`: the device that asks.
    pub(super) async fn sessions_of(
        &self,
        user: &UserId,
        this: Option<&DeviceId>,
    ) -> Result<Vec<UserSession>, Refusal> {
        let logins = self.store.open_logins(user, None, self.time.earliest_ms()).await.map_err(store_refusal)?;
        let devices = match timeout(DEVICES, self.buckets.devices(user).load()).await {
            Ok(Ok(devices)) => devices.unwrap_or_default(),
            failed => {
                let why = failed.map_or("no answer".to_owned(), |r| r.err().map(|e| e.to_string()).unwrap_or_default());
                tracing::warn!(%user, why, "a user's devices cannot be read; their logins are listed without them");
                UserDevices::default()
            }
        };
        Ok(by_device(logins, &devices, this))
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

/// A row for each device that is logged in, since its newest login.
fn by_device(logins: Vec<OpenLogin>, devices: &UserDevices, this: Option<&DeviceId>) -> Vec<UserSession> {
    let mut since: BTreeMap<DeviceId, u64> = BTreeMap::new();
    for login in logins {
        let newest = since.entry(login.family.device).or_default();
        *newest = login.since.max(*newest);
    }
    let mut all: Vec<UserSession> = since
        .into_iter()
        .map(|(device, since)| {
            let known = devices.device(&device);
            let place = known.and_then(|d| d.session.as_ref());
            UserSession {
                name: known.and_then(|d| d.name.clone()),
                class: known.map(|d| d.class),
                app: known.and_then(|d| d.app.clone()),
                edge: place.map(|s| s.edge.to_string()),
                since,
                last_active: known.map(|d| d.active),
                connected: place.is_some(),
                this: this == Some(&device),
                device,
            }
        })
        .collect();
    all.sort_by_key(|s| (!s.this, u64::MAX - s.since));
    all
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
            by_device(logins.clone(), &UserDevices::default(), Some(&id(this)))
                .into_iter()
                .map(|s| (s.device.to_string(), s.since, s.this))
                .collect()
        };
        let row = |d: &str, since, this| (d.to_owned(), since, this);
        assert_eq!(shown("c"), [row("c", 5, true), row("a", 30, false), row("b", 20, false)]);
        assert_eq!(shown("gone"), [row("a", 30, false), row("b", 20, false), row("c", 5, false)]);
        assert_eq!(by_device(Vec::new(), &UserDevices::default(), None), []);
    }
}
