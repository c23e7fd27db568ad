//! The seam over an in-memory pipe, with an honest peer and with one that writes frames by hand. Refuses to know sessions.

mod resume;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use std::io;

use super::*;
use crate::base::limits::{
    DEAD_AFTER, EMPTY_FRAMES_PER_SECOND, HEARTBEAT, MAX_MESSAGE, MUX_SLACK, SEND_QUEUE, SPLICE_BUFFER, STREAM_WINDOW,
    STUCK_AFTER,
};
use crate::tunnel::fixture::{Half, Raw, frame, hostile, muxes, send, swallow};

const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RESET: u16 = 8;

/// A stream opened by the gateway, as both ends have it; the agent's first.
async fn opened(agent: &mut Half, gateway: &Half) -> (Stream, Stream) {
    let mut ours = gateway.opener.open().await.unwrap();
    ours.write_all(b"?").await.unwrap();
    let mut theirs = agent.incoming.accept().await.unwrap();
    assert_eq!(theirs.read_u8().await.unwrap(), b'?');
    theirs.write_all(b"!").await.unwrap();
    assert_eq!(ours.read_u8().await.unwrap(), b'!');
    (theirs, ours)
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

async fn read(stream: &mut Stream) -> io::Result<usize> {
    stream.read(&mut [0; 16]).await
}

/// Writes until it fails.
async fn write(stream: &mut Stream) -> io::Error {
    loop {
        if let Err(error) = stream.write_all(&[0; 4096]).await {
            return error;
        }
    }
}

#[tokio::test]
async fn bytes_cross_both_ways_and_each_way_ends_by_itself() {
    let (mut agent, gateway) = muxes().await;
    let (mut theirs, mut ours) = opened(&mut agent, &gateway).await;
    ours.write_all(b"up").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut up = Vec::new();
    theirs.read_to_end(&mut up).await.unwrap();
    assert_eq!(up, b"up");
    let much = vec![7; 1 << 20];
    let (sent, received) = tokio::join!(
        async {
            theirs.write_all(&much).await.unwrap();
            theirs.shutdown().await
        },
        async {
            let mut down = Vec::new();
            ours.read_to_end(&mut down).await.unwrap();
            down
        },
    );
    sent.unwrap();
    assert!(received == much);
    assert_eq!((agent.link.streams(), gateway.link.streams()), (1, 1));
    drop((theirs, ours));
    assert_eq!((agent.link.streams(), gateway.link.streams()), (0, 0));
}

#[tokio::test]
async fn slices_are_one_chunk_and_no_larger_than_one_may_be() {
    let (mut agent, gateway) = muxes().await;
    let (mut theirs, mut ours) = opened(&mut agent, &gateway).await;
    let much = vec![7; SPLICE_BUFFER];
    let slices = [io::IoSlice::new(b"head "), io::IoSlice::new(b""), io::IoSlice::new(&much), io::IoSlice::new(b"more")];
    assert_eq!(ours.write_vectored(&slices).await.unwrap(), SPLICE_BUFFER);
    let mut chunk = vec![0; SPLICE_BUFFER];
    theirs.read_exact(&mut chunk).await.unwrap();
    assert!(chunk.starts_with(b"head \x07") && chunk[5..].iter().all(|byte| *byte == 7));
    assert_eq!(ours.write_vectored(&slices[..2]).await.unwrap(), 5);
    theirs.read_exact(&mut chunk[..5]).await.unwrap();
    assert_eq!(&chunk[..5], b"head ");
}

#[tokio::test]
async fn streams_of_both_sides_have_their_own_ids() {
    let (mut agent, mut gateway) = muxes().await;
    let mut ids = HashSet::new();
    for _ in 0..3 {
        let (theirs, ours) = opened(&mut agent, &gateway).await;
        assert_eq!((theirs.id(), ours.id() % 2), (ours.id(), 0));
        ids.insert(ours.id());
        let (theirs, ours) = opened(&mut gateway, &agent).await;
        assert_eq!((theirs.id(), ours.id() % 2), (ours.id(), 1));
        ids.insert(ours.id());
    }
    assert_eq!(ids.len(), 6);
}

#[tokio::test]
async fn a_dropped_stream_is_a_reset_and_no_end_of_file() {
    let (mut agent, gateway) = muxes().await;
    let (mut theirs, mut ours) = opened(&mut agent, &gateway).await;
    theirs.write_all(b"last words").await.unwrap();
    drop(theirs);
    let mut said = Vec::new();
    assert_eq!(kind(ours.read_to_end(&mut said).await), io::ErrorKind::ConnectionReset);
    assert_eq!(said, b"last words");
    assert_eq!(write(&mut ours).await.kind(), io::ErrorKind::BrokenPipe);

    let (theirs, mut ours) = opened(&mut agent, &gateway).await;
    drop(theirs);
    assert_eq!(write(&mut ours).await.kind(), io::ErrorKind::BrokenPipe);
    assert!(!gateway.link.has_ended());
}

#[tokio::test]
async fn a_reset_is_none_the_less_one_after_this_ends_own_end_of_file() {
    let (mut raw, mut gateway) = hostile().await;
    send(&mut raw, frame(0, 0, SYN, 1, 1, b"x")).await;
    let mut ours = gateway.incoming.accept().await.unwrap();
    assert_eq!(ours.read_u8().await.unwrap(), b'x');
    ours.shutdown().await.unwrap();
    send(&mut raw, frame(0, 0, RESET, 1, 0, b"")).await;
    assert_eq!(kind(read(&mut ours).await), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_peer_that_drops_a_stream_after_its_own_end_of_file_is_not_written_to_for_ever() {
    let (mut agent, gateway) = muxes().await;
    let (mut theirs, mut ours) = opened(&mut agent, &gateway).await;
    theirs.shutdown().await.unwrap();
    assert_eq!(read(&mut ours).await.unwrap(), 0);
    drop(theirs);
    assert_eq!(write(&mut ours).await.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_stuck_reader_holds_up_its_writer_and_none_of_200_others() {
    let (mut agent, gateway) = muxes().await;
    let (_stuck, mut ours) = opened(&mut agent, &gateway).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(opened(&mut agent, &gateway).await);
    }
    let sent = std::sync::atomic::AtomicUsize::new(0);
    let flood = async {
        loop {
            ours.write_all(&[0; 1024]).await.unwrap();
            sent.fetch_add(1024, Ordering::Relaxed);
        }
    };
    let others = async {
        for (theirs, ours) in &mut streams {
            ours.write_all(&[1; 20_000]).await.unwrap();
            let mut all = vec![0; 20_000];
            theirs.read_exact(&mut all).await.unwrap();
            theirs.write_all(&all).await.unwrap();
            ours.read_exact(&mut all).await.unwrap();
        }
    };
    tokio::select! {
        () = flood => unreachable!(),
        () = others => {}
    }
    assert!(sent.load(Ordering::Relaxed) <= STREAM_WINDOW + SEND_QUEUE + 1024, "{sent:?}");
}

#[tokio::test]
async fn one_stream_too_many_is_refused_and_the_others_live_on() {
    let (mut agent, gateway) = muxes().await;
    let mut streams = Vec::new();
    while streams.len() < MAX_STREAMS {
        streams.push(opened(&mut agent, &gateway).await);
    }
    assert_eq!(gateway.opener.open().await.err().map(|failure| failure.code), Some(Code::SessionStreams));
    assert_eq!(gateway.link.streams(), MAX_STREAMS);
    let (theirs, ours) = &mut streams[0];
    ours.write_all(b"on").await.unwrap();
    assert_eq!(read(theirs).await.unwrap(), 2);
    streams.pop();
    opened(&mut agent, &gateway).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_connection_survives_that_all_streams_are_exchanged_at_once() {
    let (mut raw, gateway) = hostile().await;
    let mut streams = Vec::new();
    while streams.len() < MAX_STREAMS {
        let mut stream = gateway.opener.open().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        send(&mut raw, frame(0, 1, ACK, stream.id(), 0, b"")).await;
        streams.push(stream);
    }
    // The peer reads nothing, so the writes fill the connection.
    let moment = Duration::from_millis(1);
    for stream in &mut streams {
        let _ = tokio::time::timeout(moment, stream.write_all(&[0; 8192])).await;
    }
    drop(streams);
    let mut again = Vec::new();
    let full = loop {
        match gateway.opener.open().await {
            Ok(stream) => again.push(stream),
            Err(full) => break full,
        }
    };
    assert_eq!((full.code, again.len()), (Code::SessionStreams, MUX_SLACK), "{full}");
    assert!(!gateway.link.has_ended());
}

async fn loses_everything(end: impl AsyncFnOnce(&Half, &Half), code: Code) {
    let (mut agent, gateway) = muxes().await;
    let (_theirs, mut reading) = opened(&mut agent, &gateway).await;
    let (_stuck, mut writing) = opened(&mut agent, &gateway).await;
    let (_theirs_too, mut finished) = opened(&mut agent, &gateway).await;
    finished.shutdown().await.unwrap();
    // Each in a task of its own, so that it moves only if it is woken itself.
    let tasks = Tasks::new();
    let reading = tasks.spawn(async move { read(&mut reading).await.unwrap_err() });
    let writing = tasks.spawn(async move { write(&mut writing).await });
    let finished = tasks.spawn(async move { read(&mut finished).await.unwrap_err() });
    tokio::time::sleep(Duration::from_millis(1)).await;
    end(&agent, &gateway).await;
    for task in [reading, writing, finished] {
        let error = task.await.unwrap().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{error}");
    }
    assert_eq!(gateway.link.ended().await.code, code);
    assert_eq!(gateway.opener.open().await.err().map(|failure| failure.code), Some(code));
}

#[tokio::test(start_paused = true)]
async fn a_peers_death_wakes_every_stream_with_an_error() {
    loses_everything(async |agent, _| agent.tasks.abort().await, Code::LinkClosed).await;
}

#[tokio::test(start_paused = true)]
async fn a_peers_farewell_wakes_every_stream_with_an_error() {
    loses_everything(async |agent, _| agent.link.close(), Code::Stopping).await;
}

#[tokio::test]
async fn a_farewell_says_what_its_end_may_decide_and_nothing_else() {
    for (code, by_gateway, by_agent) in [
        (Code::AgentDisabled, Code::AgentDisabled, Code::LinkClosed),
        (Code::Revoked, Code::Revoked, Code::LinkClosed),
        (Code::TrustChanged, Code::LinkClosed, Code::TrustChanged),
        (Code::Internal, Code::LinkClosed, Code::LinkClosed),
    ] {
        let why = Failure::new(code, "decided here");
        for (gateways, told) in [(true, by_gateway), (false, by_agent)] {
            let (mut agent, gateway) = muxes().await;
            let (mut theirs, mut ours) = opened(&mut agent, &gateway).await;
            let (ends, reads, hears) =
                if gateways { (&gateway.link, &mut theirs, &agent.link) } else { (&agent.link, &mut ours, &gateway.link) };
            ends.close_because(why.clone());
            let error = read(reads).await.unwrap_err();
            assert_eq!(hears.ended().await, Failure::new(told, "closed by the peer"));
            let streams = if told == Code::LinkClosed { Code::SessionLost } else { told };
            assert_eq!(lost(&error), Some(streams), "{code} by the gateway: {gateways}");
        }
    }
}

#[tokio::test]
async fn a_farewell_counts_though_its_sender_takes_nothing_more() {
    let (mut raw, gateway) = hostile().await;
    let close = CloseFrame { code: 1000.into(), reason: "trust_changed".into() };
    raw.send(Message::Close(Some(close))).await.unwrap();
    drop(raw);
    // Its first heartbeat can't be written.
    assert_eq!(gateway.link.ended().await.code, Code::TrustChanged);
}

#[tokio::test]
async fn what_a_peer_finished_before_its_farewell_is_read_to_its_end_of_file() {
    let (mut agent, gateway) = muxes().await;
    let (mut theirs, mut ours) = opened(&mut agent, &gateway).await;
    let (_unfinished, mut cut) = opened(&mut agent, &gateway).await;
    theirs.write_all(&[7; 100_000]).await.unwrap();
    theirs.shutdown().await.unwrap();
    agent.link.close();
    gateway.link.ended().await;
    // Only now: the connection is gone, its last stream is whole.
    let mut read = Vec::new();
    ours.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), 100_000);
    assert_eq!(kind(cut.read(&mut [0; 16]).await), io::ErrorKind::ConnectionAborted);
}

#[tokio::test(start_paused = true)]
async fn closing_wakes_every_stream_of_this_side_with_an_error() {
    loses_everything(async |_, gateway| gateway.link.close(), Code::Stopping).await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_wakes_every_stream_of_this_side_with_an_error() {
    loses_everything(async |_, gateway| gateway.tasks.abort().await, Code::Stopping).await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_an_idle_link_alive_and_measure_it() {
    let (agent, gateway) = muxes().await;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for link in [&agent.link, &gateway.link] {
            assert!(!link.has_ended() && link.pulse().age() <= HEARTBEAT, "{:?}", link.pulse().age());
        }
    }
    assert!(agent.link.pulse().round_trip().is_some() && gateway.link.pulse().round_trip().is_some());
}

#[tokio::test(start_paused = true)]
async fn f07_a_silent_peer_is_dead_after_five_seconds_also_under_a_writer() {
    let (raw, gateway) = hostile().await;
    let mut stream = gateway.opener.open().await.unwrap();
    let before = Instant::now();
    assert_eq!(write(&mut stream).await.kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(gateway.link.ended().await.code, Code::LinkDead);
    let took = before.elapsed();
    assert!(took >= STUCK_AFTER && took < DEAD_AFTER + Duration::from_secs(1), "{took:?}");
    drop(raw);
}

async fn answers_with(message: Message, code: Code) {
    let (mut raw, gateway) = hostile().await;
    let mut stream = gateway.opener.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let (_, ended) = tokio::join!(
        async {
            let _ = raw.send(message.clone()).await;
            swallow(&mut raw).await;
        },
        gateway.link.ended()
    );
    assert_eq!(ended.code, code, "{message:?}: {ended}");
    assert_eq!(kind(read(&mut stream).await), io::ErrorKind::ConnectionAborted, "{message:?}");
}

#[tokio::test]
async fn t1_what_is_no_message_of_ours_ends_the_session_with_a_violation() {
    let garbage = vec![0xff; 4096];
    for message in [
        Message::Text("hello".into()),
        Message::Binary(garbage.into()),
        Message::Binary(vec![0; MAX_MESSAGE + 1].into()),
        Message::Binary(frame(1, 0, SYN, 1, 0, b"").into()),
        Message::Binary(frame(0, 4, 0, 1, 0, b"").into()),
        Message::Binary(frame(0, 0xff, 0xffff, u32::MAX, u32::MAX, b"").into()),
        Message::Binary(frame(0, 0, SYN, 1, 0x0100_0001, b"").into()),
    ] {
        answers_with(message, Code::ProtocolViolation).await;
    }
    answers_with(Message::Close(None), Code::LinkClosed).await;
    for (status, reason) in
        [(1000, "no_such_code"), (1000, "agent_disabled"), (1001, "stopping"), (1000, &"a".repeat(123)), (4000, "")]
    {
        let close = CloseFrame { code: status.into(), reason: reason.into() };
        answers_with(Message::Close(Some(close)), Code::LinkClosed).await;
    }
    let close = CloseFrame { code: 1000.into(), reason: "trust_changed".into() };
    let (mut raw, gateway) = hostile().await;
    raw.send(Message::Close(Some(close))).await.unwrap();
    assert_eq!(gateway.link.ended().await.code, Code::TrustChanged);
}

#[tokio::test]
async fn t1_unsolicited_pongs_and_strange_pings_are_borne() {
    let (mut raw, mut gateway) = hostile().await;
    for message in [
        Message::Pong(vec![3; 17].into()),
        Message::Pong(vec![].into()),
        Message::Pong(vec![1; 125].into()),
        Message::Ping(vec![].into()),
        Message::Ping(vec![9; 125].into()),
        Message::Binary(vec![].into()),
    ] {
        raw.send(message).await.unwrap();
    }
    send(&mut raw, frame(0, 0, SYN, 1, 1, b"x")).await;
    assert_eq!(gateway.incoming.accept().await.unwrap().read_u8().await.unwrap(), b'x');
    assert_eq!(gateway.link.pulse().round_trip(), None);
}

/// Sends illegal frames after a legal stream 1, and looks whether the mux is still what it was or has ended in order.
async fn survives(name: &str, frames: Vec<Vec<u8>>) {
    let (mut raw, mut gateway) = hostile().await;
    send(&mut raw, frame(0, 0, SYN, 1, 1, b"x")).await;
    let mut first = gateway.incoming.accept().await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), b'x');
    for bytes in frames {
        send(&mut raw, bytes).await;
    }
    send(&mut raw, frame(0, 2, SYN, 0, 0x5eed, b"")).await;
    // Either the echo of the last ping comes or the end.
    let echo = frame(0, 2, ACK, 0, 0x5eed, b"");
    while let Some(Ok(message)) = raw.next().await {
        if message.into_data().windows(12).any(|bytes| bytes == echo) {
            break;
        }
    }
    drop(raw);
    gateway.link.ended().await;
    assert!(read_out(&mut first).await <= 2 * STREAM_WINDOW, "{name}");
    drop(first);
    while gateway.incoming.accept().await.is_some() {}
    // Had the task panicked, it would not have ended the link as it does.
    gateway.tasks.join().await;
    assert_eq!(gateway.link.streams(), 0, "{name}");
}

async fn read_out(stream: &mut Stream) -> usize {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    all.len()
}

#[tokio::test]
async fn t1_illegal_frames_end_at_most_their_own_session() {
    let window = u32::try_from(STREAM_WINDOW).unwrap();
    let data = |flags, stream, length: u32| frame(0, 0, flags, stream, length, &vec![7; length as usize]);
    let credit = |flags, stream, credit| frame(0, 1, flags, stream, credit, b"");
    let pieces = |bytes: Vec<u8>| bytes.chunks(MAX_MESSAGE).map(<[u8]>::to_vec).collect::<Vec<_>>();
    for (name, frames) in [
        ("even id from the client", vec![data(SYN, 2, 1)]),
        ("stream id 0", vec![data(SYN, 0, 1), data(0, 0, 1), credit(0, 0, 1)]),
        ("id in use", vec![data(SYN, 1, 1)]),
        ("id used again", vec![data(RESET, 1, 0), data(SYN, 1, 1)]),
        ("data after fin", vec![data(FIN, 1, 0), data(0, 1, 9), data(FIN, 1, 9)]),
        ("data after reset", vec![data(RESET, 1, 0), data(0, 1, 9)]),
        ("reset with a body", vec![data(RESET, 1, 9), data(0, 1, 1)]),
        ("unknown stream", vec![data(0, 99, 9), data(RESET, 99, 0), credit(RESET, 99, 0), data(FIN, 99, 0), data(ACK, 98, 0)]),
        ("window overrun", pieces(data(0, 1, window + 1))),
        ("CVE-2026-32314: data with syn beyond the window", pieces(data(SYN, 3, window + 1))),
        ("CVE-2026-31814: credit twice", vec![credit(0, 1, u32::MAX), credit(0, 1, u32::MAX)]),
        ("credit twice on a new stream", vec![credit(SYN, 3, u32::MAX), credit(0, 3, u32::MAX)]),
        ("credit on an ended stream", vec![data(FIN, 1, 0), credit(0, 1, u32::MAX), credit(0, 1, u32::MAX)]),
        ("credit on an unknown stream", vec![credit(0, 77, u32::MAX), credit(0, 77, u32::MAX)]),
        ("an answer to no ping", vec![frame(0, 2, ACK, 0, 12345, b"")]),
        ("a ping on a stream", vec![frame(0, 2, SYN, 1, 1, b""), frame(0, 2, SYN, 77, 1, b"")]),
        ("every flag", vec![data(0xffff, 1, 1), credit(0xffff, 3, 1), frame(0, 2, 0xffff, 0, 1, b"")]),
        ("empty data", vec![data(0, 1, 0); 10_000]),
        ("endless credit of nothing", vec![credit(0, 1, 0); 10_000]),
    ] {
        survives(name, frames).await;
    }
}

#[tokio::test(start_paused = true)]
async fn t1_opening_without_end_costs_the_session_its_backlog_and_no_more() {
    let (mut raw, gateway) = hostile().await;
    let flood = async {
        for first in (1..).step_by(10_000) {
            let ids = (first..first + 10_000).step_by(2);
            send(&mut raw, ids.flat_map(|id| frame(0, 0, SYN, id, 1, b"x")).take(65_000).collect()).await;
        }
    };
    // Nobody reads what the flood is answered with, so it comes to a halt by itself.
    assert!(tokio::time::timeout(HEARTBEAT, flood).await.is_err());
    assert_eq!(gateway.link.streams(), MAX_STREAMS + MUX_SLACK);
}

#[tokio::test(start_paused = true)]
async fn t1_pings_without_end_whose_answers_nobody_collects_stop_being_read() {
    let (mut raw, gateway) = hostile().await;
    let pings = frame(0, 2, SYN, 0, 1, b"").repeat(MAX_MESSAGE / 12);
    let mut taken = 0;
    let flood = async {
        loop {
            send(&mut raw, pings.clone()).await;
            taken += 1;
        }
    };
    assert!(tokio::time::timeout(HEARTBEAT, flood).await.is_err());
    // What the two networks, the pipe and the socket hold.
    assert!(taken < 16, "{taken} messages");
    assert!(!gateway.link.has_ended());
}

#[tokio::test]
async fn an_unwanted_stream_is_reset_and_the_loop_goes_on() {
    let (mut raw, mut gateway) = hostile().await;
    let unwanted = 2 * u32::try_from(MAX_STREAMS + MUX_SLACK).unwrap() + 1;
    for id in (1..=unwanted).step_by(2) {
        send(&mut raw, frame(0, 0, SYN, id, 1, b"x")).await;
    }
    let reset = frame(0, 0, RESET, unwanted, 0, b"");
    while !raw.next().await.unwrap().unwrap().into_data().ends_with(&reset) {}
    assert_eq!(gateway.link.streams(), MAX_STREAMS + MUX_SLACK);
    assert_eq!(gateway.incoming.accept().await.unwrap().read_u8().await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn t2b_more_than_a_thousand_empty_frames_in_a_second_end_the_session_and_fewer_do_not() {
    let (mut raw, gateway) = hostile().await;
    for _ in 0..3 {
        for _ in 0..EMPTY_FRAMES_PER_SECOND {
            raw.send(Message::Binary(vec![].into())).await.unwrap();
        }
        answered(&mut raw, 1).await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(!gateway.link.has_ended());
    for _ in 0..=EMPTY_FRAMES_PER_SECOND {
        let _ = raw.send(Message::Binary(vec![].into())).await;
    }
    let ended = gateway.link.ended().await;
    assert_eq!((ended.code, ended.detail.as_str()), (Code::ProtocolViolation, "more than 1,000 empty frames in a second"));
}

#[tokio::test(start_paused = true)]
async fn d3_echoes_that_nobody_collects_are_not_kept() {
    let (mut raw, gateway) = hostile().await;
    let flood = async { while raw.send(Message::Ping(vec![7; 125].into())).await.is_ok() {} };
    tokio::time::timeout(HEARTBEAT, flood).await.expect("who asks without end is cut off");
    assert_eq!(gateway.link.ended().await.code, Code::ProtocolViolation);
}

#[tokio::test]
async fn a_farewell_is_told_from_a_full_session() {
    let (mut raw, gateway) = hostile().await;
    send(&mut raw, frame(0, 3, 0, 0, 0, b"")).await;
    answered(&mut raw, 2).await;
    let refused = gateway.opener.open().await.err().unwrap();
    assert_eq!((refused.code, refused.detail.as_str()), (Code::SessionLost, "the peer takes no further streams"));
}

/// Sends a ping and waits for its answer: what was sent before has been taken then.
async fn answered(raw: &mut Raw, value: u32) {
    send(raw, frame(0, 2, SYN, 0, value, b"")).await;
    let answer = frame(0, 2, ACK, 0, value, b"");
    while !raw.next().await.unwrap().unwrap().into_data().ends_with(&answer) {}
}
