//! Links that say nothing of their end: noticed within 6 s at both ends, and got over without the loss of a byte.
//! Refuses to know links that break aloud.

use std::time::Instant;

use super::checker::{Load, Traffic};
use super::{Fault, Rig, breaks, cpu_seconds, lasts, measured, shortened};
use crate::fixtures::forwarder::Break;
use crate::fixtures::routed::Way;
use crate::harness::SOON;

/// A fault's end is noticed at both ends, and every stream goes on after it was mended.
async fn noticed_and_survived(what: &str, fault: Fault) {
    let mut rig = Rig::loaded(Load::MIXED).await;
    let (since, before) = (Instant::now(), rig.breaks());
    rig.apply(0, fault).await;
    rig.noticed_by_agent().await;
    measured(&format!("{what}, by the agent"), since);
    let row = rig.noticed_by_gateway(before).await;
    measured(&format!("{what}, by the gateway"), since);
    if fault.holds() {
        assert!(!rig.members[0].agent.is_connected().await, "{what}: called connected");
    }
    // Where the way is free again at once, the end that notices first tells the other by its next connection.
    assert!(row["code"] == "link_dead" || row["code"] == "link_closed", "{row}");
    let rows = breaks(&rig.members[0].agent.audit());
    assert!(rows.iter().any(|row| row["code"] == "link_dead"), "{rows:?}");
    rig.mend(0, fault).await;
    rig.members[0].agent.connected().await;
    rig.traffic.flows(SOON).await;
    rig.finish().await;
}

#[tokio::test]
async fn c1_f7_a_silent_path_is_not_called_connected() {
    noticed_and_survived("a silent path", Fault::Silence).await;
}

#[tokio::test]
async fn f7_a_link_that_is_down_is_not_called_connected() {
    noticed_and_survived("a link that is down", Fault::LinkDown).await;
}

#[tokio::test]
async fn c1_f8_a_path_silent_towards_the_gateway_is_not_called_connected() {
    noticed_and_survived("silence towards the gateway", Fault::SilenceOf(Way::Up)).await;
}

#[tokio::test]
async fn c1_f8_a_path_silent_towards_the_agent_is_not_called_connected() {
    noticed_and_survived("silence towards the agent", Fault::SilenceOf(Way::Down)).await;
}

#[tokio::test]
async fn f13_a_path_that_loses_large_packets_is_not_called_connected() {
    noticed_and_survived("large packets lost", Fault::LargeLost).await;
}

#[tokio::test]
async fn f7_f16_a_program_in_the_middle_that_takes_nothing_more_is_noticed() {
    noticed_and_survived("a stalled forwarder", Fault::Broken(Break::Stall)).await;
}

#[tokio::test]
async fn f14_a_router_that_forgot_the_connection_is_noticed() {
    noticed_and_survived("a forgetful router", Fault::RouterForgot).await;
}

#[tokio::test]
async fn f7_another_address_of_the_site_is_noticed() {
    noticed_and_survived("a renumbered site", Fault::SiteRenumbered).await;
}

#[tokio::test]
async fn f14_heartbeats_keep_a_router_from_forgetting_an_idle_connection() {
    let rig = Rig::new().await;
    rig.members[0].networks.router_knows(&KEEPS_FOR_SECONDS).await;
    rig.stays_connected("the idle connection", shortened(12)).await;
    Traffic::ask(rig.entry).await.unwrap();
}

/// What others keep for a minute or more.
const KEEPS_FOR_SECONDS: [&str; 2] =
    ["net.netfilter.nf_conntrack_tcp_loose=0", "net.netfilter.nf_conntrack_tcp_timeout_established=4"];

#[tokio::test]
async fn f9_a_storm_of_resets_is_answered_with_patience() {
    let rig = Rig::loaded(Load::MIXED).await;
    let (since, cpu) = (Instant::now(), cpu_seconds(rig.members[0].agent.running()));
    rig.apply(0, Fault::Resets).await;
    rig.noticed_by_agent().await;
    measured("a reset, by the agent", since);
    let storm = shortened(10);
    lasts(storm).await;
    let (met, cpu) = (rig.members[0].networks.met().await, cpu_seconds(rig.members[0].agent.running()) - cpu);
    eprintln!("measured: in {storm:?} of resets: {met} packets, {cpu:.2} s of processor time");
    // An attempt each 2 s or sooner, at first much sooner, and what the gateway sends of the old connection.
    assert!(met < 100 + storm.as_secs() * 5, "{met} packets met a reset");
    assert!(cpu < 0.5 + storm.as_secs_f64() * 0.05, "{cpu} s of processor time");
    rig.mend(0, Fault::Resets).await;
    rig.traffic.flows(SOON).await;
    rig.finish().await;
}
