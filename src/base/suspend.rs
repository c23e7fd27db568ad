//! Whether this process has slept: its host was suspended, or the process stopped. The one file that depends on how an operating system
//! counts time. Refuses to know what follows from it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use super::limits::{SLEEP_NOTICED, SLEEP_TICK};

/// Tells of every waking; clones tell the same.
#[derive(Clone, Debug)]
pub struct Wakes(watch::Sender<Duration>);

impl Wakes {
    /// Nothing has slept yet.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(Duration::ZERO))
    }

    /// Sees each waking from now on, with how long the sleep was.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Duration> {
        self.0.subscribe()
    }

    /// Looks at the clock every second, and tells of what it missed. Runs until it is dropped.
    pub async fn watch(&self) {
        let mut before = now();
        loop {
            tokio::time::sleep(SLEEP_TICK).await;
            let after = now();
            if let Some(slept) = slept(before, after) {
                tracing::warn!(seconds = slept.as_secs(), "this process has slept");
                self.tell(slept);
            }
            before = after;
        }
    }

    /// Tells of a sleep of that length.
    pub fn tell(&self, slept: Duration) {
        self.0.send_replace(slept);
    }
}

impl Default for Wakes {
    fn default() -> Self {
        Self::new()
    }
}

/// How long was slept between two looks that were to be a tick apart; a little late is everybody now and then.
fn slept(before: Duration, after: Duration) -> Option<Duration> {
    let missed = after.saturating_sub(before).saturating_sub(SLEEP_TICK);
    (missed >= SLEEP_NOTICED).then_some(missed)
}

/// Time that goes on while the host is suspended, unlike that of timers, and that nobody sets. So one difference tells of both kinds of
/// sleep.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_what_is_missed_between_two_looks_was_slept_and_a_late_tick_is_none() {
        let since = |seconds: f64| Duration::from_secs(100) + Duration::from_secs_f64(seconds);
        assert_eq!(slept(since(0.0), since(1.0)), None);
        assert_eq!(slept(since(0.0), since(2.9)), None, "starved for a moment");
        assert_eq!(slept(since(0.0), since(4.5)), Some(Duration::from_secs_f64(3.5)));
        assert_eq!(slept(since(0.0), since(3601.0)), Some(Duration::from_secs(3600)));
        assert_eq!(slept(since(5.0), since(0.0)), None, "never backwards");
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = now();
        assert!(now() >= before && before > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_subscribed_is_told_of_a_sleep_and_of_nothing_else() {
        let wakes = Wakes::new();
        let mut woken = wakes.subscribe();
        let looking = tokio::time::timeout(Duration::from_secs(60), wakes.watch());
        assert!(looking.await.is_err() && !woken.has_changed().unwrap(), "nothing has slept");
        wakes.tell(Duration::from_secs(7));
        woken.changed().await.unwrap();
        assert_eq!(*woken.borrow(), Duration::from_secs(7));
    }
}
