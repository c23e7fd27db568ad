//! Streams over one connection: yamux, as in hashicorp's specification, inside WebSocket messages. Open, accept, a stream of bytes, close.
//! The state machine is `engine` (with `receive`, `schedule`, `entry`), the task that moves bytes is `driver`.
//! It refuses to know what streams carry.

mod batch;
#[cfg(feature = "fuzzing")]
pub(crate) mod bench;
mod driver;
mod engine;
mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod exercise;
mod frame;
mod receive;
#[cfg(test)]
mod rig;
mod schedule;
mod stream;

use std::future::poll_fn;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::Waker;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::lane::{Heart, Pulse};
use super::upgrade::Upgraded;
use crate::base::code::{Code, Failure};
use crate::base::limits::MAX_STREAMS;
use crate::base::tasks::Tasks;
use driver::{Driver, Sends, Turn, drive};
use engine::Engine;
pub use stream::Stream;

/// Which end this is: agents open odd ids, gateways even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The yamux client.
    Agent,
    /// The yamux server.
    Gateway,
}

/// Opens streams; clones share the limit.
#[derive(Clone)]
pub struct Opener(Arc<Shared>);

/// The peer's streams, in the order of their arrival.
pub struct Incoming(Arc<Shared>);

/// The connection under the streams: its life, its end.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    pulse: Pulse,
}

/// What the driver and the streams share.
struct Shared {
    engine: Mutex<Engine>,
    /// The driver, as long as its task runs.
    driver: OnceLock<Weak<Mutex<dyn Sends>>>,
    turn: Turn,
    close: CancellationToken,
    ended: CancellationToken,
    why: OnceLock<Failure>,
}

/// Runs the mux over an upgraded connection until it ends or `tasks` are cancelled.
pub fn start<S>(upgraded: Upgraded<S>, side: Side, tasks: &Tasks) -> (Opener, Incoming, Link)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let engine = Engine::new(side, MAX_STREAMS, Instant::now());
    let shared = Arc::new(Shared {
        engine: Mutex::new(engine),
        driver: OnceLock::new(),
        turn: Turn::default(),
        close: CancellationToken::new(),
        ended: CancellationToken::new(),
        why: OnceLock::new(),
    });
    let heart = Heart::new(upgraded.beats);
    let link = Link { shared: shared.clone(), pulse: heart.pulse() };
    let driver = Arc::new(Mutex::new(Driver::new(upgraded.io, upgraded.echo, side, shared.clone(), heart)));
    let sends: Arc<Mutex<dyn Sends>> = driver.clone();
    let _ = shared.driver.set(Arc::downgrade(&sends));
    tasks.spawn(drive(driver, link.clone()));
    (Opener(shared.clone()), Incoming(shared), link)
}

impl Opener {
    /// Opens a stream. Nothing is sent before the first byte is written to it.
    ///
    /// # Errors
    /// `session_streams` at the limit, `session_lost` when the connection is gone or the peer has said farewell.
    pub async fn open(&self) -> Result<Stream, Failure> {
        let closing = self.0.close.is_cancelled();
        let opened = self.0.drive(|engine| if closing { None } else { engine.open(Instant::now()) });
        match opened {
            Some(id) => Ok(Stream::new(id, self.0.clone())),
            None if self.0.drive(|engine| engine.farewell && !engine.lost) => {
                Err(Failure::new(Code::SessionLost, "the peer takes no further streams"))
            }
            None if closing || self.0.is_lost() => Err(self.0.why("the session ended")),
            None => Err(Failure::new(Code::SessionStreams, "the connection has as many streams as it may have")),
        }
    }

    /// Streams open at this moment, whoever opened them.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.0.streams()
    }
}

impl Incoming {
    /// The next stream that the peer opened; `None` when the connection is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        let id = poll_fn(|cx| self.0.with(|engine| engine.poll_accept(cx))).await?;
        Some(Stream::new(id, self.0.clone()))
    }
}

impl Link {
    /// Sends what is queued, then GoAway; open streams end with it.
    pub fn close(&self) {
        self.shared.close.cancel();
    }

    /// The same, and this is why, unless the connection has ended for another reason already.
    pub fn close_because(&self, why: Failure) {
        let _ = self.shared.why.set(why);
        self.shared.close.cancel();
    }

    /// Carries so many streams from here on, beside the control stream; [`MAX_STREAMS`] before.
    pub fn allow(&self, streams: usize) {
        self.shared.drive(|engine| engine.allow(streams + 1));
    }

    /// Closes the connection when the guard is dropped, unless it is disarmed.
    pub(super) fn close_on_drop(&self) -> DropGuard {
        self.shared.close.clone().drop_guard()
    }

    /// Whether the streams have been told that the connection is lost; its end follows.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.is_lost()
    }

    /// Ends with the connection, saying why.
    pub async fn ended(&self) -> Failure {
        self.shared.ended.cancelled().await;
        self.shared.why("the connection ended")
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.ended.is_cancelled()
    }

    /// The signs of life.
    #[must_use]
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Streams open at this moment, whoever opened them.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.shared.streams()
    }

    /// Leaves out ids, so that this end's next stream is one of the last.
    #[cfg(test)]
    pub(crate) fn wear(&self) {
        self.shared.drive(Engine::wear);
    }
}

impl Shared {
    /// Uses the engine, wakes whom that concerns, and sends what there is to send. Nothing slow happens under the engine's lock.
    fn with<T>(&self, use_it: impl FnOnce(&mut Engine) -> T) -> T {
        let (result, kicked) = self.use_engine(use_it);
        if kicked && let Some(driver) = self.driver.get().and_then(Weak::upgrade) {
            self.turn.send(&driver);
        }
        result
    }

    /// The same for the driver, who is about to send anyway.
    fn drive<T>(&self, use_it: impl FnOnce(&mut Engine) -> T) -> T {
        self.use_engine(use_it).0
    }

    fn use_engine<T>(&self, use_it: impl FnOnce(&mut Engine) -> T) -> (T, bool) {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let result = use_it(&mut engine);
        let kicked = std::mem::take(&mut engine.kicked);
        let wakes = std::mem::take(&mut engine.wakes);
        drop(engine);
        wakes.into_iter().for_each(Waker::wake);
        (result, kicked)
    }

    fn is_lost(&self) -> bool {
        self.with(|engine| engine.lost)
    }

    fn streams(&self) -> usize {
        self.with(|engine| engine.live)
    }

    fn why(&self, otherwise: &str) -> Failure {
        self.why.get().cloned().unwrap_or_else(|| Failure::new(Code::SessionLost, otherwise))
    }

    fn end(&self, why: Failure) {
        let _ = self.why.set(why);
        self.drive(Engine::die);
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests;
