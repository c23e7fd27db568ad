//! Two hundred clients of every kind at a time, while callers come and go and both configurations change: nobody's bytes are
//! wrong, who may stay is not cut, and who may not is gone in time. Refuses to know real client programs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use underpass::base::limits::{AUDIT_REFUSALS_PER_CALLER, AUDIT_REFUSALS_PER_MINUTE};

use crate::fixtures::client::Io;
use crate::harness::entries::{CERTIFIED, Entries, Token, Way};
use crate::harness::random::Random;
use crate::harness::target::Target;
use crate::harness::{SOON, eventually, heavy};

const CLIENTS: usize = 200;
const SECONDS: usize = 60;

/// How soon a revoked caller's streams have ended.
const REVOKED: Duration = Duration::from_secs(5);

/// Between two rounds of a stream, and two streams of a client.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is in by a certificate every other second.
const COMES_AND_GOES: &str = "second.vendor.test";

/// A caller that is there for a while.
struct Caller {
    token: String,
    /// From here on its streams may break.
    leaves: Cell<bool>,
    /// Since when they have to.
    left: Cell<Option<Instant>>,
}

impl Caller {
    fn new(token: String) -> Rc<Self> {
        Rc::new(Self { token, leaves: Cell::new(false), left: Cell::new(None) })
    }

    fn overstays(&self) -> bool {
        self.left.get().is_some_and(|left| left.elapsed() > REVOKED)
    }
}

/// How a client comes in, and as whom.
#[derive(Clone, Copy)]
enum Kind {
    /// As somebody who stays.
    Stays(Way),
    /// By `underpass connect --listen`.
    Connects(SocketAddr),
    /// With a token that lives for a second or two.
    BriefToken(Way),
    /// With a certificate whose name is known every other second.
    BriefName(Way),
}

/// What the clients share.
struct Storm {
    entries: Entries,
    stays: Token,
    brief_token: RefCell<Rc<Caller>>,
    brief_name: RefCell<Rc<Caller>>,
    /// What [`COMES_AND_GOES`] connects with.
    connector: TlsConnector,
    end: Instant,
    done: Cell<usize>,
    cut: [Cell<usize>; 2],
}

impl Storm {
    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Opens stream after stream until the end.
    async fn client(&self, number: usize, kind: Kind) {
        let (mut random, mut ticks) = (Random(number as u64), interval(PAUSE));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let host = format!("127.7.{}.{}", number / 250, number % 250 + 1);
        let long = (number / 10).is_multiple_of(4);
        while !self.is_over() {
            ticks.tick().await;
            let caller = match kind {
                Kind::BriefToken(_) => Some((0, self.brief_token.borrow().clone())),
                Kind::BriefName(_) => Some((1, self.brief_name.borrow().clone())),
                Kind::Stays(_) | Kind::Connects(_) => None,
            };
            let caller = caller.as_ref().map(|(which, caller)| (*which, &**caller));
            let io = match self.open(&host, kind, caller.map(|(_, caller)| caller)).await {
                Ok(io) => io,
                Err(_) if caller.is_some_and(|(_, caller)| caller.leaves.get()) => continue,
                Err(error) => panic!("client {number}: {error}"),
            };
            // It may have left and come again meanwhile.
            if caller.is_some_and(|(_, caller)| caller.leaves.get()) {
                continue;
            }
            match self.exchange(io, &mut random, &mut ticks, long, caller.map(|(_, caller)| caller)).await {
                Ok(()) => self.done.set(self.done.get() + 1),
                Err(error) => match caller {
                    Some((which, caller)) if caller.leaves.get() => self.cut[which].set(self.cut[which].get() + 1),
                    _ => panic!("client {number} lost a stream: {error}"),
                },
            }
        }
    }

    async fn open(&self, host: &str, kind: Kind, caller: Option<&Caller>) -> io::Result<Box<dyn Io>> {
        let entries = &self.entries;
        let opened = async {
            match kind {
                Kind::Stays(way) if way.is_certified() => entries.open(way, "echo", "").await,
                Kind::Stays(way) => entries.open_from(host, way, "echo", &self.stays.text, &entries.without_certificate).await,
                Kind::Connects(at) => Ok(Box::new(TcpStream::connect(at).await?) as Box<dyn Io>),
                Kind::BriefToken(way) => {
                    let token = caller.map_or("", |caller| &caller.token);
                    entries.open_from(host, way, "echo", token, &entries.without_certificate).await
                }
                Kind::BriefName(way) => entries.open_from(host, way, "echo", "", &self.connector).await,
            }
        };
        timeout(SOON, opened).await.expect("an open is answered")
    }

