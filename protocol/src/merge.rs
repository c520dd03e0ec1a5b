//! Values that only grow. Merged in any order, any number of times, they end the same, so whoever writes one needs no
//! lock: two writers who merge what they know lose nothing of each other's.

use std::collections::BTreeMap;

use crate::ids::MsgId;

/// A join: commutative, associative, idempotent (the tests hold every implementation to that).
pub trait MaxMerge {
    /// Takes what `other` has more. True: it had more, `self` has changed.
    fn merge_max(&mut self, other: &Self) -> bool;
}

impl MaxMerge for u64 {
    fn merge_max(&mut self, other: &Self) -> bool {
        let grows = *self < *other;
        *self = (*self).max(*other);
        grows
    }
}

impl MaxMerge for MsgId {
    fn merge_max(&mut self, other: &Self) -> bool {
        self.0.merge_max(&other.0)
    }
}

/// A key that one of them lacks counts as less than any value.
impl<K: Ord + Clone, V: MaxMerge + Clone> MaxMerge for BTreeMap<K, V> {
    fn merge_max(&mut self, other: &Self) -> bool {
        let mut grows = false;
        for (key, theirs) in other {
            match self.get_mut(key) {
                Some(ours) => grows |= ours.merge_max(theirs),
                None => {
                    self.insert(key.clone(), theirs.clone());
                    grows = true;
                }
            }
        }
        grows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Cursors = BTreeMap<u8, u64>;

    fn merged(a: &Cursors, b: &Cursors) -> Cursors {
        let mut all = a.clone();
        all.merge_max(b);
        all
    }

    fn cursors() -> impl Strategy<Value = Cursors> {
        prop::collection::btree_map(0u8..6, 0u64..20, 0..6)
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in cursors(), b in cursors(), c in cursors()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&merged(&a, &b), &b), merged(&a, &b));
        }

        /// Nothing goes back, and "changed" is true exactly if something has.
        #[test]
        fn merging_only_grows_and_says_whether_it_did(a in cursors(), b in cursors()) {
            let mut all = a.clone();
            let grew = all.merge_max(&b);
            prop_assert_eq!(grew, all != a);
            prop_assert!(a.iter().chain(&b).all(|(key, value)| all[key] >= *value));
        }
    }
}
