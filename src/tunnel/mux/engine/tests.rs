//! How streams begin and end, and what is left of them.

use std::task::Poll;

use super::*;
use crate::base::limits::{CHURN_BURST, SEND_CHUNKS, SEND_QUEUE, STREAM_WINDOW};
use crate::tunnel::mux::rig::{ACK, FIN, NONE, RST, Rig, SYN};

const DATA: Kind = Kind::Data;

/// What a reader is told in the end, and a writer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Read {
    Waits,
    EndOfFile,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Write {
    Takes,
    Closed,
}

/// Plays what the peer does (`d` data, `F` end of file, `R` reset, `X` both in one frame, `w` more room) and this end (`f` end of
/// file, `r` reads all) in this order.
fn play(events: &str, kind: Kind) -> (Rig, usize) {
    let mut rig = Rig::new();
    let id = rig.accepted(1);
    let mut said = 0;
    for event in events.chars() {
        match event {
            'd' => rig.data(NONE, id, b"x"),
            'F' => rig.control(kind, FIN, id, 0),
            'R' => rig.control(kind, RST, id, 0),
            'X' => rig.control(kind, FIN.with(RST), id, 0),
            'w' => rig.credit(id, 9),
            'f' => {
                let _ = rig.finish(id);
                rig.sent();
            }
            _ => said += rig.read(id).0.len(),
        }
    }
    (rig, said)
}

#[test]
fn a_reset_and_an_end_of_file_are_told_apart_in_every_order() {
    for (events, read, write) in [
        ("", Read::Waits, Write::Takes),
        ("d", Read::Waits, Write::Takes),
        ("F", Read::EndOfFile, Write::Takes),
        ("dF", Read::EndOfFile, Write::Takes),
        ("drF", Read::EndOfFile, Write::Takes),
        ("dFd", Read::EndOfFile, Write::Takes),
        ("FF", Read::EndOfFile, Write::Takes),
        ("R", Read::Reset, Write::Closed),
        ("dR", Read::Reset, Write::Closed),
        ("drR", Read::Reset, Write::Closed),
        ("dRd", Read::Reset, Write::Closed),
        ("RR", Read::Reset, Write::Closed),
        ("X", Read::Reset, Write::Closed),
        ("dX", Read::Reset, Write::Closed),
        // An end of file that came before a reset is one: all of it was said.
        ("FR", Read::EndOfFile, Write::Closed),
        ("dFR", Read::EndOfFile, Write::Closed),
        ("dFrR", Read::EndOfFile, Write::Closed),
        ("FX", Read::EndOfFile, Write::Closed),
        // One that comes behind it isn't.
        ("RF", Read::Reset, Write::Closed),
        ("dRF", Read::Reset, Write::Closed),
        ("XF", Read::Reset, Write::Closed),
        // This end's own end of file changes nothing of the other way.
        ("f", Read::Waits, Write::Closed),
        ("fd", Read::Waits, Write::Closed),
        ("fF", Read::EndOfFile, Write::Closed),
        ("Ff", Read::EndOfFile, Write::Closed),
        ("fR", Read::Reset, Write::Closed),
        ("fdR", Read::Reset, Write::Closed),
        ("fX", Read::Reset, Write::Closed),
        ("fFR", Read::EndOfFile, Write::Closed),
        ("FfR", Read::EndOfFile, Write::Closed),
        ("fRF", Read::Reset, Write::Closed),
        ("Rf", Read::Reset, Write::Closed),
        ("Rw", Read::Reset, Write::Closed),
        ("Fw", Read::EndOfFile, Write::Takes),
    ] {
        for kind in [DATA, Kind::WindowUpdate] {
            let (mut rig, before) = play(events, kind);
            let (said, end) = rig.read(1);
            let end = match end {
                Poll::Pending => Read::Waits,
                Poll::Ready(Ok(())) => Read::EndOfFile,
                Poll::Ready(Err(broken)) => {
                    assert_eq!(broken, Broken::Reset, "{events}");
                    Read::Reset
                }
            };
            let wrote = match rig.poll_write(1, b"x") {
                Poll::Ready(Ok(())) => Write::Takes,
                Poll::Ready(Err(Broken::Closed)) => Write::Closed,
                other => panic!("{events}: {other:?}"),
            };
            assert_eq!((end, wrote), (read, write), "{events} by {kind:?}");
            // Every byte that came before an end is read, none that came after.
            let wanted = events.split(['F', 'R', 'X']).next().unwrap().matches('d').count();
            assert_eq!(before + said.len(), wanted, "{events} by {kind:?}");
        }
    }
}

