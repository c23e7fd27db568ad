//! Random programs of opening, writing, finishing, dropping and reading at both ends of a connection, our mux at one and the crate or
//! our mux at the other: both observe the same bytes, ends and resets. Refuses to know how either of them works.
//!
//! What the crate can't tell, and is allowed for:
//! - a reader is told of a reset as of an end of file;
//! - a stream dropped after the peer's end of file is ended, not reset;
//! - a stream dropped after its own end of file is not reset at all, so its peer may write into the void: programs in which a reader
//!   stops early write less than a window to it.

use std::cell::RefCell;
use std::pin::pin;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;
use underpass::tunnel::mux::Side;

use crate::end::{Cuts, End, SOON, wire};
use crate::reference::Reference;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}
type Stream = Box<dyn Io>;

/// What one end does with a stream.
#[derive(Clone, Debug)]
struct Script {
    /// Sizes of its writes.
    writes: Vec<usize>,
    /// Whether it says its end of file; else it drops the stream, whatever may still come.
    finishes: bool,
    /// After how many bytes it stops reading; not before the end if none.
    stops: Option<usize>,
}

#[derive(Clone, Debug)]
struct Exchange {
    /// Whether the left end opens it.
    left_opens: bool,
    opener: Script,
    other: Script,
}

/// What one end saw.
#[derive(Debug)]
struct Seen {
    read: Vec<u8>,
    end: Ending,
    /// Whether the peer took all that was written, with the end of file if one was said.
    wrote: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    EndOfFile,
    Reset,
    Stopped,
}

/// One end of a connection.
enum Peer {
    Ours(End),
    Crate(Reference),
}

impl Peer {
    fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    async fn open(&self) -> Stream {
        match self {
            Self::Ours(end) => Box::new(end.opener.open().await.unwrap()),
            Self::Crate(reference) => Box::new(reference.open().await),
        }
    }

    async fn accept(&mut self) -> Stream {
        match self {
            Self::Ours(end) => Box::new(end.incoming.accept().await.unwrap()),
            Self::Crate(reference) => Box::new(reference.accept().await.unwrap()),
        }
    }
}

/// The bytes of one end of one stream: the stream's number first, by which the other end knows it.
fn bytes_of(number: usize, opener: bool, script: &Script) -> Vec<u8> {
    let total: usize = script.writes.iter().sum();
    let mut bytes: Vec<u8> = (0..total).map(|at| (at * 7 % 251 + number + usize::from(opener)) as u8).collect();
    bytes[0] = number as u8;
    bytes
}

/// Plays a script; `first` is what was read of the stream already.
async fn play(stream: Stream, script: &Script, bytes: &[u8], first: Vec<u8>) -> Seen {
    let (mut reader, mut writer) = split(stream);
    let writing = async {
        let mut rest = bytes;
        for size in &script.writes {
            let (now, later) = rest.split_at(*size);
            rest = later;
            if writer.write_all(now).await.is_err() || writer.flush().await.is_err() {
                return false;
            }
        }
        !script.finishes || writer.shutdown().await.is_ok()
    };
    let mut writing = pin!(writing);
    let read = RefCell::new(first);
    let reading = async {
        let mut buffer = vec![0; 5000];
        while script.stops.is_none_or(|stops| read.borrow().len() < stops) {
            match reader.read(&mut buffer).await {
                Ok(0) => return Ending::EndOfFile,
                Ok(count) => read.borrow_mut().extend_from_slice(&buffer[..count]),
                Err(_) => return Ending::Reset,
            }
        }
        Ending::Stopped
    };
    let mut reading = pin!(reading);
    let (wrote, end) = tokio::select! {
        wrote = &mut writing => (wrote, if script.finishes { reading.await } else { Ending::Stopped }),
        end = &mut reading => (writing.await, end),
    };
    Seen { read: read.take(), end, wrote }
}

