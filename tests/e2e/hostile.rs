//! Peers that keep to the protocol and mean ill: cloned identities, noise, one host that wants every place.
//! Refuses to know frames that no state allows.

use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::site::{Agent, Gateway};
use crate::harness::target::{Target, echoes, told};
use crate::harness::{SOON, connect_from, eventually, free_port, heavy, loopback};

#[tokio::test]
async fn s5_a_cloned_agent_serves_beside_the_first_and_everybody_is_told_until_one_stops() {
    let (one, two) = (Target::named("one").await, Target::named("two").await);
    let port = free_port();
    let mut gateway = Gateway::init().await;
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/who")]));
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    let mut cloned = agent.clone_of().await;
    for (agent, who) in [(&mut agent, &one), (&mut cloned, &two)] {
        agent.configure(&Agent::targets(&[("who", who.address())]));
        agent.start().await;
    }
    for name in ["one", "two"] {
        eventually("both serve", SOON, async || (told(loopback(port)).await == name).then_some(())).await;
    }
    let row = gateway.audited("duplicate_identity", |row| row["agent"] == "acme/dc1/a1").await;
    assert_eq!(row["instances"], 2);
    assert!(row["sessions"][0]["instance"] != row["sessions"][1]["instance"], "{row}");
    assert!(row["sessions"][1]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{row}");

    let shown = async |gateway: &Gateway, args: &[&str]| gateway.admin(args).run().await.ok();
    assert!(shown(&gateway, &["agents", "list"]).await.contains("DUPLICATE x2"));
    assert!(shown(&gateway, &["gateway", "status"]).await.contains("acme/dc1/a1 x2"));
    let status: Value = serde_json::from_str(&shown(&gateway, &["gateway", "status", "--json"]).await).unwrap();
    assert!(status["sessions"].as_array().unwrap().iter().all(|session| session["duplicate"] == true), "{status}");
    let log = gateway.process().stderr();
    assert_eq!(log.lines().filter(|line| line.contains("duplicate_identity")).count(), 1, "told once: {log}");
    let counted = async |count: usize| {
        let line = format!("underpass_duplicate_identities {count}\n");
        eventually(&line, SOON, async || gateway.metrics().await.contains(&line).then_some(())).await;
    };
    counted(1).await;

    drop(cloned);
    eventually("one is left", SOON, async || {
        let list = gateway.admin(&["agents", "list"]).run().await.ok();
        (list.contains("connected") && !list.contains("DUPLICATE")).then_some(())
    })
    .await;
    counted(0).await;
}

#[tokio::test]
async fn d1_one_host_with_more_half_open_connections_than_there_are_places_holds_up_nobody() {
    let _turn = heavy().await;
    let (echo, port) = (Target::echo().await, free_port());
    let mut gateway = Gateway::init().await;
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/echo")]));
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    agent.configure(&Agent::targets(&[("echo", echo.address())]));
    // Those that are let in are let go after 5 s. Should this machine be busy for so long, it proves nothing, and is tried again.
    for _ in 0..5 {
        let mut held = Vec::new();
        for _ in 0..600 {
            let mut half_open = connect_from("127.0.0.2", gateway.at).await.unwrap();
            let _ = half_open.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await;
            held.push(half_open);
        }
        agent.start().await;
        let mut client = TcpStream::connect(loopback(port)).await.unwrap();
        timeout(SOON, echoes(&mut client, b"meanwhile")).await.unwrap().unwrap();
        let kept = held.iter().filter(
            |half_open| matches!(half_open.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        );
        if kept.count() == 64 {
            gateway.audited("connect_refused", |row| row["code"] == "handshake_limited" && row["source"] == "127.0.0.2").await;
            return;
        }
    }
    panic!("the host's connections were let go before others got in");
}

#[tokio::test]
async fn d8_noise_of_one_host_is_told_in_few_words_and_hides_nobody_elses() {
    let _turn = heavy().await;
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let at = gateway.at;
    let junk = async |host: &str| {
        let mut stream = connect_from(host, at).await.unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("junk is let go");
    };
    let before = (gateway.audit().len(), gateway.process().stderr().lines().count());
    futures_util::stream::iter(0..5000).for_each_concurrent(16, |_| junk("127.0.0.2")).await;
    junk("127.0.0.3").await;
    gateway.audited("connect_refused", |row| row["source"] == "127.0.0.3").await;
    let (rows, lines) = (gateway.audit().len() - before.0, gateway.process().stderr().lines().count() - before.1);
    assert!(rows < 50, "{rows} rows");
    assert!(lines < 100, "{lines} lines");
    // At the end it is told how many there were.
    gateway.process().signal(rustix::process::Signal::TERM);
    gateway.take_process().finish(SOON).await.exits(0);
    let rows = gateway.audit();
    let of = |event: &str| rows.iter().filter(|row| row["event"] == event).collect::<Vec<_>>();
    let counted: u64 = of("suppressed").iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(counted + of("connect_refused").len() as u64, 5001);
    assert_eq!(of("suppressed")[0]["most"][0]["source"], "127.0.0.2");
}
