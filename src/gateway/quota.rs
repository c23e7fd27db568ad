//! What one tenant or one caller may use: streams at a time and bytes per second, both ways together. It refuses to know which streams
//! they are.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::base::code::Code;
use crate::base::limits::{RATE_BURST, RATE_PARTS};
use crate::tunnel::splice::Delay;
use crate::wire::refusal::Refusal;

/// Limits as configured; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Streams at a time, on this gateway.
    pub max_streams: Option<usize>,
    /// Bytes per second, both ways together, on this gateway.
    pub rate: Option<NonZeroU32>,
}

/// What a holder uses of its limits.
pub struct Quota {
    /// In words, for refusals: `the tenant`.
    whose: &'static str,
    limits: ArcSwap<Limits>,
    streams: AtomicUsize,
    /// When the burst will be whole again. Its queue is the turn of those that wait: first come, first served.
    whole: Mutex<Instant>,
}

/// One of the holder's streams; gives its place back when dropped.
pub struct Slot(Arc<Quota>);

impl Quota {
    /// Without limits, for a holder as refusals name it: `the tenant`.
    #[must_use]
    pub fn new(whose: &'static str) -> Arc<Self> {
        Arc::new(Self { whose, limits: ArcSwap::default(), streams: AtomicUsize::new(0), whole: Mutex::new(Instant::now()) })
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        **self.limits.load()
    }

    /// Puts other limits into force; open streams stay, at the new rate.
    pub fn limit(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Takes a place for one stream.
    ///
    /// # Errors
    /// `quota_exceeded`, naming the limit.
    pub fn admit(self: &Arc<Self>) -> Result<Slot, Refusal> {
        let max = self.limits.load().max_streams;
        let one_more = |streams| max.is_none_or(|max| streams < max).then_some(streams + 1);
        match self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Slot(self.clone())),
            Err(streams) => {
                let detail = format_args!("{} has its {} streams on this gateway", self.whose, max.unwrap_or(streams));
                Err(Refusal::new(Code::QuotaExceeded, detail))
            }
        }
    }

    /// Ends when so many bytes may pass, at the rate that is then in force. Who stops waiting has used nothing.
    async fn pass(&self, bytes: usize) {
        let mut whole = self.whole.lock().await;
        let Some(rate) = self.limits().rate else { return };
        let cost = Duration::from_nanos((bytes as u64 * 1_000_000_000).div_ceil(u64::from(rate.get())));
        // A part that was measured by a higher rate than this one would hold up the queue.
        let cost = cost.min(RATE_BURST);
        let next = (*whole).max(Instant::now()) + cost;
        let wait = next.saturating_duration_since(Instant::now() + RATE_BURST);
        if !wait.is_zero() {
            sleep(wait).await;
        }
        *whole = next;
    }
}

impl Slot {
    /// The rate in force, in bytes per second.
    #[must_use]
    pub fn rate(&self) -> Option<NonZeroU32> {
        self.0.limits().rate
    }
}

/// Ends when some of these bytes may pass at the rates of both, with how many: so few that others have their turn soon. `None`
/// without a rate.
pub fn pace<'a>(caller: &'a Slot, tenant: &'a Slot, bytes: usize) -> Option<Delay<'a>> {
    let rate = [caller.rate(), tenant.rate()].into_iter().flatten().min()?;
    let part = (rate.get() as usize / RATE_PARTS).clamp(1, bytes.max(1));
    Some(Box::pin(async move {
        // The caller first, so that what waits for him takes nothing of the tenant's other callers.
        caller.0.pass(part).await;
        tenant.0.pass(part).await;
        part
    }))
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_gets_its_streams_and_no_more_and_has_them_back_when_they_end() {
        let tenant = Quota::new("the tenant");
        tenant.limit(Limits { max_streams: Some(2), rate: None });
        let held = [tenant.admit().map_err(|r| r.code), tenant.admit().map_err(|r| r.code)];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(tenant.admit().err().map(|refusal| refusal.code), Some(Code::QuotaExceeded));
        drop(held);
        assert!(tenant.admit().is_ok());
        tenant.limit(Limits::default());
        assert!((0..100).map(|_| tenant.admit()).collect::<Result<Vec<_>, _>>().is_ok());
    }
    /// Two slots, of a caller without limits and of a tenant with this rate.
    fn slots(tenant: &Arc<Quota>) -> (Slot, Slot) {
        (Quota::new("the caller").admit().unwrap_or_else(|_| unreachable!()), tenant.admit().unwrap_or_else(|_| unreachable!()))
    }

    fn rate(bytes: u32) -> Limits {
        Limits { max_streams: None, rate: NonZeroU32::new(bytes) }
    }

    /// Moves chunks of that size for as long as it is polled.
    async fn moves(tenant: &Arc<Quota>, chunk: usize, moved: &AtomicUsize) {
        let (caller, tenant) = slots(tenant);
        let mut left = chunk;
        loop {
            let part = pace(&caller, &tenant, left).unwrap().await;
            moved.fetch_add(part, Ordering::Relaxed);
            left = if left == part { chunk } else { left - part };
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_whatever_the_chunks_and_large_ones_get_on_beside_small_ones() {
        let tenant = Quota::new("the tenant");
        tenant.limit(rate(1024));
        let moved: [AtomicUsize; 4] = Default::default();
        let [a, b, c, d] = &moved;
        let all = async {
            tokio::join!(
                moves(&tenant, 64 * 1024, a),
                moves(&tenant, 256, b),
                moves(&tenant, 300, c),
                moves(&tenant, 64 * 1024, d)
            )
        };
        assert!(tokio::time::timeout(Duration::from_secs(100), all).await.is_err());
        let moved = moved.map(AtomicUsize::into_inner);
        let sum = moved.iter().sum::<usize>();
        assert!((100 * 1024..=101 * 1024).contains(&sum), "{moved:?}");
        assert!(moved.iter().all(|moved| (sum / 8..sum / 2).contains(moved)), "{moved:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_has_used_nothing_of_the_rate() {
        let tenant = Quota::new("the tenant");
        tenant.limit(rate(1000));
        let (caller, slot) = slots(&tenant);
        for _ in 0..1000 {
            let mut waits = pace(&caller, &slot, 1000).unwrap();
            std::future::poll_fn(|cx| std::task::Poll::Ready(waits.as_mut().poll(cx).is_pending())).await;
        }
        let before = Instant::now();
        assert_eq!(pace(&caller, &slot, 1000).unwrap().await, 250);
        assert_eq!(before.elapsed().as_millis(), 250);
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_is_in_force_for_those_who_wait_already() {
        let tenant = Quota::new("the tenant");
        tenant.limit(rate(1));
        let slots: Vec<_> = (0..60).map(|_| slots(&tenant)).collect();
        let before = Instant::now();
        let all = futures_util::future::join_all(slots.iter().map(|(caller, tenant)| pace(caller, tenant, 9).unwrap()));
        tokio::join!(all, async {
            sleep(Duration::from_secs(3)).await;
            tenant.limit(rate(1000));
        });
        assert_eq!(before.elapsed().as_secs(), 4);
        tenant.limit(Limits::default());
        assert!(pace(&slots[0].0, &slots[0].1, 9).is_none());
    }
}
