//! Illegal, endless and oversized input on every layer of the wire: whoever sends it loses his own connection, nobody else
//! notices. Refuses to know who may connect.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::certificates::Identity;
use crate::fixtures::peer::{ACK, DATA, FIN, PING, Peer, SYN, TUNNEL, WINDOW, client_config, dial, yamux};
use crate::harness::site::{Agent, Site};
use crate::harness::target::{Target, echoes, pattern};
use crate::harness::{SOON, connect_from, eventually, heavy};

pub(crate) type Evil = Peer<tokio_rustls::client::TlsStream<TcpStream>>;

/// A site with a live stream, and an enrolled agent gone bad.
pub(crate) struct Attacked {
    pub(crate) site: Site,
    evil: Identity,
    live: TcpStream,
    /// How many sessions have been seen to end.
    ended: usize,
    _echo: Target,
}

impl Attacked {
    pub(crate) async fn new() -> Self {
        let echo = Target::echo().await;
        let site = Site::new(&[("echo", echo.address())]).await;
        let evil = Identity::of_agent(&Agent::enroll_in(&site.gateway, "evil", "g", "e1").await);
        let mut live = site.client("echo").await;
        echoes(&mut live, b"before").await.unwrap();
        Self { site, evil, live, ended: 0, _echo: echo }
    }

    pub(crate) async fn greeted(&self) -> Evil {
        Peer::greeted(&self.site.gateway, &self.evil).await.unwrap()
    }

    /// The agent gone bad, connected but not greeted.
    pub(crate) async fn upgraded(&self) -> Evil {
        Peer::upgraded(&self.site.gateway, &self.evil).await.unwrap()
    }

    /// Its key and certificate.
    pub(crate) fn evil(&self) -> &Identity {
        &self.evil
    }

    /// The session ends for what it did, and not for its silence; nobody else notices.
    pub(crate) async fn ruined(&mut self, mut evil: Evil, what: &str) {
        evil.is_cut().await;
        let ended = |row: &serde_json::Value| row["event"] == "disconnected" && row["agent"] == "evil/g/e1";
        let last = eventually(&format!("{what}: its end is audited"), SOON, async || {
            self.site.gateway.audit().into_iter().filter(ended).nth(self.ended)
        })
        .await;
        self.ended += 1;
        assert!(last["code"] == "protocol_violation" || last["code"] == "link_closed", "{what}: {last}");
        self.unharmed(what).await;
    }

    /// The other agent's stream gets each of its echoes in time, one after the other, until it is over.
    pub(crate) async fn serves_until(&mut self, what: &str, within: Duration, over: impl Fn() -> bool) {
        let mut ticks = tokio::time::interval(Duration::from_millis(25));
        while !over() {
            let echoed = timeout(within, echoes(&mut self.live, b"meanwhile")).await;
            assert!(matches!(echoed, Ok(Ok(()))), "{what}: another agent's stream stood still: {echoed:?}");
            ticks.tick().await;
        }
    }

    /// The gateway lives, and the other agent's stream is whole.
    pub(crate) async fn unharmed(&mut self, after: &str) {
        assert!(self.site.gateway.process().is_running(), "{after}: the gateway ended");
        let whole = timeout(SOON, echoes(&mut self.live, &pattern(100_000))).await;
        assert!(matches!(whole, Ok(Ok(()))), "{after}: another agent's stream was hurt");
        let log = self.site.gateway.process().stderr();
        assert!(!log.contains("panicked"), "{after}: {log}");
    }
}

#[tokio::test]
async fn t1_illegal_mux_frames_end_their_own_session_alone() {
    let mut attacked = Attacked::new().await;
    for (what, bytes) in [
        ("an unknown version", yamux(1, DATA, SYN, 3, 0, b"")),
        ("an unknown type", yamux(0, 9, 0, 1, 0, b"")),
        ("a stream id of the other side", yamux(0, DATA, SYN, 4, 0, b"")),
        ("a SYN for an open stream", yamux(0, DATA, SYN, 1, 0, b"")),
        ("a length over 16 MiB", yamux(0, DATA, 0, 1, 0x0100_0001, b"")),
        ("a length of 4 GiB", yamux(0, DATA, 0, 1, u32::MAX, b"")),
        ("a length of 4 GiB for an unknown stream", yamux(0, DATA, 0, 77, u32::MAX, b"")),
        ("garbage", pattern(5000)),
    ] {
        let mut evil = attacked.greeted().await;
        // What is cut early may not take the rest.
        let _ = evil.frame(2, &bytes).await;
        let _ = evil.frame(2, &pattern(4096)).await;
        attacked.ruined(evil, what).await;
    }
}