#[test]
fn what_a_dropped_stream_has_left_to_say() {
    let none: &[(u16, u32)] = &[];
    for (name, prepare, says) in [
        ("nothing was said", "", &[(2 | 8, 0)][..]),
        ("last words", "w", &[(2, 1), (8, 0)]),
        ("an end of file that is not sent yet", "wf", &[(2, 1), (4, 0), (8, 0)]),
        ("an end of file that was sent", "wfs", &[(8, 0)]),
        ("the peer has ended", "wsF", &[(8, 0)]),
        ("the peer has ended, and something is to be said", "Fw", &[(2, 1), (8, 0)]),
        ("both have ended, this end's is not sent yet", "Fwf", &[(2, 1), (4, 0)]),
        ("both have ended", "Fwfs", none),
        ("both have ended, this end first", "wfsF", none),
        ("the peer dropped it", "wR", none),
        ("the peer dropped it after its end", "wsFR", none),
        ("the peer dropped it after this end's", "wfsR", none),
        ("broken by this end", "w!", &[(2 | 8, 0)]),
        ("broken by this end after its end was sent", "wfs!", &[(8, 0)]),
        ("broken by this end before its end was sent", "wsf!", &[(8, 0)]),
        ("broken by this end, dropped by the peer", "ws!R", &[(8, 0)]),
    ] {
        let mut rig = Rig::new();
        let id = rig.accepted(1);
        for event in prepare.chars() {
            match event {
                'w' => rig.write(id, b"x"),
                'f' => drop(rig.finish(id)),
                's' => drop(rig.sent()),
                'F' => rig.data(FIN, id, b""),
                'R' => rig.data(RST, id, b""),
                _ => rig.engine.fail(id, Code::MemoryBudget),
            }
        }
        rig.engine.release(id);
        let says: Vec<_> = says.iter().map(|(flags, length)| (DATA, *flags, id, *length)).collect();
        assert_eq!(rig.told(), says, "{name}");
        assert!(rig.engine.streams.is_empty(), "{name}: something is left");
        assert_eq!((rig.engine.live, rig.engine.held, rig.engine.growth), (0, 0, SESSION_GROWTH), "{name}");
    }
}

#[test]
fn a_stream_that_said_nothing_is_never_heard_of() {
    let mut rig = Rig::new();
    let id = rig.open();
    rig.engine.release(id);
    assert_eq!((rig.told(), rig.engine.streams.len()), (vec![], 0));
    let id = rig.open();
    rig.write(id, b"x");
    rig.engine.release(id);
    assert_eq!(rig.told(), [(DATA, 1, id, 1), (DATA, 8, id, 0)]);
}

#[test]
fn last_words_that_the_peer_has_no_room_for_are_not_waited_with() {
    let mut rig = Rig::new();
    let id = rig.announced();
    let mut sent = 0;
    while sent < STREAM_WINDOW - 1 {
        let part = (STREAM_WINDOW - 1 - sent).min(SEND_QUEUE);
        rig.write(id, &vec![1; part]);
        rig.sent();
        sent += part;
    }
    rig.write(id, b"x");
    rig.engine.release(id);
    assert_eq!(rig.told(), [(DATA, 8, id, 0)]);
    assert!(rig.engine.streams.is_empty());
}

#[test]
fn an_end_of_file_waits_for_the_peers_room_also_when_nobody_holds_the_stream() {
    for peer_ended in [false, true] {
        let mut rig = full(peer_ended);
        assert_eq!((rig.told(), rig.engine.streams.len(), rig.engine.live), (vec![], 1, 0));
        rig.credit(2, 3);
        assert_eq!(rig.told(), [(DATA, 0, 2, 3)]);
        rig.credit(2, 100);
        let reset = if peer_ended { vec![] } else { vec![(DATA, 8, 2, 0)] };
        assert_eq!(rig.told(), [vec![(DATA, 0, 2, 7), (DATA, 4, 2, 0)], reset].concat());
        assert!(rig.engine.streams.is_empty());
    }
}

/// Stream 2: the peer's window is full, ten bytes and an end of file wait, nobody holds it.
fn full(peer_ended: bool) -> Rig {
    let mut rig = Rig::new();
    let id = rig.open();
    for _ in 0..4 {
        rig.write(id, &[1; STREAM_WINDOW / 4]);
        rig.sent();
    }
    rig.write(id, &[2; 10]);
    if peer_ended {
        rig.data(FIN, id, b"");
    }
    let _ = rig.finish(id);
    rig.engine.release(id);
    rig
}

