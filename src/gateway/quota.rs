//! What one tenant or one caller may use: streams at a time and bytes per second, both ways together. It refuses to know which streams
//! they are.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, RateLimiter};

use crate::base::code::Code;
use crate::base::limits::READ_BUFFER;
use crate::tunnel::ledger::Pace;
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
    limits: ArcSwap<Limiter>,
    streams: AtomicUsize,
}

#[derive(Default)]
struct Limiter {
    limits: Limits,
    rate: Option<DefaultDirectRateLimiter>,
}

/// One of the holder's streams; gives its place back when dropped.
pub struct Slot(Arc<Quota>);

impl Quota {
    /// Without limits, for a holder as refusals name it: `the tenant`.
    #[must_use]
    pub fn new(whose: &'static str) -> Arc<Self> {
        Arc::new(Self { whose, limits: ArcSwap::default(), streams: AtomicUsize::new(0) })
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits.load().limits
    }

    /// Puts other limits into force; open streams stay, at the new rate.
    pub fn limit(&self, limits: Limits) {
        if self.limits.load().limits != limits {
            let rate = limits.rate.map(|rate| {
                // A burst must take what one splice moves at once, or nothing would ever pass.
                let chunk = NonZeroU32::new(u32::try_from(2 * READ_BUFFER).unwrap_or(u32::MAX)).unwrap_or(rate);
                RateLimiter::direct(governor::Quota::per_second(rate).allow_burst(rate.max(chunk)))
            });
            self.limits.store(Arc::new(Limiter { limits, rate }));
        }
    }

    /// Takes a place for one stream.
    ///
    /// # Errors
    /// `quota_exceeded`, naming the limit.
    pub fn admit(self: &Arc<Self>) -> Result<Slot, Refusal> {
        let slot = Slot(self.clone());
        let before = self.streams.fetch_add(1, Ordering::Relaxed);
        match self.limits.load().limits.max_streams {
            Some(max) if before >= max => {
                Err(Refusal::new(Code::QuotaExceeded, format_args!("{} has its {max} streams on this gateway", self.whose)))
            }
            _ => Ok(slot),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pace for Slot {
    fn pace(&self, bytes: usize) -> Option<Delay<'_>> {
        self.0.limits.load().rate.as_ref()?;
        let limiter = self.0.limits.load_full();
        let bytes = u32::try_from(bytes).ok().and_then(NonZeroU32::new)?;
        Some(Box::pin(async move {
            if let Some(rate) = &limiter.rate {
                // A chunk is never larger than the burst.
                let _ = rate.until_n_ready(bytes).await;
            }
        }))
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
}
