//! Peers that keep to the protocol and mean ill: cloned identities, noise, one host that wants every place.
//! Refuses to know frames that no state allows.

use serde_json::Value;

use crate::harness::site::{Agent, Gateway};
use crate::harness::target::{Target, told};
use crate::harness::{SOON, eventually, free_port, loopback};

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