#[tokio::test]
async fn t1_frames_that_may_be_ignored_hurt_nobody() {
    let mut attacked = Attacked::new().await;
    let twice = |stream| [yamux(0, WINDOW, 0, stream, u32::MAX, b""), yamux(0, WINDOW, 0, stream, u32::MAX, b"")].concat();
    let after_end = [yamux(0, DATA, SYN | FIN, 3, 1, b"x"), yamux(0, DATA, 0, 3, 1, b"y")].concat();
    for (what, bytes) in [
        ("a window beyond any number, twice (CVE-2026-31814)", twice(1)),
        ("the same for an unknown stream", twice(4711)),
        ("the same with a SYN", [yamux(0, WINDOW, SYN, 3, u32::MAX, b""), twice(3)].concat()),
        ("data after the end", after_end),
        ("data for an unknown stream", yamux(0, DATA, 0, 4711, 5, b"hello")),
        ("unknown flags", yamux(0, DATA, 0xfff0, 1, 0, b"")),
        ("a stream of the agent's own", yamux(0, DATA, SYN, 3, 5, b"hello")),
        ("a reset of the control stream", yamux(0, DATA, 8, 1, 0, b"")),
        ("a ping of nobody's", yamux(0, 2, 2, 0, 7, b"")),
        ("a farewell", yamux(0, 3, 0, 0, 0, b"")),
    ] {
        let mut evil = attacked.greeted().await;
        let _ = evil.frame(2, &bytes).await;
        attacked.unharmed(what).await;
    }
}

