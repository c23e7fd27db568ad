//! What a simulation decides by lot: numbers that follow from a seed. Refuses to know what is decided.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::random::mix;

/// A sequence of numbers; one for each place that draws, so that what one draws changes nothing for the others.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence, for another place.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    fn draw(&mut self) -> u64 {
        mix(&mut self.0)
    }

    pub(super) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        low + self.draw() % (high - low + 1)
    }

    /// The same, with small numbers as likely as large ones.
    pub(super) fn any_size(&mut self, most: u64) -> u64 {
        let bits = self.within(0..=u64::from(64 - most.leading_zeros()));
        self.within(0..=most.min((1 << bits) - 1))
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.within(0..=len as u64 - 1)).expect("less than a length")
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.within(1..=100) <= percent
    }

    pub(super) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.index(among.len())]
    }

    pub(super) fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }
}
