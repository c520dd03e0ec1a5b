//! What an entry is: a message, an operation on one, or a change of the thread.

use serde::{Deserialize, Serialize};

/// What an entry is. The first group are messages, the second operations on messages, the third changes of the thread
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Text,
    Emoji,
    Image,
    Video,
    File,
    Audio,
    /// Opaque bytes, for payloads that are encrypted end to end.
    Custom,
    Edit,
    Recall,
    Reaction,
    DmStarted,
    Blocked,
    Unblocked,
    GroupCreated,
    GroupRenamed,
    MemberAdded,
    MemberRemoved,
    MemberLeft,
    RoleChanged,
    /// In no log: where messages of the thread may be missing for ever, from `body.target` up to this id.
    Lost,
    /// Of a newer version, or not an entry at all; kept with its bytes, shown as "unsupported".
    #[serde(other)]
    Unknown,
}

impl Kind {
    pub fn is_message(self) -> bool {
        matches!(self, Self::Text | Self::Emoji | Self::Image | Self::Video | Self::File | Self::Audio | Self::Custom)
    }

    pub fn is_operation(self) -> bool {
        matches!(self, Self::Edit | Self::Recall | Self::Reaction)
    }

    /// Control entries live on `ctl.` subjects and are folded; all others on `chat.` subjects.
    pub fn is_control(self) -> bool {
        !self.is_message() && !self.is_operation() && !matches!(self, Self::Unknown | Self::Lost)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Emoji => "emoji",
            Self::Image => "image",
            Self::Video => "video",
            Self::File => "file",
            Self::Audio => "audio",
            Self::Custom => "custom",
            Self::Edit => "edit",
            Self::Recall => "recall",
            Self::Reaction => "reaction",
            Self::DmStarted => "dm_started",
            Self::Blocked => "blocked",
            Self::Unblocked => "unblocked",
            Self::GroupCreated => "group_created",
            Self::GroupRenamed => "group_renamed",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::MemberLeft => "member_left",
            Self::RoleChanged => "role_changed",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }

    pub fn parse(s: &str) -> Self {
        const ALL: [Kind; 20] = [
            Kind::Text,
            Kind::Emoji,
            Kind::Image,
            Kind::Video,
            Kind::File,
            Kind::Audio,
            Kind::Custom,
            Kind::Edit,
            Kind::Recall,
            Kind::Reaction,
            Kind::DmStarted,
            Kind::Blocked,
            Kind::Unblocked,
            Kind::GroupCreated,
            Kind::GroupRenamed,
            Kind::MemberAdded,
            Kind::MemberRemoved,
            Kind::MemberLeft,
            Kind::RoleChanged,
            Kind::Lost,
        ];
        ALL.into_iter().find(|k| k.as_str() == s).unwrap_or(Kind::Unknown)
    }

    /// Block and unblock are shown to the devices of who did it, and to nobody else.
    pub fn only_for_its_author(self) -> bool {
        matches!(self, Self::Blocked | Self::Unblocked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_a_later_version_are_unknown_and_every_name_goes_both_ways() {
        let bytes = rmp_serde::to_vec("poll_opened").unwrap();
        assert_eq!(rmp_serde::from_slice::<Kind>(&bytes).unwrap(), Kind::Unknown);
        for k in [Kind::Text, Kind::RoleChanged, Kind::DmStarted] {
            assert_eq!(Kind::parse(k.as_str()), k);
            assert_eq!(serde_json::to_string(&k).unwrap(), format!("\"{}\"", k.as_str()));
        }
    }
}
