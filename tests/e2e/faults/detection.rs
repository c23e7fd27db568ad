//! Links that say nothing of their end: noticed within 6 s at both ends, and got over without the loss of a byte.
//! Refuses to know links that break aloud.

use std::time::Instant;

use super::checker::Load;
use super::{Fault, Rig, measured};
use crate::fixtures::routed::Way;
use crate::harness::SOON;

/// A fault's end is noticed at both ends, and every stream goes on after it was mended.
async fn noticed_and_survived(what: &str, fault: Fault) {
    let mut rig = Rig::loaded(Load::MIXED).await;
    let (since, before) = (Instant::now(), rig.breaks().len());
    rig.apply(0, fault).await;
    let status = rig.noticed_by_agent().await;
    measured(&format!("{what}, by the agent"), since);
    let row = rig.noticed_by_gateway(before).await;
    measured(&format!("{what}, by the gateway"), since);
    assert_eq!(row["code"], "link_dead", "{row}");
    assert_eq!(status["last_error"]["code"], "link_dead", "{status}");
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