/// Plays all exchanges at once; yields what the opener and the other end of each saw.
async fn run(left: &mut Peer, right: &mut Peer, exchanges: &[Exchange]) -> Vec<(Seen, Seen)> {
    let mut openers = Vec::new();
    for (number, exchange) in exchanges.iter().enumerate() {
        let stream = if exchange.left_opens { left.open().await } else { right.open().await };
        openers.push(async move {
            let bytes = bytes_of(number, true, &exchange.opener);
            play(stream, &exchange.opener, &bytes, Vec::new()).await
        });
    }
    let accepted = async |peer: &mut Peer, left_opens: bool| {
        let mut others = Vec::new();
        for _ in exchanges.iter().filter(|exchange| exchange.left_opens == left_opens) {
            let mut stream = peer.accept().await;
            others.push(async move {
                let number = stream.read_u8().await.expect("a stream begins with its number");
                let script = &exchanges[usize::from(number)].other;
                let bytes = bytes_of(number.into(), false, script);
                (number, play(stream, script, &bytes, vec![number]).await)
            });
        }
        futures_util::future::join_all(others).await
    };
    // The accepting ends must run while more arrive, so all three go side by side.
    let (opened, by_left, by_right) =
        tokio::join!(futures_util::future::join_all(openers), accepted(right, true), accepted(left, false));
    let mut others: Vec<_> = by_left.into_iter().chain(by_right).collect();
    others.sort_by_key(|(number, _)| *number);
    opened.into_iter().zip(others.into_iter().map(|(_, seen)| seen)).collect()
}

/// What `reader` saw of what `writer` did.
fn judge(case: &str, reader: (&Seen, bool), writer: (&Seen, &Script, &[u8], bool)) {
    let (seen, reader_is_ours) = reader;
    let (wrote, script, bytes, writer_is_ours) = writer;
    assert!(bytes.starts_with(&seen.read), "{case}: other bytes than were written");
    match seen.end {
        Ending::Stopped => {}
        Ending::EndOfFile if script.finishes && wrote.wrote => {
            assert_eq!(seen.read.len(), bytes.len(), "{case}: an end of file behind the last byte")
        }
        // The crate takes a reset for an end, and makes an end of a drop.
        Ending::EndOfFile => assert!(!reader_is_ours || !writer_is_ours, "{case}: an end of file that was never said"),
        Ending::Reset => assert!(!script.finishes || !wrote.wrote, "{case}: a reset instead of the end that was said"),
    }
}

async fn compare(mut left: Peer, mut right: Peer, exchanges: &[Exchange]) {
    let results = timeout(SOON, run(&mut left, &mut right, exchanges)).await.expect("nothing hangs");
    assert_eq!(results.len(), exchanges.len());
    for (number, (exchange, (opener, other))) in exchanges.iter().zip(&results).enumerate() {
        let (ours, theirs) = (bytes_of(number, true, &exchange.opener), bytes_of(number, false, &exchange.other));
        let (opener_is_ours, other_is_ours) = match exchange.left_opens {
            true => (left.is_ours(), right.is_ours()),
            false => (right.is_ours(), left.is_ours()),
        };
        let case = format!("stream {number}: {exchange:?}");
        judge(&case, (other, other_is_ours), (opener, &exchange.opener, &ours, opener_is_ours));
        judge(&case, (opener, opener_is_ours), (other, &exchange.other, &theirs, other_is_ours));
    }
    for peer in [&left, &right] {
        if let Peer::Ours(end) = peer {
            assert!(!end.link.has_ended(), "the connection lives");
            assert_eq!(end.link.streams(), 0, "nobody holds a stream");
        }
    }
}

fn script() -> impl Strategy<Value = Script> {
    let size = prop_oneof![4 => 1_usize..200, 3 => 1_usize..20_000, 1 => 60_000_usize..150_000];
    let stops = prop_oneof![3 => Just(None), 1 => (1_usize..50_000).prop_map(Some)];
    (prop::collection::vec(size, 1..8), prop::bool::weighted(0.7), stops).prop_map(|(writes, finishes, stops)| Script {
        writes,
        finishes,
        stops,
    })
}

