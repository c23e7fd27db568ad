//! A client's connection to the HTTP entry point: HTTP/1.1 or HTTP/2 until the client has nothing more to ask, or for too long, or the
//! gateway drains. Refuses to know what is asked.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use super::body::Download;
use super::first::Rewound;
use super::stream::Owned;
use crate::base::drain::Drain;
use crate::base::limits::{
    ANSWER_DEADLINE, HANDSHAKE_DEADLINE, HTTP_BUFFER, HTTP_HEAD, HTTP_HEADERS, HTTP2_KEEPALIVE, HTTP2_REQUESTS, HTTP2_RESETS,
    HTTP2_WINDOW,
};
use crate::base::tasks::Tasks;

/// What there is to serve a connection by.
pub(super) struct Serving<'a> {
    /// What of it was read already.
    pub(super) first: Bytes,
    /// Whether that is HTTP/2's.
    pub(super) http2: bool,
    /// Closes it when no request was under way for this long.
    pub(super) idle: Duration,
    pub(super) activity: &'a Activity,
    pub(super) drain: &'a Drain,
    pub(super) tasks: &'a Tasks,
}

/// Serves a connection to its end.
pub(super) async fn serve<Io, F, A>(io: Io, serving: Serving<'_>, answer: F)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Response<Download>> + Send + 'static,
{
    let io = TokioIo::new(Rewound::new(serving.first.clone(), io));
    let service = service_fn(move |request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    if serving.http2 {
        let connection = http2_builder(serving.tasks).serve_connection(io, service);
        attend(connection, http2::Connection::graceful_shutdown, &serving).await;
    } else {
        let connection = http1_builder().serve_connection(io, service).with_upgrades();
        attend(connection, http1::UpgradeableConnection::graceful_shutdown, &serving).await;
    }
}

/// Until it ends, or should: then requests under way have their answers, and who is silent afterwards is not waited for.
async fn attend<C: Future>(connection: C, shut: fn(Pin<&mut C>), serving: &Serving<'_>) {
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        _ = &mut connection => return,
        () = serving.drain.begins() => {}
        () = serving.activity.idles(HANDSHAKE_DEADLINE, serving.idle) => {}
    }
    shut(connection.as_mut());
    tokio::select! {
        biased;
        _ = &mut connection => {}
        () = serving.activity.idles(ANSWER_DEADLINE, ANSWER_DEADLINE) => {}
    }
}

/// Without a timer of its own: one for each head costs more than the one of the connection that watches over all of it.
fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(HTTP_BUFFER).max_header_size(HTTP_HEAD).max_headers(HTTP_HEADERS);
    builder
}

fn http2_builder(tasks: &Tasks) -> http2::Builder<Owned> {
    let mut builder = http2::Builder::new(Owned(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(2 * HTTP2_WINDOW)
        .max_concurrent_streams(HTTP2_REQUESTS)
        .max_pending_accept_reset_streams(HTTP2_RESETS)
        .max_local_error_reset_streams(HTTP2_RESETS)
        .max_header_list_size(u32::try_from(HTTP_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(HTTP2_KEEPALIVE)
        .keep_alive_timeout(HTTP2_KEEPALIVE);
    builder
}

/// Whether requests of a connection are under way, and since when not.
pub(super) struct Activity {
    start: Instant,
    begun: AtomicBool,
    requests: AtomicUsize,
    /// When the last one ended, in milliseconds since the start.
    ended: AtomicU64,
}

/// A request under way.
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    /// None yet.
    pub(super) fn new() -> Arc<Self> {
        let (begun, requests, ended) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { start: Instant::now(), begun, requests, ended })
    }

    /// One more, until what is yielded is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.begun.store(true, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Ends when the `first` request was waited for so long, or none was under way for the limit.
    async fn idles(&self, first: Duration, limit: Duration) {
        loop {
            let limit = if self.begun.load(Ordering::Relaxed) { limit } else { first };
            let idle = match self.requests.load(Ordering::Relaxed) {
                0 => self.start.elapsed().saturating_sub(Duration::from_millis(self.ended.load(Ordering::Relaxed))),
                _ => Duration::ZERO,
            };
            let Some(left) = limit.checked_sub(idle).filter(|left| !left.is_zero()) else { return };
            // A millisecond more, since times are kept in whole ones.
            sleep(left + Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended.store(now, Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
