//! Two streams joined, each of which can fail as the test says. Refuses to know who they are.

use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};

use super::*;

/// Counts; lets so many bytes pass each second if it is told to.
#[derive(Default)]
struct Counter {
    rate: Option<usize>,
    counted: Mutex<Vec<(Direction, usize)>>,
}

impl Toll for Counter {
    fn pace(&self, bytes: usize) -> Option<Delay<'_>> {
        let rate = self.rate?;
        Some(Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bytes.min(rate)
        }))
    }

    fn count(&self, direction: Direction, bytes: usize) {
        self.counted.lock().unwrap().push((direction, bytes));
    }
}

impl Counter {
    fn sum(&self, direction: Direction) -> usize {
        self.counted.lock().unwrap().iter().filter(|(way, _)| *way == direction).map(|(_, bytes)| bytes).sum()
    }
}

/// One end of a splice that can fail.
struct Io {
    stream: DuplexStream,
    read_fails: bool,
    write_fails: Option<io::ErrorKind>,
    gone: Arc<AtomicBool>,
}

impl Io {
    fn gone(&self) -> Option<io::Error> {
        self.gone.load(Ordering::Relaxed).then(reset)
    }
}

/// The splice's end, and the peer's.
fn io() -> (Io, DuplexStream) {
    let (stream, peer) = tokio::io::duplex(1024);
    (Io { stream, read_fails: false, write_fails: None, gone: Arc::default() }, peer)
}

