//! What a user sets for one of their threads: the same on all their devices, and nobody else sees it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{limits, refusal::Refusal, schema::Time, text};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ThreadSettings {
    /// Nobody is notified of it until then, milliseconds since 1970; 0: it is not muted, 2^53 - 1: for ever.
    #[schema(value_type = Time)]
    #[serde(skip_serializing_if = "is_zero")]
    pub muted_until: u64,
    /// It stands before all others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// It is in the archive, not in the list.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// Marked as unread, whatever is read of it; until something more is read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
    /// What the user has begun to write.
    #[schema(max_length = 10000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
}

pub(crate) fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl ThreadSettings {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub fn is_muted(&self, now_ms: u64) -> bool {
        self.muted_until > now_ms
    }
}

/// What is to be set; what is missing stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SettingsChange {
    /// Milliseconds since 1970; 0: not muted, 2^53 - 1: for ever.
    #[schema(value_type = Option<Time>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<bool>,
    /// Empty: none any more.
    #[schema(max_length = 10000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
}

impl SettingsChange {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every limit of it.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.is_empty() {
            return Err(Refusal::invalid(
                "nothing is to be changed: give one of muted_until, pinned, archived, unread, draft",
            ));
        }
        self.muted_until.map_or(Ok(()), text::number).map_err(|e| e.of("muted_until"))?;
        if self.draft.as_ref().is_some_and(|draft| draft.chars().count() > limits::TEXT_CHARS) {
            return Err(Refusal::invalid(format!("draft: at most {} characters", limits::TEXT_CHARS)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_held_to_its_limits() {
        let draft = |n| SettingsChange { draft: Some("ä".repeat(n)), ..SettingsChange::default() };
        assert!(draft(0).check().is_ok() && draft(limits::TEXT_CHARS).check().is_ok());
        assert!(draft(limits::TEXT_CHARS + 1).check().unwrap_err().message.starts_with("draft"));
        assert!(SettingsChange::default().check().is_err());
        let muted = |until| SettingsChange { muted_until: Some(until), ..SettingsChange::default() };
        assert!(muted(limits::NUMBER_MAX).check().is_ok() && muted(limits::NUMBER_MAX + 1).check().is_err());
        let settings = ThreadSettings { muted_until: 5, ..ThreadSettings::default() };
        assert!(settings.is_muted(4) && !settings.is_muted(5));
    }
}
