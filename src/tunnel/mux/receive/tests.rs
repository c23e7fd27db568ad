//! Frames as a peer may send them, and as it may not.

use std::task::Poll;
use std::time::Duration;

use super::*;
use crate::base::limits::{MAX_MESSAGE, STREAM_WINDOW};
use crate::base::memory::Budget;
use crate::tunnel::mux::engine::Broken;
use crate::tunnel::mux::rig::{ACK, FIN, NONE, RST, Rig, SYN, data};

const WINDOW: u32 = 256 * 1024;

fn header(kind: Kind, flags: Flags, id: u32, length: u32) -> Vec<u8> {
    Header::new(kind, flags, id, length).encode().to_vec()
}

/// Bytes that repeat after no power of two.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn frames_may_come_in_any_pieces() {
    let body = pattern(300);
    let wire = [
        data(SYN, 1, b"hello "),
        header(Kind::WindowUpdate, NONE, 1, 99),
        header(Kind::Ping, SYN, 0, 0xdead_beef),
        data(NONE, 1, b""),
        data(NONE, 1, &body),
        header(Kind::WindowUpdate, SYN, 3, 7),
        data(FIN, 1, b"."),
        header(Kind::GoAway, NONE, 0, 0),
        header(Kind::WindowUpdate, RST, 3, 0),
    ]
    .concat();
    let cuts = (1..=wire.len()).map(|size| wire.chunks(size).collect::<Vec<_>>());
    let twice = (0..wire.len()).map(|at| vec![&wire[..at], &wire[at..]]);
    for pieces in cuts.chain(twice) {
        let sizes: Vec<_> = pieces.iter().map(|piece| piece.len()).collect();
        let mut rig = Rig::new();
        for piece in pieces {
            rig.receive(piece.to_vec()).unwrap();
        }
        assert_eq!((rig.accept(), rig.accept(), rig.accept()), (Some(1), Some(3), None), "{sizes:?}");
        let said = [&b"hello "[..], &body, b"."].concat();
        assert_eq!(rig.read(1), (said, Poll::Ready(Ok(()))), "{sizes:?}");
        assert_eq!(rig.read(3), (vec![], Poll::Ready(Err(Broken::Reset))), "{sizes:?}");
        assert_eq!(rig.told(), [(Kind::Ping, 2, 0, 0xdead_beef)], "{sizes:?}");
        assert!(rig.engine.farewell && rig.engine.streams[&1].writing.credit == WINDOW + 99, "{sizes:?}");
    }
}

#[test]
fn a_stream_may_begin_speak_and_end_in_one_frame() {
    for kind in [Kind::Data, Kind::WindowUpdate] {
        let mut rig = Rig::new();
        match kind {
            Kind::Data => rig.data(SYN.with(FIN), 1, b"all"),
            _ => rig.control(kind, SYN.with(FIN), 1, 3),
        }
        let id = rig.accept().unwrap();
        let said = if kind == Kind::Data { b"all".to_vec() } else { vec![] };
        assert_eq!(rig.read(id), (said, Poll::Ready(Ok(()))), "{kind:?}");
        rig.write(id, b"answer");
        assert_eq!(rig.told(), [(Kind::Data, 2, 1, 6)], "{kind:?}: the answer acknowledges");
    }
}

#[test]
fn a_stream_that_begins_with_a_reset_is_one_that_was_reset() {
    for flags in [SYN.with(RST), SYN.with(RST).with(FIN), Flags(0xffff)] {
        let mut rig = Rig::new();
        rig.data(flags, 1, b"x");
        let id = rig.accept().unwrap();
        assert_eq!(rig.read(id), (b"x".to_vec(), Poll::Ready(Err(Broken::Reset))), "{flags:?}");
        rig.engine.release(id);
        assert_eq!(rig.told(), [], "{flags:?}");
        assert!(rig.engine.streams.is_empty(), "{flags:?}");
    }
}

#[test]
fn unknown_flags_mean_nothing() {
    let mut rig = Rig::new();
    rig.data(Flags(0xfff1), 1, b"x");
    assert_eq!(rig.accept(), Some(1));
    assert_eq!(rig.read(1), (b"x".to_vec(), Poll::Pending));
}

#[test]
fn t1_each_side_opens_ids_of_its_own() {
    for (side, wrong, right) in [(Side::Gateway, 2, 1), (Side::Agent, 1, 2)] {
        for kind in [Kind::Data, Kind::WindowUpdate] {
            let mut rig = Rig::of(side, 8);
            assert_eq!(rig.receive(header(kind, SYN, wrong, 0)), Err(Violation::Parity(wrong)));
            let mut rig = Rig::of(side, 8);
            assert_eq!(rig.receive(header(kind, SYN, right, 0)), Ok(()));
            assert_eq!(rig.receive(header(kind, SYN, right, 0)), Err(Violation::InUse(right)));
        }
    }
}

