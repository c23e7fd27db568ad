//! What an operator does to running processes: reload, drain, revoke, look. Refuses to know the data path's details.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes, serves};
use crate::harness::{SOON, eventually, free_port, loopback};

#[tokio::test]
async fn an_agents_reload_adds_and_removes_targets_and_spares_the_others_streams() {
    let (kept, gone, new) = (Target::echo().await, Target::echo().await, Target::echo().await);
    let site_targets = [("kept", kept.address()), ("gone", gone.address())];
    let mut site = Site::with(&["kept", "gone", "new"], "", &Agent::targets(&site_targets)).await;
    let (mut kept_client, mut gone_client) = (site.client("kept").await, site.client("gone").await);
    echoes(&mut kept_client, b"before").await.unwrap();
    echoes(&mut gone_client, b"before").await.unwrap();
    assert!(!serves(site.at("new")).await);

    site.agent.configure(&Agent::targets(&[("kept", kept.address()), ("new", new.address())]));
    site.agent.process().signal(Signal::HUP);
    eventually("the new target serves", SOON, async || serves(site.at("new")).await.then_some(())).await;
    echoes(&mut kept_client, b"after").await.expect("an untouched target's stream lives on");
    let cut = timeout(SOON, echoes(&mut gone_client, b"after")).await.expect("a removed target's stream ends");
    assert!(cut.is_err());
    site.agent.audited("closed", |row| row["code"] == "target_removed").await;
    assert!(!serves(site.at("gone")).await);
    site.agent.audited("reloaded", |_| true).await;
}

#[tokio::test]
async fn f44_a_bad_file_changes_nothing_and_its_line_is_named() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    let mut client = site.client("echo").await;
    echoes(&mut client, b"before").await.unwrap();

    site.agent.configure("targets:\n  echo: {kind: tcp, adress: \"127.0.0.1:1\"}\n");
    site.agent.process().signal(Signal::HUP);
    let refused = site.agent.audited("reload_refused", |_| true).await.to_string();
    assert!(refused.contains("agent.yaml:5:") && refused.contains("adress") && refused.contains("address"), "{refused}");

    site.gateway.configure("listeners:\n  - {listen: \"127.0.0.1:1\", target: acme/dc1/echo, alow_from: []}\n");
    site.gateway.process().signal(Signal::HUP);
    let refused = site.gateway.audited("reload_refused", |_| true).await.to_string();
    assert!(refused.contains("gateway.yaml:") && refused.contains("alow_from"), "{refused}");

    echoes(&mut client, b"after").await.expect("the stream lives on");
    assert!(serves(site.at("echo")).await, "the old configuration serves");
    assert!(site.agent.is_connected().await);
}

#[tokio::test]
async fn a_gateways_reload_adds_and_removes_listeners_and_spares_the_others_streams() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    let (old, added, removed) = (site.at("echo").port(), free_port(), free_port());
    site.gateway.configure(&Gateway::listeners(&[(old, "acme/dc1/echo"), (removed, "acme/dc1/echo")]));
    site.gateway.process().signal(Signal::HUP);
    eventually("the first new listener serves", SOON, async || serves(loopback(removed)).await.then_some(())).await;
    let mut client = site.client("echo").await;
    echoes(&mut client, b"before").await.unwrap();
    site.gateway.configure(&Gateway::listeners(&[(old, "acme/dc1/echo"), (added, "acme/dc1/echo")]));
    site.gateway.process().signal(Signal::HUP);
    eventually("the second new listener serves", SOON, async || serves(loopback(added)).await.then_some(())).await;
    eventually("the removed listener is closed", SOON, async || {
        TcpStream::connect(loopback(removed)).await.is_err().then_some(())
    })
    .await;
    echoes(&mut client, b"after").await.expect("an untouched listener's stream lives on");
}

/// Ends one of a site's processes while a stream is open; the client then finishes.
async fn drains_well(end: impl AsyncFnOnce(&mut Site) -> crate::harness::process::Process) {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    let mut client = site.client("echo").await;
    echoes(&mut client, b"before").await.unwrap();
    let mut process = end(&mut site).await;
    process.signal(Signal::TERM);
    eventually("no new stream is taken", SOON, async || (!serves(site.at("echo")).await).then_some(())).await;
    assert!(process.is_running(), "it waits for the open stream");
    echoes(&mut client, b"during the drain").await.unwrap();
    client.shutdown().await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    process.finish(SOON).await.exits(0);
}

#[tokio::test]
async fn f2_an_agents_drain_lets_streams_finish_and_exits_0() {
    drains_well(async |site| site.agent.take_process()).await;
}

