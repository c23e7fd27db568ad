//! What strangers, callers who are refused, and agents whose lanes break cause at will, as far as it is told: a few rows a minute for
//! each of them, within a budget for all of their class; the rest is counted by who caused it. Refuses to know rows, files, and the clock.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use crate::base::allow::network;
use crate::base::id::printable;
use crate::base::limits;

const MINUTE: Duration = Duration::from_secs(60);

/// Who was told of in this minute, and who was counted.
pub(super) struct Noise {
    strangers: Class,
    callers: Class,
    agents: Class,
    began: Instant,
    /// Counted in minutes that could not be told.
    untold: u64,
}

/// Who causes rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Somebody who has proved nothing: an IPv4 address, or the first of an IPv6 network of 64 bits.
    #[serde(serialize_with = "named")]
    Source(IpAddr),
    /// A caller, as rows name it.
    Caller(String),
    /// An agent.
    Agent(String),
}

/// Somebody who caused rows which were not written.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Noisy {
    /// Who it is.
    #[serde(flatten)]
    pub who: Who,
    /// How many rows.
    pub count: u64,
}

impl Noise {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            strangers: Class::new(limits::AUDIT_STRANGERS_PER_SOURCE, limits::AUDIT_STRANGERS_PER_MINUTE, now),
            callers: Class::new(limits::AUDIT_REFUSALS_PER_CALLER, limits::AUDIT_REFUSALS_PER_MINUTE, now),
            agents: Class::new(limits::AUDIT_BREAKS_PER_AGENT, limits::AUDIT_BREAKS_PER_MINUTE, now),
            began: now,
            untold: 0,
        }
    }

    /// Whether this one is told of by itself. Somebody for whom there is no room is not: there are a thousand before it.
    pub(super) fn admit(&mut self, who: &Who, now: Instant) -> bool {
        self.class(who).admit(who, now)
    }

    /// Counts one that is not written.
    pub(super) fn count(&mut self, who: &Who) {
        self.class(who).count(who);
    }

    /// Counts those of a minute that could not be told.
    pub(super) fn count_again(&mut self, count: u64) {
        self.untold += count;
    }

    /// Ends the minute if it is over, or at once: yields how many were counted, if any, and of each class who caused most of them.
    pub(super) fn take(&mut self, now: Instant, at_once: bool) -> Option<(u64, Vec<Noisy>)> {
        if !at_once && now.saturating_duration_since(self.began) < MINUTE {
            return None;
        }
        self.began = now;
        let (mut count, mut most) = (std::mem::take(&mut self.untold), Vec::new());
        for class in [&mut self.strangers, &mut self.callers, &mut self.agents] {
            let (counted, noisy) = class.take();
            count += counted;
            most.extend(noisy);
        }
        (count > 0).then_some((count, most))
    }

    /// For tests: the minute began then.
    #[cfg(test)]
    pub(super) fn backdate(&mut self, began: Instant) {
        self.began = began;
    }

    fn class(&mut self, who: &Who) -> &mut Class {
        match who {
            Who::Source(_) => &mut self.strangers,
            Who::Caller(_) => &mut self.callers,
            Who::Agent(_) => &mut self.agents,
        }
    }
}

impl Who {
    /// Whoever is at this address, or near it.
    pub(super) fn source(source: IpAddr) -> Self {
        Self::Source(network(source))
    }

    /// A caller by its name, of which an agent knows only what its gateway says.
    pub(super) fn caller(name: &str) -> Self {
        Self::Caller(printable(name, limits::AUDIT_TEXT).to_string())
    }
}

fn named<S: Serializer>(source: &IpAddr, serializer: S) -> Result<S::Ok, S::Error> {
    match source {
        IpAddr::V4(v4) => serializer.collect_str(v4),
        IpAddr::V6(v6) => serializer.collect_str(&format_args!("{v6}/64")),
    }
}

/// Those who share a budget, and the part of it that each has.
struct Class {
    each: u32,
    budget: Budget,
    seen: HashMap<Who, Seen>,
    /// Counted of those for whom there was no room.
    others: u64,
}

#[derive(Default)]
struct Seen {
    told: u32,
    counted: u64,
}

impl Class {
    fn new(each: u32, per_minute: u32, now: Instant) -> Self {
        Self { each, budget: Budget::new(per_minute, now), seen: HashMap::new(), others: 0 }
    }

    fn admit(&mut self, who: &Who, now: Instant) -> bool {
        let each = self.each;
        let has_rows = self.seen(who).is_some_and(|seen| seen.told < each);
        let told = has_rows && self.budget.take(now);
        if told && let Some(seen) = self.seen(who) {
            seen.told += 1;
        }
        told
    }

    fn count(&mut self, who: &Who) {
        match self.seen(who) {
            Some(seen) => seen.counted += 1,
            None => self.others += 1,
        }
    }

