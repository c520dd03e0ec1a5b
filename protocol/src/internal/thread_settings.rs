//! What a user has set for a thread, as it stands in KV.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    client::thread_settings::{SettingsChange, ThreadSettings, is_zero},
    ids::MsgId,
    merge::MaxMerge,
};

/// Of two the later one counts, whole: each change is made on the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SettingsMark {
    /// When it was set, milliseconds since 1970, and later than the one before.
    #[serde(rename = "t")]
    pub at_ms: u64,
    /// Milliseconds since 1970; 0: not muted.
    #[serde(rename = "m", default, skip_serializing_if = "is_zero")]
    pub muted_until: u64,
    #[serde(rename = "p", default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    #[serde(rename = "a", default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// Marked as unread when it was read up to here: reading on takes the mark away, without a write.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub unread_at: Option<MsgId>,
    /// There is a draft, in the key of drafts.
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    pub draft: bool,
}

impl SettingsMark {
    /// With this change, made now, of a thread that is read up to `read`; none: it changes nothing.
    #[must_use]
    pub fn changed(&self, change: &SettingsChange, read: MsgId, now_ms: u64) -> Option<Self> {
        let unread = change.unread.unwrap_or(self.is_unread(read));
        let with = Self {
            at_ms: self.at_ms,
            muted_until: change.muted_until.unwrap_or(self.muted_until),
            pinned: change.pinned.unwrap_or(self.pinned),
            archived: change.archived.unwrap_or(self.archived),
            unread_at: unread.then_some(read),
            draft: change.draft.as_ref().map_or(self.draft, |draft| !draft.is_empty()),
        };
        // Another text is a change, too.
        (with != *self || change.draft.as_ref().is_some_and(|draft| !draft.is_empty()))
            .then(|| Self { at_ms: now_ms.max(self.at_ms + 1), ..with })
    }

    pub fn is_unread(&self, read: MsgId) -> bool {
        self.unread_at.is_some_and(|at| read <= at)
    }

    /// As clients see it, of a thread that is read up to `read`.
    pub fn shown(&self, read: MsgId, draft: Option<String>) -> ThreadSettings {
        ThreadSettings {
            muted_until: self.muted_until,
            pinned: self.pinned,
            archived: self.archived,
            unread: self.is_unread(read),
            draft: draft.filter(|_| self.draft),
        }
    }
}

impl MaxMerge for SettingsMark {
    fn merge_max(&mut self, other: &Self) -> bool {
        let grows = *self < *other;
        *self = (*self).max(*other);
        grows
    }
}

/// What a user has begun to write, by the hash of the thread: the value of `<uid>.drafts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDrafts(pub BTreeMap<u64, String>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_a_change_is_changed_and_later_is_later() {
        let pinned = SettingsChange { pinned: Some(true), ..SettingsChange::default() };
        let mark = SettingsMark::default().changed(&pinned, MsgId(5), 1_000).unwrap();
        assert_eq!(mark, SettingsMark { at_ms: 1_000, pinned: true, ..SettingsMark::default() });
        assert_eq!(mark.changed(&pinned, MsgId(5), 2_000), None, "it is so already");
        let muted = SettingsChange { muted_until: Some(9_000), ..SettingsChange::default() };
        let both = mark.changed(&muted, MsgId(5), 900).unwrap();
        assert_eq!((both.at_ms, both.pinned, both.muted_until), (1_001, true, 9_000), "also if a clock goes back");
        let mut merged = both;
        assert!(!merged.merge_max(&mark) && merged == both);
    }

    #[test]
    fn reading_on_takes_the_unread_mark_away() {
        let unread = SettingsChange { unread: Some(true), ..SettingsChange::default() };
        let mark = SettingsMark::default().changed(&unread, MsgId(5), 1).unwrap();
        assert!(mark.is_unread(MsgId(5)) && !mark.is_unread(MsgId(6)));
        assert!(mark.shown(MsgId(5), None).unread && !mark.shown(MsgId(6), None).unread);
        let read = SettingsChange { unread: Some(false), ..SettingsChange::default() };
        assert!(!mark.changed(&read, MsgId(5), 2).unwrap().is_unread(MsgId(5)));
        // A later change of something else does not bring it back.
        let pinned = SettingsChange { pinned: Some(true), ..SettingsChange::default() };
        assert_eq!(mark.changed(&pinned, MsgId(6), 2).unwrap().unread_at, None);
    }

    #[test]
    fn another_draft_is_a_change_and_an_empty_one_is_none() {
        let draft = |text: &str| SettingsChange { draft: Some(text.into()), ..SettingsChange::default() };
        let mark = SettingsMark::default().changed(&draft("hel"), MsgId(1), 1).unwrap();
        let again = mark.changed(&draft("hello"), MsgId(1), 2).unwrap();
        assert!(again.draft && again > mark);
        let none = again.changed(&draft(""), MsgId(1), 3).unwrap();
        assert!(!none.draft && none.changed(&draft(""), MsgId(1), 4).is_none());
        assert_eq!(none.shown(MsgId(1), Some("late".into())).draft, None);
    }
}
