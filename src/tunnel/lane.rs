//! Whether a lane's connection is alive: when its last frame came, whether what this end sent gets through, and how long a heartbeat
//! took to come back. `Heart` beats in the task that runs the lane, [`Pulse`] is what the session and the status see of it.
//! Refuses to send or to read anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::limits::{DEAD_AFTER, HEARTBEAT, STUCK_AFTER};
use crate::wire::heartbeat::Heartbeat;

/// Round trips of which the shortest is taken for the path's: 16 s of them.
const ROUND_TRIPS: usize = 8;

/// Heartbeats whose echo is awaited: a slow path that moves may hold 32 s of them.
const OUTSTANDING: usize = 16;

/// Heartbeats of the peer without news of what was sent, until that counts as stuck. Between two of them the peer waited for
/// [`HEARTBEAT`] and got nothing; before that the news may lie in a long queue behind bulk, which comes all the while.
const WITHOUT_NEWS: u32 = 2;

/// News that are later than this are taken for lost, whatever comes instead. A link of 1 Mbit/s with 4 MiB in a program's buffers is as late.
const NEWS_WITHIN: Duration = Duration::from_secs(30);

/// Without a frame for so long, a peer that sends its heartbeats is no longer heard.
const UNHEARD_AFTER: Duration = HEARTBEAT.saturating_add(HEARTBEAT.checked_div(2).expect("not by zero"));

/// Keeps the time of one connection's heartbeats.
pub(super) struct Heart {
    pulse: Pulse,
    next: Instant,
    /// Whether a heartbeat is to be sent.
    due: bool,
    /// The last one sent.
    sequence: u64,
    /// Those that have not come back.
    outstanding: VecDeque<Beat>,
    round_trips: VecDeque<Duration>,
}

/// A heartbeat on its way.
struct Beat {
    sequence: u64,
    sent: Instant,
    /// Bytes of streams that went out before it.
    offset: u64,
}

/// A heartbeat that came back.
pub(super) struct Echo {
    /// The path's round trip: the shortest of the last ones, since the others have waited in queues.
    pub(super) round_trip: Duration,
    /// The peer has read all up to here: it reads in order, and what it echoes lay behind.
    pub(super) offset: u64,
}

impl Heart {
    /// The heart of a connection on which `beats` heartbeats have been sent, the last one now.
    pub(super) fn new(pulse: Pulse, beats: u64, now: Instant) -> Self {
        pulse.begin(now);
        if beats > 0 {
            pulse.waits(now);
        }
        Self {
            pulse,
            next: now + HEARTBEAT,
            // The first round trip is wanted soon: windows grow by it.
            due: beats == 0,
            sequence: beats,
            outstanding: (1..=beats).map(|sequence| Beat { sequence, sent: now, offset: 0 }).collect(),
            round_trips: VecDeque::new(),
        }
    }

    /// When something is to be done next: a heartbeat, or a verdict.
    pub(super) fn deadline(&self) -> Instant {
        self.next.min(self.pulse.verdict_at(Instant::now()))
    }

    /// Whether the next heartbeat has just become due.
    pub(super) fn beats(&mut self, now: Instant) -> bool {
        let beats = now >= self.next;
        if beats {
            (self.due, self.next) = (true, now + HEARTBEAT);
        }
        beats
    }

    /// The heartbeat to send now, if any, behind so many bytes sent; it tells how many were received.
    pub(super) fn take_due(&mut self, received: u64, sent: u64) -> Option<[u8; 17]> {
        if !std::mem::take(&mut self.due) {
            return None;
        }
        self.sequence += 1;
        if self.outstanding.len() == OUTSTANDING {
            self.outstanding.pop_front();
        }
        let now = Instant::now();
        self.outstanding.push_back(Beat { sequence: self.sequence, sent: now, offset: sent });
        self.pulse.waits(now);
        Some(Heartbeat { kind: Heartbeat::PING, sequence: self.sequence, received }.to_bytes())
    }

    /// Something came.
    pub(super) fn heard(&self, now: Instant) {
        self.pulse.frame(now);
    }

