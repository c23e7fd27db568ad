//! Traffic of which every byte is known: 64 streams of five kinds that go on until told, each byte a function of its stream and
//! offset. Counts what was lost, doubled or changed, and how long a stream stood still. Refuses to know what carries it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use underpass::base::tasks::Tasks;

use super::flow::{Flow, Told};
use crate::harness::target::{Target, echoes, pattern};

/// What a stream does, for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The target sends back what it gets.
    Echo,
    /// Bytes for the target alone.
    Upload,
    /// Bytes for the client alone.
    Download,
    /// 100 bytes, and 2000 for an answer, again and again.
    Ask,
    /// The client ends its direction early; the target's goes on.
    ClientEnds,
    /// The other way round.
    TargetEnds,
}

pub(crate) const KINDS: [Kind; 6] = [Kind::Echo, Kind::Upload, Kind::Download, Kind::Ask, Kind::ClientEnds, Kind::TargetEnds];

/// In the place of a stream's number: a stream that nobody keeps an account of.
const ASKED: u32 = u32::MAX;

const QUESTION: usize = 100;
const ANSWER: usize = 2000;

/// What a direction carries that is ended early.
const EARLY: u64 = 64 * 1024;

/// How much and how often a stream sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) streams: usize,
    pub(crate) chunk: usize,
    pub(crate) every: Duration,
}

impl Load {
    /// Some 13 MB/s over all streams and directions.
    pub(crate) const MIXED: Self = Self { streams: 64, chunk: 4096, every: Duration::from_millis(20) };
    /// All that the path can carry.
    pub(crate) const BULK: Self = Self { streams: 1, chunk: 256 * 1024, every: Duration::from_millis(1) };
    /// What a slow path can carry beside the heartbeats.
    pub(crate) const LIGHT: Self = Self { streams: 6, chunk: 500, every: Duration::from_millis(100) };
}

/// One stream: what each direction has carried, and why it ended before its time.
struct Stream {
    kind: Kind,
    load: Load,
    up: Flow,
    down: Flow,
    lost: Mutex<Option<String>>,
}

impl Stream {
    fn is_lost(&self) -> bool {
        self.lost.lock().unwrap().is_some()
    }

    fn lose(&self, end: &str, error: &io::Error) {
        self.lost.lock().unwrap().get_or_insert_with(|| format!("{end}: {error}"));
    }
}

/// What both ends know: the target is in this process.
#[derive(Clone)]
struct Known {
    streams: Arc<Mutex<HashMap<u32, Arc<Stream>>>>,
    /// Every sender ends its direction.
    stop: CancellationToken,
}

/// Streams that go on until [`Self::finish`].
pub(crate) struct Traffic {
    known: Known,
    target: Target,
    next: AtomicU32,
    tasks: Tasks,
}

impl Traffic {
    /// Its target listens at this address.
    pub(crate) async fn new(at: IpAddr) -> Self {
        let known = Known { streams: Arc::default(), stop: CancellationToken::new() };
        let served = known.clone();
        let target = Target::start_at(at, move |stream| serve(stream, served.clone())).await;
        Self { known, target, next: AtomicU32::new(0), tasks: Tasks::new() }
    }

    /// Where the agent finds the target.
    pub(crate) fn target(&self) -> SocketAddr {
        self.target.address()
    }

    /// Opens streams of every kind at `entry`, and waits until each has carried bytes.
    pub(crate) async fn start(&self, entry: SocketAddr, load: Load) {
        for number in 0..load.streams {
            self.open(entry, KINDS[number % KINDS.len()], load);
        }
        crate::harness::eventually("every stream carries bytes", crate::harness::SOON, async || {
            self.assert_whole();
            self.is_settled().then_some(())
        })
        .await;
        self.gap();
    }

    /// Opens one more stream.
    pub(crate) fn open(&self, entry: SocketAddr, kind: Kind, load: Load) {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let (up, down) = (Flow::new(id * 2), Flow::new(id * 2 + 1));
        let stream = Arc::new(Stream { kind, load, up, down, lost: Mutex::new(None) });
        self.known.streams.lock().unwrap().insert(id, stream.clone());
        let stop = self.known.stop.clone();
        self.tasks.spawn(async move {
            if let Err(error) = client(entry, id, &stream, &stop).await {
                stream.lose("client", &error);
            }
        });
    }

    /// One question and its answer, on a stream of its own.
    pub(crate) async fn ask(entry: SocketAddr) -> io::Result<()> {
        let mut io = TcpStream::connect(entry).await?;
        io.write_all(&ASKED.to_be_bytes()).await?;
        echoes(&mut io, &pattern(QUESTION)).await
    }

    fn all(&self) -> Vec<Arc<Stream>> {
        self.known.streams.lock().unwrap().values().cloned().collect()
    }

    /// The longest time any stream has stood still since this was last asked.
    pub(crate) fn gap(&self) -> Duration {
        let all = self.all();
        all.iter()
            .filter(|stream| !stream.is_lost())
            .map(|stream| stream.up.gap().max(stream.down.gap()))
            .max()
            .unwrap_or_default()
    }

    /// Waits until every stream that is not lost has carried bytes after now: everybody has got over whatever it was.
    pub(crate) async fn flows(&self, within: Duration) {
        let before: Vec<_> =
            self.all().into_iter().map(|stream| (stream.up.arrivals(), stream.down.arrivals(), stream)).collect();
        crate::harness::eventually("every stream goes on", within, async || {
            let moved = |(up, down, stream): &(u64, u64, Arc<Stream>)| {
                stream.is_lost()
                    || (stream.up.is_done() || stream.up.arrivals() > *up)
                        && (stream.down.is_done() || stream.down.arrivals() > *down)
            };
            before.iter().all(moved).then_some(())
        })
        .await;
    }

