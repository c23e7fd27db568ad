//! Bodies on their way through a hop: passed on as they come, counted, and cut where a rule's limit is. Refuses to know heads.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::account::Account;
use super::headers::keep_trailers;
use super::origin::Lease;
use crate::base::code::Code;
use crate::base::limits::EXPECT_TIMEOUT;
use crate::rules::http::{Header, List};

/// Why a body was cut; what was wrong is in [`Passed`].
pub(super) type Cut = Box<dyn std::error::Error + Send + Sync>;

/// How far a request's body has come.
#[derive(Debug)]
pub(super) struct Passed {
    begun: Instant,
    bytes: AtomicU64,
    /// When the last part passed, in milliseconds since it was begun.
    last: AtomicU64,
    ended: AtomicBool,
    too_large: AtomicBool,
}

impl Passed {
    pub(super) fn new() -> Self {
        let (bytes, last) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { begun: Instant::now(), bytes, last, ended: AtomicBool::new(false), too_large: AtomicBool::new(false) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// When a part passed last.
    pub(super) fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Whether it was passed on to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether it was cut because it went beyond its rule's limit.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    /// So much has passed; yields how much in all.
    pub(super) fn count(&self, bytes: u64) -> u64 {
        self.last.store(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// A request's body, on its way to the origin.
pub(super) struct Upload {
    /// None: there is none.
    body: Option<Incoming>,
    passed: Arc<Passed>,
    max: Option<u64>,
    trailers: Option<List<Header>>,
    /// The origin's leave to send it, if the client waits for that.
    leave: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Dropped when the answer is over: then nobody wants the rest.
    over: Option<oneshot::Receiver<Infallible>>,
}

impl Upload {
    /// No body.
    pub(super) fn none(passed: Arc<Passed>) -> Self {
        passed.end();
        Self { body: None, passed, max: None, trailers: None, leave: None, over: None }
    }

    /// A body of at most `max` bytes, with those trailers, until its answer is over.
    pub(super) fn new(
        body: Incoming,
        passed: Arc<Passed>,
        max: Option<u64>,
        trailers: Option<List<Header>>,
        over: oneshot::Receiver<Infallible>,
    ) -> Self {
        Self { body: Some(body), passed, max, trailers, leave: None, over: Some(over) }
    }

    /// Holds it back until the origin gives leave. An origin that doesn't know of that gets it after a while (RFC 9110, 10.1.1).
    pub(super) fn await_leave(&mut self, leave: oneshot::Receiver<()>) {
        self.leave = Some(Box::pin(async move {
            // Whoever answers without giving leave doesn't want it.
            if let Ok(Err(_)) = tokio::time::timeout(EXPECT_TIMEOUT, leave).await {
                std::future::pending::<()>().await;
            }
        }));
    }

    /// Whether there is nothing to send.
    pub(super) fn is_none(&self) -> bool {
        self.body.is_none()
    }

    fn poll_permitted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        if let Some(over) = &mut self.over
            && Pin::new(over).poll(cx).is_ready()
        {
            self.over = None;
            return Poll::Ready(Err("the answer is over".into()));
        }
        if let Some(leave) = &mut self.leave {
            ready!(leave.as_mut().poll(cx));
            self.leave = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Counts what passes, and takes from trailers what may not.
    fn pass(&self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Cut> {
        match frame.into_data() {
            Ok(data) => {
                let bytes = self.passed.count(data.len() as u64);
                if self.max.is_some_and(|max| bytes > max) {
                    self.passed.too_large.store(true, Ordering::Relaxed);
                    return Err("the body is larger than its rule allows".into());
                }
                Ok(Frame::data(data))
            }
            Err(frame) => Ok(filtered(frame, self.trailers.as_ref())),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        ready!(self.poll_permitted(cx))?;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        let frame = frame.map(|frame| frame.map_err(Cut::from).and_then(|frame| self.pass(frame)));
        if frame.is_none() || self.is_end_stream() && matches!(frame, Some(Ok(_))) {
            self.passed.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body, on its way to the client, and what is to be done when it is over.
pub(super) struct Download {
    payload: Payload,
    trailers: Option<List<Header>>,
    rest: Option<Rest>,
}

enum Payload {
    /// The origin's.
    Origin(Incoming),
    /// Our own.
    Own(Option<Bytes>),
}

/// What an exchange still holds while its answer is under way.
pub(super) struct Rest {
    /// Its row.
    pub(super) account: Account,
    /// The request's body, which ends with the answer.
    pub(super) upload: Option<oneshot::Sender<Infallible>>,
    /// The connection that it came by, which another request may use then.
    pub(super) lease: Option<Lease>,
}

impl Download {
    /// An origin's body with those trailers.
    pub(super) fn origin(body: Incoming, trailers: Option<List<Header>>, rest: Rest) -> Self {
        Self { payload: Payload::Origin(body), trailers, rest: Some(rest) }.ended()
    }

    /// Our own.
    pub(super) fn own(body: Bytes, account: Account) -> Self {
        let rest = Rest { account, upload: None, lease: None };
        Self { payload: Payload::Own(Some(body)), trailers: None, rest: Some(rest) }
    }

    /// The body of a connection that has become another protocol's.
    pub(super) fn nothing() -> Self {
        Self { payload: Payload::Own(None), trailers: None, rest: None }
    }

    /// Nobody asks further for a body that has come to its end.
    fn ended(mut self) -> Self {
        self.end_if_over();
        self
    }

    fn end_if_over(&mut self) {
        if self.is_end_stream() {
            self.end(None);
        }
    }

    fn end(&mut self, code: Option<Code>) {
        let Some(Rest { account, upload, lease }) = self.rest.take() else { return };
        if let Some(lease) = lease.filter(|_| account.passed().has_ended() && code.is_none()) {
            lease.give_back();
        }
        drop(upload);
        match code {
            None => account.whole(),
            Some(code) => account.broken(code),
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        let frame = match &mut this.payload {
            Payload::Own(body) => body.take().map(|body| Ok(Frame::data(body))),
            Payload::Origin(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        let frame = match frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(rest)) = (frame.data_ref(), &mut this.rest) {
                    rest.account.down(data.len());
                }
                Some(Ok(if frame.is_trailers() { filtered(frame, this.trailers.as_ref()) } else { frame }))
            }
            Some(Err(error)) => {
                this.end(Some(Code::TargetReset));
                Some(Err(Cut::from(error)))
            }
            None => {
                this.end(None);
                None
            }
        };
        this.end_if_over();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.payload {
            Payload::Own(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Payload::Origin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.payload {
            Payload::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Payload::Origin(body) => body.size_hint(),
        }
    }
}

impl Drop for Download {
    /// Before its end nobody but the client gives an answer up.
    fn drop(&mut self) {
        self.end(Some(Code::ClientReset).filter(|_| matches!(self.payload, Payload::Origin(_))));
    }
}

fn filtered(frame: Frame<Bytes>, list: Option<&List<Header>>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            keep_trailers(&mut trailers, list);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