    /// One stream: all at once, or in rounds; for a while, or to the end of the storm; ended by half-closing, or dropped.
    async fn exchange(
        &self,
        io: Box<dyn Io>,
        random: &mut Random,
        ticks: &mut Interval,
        long: bool,
        caller: Option<&Caller>,
    ) -> io::Result<()> {
        let (mut from, mut to) = split(io);
        let at_once = !long && random.below(4) == 0;
        let mut rounds = if long { u64::MAX } else { random.below(10) };
        while rounds > 0 && !at_once && !self.is_over() {
            rounds -= 1;
            let most = if random.below(20) == 0 { 256 << 10 } else { 16 << 10 };
            let len = random.below(most) as usize + 1;
            let bytes = random.bytes(len);
            let (sends, mut back) = (send(&mut to, &bytes, false), vec![0; bytes.len()]);
            let (sent, received) =
                timeout(SOON, async { tokio::join!(sends, from.read_exact(&mut back)) }).await.expect("it flows");
            sent.and(received.map(drop))?;
            assert!(back == bytes, "{len} bytes came back changed");
            assert!(!caller.is_some_and(Caller::overstays), "a stream goes on for {REVOKED:?} after its caller has left");
            ticks.tick().await;
        }
        if !at_once && random.below(4) == 0 {
            return Ok(());
        }
        let len = if at_once { random.below(1 << 20) as usize } else { 0 };
        let bytes = random.bytes(len);
        let (sends, mut back) = (send(&mut to, &bytes, true), Vec::new());
        let (sent, received) =
            timeout(SOON, async { tokio::join!(sends, from.read_to_end(&mut back)) }).await.expect("it ends");
        sent.and(received.map(drop))?;
        assert!(back == bytes, "{} of {len} bytes came back, or changed", back.len());
        Ok(())
    }

    /// Every second a token is made and the one before revoked, a name comes or goes, and both ends read their files anew.
    async fn operate(&self, agent_yaml: [&str; 2]) {
        let mut ticks = interval(Duration::from_secs(1));
        ticks.tick().await;
        for second in 1..SECONDS {
            ticks.tick().await;
            let fresh = Caller::new(self.entries.token(&format!("brief-{second}"), "acme/dc1/*", &[]).await.text);
            let old = self.brief_token.replace(fresh);
            old.leaves.set(true);
            self.entries.revoke(&format!("brief-{}", second - 1)).await;
            old.left.set(Some(Instant::now()));

            let comes = second.is_multiple_of(2);
            let names = [(CERTIFIED, "acme/dc1/*"), (COMES_AND_GOES, "acme/dc1/*")];
            self.entries.configure(&names[..if comes { 2 } else { 1 }], "");
            let old = self.brief_name.borrow().clone();
            old.leaves.set(true);
            self.entries.site.gateway.running().signal(Signal::HUP);
            self.entries.site.agent.configure(agent_yaml[second % 2]);
            self.entries.site.agent.running().signal(Signal::HUP);
            self.reloaded(second).await;
            old.left.set(Some(Instant::now()));
            if comes {
                self.brief_name.replace(Caller::new(String::new()));
            }
        }
    }

    /// Waits until the gateway has read its file so often.
    async fn reloaded(&self, times: usize) {
        let line = format!("underpass_reloads_total{{outcome=\"done\"}} {times}\n");
        eventually(&line, SOON, async || self.entries.site.gateway.metrics().await.contains(&line).then_some(())).await;
    }
}

async fn send(to: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8], ends: bool) -> io::Result<()> {
    to.write_all(bytes).await?;
    if ends { to.shutdown().await } else { to.flush().await }
}

/// Of each stream of one end's audit: who asked, how it ended.
fn streams(rows: &[Value]) -> Vec<(&str, &str, Option<&Value>)> {
    let closed: HashMap<_, _> =
        rows.iter().filter(|row| row["event"] == "closed").map(|row| (row["request"].as_str().unwrap(), row)).collect();
    let opened = rows.iter().filter(|row| row["event"] == "opened");
    let mut streams: Vec<_> = opened
        .map(|row| {
            let request = row["request"].as_str().unwrap();
            (request, row["caller"].as_str().unwrap(), closed.get(request).copied())
        })
        .collect();
    streams.sort_by_key(|(request, ..)| *request);
    streams
}

/// What one end's audit has and the other's hasn't. The agent may have opened what the gateway's client no longer wanted; the gateway
/// tells of so many of them for each caller, and counts the rest.
fn differences(gateway: &[Value], agent: &[Value]) -> Vec<String> {
    let mut told: HashMap<&str, u32> = HashMap::new();
    for row in gateway.iter().filter(|row| row["event"] == "refused") {
        *told.entry(row["caller"].as_str().unwrap()).or_default() += 1;
    }
    let all = told.values().sum::<u32>() >= AUDIT_REFUSALS_PER_MINUTE;
    let counted = |caller: &str| all || told.get(caller).is_some_and(|rows| *rows >= AUDIT_REFUSALS_PER_CALLER);
    let refused = gateway
        .iter()
        .filter(|row| row["event"] == "refused" && (row["code"] == "client_reset" || row["code"] == "caller_revoked"));
    let refused: std::collections::HashSet<_> = refused.map(|row| row["request"].as_str().unwrap()).collect();
    let (near, far) = (streams(gateway), streams(agent));
    let callers = |streams: &[(&str, &str, Option<&Value>)]| -> std::collections::HashMap<String, String> {
        streams.iter().map(|(request, caller, _)| ((*request).to_owned(), (*caller).to_owned())).collect()
    };
    let (by_gateway, by_agent) = (callers(&near), callers(&far));
    let open =
        near.iter().chain(&far).filter(|(.., closed)| closed.is_none()).map(|(request, ..)| format!("{request} has no end"));
    let unheard = by_gateway.iter().filter(|(request, caller)| by_agent.get(*request) != Some(*caller));
    let known = |request: &String| by_gateway.contains_key(request) || refused.contains(request.as_str());
    let alone = by_agent.iter().filter(|(request, caller)| !known(request) && !counted(caller)).map(|(request, _)| request);
    open.chain(unheard.map(|(request, caller)| format!("{request} of {caller} is not the agent's")))
        .chain(alone.map(|request| format!("{request} is the agent's alone")))
        .collect()
}

