//! What the role `presence` says to edges: who is here, and what each user chose. An edge makes of it what one watcher
//! may see.
//!
//! What is said of a user has two parts, each with the revision of the key it comes from. The later part counts, so two
//! instances that speak of the same shard do no harm, whatever order their words come in.

use serde::{Deserialize, Serialize};

use crate::{
    client::presence::{PresenceChoice, PresenceSettings, PresenceState},
    ids::UserId,
};

/// Is any device of a user connected?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connected {
    Yes,
    /// Since then, milliseconds since 1970; none: never, or nobody knows when.
    No(Option<u64>),
    /// The user's devices are not known: their bucket is new, and not every edge has put its sessions there.
    Unknown,
}

/// What a user chose: the value of `<uid>.settings` in the users buckets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSettings {
    #[serde(default)]
    pub presence: PresenceSettings,
}

/// What is known of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPresence {
    #[serde(rename = "u")]
    pub user: UserId,
    /// Of the user's devices. One of a later bucket is larger (`bucket_revision`).
    #[serde(rename = "r")]
    pub revision: u64,
    #[serde(rename = "c")]
    pub connected: Connected,
    /// Of the user's settings; 0: there are none.
    #[serde(rename = "sr", default, skip_serializing_if = "is_zero")]
    pub settings_revision: u64,
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    pub settings: PresenceSettings,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_default(s: &PresenceSettings) -> bool {
    *s == PresenceSettings::default()
}

/// Revisions of a bucket count from 1. With its creation above them (as the log's ids, 12 bits a millisecond) those of
/// a bucket that was made again are larger than all of the one before.
pub fn bucket_revision(created_ms: u64, revision: u64) -> u64 {
    (created_ms << 12).saturating_add(revision)
}

impl UserPresence {
    /// Nobody knows anything.
    pub fn unknown(user: UserId) -> Self {
        Self {
            user,
            revision: 0,
            connected: Connected::Unknown,
            settings_revision: 0,
            settings: PresenceSettings::default(),
        }
    }

    /// Takes each part of `heard` that is not older. True: something has changed.
    pub fn hear(&mut self, heard: &Self) -> bool {
        let before = (self.connected, self.settings);
        if heard.revision >= self.revision {
            (self.revision, self.connected) = (heard.revision, heard.connected);
        }
        if heard.settings_revision >= self.settings_revision {
            (self.settings_revision, self.settings) = (heard.settings_revision, heard.settings);
        }
        before != (self.connected, self.settings)
    }

    /// As somebody who may see it sees it, and since when they are away.
    pub fn shown(&self) -> (PresenceState, Option<u64>) {
        match (self.connected, self.settings.choice) {
            // Also of somebody hidden: while others are unknown, "offline" would tell.
            (Connected::Unknown, _) => (PresenceState::Unknown, None),
            (Connected::No(since), PresenceChoice::Hidden) => {
                // They may have hidden and left later: that moment is not shown.
                (PresenceState::Offline, since.map(|since| since.min(self.settings.since)))
            }
            (Connected::Yes, PresenceChoice::Hidden) => (PresenceState::Offline, Some(self.settings.since)),
            (Connected::No(since), _) => (PresenceState::Offline, since),
            (Connected::Yes, PresenceChoice::Away) => (PresenceState::Away, None),
            (Connected::Yes, PresenceChoice::Available | PresenceChoice::Dnd) => (PresenceState::Online, None),
        }
    }
}

/// On `presence.<shard>`: what has changed; a batch without users is the beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceBatch {
    pub shard: u32,
    /// Of the instance that speaks, since it knows all of the shard: with another one everything is asked again.
    pub epoch: u64,
    /// Counts the batches with users; of a beat the last one's.
    pub seq: u64,
    pub users: Vec<UserPresence>,
}

/// To whoever holds a shard: how are these users, all of that shard?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PresenceRequest {
    pub users: Vec<UserId>,
}

/// In the order of the request; everything that was published up to `seq` is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceAnswer {
    pub epoch: u64,
    pub seq: u64,
    pub users: Vec<UserPresence>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(revision: u64, connected: Connected, settings_revision: u64, choice: PresenceChoice) -> UserPresence {
        let settings = PresenceSettings { choice, since: 7, ..PresenceSettings::default() };
        UserPresence { user: UserId::parse("u").unwrap(), revision, connected, settings_revision, settings }
    }

    #[test]
    fn the_later_of_each_part_counts() {
        let mut known = UserPresence::unknown(UserId::parse("u").unwrap());
        assert!(known.hear(&heard(5, Connected::Yes, 2, PresenceChoice::Away)));
        assert!(known.hear(&heard(4, Connected::No(None), 3, PresenceChoice::Dnd)), "the settings are later");
        assert_eq!((known.connected, known.settings.choice), (Connected::Yes, PresenceChoice::Dnd));
        assert!(!known.hear(&heard(4, Connected::Unknown, 2, PresenceChoice::Hidden)), "nothing is later");
        assert!(
            known.hear(&heard(5, Connected::No(Some(9)), 0, PresenceChoice::Available)),
            "the same revision, later said"
        );
        assert_eq!(known.settings.choice, PresenceChoice::Dnd);
    }

    #[test]
    fn a_later_buckets_revisions_are_larger() {
        assert!(bucket_revision(1_800_000_000_000, 4_000) < bucket_revision(1_800_000_000_001, 0));
        assert!(bucket_revision(1_800_000_000_000, 1) < bucket_revision(1_800_000_000_000, 2));
    }

    #[test]
    fn who_hides_is_offline_since_they_hide_and_unknown_with_everybody_else() {
        let shown = |connected, choice| heard(1, connected, 1, choice).shown();
        assert_eq!(shown(Connected::Yes, PresenceChoice::Hidden), (PresenceState::Offline, Some(7)));
        assert_eq!(shown(Connected::No(Some(99)), PresenceChoice::Hidden), (PresenceState::Offline, Some(7)));
        assert_eq!(shown(Connected::No(Some(3)), PresenceChoice::Hidden), (PresenceState::Offline, Some(3)));
        assert_eq!(shown(Connected::Unknown, PresenceChoice::Hidden), (PresenceState::Unknown, None));
        assert_eq!(shown(Connected::Yes, PresenceChoice::Away), (PresenceState::Away, None));
        assert_eq!(shown(Connected::No(Some(3)), PresenceChoice::Away), (PresenceState::Offline, Some(3)));
        assert_eq!(shown(Connected::Yes, PresenceChoice::Dnd), (PresenceState::Online, None));
    }
}