#[tokio::test]
async fn a_gateways_drain_lets_streams_finish_and_exits_0() {
    drains_well(async |site| site.gateway.take_process()).await;
}

/// A site whose drains end after a second, with an open stream.
async fn impatient() -> (Site, TcpStream, Target) {
    let (echo, drain) = (Target::echo().await, "drain: {timeout: 1s}\n");
    let agent = drain.to_owned() + &Agent::targets(&[("echo", echo.address())]);
    let site = Site::with(&["echo"], drain, &agent).await;
    let mut client = site.client("echo").await;
    echoes(&mut client, b"before").await.unwrap();
    (site, client, echo)
}

#[tokio::test]
async fn a_drains_deadline_cuts_streams_and_exits_75() {
    let (mut site, mut client, _echo) = impatient().await;
    let agent = site.agent.take_process();
    agent.signal(Signal::TERM);
    agent.finish(SOON).await.exits(75);
    assert!(timeout(SOON, echoes(&mut client, b"cut")).await.expect("the stream ends").is_err());
    site.agent.audited("closed", |row| row["code"] == "drain_deadline").await;

    let (mut site, mut client, _echo) = impatient().await;
    let gateway = site.gateway.take_process();
    gateway.signal(Signal::TERM);
    gateway.finish(SOON).await.exits(75);
    assert!(timeout(SOON, echoes(&mut client, b"cut")).await.expect("the stream ends").is_err());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let echo = Target::echo().await;
    let drain = "drain: {timeout: 10m}\n".to_owned();
    let agent = drain.clone() + &Agent::targets(&[("echo", echo.address())]);
    let mut site = Site::with(&["echo"], &drain, &agent).await;
    let mut client = site.client("echo").await;
    echoes(&mut client, b"before").await.unwrap();
    let mut agent = site.agent.take_process();
    agent.signal(Signal::TERM);
    eventually("no new stream is taken", SOON, async || (!serves(site.at("echo")).await).then_some(())).await;
    assert!(agent.is_running());
    agent.signal(Signal::TERM);
    agent.finish(SOON).await.exits(75);
}

#[tokio::test]
async fn an_idle_process_ends_with_0_at_the_first_signal() {
    let mut site = Site::new(&[]).await;
    for signal in [Signal::TERM, Signal::INT] {
        let agent = site.agent.take_process();
        agent.signal(signal);
        agent.finish(SOON).await.exits(0);
        site.agent.start().await;
    }
    let gateway = site.gateway.take_process();
    gateway.signal(Signal::INT);
    gateway.finish(SOON).await.exits(0);
}

#[tokio::test]
async fn s0_10_a_disabled_group_is_cut_and_kept_out_until_it_is_enabled() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    let mut client = site.client("echo").await;
    echoes(&mut client, b"before").await.unwrap();
    let done = site.gateway.admin(&["agents", "disable", "acme/dc1"]).run().await.ok();
    assert!(done.starts_with("disabled acme/dc1 since 20"), "{done}");
    let cut = async { while echoes(&mut client, b"after").await.is_ok() {} };
    timeout(std::time::Duration::from_secs(5), cut).await.expect("cut within 5 s");
    site.gateway.audited("agents_disabled", |row| row["scope"] == "acme/dc1").await;
    site.gateway.audited("disconnected", |row| row["code"] == "agent_disabled").await;
    site.gateway.audited("closed", |row| row["code"] == "agent_disabled").await;
    site.agent.audited("disconnected", |row| row["code"] == "agent_disabled").await;
    site.agent.audited("closed", |row| row["code"] == "agent_disabled").await;
    site.agent.fails_with("agent_disabled").await;
    let list = site.gateway.admin(&["agents", "list"]).run().await.ok();
    assert!(list.contains("  down  ") && list.contains("disabled (acme/dc1 since 20"), "{list}");
    let still = site.gateway.admin(&["agents", "enable", "acme/dc1/a1"]).run().await.ok();
    let told = "acme/dc1/a1 was not disabled; not let in, still disabled: acme/dc1 since 20";
    assert!(still.starts_with(told), "{still}");
    // A restart forgets nothing, and the certificate still counts.
    site.gateway.process().kill();
    site.gateway.start().await;
    site.gateway.audited("connect_refused", |row| row["code"] == "agent_disabled").await;
    assert!(!serves(site.at("echo")).await);
    assert_eq!(site.gateway.admin(&["agents", "enable", "acme/dc1"]).run().await.ok().trim(), "enabled acme/dc1");
    site.agent.connected().await;
    assert!(serves(site.at("echo")).await);
    site.gateway.admin(&["agents", "disable", "acme/dc2"]).run().await.exits(64);
}