    /// A heartbeat of the peer told of nothing that has got through.
    pub(super) fn without_news(&self) {
        self.pulse.0.without_news.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether by such heartbeats the verdict may have come nearer.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.pulse.is_in_doubt()
    }

    /// Bytes of streams went out.
    pub(super) fn waits(&self) {
        if !self.pulse.is_waiting() {
            self.pulse.waits(Instant::now());
        }
    }

    /// What was sent has got through, or some of it; so many bytes of streams are still outstanding.
    pub(super) fn moved(&self, outstanding: u64, now: Instant) {
        if outstanding > 0 || !self.outstanding.is_empty() {
            self.pulse.moved(now);
        } else {
            self.pulse.waits_for_nothing();
        }
    }

    /// A Pong came; `None` if it is no echo that is awaited.
    pub(super) fn echoed(&mut self, echo: Heartbeat, now: Instant) -> Option<Echo> {
        let place = self.outstanding.iter().position(|beat| beat.sequence == echo.sequence)?;
        let Beat { sent, offset, .. } = self.outstanding.drain(..=place).next_back()?;
        let took = now.saturating_duration_since(sent);
        self.pulse.echoed(took);
        if self.round_trips.len() == ROUND_TRIPS {
            self.round_trips.pop_front();
        }
        self.round_trips.push_back(took);
        Some(Echo { round_trip: self.round_trips.iter().min().copied().unwrap_or(took), offset })
    }
}

/// The signs of life of one lane, shared between the driver, which sees the frames, and whoever asks. No lock on any path.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Signs>);

/// All times are milliseconds since `start`, by a clock that only goes forward.
#[derive(Debug)]
struct Signs {
    start: Instant,
    last_frame: AtomicU64,
    /// Since when what was sent has not moved; [`NOTHING`] when all of it has got through.
    waiting: AtomicU64,
    /// The peer's heartbeats since then.
    without_news: AtomicU32,
    /// Microseconds; 0 before the first echo.
    round_trip: AtomicU64,
    /// Between two connections.
    paused: AtomicBool,
}

const NOTHING: u64 = u64::MAX;

/// Why a connection counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dead {
    /// The peer, or the way from it.
    #[error("nothing received for 5 s")]
    Silent,
    /// The same, of which an unanswered heartbeat tells first.
    #[error("nothing received and no answer for 4 s")]
    Unanswered,
    /// The way to the peer.
    #[error(
        "the peer is heard, but nothing sent got through for 4 s: the path loses what this side sends, perhaps for its size"
    )]
    Stuck,
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

