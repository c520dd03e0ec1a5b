//! How many at once: places per address, given back when dropped.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

/// Bounded by the connections of the edge: an address without one is not kept.
type Taken = Arc<Mutex<HashMap<IpAddr, u32>>>;

pub struct Places {
    most: u32,
    taken: Taken,
}

impl Places {
    /// 0: no limit.
    pub fn new(most: u32) -> Self {
        Self { most, taken: Taken::default() }
    }

    /// None: all are taken.
    pub fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock();
        let count = taken.entry(address).or_default();
        if self.most > 0 && *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { address, taken: self.taken.clone() })
    }
}

pub struct Place {
    address: IpAddr,
    taken: Taken,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
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
        let places = Places::new(2);
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = places.take(a).unwrap();
        let _second = places.take(a).unwrap();
        assert!(places.take(a).is_none() && places.take(b).is_some());
        drop(first);
        assert!(places.take(a).is_some());
        drop(_second);
        assert!(places.taken.lock().is_empty(), "who has none is forgotten");
    }
}
