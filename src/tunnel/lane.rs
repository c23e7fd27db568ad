//! Whether a lane is alive: when its last frame came, and how long a heartbeat took to come back. A lane is one WebSocket
//! connection today; [`Pulse`] is what the session and the status see of it. Refuses to send or to read anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::limits::DEAD_AFTER;

/// The signs of life of one lane, shared between the pipe that sees the frames and whoever asks. No lock on any path.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Signs>);

#[derive(Debug)]
struct Signs {
    /// All times are milliseconds since then: monotonic, so the wall clock may jump.
    start: Instant,
    last_frame: AtomicU64,
    /// Microseconds; 0 before the first echo.
    round_trip: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

impl Pulse {
    /// A lane that is alive as of now.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Signs { start: Instant::now(), last_frame: AtomicU64::new(0), round_trip: AtomicU64::new(0) }))
    }

    /// A frame came.
    pub(super) fn frame(&self) {
        let elapsed = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_frame.store(elapsed, Ordering::Relaxed);
    }

    /// A heartbeat came back.
    pub(super) fn echoed(&self, after: Duration) {
        self.0.round_trip.store(u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// How long ago the last frame came.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0.start.elapsed().saturating_sub(Duration::from_millis(self.0.last_frame.load(Ordering::Relaxed)))
    }

    /// The last heartbeat's round trip.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        Some(self.0.round_trip.load(Ordering::Relaxed)).filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// What "connected" means everywhere.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.age() < DEAD_AFTER
    }

    /// Ends when nothing has come for [`DEAD_AFTER`].
    pub async fn dies(&self) {
        while let Some(left) = DEAD_AFTER.checked_sub(self.age()).filter(|left| !left.is_zero()) {
            // A millisecond more, since ages are kept in whole milliseconds.
            tokio::time::sleep(left + Duration::from_millis(1)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lane_dies_of_five_seconds_of_silence_and_of_nothing_less() {
        let pulse = Pulse::new();
        for _ in 0..10 {
            tokio::time::advance(Duration::from_millis(4900)).await;
            assert!(pulse.alive());
            pulse.frame();
        }
        let before = Instant::now();
        pulse.dies().await;
        assert!(!pulse.alive());
        assert!(before.elapsed() >= DEAD_AFTER && before.elapsed() < DEAD_AFTER + Duration::from_secs(1));
    }
}
