//! Paths that are bad and not dead: long, narrow, lossy, or carried in crumbs. Every byte arrives, and no end takes the other for
//! dead. Refuses to know paths that break.

use std::time::{Duration, Instant};

use super::checker::{Kind, Load, Traffic};
use super::{Fault, Rig, measured, shortened};
use crate::fixtures::forwarder::{Manner, Pieces};
use crate::harness::{SOON, eventually, heavy};

/// Traffic through a path with that round trip: nobody is taken for dead while a bulk stream fills it, and the bulk stream gets
/// 80 % or more of what a window of 256 KiB allows.
async fn a_long_path_is_used_well(round_trip: Duration) {
    let _turn = heavy().await;
    let far = Manner { delay: round_trip / 2, jitter: round_trip / 20, ..Manner::default() };
    let rig = Rig::with(1, "", far).await;
    rig.traffic.start(rig.entry, Load::LIGHT).await;
    let since = Instant::now();
    Traffic::ask(rig.entry).await.unwrap();
    assert!(since.elapsed() >= round_trip, "the path is long");
    let (since, before) = (Instant::now(), rig.traffic.report().bytes);
    rig.traffic.open(rig.entry, Kind::Download, Load::BULK);
    let within = Duration::from_secs(10);
    let wanted = (0.8 * 262_144.0 * within.as_secs_f64() / round_trip.as_secs_f64()) as u64;
    eventually(&format!("{wanted} bytes"), within, async || (rig.traffic.report().bytes - before > wanted).then_some(())).await;
    measured(&format!("{wanted} bytes at a round trip of {round_trip:?}"), since);
    rig.stays_connected("a long path full of bulk", shortened(10)).await;
    rig.finish().await;
}

#[tokio::test]
async fn f11_50_ms_of_round_trip_cost_no_throughput_and_no_link() {
    a_long_path_is_used_well(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn f11_200_ms_of_round_trip_cost_no_throughput_and_no_link() {
    a_long_path_is_used_well(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn f11_600_ms_of_round_trip_cost_no_throughput_and_no_link() {
    a_long_path_is_used_well(Duration::from_millis(600)).await;
}

#[tokio::test]
async fn f12_a_narrow_link_full_of_bulk_is_not_called_dead() {
    let rig = Rig::new().await;
    rig.apply(0, Fault::Rate("1mbit")).await;
    for kind in [Kind::Download, Kind::Upload, Kind::Echo] {
        rig.traffic.open(rig.entry, kind, Load::BULK);
    }
    rig.stays_connected("a link of 1 Mbit/s full of bulk", shortened(15)).await;
    let (carried, seconds) = (rig.traffic.report().bytes, shortened(15).as_secs());
    assert!((50_000 * seconds..500_000 * seconds).contains(&carried), "{carried} bytes: the link is full and narrow");
    // Others still have their turn.
    let since = Instant::now();
    Traffic::ask(rig.entry).await.unwrap();
    measured("a question on a link of 1 Mbit/s full of bulk", since);
    rig.mend(0, Fault::Rate("1mbit")).await;
    rig.finish().await;
}

/// A lossy path costs time and no byte; whether a link breaks on it is a matter of luck.
async fn a_lossy_path_is_byte_exact(percent: u8, load: Load) {
    let rig = Rig::loaded(load).await;
    rig.apply(0, Fault::Loss(percent)).await;
    let mut ticks = tokio::time::interval(shortened(10) / 5);
    ticks.tick().await;
    for _ in 0..5 {
        ticks.tick().await;
        rig.traffic.assert_whole();
    }
    assert!(rig.members[0].networks.met().await > 0, "packets were lost");
    rig.mend(0, Fault::Loss(percent)).await;
    rig.traffic.flows(SOON).await;
    rig.finish().await;
}

#[tokio::test]
async fn f10_a_packet_lost_of_a_hundred_costs_no_byte() {
    a_lossy_path_is_byte_exact(1, Load::MIXED).await;
}

#[tokio::test]
async fn f10_a_packet_lost_of_five_costs_no_byte() {
    a_lossy_path_is_byte_exact(20, Load::LIGHT).await;
}

/// What is carried in crumbs arrives whole, without a doubt about the link.
async fn crumbs_are_byte_exact(pieces: Pieces) {
    let rig = Rig::loaded(Load::LIGHT).await;
    let before = rig.traffic.report().bytes;
    rig.members[0].forwarder.pass(Manner { pieces, ..Manner::default() });
    rig.traffic.flows(SOON).await;
    eventually("much has passed", SOON, async || (rig.traffic.report().bytes > before + 200_000).then_some(())).await;
    assert_eq!(rig.breaks(), 0);
    rig.finish().await;
}

#[tokio::test]
async fn f16_single_bytes_arrive_whole() {
    crumbs_are_byte_exact(Pieces::Of(1)).await;
}

#[tokio::test]
async fn f16_frames_split_at_every_offset_arrive_whole() {
    crumbs_are_byte_exact(Pieces::UpTo(1500)).await;
}

#[tokio::test]
async fn f16_a_frame_that_never_comes_to_its_end_is_noticed() {
    let mut rig = Rig::loaded(Load::LIGHT).await;
    let (since, before) = (Instant::now(), rig.breaks());
    let trickle = Manner { pieces: Pieces::Of(1), pause: Duration::from_secs(1), ..Manner::default() };
    rig.members[0].forwarder.pass(trickle);
    rig.noticed_by_agent().await;
    measured("a byte a second, by the agent", since);
    rig.noticed_by_gateway(before).await;
    measured("a byte a second, by the gateway", since);
    rig.members[0].forwarder.pass(Manner::default());
    rig.members[0].agent.connected().await;
    rig.traffic.flows(SOON).await;
    rig.finish().await;
}
