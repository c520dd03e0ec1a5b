//! How much at once: connections or bytes per address, given back when dropped.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

/// Bounded by the connections of the edge: an address without one is not kept.
type Taken = Arc<Mutex<HashMap<IpAddr, u64>>>;

pub struct AddressQuota {
    most: u64,
    taken: Taken,
}

impl AddressQuota {
    /// 0: no limit.
    pub fn new(most: u32) -> Self {
        Self { most: most.into(), taken: Taken::default() }
    }

    /// None: there is not that much left.
    pub fn take(&self, address: IpAddr, amount: u64) -> Option<HeldQuota> {
        let mut taken = self.taken.lock();
        let sum = taken.get(&address).copied().unwrap_or_default().saturating_add(amount);
        if self.most > 0 && sum > self.most {
            return None;
        }
        taken.insert(address, sum);
        Some(HeldQuota { address, amount, taken: self.taken.clone() })
    }
}

pub struct HeldQuota {
    address: IpAddr,
    amount: u64,
    taken: Taken,
}

impl Drop for HeldQuota {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count = count.saturating_sub(self.amount);
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_and_the_one_after_it() {
        let places = AddressQuota::new(2);
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = places.take(a, 1).unwrap();
        let _second = places.take(a, 1).unwrap();
        assert!(places.take(a, 1).is_none() && places.take(b, 1).is_some());
        drop(first);
        assert!(places.take(a, 1).is_some());
        drop(_second);
        assert!(places.take(b, 3).is_none() && places.take(b, 2).is_some(), "more than one at once");
        drop(places.take(a, 0));
        let third = places.take(a, 1);
        drop(third);
        assert!(!places.taken.lock().contains_key(&b), "who has none is forgotten");
    }
}
