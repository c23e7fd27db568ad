//! Bodies on their way through the gateway: passed on as they come, trailers too, and counted. Refuses to know heads.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use tokio::sync::oneshot;

use super::account::Account;
use crate::base::code::Code;
use crate::base::limits::EXPECT_TIMEOUT;

/// How far a request's body has come.
#[derive(Debug, Default)]
pub(super) struct Passed {
    bytes: AtomicU64,
    ended: AtomicBool,
}

impl Passed {
    /// One that has ended after so many bytes.
    pub(super) fn whole(bytes: u64) -> Self {
        Self { bytes: AtomicU64::new(bytes), ended: AtomicBool::new(true) }
    }

    /// Its bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it was passed on to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// A request's body on its way to the agent.
#[derive(Default)]
pub(super) struct Upload {
    /// None: there is none.
    body: Option<(Incoming, Arc<Passed>)>,
    /// The agent's leave to send it, if the client waits for that.
    leave: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Upload {
    /// Of a request; with what is learnt of it unless it has none.
    pub(super) fn of(body: Incoming) -> (Self, Option<Arc<Passed>>) {
        if body.is_end_stream() {
            return (Self::default(), None);
        }
        let passed = Arc::new(Passed::default());
        (Self { body: Some((body, passed.clone())), leave: None }, Some(passed))
    }

    /// Holds it back until the agent gives leave. One that knows nothing of that gets it after a while (RFC 9110, 10.1.1).
    pub(super) fn await_leave(&mut self, leave: oneshot::Receiver<()>) {
        self.leave = Some(Box::pin(async move {
            // Whoever has answered without giving leave doesn't want it, and the connection ends.
            let _ = tokio::time::timeout(EXPECT_TIMEOUT, leave).await;
        }));
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(leave) = &mut self.leave {
            ready!(leave.as_mut().poll(cx));
            self.leave = None;
        }
        let Some((body, passed)) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            passed.bytes.fetch_add(frame.data_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
        }
        if frame.is_none() || body.is_end_stream() {
            passed.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}

/// An answer's body on its way to the client.
pub(super) enum Download {
    /// The gateway's own words.
    Own(Option<Bytes>),
    /// What the agent sends, on its account, which is closed with the last of it.
    Passed(Box<Passing>),
}

/// What the agent sends.
pub(super) struct Passing {
    body: Incoming,
    account: Option<Account>,
}

impl Download {
    /// Passes on what the agent sends.
    pub(super) fn pass(body: Incoming, account: Account) -> Self {
        let mut passing = Passing { body, account: Some(account) };
        // One without a byte is never asked for one.
        passing.close_at_end();
        Self::Passed(Box::new(passing))
    }
}

impl Passing {
    fn close_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some(account) = self.account.take() {
            account.whole();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(account)) = (frame.data_ref(), &mut self.account) {
                    account.down(data.len());
                }
                self.close_at_end();
            }
            Some(Err(_)) => {
                if let Some(account) = self.account.take() {
                    account.broken(Code::StreamCut);
                }
            }
            None => self.close(),
        }
        Poll::Ready(frame)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Own(words) => Poll::Ready(words.take().map(|words| Ok(Frame::data(words)))),
            Self::Passed(passing) => passing.poll(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(words) => words.is_none(),
            Self::Passed(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(words) => SizeHint::with_exact(words.as_ref().map_or(0, Bytes::len) as u64),
            Self::Passed(passing) => passing.body.size_hint(),
        }
    }
}