impl Pulse {
    /// A lane that is alive as of now.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Signs {
            start: Instant::now(),
            last_frame: AtomicU64::new(0),
            waiting: AtomicU64::new(NOTHING),
            without_news: AtomicU32::new(0),
            round_trip: AtomicU64::new(0),
            paused: AtomicBool::new(false),
        }))
    }

    /// A new connection.
    fn begin(&self, now: Instant) {
        self.frame(now);
        self.waits_for_nothing();
        self.0.paused.store(false, Ordering::Release);
    }

    /// The connection is gone, and the lane waits for another.
    pub(super) fn pause(&self) {
        self.0.paused.store(true, Ordering::Release);
    }

    /// Whether the lane is between two connections.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.0.paused.load(Ordering::Acquire)
    }

    /// A frame came.
    pub(super) fn frame(&self, now: Instant) {
        self.0.last_frame.store(self.millis(now), Ordering::Relaxed);
    }

    /// Something was sent while nothing was outstanding.
    fn waits(&self, now: Instant) {
        let began = self.0.waiting.compare_exchange(NOTHING, self.millis(now), Ordering::Relaxed, Ordering::Relaxed);
        if began.is_ok() {
            self.0.without_news.store(0, Ordering::Relaxed);
        }
    }

    /// Some of what is outstanding has got through.
    fn moved(&self, now: Instant) {
        self.0.waiting.store(self.millis(now), Ordering::Relaxed);
        self.0.without_news.store(0, Ordering::Relaxed);
    }

    /// Whether the peer has told often enough that nothing got through.
    fn is_in_doubt(&self) -> bool {
        self.0.without_news.load(Ordering::Relaxed) >= WITHOUT_NEWS
    }

    fn waits_for_nothing(&self) {
        self.0.waiting.store(NOTHING, Ordering::Relaxed);
    }

    /// For how long nothing of what is outstanding has got through.
    #[cfg(test)]
    pub(super) fn stuck(&self) -> Duration {
        let waiting = self.0.waiting.load(Ordering::Relaxed);
        if waiting == NOTHING { Duration::ZERO } else { self.since(waiting, Instant::now()) }
    }

    fn is_waiting(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) != NOTHING
    }

    /// A heartbeat came back.
    fn echoed(&self, after: Duration) {
        self.0.round_trip.store(u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// How long ago the last frame came.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since(self.0.last_frame.load(Ordering::Relaxed), Instant::now())
    }

    /// The last heartbeat's round trip.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        Some(self.0.round_trip.load(Ordering::Relaxed)).filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// What "connected" means everywhere.
    #[must_use]
    pub fn alive(&self) -> bool {
        !self.is_paused() && self.dead(Instant::now()).is_none()
    }

    /// Whether the connection counts as dead, and why.
    #[must_use]
    pub fn dead(&self, now: Instant) -> Option<Dead> {
        let (at, why) = self.verdict();
        (now >= at).then_some(why)
    }

    /// When the connection counts as dead if nothing more comes, and why.
    fn verdict(&self) -> (Instant, Dead) {
        let at = |millis: u64| self.0.start + Duration::from_millis(millis);
        let (waiting, heard) = (self.0.waiting.load(Ordering::Relaxed), self.0.last_frame.load(Ordering::Relaxed));
        let silent = (at(heard) + DEAD_AFTER, Dead::Silent);
        if waiting == NOTHING {
            return silent;
        }
        let (stuck, unheard) = (at(waiting) + STUCK_AFTER, at(heard) + UNHEARD_AFTER);
        let verdict = if self.is_in_doubt() && unheard > stuck {
            (stuck, Dead::Stuck)
        } else if heard <= waiting {
            (stuck, Dead::Unanswered)
        } else {
            (stuck.max(unheard), Dead::Unanswered)
        };
        let late = (at(waiting) + NEWS_WITHIN, Dead::Stuck);
        [verdict, silent, late].into_iter().min_by_key(|(at, _)| *at).expect("there are three")
    }

    /// Before then it can't be dead, whatever happens or doesn't, but by a heartbeat without news.
    fn verdict_at(&self, now: Instant) -> Instant {
        // What is sent later may be stuck sooner.
        let (at, _) = self.verdict();
        if self.is_waiting() { at } else { at.min(now + STUCK_AFTER) }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.0.start).as_millis()).unwrap_or(NOTHING - 1)
    }

    fn since(&self, millis: u64, now: Instant) -> Duration {
        now.saturating_duration_since(self.0.start + Duration::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(sequence: u64) -> Heartbeat {
        Heartbeat { kind: Heartbeat::PING, sequence, received: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_dies_of_five_seconds_of_silence_and_of_nothing_less() {
        let pulse = Pulse::new();
        for _ in 0..10 {
            tokio::time::advance(Duration::from_millis(4900)).await;
            assert!(pulse.alive());
            pulse.frame(Instant::now());
        }
        let verdict = pulse.verdict_at(Instant::now());
        assert_eq!(verdict, Instant::now() + STUCK_AFTER, "something sent right now may be stuck then");
        tokio::time::advance(DEAD_AFTER).await;
        assert_eq!((pulse.alive(), pulse.dead(Instant::now())), (false, Some(Dead::Silent)));
    }

    #[tokio::test(start_paused = true)]
    async fn c1_f8_a_lane_dies_when_nothing_sent_gets_through_for_four_seconds_though_its_peer_is_heard() {
        let pulse = Pulse::new();
        let mut heart = Heart::new(pulse.clone(), 1, Instant::now());
        // The echo of the first, and of none after it.
        assert!(heart.echoed(echo(1), Instant::now()).is_some());
        heart.moved(0, Instant::now());
        for second in 0..6 {
            assert!(pulse.alive(), "after {second} s");
            heart.heard(Instant::now());
            if second % 2 == 1 {
                heart.without_news();
            }
            if heart.beats(Instant::now()) {
                assert!(heart.take_due(0, 0).is_some());
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(pulse.dead(Instant::now()), Some(Dead::Stuck));
    }

    #[tokio::test(start_paused = true)]
    async fn f12_a_lane_whose_news_wait_behind_bulk_that_comes_is_alive_until_heartbeats_come_without_any() {
        let pulse = Pulse::new();
        let mut heart = Heart::new(pulse.clone(), 1, Instant::now());
        heart.waits();
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            heart.heard(Instant::now());
            if heart.beats(Instant::now()) {
                assert!(heart.take_due(0, 0).is_some());
            }
            assert!(pulse.alive() && heart.deadline() > Instant::now());
        }
        heart.without_news();
        assert!(pulse.alive() && !heart.is_in_doubt(), "written just after news that is on its way, perhaps");
        heart.without_news();
        assert!(heart.is_in_doubt() && heart.deadline() <= Instant::now());
        assert_eq!(pulse.dead(Instant::now()), Some(Dead::Stuck));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_everything_but_news_and_heartbeats_is_dead_in_half_a_minute() {
        let pulse = Pulse::new();
        let heart = Heart::new(pulse.clone(), 1, Instant::now());
        let since = Instant::now();
        while pulse.alive() {
            tokio::time::advance(Duration::from_secs(1)).await;
            heart.heard(Instant::now());
        }
        assert_eq!((since.elapsed(), pulse.dead(Instant::now())), (NEWS_WITHIN, Some(Dead::Stuck)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_of_which_nothing_is_heard_while_it_waits_dies_a_second_sooner_than_an_idle_one() {
        let pulse = Pulse::new();
        let _heart = Heart::new(pulse.clone(), 1, Instant::now());
        assert_eq!(pulse.verdict_at(Instant::now()), Instant::now() + STUCK_AFTER);
        tokio::time::advance(STUCK_AFTER).await;
        assert_eq!(pulse.dead(Instant::now()), Some(Dead::Unanswered));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_queue_that_moves_is_alive_though_its_oldest_byte_is_old() {
        let pulse = Pulse::new();
        let mut heart = Heart::new(pulse.clone(), 1, Instant::now());
        heart.waits();
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(3900)).await;
            heart.heard(Instant::now());
            heart.moved(1, Instant::now());
            assert!(pulse.alive());
        }
        assert!(heart.echoed(echo(1), Instant::now()).is_some(), "78 s late");
        assert!(heart.echoed(echo(1), Instant::now()).is_none(), "twice");
        heart.moved(0, Instant::now());
        tokio::time::advance(Duration::from_millis(4900)).await;
        assert!(pulse.alive(), "nothing is outstanding");
    }

    #[tokio::test(start_paused = true)]
    async fn an_echo_acknowledges_what_was_sent_before_its_heartbeat() {
        let mut heart = Heart::new(Pulse::new(), 0, Instant::now());
        assert!(heart.take_due(0, 100).is_some() && heart.take_due(0, 100).is_none(), "one at once, then each in its time");
        tokio::time::advance(HEARTBEAT).await;
        assert!(heart.beats(Instant::now()) && !heart.beats(Instant::now()));
        let beat = Heartbeat::from_bytes(&heart.take_due(7, 300).unwrap()).unwrap();
        assert_eq!((beat.sequence, beat.received), (2, 7));
        assert!(heart.echoed(echo(3), Instant::now()).is_none(), "never sent");
        assert_eq!(heart.echoed(echo(1), Instant::now()).unwrap().offset, 100);
        assert_eq!(heart.echoed(echo(2), Instant::now()).unwrap().offset, 300);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_between_two_connections_is_not_alive_and_begins_anew_with_the_next() {
        let pulse = Pulse::new();
        pulse.pause();
        assert!(!pulse.alive());
        tokio::time::advance(DEAD_AFTER).await;
        let _heart = Heart::new(pulse.clone(), 1, Instant::now());
        assert!(pulse.alive() && !pulse.is_paused());
    }
}
