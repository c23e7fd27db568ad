//! The hot paths one by one: WebSocket frames, yamux frames through the engine, and an HTTP target's rules. Under criterion they are
//! timed:
//!
//! ```sh
//! cargo bench --bench micro --features fuzzing
//! ```
//!
//! and `benches/instructions` counts what the processor executes for them (`--list`, `--case NAME`). Refuses to know sockets and TLS.
#![allow(clippy::print_stdout, reason = "the list is for a script")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use underpass::base::limits::{MAX_MESSAGE, READ_BUFFER, SENT_MESSAGE, SPLICE_BUFFER};
use underpass::fuzzing::End;
use underpass::rules::http::{Ask, Decision, Rules};
use underpass::rules::path::Path;
use underpass::tunnel::websocket::{Decoder, Event, Opcode, Sender, head};

/// Bytes of a yamux header.
const HEADER: usize = 12;

/// What an interactive stream sends at once.
const SMALL: usize = 64;

/// Times that `--case` runs one: counts don't vary, so a few are enough.
const TIMES: u64 = 8;

/// One hot path.
struct Case {
    name: &'static str,
    /// What one run moves.
    amount: Amount,
    work: Box<dyn Work>,
}

#[derive(Clone, Copy)]
enum Amount {
    Bytes(usize),
    Frames(usize),
    Requests(usize),
}

/// Something that can be done again and again.
trait Work {
    /// What is not measured.
    fn prepare(&mut self) {}

    /// What is; yields something that depends on it.
    fn run(&mut self) -> usize;
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => cases().iter().for_each(|case| println!("{} {}", case.name, case.amount.in_units())),
        ["--case", name] => cases().into_iter().filter(|case| case.name == name).for_each(|case| count(case.work)),
        _ => time(),
    }
}

/// Every case, in the order of a byte's way in, then out.
fn cases() -> Vec<Case> {
    let message = 16 * MAX_MESSAGE;
    vec![
        Case::new("websocket-decode-key-0", Amount::Bytes(message), Decode::new([0; 4])),
        Case::new("websocket-decode-another-key", Amount::Bytes(message), Decode::new([0x37, 0xfa, 0x21, 0x3d])),
        Case::new("websocket-head", Amount::Frames(1024), Heads),
        received("mux-receive-bulk-1", 1, SENT_MESSAGE - HEADER),
        received("mux-receive-bulk-64", 64, SENT_MESSAGE - HEADER),
        received("mux-receive-small-1", 1, SMALL),
        received("mux-receive-small-64", 64, SMALL),
        sent("mux-send-bulk-1", 1, SPLICE_BUFFER),
        sent("mux-send-bulk-64", 64, SPLICE_BUFFER),
        sent("mux-send-small-1", 1, SMALL),
        sent("mux-send-small-64", 64, SMALL),
        Case::new("mux-gather-4-bulk-60-small", Amount::Frames(64), Gather::new(4, 60)),
        Case::new("rules-allow-of-10000", Amount::Requests(256), Decide::new("GET")),
        Case::new("rules-deny-of-10000", Amount::Requests(256), Decide::new("DELETE")),
    ]
}

fn received(name: &'static str, streams: usize, body: usize) -> Case {
    let work = Receive::new(streams, body);
    let frames = work.messages.iter().map(|(_, ids)| ids.len()).sum();
    Case::new(name, amount(frames, body), work)
}

fn sent(name: &'static str, streams: usize, body: usize) -> Case {
    let work = Send::new(streams, body);
    Case::new(name, amount(work.rounds * streams, body), work)
}

/// Large frames cost by their bytes, small ones each.
fn amount(frames: usize, body: usize) -> Amount {
    if body == SMALL { Amount::Frames(frames) } else { Amount::Bytes(frames * body) }
}

impl Case {
    fn new(name: &'static str, amount: Amount, work: impl Work + 'static) -> Self {
        Self { name, amount, work: Box::new(work) }
    }
}

impl Amount {
    /// How much of which unit a count is divided by.
    fn in_units(self) -> String {
        match self {
            Self::Bytes(bytes) => format!("{} KiB", bytes as f64 / 1024.0),
            Self::Frames(frames) => format!("{frames} frame"),
            Self::Requests(requests) => format!("{requests} request"),
        }
    }
}

/// Runs a case under criterion's clock.
fn time() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("micro");
    for mut case in cases() {
        group.throughput(match case.amount {
            Amount::Bytes(bytes) => Throughput::Bytes(bytes as u64),
            Amount::Frames(count) | Amount::Requests(count) => Throughput::Elements(count as u64),
        });
        group.bench_function(case.name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| timed(case.work.as_mut())).sum::<Duration>());
        });
    }
    group.finish();
    criterion.final_summary();
}

fn timed(work: &mut dyn Work) -> Duration {
    work.prepare();
    let start = Instant::now();
    black_box(work.run());
    start.elapsed()
}

/// Runs a case under callgrind, which counts what happens within `counted`.
fn count(mut work: Box<dyn Work>) {
    for _ in 0..TIMES {
        work.prepare();
        black_box(work.run());
    }
    for _ in 0..TIMES {
        work.prepare();
        black_box(counted(work.as_mut()));
    }
    println!("{TIMES}");
}

/// By this name the runner finds what to count, and in it alone.
#[inline(never)]
fn counted(work: &mut dyn Work) -> usize {
    black_box(work.run())
}

/// Full messages of an agent, each in a read buffer of its own.
struct Decode {
    decoder: Decoder,
    message: Vec<u8>,
    inbound: Vec<BytesMut>,
}

