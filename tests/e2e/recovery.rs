//! Crashes: whoever dies, the tunnel is back by itself. Refuses to know networks that fail.

use tokio::time::timeout;

use crate::harness::site::Site;
use crate::harness::target::{Target, echoes, pattern};
use crate::harness::{SOON, eventually};

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
    let cut = timeout(SOON, echoes(&mut client, b"after")).await.expect("the client is not left hanging");
    assert!(cut.is_err());
    site.gateway.audited("closed", |row| row["code"] == "session_lost").await;
    site.agent.start().await;
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
async fn f3_a_stopped_gateway_is_noticed_and_its_return_too() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    site.gateway.process().signal(rustix::process::Signal::STOP);
    eventually("the agent no longer says connected", SOON, async || (!site.agent.is_connected().await).then_some(())).await;
    let status = site.agent.session().await.unwrap();
    assert_eq!(status["last_error"]["code"], "link_dead", "{status}");
    site.gateway.process().signal(rustix::process::Signal::CONT);
    site.agent.connected().await;
    serves(&site).await;
}
