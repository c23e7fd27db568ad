//! The streams that requests go by. Each is of one caller and one target; over HTTP/1.1 it has one request at a time and is kept for the
//! next, over HTTP/2 it has many. Refuses to know what requests say.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};

use super::body::Upload;
use super::stream::{self, Opened};
use crate::base::id::{RequestId, TargetId};
use crate::base::limits::{ANSWER_LINGER, HTTP_IDLE_STREAMS, HTTP_IDLE_STREAMS_ALL, HTTP_STREAM_IDLE, HTTP2_REQUESTS};
use crate::gateway::Gateway;
use crate::gateway::callers::Caller;
use crate::gateway::ingress::Wanted;
use crate::gateway::registry::Live;
use crate::gateway::relay::Held;
use crate::observe::metrics;
use crate::tunnel::ledger::Ledger;
use crate::wire::open::Spoken;
use crate::wire::refusal::Refusal;

/// What a stream is for: requests of nobody else go by it, and to nothing else.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) caller: Arc<Caller>,
    /// When the certificate ends that the caller is known by, and the stream with it.
    pub(super) until: Option<OffsetDateTime>,
    pub(super) target: TargetId,
    pub(super) spoken: Spoken,
    pub(super) http2: bool,
    /// The client's connection, if nobody else's requests may go by it.
    pub(super) connection: Option<u64>,
}

impl PartialEq for Key {
    /// Callers are the same if they are one: another of the same name may have lost what this one had.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.caller, &other.caller)
            && (self.until, self.spoken, self.http2, self.connection)
                == (other.until, other.spoken, other.http2, other.connection)
            && self.target == other.target
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (Arc::as_ptr(&self.caller), self.http2).hash(state);
        self.target.hash(state);
    }
}

/// A stream as rows and requests name it.
pub(super) struct Described {
    pub(super) request: RequestId,
    pub(super) target: String,
    pub(super) caller: String,
    /// The target in a URL.
    pub(super) authority: HeaderValue,
    pub(super) live: Arc<Live>,
}

/// The streams that are there.
#[derive(Default)]
pub(in crate::gateway) struct Streams(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Those of HTTP/1.1 without a request, the last one used at the end.
    idle: HashMap<Key, Vec<Idle>>,
    count: usize,
    shared: HashMap<Key, Shared>,
}

struct Idle {
    one: One,
    since: Instant,
}

/// The streams of HTTP/2 of one key, and the turn of who opens another.
#[derive(Default)]
struct Shared {
    streams: Vec<Arc<Many>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A stream of HTTP/1.1.
struct One {
    sender: http1::SendRequest<Upload>,
    described: Arc<Described>,
    task: JoinHandle<Option<()>>,
    /// Of one that a request makes another protocol of.
    ledger: Option<Arc<Ledger<Held>>>,
}

/// A stream of HTTP/2.
struct Many {
    sender: http2::SendRequest<Upload>,
    described: Arc<Described>,
    requests: AtomicUsize,
    used: Mutex<Instant>,
}

/// A stream for one request.
pub(super) struct Lease {
    key: Key,
    held: Lent,
}

enum Lent {
    One(One),
    Many(http2::SendRequest<Upload>, Place),
}

/// A request's place on a stream of many; gives it back when dropped.
struct Place(Arc<Many>);

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&self.0.used) = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    /// How rows name it.
    pub(super) fn described(&self) -> &Arc<Described> {
        match &self.held {
            Lent::One(one) => &one.described,
            Lent::Many(_, place) => &place.0.described,
        }
    }

    /// Sends a request and waits for the head of its answer. What was not sent comes back.
    pub(super) async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        match &mut self.held {
            Lent::One(one) => one.sender.try_send_request(request).await,
            Lent::Many(sender, _) => sender.try_send_request(request).await,
        }
    }

    /// The account of a stream that is for this request alone: whoever has it says how it ended.
    pub(super) fn ledger(&self) -> Option<&Arc<Ledger<Held>>> {
        match &self.held {
            Lent::One(one) => one.ledger.as_ref(),
            Lent::Many(..) => None,
        }
    }

    /// Keeps the stream for a next request, unless it was for this one alone.
    pub(super) fn give_back(self, gateway: &Gateway) {
        if let Lent::One(one) = self.held
            && one.ledger.is_none()
        {
            gateway.streams.keep(self.key, one);
            if gateway.drain.begun() {
                gateway.streams.close_idle();
            }
        }
    }
}

