//! Which subscription a message belongs to: sid → slot, in one lookup and without an allocation but the subject. Pure.

use super::SubscriptionSlot;

struct Entry {
    generation: u32,
    /// Kept to subscribe again after a reconnect.
    subject: Box<str>,
}

/// A sid holds the slot and a generation that grows with every subscription: what still arrives for the slot's former
/// subject after it was given to another is not mistaken for the new one's.
#[derive(Default)]
pub(crate) struct Table {
    entries: Vec<Option<Entry>>,
    generation: u32,
    len: usize,
}

fn sid(slot: SubscriptionSlot, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot.0)
}

impl Table {
    /// The sid to subscribe with. The slot must be free.
    pub(crate) fn insert(&mut self, slot: SubscriptionSlot, subject: &str) -> u64 {
        let at = slot.0 as usize;
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, || None);
        }
        // Never 0: sid 0 belongs to the answers of requests.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.entries[at] = Some(Entry { generation: self.generation, subject: subject.into() });
        self.len += 1;
        sid(slot, self.generation)
    }

    /// The sid to unsubscribe, if the slot was in use.
    pub(crate) fn remove(&mut self, slot: SubscriptionSlot) -> Option<u64> {
        let entry = self.entries.get_mut(slot.0 as usize)?.take()?;
        self.len -= 1;
        Some(sid(slot, entry.generation))
    }

    pub(crate) fn slot(&self, sid: u64) -> Option<SubscriptionSlot> {
        let slot = SubscriptionSlot(sid as u32);
        let entry = self.entries.get(slot.0 as usize)?.as_ref()?;
        (u64::from(entry.generation) == sid >> 32).then_some(slot)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &str)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(i, e)| e.as_ref().map(|e| (sid(SubscriptionSlot(i as u32), e.generation), &*e.subject)))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_does_not_get_its_former_subjects_messages() {
        let mut t = Table::default();
        let first = t.insert(SubscriptionSlot(5), "a");
        assert_eq!(t.slot(first), Some(SubscriptionSlot(5)));
        assert_eq!(t.remove(SubscriptionSlot(5)), Some(first));
        assert_eq!((t.remove(SubscriptionSlot(5)), t.slot(first)), (None, None));
        let second = t.insert(SubscriptionSlot(5), "b");
        assert_eq!((t.slot(first), t.slot(second)), (None, Some(SubscriptionSlot(5))));
        assert_eq!(t.iter().collect::<Vec<_>>(), [(second, "b")]);
        assert_eq!((t.slot(0), t.slot(u64::MAX), t.len()), (None, None, 1));
    }
}
