//! What is capped or closed: streams, idle ones, rates, source addresses. Refuses to know attacks.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::client::echoed;
use crate::harness::entries::{Entries, Way};
use crate::harness::process::Program;
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes, pattern, told};
use crate::harness::{SOON, always, eventually, free_port, heavy, loopback};

/// Nothing is answered, and the connection ends.
async fn is_let_go(mut client: TcpStream) {
    let mut answer = Vec::new();
    let _ = timeout(SOON, client.read_to_end(&mut answer)).await.expect("it is let go");
    assert!(answer.is_empty(), "{answer:?}");
}

fn echo_target(echo: &Target, limits: &str) -> String {
    let address = echo.address();
    format!("targets:\n  echo: {{kind: tcp, address: \"{address}\", allow_loopback: true, limits: {{{limits}}}}}\n")
}

#[tokio::test]
async fn a_targets_max_streams_holds_and_frees() {
    let echo = Target::echo().await;
    let site = Site::with(&["echo"], "", &echo_target(&echo, "max_streams: 2")).await;
    let (mut first, mut second) = (site.client("echo").await, site.client("echo").await);
    echoes(&mut first, b"one").await.unwrap();
    echoes(&mut second, b"two").await.unwrap();
    assert_eq!(told(site.at("echo")).await, "");
    site.gateway.audited("refused", |row| row["code"] == "target_streams").await;
    drop(first);
    eventually("a place is free again", SOON, async || {
        let mut client = TcpStream::connect(site.at("echo")).await.ok()?;
        timeout(SOON, echoes(&mut client, b"three")).await.ok()?.ok()
    })
    .await;
    echoes(&mut second, b"still here").await.unwrap();
}

#[tokio::test]
async fn a_tenants_max_streams_holds_and_frees() {
    let echo = Target::echo().await;
    let quota = "tenants:\n  acme: {limits: {max_streams: 2}}\n";
    let site = Site::with(&["echo"], quota, &echo_target(&echo, "")).await;
    let (mut first, mut second) = (site.client("echo").await, site.client("echo").await);
    echoes(&mut first, b"one").await.unwrap();
    echoes(&mut second, b"two").await.unwrap();
    assert_eq!(told(site.at("echo")).await, "");
    site.gateway.audited("refused", |row| row["code"] == "quota_exceeded").await;
    drop(first);
    eventually("a place is free again", SOON, async || {
        let mut client = TcpStream::connect(site.at("echo")).await.ok()?;
        timeout(SOON, echoes(&mut client, b"three")).await.ok()?.ok()
    })
    .await;
}

#[tokio::test]
async fn a_tenants_rate_holds_over_its_streams() {
    let _turn = heavy().await;
    let echo = Target::echo().await;
    let quota = "tenants:\n  acme: {limits: {rate: 4MiB}}\n";
    let site = Site::with(&["echo"], quota, &echo_target(&echo, "")).await;
    let bytes = pattern(4 << 20);
    let since = Instant::now();
    let (mut first, mut second) = (site.client("echo").await, site.client("echo").await);
    let both = futures_util::future::join(echoes(&mut first, &bytes), echoes(&mut second, &bytes));
    let (one, two) = timeout(SOON, both).await.expect("a capped tenant still gets on");
    one.and(two).unwrap();
    // 16 MiB crossed in all; a second's worth may have been saved up.
    let least = Duration::from_millis(2500);
    assert!(since.elapsed() > least, "16 MiB in {:?} is more than 4 MiB/s", since.elapsed());
}

#[tokio::test]
async fn an_idle_stream_ends_with_its_timeout_and_a_busy_one_does_not() {
    let echo = Target::echo().await;
    let site = Site::with(&["echo"], "", &echo_target(&echo, "idle_timeout: 1s")).await;
    let mut busy = site.client("echo").await;
    let idle = site.client("echo").await;
    always("a stream with traffic lives", Duration::from_secs(3), async || echoes(&mut busy, b"tick").await.is_ok()).await;
    is_let_go(idle).await;
    site.agent.audited("closed", |row| row["code"] == "idle_timeout").await;
}

#[tokio::test]
async fn an_idle_stream_ends_with_the_timeout_of_the_listener_by_which_it_came() {
    const IDLE: [Way; 4] = [Way::Listener, Way::Connect, Way::Socks5, Way::Certified];
    let echo = Target::echo().await;
    let entries = Entries::with(&echo_target(&echo, ""), &["echo"], ", idle_timeout: 1s").await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let mut busy = entries.open(Way::Connect, "echo", &token).await.unwrap();
    let mut idle = Vec::new();
    for way in IDLE {
        let mut io = entries.open(way, "echo", &token).await.unwrap();
        echoed(&mut io, b"once").await;
        idle.push((way, io));
    }
    let ticks = async || {
        echoed(&mut busy, b"tick").await;
        true
    };
    always("a stream with traffic lives", Duration::from_secs(3), ticks).await;
    for (way, io) in &mut idle {
        let end = timeout(SOON, io.read_to_end(&mut Vec::new())).await.expect("it is let go");
        assert!(end.is_err(), "{way:?}: it ended as if all were well");
    }
    let gateway = &entries.site.gateway;
    let ends = || gateway.audit().iter().filter(|row| row["event"] == "closed" && row["code"] == "idle_timeout").count();
    eventually("each is on record", SOON, async || (ends() == IDLE.len()).then_some(())).await;
    assert_eq!(gateway.audit().iter().filter(|row| row["event"] == "closed").count(), IDLE.len(), "and no other");
}