    /// Forgets everybody; yields how many were counted, and who caused most of them.
    fn take(&mut self) -> (u64, Vec<Noisy>) {
        let seen = std::mem::take(&mut self.seen);
        let mut noisy: Vec<_> = seen.into_iter().map(|(who, seen)| Noisy { who, count: seen.counted }).collect();
        noisy.retain(|noisy| noisy.count > 0);
        let count = std::mem::take(&mut self.others) + noisy.iter().map(|noisy| noisy.count).sum::<u64>();
        noisy.sort_by(|a, b| (Reverse(a.count), &a.who).cmp(&(Reverse(b.count), &b.who)));
        noisy.truncate(limits::AUDIT_NOISIEST);
        (count, noisy)
    }

    fn seen(&mut self, who: &Who) -> Option<&mut Seen> {
        if !self.seen.contains_key(who) {
            if self.seen.len() >= limits::AUDIT_SOURCES {
                return None;
            }
            self.seen.insert(who.clone(), Seen::default());
        }
        self.seen.get_mut(who)
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

    fn ip(text: &str) -> Who {
        Who::source(text.parse().unwrap())
    }

    /// How many of `tries` are told of; the rest is counted.
    fn told(noise: &mut Noise, who: &Who, tries: usize, now: Instant) -> usize {
        let told = (0..tries).filter(|_| noise.admit(who, now)).count();
        (told..tries).for_each(|_| noise.count(who));
        told
    }

    fn noisy(who: Who, count: u64) -> Noisy {
        Noisy { who, count }
    }

    #[test]
    fn d8_who_makes_noise_hides_nobody_else() {
        let now = Instant::now();
        let mut noise = Noise::new(now);
        assert_eq!(told(&mut noise, &ip("192.0.2.1"), 5000, now), 10);
        assert_eq!(told(&mut noise, &ip("2001:db8::1"), 7, now) + told(&mut noise, &ip("2001:db8::2"), 7, now), 10, "one /64");
        assert_eq!(told(&mut noise, &ip("192.0.2.2"), 1, now), 1);
        assert_eq!(noise.take(now + MINUTE - Duration::from_millis(1), false), None);
        let later = now + MINUTE;
        let most = vec![noisy(ip("192.0.2.1"), 4990), noisy(ip("2001:db8::"), 4)];
        assert_eq!(noise.take(later, false), Some((4994, most)));
        assert_eq!(told(&mut noise, &ip("192.0.2.1"), 5000, later), 10, "each minute anew");
        assert_eq!(noise.take(later, true).unwrap().0, 4990, "the end of the process does not wait");
        assert_eq!(noise.take(later + MINUTE, false), None, "nothing to tell");
    }

    #[test]
    fn d8_strangers_callers_and_agents_take_nothing_from_each_other() {
        let now = Instant::now();
        let mut noise = Noise::new(now);
        for n in 0..5000_u32 {
            told(&mut noise, &Who::source(IpAddr::V4((0x0a00_0000 + n).into())), 2, now);
        }
        assert_eq!(told(&mut noise, &Who::caller("token ci"), 5000, now), 60);
        assert_eq!(told(&mut noise, &Who::caller("token other"), 1, now), 1);
        let rows: usize = (0..5000).map(|n| told(&mut noise, &Who::caller(&format!("token {n}")), 2, now)).sum();
        assert_eq!(rows + 61, limits::AUDIT_REFUSALS_PER_MINUTE as usize);
        let agent = Who::Agent("acme/dc1/a".to_owned());
        assert_eq!(told(&mut noise, &agent, 5000, now), 30);
        let (_, most) = noise.take(now + MINUTE, false).unwrap();
        assert_eq!(most.len(), 17);
        assert_eq!(most[16], noisy(agent, 4970));
        assert_eq!(most[8], noisy(Who::caller("token ci"), 4940));
        assert_eq!(serde_json::to_string(&most[8]).unwrap(), r#"{"caller":"token ci","count":4940}"#);
    }

    #[test]
    fn d8_noise_of_many_sources_is_bounded_in_rows_and_in_memory() {
        let now = Instant::now();
        let mut noise = Noise::new(now);
        let sources = (0..5000_u32).map(|n| Who::source(IpAddr::V4((0x0a00_0000 + n).into())));
        let rows: usize = sources.map(|source| told(&mut noise, &source, 2, now)).sum();
        assert_eq!(rows, limits::AUDIT_STRANGERS_PER_MINUTE as usize);
        assert_eq!(noise.strangers.seen.len(), limits::AUDIT_SOURCES);
        let (count, most) = noise.take(now + MINUTE, false).unwrap();
        assert_eq!((count, most.len()), (10_000 - u64::from(limits::AUDIT_STRANGERS_PER_MINUTE), 8));
    }

    #[test]
    fn d8_a_callers_name_takes_little_however_long_it_is() {
        let long = Who::caller(&"x".repeat(16 * 1024));
        assert!(matches!(&long, Who::Caller(name) if name.len() < 1024), "{long:?}");
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
