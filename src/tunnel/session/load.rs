//! How much moves, and what follows from it: which lane takes the next stream, and how many lanes a session should have. Pure:
//! times are given. It refuses to know connections, and who asks for lanes.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::limits::BULK_RATE;

/// Milliseconds of a [`Rate`]'s window.
const WINDOW: u64 = 1000;

/// Lanes whose rates differ by less than this are equally busy; the one with fewer streams is taken then.
const STEP: u64 = 64 * 1024;

/// Bytes per second over the last second, from the sums of this second and the one before it. Counting takes no lock; what is
/// counted at the same moment as the second turns may be lost, which an estimate may.
#[derive(Debug, Default)]
pub(super) struct Rate {
    second: AtomicU64,
    current: AtomicU64,
    before: AtomicU64,
}

impl Rate {
    /// Counts bytes that moved at `now`, in milliseconds since any fixed moment.
    pub(super) fn add(&self, now: u64, bytes: u64) {
        let (second, last) = (now / WINDOW, self.second.load(Ordering::Relaxed));
        if second == last {
            self.current.fetch_add(bytes, Ordering::Relaxed);
        } else if self.second.compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let sum = self.current.swap(bytes, Ordering::Relaxed);
            self.before.store(if second == last + 1 { sum } else { 0 }, Ordering::Relaxed);
        }
    }

    /// What moved within the second before `now`.
    pub(super) fn per_second(&self, now: u64) -> u64 {
        let current = self.current.load(Ordering::Relaxed);
        let (now, last) = (now % WINDOW, (now / WINDOW).saturating_sub(self.second.load(Ordering::Relaxed)));
        match last {
            0 => current + self.before.load(Ordering::Relaxed) / WINDOW * (WINDOW - now),
            1 => current / WINDOW * (WINDOW - now),
            _ => 0,
        }
    }
}

/// How busy a lane is: less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load {
    steps: u64,
    streams: usize,
}

impl Load {
    /// By bytes per second, then by open streams.
    pub(super) fn new(per_second: u64, streams: usize) -> Self {
        Self { steps: per_second / STEP, streams }
    }
}

/// Which lane takes the next stream: the least busy one. Of three and more the last is kept for when all others are busy, since
/// nobody knows of a new stream whether it will be bulk, and small ones must find a lane without.
pub(super) fn choose(loads: &[Load]) -> usize {
    let least = |count: usize| (0..count).min_by_key(|lane| loads[*lane]).unwrap_or_default();
    let among_others = least(loads.len().saturating_sub(1));
    if loads.len() > 2 && loads[among_others].steps == 0 { among_others } else { least(loads.len()) }
}

/// Whether a stream of that rate makes others wait.
pub(super) fn is_bulk(per_second: u64) -> bool {
    per_second >= BULK_RATE
}

/// How many lanes a session should have. A bulk stream and any other should not share one, so the second is asked for as soon
/// as there are both; more only for more bulk streams, each of which can fill a processor's core.
pub(super) fn lanes_wanted(bulk: usize, streams: usize, max: usize) -> usize {
    if bulk == 0 || streams < 2 { 1 } else { bulk.clamp(2, max.max(2)).min(max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_second_and_fades_when_nothing_moves() {
        let rate = Rate::default();
        assert_eq!(rate.per_second(0), 0);
        for now in (5000..6000).step_by(10) {
            rate.add(now, 10_000);
        }
        assert_eq!(rate.per_second(5999), 1_000_000);
        assert_eq!(rate.per_second(6500), 500_000, "half of it is still within the second");
        rate.add(6500, 70_000);
        assert_eq!(rate.per_second(6500), 570_000);
        assert_eq!(rate.per_second(7000), 70_000);
        assert_eq!(rate.per_second(8000), 0);
        rate.add(60_000, 5);
        assert_eq!(rate.per_second(60_000), 5, "what moved long ago counts for nothing");
    }

    #[test]
    fn the_idle_lane_comes_first_then_the_slower_then_the_emptier() {
        let mib = 1024 * 1024;
        let in_order = [Load::new(0, 0), Load::new(3, 1), Load::new(STEP - 1, 7), Load::new(mib, 0), Load::new(9 * mib, 0)];
        assert!(in_order.is_sorted());
        assert_eq!(Load::new(10, 3), Load::new(20, 3), "a few bytes are no difference");
    }

    #[test]
    fn the_last_of_several_lanes_is_kept_for_when_all_others_are_busy() {
        let (idle, used, busy) = (Load::new(0, 0), Load::new(0, 3), Load::new(STEP, 1));
        assert_eq!(choose(&[used]), 0);
        assert_eq!(choose(&[used, idle]), 1, "of two both are used");
        assert_eq!(choose(&[used, used, idle]), 0);
        assert_eq!(choose(&[busy, used, idle]), 1);
        assert_eq!(choose(&[busy, busy, used]), 2);
        assert_eq!(choose(&[busy, busy, Load::new(9 * STEP, 1)]), 0);
    }

    #[test]
    fn a_second_lane_is_wanted_for_bulk_beside_another_stream_and_more_for_more_bulk() {
        for (bulk, streams, max, wanted) in [
            (0, 0, 4, 1),
            (0, 500, 4, 1),
            (1, 1, 4, 1),
            (1, 2, 4, 2),
            (2, 2, 4, 2),
            (3, 3, 4, 3),
            (9, 9, 4, 4),
            (9, 9, 1, 1),
            (1, 2, 2, 2),
        ] {
            assert_eq!(lanes_wanted(bulk, streams, max), wanted, "{bulk} of {streams} streams, at most {max} lanes");
        }
        assert!(is_bulk(BULK_RATE) && !is_bulk(BULK_RATE - 1));
    }
}
