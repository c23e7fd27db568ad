//! Lanes over in-memory pipes. Refuses to know how they are dialled and proved.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::base::limits::BULK_RATE;
use crate::tunnel::fixture::{pipes, sessions};
use crate::tunnel::session::Session;
use crate::tunnel::session::load::Rate;

/// Both ends of one lane.
struct Joined {
    agent: (Seat, Lane, Incoming),
    gateway: (Seat, Lane, Incoming),
}

/// Both ends of a session that may have four lanes.
struct Pair {
    agent: Session,
    gateway: Session,
    tasks: Tasks,
}

impl Pair {
    async fn new() -> Self {
        let (agent, gateway, tasks) = sessions(&[]).await;
        Self { agent, gateway, tasks }
    }

    async fn join(&self) -> Joined {
        let (theirs, ours) = pipes();
        let attach = |seat: Seat, pipe: Upgraded, side| {
            let (lane, incoming) = seat.attach(pipe, side, &self.tasks);
            (seat, lane, incoming)
        };
        let seat = self.agent.lanes.next_seat().unwrap();
        let gateway = self.gateway.lanes.take_seat(seat.number()).unwrap();
        Joined { agent: attach(seat, theirs, Side::Agent), gateway: attach(gateway, ours, Side::Gateway) }
    }

    async fn open(&self) -> (Stream, Place) {
        self.gateway.lanes.open().await.unwrap()
    }

    /// A stream over which so much has just moved.
    async fn moving(&self, bytes: u64) -> (Stream, Place) {
        let (stream, place) = self.open().await;
        place.moved(usize::try_from(bytes).unwrap());
        (stream, place)
    }
}

fn number(opened: &(Stream, Place)) -> u32 {
    opened.1.lane().number()
}

#[tokio::test]
async fn streams_go_to_the_idlest_lane_and_cross_there() {
    let pair = Pair::new().await;
    let first = pair.open().await;
    let mut joined = pair.join().await;
    let mut second = pair.open().await;
    assert_eq!((number(&first), number(&second)), (0, 1));
    second.0.write_all(b"over lane 1").await.unwrap();
    let mut arrived = joined.agent.2.accept().await.unwrap();
    let mut bytes = [0; 11];
    arrived.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"over lane 1");
    assert_eq!((pair.gateway.lanes.count(), pair.agent.lanes.count()), (2, 2));
    // The control stream, one stream and one stream.
    assert_eq!(pair.gateway.lanes.streams(), 3);
    drop(first);
    assert_eq!(number(&pair.open().await), 0, "lane 0 has nothing to do now");
    let _moving = pair.moving(BULK_RATE).await;
    for _ in 0..3 {
        assert_eq!(number(&pair.open().await), 1, "lane 0 is the busier one, however few streams it has");
    }
}