impl Decode {
    fn new(key: [u8; 4]) -> Self {
        let (mut head, len) = head(Sender::Client, Opcode::Binary, MAX_MESSAGE);
        head[len - 4..len].copy_from_slice(&key);
        let message = [&head[..len], &[7; MAX_MESSAGE]].concat();
        Self { decoder: Decoder::new(Sender::Client), message, inbound: Vec::new() }
    }
}

impl Work for Decode {
    fn prepare(&mut self) {
        self.inbound = vec![BytesMut::from(&self.message[..]); 16];
    }

    fn run(&mut self) -> usize {
        let mut count = 0;
        for inbound in &mut self.inbound {
            while let Ok(Some(Event::Data(bytes))) = self.decoder.next(inbound) {
                count += bytes.len();
            }
        }
        count
    }
}

/// Headers of messages of several sizes.
struct Heads;

impl Work for Heads {
    fn run(&mut self) -> usize {
        (0..1024).map(|index| black_box(head(Sender::Client, Opcode::Binary, black_box(64 * index))).1).sum()
    }
}

/// Messages into the engine, what they brought out of it to its reader, and the window updates that follow.
struct Receive {
    end: End,
    /// With the stream of each frame.
    messages: Vec<(Bytes, Vec<u32>)>,
    outbound: VecDeque<Bytes>,
}

impl Receive {
    /// Messages as full as frames of that body make them, at least a megabyte, of all streams in turn.
    fn new(streams: usize, body: usize) -> Self {
        let end = End::new(streams);
        let mut ids = end.ids().iter().copied().cycle();
        let frames = SENT_MESSAGE / (HEADER + body);
        let messages = (0..(streams / frames).max(16)).map(|_| {
            let ids: Vec<u32> = ids.by_ref().take(frames).collect();
            (ids.iter().flat_map(|id| End::frame(*id, &vec![7; body])).collect(), ids)
        });
        Self { messages: messages.collect(), end, outbound: VecDeque::new() }
    }
}

impl Work for Receive {
    fn run(&mut self) -> usize {
        let mut count = 0;
        for (message, ids) in &self.messages {
            self.end.receive(message.clone());
            let streams = self.end.ids().len().min(ids.len());
            count += ids[..streams].iter().map(|id| self.end.read(*id)).sum::<usize>();
            count += self.end.send(&mut self.outbound);
        }
        count
    }
}

/// What streams write, framed and gathered into messages.
struct Send {
    end: End,
    body: Bytes,
    rounds: usize,
    outbound: VecDeque<Bytes>,
}

impl Send {
    /// In each round every stream writes once; at least a megabyte, or 512 frames, in all.
    fn new(streams: usize, body: usize) -> Self {
        let rounds = if body == SMALL { 512 / streams } else { (READ_BUFFER / 4096 / streams).max(1) };
        Self { end: End::new(streams), body: vec![7; body].into(), rounds, outbound: VecDeque::new() }
    }
}

impl Work for Send {
    fn prepare(&mut self) {
        self.end.grant();
    }

    fn run(&mut self) -> usize {
        let (mut count, many) = (0, self.end.ids().len() > 1 || self.body.len() > SMALL);
        for _ in 0..self.rounds {
            for index in 0..self.end.ids().len() {
                self.end.write(self.end.ids()[index], self.body.clone());
            }
            if many {
                count += self.end.send(&mut self.outbound);
            }
        }
        count + self.end.send(&mut self.outbound)
    }
}

/// Choosing what goes first, and gathering it: nothing else.
struct Gather {
    end: End,
    bulk: usize,
    outbound: VecDeque<Bytes>,
}

impl Gather {
    fn new(bulk: usize, small: usize) -> Self {
        Self { end: End::new(bulk + small), bulk, outbound: VecDeque::new() }
    }
}

impl Work for Gather {
    fn prepare(&mut self) {
        self.end.grant();
        for (index, id) in self.end.ids().to_vec().into_iter().enumerate() {
            let length = if index < self.bulk { SPLICE_BUFFER } else { SMALL };
            self.end.write(id, vec![7; length].into());
        }
    }

    fn run(&mut self) -> usize {
        self.end.send(&mut self.outbound)
    }
}

/// Requests under ten thousand rules, whose paths have most of their segments in common.
struct Decide {
    rules: Rules,
    method: &'static str,
    paths: Vec<String>,
}

impl Decide {
    fn new(method: &'static str) -> Self {
        let place = |index: usize| (index % 100, index / 100);
        let rule = |index: usize| {
            let (one, other) = place(index);
            let path = format!("/api/v1/tenants/t{one}/*/collection{other}/**");
            serde_json::json!({"methods": ["GET", "POST"], "path": path, "query": ["page", "limit"]})
        };
        let path = |index: usize| {
            let (one, other) = place(index * 37);
            format!("/api/v1/tenants/t{one}/region/collection{other}/items/{index}?page=2&limit=50")
        };
        let rules = serde_json::from_value((0..10_000).map(rule).collect()).expect("they are rules");
        Self { rules, method, paths: (0..256).map(path).collect() }
    }
}

impl Work for Decide {
    fn run(&mut self) -> usize {
        let allowed = |raw: &String| {
            let path = Path::parse(raw).expect("it is a plain path");
            let decision = self.rules.decide(&Ask { method: self.method, path: &path, upgrade: false, body: None });
            usize::from(matches!(black_box(decision), Decision::Allow { .. }))
        };
        self.paths.iter().map(allowed).sum()
    }
}
