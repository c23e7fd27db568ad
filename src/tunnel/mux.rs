//! Streams over one connection: yamux, as in hashicorp's specification, inside WebSocket messages. Open, accept, a stream of bytes, close.
//! The state machine is `engine` (with `receive`, `schedule`, `entry`), the task that moves bytes is `driver`: it moves the lane's `flow` over
//! one `transport` after another, since a lane outlives its connection. It refuses to know what streams carry.

mod batch;
#[cfg(feature = "fuzzing")]
pub(crate) mod bench;
mod driver;
mod engine;
mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod exercise;
mod flow;
mod frame;
mod receive;
mod retained;
#[cfg(test)]
mod rig;
mod schedule;
mod stream;
mod transport;

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::lane::Pulse;
use super::upgrade::Upgraded;
use crate::base::code::{Code, Failure};
use crate::base::limits::MAX_STREAMS;
use crate::base::tasks::Tasks;
use driver::{Driver, Turn, drive};
use engine::Engine;
pub use stream::Stream;
#[cfg(test)]
pub(crate) use {driver::Standing, retained::ROOM as RETAINED_ROOM};

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
    driver: OnceLock<Weak<Mutex<Driver>>>,
    turn: Turn,
    /// Why the lane's last connection broke, while it has no other; who waits for a change is woken in the order of asking.
    paused: Mutex<Option<Failure>>,
    turned: Notify,
    close: CancellationToken,
    ended: CancellationToken,
    why: OnceLock<Failure>,
}

/// Runs the mux over an upgraded connection until it ends or `tasks` are cancelled.
pub fn start(upgraded: Upgraded, side: Side, tasks: &Tasks) -> (Opener, Incoming, Link) {
    let engine = Engine::new(side, MAX_STREAMS, Instant::now());
    let shared = Arc::new(Shared {
        engine: Mutex::new(engine),
        driver: OnceLock::new(),
        turn: Turn::default(),
        paused: Mutex::default(),
        turned: Notify::new(),
        close: CancellationToken::new(),
        ended: CancellationToken::new(),
        why: OnceLock::new(),
    });
    let pulse = Pulse::new();
    let link = Link { shared: shared.clone(), pulse: pulse.clone() };
    let driver = Arc::new(Mutex::new(Driver::new(upgraded, side, shared.clone(), pulse)));
    let _ = shared.driver.set(Arc::downgrade(&driver));
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
        self.shared.close_because(why);
    }

    /// Waits so long for another connection when this one breaks; without this, or for no time, that is the end.
    pub fn resumable(&self, window: Duration) {
        self.shared.change(|driver| driver.resumable(window));
    }

    /// Does not wait for another connection before the peer has all that was sent so far: it would know nothing to come back to.
    pub fn introduces(&self) {
        self.shared.change(Driver::introduces);
    }

    /// Gives the connection up as if it had broken for that reason.
    pub fn give_up(&self, why: Failure) {
        self.shared.change(|driver| driver.give_up(why));
    }

    /// Whether it is between two connections.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pulse.is_paused()
    }

    /// Ends when the connection has broken and another is waited for, with why it broke; `None` when it is over.
    pub async fn paused(&self) -> Option<Failure> {
        self.turns(true).await?
    }

    /// Ends when there is a connection again; `None` when it is over.
    pub async fn goes_on(&self) -> Option<()> {
        self.turns(false).await.map(drop)
    }

    async fn turns(&self, paused: bool) -> Option<Option<Failure>> {
        let turned = || Some(self.shared.paused()).filter(|why| why.is_some() == paused);
        self.shared.until(turned).await
    }

    /// The agent's next attempt to go on after a break: its number, and the bytes received so far.
    ///
    /// # Errors
    /// `session_lost` when the lane is over.
    pub fn claim(&self) -> Result<(u64, u64), Failure> {
        self.shared.change(Driver::claim).ok_or_else(|| self.shared.why("the connection ended"))
    }

    /// At the gateway, the beginning of an attempt: nothing that an older connection brings counts from here on. Yields the bytes
    /// received so far, which the agent must be told.
    ///
    /// # Errors
    /// `lane_refused` for an attempt that is no newer, and for an offset that can't be; `session_lost` when the lane is over.
    pub fn fence(&self, generation: u64, received: u64) -> Result<u64, Failure> {
        let fenced = self.shared.change(|driver| driver.fence(generation, received));
        fenced.unwrap_or_else(|| Err(self.shared.why("the connection ended")))
    }

    /// The rest of an attempt, at either end: goes on with that connection, from where the peer has got to. Yields how long there was none.
    ///
    /// # Errors
    /// `lane_refused` when a newer attempt has begun, or for an offset that can't be; `session_lost` when the lane is over.
    pub fn attach(&self, generation: u64, upgraded: Upgraded) -> Result<Duration, Failure> {
        let unsaid = || Failure::new(Code::ProtocolViolation, "the answer does not say how far the lane has got");
        let received = upgraded.received.ok_or_else(unsaid)?;
        let attached = self.shared.change(|driver| driver.attach(generation, received, upgraded));
        attached.unwrap_or_else(|| Err(self.shared.why("the connection ended")))
    }

    /// Which connection it has, by the agent's count of attempts; none while there is none.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.shared.change(|driver| driver.generation()).flatten()
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

    /// Why it is over, or about to be.
    #[must_use]
    pub fn why(&self) -> Option<&Failure> {
        self.shared.why.get()
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

    /// How the lane stands between its connections; `None` when it is over.
    #[cfg(test)]
    pub(crate) fn standing(&self) -> Option<Standing> {
        let driver = self.shared.driver.get().and_then(Weak::upgrade)?;
        Some(driver::standing(&driver))
    }

    /// Leaves out ids, so that this end's next stream is one of the last.
    #[cfg(test)]
    pub(crate) fn wear(&self) {
        self.shared.drive(Engine::wear);
    }
}

