//! Who goes before whom, and for how long.

use std::collections::HashMap;

use super::*;
use crate::base::limits::{SEND_QUEUE, SENT_MESSAGE, SESSION_GROWTH, SPARSE_AHEAD, STREAM_WINDOW};
use crate::tunnel::mux::frame::HEADER;
use crate::tunnel::mux::rig::{FIN, Frame, NONE, Rig, SYN};

const PLENTY: u32 = u32::MAX / 2;

/// Streams that never lack credit.
fn unlimited(rig: &mut Rig, count: u32) -> Vec<u32> {
    let ids: Vec<u32> = (0..count).map(|_| rig.announced()).collect();
    ids.iter().for_each(|id| rig.credit(*id, PLENTY));
    ids
}

fn fill(rig: &mut Rig, id: u32) {
    while rig.engine.streams[&id].writing.has_room() {
        rig.write(id, &[9; 60_000]);
    }
}

fn bodies(frames: &[Frame]) -> Vec<(u32, usize)> {
    frames.iter().filter(|(header, _)| header.kind == Kind::Data).map(|(header, body)| (header.stream, body.len())).collect()
}

#[test]
fn control_frames_go_first_then_credit_then_streams() {
    let mut rig = Rig::new();
    let id = rig.accepted(1);
    for _ in 0..2 {
        rig.data(NONE, id, &[1; STREAM_WINDOW / 4]);
    }
    rig.write(id, b"data");
    let _ = rig.read(id);
    rig.control(Kind::Ping, SYN, 0, 9);
    let kinds: Vec<_> = rig.message().iter().map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [Kind::Ping, Kind::WindowUpdate, Kind::Data]);
}

#[test]
fn control_frames_go_before_what_waits() {
    let mut rig = Rig::new();
    let ids = unlimited(&mut rig, 4);
    ids.iter().for_each(|id| fill(&mut rig, *id));
    rig.message();
    rig.control(Kind::Ping, SYN, 0, 9);
    assert_eq!(rig.message()[0].0.kind, Kind::Ping);
}

#[test]
fn a_stream_that_begins_to_send_goes_before_those_that_send_much() {
    let mut rig = Rig::new();
    let ids = unlimited(&mut rig, 5);
    let (typing, bulk) = ids.split_first().unwrap();
    for _ in 0..4 {
        bulk.iter().for_each(|id| fill(&mut rig, *id));
        rig.message();
    }
    // Again and again, however much the others have to send.
    for key in 0..20 {
        bulk.iter().for_each(|id| fill(&mut rig, *id));
        rig.write(*typing, &[key]);
        let mut before = 0;
        let found = loop {
            let message = rig.message();
            match message.iter().position(|(header, _)| header.stream == *typing) {
                Some(at) => break before + message[..at].iter().map(|(_, body)| body.len()).sum::<usize>(),
                None => before += SENT_MESSAGE,
            }
        };
        // What had begun when it came, and at most one turn of each if it has just been served.
        assert!(found <= bulk.len() * SENT_MESSAGE + SENT_MESSAGE, "key {key} waited behind {found} bytes");
        while rig.engine.streams[typing].writing.scheduled {
            bulk.iter().for_each(|id| fill(&mut rig, *id));
            rig.message();
        }
    }
    rig.write(*typing, b"x");
    assert_eq!(bodies(&rig.message())[0], (*typing, 1), "one that was silent for a while goes first");
}

#[test]
fn streams_that_send_much_have_equal_shares() {
    let mut rig = Rig::new();
    let ids = unlimited(&mut rig, 16);
    let mut sent: HashMap<u32, usize> = HashMap::new();
    for _ in 0..4000 {
        ids.iter().for_each(|id| fill(&mut rig, *id));
        for (id, length) in bodies(&rig.message()) {
            *sent.entry(id).or_default() += length;
        }
    }
    let (least, most) = (sent.values().min().unwrap(), sent.values().max().unwrap());
    assert_eq!(sent.len(), 16);
    assert!(most - least <= 3 * SENT_MESSAGE, "{least} to {most}");
}

#[test]
fn shares_are_equal_whatever_the_chunks() {
    let mut rig = Rig::new();
    let ids = unlimited(&mut rig, 2);
    let mut sent: HashMap<u32, usize> = HashMap::new();
    for _ in 0..1000 {
        fill(&mut rig, ids[0]);
        while rig.engine.streams[&ids[1]].writing.has_room() {
            rig.write(ids[1], &[1; 1500]);
        }
        for (id, length) in bodies(&rig.message()) {
            *sent.entry(id).or_default() += length;
        }
    }
    assert!(sent[&ids[0]].abs_diff(sent[&ids[1]]) <= 3 * SENT_MESSAGE, "{sent:?}");
}

#[test]
fn a_turn_is_bounded() {
    let mut rig = Rig::new();
    let ids = unlimited(&mut rig, 3);
    let (mut last, mut run) = (0, 0);
    for _ in 0..300 {
        ids.iter().for_each(|id| fill(&mut rig, *id));
        for (id, length) in bodies(&rig.message()) {
            run = if id == last { run + length } else { length };
            last = id;
            assert!(run <= 2 * QUANTUM.unsigned_abs(), "{id} sent {run} bytes in a row");
        }
    }
}