#[tokio::test]
async fn t1_more_data_than_the_window_holds_is_not_kept() {
    let _turn = heavy().await;
    let mut attacked = Attacked::new().await;
    let mut evil = attacked.greeted().await;
    let before = attacked.site.gateway.process().rss_kib();
    let block = vec![0; 60_000];
    // The control stream's reader would have to send window updates for this much: none are waited for.
    let flood = async {
        evil.yamux(DATA, SYN, 3, 0, b"").await?;
        for _ in 0..2000 {
            evil.yamux(DATA, 0, 3, 60_000, &block).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(SOON, flood).await;
    attacked.unharmed("120 MB into one window").await;
    let after = attacked.site.gateway.process().rss_kib();
    assert!(after < before + 32 * 1024, "RSS grew from {before} to {after} KiB");
}

#[tokio::test]
async fn t2_illegal_websocket_frames_end_their_own_session_alone() {
    let mut attacked = Attacked::new().await;
    let masked = |first: u8, length: &[u8]| [&[first][..], length, &[0; 4]].concat();
    for (what, bytes) in [
        ("a text message", masked(0x81, &[0x82]).into_iter().chain(*b"hi").collect::<Vec<u8>>()),
        ("a text that is no UTF-8", masked(0x81, &[0x82]).into_iter().chain([0xff, 0xfe]).collect()),
        ("a frame of 2^63-1 bytes", masked(0x82, &[0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("a frame of 2^64-1 bytes", masked(0x82, &[0xff; 9])),
        ("a frame over the limit", masked(0x82, &[0xff, 0, 0, 0, 0, 0, 1, 0, 1])),
        ("5 bytes with a length of two bytes", masked(0x82, &[0xfe, 0, 5])),
        ("125 bytes with a length of two bytes", masked(0x82, &[0xfe, 0, 125])),
        ("5 bytes with a length of eight bytes", masked(0x82, &[0xff, 0, 0, 0, 0, 0, 0, 0, 5])),
        ("65,535 bytes with a length of eight bytes", masked(0x82, &[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff])),
        ("the first reserved bit", masked(0xc2, &[0x80])),
        ("the second reserved bit", masked(0xa2, &[0x80])),
        ("the third reserved bit", masked(0x92, &[0x80])),
        ("an unknown opcode", masked(0x83, &[0x80])),
        ("an unknown control opcode", masked(0x8b, &[0x80])),
        ("a fragmented ping", masked(0x09, &[0x80])),
        ("a fragmented pong", masked(0x0a, &[0x80])),
        ("a fragmented close", masked(0x08, &[0x80])),
        ("a ping of 126 bytes", masked(0x89, &[0xfe, 0, 126])),
        ("a close of one byte", masked(0x88, &[0x81]).into_iter().chain([3]).collect()),
        ("a close with 1005", masked(0x88, &[0x82]).into_iter().chain([3, 0xed]).collect()),
        ("a message within a message", [masked(0x02, &[0x81]), vec![0], masked(0x82, &[0x80])].concat()),
        ("a continuation of nothing", masked(0x80, &[0x80])),
        ("a frame without a mask", vec![0x82, 0]),
        ("a ping without a mask", vec![0x89, 0]),
        ("another request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ] {
        let mut evil = attacked.greeted().await;
        let _ = evil.raw(&bytes).await;
        attacked.ruined(evil, what).await;
    }
}

#[tokio::test]
async fn t1_a_wrong_greeting_ends_its_own_connection_alone() {
    let mut attacked = Attacked::new().await;
    for (what, bytes) in [
        ("no protobuf", yamux(0, DATA, SYN, 1, 5, b"\x04\xff\xff\xff\xff")),
        ("a length over the limit", yamux(0, DATA, SYN, 1, 4, b"\xff\xff\xff\x7f")),
        ("an empty message", yamux(0, DATA, SYN, 1, 1, b"\0")),
        ("an end instead of a greeting", yamux(0, DATA, SYN | FIN, 1, 0, b"")),
    ] {
        let mut evil = Peer::upgraded(&attacked.site.gateway, &attacked.evil).await.unwrap();
        evil.heartbeat().await.unwrap();
        evil.frame(2, &bytes).await.unwrap();
        evil.is_cut().await;
        attacked.unharmed(what).await;
    }
    // Silence after the upgrade, and after the first heartbeat.
    let mut silent = Peer::upgraded(&attacked.site.gateway, &attacked.evil).await.unwrap();
    let mut beating = Peer::upgraded(&attacked.site.gateway, &attacked.evil).await.unwrap();
    beating.heartbeat().await.unwrap();
    tokio::join!(silent.is_cut(), beating.is_cut());
    attacked.unharmed("silence").await;
}

#[tokio::test]
async fn t2b_65536_fragments_of_one_message_pass_as_bytes_and_are_not_gathered() {
    let _turn = heavy().await;
    let mut attacked = Attacked::new().await;
    let mut evil = attacked.greeted().await;
    let before = attacked.site.gateway.process().rss_kib();
    let fragment = |first: u8, payload: &[u8]| [&[first, 0x80 | payload.len() as u8][..], &[0; 4], payload].concat();
    // Data for a stream that is not there, which is passed over: 64 bytes each, and one message in all.
    let nothing = yamux(0, DATA, 0, 4711, 52, &[7; 52]);
    evil.raw(&fragment(0x02, &nothing)).await.unwrap();
    let many = fragment(0x00, &nothing).repeat(1024);
    for _ in 0..64 {
        evil.raw(&many).await.unwrap();
    }
    // What follows is understood before the message ends, wherever it is cut.
    let ping = yamux(0, PING, SYN, 0, 4711, b"");
    evil.raw(&[fragment(0x00, &ping[..5]), fragment(0x00, &ping[5..])].concat()).await.unwrap();
    let answer = async {
        loop {
            let frame = evil.next().await.unwrap();
            if frame.kind == PING {
                return frame.flags;
            }
        }
    };
    assert_eq!(timeout(SOON, answer).await.expect("the session lives"), ACK);
    let after = attacked.site.gateway.process().rss_kib();
    assert!(after < before + 8 * 1024, "RSS grew from {before} to {after} KiB");
    attacked.unharmed("65,536 fragments").await;
}

#[tokio::test]
async fn d3_a_peer_that_never_reads_its_pongs_costs_no_memory() {
    let _turn = heavy().await;
    let mut attacked = Attacked::new().await;
    let mut evil = attacked.greeted().await;
    let before = attacked.site.gateway.process().rss_kib();
    let ping = [&[0x89, 0x80 | 125][..], &[0; 4], &[7; 125]].concat().repeat(500);
    let flood = async {
        for _ in 0..500 {
            evil.raw(&ping).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(Duration::from_secs(15), flood).await;
    attacked.unharmed("a flood of pings").await;
    let after = attacked.site.gateway.process().rss_kib();
    assert!(after < before + 16 * 1024, "RSS grew from {before} to {after} KiB");
}

#[tokio::test]
async fn d1_half_open_handshakes_are_let_go_and_a_live_stream_flows_on() {
    let _turn = heavy().await;
    let mut attacked = Attacked::new().await;
    let before = attacked.site.gateway.process().descriptors();
    let mut open = Vec::new();
    for index in 0..500 {
        let host = format!("127.0.1.{}", index / 50);
        let mut stream = connect_from(&host, attacked.site.gateway.at).await.unwrap();
        if index % 2 == 0 {
            // The beginning of a ClientHello of 512 bytes.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
        }
        open.push(stream);
    }
    attacked.unharmed("500 half-open handshakes").await;
    let agents = Agent::enroll(&attacked.site.gateway, "meanwhile");
    let closed = futures_util::future::join_all(open.iter_mut().map(|stream| async {
        let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("a half-open handshake is closed");
    }));
    let (_, agent) = tokio::join!(closed, agents);
    assert!(agent.dir().join("agent.pem").exists(), "others get in meanwhile");
    let gateway = attacked.site.gateway.process();
    eventually("their descriptors are free again", SOON, async || (gateway.descriptors() <= before + 5).then_some(())).await;
    attacked.unharmed("their end").await;
}

/// Feeds a connection with what `next` yields until it is cut, and tells how many bytes it took.
async fn fed_until_cut<S>(mut stream: S, start: &[u8], chunk: &[u8], every: Duration) -> usize
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(start).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut ticks = tokio::time::interval(every.max(Duration::from_micros(1)));
    let mut fed = 0;
    let feed = async {
        loop {
            ticks.tick().await;
            if writer.write_all(chunk).await.and(writer.flush().await).is_err() || fed > 100 << 20 {
                return fed;
            }
            fed += chunk.len();
        }
    };
    let cut = async { while reader.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {} };
    let race = async {
        tokio::select! {
            fed = feed => fed,
            () = cut => 0,
        }
    };
    timeout(SOON, race).await.expect("it is cut off")
}

#[tokio::test]
async fn cve_2023_43669_d2_endless_and_slow_heads_are_cut_off() {
    let _turn = heavy().await;
    let mut attacked = Attacked::new().await;
    let before = attacked.site.gateway.process().rss_kib();
    let tunnel = async |identity: &Identity, at: &Site| {
        dial(&at.gateway, client_config(&at.gateway, Some(identity), &[TUNNEL]).into()).await.unwrap()
    };
    let start = b"GET /v1/tunnel HTTP/1.1\r\nHost: a\r\n";
    let header = [&b"X-Filler: "[..], &[b'a'; 8000], b"\r\n"].concat();

    let stream = tunnel(&attacked.evil, &attacked.site).await;
    let fed = fed_until_cut(stream, start, &header, Duration::ZERO).await;
    assert!(fed < 50 << 20, "a head of {fed} bytes was taken");
    attacked.unharmed("an endless head").await;
    let after = attacked.site.gateway.process().rss_kib();
    assert!(after < before + 16 * 1024, "RSS grew from {before} to {after} KiB");

    let stream = tunnel(&attacked.evil, &attacked.site).await;
    fed_until_cut(stream, start, b"a", Duration::from_millis(100)).await;
    attacked.unharmed("a slow head").await;

    let enroll =
        dial(&attacked.site.gateway, client_config(&attacked.site.gateway, None, &[crate::fixtures::peer::ENROLL]).into());
    let post = b"POST /v1/enroll HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n";
    fed_until_cut(enroll.await.unwrap(), post, b" ", Duration::from_millis(100)).await;
    attacked.unharmed("a slow body").await;
}