/// A stream for a request: one that is there, or a fresh one. Yields whether it was there already.
///
/// # Errors
/// Why none can be opened; that is recorded.
pub(super) async fn lease(
    gateway: &Arc<Gateway>,
    request: RequestId,
    wanted: Wanted,
    key: Key,
    fresh: bool,
) -> Result<(Lease, bool), Refusal> {
    // What could be refused is: a stream that is there makes nobody's rights any longer.
    let fine = gateway.ready().is_ok() && gateway.audit.ready().is_ok() && wanted.caller.may(&wanted.target).is_ok();
    if key.http2 {
        return lease_shared(gateway, request, wanted, key, fresh || !fine).await;
    }
    if fine
        && !fresh
        && let Some(one) = gateway.streams.take_ready(&key).await
    {
        return Ok((Lease { key, held: Lent::One(one) }, true));
    }
    let Opened { sender, described, task, ledger } = stream::open_http1(gateway, request, wanted, false).await?;
    Ok((Lease { key, held: Lent::One(One { sender, described, task, ledger }) }, false))
}

/// A stream for a request that makes another protocol of it: for nobody else, before or after.
///
/// # Errors
/// As [`lease`].
pub(super) async fn lease_whole(
    gateway: &Arc<Gateway>,
    request: RequestId,
    wanted: Wanted,
    key: Key,
) -> Result<Lease, Refusal> {
    let Opened { sender, described, task, ledger } = stream::open_http1(gateway, request, wanted, true).await?;
    Ok(Lease { key, held: Lent::One(One { sender, described, task, ledger }) })
}

async fn lease_shared(
    gateway: &Arc<Gateway>,
    request: RequestId,
    wanted: Wanted,
    key: Key,
    fresh: bool,
) -> Result<(Lease, bool), Refusal> {
    if !fresh && let Some(lease) = gateway.streams.share(&key) {
        return Ok((lease, true));
    }
    // One opens, the others wait and share it.
    let turn = gateway.streams.turn(&key);
    let _turn = turn.lock().await;
    if !fresh && let Some(lease) = gateway.streams.share(&key) {
        return Ok((lease, true));
    }
    let (sender, described) = stream::open_http2(gateway, request, wanted).await?;
    let (requests, used) = (AtomicUsize::new(1), Mutex::new(Instant::now()));
    let many = Arc::new(Many { sender: sender.clone(), described, requests, used });
    gateway.streams.add(&key, many.clone());
    Ok((Lease { key, held: Lent::Many(sender, Place(many)) }, false))
}