#[test]
fn a_flood_of_short_streams_leaves_others_their_part() {
    let mut rig = Rig::new();
    let bulk = unlimited(&mut rig, 1)[0];
    fill(&mut rig, bulk);
    rig.message();
    let (mut short, mut long) = (0, 0);
    for _ in 0..2000 {
        fill(&mut rig, bulk);
        for _ in 0..2 {
            let id = rig.open();
            rig.write(id, &[5; 50_000]);
            rig.engine.release(id);
        }
        for (id, length) in bodies(&rig.message()) {
            *(if id == bulk { &mut long } else { &mut short }) += length;
        }
    }
    assert!(long >= (short + long) / (SPARSE_AHEAD / SENT_MESSAGE + 3), "{long} of {}", short + long);
    assert!(short > long, "short streams still go before");
}

#[test]
fn streams_that_send_little_for_ever_do_not_starve_one_that_sends_much() {
    let mut rig = Rig::new();
    let ids = unlimited(&mut rig, 41);
    let (bulk, small) = ids.split_first().unwrap();
    let mut sent: HashMap<u32, usize> = HashMap::new();
    for _ in 0..1000 {
        fill(&mut rig, *bulk);
        for id in small {
            if rig.engine.streams[id].writing.queued == 0 {
                rig.write(*id, &[1; 4000]);
            }
        }
        for (id, length) in bodies(&rig.message()) {
            *sent.entry(id).or_default() += length;
        }
    }
    assert!(sent[bulk] >= sent.values().sum::<usize>() / ids.len(), "{} of {}", sent[bulk], sent.values().sum::<usize>());
    assert_eq!(sent.len(), 41);
}

#[test]
fn no_stream_sends_more_than_it_was_granted() {
    let mut rig = Rig::new();
    let id = rig.open();
    fill(&mut rig, id);
    let mut sent = 0;
    for _ in 0..9 {
        sent += bodies(&rig.sent()).iter().map(|(_, length)| length).sum::<usize>();
        fill(&mut rig, id);
    }
    assert_eq!(sent, STREAM_WINDOW);
    rig.credit(id, 5);
    assert_eq!(bodies(&rig.sent()), [(id, 5)]);
    rig.credit(id, 0);
    assert_eq!(bodies(&rig.sent()), []);
}

#[test]
fn a_message_is_filled_but_not_with_crumbs() {
    let mut rig = Rig::new();
    let ids = unlimited(&mut rig, 2);
    rig.write(ids[0], &vec![1; SENT_MESSAGE - HEADER - HEADER - FRAGMENT]);
    rig.write(ids[1], &[2; 5000]);
    let first = bodies(&rig.message());
    assert_eq!(first[1], (ids[1], FRAGMENT), "what fits is sent at once");
    assert_eq!(bodies(&rig.message()), [(ids[1], 5000 - FRAGMENT)]);

    let mut rig = Rig::new();
    let ids = unlimited(&mut rig, 2);
    rig.write(ids[0], &vec![1; SENT_MESSAGE - HEADER - HEADER - FRAGMENT + 1]);
    rig.write(ids[1], &[2; 5000]);
    assert_eq!(bodies(&rig.message()).len(), 1);
    assert_eq!(bodies(&rig.message()), [(ids[1], 5000)]);
}

#[test]
fn the_first_frame_opens_the_first_answer_acknowledges_and_an_end_is_a_frame_of_its_own() {
    let mut rig = Rig::new();
    let id = rig.open();
    rig.write(id, b"a");
    rig.write(id, b"b");
    let _ = rig.finish(id);
    assert_eq!(rig.told(), [(1, 1), (0, 1), (4, 0)].map(|(flags, length)| (Kind::Data, flags, id, length)));
    let theirs = rig.accepted(1);
    rig.write(theirs, b"c");
    rig.write(theirs, b"d");
    assert_eq!(rig.told(), [(2, 1), (0, 1)].map(|(flags, length)| (Kind::Data, flags, 1, length)));
    let silent = rig.open();
    let _ = rig.finish(silent);
    assert_eq!(rig.told(), [(Kind::Data, 1 | 4, silent, 0)], "a stream may consist of its end");
}

#[test]
fn credit_acknowledges_too() {
    let mut rig = Rig::new();
    rig.data(SYN, 1, &[1; STREAM_WINDOW / 4]);
    rig.data(FIN.with(NONE), 3, b"");
    rig.data(NONE, 1, &[1; STREAM_WINDOW / 4]);
    rig.accept();
    let _ = rig.read(1);
    assert_eq!(rig.told(), [(Kind::WindowUpdate, 2, 1, 128 * 1024)]);
    assert_eq!(rig.engine.growth, SESSION_GROWTH);
}

#[test]
fn a_writer_is_woken_when_there_is_room_and_not_before() {
    let mut rig = Rig::new();
    let id = rig.announced();
    while rig.poll_write(id, &[1; 30_000]).is_ready() {}
    assert!(rig.engine.streams[&id].writing.queued >= SEND_QUEUE);
    assert_eq!(rig.wakes(), 0);
    rig.message();
    assert_eq!(rig.wakes(), 1);
    rig.message();
    assert_eq!(rig.wakes(), 0);
}
