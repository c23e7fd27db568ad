//! What one stream keeps in memory, and how its window grows and shrinks.

use super::*;
use crate::base::limits::SESSION_GROWTH;

const WINDOW: usize = STREAM_WINDOW;

fn entry() -> (Entry, Instant) {
    let now = Instant::now();
    (Entry::new(Greeting::Done, now), now)
}

/// A slice of a read buffer, and where it lies.
fn slice(length: usize) -> (Bytes, *const u8) {
    let bytes = Bytes::from(vec![7; READ_BUFFER]).slice(..length);
    let at = bytes.as_ptr();
    (bytes, at)
}

#[test]
fn small_slices_are_copied_out_of_their_buffer_and_large_ones_are_not() {
    for (length, held, copied) in
        [(1, 1, true), (READ_BUFFER / 4 - 1, READ_BUFFER / 4 - 1, true), (READ_BUFFER / 4, READ_BUFFER, false)]
    {
        let (mut entry, _) = entry();
        let (bytes, at) = slice(length);
        assert_eq!(entry.reading.deliver(bytes), held + CHUNK_COST, "{length}");
        let (bytes, freed) = entry.reading.take(usize::MAX).unwrap();
        assert_eq!((bytes.len(), freed, bytes.as_ptr() != at), (length, held + CHUNK_COST, copied), "{length}");
        assert_eq!((entry.reading.held, entry.reading.unread), (0, 0));
    }
}

#[test]
fn a_reader_that_lags_behind_holds_what_it_has_not_read_and_no_whole_buffers() {
    let (mut entry, _) = entry();
    entry.reading.deliver(slice(READ_BUFFER).0);
    entry.reading.deliver(slice(READ_BUFFER / 2).0);
    let (bytes, at) = slice(READ_BUFFER / 2);
    assert_eq!(entry.reading.deliver(bytes), READ_BUFFER / 2 + CHUNK_COST);
    entry.reading.take(usize::MAX);
    entry.reading.take(usize::MAX);
    assert_ne!(entry.reading.take(usize::MAX).unwrap().0.as_ptr(), at);
}

#[test]
fn a_buffer_is_held_until_its_last_byte_is_read() {
    let (mut entry, _) = entry();
    let held = entry.reading.deliver(slice(READ_BUFFER).0);
    let (part, freed) = entry.reading.take(READ_BUFFER - 1).unwrap();
    assert_eq!((part.len(), freed, entry.reading.held), (READ_BUFFER - 1, 0, held));
    assert_eq!(entry.reading.take(9).map(|(rest, freed)| (rest.len(), freed)), Some((1, held)));
    assert!(entry.reading.take(9).is_none());
}

const RTT: Duration = Duration::from_millis(100);

/// What the window has grown to for a reader of so many windows in a round trip, after a while.
fn window_at(windows_in_round_trip: f64, budget: &mut usize) -> usize {
    let (mut entry, mut now) = entry();
    for _ in 0..3000 {
        let share = (entry.reading.window / 2).min(CREDIT_STEP);
        now += RTT.mul_f64(f64::from(share) / f64::from(entry.reading.window) / windows_in_round_trip);
        entry.reading.left -= share;
        entry.reading.consume(share as usize, || now, RTT, budget);
        entry.reading.credit = 0;
    }
    entry.reading.window as usize
}

#[test]
fn a_window_grows_while_it_is_what_limits_its_sender_and_no_further() {
    let mut budget = SESSION_GROWTH;
    // Who sends a window in each round trip waits for credit.
    assert_eq!(window_at(1.0, &mut budget), STREAM_WINDOW_MAX as usize);
    assert_eq!(budget, SESSION_GROWTH + WINDOW - STREAM_WINDOW_MAX as usize);
    // Who needs four for it doesn't.
    assert_eq!(window_at(0.25, &mut budget), WINDOW);
}

#[test]
fn windows_grow_within_the_sessions_budget() {
    let mut budget = 2 * WINDOW;
    assert_eq!((window_at(1.0, &mut budget), budget), (3 * WINDOW, 0));
    assert_eq!((window_at(1.0, &mut budget), budget), (WINDOW, 0));
}

#[test]
fn a_window_that_has_shrunk_is_not_granted_again() {
    let (mut entry, mut now) = entry();
    let mut budget = SESSION_GROWTH;
    let reading = &mut entry.reading;
    while reading.window < 4 << 20 {
        let share = (reading.window / 2).min(CREDIT_STEP);
        now += RTT.mul_f64(f64::from(share) / f64::from(reading.window));
        reading.left -= share;
        reading.consume(share as usize, || now, RTT, &mut budget);
        reading.credit = 0;
    }
    let granted = reading.left as usize;
    assert_eq!(reading.shrink(), (4 << 20) - WINDOW);
    // The peer uses up what it was granted, and is granted nothing before it is below what a window is now.
    let (mut used, mut told) = (0, 0);
    while used < granted {
        let share = WINDOW / 2;
        reading.left -= u32::try_from(share).unwrap();
        used += share;
        now += Duration::from_secs(1);
        reading.consume(share, || now, RTT, &mut budget);
        told += std::mem::take(&mut reading.credit) as usize;
        assert!(reading.left as usize >= WINDOW / 2, "the peer never runs dry");
    }
    assert_eq!(told, WINDOW, "what was granted before counts");
    assert_eq!(reading.left as usize, WINDOW);
}

#[test]
fn the_peer_is_told_once_in_half_a_window_and_not_behind_its_end() {
    let (mut entry, now) = entry();
    let (reading, mut budget) = (&mut entry.reading, 0);
    let mut read = |reading: &mut Reading, count: usize| {
        reading.left = reading.left.saturating_sub(u32::try_from(count).unwrap());
        reading.consume(count, || now, Duration::ZERO, &mut budget)
    };
    assert!(!read(reading, WINDOW / 2 - 1));
    assert!(read(reading, 1));
    assert_eq!(reading.credit as usize, WINDOW / 2);
    // What waits to be told is told with it.
    assert!(!read(reading, WINDOW / 2));
    assert_eq!(reading.credit as usize, WINDOW);
    reading.end = Some(End::Finished);
    assert!(!read(reading, WINDOW));
    assert_eq!(reading.credit as usize, WINDOW);
}

#[test]
fn what_waits_to_be_sent_is_limited_in_bytes_and_in_chunks() {
    let (mut entry, _) = entry();
    entry.writing.queued = SEND_QUEUE - 1;
    assert!(entry.writing.has_room());
    entry.writing.queued = SEND_QUEUE;
    assert!(!entry.writing.has_room());
    entry.writing.queued = SEND_CHUNKS;
    entry.writing.outbox = vec![Bytes::from_static(b"x"); SEND_CHUNKS].into();
    assert!(!entry.writing.has_room());
    entry.writing.outbox.pop_front();
    assert!(entry.writing.has_room());
}
