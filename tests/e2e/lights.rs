//! The three lights: that status tells a tunnel that stands from an agent that serves and a target that is reached. Refuses to know how
//! streams are carried.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use underpass::base::id::InstanceId;
use underpass::wire::hello::{Hello, VERSIONS};

use crate::fixtures::certificates::Identity;
use crate::fixtures::origin::Origin;
use crate::fixtures::peer::Peer;
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes, serves};
use crate::harness::{SOON, eventually, free_port, loopback};
use crate::http::{Web, http};

/// What the gateway shows of the first session of its first agent.
async fn lights(gateway: &Gateway) -> Option<Value> {
    gateway.agents().await["agents"][0]["sessions"].get(0).map(|session| session["lights"].clone())
}

async fn agent_light(gateway: &Gateway, state: &str) -> Value {
    // A canary that is not answered is given up after 5 s.
    let within = SOON + Duration::from_secs(10);
    eventually(&format!("the agent's light is `{state}`"), within, async || {
        lights(gateway).await.map(|lights| lights["agent"].clone()).filter(|light| light["state"] == state)
    })
    .await
}

#[tokio::test]
async fn c13_status_shows_tunnel_agent_and_targets_apart() {
    let (echo, origin, gone) = (Target::echo().await, Origin::start().await, loopback(free_port()));
    let targets = format!(
        "{}  web: {{kind: http, address: \"http://{}\", allow_loopback: true}}\n",
        Agent::targets(&[("crm", gone), ("echo", echo.address())]),
        origin.address(),
    );
    let mut site = Site::with(&["crm", "echo", "web"], "", &targets).await;
    let light = agent_light(&site.gateway, "serving").await;
    assert!(light["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{light}");
    let before = lights(&site.gateway).await.unwrap();
    assert_eq!((&before["tunnel"], &before["targets"]["crm"]), (&json!("connected"), &json!({"state": "unknown"})));
    assert!(serves(site.at("echo")).await && !serves(site.at("crm")).await);
    let shown = lights(&site.gateway).await.unwrap();
    let state = |name: &str| (shown["targets"][name]["state"].clone(), shown["targets"][name]["code"].clone());
    assert_eq!(state("crm"), (json!("failing"), json!("target_refused")));
    assert_eq!(state("echo"), (json!("reached"), Value::Null));
    assert_eq!(state("web"), (json!("unknown"), Value::Null), "nobody has asked");

    let list = site.gateway.admin(&["agents", "list"]).run().await.ok();
    let (heading, row) = list.split_once('\n').unwrap();
    assert!(row.contains("connected  serving  crm failing (target_refused), 1 reached, 1 unknown"), "{list}");
    let columns = ["AGENT", "TUNNEL", "SERVING", "TARGETS", "LANES", "STREAMS", "FROM", "VERSION", "CERTIFICATE ENDS", "NOTE"];
    assert_eq!(heading.split("  ").filter(|title| !title.is_empty()).map(str::trim).collect::<Vec<_>>(), columns);
    assert_eq!(heading.find("SERVING"), row.find("serving"), "aligned: {list}");

    // The agent knows of its own targets, and a tunnel that stands is no promise that they are reached.
    let status = site.agent.status().await.unwrap();
    let of = |name: &str| {
        status["targets"].as_array().unwrap().iter().find(|target| target["name"] == name).unwrap()["light"].clone()
    };
    assert_eq!((&of("crm")["state"], &of("crm")["code"]), (&json!("failing"), &json!("target_refused")));
    assert_eq!((&of("echo")["state"], &of("web")["state"]), (&json!("reached"), &json!("unknown")));
    let printed = site.agent.command(&["agent", "status"]).run().await.ok();
    assert!(printed.contains("LAST TRY") && printed.contains("failing (target_refused) since 20"), "{printed}");

    let metrics = eventually("the gauges follow", SOON, async || {
        let text = site.gateway.metrics().await;
        text.contains("underpass_lights{light=\"target\",state=\"failing\"} 1\n").then_some(text)
    })
    .await;
    for line in ["light=\"tunnel\",state=\"connected\"} 1", "light=\"agent\",state=\"serving\"} 1", "state=\"not serving\"} 0"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // No client has asked for an echo, and nobody counts one.
    assert!(metrics.contains("underpass_streams_opened_total 1\n"), "{metrics}");
    let rows = site.agent.audit();
    assert!(!rows.iter().any(|row| row["target"] == "acme/dc1/echo" && row["caller"] == "gw1"), "{rows:?}");
    site.agent.process().kill();
    // It may come back, as far as its gateway knows.
    eventually("the session is waited for", SOON, async || {
        (site.gateway.agents().await["agents"][0]["tunnel"] == "resuming").then_some(())
    })
    .await;
    assert_eq!(lights(&site.gateway).await.unwrap()["agent"], json!({"state": "unknown"}), "nobody can ask it");
    let metrics = site.gateway.metrics().await;
    for line in ["light=\"tunnel\",state=\"resuming\"} 1", "light=\"agent\",state=\"serving\"} 0"] {
        assert!(metrics.contains(line), "as it is now: {line}: {metrics}");
    }
}

#[tokio::test]
async fn c13_an_agent_whose_places_are_all_taken_serves() {
    let echo = Target::echo().await;
    let more = Agent::targets(&[("echo", echo.address())]) + "limits: {max_streams: 1}\n";
    let site = Site::with(&["echo"], "", &more).await;
    let mut only = site.client("echo").await;
    echoes(&mut only, b"held").await.unwrap();
    agent_light(&site.gateway, "serving").await;
    echoes(&mut only, b"still").await.unwrap();
    assert!(!serves(site.at("echo")).await, "there is no further place");
}

#[tokio::test]
async fn c13_an_agent_that_answers_heartbeats_and_no_stream_is_red_and_keeps_its_session() {
    let mut gateway = Gateway::init().await;
    let port = free_port();
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/who")]));
    gateway.start().await;
    let identity = Identity::of_agent(&Agent::enroll(&gateway, "a1").await);
    let hello = Hello {
        versions: VERSIONS,
        agent_version: "hung".to_owned(),
        instance: InstanceId::fresh(),
        targets: Vec::new(),
        capacity: 100,
        capabilities: vec!["echo".to_owned()],
    };
    let mut hung = Peer::greeted_with(&gateway, &identity, hello).await.unwrap();
    let alive = async {
        loop {
            // Each answers the gateway's, and one of its own follows.
            hung.until_heartbeat().await.unwrap();
            hung.heartbeat().await.unwrap();
        }
    };
    let watched = async {
        let light = agent_light(&gateway, "not serving").await;
        assert_eq!(light["code"], "agent_not_serving");
        assert_eq!(lights(&gateway).await.unwrap()["tunnel"], "connected", "the session lives");
        let row = gateway.audited("agent_light", |row| row["agent"] == "acme/dc1/a1").await;
        assert_eq!((&row["state"], &row["code"]), (&json!("not serving"), &json!("agent_not_serving")));
        let list = gateway.admin(&["agents", "list"]).run().await.ok();
        assert!(list.contains("connected  not serving since 20"), "{list}");
    };
    tokio::select! {
        () = alive => {}
        () = watched => {}
    }
    drop(TcpStream::connect(loopback(port)).await);
}

#[tokio::test]
async fn c13_a_target_of_kind_http_is_reached_when_it_answers_and_not_when_its_stream_is_accepted() {
    let (origin, gone) = (Origin::start().await, loopback(free_port()));
    let web = Web::new(&[("web", http(origin.address(), "")), ("gone", http(gone, ""))]).await;
    let state = async |name: &str| lights(&web.gateway).await.unwrap()["targets"][name].clone();
    let raw = TcpStream::connect(web.raw("gone")).await.unwrap();
    web.gateway.audited("opened", |row| row["target"] == "acme/dc1/gone").await;
    assert_eq!(state("gone").await["state"], "unknown", "accepted, and nothing is connected yet");
    drop(raw);
    assert_eq!(web.told(&[], &web.url("gone", "/")).await.1, "target_refused");
    assert_eq!(web.told(&[], &web.url("web", "/")).await.0, 200);
    let (gone, web) = (state("gone").await, state("web").await);
    assert_eq!(
        (&gone["state"], &gone["code"], &web["state"]),
        (&json!("failing"), &json!("target_refused"), &json!("reached"))
    );
}
