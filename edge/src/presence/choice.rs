//! What users choose of their own presence: read, changed, and obeyed when they type.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use natterjack_nats::{KvBuckets, ServerTime};
use natterjack_protocol::{
    Refusal, Thread, UserId,
    client::presence::{PresenceChange, PresenceChoice, PresenceSettings, PresenceVisibility},
    internal::presence::UserSettings,
};
use tokio::time::Instant;

use super::source::PresenceSource;
use crate::{
    members::{ChosenPresence, UserState},
    people::People,
    refusals::refuse,
};

/// What was read counts for so long: somebody who hides is silent after this, also where another edge was told.
const FRESH: Duration = Duration::from_secs(2);

/// Who of a thread may be shown that somebody types there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeesTyping {
    Nobody,
    /// But for those with a block.
    Everybody,
    Only(BTreeSet<UserId>),
}

/// Clones share it.
#[derive(Clone)]
pub struct Choices {
    buckets: KvBuckets,
    time: ServerTime,
}

impl Choices {
    pub fn new(buckets: &KvBuckets, time: &ServerTime) -> Self {
        Self { buckets: buckets.clone(), time: time.clone() }
    }

    pub async fn load(&self, user: &UserId) -> Result<PresenceSettings, Refusal> {
        let settings = self.buckets.settings(user).load().await.map_err(refuse)?;
        Ok(settings.unwrap_or_default().presence)
    }

    /// Of two who change it at once, each changes what the other left.
    pub async fn change(&self, user: &UserId, change: PresenceChange) -> Result<PresenceSettings, Refusal> {
        let (now, mut after) = (self.time.now_ms(), PresenceSettings::default());
        let key = self.buckets.settings(user);
        let written = key.merge(|found| {
            let settings = found.unwrap_or_default();
            after = changed(settings.presence, change, now);
            (after != settings.presence).then_some(UserSettings { presence: after })
        });
        written.await.map_err(refuse)?;
        Ok(after)
    }

    /// Who of the thread may be shown that the user types: whoever may see that they are here. Whom a block hides it
    /// from is judged where it is shown. Unknown counts as nobody: typing may be lost, what is hidden may not be shown.
    pub async fn who_sees_typing(
        &self,
        state: &UserState,
        thread: &Thread,
        source: &impl PresenceSource,
        people: &People,
    ) -> SeesTyping {
        let Ok(ChosenPresence { settings, contacts, .. }) = self.chosen(state, source).await else {
            return SeesTyping::Nobody;
        };
        match (settings.choice, settings.visibility) {
            (PresenceChoice::Hidden, _) | (_, PresenceVisibility::Nobody) => SeesTyping::Nobody,
            (_, PresenceVisibility::Everyone) => SeesTyping::Everybody,
            (_, PresenceVisibility::Contacts) => {
                let contacts = contacts.unwrap_or_default();
                match thread {
                    Thread::Dm { .. } => contacts_of(thread.dm_users(), &contacts),
                    Thread::Group { gid } => match people.group(gid).await {
                        Ok(Some(group)) => contacts_of(group.members.keys(), &contacts),
                        Ok(None) | Err(_) => SeesTyping::Nobody,
                    },
                }
            }
        }
    }

    async fn chosen(&self, state: &UserState, source: &impl PresenceSource) -> Result<ChosenPresence, Refusal> {
        let cached = state.chosen.lock().as_deref().filter(|c| c.at.elapsed() < FRESH).cloned();
        if let Some(chosen) = cached {
            return Ok(chosen);
        }
        let at = Instant::now();
        let settings = self.load(&state.user).await?;
        let contacts = match settings.visibility {
            PresenceVisibility::Contacts => Some(Arc::new(source.contacts(&state.user).await?)),
            PresenceVisibility::Everyone | PresenceVisibility::Nobody => None,
        };
        let chosen = ChosenPresence { at, settings, contacts };
        *state.chosen.lock() = Some(Box::new(chosen.clone()));
        Ok(chosen)
    }
}

fn contacts_of<'a>(members: impl Iterator<Item = &'a UserId>, contacts: &HashSet<UserId>) -> SeesTyping {
    let users: BTreeSet<UserId> = members.filter(|user| contacts.contains(*user)).cloned().collect();
    if users.is_empty() { SeesTyping::Nobody } else { SeesTyping::Only(users) }
}

fn changed(before: PresenceSettings, change: PresenceChange, now: u64) -> PresenceSettings {
    let choice = change.choice.unwrap_or(before.choice);
    let since = if choice == before.choice { before.since } else { now };
    let visibility = change.visibility.unwrap_or(before.visibility);
    PresenceSettings { choice, since, visibility, receipts: change.receipts.unwrap_or(before.receipts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_members_those_see_it_who_are_contacts() {
        let users = |names: &[&str]| names.iter().map(|n| UserId::parse(n).unwrap()).collect::<Vec<_>>();
        let (members, contacts) = (users(&["ann", "bob", "cay"]), HashSet::from_iter(users(&["bob", "dan"])));
        assert_eq!(contacts_of(members.iter(), &contacts), SeesTyping::Only(users(&["bob"]).into_iter().collect()));
        assert_eq!(contacts_of(users(&["ann"]).iter(), &contacts), SeesTyping::Nobody);
    }

    #[test]
    fn a_change_leaves_the_rest_and_who_hides_twice_hid_the_first_time() {
        let hide = PresenceChange { choice: Some(PresenceChoice::Hidden), ..PresenceChange::default() };
        let first = changed(PresenceSettings::default(), hide, 5);
        assert_eq!(
            (first.choice, first.since, first.visibility),
            (PresenceChoice::Hidden, 5, PresenceVisibility::Everyone)
        );
        assert_eq!(changed(first, hide, 9), first);
        let contacts = PresenceChange { visibility: Some(PresenceVisibility::Contacts), ..PresenceChange::default() };
        let second = changed(first, contacts, 9);
        assert_eq!(
            (second.choice, second.since, second.visibility),
            (PresenceChoice::Hidden, 5, PresenceVisibility::Contacts)
        );
        let show = PresenceChange { choice: Some(PresenceChoice::Available), ..PresenceChange::default() };
        assert_eq!(changed(second, show, 12).since, 12);
        let silent = changed(second, PresenceChange { receipts: Some(false), ..PresenceChange::default() }, 14);
        assert_eq!((silent.receipts, silent.since, silent.visibility), (false, 5, PresenceVisibility::Contacts));
        assert!(second.receipts && !changed(silent, show, 15).receipts);
    }
}
