//! Crashes: whoever dies, the tunnel is back by itself. Refuses to know networks that fail.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::dns::Dns;
use crate::harness::process::Program;
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes, pattern};
use crate::harness::{SOON, eventually, free_port, loopback};

/// Waits until a fresh client gets its bytes back.
async fn serves(site: &Site) {
    eventually("the site serves", SOON, async || {
        let mut client = tokio::net::TcpStream::connect(site.at("echo")).await.ok()?;
        timeout(SOON, echoes(&mut client, &pattern(100_000))).await.ok()?.ok()
    })
    .await;
}

#[tokio::test]
async fn a_killed_agent_cuts_its_streams_and_serves_again_after_its_restart() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    let mut client = site.client("echo").await;
    echoes(&mut client, b"before").await.unwrap();
    site.agent.process().kill();
    // It might be a broken connection, until the next process of the agent says that it is not.
    site.gateway.audited("lane_broken", |row| row["lane"] == 0).await;
    site.agent.start().await;
    let cut = timeout(SOON, echoes(&mut client, b"after")).await.expect("the client is not left hanging");
    assert!(cut.is_err());
    site.gateway.audited("closed", |row| row["code"] == "resume_expired").await;
    serves(&site).await;
}

#[tokio::test]
async fn a_killed_gateway_finds_its_agents_again_by_themselves() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    serves(&site).await;
    site.gateway.process().kill();
    site.agent.fails_with("gateway_refused").await;
    assert!(!site.agent.is_connected().await);
    site.gateway.start().await;
    site.agent.connected().await;
    serves(&site).await;
}

#[tokio::test]
async fn f38_the_gateways_name_is_resolved_again_and_every_address_is_tried() {
    let moved = Arc::new(AtomicBool::new(false));
    let now = moved.clone();
    let nobody = Ipv4Addr::new(127, 66, 0, 1);
    let dns = Dns::start(move |_| if now.load(Ordering::SeqCst) { vec![nobody, Ipv4Addr::LOCALHOST] } else { vec![nobody] });
    let mut gateway = Gateway::init_named("gw1.vendor.example").await;
    gateway.start().await;
    let token = gateway.token("acme", "dc1").await;
    let mut agent = Agent::blank(&gateway, "a1").with_resolver(&dns.resolv_conf());
    moved.store(true, Ordering::SeqCst);
    agent.enrollment(&token).run().await.ok();
    moved.store(false, Ordering::SeqCst);
    agent.configure("");
    agent.launch();
    agent.fails_with("gateway_refused").await;
    moved.store(true, Ordering::SeqCst);
    agent.connected().await;
    assert!(dns.asked().iter().all(|name| name == "gw1.vendor.example"), "{:?}", dns.asked());
}

#[tokio::test]
async fn two_endpoints_of_one_gateway_make_one_session() {
    let gateway_at = Arc::new(std::sync::Mutex::new(loopback(1)));
    let known = gateway_at.clone();
    let balancer = Target::start(move |mut near| {
        let at = *known.lock().unwrap();
        async move {
            let mut far = TcpStream::connect(at).await?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
        }
    })
    .await;
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    *gateway_at.lock().unwrap() = gateway.at;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    agent.configure_endpoint(&format!("{}\", \"wss://{}", gateway.endpoint(), balancer.address()), "");
    agent.launch();
    let sessions = eventually("one of the two is connected and the other steps back", SOON, async || {
        let status = agent.status().await?;
        let sessions = status["sessions"].as_array()?.clone();
        let has = |tunnel: &str, code: &str| {
            sessions.iter().any(|it| it["tunnel"] == tunnel && (code.is_empty() || it["last_error"]["code"] == code))
        };
        (has("connected", "") && has("down", "same_gateway")).then_some(sessions)
    })
    .await;
    assert_eq!(sessions.len(), 2);
    let listed = gateway.agents().await;
    assert_eq!(listed["agents"][0]["sessions"].as_array().unwrap().len(), 1, "{listed}");
}

#[tokio::test]
async fn f46_a_log_that_nobody_reads_stalls_nothing() {
    let echo = Target::echo().await;
    let (mut gateway, port) = (Gateway::init().await, free_port());
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/echo")]));
    gateway.start().await;
    let agent = Agent::enroll(&gateway, "a1").await;
    agent.configure(&Agent::targets(&[("echo", echo.address())]));
    // The pipe of its standard error fills after 64 KiB.
    let run = format!("exec {} agent run --state-dir {} 2> >(exec tail -f /dev/null)", path(), agent.dir().display());
    let _running = Program::new("bash").args(["-c", &run]).start();
    eventually("the agent is connected", SOON, async || agent.is_connected().await.then_some(())).await;
    for _ in 0..600 {
        let mut client = TcpStream::connect(loopback(port)).await.unwrap();
        timeout(SOON, echoes(&mut client, b"hello")).await.expect("streams flow").unwrap();
    }
    assert!(agent.is_connected().await);
}

fn path() -> String {
    Program::underpass_path().display().to_string()
}
