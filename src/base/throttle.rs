//! How often one source may try something: a sliding window, exact and bounded. Refuses to know what is tried, and the clock.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::allow::network;

const WINDOW: Duration = Duration::from_secs(60);

/// Counts tries: in any minute at most so many of one source are admitted. A token bucket with that burst would admit nearly twice as
/// many in its first minute.
pub struct Throttle {
    sources: HashMap<IpAddr, Source>,
    per_minute: usize,
    capacity: usize,
    cleared: Option<Instant>,
}

#[derive(Default)]
struct Source {
    /// When the tries of the last minute were, oldest first.
    tries: VecDeque<Instant>,
    told: bool,
}

/// What becomes of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Admitted,
    /// Too many. `first` if it is the first refusal since the source was last admitted.
    Limited {
        /// Whether none was refused before it.
        first: bool,
    },
}

impl Throttle {
    /// So many tries a minute for each source, and so many sources that are remembered.
    #[must_use]
    pub fn new(per_minute: usize, capacity: usize) -> Self {
        Self { sources: HashMap::new(), per_minute, capacity, cleared: None }
    }

    /// Counts a try. When as many sources as can be remembered have tried within a minute, further ones are refused: forgetting
    /// some would let an attacker with many addresses start anew.
    pub fn admit(&mut self, source: IpAddr, now: Instant) -> Verdict {
        let source = network(source);
        if self.sources.len() >= self.capacity && !self.sources.contains_key(&source) && !self.make_room(now) {
            return Verdict::Limited { first: false };
        }
        let seen = self.sources.entry(source).or_default();
        seen.forget(now);
        if seen.tries.len() < self.per_minute {
            seen.tries.push_back(now);
            seen.told = false;
            return Verdict::Admitted;
        }
        Verdict::Limited { first: !std::mem::replace(&mut seen.told, true) }
    }

    /// Looks through all sources, at most once a second.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.cleared.is_none_or(|cleared| now.duration_since(cleared) >= Duration::from_secs(1)) {
            self.cleared = Some(now);
            self.sources.retain(|_, source| {
                source.forget(now);
                !source.tries.is_empty()
            });
        }
        self.sources.len() < self.capacity
    }
}

impl Source {
    fn forget(&mut self, now: Instant) {
        while self.tries.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.tries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const LIMITED_AGAIN: Verdict = Verdict::Limited { first: false };

    #[test]
    fn s6_no_minute_has_more_than_five_tries_of_one_source() {
        let (mut throttle, start) = (Throttle::new(5, 1000), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        let admitted: Vec<u64> = (0..600_000)
            .step_by(250)
            .filter(|millis| throttle.admit(ip("192.0.2.1"), at(*millis)) == Verdict::Admitted)
            .collect();
        for window in admitted.windows(6) {
            assert!(window[5] - window[0] >= 60_000, "{window:?}");
        }
        assert_eq!(admitted.len(), 50, "whoever keeps trying still gets five a minute");
    }

    #[test]
    fn s6_sources_are_told_apart_but_not_by_what_is_free_to_change() {
        let (mut throttle, now) = (Throttle::new(5, 1000), Instant::now());
        for n in 0..5 {
            assert_eq!(throttle.admit(ip(&format!("2001:db8::{n}")), now), Verdict::Admitted);
            assert_eq!(throttle.admit(ip("192.0.2.1"), now), Verdict::Admitted);
        }
        assert_eq!(throttle.admit(ip("2001:db8::ffff:1"), now), Verdict::Limited { first: true });
        assert_eq!(throttle.admit(ip("2001:db8::ffff:2"), now), LIMITED_AGAIN);
        assert_eq!(throttle.admit(ip("::ffff:192.0.2.1"), now), Verdict::Limited { first: true });
        assert_eq!(throttle.admit(ip("2001:db8:0:1::1"), now), Verdict::Admitted);
        assert_eq!(throttle.admit(ip("192.0.2.2"), now), Verdict::Admitted);
    }

    #[test]
    fn s6_an_attacker_with_many_addresses_neither_fills_the_memory_nor_starts_anew() {
        let (mut throttle, now) = (Throttle::new(5, 100), Instant::now());
        for n in 0..100 {
            assert_eq!(throttle.admit(ip(&format!("10.0.0.{n}")), now), Verdict::Admitted);
        }
        assert_eq!(throttle.admit(ip("10.0.1.1"), now), LIMITED_AGAIN);
        assert_eq!(throttle.admit(ip("10.0.0.1"), now), Verdict::Admitted, "known sources go on");
        assert_eq!(throttle.sources.len(), 100);
        assert_eq!(throttle.admit(ip("10.0.1.1"), now + WINDOW), Verdict::Admitted);
        assert_eq!(throttle.sources.len(), 1, "those who stopped are forgotten");
    }
}
