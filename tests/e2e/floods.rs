//! Floods of frames that are each legal, or nearly: who sends them may lose the session, and costs others neither memory nor time.
//! Refuses to know frames that no state allows.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use underpass::base::id::{InstanceId, Name};
use underpass::base::limits::{
    CHURN_BURST, CHURN_PER_SECOND, EMPTY_FRAMES_PER_SECOND, STREAM_WINDOW, STUCK_AFTER, TARGET_STREAMS,
};
use underpass::wire::codec::encode;
use underpass::wire::hello::{Hello, Kind, Offer, VERSIONS};
use underpass::wire::open::{Open, Spoken};
use underpass::wire::reply::Reply;

use crate::fixtures::certificates::Identity;
use crate::fixtures::peer::{ACK, DATA, PING, Peer, RST, SYN, WINDOW, yamux};
use crate::harness::site::{Agent, Gateway};
use crate::harness::target::Target;
use crate::harness::{SOON, free_port, heavy, loopback};
use crate::reach::{TakenOver, ask, open};
use crate::wire::{Attacked, Evil};

/// The most that a flood may add to a gateway's memory, in KiB.
const SLACK: u64 = 8 * 1024;

/// One WebSocket message of yamux frames, as an agent sends it, or a gateway.
fn message(frames: &[u8], masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![0x82];
    match u8::try_from(frames.len()) {
        Ok(short @ 0..=125) => bytes.push(mask | short),
        _ => {
            bytes.push(mask | 126);
            bytes.extend(u16::try_from(frames.len()).expect("small enough for one message").to_be_bytes());
        }
    }
    bytes.extend(if masked { &[0; 4][..] } else { &[] });
    bytes.extend(frames);
    bytes
}

/// What another agent's stream may wait for its echo beside a flood: less than a flood is given, so that one which holds others up
/// until it ends is seen.
const MEANWHILE: Duration = Duration::from_secs(3);

/// What a flood of agent's frames does to a gateway: others are served meanwhile, nobody is harmed, and memory stays.
async fn endured(what: &str, flood: impl AsyncFnOnce(&mut Evil) -> std::io::Result<()>) {
    let _turn = heavy().await;
    let mut attacked = Attacked::new().await;
    let mut evil = attacked.greeted().await;
    let before = attacked.site.gateway.process().rss_kib();
    let over = Cell::new(false);
    let flood = async {
        // One whose answers nobody reads comes to a halt by itself, and its session to an end: who answers no heartbeat is dead.
        let ended = timeout(STUCK_AFTER / 4 * 3, flood(&mut evil)).await;
        over.set(true);
        ended
    };
    let (ended, ()) = tokio::join!(flood, attacked.serves_until(what, MEANWHILE, || over.get()));
    if let Ok(ended) = ended {
        ended.expect("the session bears it");
    }
    let after = attacked.site.gateway.process().rss_kib();
    assert!(after < before + SLACK, "{what}: RSS grew from {before} to {after} KiB");
    attacked.unharmed(what).await;
}

