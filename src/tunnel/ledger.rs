//! The account of one open stream: bytes counted as they pass, and one closing row in the audit, whatever ends the stream.
//! It refuses to know why streams end, and at which end of the tunnel it is kept.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::splice::{Direction, Toll};
use crate::base::code::Code;
use crate::base::id::RequestId;
use crate::observe::audit::{Audit, Event};
use crate::observe::metrics;

/// Slows bytes down to a rate; `()` doesn't.
pub trait Pace: Send + Sync {
    /// Ends when so many bytes may go on.
    fn pace(&self, bytes: usize) -> impl Future<Output = ()> + Send;
}

impl Pace for () {
    async fn pace(&self, _: usize) {}
}

/// Kept from the reply on; dropping it closes the account.
pub struct Ledger<P> {
    audit: Audit,
    request: RequestId,
    target: String,
    since: Instant,
    up: AtomicU64,
    down: AtomicU64,
    up_total: ::metrics::Counter,
    down_total: ::metrics::Counter,
    /// What the row says if nobody says better: the task was dropped, so the process is ending.
    code: Option<Code>,
    pace: P,
    _open: metrics::Held,
}

impl<P: Pace> Ledger<P> {
    /// Opens the account of a stream that was just accepted.
    pub fn open(audit: &Audit, request: RequestId, target: String, pace: P) -> Self {
        Self {
            audit: audit.clone(),
            request,
            target,
            since: Instant::now(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            up_total: metrics::bytes_counter(metrics::Direction::Up),
            down_total: metrics::bytes_counter(metrics::Direction::Down),
            code: Some(Code::DrainDeadline),
            pace,
            _open: metrics::stream(),
        }
    }

    /// Closes it: without a code when both directions reached their end of file.
    pub fn close(mut self, code: Option<Code>) {
        self.code = code;
    }
}

impl<P: Pace> Toll for Ledger<P> {
    async fn pace(&self, bytes: usize) {
        self.pace.pace(bytes).await;
    }

    fn count(&self, direction: Direction, bytes: usize) {
        let (sum, total) = match direction {
            Direction::Up => (&self.up, &self.up_total),
            Direction::Down => (&self.down, &self.down_total),
        };
        sum.fetch_add(bytes as u64, Ordering::Relaxed);
        total.increment(bytes as u64);
    }
}

impl<P> Drop for Ledger<P> {
    fn drop(&mut self) {
        let (up, down) = (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed));
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (request, target, code) = (self.request, self.target.as_str(), self.code);
        tracing::debug!(%request, target, up, down, millis, code = code.map_or("ok", Code::as_str), "stream closed");
        // A row that can't be kept refuses the next open, not this end.
        let _ = self.audit.record(&Event::Closed { request, target, up, down, millis, code });
    }
}
