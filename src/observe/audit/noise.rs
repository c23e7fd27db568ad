//! What strangers cause at will, as far as it is told: a few rows a minute for each source, within a budget for all; the rest is
//! counted by source. Refuses to know rows, files, and the clock.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::base::allow::network;
use crate::base::limits;

const MINUTE: Duration = Duration::from_secs(60);

/// Who was told of in this minute, and who was counted.
pub(super) struct Noise {
    budget: Budget,
    began: Instant,
    sources: HashMap<IpAddr, Source>,
    /// Counted of sources for which there was no room, or of minutes that could not be told.
    others: u64,
}

#[derive(Default)]
struct Source {
    told: u32,
    counted: u64,
}

/// A source that caused rows which were not written.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Noisy {
    /// An IPv4 address, or an IPv6 network of 64 bits.
    pub source: String,
    /// How many rows.
    pub count: u64,
}

impl Noise {
    pub(super) fn new(now: Instant) -> Self {
        Self { budget: Budget::new(limits::AUDIT_STRANGERS_PER_MINUTE, now), began: now, sources: HashMap::new(), others: 0 }
    }

    /// Whether this one is told of by itself. A source for which there is no room is not: there are a thousand before it.
    pub(super) fn admit(&mut self, source: Option<IpAddr>, now: Instant) -> bool {
        let has_rows = self.source(source).is_some_and(|source| source.told < limits::AUDIT_STRANGERS_PER_SOURCE);
        let told = has_rows && self.budget.take(now);
        if told && let Some(source) = self.source(source) {
            source.told += 1;
        }
        told
    }

    /// Counts one that is not written.
    pub(super) fn count(&mut self, source: Option<IpAddr>) {
        match self.source(source) {
            Some(source) => source.counted += 1,
            None => self.others += 1,
        }
    }

    /// Counts those of a minute that could not be told.
    pub(super) fn count_again(&mut self, count: u64) {
        self.others += count;
    }

    /// Ends the minute if it is over, or at once: yields how many were counted, if any, and the sources of most of them.
    pub(super) fn take(&mut self, now: Instant, at_once: bool) -> Option<(u64, Vec<Noisy>)> {
        if !at_once && now.saturating_duration_since(self.began) < MINUTE {
            return None;
        }
        self.began = now;
        let sources = std::mem::take(&mut self.sources);
        let others = std::mem::take(&mut self.others);
        let mut counted: Vec<_> = sources.into_iter().filter(|(_, source)| source.counted > 0).collect();
        let count = others + counted.iter().map(|(_, source)| source.counted).sum::<u64>();
        counted.sort_by_key(|(source, seen)| (Reverse(seen.counted), *source));
        counted.truncate(limits::AUDIT_NOISIEST);
        let most = counted.into_iter().map(|(source, seen)| Noisy { source: named(source), count: seen.counted });
        (count > 0).then(|| (count, most.collect()))
    }

    /// For tests: the minute began then.
    #[cfg(test)]
    pub(super) fn backdate(&mut self, began: Instant) {
        self.began = began;
    }

    fn source(&mut self, source: Option<IpAddr>) -> Option<&mut Source> {
        let source = network(source?);
        if self.sources.len() >= limits::AUDIT_SOURCES && !self.sources.contains_key(&source) {
            return None;
        }
        Some(self.sources.entry(source).or_default())
    }
}

fn named(source: IpAddr) -> String {
    match source {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("{v6}/64"),
    }
}

/// A bucket that fills evenly: so many a minute, and as many at once.
struct Budget {
    per_minute: f64,
    left: f64,
    filled: Instant,
}

impl Budget {
    fn new(per_minute: u32, now: Instant) -> Self {
        let per_minute = f64::from(per_minute);
        Self { per_minute, left: per_minute, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + passed / 60.0 * self.per_minute).min(self.per_minute);
        self.filled = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// How many of `tries` are told of; the rest is counted.
    fn told(noise: &mut Noise, source: &str, tries: usize, now: Instant) -> usize {
        let told = (0..tries).filter(|_| noise.admit(ip(source), now)).count();
        (told..tries).for_each(|_| noise.count(ip(source)));
        told
    }

    fn noisy(source: &str, count: u64) -> Noisy {
        Noisy { source: source.to_owned(), count }
    }

    #[test]
    fn d8_who_makes_noise_hides_nobody_else() {
        let now = Instant::now();
        let mut noise = Noise::new(now);
        assert_eq!(told(&mut noise, "192.0.2.1", 5000, now), 10);
        assert_eq!(told(&mut noise, "2001:db8::1", 7, now) + told(&mut noise, "2001:db8::2", 7, now), 10, "one /64");
        assert_eq!(told(&mut noise, "192.0.2.2", 1, now), 1);
        assert_eq!(noise.take(now + MINUTE - Duration::from_millis(1), false), None);
        let later = now + MINUTE;
        let most = vec![noisy("192.0.2.1", 4990), noisy("2001:db8::/64", 4)];
        assert_eq!(noise.take(later, false), Some((4994, most)));
        assert_eq!(told(&mut noise, "192.0.2.1", 5000, later), 10, "each minute anew");
        assert_eq!(noise.take(later, true).unwrap().0, 4990, "the end of the process does not wait");
        assert_eq!(noise.take(later + MINUTE, false), None, "nothing to tell");
    }

    #[test]
    fn d8_noise_of_many_sources_is_bounded_in_rows_and_in_memory() {
        let now = Instant::now();
        let mut noise = Noise::new(now);
        let sources: Vec<_> = (0..5000_u32).map(|n| IpAddr::V4((0x0a00_0000 + n).into()).to_string()).collect();
        let rows: usize = sources.iter().map(|source| told(&mut noise, source, 2, now)).sum();
        assert_eq!(rows, limits::AUDIT_STRANGERS_PER_MINUTE as usize);
        assert_eq!(noise.sources.len(), limits::AUDIT_SOURCES);
        let (count, most) = noise.take(now + MINUTE, false).unwrap();
        assert_eq!((count, most.len()), (10_000 - u64::from(limits::AUDIT_STRANGERS_PER_MINUTE), 8));
    }

    #[test]
    fn d8_the_budget_of_all_fills_evenly() {
        let now = Instant::now();
        let mut budget = Budget::new(60, now);
        assert_eq!((0..100).filter(|_| budget.take(now)).count(), 60);
        assert!(!budget.take(now + Duration::from_millis(900)));
        assert!(budget.take(now + Duration::from_millis(1100)));
        assert_eq!((0..100).filter(|_| budget.take(now + Duration::from_hours(1))).count(), 60);
    }
}
