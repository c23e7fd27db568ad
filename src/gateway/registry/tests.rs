//! Which session gets the next stream. Refuses to know clients and bytes.

use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::gateway::fixture::{Agent, agent};

fn group() -> GroupId {
    "acme/dc1/x".parse::<AgentId>().unwrap().group
}

fn db() -> Name {
    Name::parse("db").unwrap()
}

fn pick(registry: &Registry, tried: &[SessionId]) -> Result<String, Code> {
    let picked = registry.pick(&group(), &db(), tried);
    picked.map(|live| live.agent.agent.to_string()).map_err(|refusal| refusal.code)
}

async fn three(registry: &Registry) -> Vec<Agent> {
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        let agent = agent(name, &["db"]).await;
        registry.add(agent.live.clone());
        agents.push(agent);
    }
    agents
}

#[tokio::test]
async fn equally_loaded_agents_take_turns() {
    let registry = Registry::default();
    let _agents = three(&registry).await;
    let picked: Vec<_> = (0..6).map(|_| pick(&registry, &[]).unwrap()).collect();
    assert_eq!(picked[..3], picked[3..]);
    assert_eq!(picked.iter().collect::<HashSet<_>>().len(), 3);
}

#[tokio::test]
async fn the_least_loaded_agent_is_taken() {
    let registry = Registry::default();
    let agents = three(&registry).await;
    let mut held = Vec::new();
    for busy in [&agents[0], &agents[2]] {
        held.push(busy.live.lanes.open().await.unwrap());
    }
    for _ in 0..4 {
        assert_eq!(pick(&registry, &[]).unwrap(), "b");
    }
}

#[tokio::test]
async fn agents_that_were_tried_drain_ended_or_offer_it_not_are_passed_over() {
    let registry = Registry::default();
    let agents = three(&registry).await;
    let tried = [agents[0].live.session, agents[1].live.session];
    assert_eq!(pick(&registry, &tried).unwrap(), "c");
    agents[2].live.drain();
    assert_eq!(pick(&registry, &tried), Err(Code::NoAgent));
    agents[0].live.offers_changed(Vec::new(), &[db()], 9);
    assert_eq!(pick(&registry, &[]).unwrap(), "b");
    agents[1].live.link.close();
    agents[1].live.link.ended().await;
    assert_eq!(pick(&registry, &[]), Err(Code::TargetUnknown));
    registry.remove(&agents[0].live);
    assert_eq!(pick(&registry, &[]), Err(Code::NoAgent));
    assert_eq!(registry.sessions().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn f03_an_agent_that_has_gone_silent_is_passed_over() {
    let registry = Registry::default();
    let agent = agent("a", &["db"]).await;
    registry.add(agent.live.clone());
    assert!(pick(&registry, &[]).is_ok());
    // Every task of both ends stands still.
    agent.tasks.abort().await;
    assert_eq!(pick(&registry, &[]), Err(Code::NoAgent));
}

#[tokio::test(start_paused = true)]
async fn while_a_connection_is_resumed_that_is_said_and_nothing_of_the_agent() {
    let registry = Registry::default();
    let Agent { live, session, .. } = &agent("a", &["db"]).await;
    registry.add(live.clone());
    live.serving.show(Serving::Serving, None);
    for link in [&live.link, session.lanes.first().link()] {
        link.resumable(Duration::from_secs(30));
    }
    // Once each end knows that the other has the greeting.
    tokio::time::sleep(Duration::from_secs(1)).await;
    live.link.give_up(Failure::new(Code::LinkDead, "as the test wants it"));
    live.link.paused().await.unwrap();
    let detail = registry.pick(&group(), &db(), &[]).err().unwrap().detail;
    assert_eq!(detail, "no agent of acme/dc1 is connected; its agents' connections are being resumed");
    let detail = registry.pick(&group(), &db(), &[live.session]).err().unwrap().detail;
    assert_eq!(detail, "no agent of acme/dc1 is connected");
    let lights = live.lights();
    assert_eq!((lights.tunnel, lights.agent.state, lights.agent.since), (Tunnel::Resuming, Serving::Unknown, None));
    assert_eq!(lights.targets.len(), 1, "how the last attempt at it went is known");
}

#[tokio::test(start_paused = true)]
async fn of_an_agent_that_has_gone_silent_nobody_knows_whether_it_serves() {
    let agent = agent("a", &["db"]).await;
    agent.live.serving.show(Serving::Serving, None);
    assert_eq!(agent.live.lights().agent.state, Serving::Serving);
    agent.tasks.abort().await;
    assert_eq!(agent.live.lights().agent.state, Serving::Unknown);
}

#[tokio::test]
async fn d3_what_an_agent_offers_is_bounded() {
    let agent = agent("a", &["db"]).await;
    let offers = (0..100).map(|n| Offer { name: Name::parse(&format!("t{n}")).unwrap(), kind: Kind::Tcp }).collect();
    agent.live.offers_changed(offers, &[], 10);
    assert_eq!(agent.live.lights().targets.len(), 10);
}

#[test]
fn s5_who_holds_an_identity_is_the_eldest_session_of_each_process_that_lasts() {
    let now = Instant::now() + Duration::from_hours(1);
    let (a, b, c) = (InstanceId::fresh(), InstanceId::fresh(), InstanceId::fresh());
    let held = |ages: &[(u64, InstanceId)]| {
        let sessions = ages.iter().map(|(age, process)| (now - Duration::from_secs(*age), *process, *age));
        holders(sessions.collect(), now)
    };
    assert_eq!(held(&[]), [0; 0]);
    assert_eq!(held(&[(70, a), (80, a), (60, a)]), [80], "several ways of one process");
    assert_eq!(held(&[(9, b), (60, a)]), [60], "a restart, or a clone not yet");
    assert_eq!(held(&[(10, b), (60, a), (9, b)]), [60, 10]);
    assert_eq!(held(&[(60, a), (10, b), (3, c), (11, c)]), [60, 11, 10]);
}

#[tokio::test]
async fn c13_an_agent_that_does_not_serve_comes_after_all_that_may() {
    let registry = Registry::default();
    let agents = three(&registry).await;
    agents[0].live.serving.show(Serving::NotServing, Some(Code::AgentNotServing));
    agents[1].live.serving.show(Serving::Serving, None);
    // Even though they have more to do.
    let _busy = [agents[1].live.lanes.open().await.unwrap(), agents[2].live.lanes.open().await.unwrap()];
    let picked: HashSet<_> = (0..6).map(|_| pick(&registry, &[]).unwrap()).collect();
    assert_eq!(picked, ["b", "c"].map(str::to_owned).into());
    let others = [agents[1].live.session, agents[2].live.session];
    assert_eq!(pick(&registry, &others).unwrap(), "a", "rather than nobody");
}
