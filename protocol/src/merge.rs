//! Values that only grow. Merged in any order, any number of times, they end the same, so whoever writes one needs no
//! lock: two writers who merge what they know lose nothing of each other's.

use std::collections::BTreeMap;

use crate::ids::MsgId;

/// A join: commutative, associative, idempotent (`laws` holds the implementations to that).
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

/// For the tests of every implementation.
#[cfg(test)]
pub(crate) mod laws {
    use std::fmt::Debug;

    use proptest::{prop_assert_eq, test_runner::TestCaseError};

    use super::MaxMerge;

    /// Merging is commutative, associative and idempotent, and says "changed" exactly if something has.
    pub(crate) fn hold<T: MaxMerge + Clone + PartialEq + Debug>(a: &T, b: &T, c: &T) -> Result<(), TestCaseError> {
        let merged = |a: &T, b: &T| {
            let mut all = a.clone();
            let grew = all.merge_max(b);
            prop_assert_eq!(grew, all != *a);
            Ok(all)
        };
        let ab = merged(a, b)?;
        prop_assert_eq!(&ab, &merged(b, a)?);
        prop_assert_eq!(merged(&ab, c)?, merged(a, &merged(b, c)?)?);
        prop_assert_eq!(merged(&ab, b)?, ab);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursors() -> impl Strategy<Value = BTreeMap<u8, u64>> {
        prop::collection::btree_map(0u8..6, 0u64..20, 0..6)
    }

    proptest! {
        #[test]
        fn maps_keep_the_laws_and_only_grow(a in cursors(), b in cursors(), c in cursors()) {
            laws::hold(&a, &b, &c)?;
            let mut all = a.clone();
            all.merge_max(&b);
            prop_assert!(a.iter().chain(&b).all(|(key, value)| all[key] >= *value));
        }
    }
}
