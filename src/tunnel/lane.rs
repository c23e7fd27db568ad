//! Whether a lane is alive: when its last frame came, and how long a heartbeat took to come back. A lane is one WebSocket
//! connection; `Heart` beats in the task that runs it, [`Pulse`] is what the session and the status see of it.
//! Refuses to send or to read anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::base::limits::{DEAD_AFTER, HEARTBEAT};
use crate::wire::heartbeat::Heartbeat;

/// Round trips of which the shortest is taken for the path's: 16 s of them.
const ROUND_TRIPS: usize = 8;

/// Keeps the time of a lane's heartbeats.
pub(super) struct Heart {
    pulse: Pulse,
    beat: Interval,
    /// Whether a heartbeat is to be sent.
    due: bool,
    /// The last one sent: its sequence, and when.
    sent: (u64, Instant),
    /// Bytes received, for the heartbeats.
    received: u64,
    round_trips: VecDeque<Duration>,
}

impl Heart {
    /// The heart of a lane on which `beats` heartbeats have been sent, the last one now.
    pub(super) fn new(beats: u64) -> Self {
        let mut beat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            pulse: Pulse::new(),
            beat,
            // The first round trip is wanted soon: windows grow by it.
            due: beats == 0,
            sent: (beats, Instant::now()),
            received: 0,
            round_trips: VecDeque::new(),
        }
    }

    /// The signs of life.
    pub(super) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Whether the next heartbeat has just become due.
    pub(super) fn poll_beat(&mut self, cx: &mut Context<'_>) -> bool {
        let mut beats = false;
        while self.beat.poll_tick(cx).is_ready() {
            (beats, self.due) = (true, true);
        }
        beats
    }

    /// The heartbeat to send now, if any.
    pub(super) fn take_due(&mut self) -> Option<[u8; 17]> {
        if !std::mem::take(&mut self.due) {
            return None;
        }
        self.sent = (self.sent.0 + 1, Instant::now());
        let heartbeat = Heartbeat { kind: Heartbeat::PING, sequence: self.sent.0, received: self.received };
        Some(heartbeat.to_bytes())
    }

    /// Something came.
    pub(super) fn heard(&self) {
        self.pulse.frame();
    }

    /// So many bytes of it were the streams'.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// A Pong came. If it is the last heartbeat's echo, yields the path's round trip: the shortest of the last ones, since the others
    /// have waited in queues.
    pub(super) fn echoed(&mut self, pong: &[u8]) -> Option<Duration> {
        let echo = Heartbeat::from_bytes(pong)?;
        if echo.kind != Heartbeat::PING || echo.sequence != self.sent.0 {
            return None;
        }
        let took = self.sent.1.elapsed();
        self.pulse.echoed(took);
        if self.round_trips.len() == ROUND_TRIPS {
            self.round_trips.pop_front();
        }
        self.round_trips.push_back(took);
        self.round_trips.iter().min().copied()
    }
}

/// The signs of life of one lane, shared between the driver, which sees the frames, and whoever asks. No lock on any path.
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
