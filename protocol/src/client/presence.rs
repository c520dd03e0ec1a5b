//! Presence as a client sees it: how somebody is shown, and what they choose about it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ids::UserId, schema::Time};

/// How somebody is shown to one who watches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresenceState {
    /// At least one device is connected, or was until 10 s ago.
    Online,
    /// Connected, and they chose to be shown as away.
    Away,
    Offline,
    /// Nobody can tell now. Never shown as offline.
    Unknown,
}

/// How somebody wants to be shown. Whoever is not connected is offline whatever they chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresenceChoice {
    #[default]
    Available,
    Away,
    /// Shown as online; for the notifier, which is silent.
    Dnd,
    /// Shown as offline since the moment it was chosen, and typing and receipts are not passed on.
    Hidden,
}

/// Who may see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresenceVisibility {
    /// Everybody who is not blocked.
    #[default]
    Everyone,
    Contacts,
    Nobody,
}

/// What a user chose of their own presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceSettings {
    pub choice: PresenceChoice,
    /// When it was chosen; 0: never.
    #[schema(value_type = Time)]
    pub since: u64,
    pub visibility: PresenceVisibility,
    /// Others are told what this user has got and read, and this user of others. Off: neither.
    #[serde(default = "yes")]
    pub receipts: bool,
}

fn yes() -> bool {
    true
}

impl Default for PresenceSettings {
    fn default() -> Self {
        let (choice, visibility) = (PresenceChoice::default(), PresenceVisibility::default());
        Self { choice, since: 0, visibility, receipts: true }
    }
}

/// What is to be different; the rest stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<PresenceChoice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<PresenceVisibility>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipts: Option<bool>,
}

/// How some users are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceList {
    pub users: Vec<PresenceOf>,
}

/// How one user is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceOf {
    pub user: UserId,
    pub state: PresenceState,
    /// Of somebody who is offline, if it may be seen: since when.
    #[schema(value_type = Option<Time>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
}