#[test]
fn an_id_may_be_used_again_once_nothing_is_left_of_it() {
    let mut rig = Rig::new();
    for round in 0..3 {
        rig.data(SYN.with(FIN), 1, b"x");
        assert_eq!(rig.accept(), Some(1), "{round}");
        assert_eq!(rig.finish(1), Poll::Pending);
        rig.sent();
        rig.engine.release(1);
        assert!(rig.engine.streams.is_empty());
    }
}

#[test]
fn what_cannot_be_understood_ends_the_connection() {
    for (bytes, why) in [
        (vec![1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "yamux: version 1 is not 0"),
        (vec![0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "yamux: there is no frame type 4"),
        (header(Kind::Data, NONE, 1, (1 << 24) + 1), "yamux: a frame of 16777217 bytes, more than any window"),
        (header(Kind::Data, SYN, 1, u32::MAX), "yamux: a frame of 4294967295 bytes, more than any window"),
    ] {
        assert_eq!(Rig::new().receive(bytes).unwrap_err().to_string(), why);
    }
}

#[test]
fn t1_an_overrun_hurts_its_own_stream_alone() {
    // At once, with the first frame (CVE-2026-32314), and little by little.
    for pieces in [vec![WINDOW + 1], vec![WINDOW, 1], vec![1 << 20], vec![WINDOW / 2; 3]] {
        let mut rig = Rig::new();
        let other = rig.accepted(3);
        rig.data(NONE, other, b"be");
        for (index, piece) in pieces.iter().enumerate() {
            rig.data(if index == 0 { SYN } else { NONE }, 1, &vec![7; *piece as usize]);
        }
        assert_eq!(rig.accept(), Some(1));
        assert_eq!(rig.read(1), (vec![], Poll::Ready(Err(Broken::Failed(Code::ProtocolViolation)))), "{pieces:?}");
        assert_eq!(rig.poll_write(1, b"x"), Poll::Ready(Err(Broken::Failed(Code::ProtocolViolation))));
        rig.data(NONE, 1, b"more of it");
        rig.engine.release(1);
        assert_eq!(rig.told(), [(Kind::Data, 2 | 8, 1, 0)], "{pieces:?}");
        rig.data(NONE, other, b"fore");
        assert_eq!(rig.read(other), (b"before".to_vec(), Poll::Pending));
        assert_eq!((rig.engine.held, rig.engine.streams.len()), (0, 1));
    }
}

#[test]
fn t1_credit_beyond_any_number_hurts_its_own_stream_alone() {
    for flags in [NONE, SYN] {
        let mut rig = Rig::new();
        let other = rig.accepted(3);
        if flags == NONE {
            rig.data(SYN, 1, b"");
        }
        rig.control(Kind::WindowUpdate, flags, 1, u32::MAX);
        rig.accept().unwrap();
        assert_eq!(rig.poll_write(1, b"x"), Poll::Ready(Err(Broken::Failed(Code::ProtocolViolation))));
        rig.credit(77, u32::MAX);
        rig.credit(77, u32::MAX);
        rig.write(other, b"on");
        assert_eq!(rig.told(), [(Kind::Data, 2, 3, 2)]);
    }
}

#[test]
fn the_largest_credit_is_taken() {
    let mut rig = Rig::new();
    let id = rig.accepted(1);
    rig.credit(id, u32::MAX - WINDOW);
    rig.write(id, b"x");
    assert_eq!(rig.told(), [(Kind::Data, 2, 1, 1)]);
}

#[test]
fn what_comes_for_streams_that_are_not_there_is_passed_over() {
    let mut rig = Rig::new();
    let ended = rig.accepted(1);
    rig.data(FIN, ended, b"x");
    let reset = rig.accepted(3);
    rig.data(RST, reset, b"");
    let dropped = rig.accepted(5);
    rig.engine.release(dropped);
    for id in [0, 1, 3, 5, 77, 78, u32::MAX] {
        for flags in [NONE, ACK, FIN, RST, FIN.with(RST)] {
            rig.data(flags, id, b"late");
            rig.control(Kind::WindowUpdate, flags, id, 5);
        }
    }
    assert_eq!(rig.read(ended), (b"x".to_vec(), Poll::Ready(Ok(()))));
    assert_eq!(rig.read(reset), (vec![], Poll::Ready(Err(Broken::Reset))));
    rig.data(SYN, 9, b"next");
    assert_eq!(rig.accept(), Some(9));
    assert_eq!(rig.read(9), (b"next".to_vec(), Poll::Pending));
    assert_eq!(rig.engine.held, 0);
}

#[test]
fn stream_0_is_nobodys() {
    let mut rig = Rig::new();
    rig.data(SYN, 0, b"x");
    rig.control(Kind::WindowUpdate, SYN, 0, 9);
    assert_eq!((rig.accept(), rig.told().len()), (None, 0));
}

#[test]
fn pings_are_answered_with_their_value_in_order_and_answers_are_not() {
    let mut rig = Rig::new();
    for value in [7, 0, u32::MAX] {
        rig.control(Kind::Ping, SYN, 5, value);
        rig.control(Kind::Ping, ACK, 0, value);
    }
    assert_eq!(rig.told(), [7, 0, u32::MAX].map(|value| (Kind::Ping, 2, 0, value)));
}

#[test]
fn d3_pings_are_all_answered_and_unread_answers_stop_the_reading() {
    let mut rig = Rig::new();
    let limit = u32::try_from(CONTROL_QUEUE).unwrap();
    for value in 0..limit {
        assert!(!rig.engine.is_congested(), "{value}");
        rig.control(Kind::Ping, SYN, 0, value);
    }
    assert!(rig.engine.is_congested());
    rig.message();
    assert!(!rig.engine.is_congested());
    for value in limit..limit + 5 {
        rig.control(Kind::Ping, SYN, 0, value);
    }
    // What the first message held is missing here, and nothing else.
    let answers: Vec<_> = rig.told().iter().map(|(_, _, _, value)| *value).collect();
    assert!(answers.windows(2).all(|pair| pair[1] == pair[0] + 1) && answers.last() == Some(&(limit + 4)), "{answers:?}");
}

#[test]
fn a_farewell_ends_opening_and_nothing_else() {
    let mut rig = Rig::new();
    let id = rig.accepted(1);
    rig.control(Kind::GoAway, NONE, 0, 0);
    assert_eq!(rig.engine.open(rig.now), None);
    rig.data(FIN, id, b"last");
    assert_eq!(rig.read(id), (b"last".to_vec(), Poll::Ready(Ok(()))));
    rig.write(id, b"answer");
    assert_eq!(rig.told(), [(Kind::Data, 2, 1, 6)]);
    // What was on its way is taken.
    rig.data(SYN, 3, b"x");
    assert_eq!(rig.accept(), Some(3));
}

#[test]
fn a_stream_too_many_is_reset_and_costs_no_other() {
    let mut rig = Rig::of(Side::Gateway, 2);
    let (first, _) = (rig.accepted(1), rig.accepted(3));
    rig.data(SYN.with(FIN), 5, b"too many");
    rig.data(SYN, 7, b"too many");
    assert_eq!((rig.accept(), rig.engine.open(rig.now)), (None, None));
    assert_eq!(rig.told(), [5, 7].map(|id| (Kind::Data, 8, id, 0)));
    rig.data(FIN, first, b"x");
    assert_eq!(rig.read(first), (b"x".to_vec(), Poll::Ready(Ok(()))));
    assert_eq!(rig.finish(first), Poll::Pending);
    rig.sent();
    rig.engine.release(first);
    assert_eq!(rig.accepted(9), 9);
}

/// Streams that the peer opens and drops, until one is refused.
fn churned(rig: &mut Rig, first: u32) -> u32 {
    for taken in 0.. {
        rig.data(SYN.with(RST), first + 2 * taken, b"");
        match rig.accept() {
            Some(id) => rig.engine.release(id),
            None => return taken,
        }
    }
    unreachable!()
}

#[test]
fn d3_streams_opened_and_dropped_are_limited_in_their_rate() {
    let mut rig = Rig::new();
    let burst = churned(&mut rig, 1);
    assert_eq!(burst, CHURN_BURST);
    assert_eq!(rig.told(), [(Kind::Data, 8, 1 + 2 * burst, 0)], "the refused one is reset");
    rig.pass(Duration::from_millis(999));
    assert_eq!(churned(&mut rig, 1_000_001), 0);
    rig.pass(Duration::from_millis(1));
    assert_eq!(churned(&mut rig, 2_000_001), CHURN_PER_SECOND);
    rig.pass(Duration::from_secs(3600));
    assert_eq!(churned(&mut rig, 3_000_001), CHURN_BURST, "no more is saved up");
    assert!(rig.engine.streams.is_empty() && rig.engine.sparse.is_empty() && rig.engine.bulk.is_empty());
}

#[test]
fn d3_streams_whose_reset_the_peer_brings_about_are_limited_like_those_it_drops() {
    let mut rig = Rig::new();
    let mut taken = 0;
    for id in (1..).step_by(2) {
        rig.data(SYN, id, b"work");
        let Some(id) = rig.accept() else { break };
        rig.control(Kind::WindowUpdate, NONE, id, u32::MAX);
        rig.engine.release(id);
        rig.message();
        taken += 1;
    }
    assert_eq!(taken, CHURN_BURST);
}

#[test]
fn streams_that_come_to_their_end_are_not_limited_in_their_rate() {
    let mut rig = Rig::new();
    for id in (1..4 * CHURN_BURST).step_by(2) {
        rig.data(SYN.with(FIN), id, b"x");
        assert_eq!(rig.accept(), Some(id));
        assert_eq!(rig.finish(id), Poll::Pending);
        rig.message();
        rig.engine.release(id);
    }
}

#[test]
fn d4_beyond_the_budget_the_stream_that_holds_most_is_reset_and_others_are_whole() {
    let mut rig = Rig::new();
    let most = rig.accepted(1);
    for _ in 0..4 {
        rig.data(NONE, most, &[1; STREAM_WINDOW / 4]);
    }
    let body = pattern(STREAM_WINDOW / 2);
    let mut others = Vec::new();
    while rig.engine.held + 2 * MAX_MESSAGE * others.len().min(1) < SESSION_BUFFER {
        let id = rig.accepted(3 + 2 * u32::try_from(others.len()).unwrap());
        body.chunks(MAX_MESSAGE).for_each(|part| rig.data(NONE, id, part));
        others.push(id);
    }
    assert!(rig.engine.streams[&most].failed.is_none(), "within the budget nobody is hurt");
    let last = rig.accepted(99_999);
    for _ in 0..2 {
        rig.data(NONE, last, &[9; MAX_MESSAGE]);
    }
    assert_eq!(rig.read(most), (vec![], Poll::Ready(Err(Broken::Failed(Code::MemoryBudget)))));
    assert!(rig.engine.held <= SESSION_BUFFER);
    for id in others {
        assert!(rig.read(id) == (body.clone(), Poll::Pending), "{id}");
    }
    assert_eq!(rig.read(last), (vec![9; 2 * MAX_MESSAGE], Poll::Pending));
    rig.engine.release(most);
    assert!(rig.told().contains(&(Kind::Data, 2 | 8, most, 0)));
}

#[test]
fn f31_without_memory_for_all_connections_each_gives_back_what_it_need_not_hold() {
    let budget: &'static Budget = Box::leak(Box::new(Budget::new(SESSION_BUFFER / 4)));
    let mut rigs = [Rig::new(), Rig::new()];
    for rig in &mut rigs {
        rig.engine.memory = budget.account();
    }
    let fill = |rig: &mut Rig, id: u32| (0..4).for_each(|_| rig.data(NONE, id, &[1; STREAM_WINDOW / 4]));
    for id in 0..200 {
        for rig in &mut rigs {
            let id = rig.accepted(2 * id + 1);
            fill(rig, id);
        }
    }
    assert!(budget.kept() <= SESSION_BUFFER / 4 + SPARED_BUFFER, "{} bytes are kept", budget.kept());
    let failed = |rig: &Rig| rig.engine.streams.values().filter(|entry| entry.failed == Some(Code::MemoryBudget)).count();
    assert!(rigs.iter().all(|rig| failed(rig) > 0 && rig.engine.held >= SPARED_BUFFER / 2), "both gave way, and kept some");
    drop(rigs);
    assert_eq!(budget.kept(), 0);
    assert!(budget.ready().is_ok());
}

#[test]
fn d3_single_bytes_are_counted_with_what_keeps_them() {
    let mut rig = Rig::new();
    let crumbs = rig.accepted(1);
    let body = vec![3; 100_000];
    let other = rig.accepted(3);
    rig.data(NONE, other, &body);
    let single = data(NONE, crumbs, b"x");
    let many = single.repeat(1000);
    for _ in 0..200 {
        rig.receive(many.clone()).unwrap();
    }
    assert!(rig.engine.held > 200_000 * 64, "{}", rig.engine.held);
    assert_eq!(rig.read(crumbs), (vec![b'x'; 200_000], Poll::Pending));
    assert_eq!(rig.read(other), (body, Poll::Pending));
    assert_eq!(rig.engine.held, 0);
}
