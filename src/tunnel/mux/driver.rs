//! The one task of a lane: moves bytes between its connection and its engine, and outlives the connection. It never waits for a consumer,
//! and for nothing that it could do the other way meanwhile. Refuses to know streams.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::flow::{Break, Flow};
use super::transport::{Transport, broken};
use super::{Link, Shared, Side};
use crate::base::code::{Code, Failure};
use crate::base::limits::{HANDSHAKE_DEADLINE, HEARTBEAT, READ_BUFFER, TURN};
use crate::tunnel::lane::Pulse;
use crate::tunnel::upgrade::Upgraded;

/// Reads of a connection that takes nothing more: 4 MiB, which is what a kernel holds unread.
const LAST_READS: usize = 64;

/// A lane, whichever connection it has.
pub(super) struct Driver {
    shared: Arc<Shared>,
    pulse: Pulse,
    flow: Flow,
    connection: Connection,
    /// Which connection of the lane this is, by the agent's count of attempts.
    generation: u64,
    /// How long the lane waits for another one.
    window: Duration,
    /// The task's, once it has run.
    waker: Option<Waker>,
}

enum Connection {
    Up(Box<Transport>),
    Paused(Box<Pause>),
}

/// The time between two connections.
struct Pause {
    /// When the last one broke, and for what reason.
    since: Instant,
    why: Failure,
    /// Until then another one may come.
    until: Instant,
    /// Goes off each heartbeat, and then.
    alarm: Pin<Box<Sleep>>,
}

/// Runs a lane to its end.
pub(super) async fn drive(driver: Arc<Mutex<Driver>>, link: Link) {
    let shared = &link.shared;
    let _ends = EndOnDrop(shared.clone());
    let why = tokio::select! {
        biased;
        () = shared.close.cancelled() => {
            // Bounded, since the peer may take nothing any more.
            let _ = tokio::time::timeout(HANDSHAKE_DEADLINE, close(&driver, shared)).await;
            Failure::new(Code::Stopping, "closed by this side")
        }
        why = poll_fn(|cx| shared.turn.take(&driver, cx, Driver::poll)) => why,
    };
    shared.end(why);
}

/// Sends what streams have left to say, then the farewell.
async fn close(driver: &Mutex<Driver>, shared: &Shared) -> io::Result<()> {
    let sent = || poll_fn(|cx| shared.turn.take(driver, cx, Driver::poll_rest));
    lock(driver).last();
    shared.drive(super::engine::Engine::lose);
    sent().await?;
    shared.drive(super::engine::Engine::say_farewell);
    let code = shared.why.get().map_or(Code::Stopping, |why| why.code);
    lock(driver).say_close(code);
    sent().await?;
    poll_fn(|cx| shared.turn.take(driver, cx, Driver::poll_shutdown)).await
}

/// Whoever has something to send may do so himself, while the driver's task has nothing to do with it: a wake-up less, and what was
/// just read is still in the processor's cache. One at a time; who comes second leaves a note.
#[derive(Default)]
pub(super) struct Turn {
    again: AtomicBool,
}

impl Turn {
    /// The driver's turn; pending when another has it, who then wakes the task of `cx`.
    fn take<T>(
        &self,
        driver: &Mutex<Driver>,
        cx: &mut Context<'_>,
        use_it: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut driver = ready!(self.try_lock(driver));
        if !driver.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            driver.waker = Some(cx.waker().clone());
        }
        let result = use_it(&mut driver, cx);
        drop(driver);
        if self.again.swap(false, Ordering::AcqRel) {
            cx.waker().wake_by_ref();
        }
        result
    }

    /// Anybody's turn.
    pub(super) fn send(&self, driver: &Mutex<Driver>) {
        let Poll::Ready(mut driver) = self.try_lock(driver) else { return };
        driver.send();
        let waker = driver.waker.clone();
        drop(driver);
        if let Some(waker) = waker.filter(|_| self.again.swap(false, Ordering::AcqRel)) {
            waker.wake();
        }
    }

    /// Somebody's turn who changes what the lane runs on; its task looks at that next.
    pub(super) fn change<T>(&self, driver: &Mutex<Driver>, change: impl FnOnce(&mut Driver) -> T) -> T {
        let mut driver = lock(driver);
        let result = change(&mut driver);
        let waker = driver.waker.clone();
        drop(driver);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// The lock, or a note for whoever has it.
    fn try_lock<'a>(&self, driver: &'a Mutex<Driver>) -> Poll<MutexGuard<'a, Driver>> {
        for _ in 0..2 {
            match driver.try_lock() {
                Ok(driver) => return Poll::Ready(driver),
                Err(TryLockError::Poisoned(poisoned)) => return Poll::Ready(poisoned.into_inner()),
                // Once more: he may have looked for notes just before this one.
                Err(TryLockError::WouldBlock) => self.again.store(true, Ordering::Release),
            }
        }
        Poll::Pending
    }
}