/// What a stream says whose lane has ended, if that is what the error is about.
#[must_use]
pub fn lost(error: &io::Error) -> Option<Code> {
    let why = error.get_ref().and_then(|why| why.downcast_ref::<Failure>());
    (error.kind() == io::ErrorKind::ConnectionAborted).then(|| why.map_or(Code::SessionLost, lost_because))
}

/// What the streams of a lane say that ended for this reason: what somebody has decided about their session, else that it is lost.
#[must_use]
pub fn lost_because(why: &Failure) -> Code {
    match why.code {
        Code::Revoked | Code::AgentDisabled | Code::CertificateExpired | Code::TrustChanged | Code::ResumeExpired => why.code,
        _ => Code::SessionLost,
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

    /// Ends with what `looked` yields once a connection has come or gone; `None` when the lane is over.
    async fn until<T>(&self, looked: impl Fn() -> Option<T>) -> Option<T> {
        loop {
            let turned = self.turned.notified();
            tokio::pin!(turned);
            // From here on nothing is missed.
            turned.as_mut().enable();
            if let Some(found) = looked() {
                return Some(found);
            }
            tokio::select! {
                biased;
                () = self.ended.cancelled() => return None,
                () = turned => {}
            }
        }
    }

    fn paused(&self) -> Option<Failure> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lane has lost its connection for that reason, or has another.
    fn turns(&self, paused: Option<Failure>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
        self.turned.notify_waiters();
    }

    /// Changes what the lane runs on; `None` when it is over.
    fn change<T>(&self, change: impl FnOnce(&mut Driver) -> T) -> Option<T> {
        let driver = self.driver.get().and_then(Weak::upgrade)?;
        Some(self.turn.change(&driver, change))
    }

    fn close_because(&self, why: Failure) {
        let _ = self.why.set(why);
        self.close.cancel();
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
        self.change(Driver::end);
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests;