    /// Whether every stream is lost or has carried bytes.
    pub(crate) fn is_settled(&self) -> bool {
        self.all().iter().all(|stream| stream.is_lost() || stream.up.arrived() + stream.down.arrived() > 0)
    }

    /// Fails the test at the first stream that is lost, or byte that is wrong.
    pub(crate) fn assert_whole(&self) {
        let report = self.report();
        assert!(report.is_whole(), "{report}");
    }

    /// What has happened until now.
    pub(crate) fn report(&self) -> Report {
        let mut report = Report::default();
        for stream in self.all() {
            report.streams += 1;
            report.lost_streams.extend(stream.lost.lock().unwrap().as_ref().map(|why| format!("{:?}: {why}", stream.kind)));
            for flow in [&stream.up, &stream.down] {
                report.bytes += flow.arrived();
                report.told.add(flow.told());
            }
        }
        report
    }

    /// Ends every stream, and checks that the last byte of each has arrived.
    pub(crate) async fn finish(self, within: Duration) -> Report {
        self.known.stop.cancel();
        let mut ticks = interval(Duration::from_millis(25));
        let all_end = async {
            while !self.tasks.is_empty() {
                ticks.tick().await;
            }
        };
        // What has not ended by then has lost bytes that are missed below.
        let _ = timeout(within, all_end).await;
        for stream in self.all().iter().filter(|stream| !stream.is_lost()) {
            for (name, flow) in [("up", &stream.up), ("down", &stream.down)] {
                if !flow.is_whole() {
                    stream.lose(name, &io::Error::other(format!("{} bytes sent, {} arrived", flow.sent(), flow.arrived())));
                }
            }
        }
        self.report()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// What has become of streams and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) streams: usize,
    pub(crate) lost_streams: Vec<String>,
    pub(crate) bytes: u64,
    pub(crate) told: Told,
}

impl Report {
    pub(crate) fn is_whole(&self) -> bool {
        self.lost_streams.is_empty() && self.told.is_right()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { streams, lost_streams, bytes, told: Told { lost, doubled, changed } } = self;
        write!(f, "{streams} streams, {bytes} bytes; lost {lost}, doubled {doubled}, changed {changed}; ")?;
        write!(f, "{} streams lost: {lost_streams:#?}", lost_streams.len())
    }
}

/// The client's end of a stream.
async fn client(entry: SocketAddr, id: u32, stream: &Stream, stop: &CancellationToken) -> io::Result<()> {
    let mut io = TcpStream::connect(entry).await?;
    io.set_nodelay(true)?;
    io.write_all(&id.to_be_bytes()).await?;
    let (mut from, mut to) = io.split();
    let Stream { kind, load, up, down, .. } = stream;
    match kind {
        Kind::Echo => both(send(up, &mut to, *load, stop), up.receive(&mut from)).await,
        Kind::Upload | Kind::TargetEnds => both(send(up, &mut to, *load, stop), down.receive(&mut from)).await,
        Kind::Download => both(end(up, &mut to), down.receive(&mut from)).await,
        Kind::ClientEnds => both(send_early(up, &mut to), down.receive(&mut from)).await,
        Kind::Ask => {
            let mut ticks = ticks(*load);
            while !stop.is_cancelled() {
                ticks.tick().await;
                up.send(&mut to, QUESTION).await?;
                if !down.receive_some(&mut from, ANSWER).await? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            both(end(up, &mut to), down.receive(&mut from)).await
        }
    }
}

/// The target's end.
async fn serve(mut io: TcpStream, known: Known) -> io::Result<()> {
    io.set_nodelay(true)?;
    let id = io.read_u32().await?;
    if id == ASKED {
        let (mut from, mut to) = io.split();
        return copy(&mut from, &mut to).await.map(drop);
    }
    let stream = known.streams.lock().unwrap().get(&id).cloned();
    let stream = stream.ok_or_else(|| io::Error::other("a stream that nobody has opened"))?;
    let served = serve_stream(io, &stream, &known.stop).await;
    if let Err(error) = &served {
        stream.lose("target", error);
    }
    served
}

async fn serve_stream(mut io: TcpStream, stream: &Stream, stop: &CancellationToken) -> io::Result<()> {
    let (mut from, mut to) = io.split();
    let Stream { kind, load, up, down, .. } = stream;
    match kind {
        Kind::Echo => {
            copy(&mut from, &mut to).await?;
            end(down, &mut to).await
        }
        Kind::Upload => {
            up.receive(&mut from).await?;
            end(down, &mut to).await
        }
        Kind::Download | Kind::ClientEnds => both(up.receive(&mut from), send(down, &mut to, *load, stop)).await,
        Kind::TargetEnds => both(up.receive(&mut from), send_early(down, &mut to)).await,
        Kind::Ask => {
            while up.receive_some(&mut from, QUESTION).await? {
                down.send(&mut to, ANSWER).await?;
            }
            end(down, &mut to).await
        }
    }
}

async fn both(one: impl Future<Output = io::Result<()>>, other: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::try_join!(one, other).map(drop)
}

fn ticks(load: Load) -> tokio::time::Interval {
    let mut ticks = interval(load.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Sends until told to stop.
async fn send(flow: &Flow, to: &mut (impl AsyncWrite + Unpin), load: Load, stop: &CancellationToken) -> io::Result<()> {
    let mut ticks = ticks(load);
    while !stop.is_cancelled() {
        ticks.tick().await;
        flow.send(to, load.chunk).await?;
    }
    end(flow, to).await
}

async fn send_early(flow: &Flow, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    flow.send(to, EARLY as usize).await?;
    end(flow, to).await
}

async fn end(flow: &Flow, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    flow.ends();
    to.shutdown().await
}
