//! How far a user has read, and each of their devices has got, in all threads, and what they have set for them: the
//! value of `<uid>.cursors` in the users buckets. It only grows (`MaxMerge`), so two edges that write it at once lose
//! nothing of each other's.
//!
//! A thread stands there by its 64-bit hash, 9 bytes and not up to 134: a user's value is about 24 bytes for each
//! thread that was read.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{
    client::thread_settings::SettingsChange,
    ids::{DeviceId, MsgId},
    internal::thread_settings::SettingsMark,
    limits,
    merge::MaxMerge,
    parts::{Parts, dealt},
    thread::Thread,
};

/// Up to where somebody has read a thread, and when that was written, in seconds since 1970: a device that comes back
/// is told what was read since it left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMark(pub MsgId, pub u64);

/// The one that is further, whole; of two that are as far the one that was written first, so that saying it again
/// changes nothing.
impl MaxMerge for ReadMark {
    fn merge_max(&mut self, other: &Self) -> bool {
        let grows = (self.0, Reverse(self.1)) < (other.0, Reverse(other.1));
        if grows {
            *self = *other;
        }
        grows
    }
}

/// How far a device has got in the threads in which it is ahead of what was read.
type GotByThread = BTreeMap<u64, MsgId>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCursors {
    /// By the hash of the thread.
    #[serde(rename = "r", default)]
    read: BTreeMap<u64, ReadMark>,
    #[serde(rename = "g", default, skip_serializing_if = "BTreeMap::is_empty")]
    got: BTreeMap<DeviceId, GotByThread>,
    #[serde(rename = "s", default, skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<u64, SettingsMark>,
    /// What was in it stands in its parts.
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl UserCursors {
    /// What the user has read, written at this time (seconds since 1970).
    pub fn add_read(&mut self, thread: &Thread, id: MsgId, at_s: u64) {
        self.merge_max(&Self { read: [(thread.hash64(), ReadMark(id, at_s))].into(), ..Self::default() });
    }

    pub fn add_got(&mut self, device: &DeviceId, thread: &Thread, id: MsgId) {
        let got = [(device.clone(), [(thread.hash64(), id)].into())].into();
        self.merge_max(&Self { got, ..Self::default() });
    }

    /// Up to where the thread was read; 0: not at all.
    pub fn read(&self, thread: &Thread) -> MsgId {
        self.read.get(&thread.hash64()).map_or(MsgId::NONE, |mark| mark.0)
    }

    /// Up to where this device has the thread, as far as it said so; what the user has read counts as got.
    pub fn got_by(&self, device: &DeviceId, thread: &Thread) -> MsgId {
        let got = self.got.get(device).and_then(|got| got.get(&thread.hash64()).copied());
        got.unwrap_or_default().max(self.read(thread))
    }

    /// Up to where any device has the thread.
    pub fn got(&self, thread: &Thread) -> MsgId {
        let hash = thread.hash64();
        let got = self.got.values().filter_map(|got| got.get(&hash).copied()).max();
        got.unwrap_or_default().max(self.read(thread))
    }

    /// Up to where the thread was read, if that was written at or after `since_s`.
    pub fn read_since(&self, thread: &Thread, since_s: u64) -> Option<MsgId> {
        let ReadMark(id, at) = self.read.get(&thread.hash64())?;
        (*at >= since_s).then_some(*id)
    }

    /// What is set for the thread.
    pub fn settings(&self, thread: &Thread) -> SettingsMark {
        self.settings.get(&thread.hash64()).copied().unwrap_or_default()
    }

    /// Sets it, and says whether that changed anything.
    pub fn set(&mut self, thread: &Thread, change: &SettingsChange, now_ms: u64) -> bool {
        let changed = self.settings(thread).changed(change, self.read(thread), now_ms);
        changed.is_some_and(|mark| self.settings.insert(thread.hash64(), mark) != Some(mark))
    }

    /// How many threads are pinned, and how many have a draft.
    pub fn pinned_and_drafts(&self) -> (usize, usize) {
        let count = |of: fn(&SettingsMark) -> bool| self.settings.values().filter(|mark| of(mark)).count();
        (count(|mark| mark.pinned), count(|mark| mark.draft))
    }

    /// Was it read, or something set for it, at or after this time?
    pub fn changed_since(&self, thread: &Thread, since_s: u64) -> bool {
        let hash = thread.hash64();
        self.read.get(&hash).is_some_and(|mark| mark.1 >= since_s)
            || self.settings.get(&hash).is_some_and(|mark| mark.at_ms / 1_000 >= since_s)
    }

    /// Makes it fit: devices that are long gone leave what they had got behind. To be written on the condition that
    /// nobody has changed it.
    pub fn fit(&mut self) {
        while self.got.len() > limits::USER_DEVICES {
            let newest = |got: &GotByThread| got.values().max().copied();
            let oldest = self.got.iter().min_by_key(|(_, got)| newest(got)).map(|(device, _)| device.clone());
            oldest.iter().for_each(|device| drop(self.got.remove(device)));
        }
    }

    /// Takes out what was read, too: it is said already.
    fn prune(&mut self) {
        let read = &self.read;
        self.got.retain(|_, got| {
            got.retain(|hash, id| *id > read.get(hash).map_or(MsgId::NONE, |mark| mark.0));
            !got.is_empty()
        });
    }
}

impl MaxMerge for UserCursors {
    fn merge_max(&mut self, other: &Self) -> bool {
        let mut grows = self.read.merge_max(&other.read) | self.settings.merge_max(&other.settings);
        for (device, theirs) in &other.got {
            for (hash, id) in theirs {
                let ours = self.got.get(device).and_then(|got| got.get(hash).copied()).unwrap_or_default();
                let read = self.read.get(hash).map_or(MsgId::NONE, |mark| mark.0);
                if *id > ours && *id > read {
                    self.got.entry(device.clone()).or_default().insert(*hash, *id);
                    grows = true;
                }
            }
        }
        if grows {
            self.prune();
        }
        grows
    }
}

impl Parts for UserCursors {
    fn is_cut(&self) -> bool {
        self.cut
    }

    fn cut(&mut self, depth: usize) -> Vec<Self> {
        let Self { read, got, settings, .. } = std::mem::replace(self, Self { cut: true, ..Self::default() });
        let (read, settings) = (dealt(read, depth, |(hash, _)| *hash), dealt(settings, depth, |(hash, _)| *hash));
        let mut parts: Vec<Self> = read
            .into_iter()
            .zip(settings)
            .map(|(read, settings)| Self {
                read: read.into_iter().collect(),
                settings: settings.into_iter().collect(),
                ..Self::default()
            })
            .collect();
        for (device, got) in got {
            for (part, got) in parts.iter_mut().zip(dealt(got, depth, |(hash, _)| *hash)) {
                if !got.is_empty() {
                    part.got.insert(device.clone(), got.into_iter().collect());
                }
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merge::laws;

    fn cursors() -> impl Strategy<Value = UserCursors> {
        let read = prop::collection::btree_map(0u64..5, (0u64..9, 0u64..4), 0..5);
        let got = prop::collection::btree_map(0usize..3, prop::collection::btree_map(0u64..5, 0u64..9, 0..5), 0..3);
        let settings = prop::collection::btree_map(0u64..5, (0u64..9, any::<bool>()), 0..5);
        (read, got, settings).prop_map(|(read, got, settings)| {
            let device = |n: usize| DeviceId::parse(["phone", "desk", "web"][n]).unwrap();
            let mut cursors = UserCursors {
                read: read.into_iter().map(|(hash, (id, at))| (hash, ReadMark(MsgId(id), at))).collect(),
                got: got
                    .into_iter()
                    .map(|(d, got)| (device(d), got.into_iter().map(|(h, id)| (h, MsgId(id))).collect()))
                    .collect(),
                settings: settings
                    .into_iter()
                    .map(|(h, (at_ms, pinned))| (h, SettingsMark { at_ms, pinned, ..SettingsMark::default() }))
                    .collect(),
                cut: false,
            };
            cursors.prune();
            cursors
        })
    }

    proptest! {
        /// Nothing goes back, for anybody who asks.
        #[test]
        fn merging_keeps_the_laws_and_only_grows(a in cursors(), b in cursors(), c in cursors()) {
            laws::hold(&a, &b, &c)?;
            let mut all = a.clone();
            all.merge_max(&b);
            for one in [&a, &b] {
                prop_assert!(one.read.iter().all(|(hash, mark)| all.read[hash].0 >= mark.0));
                for (device, got) in &one.got {
                    for (hash, id) in got {
                        let now = all.got.get(device).and_then(|got| got.get(hash)).copied().unwrap_or_default();
                        let read = all.read.get(hash).map_or(MsgId::NONE, |mark| mark.0);
                        prop_assert!(now.max(read) >= *id, "{device} {hash} {id} in {all:?}");
                    }
                }
            }
            let later = |(hash, mark): (&u64, &SettingsMark)| all.settings[hash] >= *mark;
            prop_assert!(a.settings.iter().chain(&b.settings).all(later));
            let ahead = |(hash, id): (&u64, &MsgId)| all.read.get(hash).is_none_or(|mark| *id > mark.0);
            prop_assert!(all.got.values().all(|got| !got.is_empty() && got.iter().all(ahead)), "{all:?}");
        }
    }

    #[test]
    fn what_was_read_was_got_and_is_told_by_the_time_it_was_written() {
        let threads: Vec<Thread> = ["dm.a.b", "dm.a.c", "group.g"].map(|t| t.parse().unwrap()).into();
        let (phone, desk) = (DeviceId::parse("phone").unwrap(), DeviceId::parse("desk").unwrap());
        let mut cursors = UserCursors::default();
        assert_eq!(cursors, UserCursors::default());
        cursors.add_got(&phone, &threads[0], MsgId(9));
        cursors.add_got(&desk, &threads[0], MsgId(4));
        cursors.add_read(&threads[0], MsgId(5), 100);
        cursors.add_read(&threads[1], MsgId(7), 90);
        assert_eq!((cursors.read(&threads[0]), cursors.got(&threads[0])), (MsgId(5), MsgId(9)));
        assert_eq!(cursors.got_by(&desk, &threads[0]), MsgId(5), "read on the phone");
        assert_eq!((cursors.got(&threads[1]), cursors.got(&threads[2])), (MsgId(7), MsgId::NONE));
        let since = |s| {
            let read = threads.iter().filter_map(|t| Some((t.to_string(), cursors.read_since(t, s)?.0)));
            read.collect::<Vec<_>>()
        };
        assert_eq!(since(100), [("dm.a.b".to_owned(), 5)]);
        assert_eq!(since(0).len(), 2);
        let bytes = rmp_serde::to_vec_named(&cursors).unwrap();
        assert_eq!(rmp_serde::from_slice::<UserCursors>(&bytes).unwrap(), cursors);
    }

    #[test]
    fn devices_that_are_long_gone_leave_room() {
        let (mut cursors, thread) = (UserCursors::default(), "group.g".parse::<Thread>().unwrap());
        let device = |n: usize| DeviceId::parse(&format!("d{n}")).unwrap();
        for n in 0..=limits::USER_DEVICES {
            cursors.add_got(&device(n), &thread, MsgId(100 + n as u64));
        }
        cursors.fit();
        assert_eq!(cursors.got.len(), limits::USER_DEVICES);
        assert!(cursors.got_by(&device(0), &thread).is_none() && cursors.got_by(&device(1), &thread) == MsgId(101));
        cursors.add_read(&thread, MsgId(1), 1_800_000_000);
        let mut again = cursors.clone();
        again.read.values_mut().for_each(|mark| mark.1 += 5);
        assert!(!cursors.merge_max(&again), "said again is nothing new");
    }

    proptest! {
        /// Whatever is cut out of a value, merged again in any order, is the value.
        #[test]
        fn a_value_that_is_cut_is_the_sum_of_its_parts(value in cursors(), spread in any::<u64>()) {
            let spread = |hash: &u64| hash.wrapping_mul(spread | 1 << 60);
            let value = UserCursors {
                read: value.read.iter().map(|(h, mark)| (spread(h), *mark)).collect(),
                got: value.got.iter()
                    .map(|(d, got)| (d.clone(), got.iter().map(|(h, id)| (spread(h), *id)).collect()))
                    .collect(),
                settings: value.settings.iter().map(|(h, mark)| (spread(h), *mark)).collect(),
                cut: false,
            };
            let mut root = value.clone();
            let parts = root.cut(0);
            prop_assert!(root.is_cut() && parts.len() == crate::parts::PARTS);
            let mut whole = UserCursors::default();
            parts.iter().rev().for_each(|part| { whole.merge_max(part); });
            prop_assert_eq!(whole, value);
        }
    }

    #[test]
    fn a_thread_takes_at_most_24_bytes() {
        let mut cursors = UserCursors::default();
        for n in 0..1_000 {
            cursors.add_read(&format!("group.g{n}").parse().unwrap(), MsgId(1 << 52), 1_800_000_000);
        }
        assert!(rmp_serde::to_vec_named(&cursors).unwrap().len() <= 24_100);
    }
}
