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