impl Streams {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0)
    }

    /// A stream of HTTP/1.1 that is ready. Its last answer may have passed a moment before it was free again.
    async fn take_ready(&self, key: &Key) -> Option<One> {
        while let Some(mut one) = self.take(key) {
            if one.sender.ready().await.is_ok() {
                return Some(one);
            }
        }
        None
    }

    /// The stream that was used last of those that are still good.
    fn take(&self, key: &Key) -> Option<One> {
        let mut kept = self.kept();
        let Kept { idle, count, .. } = &mut *kept;
        let streams = idle.get_mut(key)?;
        while let Some(Idle { one, .. }) = streams.pop() {
            *count -= 1;
            if !one.sender.is_closed() && one.described.live.usable() {
                return Some(one);
            }
        }
        None
    }

    /// Keeps a stream, unless there are enough.
    fn keep(&self, key: Key, one: One) {
        let mut kept = self.kept();
        let Kept { idle, count, .. } = &mut *kept;
        if one.sender.is_closed() || *count >= HTTP_IDLE_STREAMS_ALL {
            return;
        }
        let streams = idle.entry(key).or_default();
        if streams.len() < HTTP_IDLE_STREAMS {
            streams.push(Idle { one, since: Instant::now() });
            *count += 1;
        }
    }

    /// A place on a stream of HTTP/2.
    fn share(&self, key: &Key) -> Option<Lease> {
        let kept = self.kept();
        let streams = &kept.shared.get(key)?.streams;
        let free = |many: &&Arc<Many>| {
            !many.sender.is_closed()
                && many.described.live.usable()
                && many.requests.load(Ordering::Relaxed) < HTTP2_REQUESTS as usize
        };
        let many = streams.iter().find(free)?.clone();
        many.requests.fetch_add(1, Ordering::Relaxed);
        Some(Lease { key: key.clone(), held: Lent::Many(many.sender.clone(), Place(many)) })
    }

    fn turn(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        self.kept().shared.entry(key.clone()).or_default().turn.clone()
    }

    fn add(&self, key: &Key, many: Arc<Many>) {
        self.kept().shared.entry(key.clone()).or_default().streams.push(many);
    }

    /// Closes what is without a request.
    pub(in crate::gateway) fn close_idle(&self) {
        let mut kept = self.kept();
        kept.count = 0;
        let closed = (std::mem::take(&mut kept.idle), std::mem::take(&mut kept.shared));
        drop(kept);
        drop(closed);
    }

    /// Closes the caller's streams that are without a request, or all of the tenant's if it has none; yields whether there was one. Comes
    /// back when they have given up what they held.
    pub(in crate::gateway) async fn give_way(&self, wanted: &Wanted) -> bool {
        let mut closed = self.remove(|key| Arc::ptr_eq(&key.caller, &wanted.caller));
        if closed.is_empty() {
            closed = self.remove(|key| key.target.group.tenant == wanted.target.group.tenant);
        }
        let tasks: Vec<_> = closed.into_iter().map(|one| one.task).collect();
        let some = !tasks.is_empty();
        let _ = timeout(ANSWER_LINGER, join_all(tasks)).await;
        some
    }

    /// Takes away the idle streams of HTTP/1.1 of these keys.
    fn remove(&self, which: impl Fn(&Key) -> bool) -> Vec<One> {
        let mut kept = self.kept();
        let removed: Vec<_> = kept.idle.extract_if(|key, _| which(key)).flat_map(|(_, streams)| streams).collect();
        kept.count -= removed.len();
        removed.into_iter().map(|idle| idle.one).collect()
    }

    /// Closes what nobody has used for [`HTTP_STREAM_IDLE`], a ninth of that late. Runs until it is dropped.
    pub(in crate::gateway) async fn tidy(&self) {
        let mut tick = interval(HTTP_STREAM_IDLE / 9);
        loop {
            tick.tick().await;
            let count = self.close_old(Instant::now());
            metrics::http_streams_idle(count);
        }
    }

    /// Yields how many are left.
    fn close_old(&self, now: Instant) -> usize {
        let old = |since: Instant| now.saturating_duration_since(since) >= HTTP_STREAM_IDLE;
        let mut kept = self.kept();
        let mut closed = Vec::new();
        kept.idle.retain(|_, streams| {
            closed.extend(streams.extract_if(.., |idle| old(idle.since) || idle.one.sender.is_closed()));
            !streams.is_empty()
        });
        kept.count -= closed.len();
        let unused = |many: &Arc<Many>| many.requests.load(Ordering::Relaxed) == 0;
        let mut left = kept.count;
        kept.shared.retain(|_, shared| {
            shared.streams.retain(|many| !(many.sender.is_closed() || unused(many) && old(*lock(&many.used))));
            left += shared.streams.iter().filter(|many| unused(many)).count();
            // Whoever opens one has the turn.
            !shared.streams.is_empty() || Arc::strong_count(&shared.turn) > 1
        });
        left
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