#[test]
fn a_stream_that_nobody_holds_goes_with_whatever_the_peer_does_to_it() {
    for peer_ended in [false, true] {
        let mut rig = full(peer_ended);
        rig.data(RST, 2, b"");
        assert_eq!((rig.told(), rig.engine.streams.len()), (vec![], 0));

        // Broken, it is not ended as if it were whole.
        let mut rig = full(peer_ended);
        rig.credit(2, u32::MAX);
        rig.credit(2, u32::MAX);
        let told = rig.told();
        assert!(told.ends_with(&[(DATA, 8, 2, 0)]) || peer_ended, "{told:?}");
        assert!(rig.engine.streams.is_empty());

        let mut rig = full(peer_ended);
        rig.data(NONE, 2, &[0; STREAM_WINDOW]);
        rig.data(NONE, 2, b"x");
        assert_eq!((rig.told(), rig.engine.streams.len()), (vec![(DATA, 8, 2, 0)], 0));
        assert_eq!(rig.engine.held, 0);
    }
}

#[test]
fn what_comes_for_a_dropped_stream_is_not_kept() {
    let mut rig = Rig::new();
    let id = rig.accepted(1);
    rig.data(NONE, id, &[1; 1000]);
    rig.engine.release(id);
    assert_eq!(rig.engine.held, 0);
    rig.data(NONE, id, &[1; 1000]);
    assert_eq!(rig.engine.held, 0);
    rig.sent();
    rig.data(FIN, id, &[1; 1000]);
    assert_eq!((rig.engine.held, rig.engine.streams.len()), (0, 0));
}

#[test]
fn d3_streams_that_come_and_go_while_nothing_is_sent_leave_nothing_in_the_queues() {
    let mut rig = Rig::new();
    for _ in 0..CHURN_BURST / 2 {
        let id = rig.accepted(1);
        rig.write(id, b"answer");
        rig.data(RST, id, b"");
        rig.engine.release(id);
        let id = rig.open();
        rig.write(id, b"x");
        rig.data(RST, id, b"");
        rig.engine.release(id);
    }
    let engine = &rig.engine;
    assert_eq!((engine.streams.len(), engine.sparse.len(), engine.bulk.len(), engine.updates.len()), (0, 0, 0, 0));
    assert_eq!(rig.told(), []);
}

#[test]
fn d3_one_streams_credit_waits_once() {
    let mut rig = Rig::new();
    let id = rig.accepted(1);
    for _ in 0..50 {
        rig.data(NONE, id, &[1; STREAM_WINDOW / 2]);
        let _ = rig.read(id);
    }
    assert_eq!(rig.engine.updates.len(), 1);
    assert_eq!(rig.told(), [(Kind::WindowUpdate, 2, 1, 25 * 256 * 1024)]);
}

#[test]
fn ids_are_taken_in_turn_until_there_are_none() {
    let mut rig = Rig::new();
    assert_eq!((rig.open(), rig.open(), rig.open()), (2, 4, 6));
    rig.engine.next = u32::MAX - 3;
    assert_eq!(rig.open(), u32::MAX - 3);
    assert_eq!(rig.engine.open(rig.now), None, "none is used twice");
    let mut agent = Rig::of(Side::Agent, 8);
    assert_eq!((agent.open(), agent.open()), (1, 3));
}

#[test]
fn a_writer_waits_behind_a_full_queue_of_bytes_or_of_crumbs() {
    for (chunk, most) in [(1024, SEND_QUEUE / 1024), (1, SEND_CHUNKS)] {
        let mut rig = Rig::new();
        let id = rig.open();
        let taken = (0..).take_while(|_| rig.poll_write(id, &vec![1; chunk]).is_ready()).count();
        assert_eq!(taken, most);
        rig.sent();
        assert_eq!((rig.wakes(), rig.poll_write(id, b"x")), (1, Poll::Ready(Ok(()))));
    }
}

#[test]
fn a_finish_is_done_when_it_has_gone_out() {
    let mut rig = Rig::new();
    let id = rig.announced();
    rig.write(id, b"x");
    assert_eq!((rig.finish(id), rig.finish(id)), (Poll::Pending, Poll::Pending));
    assert_eq!(rig.poll_write(id, b"y"), Poll::Ready(Err(Broken::Closed)));
    rig.sent();
    assert_eq!((rig.wakes(), rig.finish(id)), (1, Poll::Ready(Ok(()))));
    assert_eq!(rig.told(), [], "it is said once");
}