#[tokio::test]
async fn f27_revocation_cuts_the_live_session_and_refuses_the_next() {
    let echo = Target::echo().await;
    let mut site = Site::new(&[("echo", echo.address())]).await;
    let mut client = site.client("echo").await;
    echoes(&mut client, b"before").await.unwrap();
    site.gateway.revoke("acme/dc1/a1").await.ok();
    let cut = async { while echoes(&mut client, b"after").await.is_ok() {} };
    timeout(std::time::Duration::from_secs(5), cut).await.expect("cut within 5 s");
    site.gateway.audited("revoked", |row| row["agent"] == "acme/dc1/a1").await;
    site.gateway.audited("disconnected", |row| row["code"] == "revoked").await;
    let [here, there] = [site.gateway.audited("closed", |_| true).await, site.agent.audited("closed", |_| true).await];
    assert_eq!((&here["code"], &there["code"]), (&"revoked".into(), &"revoked".into()), "not the target's doing");
    site.gateway.audited("connect_refused", |row| row["code"] == "revoked").await;
    let status = eventually("the agent knows why", SOON, async || {
        let session = site.agent.session().await?;
        let code = session["last_error"]["code"].as_str().unwrap_or_default();
        ["certificate_refused", "revoked"].contains(&code).then_some(session)
    })
    .await;
    assert_ne!(status["tunnel"], "connected");
    assert!(!serves(site.at("echo")).await);
    // A restart of the gateway forgets nothing.
    site.gateway.process().kill();
    let refusals = site.gateway.audit().iter().filter(|row| row["event"] == "connect_refused").count();
    site.gateway.start().await;
    eventually("it is still refused", SOON, async || {
        let now = site.gateway.audit().iter().filter(|row| row["event"] == "connect_refused").count();
        (now > refusals).then_some(())
    })
    .await;
    // A fresh token brings it back.
    let token = site.gateway.token("acme", "dc1").await;
    site.agent.process().kill();
    site.agent.enrollment(&token).run().await.ok();
    site.agent.start().await;
}

#[tokio::test]
async fn probes_and_metrics_answer() {
    let echo = Target::echo().await;
    let site = Site::new(&[("echo", echo.address())]).await;
    assert!(serves(site.at("echo")).await);
    assert_eq!(site.gateway.probe("/livez").await.unwrap().0, 200);
    assert_eq!(site.gateway.probe("/readyz").await.unwrap().0, 200);
    assert_eq!(site.gateway.probe("/nothing-here").await.unwrap().0, 404);
    let has = |text: &str, name: &str, value: &str| {
        text.lines().any(|line| line.starts_with(name) && line.rsplit(' ').next() == Some(value))
    };
    eventually("the stream was counted", SOON, async || {
        has(&site.gateway.metrics().await, "underpass_streams_opened_total", "1").then_some(())
    })
    .await;
    eventually("five bytes each way were counted", SOON, async || {
        let text = site.gateway.metrics().await;
        (text.lines().filter(|line| line.starts_with("underpass_bytes_total{") && line.ends_with(" 5")).count() == 2)
            .then_some(())
    })
    .await;
    let text = site.gateway.metrics().await;
    assert!(has(&text, "underpass_sessions", "1"), "{text}");
    for line in text.lines() {
        assert!(line.starts_with('#') || line.is_empty() || line.starts_with("underpass_"), "{line}");
    }
}

#[tokio::test]
async fn lists_and_status_tell_who_is_connected() {
    let site = Site::new(&[]).await;
    let agents = site.gateway.agents().await;
    let text = agents.to_string();
    assert!(text.contains("acme/dc1/a1") || text.contains("\"a1\""), "{text}");
    let human = site.gateway.admin(&["agents", "list"]).run().await.ok();
    assert!(human.contains("a1"), "{human}");
    let status = site.agent.status().await.unwrap();
    assert_eq!(status["agent"], "acme/dc1/a1");
    assert_eq!(status["sessions"][0]["tunnel"], "connected");
    assert!(status["sessions"][0]["gateway"].is_string() && status["sessions"][0]["session"].is_string(), "{status}");
    assert!(status["sessions"][0]["last_frame_age_ms"].as_u64().is_some(), "{status}");
    assert!(status["certificate"]["not_after"].is_string() || status["certificate"]["not_after"].is_u64(), "{status}");
}
