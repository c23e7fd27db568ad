//! How long to wait before trying again: full jitter, so that a thousand agents don't return in the same second.
//! Refuses to know what is tried, and the clock.

use std::time::Duration;

use super::random;

/// Exponential back-off with full jitter: the wait is drawn evenly from nothing to `min(max, base * 2^attempt)`.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// Starts with waits of up to `base`, doubling up to `max`.
    #[must_use]
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, attempt: 0 }
    }

    /// The next wait; `random` is any 32 random bits.
    pub fn next(&mut self, random: u32) -> Duration {
        let ceiling = self.base.saturating_mul(1u32 << self.attempt.min(16)).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// The next wait, drawn at random.
    pub fn draw(&mut self) -> Duration {
        let mut bytes = [0; 4];
        // A failing random source is no reason to stay away.
        let _ = random::fill(&mut bytes);
        self.next(u32::from_be_bytes(bytes))
    }

    /// Starts anew, after a success that lasted.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_ceiling_and_stay_inside_it() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let ceilings: Vec<_> = (0..40).map(|_| backoff.next(u32::MAX)).collect();
        assert_eq!(ceilings[0], Duration::from_millis(500));
        assert_eq!(ceilings[1], Duration::from_secs(1));
        assert!(ceilings.iter().all(|wait| *wait <= Duration::from_secs(30)));
        assert_eq!(ceilings[39], Duration::from_secs(30));
        assert_eq!(backoff.next(0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX), Duration::from_millis(500));
    }
}