/// Waits for whoever has it, who is done in some microseconds.
fn lock(driver: &Mutex<Driver>) -> MutexGuard<'_, Driver> {
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A driver that is dropped in the middle, with its tasks, has ended too.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Failure::new(Code::Stopping, "closed by this side"));
    }
}

impl Driver {
    pub(super) fn new(upgraded: Upgraded, side: Side, shared: Arc<Shared>, pulse: Pulse) -> Self {
        let flow = Flow::new(shared.clone(), side);
        let connection = Connection::Up(Box::new(Transport::new(upgraded, &flow, pulse.clone())));
        Self { shared, pulse, flow, connection, generation: 0, window: Duration::ZERO, waker: None }
    }

    /// From here on a broken connection is waited for so long; for no time, not at all.
    pub(super) fn resumable(&mut self, window: Duration) {
        self.window = window;
        self.flow.resumable(!window.is_zero());
        // What came before, the greeting, the peer waits to be told of.
        if let Connection::Up(transport) = &mut self.connection {
            transport.acknowledge();
        }
    }

    /// What was sent so far introduces the lane: a peer that has not got it does not come back.
    pub(super) fn introduces(&mut self) {
        self.flow.introduces();
    }

    fn may_wait(&self) -> bool {
        !self.window.is_zero() && self.flow.is_known()
    }

    /// Moves everything that can be moved; ready with the lane's end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            match &mut self.connection {
                Connection::Up(_) => match ready!(self.poll_connection(cx)) {
                    Break::Broken(why) if self.may_wait() => self.pause(why),
                    Break::Broken(why) | Break::Over(why) => return Poll::Ready(why),
                },
                Connection::Paused(pause) => {
                    ready!(pause.alarm.as_mut().poll(cx));
                    if Instant::now() >= pause.until {
                        let detail = format!("{}; not resumed within {} s", pause.why, self.window.as_secs());
                        return Poll::Ready(Failure::new(Code::ResumeExpired, detail));
                    }
                    if let Err(why) = self.flow.tick() {
                        return Poll::Ready(why);
                    }
                    pause.alarm.as_mut().reset(pause.until.min(Instant::now() + HEARTBEAT));
                }
            }
        }
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Break> {
        let Self { shared, pulse, flow, connection: Connection::Up(transport), .. } = self else { return Poll::Pending };
        for _ in 0..TURN / READ_BUFFER {
            match ready!(transport.poll_time(pulse, cx)) {
                Ok(true) => {
                    if let Err(why) = flow.tick() {
                        return Poll::Ready(Break::Over(why));
                    }
                }
                Ok(false) => {}
                Err(verdict) => return Poll::Ready(verdict),
            }
            if let Poll::Ready(Err(error)) = transport.poll_send(flow, cx) {
                return Poll::Ready(last_word(transport, flow, shared, cx).unwrap_or_else(|| broken(&error)));
            }
            if shared.drive(|engine| engine.is_congested()) {
                return Poll::Pending;
            }
            if let Err(why) = ready!(transport.poll_receive(flow, cx)) {
                return Poll::Ready(why);
            }
        }
        // Others of this thread have waited long enough.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The connection is gone; the lane waits for another.
    fn pause(&mut self, why: Failure) {
        self.pulse.pause();
        let since = Instant::now();
        let until = since + self.window;
        let alarm = Box::pin(tokio::time::sleep_until(until.min(since + HEARTBEAT)));
        self.shared.turns(Some(why.clone()));
        self.connection = Connection::Paused(Box::new(Pause { since, why, until, alarm }));
    }

    /// Gives the connection up, if there is one, as if it had broken for that reason.
    pub(super) fn give_up(&mut self, why: Failure) {
        match self.connection {
            Connection::Up(_) if self.may_wait() => self.pause(why),
            Connection::Up(_) => self.shared.close_because(why),
            Connection::Paused(..) => {}
        }
    }

    /// The agent's next attempt to go on: its number, and how far this end has got. The connection, if there is one, is given up.
    pub(super) fn claim(&mut self) -> (u64, u64) {
        self.give_up(Failure::new(Code::LinkClosed, "given up for another connection"));
        self.generation += 1;
        (self.generation, self.flow.received())
    }

    /// The gateway's end of it: `generation` is newer and its agent has got as far as `received`. From here on nothing that an older
    /// connection brings counts; yields how far this end has got.
    pub(super) fn fence(&mut self, generation: u64, received: u64) -> Result<u64, Failure> {
        if self.window.is_zero() {
            return Err(Failure::new(Code::LaneRefused, "lanes are not resumed"));
        }
        if generation <= self.generation {
            let detail = format!("attempt {generation} is no newer than attempt {}", self.generation);
            return Err(Failure::new(Code::LaneRefused, detail));
        }
        self.flow.has_got(received)?;
        self.give_up(Failure::new(Code::LinkClosed, "taken over by a newer connection"));
        self.generation = generation;
        Ok(self.flow.received())
    }

    /// The lane goes on with this connection, from where the peer has got to, unless a newer one is expected already. Yields how long
    /// it had none.
    pub(super) fn attach(&mut self, generation: u64, received: u64, upgraded: Upgraded) -> Result<Duration, Failure> {
        let since = match &self.connection {
            Connection::Paused(pause) if generation == self.generation => pause.since,
            _ => return Err(Failure::new(Code::LaneRefused, format_args!("attempt {generation} came too late"))),
        };
        self.flow.rewind(received)?;
        self.connection = Connection::Up(Box::new(Transport::new(upgraded, &self.flow, self.pulse.clone())));
        self.shared.turns(None);
        Ok(since.elapsed())
    }

    /// Which connection there is; none while there is none.
    pub(super) fn generation(&self) -> Option<u64> {
        matches!(self.connection, Connection::Up(_)).then_some(self.generation)
    }

    /// Writes what can be written now. The task is woken for the rest, and to learn of a failure.
    fn send(&mut self) {
        // Before its first turn the task will look for itself.
        let (Some(waker), Connection::Up(transport)) = (self.waker.clone(), &mut self.connection) else { return };
        if transport.send(&mut self.flow, &mut Context::from_waker(&waker)) {
            waker.wake();
        }
    }

    /// Writes all that there is to write.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.connection {
            Connection::Up(transport) => transport.poll_send(&mut self.flow, cx),
            Connection::Paused(..) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.connection {
            Connection::Up(transport) => transport.poll_shutdown(cx),
            Connection::Paused(..) => Poll::Ready(Ok(())),
        }
    }

    /// This connection is the last one.
    fn last(&mut self) {
        self.window = Duration::ZERO;
        self.flow.last();
    }

    fn say_close(&mut self, code: Code) {
        if let Connection::Up(transport) = &mut self.connection {
            transport.say_close(&mut self.flow, code);
        }
    }

    /// Tells another budget than the process's of what is retained.
    #[cfg(test)]
    pub(super) fn retains_within(&mut self, budget: &'static crate::base::memory::Budget) {
        self.flow.retains_within(budget);
    }

    /// The lane is over: nothing is kept for another connection.
    pub(super) fn end(&mut self) {
        self.flow.clear();
    }
}