/// Less than a window towards whoever stops reading.
fn within_window(mut script: Script, reader: &Script) -> Script {
    if reader.stops.is_some() {
        let mut total = 0;
        script.writes.retain(|size| {
            total += size;
            total < 200_000
        });
        if script.writes.is_empty() {
            script.writes.push(1);
        }
    }
    script
}

fn exchanges() -> impl Strategy<Value = Vec<Exchange>> {
    let exchange = (any::<bool>(), script(), script()).prop_map(|(left_opens, opener, other)| Exchange {
        left_opens,
        opener: within_window(opener.clone(), &other),
        other: within_window(other, &opener),
    });
    prop::collection::vec(exchange, 1..8)
}

fn cuts() -> impl Strategy<Value = Cuts> {
    let cut = prop_oneof![1_usize..40, 1_usize..3000, 10_000_usize..65_000];
    prop::collection::vec(cut, 1..12).prop_map(Cuts)
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 60,
        failure_persistence: None,
        max_shrink_time: 60_000,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn our_agent_and_the_crates_server_observe_the_same(exchanges in exchanges(), cuts in cuts()) {
        block_on(async {
            let (ours, theirs) = wire();
            let left = Peer::Ours(End::over(ours, Side::Agent, cuts));
            compare(left, Peer::Crate(Reference::over(theirs, Side::Gateway)), &exchanges).await;
        });
    }

    #[test]
    fn our_gateway_and_the_crates_client_observe_the_same(exchanges in exchanges(), cuts in cuts()) {
        block_on(async {
            let (ours, theirs) = wire();
            let left = Peer::Ours(End::over(ours, Side::Gateway, cuts));
            compare(left, Peer::Crate(Reference::over(theirs, Side::Agent)), &exchanges).await;
        });
    }

    #[test]
    fn our_agent_and_our_gateway_observe_the_same(exchanges in exchanges(), cuts in cuts(), other_cuts in cuts()) {
        block_on(async {
            let (agent, gateway) = wire();
            let left = Peer::Ours(End::over(agent, Side::Agent, cuts));
            compare(left, Peer::Ours(End::over(gateway, Side::Gateway, other_cuts)), &exchanges).await;
        });
    }
}

#[tokio::test]
async fn a_thousand_streams_are_opened_at_once_by_either_side_of_the_crate() {
    for side in [Side::Agent, Side::Gateway] {
        let (ours, theirs) = wire();
        let other = if side == Side::Agent { Side::Gateway } else { Side::Agent };
        let mut left = Peer::Ours(End::over(ours, side, Cuts(vec![65_536])));
        let mut right = Peer::Crate(Reference::over(theirs, other));
        for left_opens in [true, false] {
            let exchange = Script { writes: vec![100, 3], finishes: true, stops: None };
            // The number is a byte, so a few rounds, all of which stay open until the last.
            let mut held = Vec::new();
            for _ in 0..1000 {
                let (from, to) = if left_opens { (&mut left, &mut right) } else { (&mut right, &mut left) };
                let mut stream = from.open().await;
                stream.write_all(&bytes_of(0, true, &exchange)).await.unwrap();
                stream.flush().await.unwrap();
                let mut theirs = timeout(SOON, to.accept()).await.expect("it arrives");
                theirs.write_all(b"!").await.unwrap();
                theirs.flush().await.unwrap();
                held.push((stream, theirs));
            }
            for (stream, theirs) in &mut held {
                let mut answer = [0; 103];
                timeout(SOON, theirs.read_exact(&mut answer)).await.expect("all arrives").unwrap();
                assert!(answer[..] == bytes_of(0, true, &exchange)[..]);
                assert_eq!(timeout(Duration::from_secs(9), stream.read_u8()).await.expect("the answer arrives").unwrap(), b'!');
            }
        }
    }
}