#[tokio::test]
async fn without_an_idle_timeout_a_silent_stream_lives() {
    let silent = Target::silent().await;
    let site = Site::new(&[("silent", silent.address())]).await;
    let client = site.client("silent").await;
    always("a silent stream lives", Duration::from_secs(8), async || client.try_read(&mut [0]).is_err()).await;
}

#[tokio::test]
async fn a_listener_keeps_to_its_allow_from() {
    let echo = Target::echo().await;
    let (closed, open) = (free_port(), free_port());
    let listeners = format!(
        "listeners:\n  - {{listen: \"127.0.0.1:{closed}\", target: acme/dc1/echo, allow_from: [\"10.0.0.0/8\"]}}\n\
         \x20 - {{listen: \"127.0.0.1:{open}\", target: acme/dc1/echo, allow_from: [\"10.0.0.0/8\", \"127.0.0.1/32\"]}}\n"
    );
    let site = Site::with(&[], &listeners, &echo_target(&echo, "")).await;
    assert_eq!(told(loopback(closed)).await, "");
    site.gateway.audited("connect_refused", |row| row["code"] == "denied_source_ip").await;
    assert_eq!(echo.connections(), 0);
    let mut client = TcpStream::connect(loopback(open)).await.unwrap();
    timeout(SOON, echoes(&mut client, b"let in")).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_tunnel_keeps_to_its_allow_from() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    gateway.process().kill();
    gateway.configure_gateway("  allow_from: [\"10.0.0.0/8\"]\n", "");
    gateway.start().await;
    agent.launch();
    gateway.audited("connect_refused", |row| row["code"] == "denied_source_ip").await;
    assert!(!agent.is_connected().await);
    gateway.process().kill();
    gateway.configure_gateway("  allow_from: [\"127.0.0.0/8\"]\n", "");
    gateway.start().await;
    agent.connected().await;
}

#[tokio::test]
async fn enrollment_keeps_to_its_allow_from() {
    let mut gateway = Gateway::init().await;
    gateway.configure("enrollment: {allow_from: [\"10.0.0.0/8\"]}\n");
    gateway.start().await;
    let agent = Agent::blank(&gateway, "a1");
    let token = gateway.token("acme", "dc1").await;
    let refused = agent.enrollment(&token).run().await;
    assert_ne!(refused.code(), 0);
    assert!(!agent.dir().join("agent.pem").exists());
    gateway.process().kill();
    gateway.configure("");
    gateway.start().await;
    agent.enrollment(&token).run().await.ok();
}

#[tokio::test]
async fn a_listener_off_loopback_without_allow_from_is_refused_at_start() {
    let gateway = Gateway::init().await;
    let port = free_port();
    gateway.configure(&format!("listeners:\n  - {{listen: \"0.0.0.0:{port}\", target: acme/dc1/echo}}\n"));
    let refused = gateway.admin(&["gateway", "run"]).run().await.exits(78);
    assert!(refused.stderr.contains("listener_open"), "{}", refused.stderr);
}

#[tokio::test]
async fn f30_few_descriptors_refuse_new_clients_and_spare_the_old() {
    let echo = Target::echo().await;
    let (mut gateway, port) = (Gateway::init().await, free_port());
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/echo")]));
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    agent.configure(&echo_target(&echo, "max_streams: 1000"));
    agent.start().await;
    let pid = agent.process().id().to_string();
    Program::new("prlimit").args(["--nofile=64:64", "--pid", &pid]).run().await.ok();
    let mut open = Vec::new();
    for _ in 0..100 {
        let Ok(mut client) = TcpStream::connect(loopback(port)).await else { continue };
        let served = timeout(SOON, echoes(&mut client, b"in")).await.expect("served or let go").is_ok();
        open.extend(served.then_some(client));
    }
    assert!(open.len() > 20 && open.len() < 64, "{} were served", open.len());
    gateway.audited("refused", |row| row["code"] == "out_of_descriptors").await;
    for client in &mut open {
        echoes(client, b"still here").await.unwrap();
    }
    drop(open);
    eventually("the agent serves again", SOON, async || {
        let mut client = TcpStream::connect(loopback(port)).await.ok()?;
        timeout(SOON, echoes(&mut client, b"again")).await.ok()?.ok()
    })
    .await;
}
