//! One fault after another, drawn at random, on one of two agents at a time, under traffic of every kind: what callers have
//! noticed of it. `tests/chaos` runs it for as long as one likes. Refuses to know which fault comes next.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};
use underpass::base::tasks::Tasks;

use super::checker::{KINDS, Load, Report, Traffic};
use super::{Fault, Rig, lasts};
use crate::fixtures::forwarder::{Break, Manner};
use crate::fixtures::routed::Way;
use crate::harness::random::Random;
use crate::harness::{SOON, eventually, heavy};

/// A question that has no answer by then counts as a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// What may happen. `None` is the end of an agent's process, which costs its streams.
const FAULTS: [Option<Fault>; 20] = [
    None,
    Some(Fault::Silence),
    Some(Fault::SilenceOf(Way::Up)),
    Some(Fault::SilenceOf(Way::Down)),
    Some(Fault::Resets),
    Some(Fault::Loss(1)),
    Some(Fault::Loss(20)),
    Some(Fault::LargeLost),
    Some(Fault::LinkDown),
    Some(Fault::Rate("1mbit")),
    Some(Fault::AgentStopped),
    Some(Fault::GatewayStopped),
    Some(Fault::RouterRenumbered),
    Some(Fault::RouterForgot),
    Some(Fault::SiteRenumbered),
    Some(Fault::Broken(Break::Reset)),
    Some(Fault::Broken(Break::End)),
    Some(Fault::Broken(Break::After(777))),
    Some(Fault::Broken(Break::HalfOpenNear)),
    Some(Fault::Broken(Break::Stall)),
];

/// What was asked on fresh streams, ten times a second.
#[derive(Default)]
struct Asked {
    answered: Cell<u64>,
    failed: Cell<u64>,
    longest: Cell<Duration>,
}

/// What one kind of fault has cost.
#[derive(Default)]
struct Cost {
    times: u32,
    gap: Duration,
    failed: u64,
    lost: usize,
}

#[tokio::test]
async fn chaos_of_random_faults_costs_time_and_no_byte() {
    let _turn = heavy().await;
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |set| set.parse().expect("a number"));
    let (seconds, seed) = (number("CHAOS_SECONDS", 30), number("CHAOS_SEED", 6));
    let mut rig = Rig::with(2, "", Manner::default()).await;
    let load = Load { streams: 24, ..Load::MIXED };
    rig.traffic.start(rig.entry, load).await;
    let (end, over) = (Instant::now() + Duration::from_secs(seconds), Cell::new(false));
    let (asked, mut costs) = (Asked::default(), BTreeMap::new());
    let entry = rig.entry;
    tokio::join!(asks(entry, &asked, &over), async {
        let mut random = Random(seed);
        while Instant::now() < end {
            one_fault(&mut rig, &mut random, load, &asked, &mut costs).await;
        }
        over.set(true);
    });
    let expected = costs.get("agent killed").map_or(0, |cost: &Cost| cost.lost);
    let report = rig.traffic.finish(SOON).await;
    print_table(seconds, seed, &costs, &asked, &report);
    assert!(report.told.is_right(), "{report}");
    assert!(report.lost_streams.len() <= expected, "streams lost without a killed agent: {report}");
}

/// Asks on fresh streams until it is over.
async fn asks(entry: SocketAddr, asked: &Asked, over: &Cell<bool>) {
    let (tasks, mut ticks) = (Tasks::new(), interval(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = VecDeque::new();
    loop {
        ticks.tick().await;
        if over.get() && open.is_empty() {
            return;
        }
        if !over.get() {
            open.push_back(tasks.spawn(async move {
                let since = Instant::now();
                let answered = timeout(PATIENCE, Traffic::ask(entry)).await;
                (matches!(answered, Ok(Ok(()))), since.elapsed())
            }));
        }
        while open.front().is_some_and(tokio::task::JoinHandle::is_finished) {
            let (answered, took) = open.pop_front().expect("there is one").await.unwrap().unwrap();
            let count = if answered { &asked.answered } else { &asked.failed };
            count.set(count.get() + 1);
            asked.longest.set(asked.longest.get().max(took));
        }
    }
}

async fn one_fault(rig: &mut Rig, random: &mut Random, load: Load, asked: &Asked, costs: &mut BTreeMap<String, Cost>) {
    let fault = FAULTS[random.below(FAULTS.len() as u64) as usize];
    let (member, during) = (random.below(2) as usize, Duration::from_millis(500 + random.below(7500)));
    let (failed, lost) = (asked.failed.get(), rig.traffic.report().lost_streams.len());
    let since = Instant::now();
    rig.traffic.gap();
    if let Some(fault) = fault {
        rig.apply(member, fault).await;
        lasts(during).await;
        rig.mend(member, fault).await;
    } else {
        rig.members[member].agent.process().kill();
        lasts(during).await;
        rig.members[member].agent.launch();
    }
    for member in &mut rig.members {
        member.agent.connected().await;
    }
    rig.traffic.flows(SOON).await;
    let name = fault.map_or("agent killed".to_owned(), |fault| format!("{fault:?}"));
    let (lost, gap) = (rig.traffic.report().lost_streams.len() - lost, rig.traffic.gap());
    eprintln!(
        "chaos: {name} at a{member} for {during:.1?}: gap {gap:.1?}, {lost} streams lost, {:.1?} in all",
        since.elapsed()
    );
    let cost = costs.entry(name).or_default();
    cost.times += 1;
    cost.gap = cost.gap.max(gap);
    cost.failed += asked.failed.get() - failed;
    cost.lost += lost;
    // Others take the places of those that went with their agent.
    for number in 0..lost {
        rig.traffic.open(rig.entry, KINDS[number % KINDS.len()], load);
    }
    eventually("the new streams flow", SOON, async || rig.traffic.is_settled().then_some(())).await;
}

fn print_table(seconds: u64, seed: u64, costs: &BTreeMap<String, Cost>, asked: &Asked, report: &Report) {
    eprintln!("\nchaos: {seconds} s, seed {seed}\n");
    eprintln!("| fault | times | longest gap of a stream | questions failed | streams lost |\n|---|---:|---:|---:|---:|");
    for (name, Cost { times, gap, failed, lost }) in costs {
        eprintln!("| {name} | {times} | {:.1} s | {failed} | {lost} |", gap.as_secs_f64());
    }
    let (answered, failed) = (asked.answered.get(), asked.failed.get());
    let longest = costs.values().map(|cost| cost.gap).max().unwrap_or_default();
    let available = 100.0 * answered as f64 / (answered + failed).max(1) as f64;
    eprintln!("\n| what | figure |\n|---|---:|");
    eprintln!("| availability: fresh streams answered within {} s | {available:.3} % |", PATIENCE.as_secs());
    eprintln!("| asked, failed | {}, {failed} |", answered + failed);
    eprintln!("| longest wait for an answer | {:.1} s |", asked.longest.get().as_secs_f64());
    eprintln!("| longest gap of a stream | {:.1} s |", longest.as_secs_f64());
    eprintln!("| bytes checked | {} |", report.bytes);
    eprintln!("| bytes lost, doubled, changed | {}, {}, {} |", report.told.lost, report.told.doubled, report.told.changed);
    eprintln!("| streams, lost with a killed agent | {}, {} |", report.streams, report.lost_streams.len());
}