#[tokio::test]
async fn why_a_stream_of_a_further_lane_was_closed_is_told_apart_from_others() {
    let mut pair = Pair::new().await;
    let mut joined = pair.join().await;
    let first = pair.open().await;
    let mut second = pair.open().await;
    assert_eq!((number(&first), number(&second), first.0.id(), second.0.id()), (0, 1, 2, 2), "the same id on both lanes");
    second.0.write_all(b"?").await.unwrap();
    let arrived = joined.agent.2.accept().await.unwrap();
    pair.agent.notifier.closing(1, arrived.id(), Code::IdleTimeout);
    pair.agent.notifier.tell(crate::wire::notice::Notice::Renew);
    pair.gateway.notices.recv().await.unwrap();
    assert_eq!(pair.gateway.notifier.closed(0, 2), None);
    assert_eq!(pair.gateway.notifier.closed(1, 2), Some(Code::IdleTimeout));
    drop(arrived);
    assert_eq!(second.0.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_further_lanes_end_is_the_end_of_its_streams_alone() {
    let mut pair = Pair::new().await;
    let mut first = pair.open().await;
    let joined = pair.join().await;
    let mut second = pair.open().await;
    assert_eq!(number(&second), 1);
    joined.agent.1.link().close();
    let error = second.0.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    drop(joined);
    assert_eq!((pair.gateway.lanes.count(), pair.agent.lanes.count()), (1, 1));
    first.0.write_all(b"on").await.unwrap();
    let mut arrived = pair.agent.incoming.accept().await.unwrap();
    assert_eq!(arrived.read(&mut [0; 2]).await.unwrap(), 2);
    assert_eq!(number(&pair.open().await), 0);
}

#[tokio::test]
async fn a_lane_that_breaks_at_that_moment_is_passed_over() {
    let pair = Pair::new().await;
    let _first = pair.open().await;
    let joined = pair.join().await;
    // Nobody has noticed yet.
    joined.gateway.1.link().close();
    assert!(!joined.gateway.1.link().is_lost());
    assert_eq!(number(&pair.open().await), 0);
    assert_eq!(joined.gateway.1.0.streams.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_hundred_lanes_that_come_and_go_leave_nothing() {
    let pair = Pair::new().await;
    let before = pair.tasks.len();
    for round in 1..=100 {
        let joined = pair.join().await;
        assert_eq!(joined.gateway.0.number(), round, "no number is used twice");
        let opened = pair.open().await;
        joined.gateway.1.link().close();
        joined.agent.1.link().ended().await;
        drop((joined, opened));
    }
    assert_eq!((pair.gateway.lanes.count(), pair.agent.lanes.count()), (1, 1));
    assert!(pair.gateway.lanes.table().further.is_empty() && pair.agent.lanes.table().further.is_empty());
    while pair.tasks.len() > before {
        tokio::task::yield_now().await;
    }
    assert_eq!(pair.gateway.lanes.0.slots.available_permits(), pair.gateway.lanes.max_streams());
}

#[tokio::test]
async fn seats_are_numbered_once_and_limited() {
    let pair = Pair::new().await;
    let lanes = &pair.gateway.lanes;
    let code = |seat: Result<Seat, Failure>| seat.err().map(|failure| failure.code);
    let seats = [lanes.take_seat(1).unwrap(), lanes.take_seat(5).unwrap(), lanes.take_seat(6).unwrap()];
    assert_eq!(code(lanes.take_seat(7)), Some(Code::SessionLanes), "four with lane 0");
    drop(seats);
    for old in [0, 1, 6] {
        assert_eq!(code(lanes.take_seat(old)), Some(Code::LaneRefused), "{old}");
    }
    assert_eq!(code(lanes.take_seat(7)), None);
    lanes.close();
    assert_eq!(code(lanes.take_seat(8)), Some(Code::NotHere));
    assert_eq!(code(lanes.next_seat()), Some(Code::NotHere));
}

#[tokio::test]
async fn a_sessions_end_is_every_lanes_end_also_of_one_that_comes_too_late() {
    let pair = Pair::new().await;
    let joined = pair.join().await;
    let (late, (theirs, _theirs)) = (pair.gateway.lanes.take_seat(9).unwrap(), pipes());
    pair.gateway.lanes.close();
    for link in [joined.gateway.1.link(), &pair.gateway.link, joined.agent.1.link(), &pair.agent.link] {
        link.ended().await;
    }
    let (lane, _incoming) = late.attach(theirs, Side::Gateway, &pair.tasks);
    assert_eq!(lane.link().ended().await.code, Code::Stopping);
    assert!(pair.gateway.lanes.open().await.is_err());
}

#[tokio::test]
async fn what_ends_a_session_at_one_end_ends_the_streams_of_all_lanes_at_the_other() {
    let disabled = Failure::new(Code::AgentDisabled, "acme/dc1/a");
    let pair = Pair::new().await;
    let joined = pair.join().await;
    pair.gateway.lanes.close_because(&disabled);
    for link in [&pair.agent.link, joined.agent.1.link()] {
        assert_eq!(link.ended().await.code, Code::AgentDisabled);
    }
    // Also where lane 0 alone has told.
    let pair = Pair::new().await;
    let joined = pair.join().await;
    assert_eq!(pair.agent.lanes.lost(Code::SessionLost), Code::SessionLost);
    pair.gateway.link.close_because(disabled);
    pair.agent.link.ended().await;
    pair.agent.lanes.close();
    let further = joined.agent.1.link().ended().await;
    assert_eq!(further.code, Code::Stopping);
    assert_eq!(pair.agent.lanes.lost(mux::lost_because(&further)), Code::AgentDisabled);
}

#[tokio::test]
async fn the_limit_on_streams_is_the_sessions_and_not_each_lanes() {
    let pair = Pair::new().await;
    let _joined = pair.join().await;
    let all = u32::try_from(pair.gateway.lanes.max_streams()).unwrap();
    let mut held = pair.gateway.lanes.0.slots.clone().try_acquire_many_owned(all).unwrap();
    assert_eq!(pair.gateway.lanes.open().await.err().unwrap().code, Code::SessionStreams);
    drop(held.split(1));
    assert!(pair.gateway.lanes.open().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_idle_after_a_minute_without_a_stream_and_gets_none_from_then_on() {
    let pair = Pair::new().await;
    let joined = pair.join().await;
    let _first = pair.open().await;
    let second = pair.open().await;
    assert_eq!(number(&second), 1);
    let (lanes, lane) = (&pair.gateway.lanes, &joined.gateway.1);
    let minutes = |count: u32| tokio::time::timeout(LANE_IDLE * count, lanes.idles(lane));
    assert!(minutes(5).await.is_err(), "it has a stream");
    drop(second);
    let before = Instant::now();
    assert!(minutes(2).await.is_ok());
    assert!(before.elapsed() >= LANE_IDLE, "{:?}", before.elapsed());
    assert_eq!(number(&pair.open().await), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_closing_keeps_no_stream_waiting() {
    let pair = Pair::new().await;
    let _first = [pair.open().await, pair.open().await];
    let (_theirs, ours) = pipes();
    let seat = pair.gateway.lanes.take_seat(1).unwrap();
    let (lane, _incoming) = seat.attach(ours, Side::Gateway, &pair.tasks);
    let mut stuck = pair.open().await;
    assert_eq!(number(&stuck), 1);
    // The other end takes nothing, so that closing lasts to its deadline.
    let _ = tokio::time::timeout(Duration::from_secs(1), stuck.0.write_all(&[0; 256 * 1024])).await;
    lane.link().close();
    while !lane.link().is_lost() {
        tokio::task::yield_now().await;
    }
    let before = Instant::now();
    assert_eq!(number(&pair.open().await), 0);
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert!(!lane.link().has_ended());
}

#[tokio::test(start_paused = true)]
async fn lanes_are_asked_for_when_bulk_and_another_stream_meet_and_not_again_and_again() {
    let pair = Pair::new().await;
    let lanes = &pair.gateway.lanes;
    let soon = || tokio::time::timeout(Duration::from_millis(1), lanes.wanted());
    let mut bulk = vec![pair.moving(BULK_RATE).await];
    assert!(soon().await.is_err(), "nobody is beside it");
    let _other = pair.open().await;
    assert_eq!(soon().await, Ok(2));
    let _more = pair.open().await;
    assert!(soon().await.is_err(), "it was asked for just now");
    tokio::time::sleep(LANES_ASK_PAUSE).await;
    bulk.push(pair.moving(BULK_RATE).await);
    assert_eq!(soon().await, Ok(2), "the first is no longer bulk, and the lane did not come");
    let joined = pair.join().await;
    for _ in 0..3 {
        bulk.push(pair.moving(BULK_RATE).await);
    }
    assert_eq!(soon().await, Ok(4), "what was asked for came");
    tokio::time::sleep(LANES_ASK_PAUSE).await;
    let _last = pair.open().await;
    assert!(soon().await.is_err(), "nothing moves any more");
    drop(joined);
    drop(bulk);
    assert!(lanes.bulk().is_empty(), "what has ended is forgotten");
}

#[tokio::test]
async fn where_there_can_be_one_lane_nothing_is_counted() {
    let (agent, _gateway, _tasks) = sessions(&[]).await;
    let lanes = Lanes::new(agent.lanes.first().0.opener.clone(), agent.link.clone(), 1, 10, Duration::ZERO);
    let (_stream, place) = lanes.open().await.unwrap();
    place.moved(usize::try_from(9 * BULK_RATE).unwrap());
    assert!(lanes.bulk().is_empty());
    assert_eq!(Rate::default().per_second(0), place.lane().0.rate.per_second(0));
    assert_eq!(lanes.take_seat(1).err().unwrap().code, Code::SessionLanes);
}
