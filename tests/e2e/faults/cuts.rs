//! The link is cut a hundred times under load, in every way that it can be: no stream is lost, and no byte.
//! Refuses to know how streams outlive their connections.

use std::time::{Duration, Instant};

use super::checker::Load;
use super::{Fault, NOTICED, Rig, lasts};
use crate::fixtures::forwarder::Break;
use crate::fixtures::routed::Way;
use crate::harness::{SOON, eventually, heavy};

const CUTS: usize = 100;

/// The longest pause of a stream when an end is told of the cut.
const LOUD: Duration = Duration::from_secs(1);

/// The same when nobody is.
const SILENT: Duration = Duration::from_secs(7);

/// Cuts that tell the agent at once.
const LOUD_CUTS: [Fault; 7] = [
    Fault::Broken(Break::Reset),
    Fault::Broken(Break::End),
    Fault::Broken(Break::After(1)),
    Fault::Broken(Break::After(1000)),
    Fault::Broken(Break::After(30_011)),
    Fault::Broken(Break::HalfOpenFar),
    Fault::RouterRenumbered,
];

/// Cuts that nobody is told of, and how long they last where they end by themselves.
const SILENT_CUTS: [(Fault, u64); 9] = [
    (Fault::Broken(Break::Stall), 0),
    (Fault::Silence, 4),
    (Fault::AgentStopped, 4),
    (Fault::SiteRenumbered, 0),
    (Fault::Broken(Break::HalfOpenNear), 0),
    (Fault::GatewayStopped, 4),
    (Fault::RouterForgot, 0),
    (Fault::SilenceOf(Way::Up), 4),
    (Fault::SilenceOf(Way::Down), 4),
];

#[tokio::test]
async fn c1_f7_f9_the_link_is_cut_a_hundred_times_and_no_stream_notices() {
    let _turn = heavy().await;
    let rig = Rig::loaded(Load::MIXED).await;
    let (mut loud, mut silent) = (Vec::new(), Vec::new());
    // A silent cut takes seconds: every eighth, or every second one at full length.
    let every = if std::env::var_os("FULL").is_some() { 2 } else { 8 };
    for number in 0..CUTS {
        if number % every == every - 1 {
            let (fault, seconds) = SILENT_CUTS[number / every % SILENT_CUTS.len()];
            silent.push((cut(&rig, fault, seconds).await, fault));
        } else {
            let fault = LOUD_CUTS[number % LOUD_CUTS.len()];
            loud.push((cut(&rig, fault, 0).await, fault));
        }
    }
    for (what, pauses, bound) in [("loud", &loud, LOUD), ("silent", &silent, SILENT)] {
        let longest = pauses.iter().max_by_key(|(pause, _)| *pause).expect("there are some");
        let mut sorted: Vec<_> = pauses.iter().map(|(pause, _)| *pause).collect();
        sorted.sort();
        let (count, median) = (sorted.len(), sorted[sorted.len() / 2]);
        eprintln!(
            "measured: {count} {what} cuts: pause {median:.2?} in the middle, {:.2?} at most ({:?})",
            longest.0, longest.1
        );
        assert!(longest.0 < bound, "a pause of {longest:?}");
    }
    let report = rig.finish().await;
    eprintln!("measured: {report}");
}

/// Cuts the link; yields the longest pause of any stream.
async fn cut(rig: &Rig, fault: Fault, seconds: u64) -> Duration {
    // What the last cut held back has gone through.
    eventually("the traffic is steady", SOON, async || {
        rig.traffic.gap();
        rig.traffic.flows(SOON).await;
        (rig.traffic.gap() < LOUD / 5).then_some(())
    })
    .await;
    let before = lanes(rig).await;
    let since = Instant::now();
    rig.apply(0, fault).await;
    if seconds > 0 {
        lasts(Duration::from_secs(seconds).saturating_sub(since.elapsed())).await;
        rig.mend(0, fault).await;
    } else {
        eventually(&format!("the session goes on after {fault:?}"), NOTICED, async || {
            rig.traffic.assert_whole();
            let now = lanes(rig).await;
            let (broken, over) = (now.broken - before.broken, now.over - before.over);
            (broken > 0 && over >= broken).then_some(())
        })
        .await;
    }
    rig.traffic.flows(SOON).await;
    rig.traffic.assert_whole();
    rig.traffic.gap()
}

/// How often lanes were broken, and how often that was over.
struct Lanes {
    broken: u64,
    over: u64,
}

/// As the gateway's metrics tell, since the audit has not so many rows of one agent. A lane that has had no stream for long may also be
/// closed before its agent has noticed the break.
async fn lanes(rig: &Rig) -> Lanes {
    let text = rig.gateway.metrics().await;
    let sum = |name: &str| -> u64 {
        let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<u64>().expect("a count")).sum()
    };
    let closed = rig.gateway.audit().iter().filter(|row| row["event"] == "lane_closed").count() as u64;
    Lanes { broken: sum("underpass_lanes_broken_total"), over: sum("underpass_lane_pause_seconds_count") + closed }
}
