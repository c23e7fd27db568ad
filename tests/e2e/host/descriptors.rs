//! Processes that run out of file descriptors. Refuses to know other limits.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::harness::process::{Process, Program};
use crate::harness::site::Site;
use crate::harness::target::{Target, echoes, serves};
use crate::harness::{SOON, always, eventually};

/// Longer than a served client waits for its echo, and shorter than one is served late.
const PATIENCE: Duration = Duration::from_secs(2);

async fn limit(process: &Process, descriptors: usize) {
    // The soft limit alone: the other could not be raised again.
    let limit = format!("--nofile={descriptors}:");
    Program::new("prlimit").args([&limit, "--pid", &process.id().to_string()]).run().await.ok();
}

#[tokio::test]
async fn f30_a_gateway_without_descriptors_pauses_its_listeners_and_goes_on() {
    let echo = Target::echo().await;
    let site = Site::new(&[("echo", echo.address())]).await;
    let gateway = site.gateway.running();
    limit(gateway, gateway.descriptors() + 20).await;
    let mut open = Vec::new();
    // The kernel still takes connections in the gateway's place; they wait.
    let mut waiting = loop {
        let mut client = site.client("echo").await;
        match timeout(PATIENCE, echoes(&mut client, b"in")).await {
            Ok(served) => served.expect("who is let in is served"),
            Err(_) => break client,
        }
        open.push(client);
        assert!(open.len() < 64, "the limit is met");
    };
    assert!(open.len() >= 10, "{} were served", open.len());
    eventually("the log tells", SOON, async || gateway.stderr().contains("out_of_descriptors").then_some(())).await;
    let before = gateway.processor_time();
    always("open streams and the session live", Duration::from_secs(7), async || {
        let mut fine = true;
        for client in &mut open {
            fine &= echoes(client, b"still here").await.is_ok();
        }
        fine && site.agent.is_connected().await
    })
    .await;
    let used = gateway.processor_time().saturating_sub(before);
    assert!(used < Duration::from_secs(4), "{used:?} of processor time in 7 s: it spins");
    let told = gateway.stderr().matches("accepting pauses").count();
    assert!(told <= 3, "{told} lines in 7 s");
    drop(open);
    let mut rest = [0; 2];
    timeout(SOON, waiting.read_exact(&mut rest)).await.expect("who waited is served").unwrap();
    waiting.shutdown().await.unwrap();
    eventually("it serves again", SOON, async || serves(site.at("echo")).await.then_some(())).await;
    eventually("the log tells that it is over", SOON, async || {
        serves(site.at("echo")).await;
        gateway.stderr().contains("accepting goes on").then_some(())
    })
    .await;
    assert!(metric(&site.gateway.metrics().await, "underpass_accept_pauses_total") > 0, "a metric tells");
}

#[tokio::test]
async fn f30_an_agent_without_descriptors_says_so_when_it_cannot_dial_and_comes_back() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    let agent = site.agent.running();
    // It has more already, so none is given out any more.
    limit(agent, 4).await;
    site.gateway.process().kill();
    site.gateway.start().await;
    eventually("the log tells", SOON, async || site.agent.running().stderr().contains("out_of_descriptors").then_some(()))
        .await;
    limit(site.agent.running(), 1024).await;
    site.agent.connected().await;
    assert!(serves(site.at("echo")).await);
}

/// A counter's value.
fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