#[tokio::test]
async fn two_hundred_clients_keep_every_byte_while_callers_come_and_go_and_configurations_change() {
    let _turn = heavy().await;
    let echo = Target::echo().await;
    let limits = "limits: {max_streams: 1000}";
    let target =
        |name: &str| format!("  {name}: {{kind: tcp, address: \"{}\", allow_loopback: true, {limits}}}\n", echo.address());
    let (one, two) = (format!("targets:\n{}", target("echo")), format!("targets:\n{}{}", target("echo"), target("extra")));
    let entries = Entries::with(&one, &["echo"], "").await;
    let stays = entries.token("stays", "acme/dc1/*", &[]).await;
    let (first, connect) = (entries.connector(&stays, "echo").await, entries.connector(&stays, "echo").await);
    let brief = Caller::new(entries.token("brief-0", "acme/dc1/*", &[]).await.text);
    let connector = entries.vendor.connector(Some(&entries.vendor.client(COMES_AND_GOES)));
    let unknown = Caller::new(String::new());
    unknown.leaves.set(true);
    let before = [entries.site.gateway.running(), entries.site.agent.running()].map(|it| (it.descriptors(), it.rss_kib()));
    let storm = Storm {
        entries,
        stays,
        brief_token: RefCell::new(brief),
        brief_name: RefCell::new(unknown),
        connector,
        end: Instant::now() + Duration::from_secs(SECONDS as u64),
        done: Cell::new(0),
        cut: Default::default(),
    };
    let by_token = [Way::Connect, Way::ConnectTls, Way::Socks5, Way::Socks5Tls];
    let by_name = [Way::Certified, Way::CertifiedConnect, Way::CertifiedSocks5];
    let kind = |number: usize| match number % 10 {
        0 => Kind::Stays(Way::Listener),
        way @ 1..=4 => Kind::Stays(by_token[way - 1]),
        5 => Kind::Stays(by_name[number / 10 % 3]),
        6 => Kind::Connects(first.1),
        7 => Kind::Connects(connect.1),
        8 => Kind::BriefToken(by_token[number / 10 % 4]),
        _ => Kind::BriefName(by_name[number / 10 % 3]),
    };
    let clients = join_all((0..CLIENTS).map(|number| storm.client(number, kind(number))));
    tokio::join!(clients, storm.operate([&one, &two]));

    let [by_token, by_name] = storm.cut.each_ref().map(Cell::get);
    eprintln!("{} streams were whole, {by_token} and {by_name} were cut", storm.done.get());
    assert!(storm.done.get() > 5 * CLIENTS && by_token > SECONDS && by_name > SECONDS / 2);
    assert_eq!((first.0.stderr(), connect.0.stderr()), (String::new(), String::new()), "connect had nothing to say");
    let site = &storm.entries.site;
    let mut differ = Vec::new();
    eventually("both audits have every stream with its end", SOON, async || {
        let rows = (site.gateway.audit(), site.agent.audit());
        let differs = differences(&rows.0, &rows.1);
        let agree = differs.is_empty();
        for one in differs.into_iter().take(8) {
            if !differ.contains(&one) {
                eprintln!("not yet: {one}");
                differ.push(one);
            }
        }
        agree.then_some(())
    })
    .await;
    for rows in [site.gateway.audit(), site.agent.audit()] {
        let reloads = rows.iter().filter(|row| row["event"] == "reloaded").count();
        assert!(reloads + 3 > SECONDS, "{reloads} reloads");
        for (request, caller, closed) in streams(&rows) {
            let code = closed.map_or("", |row| row["code"].as_str().unwrap_or_default());
            let brief = caller.contains("brief-") || caller.contains(COMES_AND_GOES);
            assert!(["", "client_reset"].contains(&code) || brief && code == "caller_revoked", "{request} of {caller}: {code}");
        }
    }
    let processes = [site.gateway.running(), site.agent.running()];
    eventually("descriptors are given back", SOON, async || {
        let back = processes.iter().zip(before).all(|(process, (descriptors, _))| process.descriptors() <= descriptors + 8);
        back.then_some(())
    })
    .await;
    for (process, (_, rss)) in processes.iter().zip(before) {
        assert!(process.rss_kib() < rss + 48 * 1024, "RSS grew from {rss} to {} KiB", process.rss_kib());
    }
}
