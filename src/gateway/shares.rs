//! Fair shares of a scarce thing: so many places in all, and so many for one holder, so that nobody takes what others need.
//! It refuses to know what the places are, and to wait for one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// The places, and who has how many.
pub struct Shares<K> {
    held: Mutex<HashMap<K, usize>>,
    each: usize,
    all: usize,
}

/// One place; given back when dropped.
pub struct Share<K: Eq + Hash> {
    of: Arc<Shares<K>>,
    holder: K,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// So many places for each holder, and so many for all together.
    #[must_use]
    pub fn new(each: usize, all: usize) -> Arc<Self> {
        Arc::new(Self { held: Mutex::default(), each, all })
    }

    /// A place for this holder, if it may have one more and there is one.
    #[must_use]
    pub fn take(self: &Arc<Self>, holder: &K) -> Option<Share<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.get(holder).copied().unwrap_or(0);
        if own >= self.each || held.values().sum::<usize>() >= self.all {
            return None;
        }
        held.insert(holder.clone(), own + 1);
        Some(Share { of: self.clone(), holder: holder.clone() })
    }

    /// How many places this holder has.
    #[must_use]
    pub fn held_by(&self, holder: &K) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(holder).copied().unwrap_or(0)
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d1_nobody_takes_all_places_and_a_place_comes_back() {
        let shares = Shares::new(2, 3);
        let (first, second) = (shares.take(&"a"), shares.take(&"a"));
        assert_eq!((shares.held_by(&"a"), shares.held_by(&"b")), (2, 0));
        assert!(first.is_some() && second.is_some() && shares.take(&"a").is_none(), "its share is two");
        let other = shares.take(&"b");
        assert!(other.is_some() && shares.take(&"c").is_none(), "there are three in all");
        drop(first);
        assert!(shares.take(&"c").is_some());
        drop((second, other));
        assert!(shares.held.lock().unwrap().is_empty(), "who has none is forgotten");
    }
}