async fn joined(near: &mut Io, far: &mut Io, idle: Option<Duration>, toll: &Counter) -> Outcome {
    splice(&mut Socket::new(near), &mut Socket::new(far), idle, toll).await
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_fails { Poll::Ready(Err(reset())) } else { Pin::new(&mut self.stream).poll_read(cx, buffer) }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.write_fails {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn all(peer: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    peer.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn f20_each_way_ends_by_itself() {
    for near_first in [true, false] {
        let ((mut near, mut client), (mut far, mut target)) = (io(), io());
        let toll = Counter::default();
        let (first, second) = if near_first { (&mut client, &mut target) } else { (&mut target, &mut client) };
        let talk = async {
            first.write_all(b"one").await.unwrap();
            first.shutdown().await.unwrap();
            assert_eq!(all(second).await, b"one");
            second.write_all(b"three").await.unwrap();
            second.shutdown().await.unwrap();
            assert_eq!(all(first).await, b"three");
        };
        let (outcome, ()) = tokio::join!(joined(&mut near, &mut far, None, &toll), talk);
        assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
        let (up, down) = if near_first { (3, 5) } else { (5, 3) };
        assert_eq!((toll.sum(Direction::Up), toll.sum(Direction::Down)), (up, down));
    }
}

#[tokio::test]
async fn f19_a_reset_of_either_end_ends_both_ways() {
    let ((mut near, _client), (mut far, _target)) = (io(), io());
    near.read_fails = true;
    let outcome = joined(&mut near, &mut far, None, &Counter::default()).await;
    assert!(matches!(outcome, Outcome::Broken(End::Near, _)), "{outcome:?}");

    let ((mut near, _client), (mut far, _target)) = (io(), io());
    far.read_fails = true;
    let outcome = joined(&mut near, &mut far, None, &Counter::default()).await;
    assert!(matches!(outcome, Outcome::Broken(End::Far, _)), "{outcome:?}");
}

#[tokio::test]
async fn an_end_that_takes_no_more_may_still_answer() {
    for near_writes in [true, false] {
        let ((mut near, mut client), (mut far, mut target)) = (io(), io());
        // As the kernel says it of a peer that has said its last byte and reads no more.
        let broken = if near_writes { &mut far } else { &mut near };
        broken.write_fails = Some(io::ErrorKind::BrokenPipe);
        let toll = Counter::default();
        let (writer, answerer) = if near_writes { (&mut client, &mut target) } else { (&mut target, &mut client) };
        let talk = async {
            writer.write_all(b"too much").await.unwrap();
            answerer.write_all(b"413").await.unwrap();
            answerer.shutdown().await.unwrap();
            assert_eq!(all(writer).await, b"413");
        };
        let (outcome, ()) = tokio::join!(joined(&mut near, &mut far, None, &toll), talk);
        let end = if near_writes { End::Far } else { End::Near };
        assert!(matches!(outcome, Outcome::Broken(broken, _) if broken == end), "{outcome:?}");
        let lost = if near_writes { Direction::Up } else { Direction::Down };
        assert_eq!(toll.sum(lost), 0, "what was not written on is not counted");
    }
}

#[tokio::test]
async fn f19_a_reset_that_a_write_was_told_of_is_no_end_of_file_for_the_reads_after_it() {
    for near_writes in [true, false] {
        let ((mut near, mut client), (mut far, mut target)) = (io(), io());
        let broken = if near_writes { &mut far } else { &mut near };
        broken.write_fails = Some(io::ErrorKind::ConnectionReset);
        let toll = Counter::default();
        let (writer, gone) = if near_writes { (&mut client, &mut target) } else { (&mut target, &mut client) };
        writer.write_all(b"the rest").await.unwrap();
        // Polled after the splice, whose write has been told by then.
        let last_words = async {
            gone.write_all(b"half").await.unwrap();
            gone.shutdown().await.unwrap();
        };
        let (outcome, ()) = tokio::join!(biased; joined(&mut near, &mut far, None, &toll), last_words);
        let end = if near_writes { End::Far } else { End::Near };
        assert!(matches!(outcome, Outcome::Broken(broken, _) if broken == end), "{outcome:?}");
        let mut half = [0; 4];
        writer.read_exact(&mut half).await.unwrap();
        assert!(&half == b"half" && writer.read_u8().now_or_never().is_none(), "an end of file");
    }
}

#[tokio::test(start_paused = true)]
async fn only_silence_both_ways_is_idle() {
    let ((mut near, mut client), (mut far, mut target)) = (io(), io());
    let (toll, idle) = (Counter::default(), Duration::from_secs(10));
    let before = Instant::now();
    let talk = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
            target.write_all(b"y").await.unwrap();
        }
    };
    let (outcome, ()) = tokio::join!(joined(&mut near, &mut far, Some(idle), &toll), talk);
    assert!(matches!(outcome, Outcome::Idle), "{outcome:?}");
    assert_eq!((toll.sum(Direction::Up), before.elapsed().as_secs()), (5, 100));
}

#[tokio::test(start_paused = true)]
async fn d5_a_target_that_takes_nothing_is_idle_however_much_there_is_for_it() {
    let ((mut near, mut client), (mut far, _target)) = (io(), io());
    let flood = async { while client.write_all(&[0; 1024]).await.is_ok() {} };
    let toll = Counter::default();
    let outcome = tokio::select! {
        outcome = joined(&mut near, &mut far, Some(Duration::from_secs(10)), &toll) => outcome,
        () = flood => unreachable!(),
    };
    assert!(matches!(outcome, Outcome::Idle), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_silence_lasts() {
    let ((mut near, _client), (mut far, _target)) = (io(), io());
    let toll = Counter::default();
    let day = Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, joined(&mut near, &mut far, None, &toll)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn d4_a_reader_that_stops_stops_the_writer_and_not_the_other_way() {
    let ((mut near, mut client), (mut far, mut target)) = (io(), io());
    let mut written = 0;
    let flood = async {
        while client.write_all(&[0; 1024]).await.is_ok() {
            written += 1024;
        }
    };
    let toll = Counter::default();
    let moment = Duration::from_secs(1);
    let stuck = async { tokio::join!(joined(&mut near, &mut far, None, &toll), flood) };
    assert!(tokio::time::timeout(moment, stuck).await.is_err());
    assert!(written <= SPLICE_BUFFER + 4 * 1024, "{written}");
    target.write_all(b"down").await.unwrap();
    let mut down = [0; 4];
    tokio::select! {
        _ = joined(&mut near, &mut far, None, &toll) => unreachable!(),
        read = client.read_exact(&mut down) => assert_eq!(read.unwrap(), 4),
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_at_their_rate_and_all_of_them() {
    let ((mut near, mut client), (mut far, mut target)) = (io(), io());
    let toll = Counter { rate: Some(7), ..Counter::default() };
    let before = Instant::now();
    let said = Said { near: Bytes::from_static(b"ten bytes, and "), far: Bytes::new() };
    let talk = async {
        client.write_all(b"then some more of them").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(all(&mut target).await, b"ten bytes, and then some more of them");
        target.shutdown().await.unwrap();
    };
    let (mut near_end, mut far_end) = (Socket::new(&mut near), Socket::new(&mut far));
    let (outcome, ()) = tokio::join!(splice_said(said, &mut near_end, &mut far_end, None, &toll), talk);
    assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
    // 15 bytes in 3 parts, 22 in 4.
    assert_eq!((before.elapsed().as_secs(), toll.sum(Direction::Up)), (7, 37));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_its_rate_holds_up_is_not_idle() {
    let ((mut near, mut client), (mut far, mut target)) = (io(), io());
    let toll = Counter { rate: Some(1), ..Counter::default() };
    let before = Instant::now();
    client.write_all(b"xyz").await.unwrap();
    let idle = Some(Duration::from_millis(500));
    let outcome = joined(&mut near, &mut far, idle, &toll).await;
    assert!(matches!(outcome, Outcome::Idle), "{outcome:?}");
    drop(far);
    assert_eq!(all(&mut target).await, b"xyz");
    // And no longer than that beyond its last byte.
    assert!((3500..3600).contains(&before.elapsed().as_millis()), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_reset_is_let_go_while_its_bytes_wait_for_their_rate() {
    let ((mut near, mut client), (mut far, _target)) = (io(), io());
    let toll = Counter { rate: Some(1), ..Counter::default() };
    let before = Instant::now();
    client.write_all(&[0; 1024]).await.unwrap();
    let gone = near.gone.clone();
    let resets = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        gone.store(true, Ordering::Relaxed);
    };
    let (mut near, mut far) = (Socket::watched(&mut near, Io::gone), Socket::new(&mut far));
    let joined = async { tokio::join!(splice(&mut near, &mut far, None, &toll), resets).0 };
    let outcome = tokio::time::timeout(Duration::from_secs(10) + 2 * RATE_LOOK, joined).await;
    assert!(matches!(outcome, Ok(Outcome::Broken(End::Near, _))), "{outcome:?} after {:?}", before.elapsed());
}

#[test]
fn a_part_is_cut_within_and_between_chunks() {
    for part in 1..=6 {
        let mut chunks: VecDeque<_> = ["ab", "c", "def"].map(Bytes::from).into();
        let rest = split_off(&mut chunks, part);
        let [first, then] = [chunks, rest].map(|chunks| chunks.iter().flatten().copied().collect::<Vec<_>>());
        assert_eq!((first.as_slice(), then.as_slice()), b"abcdef".split_at(part));
    }
}
