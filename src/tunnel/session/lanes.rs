//! The lanes of a session: one connection with its own mux each. Lane 0 is the session's first connection and lives as long as
//! it; further lanes come and go. Places streams on them, and counts what decides that. It refuses to know how lanes are
//! dialled, proved and audited.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::load::{Load, Rate, choose, is_bulk, lanes_wanted};
use crate::base::code::{Code, Failure};
use crate::base::limits::{LANE_IDLE, LANES_ASK_PAUSE, LAST_IDS, SLEEP_BREAKS};
use crate::base::tasks::Tasks;
use crate::tunnel::mux::{self, Incoming, Link, Opener, Side, Stream};
use crate::tunnel::upgrade::Upgraded;

/// A session's lanes; clones are the same ones.
#[derive(Clone)]
pub struct Lanes(Arc<Shared>);

/// One lane; clones are the same one.
#[derive(Clone)]
pub struct Lane(Arc<Connection>);

/// A further lane's number, taken; given back, and the lane forgotten, when dropped.
pub struct Seat {
    lanes: Lanes,
    number: u32,
}

/// Where a stream lives: keeps its lane from being idle, and learns what moves on it.
pub struct Place {
    lanes: Lanes,
    lane: Lane,
    meter: Arc<Meter>,
    _slot: OwnedSemaphorePermit,
}

struct Shared {
    first: Lane,
    max: usize,
    /// How long a broken lane waits for another connection.
    resume_window: Duration,
    start: Instant,
    table: Mutex<Table>,
    /// Lanes that are attached, lane 0 included.
    count: Arc<AtomicUsize>,
    /// Streams opened from this end, over all lanes.
    max_streams: usize,
    slots: Arc<Semaphore>,
    /// Streams that were last seen moving much.
    bulk: Mutex<Vec<Arc<Meter>>>,
    busier: Notify,
    /// What its streams end with, when it ends for a reason of its own.
    why: OnceLock<Code>,
    worn: Notify,
}

#[derive(Default)]
struct Table {
    /// The seats taken; those without a lane are still being dialled or upgraded.
    further: BTreeMap<u32, Option<Lane>>,
    /// The highest number that was ever used: none is used twice, so that what is said late of a lane can mean no other.
    highest: u32,
    closed: bool,
    /// When lanes were last asked for.
    asked: Option<Instant>,
}

struct Connection {
    number: u32,
    opener: Opener,
    link: Link,
    rate: Rate,
    /// Streams placed here, and when their number last changed, in milliseconds.
    streams: AtomicUsize,
    changed: AtomicU64,
    /// The ids of its streams run out.
    worn: AtomicBool,
}

/// One stream's rate.
#[derive(Default)]
struct Meter {
    rate: Rate,
    bulk: AtomicBool,
}

impl Lanes {
    /// A session with its first lane, which may have `max` in all, and `streams` over all of them; one that breaks may be taken up
    /// again within `resume_window`.
    pub(super) fn new(opener: Opener, link: Link, max: usize, streams: usize, resume_window: Duration) -> Self {
        // And a canary, which a full session is to answer, too.
        link.allow(streams + 1);
        link.resumable(resume_window);
        Self(Arc::new(Shared {
            first: Lane::new(0, opener, link, 0),
            max,
            resume_window,
            start: Instant::now(),
            table: Mutex::default(),
            count: Arc::new(AtomicUsize::new(1)),
            max_streams: streams,
            slots: Arc::new(Semaphore::new(streams)),
            bulk: Mutex::default(),
            busier: Notify::new(),
            why: OnceLock::new(),
            worn: Notify::new(),
        }))
    }

    /// The lane that the session began with.
    #[must_use]
    pub fn first(&self) -> &Lane {
        &self.0.first
    }