#[tokio::test]
async fn cve_2024_32984_d3_pings_of_the_mux_whose_answers_nobody_reads_cost_no_memory() {
    endured("a flood of pings", async |evil| {
        // Over many open streams.
        let streams: Vec<u8> = (0..256).flat_map(|index| yamux(0, DATA, SYN, 3 + 2 * index, 0, b"")).collect();
        evil.raw(&message(&streams, true)).await?;
        let pings = message(&yamux(0, PING, SYN, 0, 7, b"").repeat(5000), true).repeat(20);
        for _ in 0..50 {
            evil.raw(&pings).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn cve_2025_8671_d3_a_flood_of_streams_that_the_gateway_resets_costs_no_memory_whether_its_answers_are_read_or_not() {
    for reads in [true, false] {
        endured("a flood of streams", async |evil| {
            for first in (3..200_003).step_by(8000) {
                let syns: Vec<u8> = (first..first + 8000).step_by(2).flat_map(|id| yamux(0, DATA, SYN, id, 0, b"")).collect();
                let bytes = message(&syns, true);
                if reads { evil.pour(&bytes).await? } else { evil.raw(&bytes).await? }
            }
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn cve_2023_44487_d3_streams_opened_and_reset_cost_no_memory() {
    endured("a flood of resets", async |evil| {
        for first in (3..200_003).step_by(4000) {
            let frames = |id| [yamux(0, DATA, SYN, id, 0, b""), yamux(0, DATA, RST, id, 0, b"")].concat();
            let bytes = message(&(first..first + 4000).step_by(2).flat_map(frames).collect::<Vec<u8>>(), true);
            evil.pour(&bytes).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn rustsec_2026_0258_d3_empty_data_and_credit_of_nothing_without_end_cost_no_memory() {
    for frame in [yamux(0, DATA, 0, 1, 0, b""), yamux(0, WINDOW, 0, 1, 0, b""), yamux(0, DATA, 0, 4711, 0, b"")] {
        endured("frames that bring nothing", async |evil| {
            let many = message(&frame.repeat(5000), true).repeat(20);
            for _ in 0..10 {
                evil.pour(&many).await?;
            }
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn cve_2022_23486_d3_single_bytes_on_streams_that_nobody_wants_cost_no_memory() {
    endured("single bytes", async |evil| {
        for id in (3..27).step_by(2) {
            evil.pour(&message(&yamux(0, DATA, SYN, id, 0, b""), true)).await?;
            let crumbs = message(&yamux(0, DATA, 0, id, 1, b"x").repeat(5000), true);
            for _ in 0..STREAM_WINDOW / 5000 {
                evil.pour(&crumbs).await?;
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn rustsec_2024_0332_t2b_more_than_a_thousand_empty_frames_in_a_second_end_the_session_and_fewer_do_not() {
    let mut attacked = Attacked::new().await;
    let most = usize::try_from(EMPTY_FRAMES_PER_SECOND).unwrap();
    let empty = [0x82, 0x80, 0, 0, 0, 0];
    let mut evil = attacked.greeted().await;
    evil.raw(&empty.repeat(most - 100)).await.unwrap();
    evil.until_heartbeat().await.unwrap();
    attacked.unharmed("some empty frames").await;
    // A second's end may fall between them.
    let _ = evil.raw(&empty.repeat(3 * most)).await;
    attacked.ruined(evil, "empty frames").await;
    let fragments = [&[0x02, 0x80, 0, 0, 0, 0][..], &[0x00, 0x80, 0, 0, 0, 0].repeat(3 * most)].concat();
    let mut evil = attacked.greeted().await;
    let _ = evil.raw(&fragments).await;
    attacked.ruined(evil, "empty fragments").await;
}

#[tokio::test]
async fn d3_a_window_that_is_never_opened_holds_its_client_back_and_memory_stays_flat() {
    let _turn = heavy().await;
    let port = free_port();
    let mut gateway = Gateway::init().await;
    gateway.configure(&Gateway::listeners(&[(port, "evil/g/sink")]));
    gateway.start().await;
    let identity = Identity::of_agent(&Agent::enroll_in(&gateway, "evil", "g", "e1").await);
    let sink = Offer { name: Name::parse("sink").unwrap(), kind: Kind::Tcp };
    let hello = Hello {
        versions: VERSIONS,
        agent_version: "hostile".to_owned(),
        instance: InstanceId::fresh(),
        targets: vec![sink],
        capacity: 100,
        capabilities: Vec::new(),
    };
    let mut evil = Peer::greeted_with(&gateway, &identity, hello).await.unwrap();
    let mut client = TcpStream::connect(loopback(port)).await.unwrap();
    client.write_all(b"first").await.unwrap();
    let (_, rest) = evil.receive_with_rest::<Open>(2).await.unwrap();
    evil.message(2, ACK, &Reply::Accepted).await.unwrap();
    let before = gateway.process().rss_kib();

    let (sent, mut came) = (Arc::new(AtomicUsize::new(0)), rest.len());
    let pump = async {
        let block = vec![7; 1 << 16];
        while sent.load(Ordering::SeqCst) < 1 << 30 {
            client.write_all(&block).await.unwrap();
            sent.fetch_add(block.len(), Ordering::SeqCst);
        }
    };
    // It reads whatever comes and answers heartbeats, but grants nothing.
    let swallow = async {
        loop {
            came += evil.next_of(2).await.unwrap().len();
        }
    };
    let held_back = timeout(Duration::from_secs(4), async { tokio::join!(pump, swallow) }).await;
    assert!(held_back.is_err(), "nobody takes a gigabyte");
    let after = gateway.process().rss_kib();
    assert!(came <= STREAM_WINDOW, "{came} bytes came, more than was granted");
    assert!(sent.load(Ordering::SeqCst) < 16 << 20, "{sent:?} bytes were taken of the client");
    assert!(after < before + SLACK, "RSS grew from {before} to {after} KiB");
}

#[tokio::test]
async fn cve_2023_44487_d3_streams_that_a_gateway_opens_and_resets_dial_at_a_limited_rate() {
    let _turn = heavy().await;
    let (open_now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (open_now.clone(), most.clone());
    let target = Target::start(move |mut stream| {
        let (now, peak) = (now.clone(), peak.clone());
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let end = stream.read_to_end(&mut Vec::new()).await;
            now.fetch_sub(1, Ordering::SeqCst);
            end.map(drop)
        }
    })
    .await;
    let mut site = TakenOver::new(&Agent::targets(&[("target", target.address())])).await;
    let mut cloud = site.cloud().await;
    let before = site.agent.process().rss_kib();
    let mut body = BytesMut::new();
    encode(&open("target", Spoken::Raw), &mut body);
    let length = u32::try_from(body.len()).unwrap();
    let start = Instant::now();
    // Time for the agent to begin what it is asked for.
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let flood = async {
        for first in (2..200_002).step_by(400) {
            let ids = || (first..first + 400).step_by(2);
            let opens: Vec<u8> = ids().flat_map(|id| yamux(0, DATA, SYN, id, length, &body)).collect();
            cloud.pour(&message(&opens, false)).await?;
            ticks.tick().await;
            let resets: Vec<u8> = ids().flat_map(|id| yamux(0, DATA, RST, id, 0, b"")).collect();
            cloud.pour(&message(&resets, false)).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(SOON, flood).await;
    let seconds = u32::try_from(start.elapsed().as_secs()).unwrap() + 1;
    let (dials, allowed) = (target.connections(), CHURN_BURST + CHURN_PER_SECOND * seconds);
    assert!(dials <= allowed as usize, "{dials} dials, where {allowed} are allowed");
    assert!(dials > 0, "some were begun");
    // The target notices an end later than the agent.
    assert!(most.load(Ordering::SeqCst) <= 2 * TARGET_STREAMS, "{most:?} at a time");
    let after = site.agent.process().rss_kib();
    assert!(after < before + 2 * SLACK, "RSS grew from {before} to {after} KiB");
    drop(cloud);
    let mut cloud = site.cloud().await;
    assert_eq!(ask(&mut cloud, 2, &open("target", Spoken::Raw)).await, "accepted", "it serves on");
}