/// What ends the lane for good, of what lies unread on a connection that takes nothing more: who says farewell closes it next, and is
/// not to be taken for a broken connection.
fn last_word(transport: &mut Transport, flow: &mut Flow, shared: &Shared, cx: &mut Context<'_>) -> Option<Break> {
    for _ in 0..LAST_READS {
        match transport.poll_receive(flow, cx) {
            Poll::Ready(Ok(())) if !shared.drive(|engine| engine.is_congested()) => {}
            Poll::Ready(Err(over @ Break::Over(_))) => return Some(over),
            _ => break,
        }
    }
    None
}

/// How a lane stands between its connections.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Bytes that are kept unread.
    pub(crate) unread: usize,
    /// Which connection it has, or had last.
    pub(crate) generation: u64,
    /// Whether the peer has said that it knows of the lane.
    pub(crate) known: bool,
    /// Bytes that are kept for another one.
    pub(crate) retained: usize,
    /// How long another one has been waited for.
    pub(crate) paused: Duration,
    /// How long nothing of what was sent on this one has got through.
    pub(crate) stuck: Duration,
}

#[cfg(test)]
pub(super) fn standing(driver: &Mutex<Driver>) -> Standing {
    let driver = lock(driver);
    let (paused, stuck) = match driver.connection {
        Connection::Paused(ref pause) => (pause.since.elapsed(), Duration::ZERO),
        Connection::Up(_) => (Duration::ZERO, driver.pulse.stuck()),
    };
    let Driver { generation, ref flow, ref shared, .. } = *driver;
    let unread = shared.drive(|engine| engine.held);
    Standing { unread, generation, known: flow.is_known(), retained: flow.retained_cost(), paused, stuck }
}