    /// The lane with this number, if the session has it.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<Lane> {
        if number == 0 { Some(self.first().clone()) } else { self.table().further.get(&number).cloned().flatten() }
    }

    /// How many lanes it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// How many streams it may have, over all lanes.
    #[must_use]
    pub fn max_streams(&self) -> usize {
        self.0.max_streams
    }

    /// The same count, for who keeps nothing else of the session.
    #[must_use]
    pub fn counted(&self) -> Arc<AtomicUsize> {
        self.0.count.clone()
    }

    /// Streams open at this moment on all lanes, whoever opened them, the control stream included.
    #[must_use]
    pub fn streams(&self) -> usize {
        let further: usize = self.attached().iter().map(|lane| lane.link().streams()).sum();
        self.first().link().streams() + further
    }

    /// Opens a stream on the least busy lane. A further lane that breaks at that moment is passed over: nothing was sent.
    ///
    /// # Errors
    /// `session_streams` at the limit, what ended lane 0 otherwise.
    pub async fn open(&self) -> Result<(Stream, Place), Failure> {
        let slot = self.0.slots.clone().try_acquire_owned().map_err(|_| {
            Failure::new(Code::SessionStreams, format_args!("the session has its {} streams", self.0.max_streams))
        })?;
        let mut place = self.place(slot);
        match place.lane.0.opener.open().await {
            Ok(stream) => {
                self.note_id(&place.lane, stream.id());
                Ok((stream, place))
            }
            Err(failure) if place.lane.number() == 0 => Err(failure),
            Err(_) => {
                place.move_to(self.first().clone());
                let stream = place.lane.0.opener.open().await?;
                Ok((stream, place))
            }
        }
    }

    /// Opens the canary's stream, on lane 0: it takes no client's slot.
    ///
    /// # Errors
    /// As [`Lanes::open`].
    pub async fn open_canary(&self) -> Result<Stream, Failure> {
        let stream = self.first().0.opener.open().await?;
        self.note_id(self.first(), stream.id());
        Ok(stream)
    }

    /// A further lane whose ids run out gets no more streams and ends when it is idle; with lane 0 the session has to begin anew.
    fn note_id(&self, lane: &Lane, stream: u32) {
        if u32::MAX - stream < LAST_IDS && !lane.0.worn.swap(true, Ordering::Relaxed) && lane.number() == 0 {
            self.0.worn.notify_one();
        }
    }

    /// Ends once when the ids of lane 0 run out.
    pub async fn wear_out(&self) {
        self.0.worn.notified().await;
    }

    fn place(&self, slot: OwnedSemaphorePermit) -> Place {
        let now = self.now();
        let table = self.table();
        // One that is closing, or has no connection, would keep the stream waiting.
        let waits = |lane: &Lane| lane.link().is_lost() || lane.link().is_paused() || lane.is_worn();
        let usable = table.further.values().flatten().filter(|lane| !waits(lane));
        let first = Some(self.first()).filter(|first| !first.link().is_paused());
        let mut lanes: Vec<_> = first.into_iter().chain(usable).collect();
        if lanes.is_empty() {
            lanes.push(self.first());
        }
        let load = |lane: &&Lane| Load::new(lane.0.rate.per_second(now), lane.0.streams.load(Ordering::Relaxed));
        let loads: Vec<_> = lanes.iter().map(load).collect();
        let lane = lanes[choose(&loads)].clone();
        // Under the table's lock: a lane is found idle under it, too.
        lane.enter(now);
        drop(table);
        if !self.bulk().is_empty() {
            self.0.busier.notify_one();
        }
        Place { lanes: self.clone(), lane, meter: Arc::default(), _slot: slot }
    }

    /// A seat for the lane that the other end has numbered so.
    ///
    /// # Errors
    /// `session_lanes` when there are enough, `lane_refused` when the number was used before, `not_here` when the session is
    /// over.
    pub fn take_seat(&self, number: u32) -> Result<Seat, Failure> {
        let mut table = self.table();
        if number <= table.highest {
            return Err(Failure::new(Code::LaneRefused, format_args!("lane {number} was there before")));
        }
        self.sit(&mut table, number)
    }

    /// The seat after the last.
    ///
    /// # Errors
    /// `session_lanes` when there are enough, `not_here` when the session is over.
    pub fn next_seat(&self) -> Result<Seat, Failure> {
        let mut table = self.table();
        let number = table.highest.saturating_add(1);
        self.sit(&mut table, number)
    }

    fn sit(&self, table: &mut Table, number: u32) -> Result<Seat, Failure> {
        if table.closed || self.first().link().has_ended() {
            return Err(Failure::new(Code::NotHere, "the session is over"));
        }
        if table.further.len() + 1 >= self.0.max {
            return Err(Failure::new(Code::SessionLanes, format_args!("the session has its {} lanes", self.0.max)));
        }
        table.highest = number;
        table.further.insert(number, None);
        Ok(Seat { lanes: self.clone(), number })
    }

    /// Ends when more lanes would help, with how many there should be; the same is asked for again only after a while.
    pub async fn wanted(&self) -> u32 {
        loop {
            self.0.busier.notified().await;
            if let Some(count) = self.ask() {
                return count;
            }
        }
    }

    fn ask(&self) -> Option<u32> {
        let now = self.now();
        let bulk = {
            let mut bulk = self.bulk();
            bulk.retain(|meter| meter.is_still_bulk(now));
            bulk.len()
        };
        let mut table = self.table();
        let opened = self.0.max_streams - self.0.slots.available_permits();
        let wanted = lanes_wanted(bulk, opened, self.0.max);
        let paused = table.asked.is_some_and(|asked| asked.elapsed() < LANES_ASK_PAUSE);
        if wanted <= 1 + table.further.len() || paused {
            return None;
        }
        table.asked = Some(Instant::now());
        u32::try_from(wanted).ok()
    }

    /// Ends when a further lane has had no stream for [`LANE_IDLE`]; no stream is placed on it from then on.
    pub async fn idles(&self, lane: &Lane) {
        let limit = u64::try_from(LANE_IDLE.as_millis()).unwrap_or(u64::MAX);
        loop {
            let idle = {
                let mut table = self.table();
                let idle = lane.idle(self.now());
                if idle >= limit {
                    table.further.insert(lane.number(), None);
                    return;
                }
                idle
            };
            tokio::time::sleep(Duration::from_millis(limit - idle)).await;
        }
    }

    /// The session is about to end: its streams then end with this code.
    pub fn ends_with(&self, code: Code) {
        let _ = self.0.why.set(code);
    }

    /// Closes every lane, and this is why.
    pub fn close_because(&self, why: &Failure) {
        self.ends_with(why.code);
        self.table().closed = true;
        self.attached().iter().for_each(|lane| lane.link().close_because(why.clone()));
        self.first().link().close_because(why.clone());
    }

    /// What a stream ends with whose lane is over: that code, unless the session has ended with one of its own, or its first lane has.
    #[must_use]
    pub fn lost(&self, code: Code) -> Code {
        let first = || self.first().link().why().map(mux::lost_because).filter(|why| *why != Code::SessionLost);
        self.0.why.get().copied().or_else(first).unwrap_or(code)
    }

    /// This process has slept for so long: connections that the other end has given up meanwhile are not waited for.
    pub fn woken(&self, slept: Duration) {
        let dead = |link: &Link| slept > SLEEP_BREAKS || !link.pulse().alive();
        let why = || Failure::new(Code::LinkDead, format_args!("this side has slept for {} s", slept.as_secs()));
        for lane in self.attached().iter().chain([self.first()]).filter(|lane| dead(lane.link())) {
            lane.link().give_up(why());
        }
    }

    /// Closes every lane, the first one last.
    pub fn close(&self) {
        self.table().closed = true;
        self.attached().iter().for_each(|lane| lane.link().close());
        self.first().link().close();
    }

    fn attached(&self) -> Vec<Lane> {
        self.table().further.values().flatten().cloned().collect()
    }

    /// Milliseconds since the session began.
    fn now(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bulk(&self) -> MutexGuard<'_, Vec<Arc<Meter>>> {
        self.0.bulk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn new(number: u32, opener: Opener, link: Link, now: u64) -> Self {
        let (streams, changed, worn) = (AtomicUsize::new(0), AtomicU64::new(now), AtomicBool::new(false));
        Self(Arc::new(Connection { number, opener, link, rate: Rate::default(), streams, changed, worn }))
    }

    /// Its number: 0 for the first.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.0.number
    }

    /// The connection underneath.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.0.link
    }

    fn is_worn(&self) -> bool {
        self.0.worn.load(Ordering::Relaxed)
    }

    fn enter(&self, now: u64) {
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        self.0.changed.store(now, Ordering::Relaxed);
    }

    fn leave(&self, now: u64) {
        self.0.changed.store(now, Ordering::Relaxed);
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Milliseconds without a stream.
    fn idle(&self, now: u64) -> u64 {
        let used = self.0.streams.load(Ordering::Relaxed) > 0;
        if used { 0 } else { now.saturating_sub(self.0.changed.load(Ordering::Relaxed)) }
    }
}