#[test]
fn whoever_waits_is_woken_by_whatever_happens() {
    type Happening = fn(&mut Rig, u32);
    let happens: [(&str, Happening); 6] = [
        ("data", |rig, id| rig.data(NONE, id, b"x")),
        ("end of file", |rig, id| rig.data(FIN, id, b"")),
        ("reset", |rig, id| rig.data(RST, id, b"")),
        ("broken", |rig, id| rig.engine.fail(id, Code::MemoryBudget)),
        ("lost", |rig, _| rig.engine.lose()),
        ("dead", |rig, _| rig.engine.die()),
    ];
    for (name, happen) in happens {
        let mut rig = Rig::new();
        let id = rig.accepted(1);
        assert_eq!(rig.poll_read(id), Poll::Pending);
        happen(&mut rig, id);
        assert_eq!(rig.wakes(), 1, "{name}");
        assert!(rig.poll_read(id).is_ready(), "{name}");
    }
    let mut rig = Rig::new();
    assert_eq!(rig.accept(), None);
    rig.data(SYN, 1, b"");
    assert_eq!((rig.wakes(), rig.accept()), (1, Some(1)));
    assert_eq!(rig.accept(), None);
    rig.engine.lose();
    assert_eq!(rig.wakes(), 1);
}

#[test]
fn a_lost_connection_says_what_is_queued_and_takes_no_more() {
    let mut rig = Rig::new();
    let (whole, cut) = (rig.accepted(1), rig.accepted(3));
    rig.data(FIN, whole, b"whole");
    rig.data(NONE, cut, b"cut");
    rig.write(cut, b"last");
    rig.engine.lose();
    assert_eq!(rig.read(whole), (b"whole".to_vec(), Poll::Ready(Ok(()))));
    assert_eq!(rig.read(cut), (b"cut".to_vec(), Poll::Ready(Err(Broken::Lost))));
    assert_eq!(rig.poll_write(cut, b"x"), Poll::Ready(Err(Broken::Lost)));
    assert_eq!(rig.engine.open(rig.now), None);
    rig.data(SYN, 5, b"late");
    rig.engine.release(whole);
    rig.engine.release(cut);
    assert_eq!(rig.told(), [(DATA, 8, 5, 0), (DATA, 2, 3, 4), (DATA, 8, 3, 0)]);
    assert!(rig.engine.streams.is_empty());
}

#[test]
fn a_dead_connection_leaves_what_came_to_be_read_and_nothing_else() {
    let mut rig = Rig::new();
    let id = rig.accepted(1);
    rig.data(NONE, id, b"x");
    rig.write(id, b"y");
    let orphan = rig.announced();
    rig.write(orphan, b"z");
    rig.engine.release(orphan);
    rig.engine.die();
    assert_eq!(rig.engine.streams.len(), 1);
    assert_eq!(rig.read(id), (b"x".to_vec(), Poll::Ready(Err(Broken::Lost))));
    rig.engine.release(id);
    assert_eq!((rig.engine.streams.len(), rig.engine.held, rig.engine.live), (0, 0, 0));
}

#[test]
fn a_stream_of_which_nothing_is_said_is_acknowledged_in_time() {
    let mut rig = Rig::new();
    rig.accepted(1);
    rig.data(SYN, 3, b"");
    assert_eq!(rig.told(), []);
    rig.engine.tick(rig.now);
    assert_eq!(rig.told(), [1, 3].map(|id| (Kind::WindowUpdate, 2, id, 0)));
    rig.engine.tick(rig.now);
    assert_eq!(rig.told(), [], "once");
    rig.write(1, b"x");
    assert_eq!(rig.told(), [(DATA, 0, 1, 1)]);
}

#[test]
fn windows_that_are_of_no_use_shrink_and_those_of_dropped_streams_go_back_at_once() {
    let mut rig = Rig::new();
    rig.engine.round_trip = Duration::from_millis(100);
    for id in [1, 3] {
        rig.accepted(id);
        for _ in 0..20 {
            rig.data(NONE, id, &[1; STREAM_WINDOW / 2]);
            rig.pass(Duration::from_millis(30));
            let _ = rig.read(id);
        }
    }
    let grown = SESSION_GROWTH - rig.engine.growth;
    assert!(grown >= 2 * STREAM_WINDOW, "{grown}");
    rig.pass(WINDOW_IDLE.checked_sub(Duration::from_millis(300)).unwrap());
    rig.engine.tick(rig.now);
    assert_eq!(SESSION_GROWTH - rig.engine.growth, grown / 2, "the one that was used last keeps its own");
    rig.engine.release(3);
    assert_eq!(rig.engine.growth, SESSION_GROWTH);
    rig.engine.tick(rig.now);
    assert_eq!(rig.engine.growth, SESSION_GROWTH);
}

#[test]
fn the_acknowledgement_of_a_stream_changes_nothing() {
    let mut rig = Rig::new();
    let id = rig.announced();
    rig.control(Kind::WindowUpdate, ACK, id, 0);
    rig.data(ACK, id, b"x");
    rig.data(ACK.with(FIN), id, b"y");
    assert_eq!(rig.read(id), (b"xy".to_vec(), Poll::Ready(Ok(()))));
}
