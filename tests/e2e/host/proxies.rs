//! A corporate proxy that comes between: it dies and is back, or cuts what is silent. Refuses to know logins, which `proxy` tries.

use std::time::Duration;

use crate::fixtures::squid::Squid;
use crate::harness::site::{Agent, Gateway};
use crate::harness::target::{Target, serves};
use crate::harness::{SOON, always, eventually, free_port, loopback};

/// A gateway with a listener for `echo`, and an agent that is connected through a proxy.
async fn through(squid: &Squid) -> (Gateway, Agent, Target, u16) {
    let (mut gateway, echo, port) = (Gateway::init().await, Target::echo().await, free_port());
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/echo")]));
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    let proxy = format!("proxy: {{url: \"{}\"}}\n", squid.url());
    agent.configure(&(proxy + &Agent::targets(&[("echo", echo.address())])));
    agent.start().await;
    (gateway, agent, echo, port)
}

#[tokio::test]
async fn f40_a_proxy_that_dies_is_named_and_its_return_is_found() {
    let mut squid = Squid::open().await;
    let (_gateway, mut agent, _echo, port) = through(&squid).await;
    assert!(serves(loopback(port)).await);
    squid.kill();
    let detail = agent.fails_with("proxy_unreachable").await;
    assert!(detail.contains(&squid.address().to_string()), "{detail}");
    squid.revive().await;
    agent.connected().await;
    eventually("it serves again", SOON, async || serves(loopback(port)).await.then_some(())).await;
}

#[tokio::test]
async fn f40_an_idle_tunnel_outlives_the_patience_of_a_proxy() {
    let squid = Squid::impatient(4).await;
    let (gateway, agent, _echo, port) = through(&squid).await;
    let session = agent.session().await.unwrap()["session"].clone();
    always("the session lives, with nothing to carry", Duration::from_secs(10), async || agent.is_connected().await).await;
    assert_eq!(agent.session().await.unwrap()["session"], session, "it is the same session");
    assert!(!gateway.audit().iter().any(|row| row["event"] == "disconnected"));
    assert!(serves(loopback(port)).await);
}