impl Seat {
    /// The lane's number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Runs a mux over an upgraded connection and makes it the session's lane; one whose session is over is closed at once.
    pub fn attach(&self, upgraded: Upgraded, side: Side, tasks: &Tasks) -> (Lane, Incoming) {
        let (opener, incoming, link) = mux::start(upgraded, side, tasks);
        let lanes = &self.lanes;
        link.allow(lanes.0.max_streams);
        link.resumable(lanes.0.resume_window);
        let lane = Lane::new(self.number, opener, link, lanes.now());
        let mut table = lanes.table();
        if table.closed || lanes.first().link().has_ended() {
            lane.link().close();
        }
        table.further.insert(self.number, Some(lane.clone()));
        // More may be asked for at once.
        table.asked = None;
        lanes.0.count.store(1 + table.further.values().flatten().count(), Ordering::Relaxed);
        (lane, incoming)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.lanes.table();
        table.further.remove(&self.number);
        self.lanes.0.count.store(1 + table.further.values().flatten().count(), Ordering::Relaxed);
    }
}

impl Place {
    /// The lane.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Bytes have moved, either way.
    pub fn moved(&self, bytes: usize) {
        // Where there can be one lane alone, nothing follows from it.
        if self.lanes.0.max == 1 {
            return;
        }
        let (now, bytes) = (self.lanes.now(), bytes as u64);
        self.lane.0.rate.add(now, bytes);
        self.meter.rate.add(now, bytes);
        let bulk = !self.meter.bulk.load(Ordering::Relaxed) && is_bulk(self.meter.rate.per_second(now));
        if bulk && !self.meter.bulk.swap(true, Ordering::Relaxed) {
            self.lanes.bulk().push(self.meter.clone());
            self.lanes.0.busier.notify_one();
        }
    }

    fn move_to(&mut self, lane: Lane) {
        let now = self.lanes.now();
        lane.enter(now);
        std::mem::replace(&mut self.lane, lane).leave(now);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lane.leave(self.lanes.now());
        if self.meter.bulk.load(Ordering::Relaxed) {
            self.lanes.bulk().retain(|meter| !Arc::ptr_eq(meter, &self.meter));
        }
    }
}

impl Meter {
    /// One that is no longer may become it again.
    fn is_still_bulk(&self, now: u64) -> bool {
        let bulk = is_bulk(self.rate.per_second(now));
        self.bulk.store(bulk, Ordering::Relaxed);
        bulk
    }
}

#[cfg(test)]
mod tests;
