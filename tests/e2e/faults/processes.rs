//! Processes that die, hang, sleep or stay away: what the others notice, and what comes back by itself.
//! Refuses to know networks that fail.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::{interval, timeout};

use super::checker::{Load, Traffic};
use super::{Fault, NOTICED, Rig, cpu_seconds, lasts, measured, shortened};
use crate::fixtures::forwarder::Manner;
use crate::harness::{SOON, eventually, heavy};

/// Asks 200 times a second for a while; yields when each question that failed was asked.
async fn asked(rig: &Rig, during: Duration) -> Vec<Instant> {
    let (end, mut ticks, mut asks) = (Instant::now() + during, interval(Duration::from_millis(5)), Vec::new());
    let entry = rig.entry;
    let tasks = underpass::base::tasks::Tasks::new();
    while Instant::now() < end {
        ticks.tick().await;
        asks.push(tasks.spawn(async move {
            let since = Instant::now();
            let answered = timeout(NOTICED, Traffic::ask(entry)).await;
            (!matches!(answered, Ok(Ok(())))).then_some(since)
        }));
    }
    join_all(asks).await.into_iter().filter_map(|failed| failed.unwrap().unwrap()).collect()
}

#[tokio::test]
async fn f1_a_killed_agents_group_answers_on() {
    let _turn = heavy().await;
    let mut rig = Rig::with(3, "", Manner::default()).await;
    let mut victim = rig.members[0].agent.take_process();
    let killed = Cell::new(None);
    let (failed, ()) = tokio::join!(asked(&rig, Duration::from_secs(4)), async {
        lasts(Duration::from_secs(1)).await;
        victim.kill();
        killed.set(Some(Instant::now()));
    });
    let killed = killed.get().unwrap();
    let late: Vec<_> = failed.iter().filter(|asked| **asked > killed).map(|asked| *asked - killed).collect();
    eprintln!("measured: {} questions were lost with a killed agent of three", failed.len());
    assert!(late.iter().all(|late| *late < Duration::from_secs(1)), "questions failed so long after the end: {late:?}");
    assert!(failed.iter().all(|asked| killed.saturating_duration_since(*asked) < Duration::from_secs(1)), "before the end");
    // Those that were under way: some 200 a second, of which one agent of three has a few.
    assert!(failed.len() < 50, "{} questions failed", failed.len());
    rig.members[0].agent.start().await;
}

#[tokio::test]
async fn f1_an_agent_that_is_started_again_ends_what_its_predecessor_had() {
    let mut rig = Rig::loaded(Load::LIGHT).await;
    rig.members[0].agent.process().kill();
    rig.members[0].agent.start().await;
    let since = Instant::now();
    eventually("no stream is left hanging", NOTICED, async || {
        let report = rig.traffic.report();
        (report.lost_streams.len() == report.streams).then_some(())
    })
    .await;
    measured("the end of a killed agent's streams after its return", since);
    assert!(rig.traffic.report().told.is_right());
    Traffic::ask(rig.entry).await.unwrap();
}

#[tokio::test]
async fn f3_a_stopped_agent_is_left_out_and_goes_on_where_it_was() {
    let rig = Rig::with(2, "", Manner::default()).await;
    rig.traffic.start(rig.entry, Load::LIGHT).await;
    let (since, before) = (Instant::now(), rig.breaks());
    rig.apply(0, Fault::AgentStopped).await;
    rig.noticed_by_gateway(before).await;
    measured("a stopped agent, by the gateway", since);
    for _ in 0..20 {
        timeout(Duration::from_secs(1), Traffic::ask(rig.entry)).await.expect("the other answers at once").unwrap();
    }
    rig.mend(0, Fault::AgentStopped).await;
    rig.traffic.flows(SOON).await;
    let listed = rig.gateway.agents().await;
    let sessions: Vec<_> =
        listed["agents"].as_array().unwrap().iter().map(|agent| agent["sessions"].as_array().unwrap().len()).collect();
    assert_eq!(sessions, [1, 1], "no ghost of the old session: {listed}");
    rig.finish().await;
}

#[tokio::test]
async fn f3_a_stopped_gateways_streams_go_on_where_they_were() {
    let rig = Rig::loaded(Load::LIGHT).await;
    let since = Instant::now();
    rig.apply(0, Fault::GatewayStopped).await;
    rig.noticed_by_agent().await;
    measured("a stopped gateway, by the agent", since);
    rig.mend(0, Fault::GatewayStopped).await;
    rig.traffic.flows(SOON).await;
    rig.finish().await;
}

/// So short that a test can be longer.
const RESUME_WINDOW: &str = "  resume_window: 5s\n";

#[tokio::test]
async fn f6_a_gateway_that_stays_away_is_waited_for_without_work() {
    let mut rig = Rig::with(1, RESUME_WINDOW, Manner::default()).await;
    rig.gateway.process().kill();
    rig.noticed_by_agent().await;
    let agent = rig.members[0].agent.running();
    let away = shortened(20);
    let (cpu, tries, lines) = (cpu_seconds(agent), rig.members[0].forwarder.accepted(), told(&agent.stderr()));
    lasts(away).await;
    let cpu = cpu_seconds(agent) - cpu;
    let (tries, lines) = (rig.members[0].forwarder.accepted() - tries, told(&agent.stderr()) - lines);
    eprintln!("measured: {away:?} without a gateway: {tries} attempts, {lines} lines, {cpu:.2} s of processor time");
    assert!(cpu < away.as_secs_f64() * 0.01 + 0.1, "{cpu} s of processor time");
    // Beside them: the lane waits, the session has ended, it was the link's.
    assert!(lines <= tries + 4, "{lines} lines for {tries} attempts");
    // At first for the session that may be taken up, then for another, each time after a longer wait.
    assert!(tries as u64 <= 25 + away.as_secs() / 5, "{tries} attempts");
    let since = Instant::now();
    rig.gateway.start().await;
    let within = Duration::from_secs(30).saturating_sub(since.elapsed());
    let agent = &rig.members[0].agent;
    eventually("the agent is back", within, async || agent.is_connected().await.then_some(())).await;
    measured("the return to a gateway that was away", since);
    Traffic::ask(rig.entry).await.unwrap();
}

/// The lines of a log that an operator sees at its usual level.
fn told(log: &str) -> usize {
    log.lines().filter(|line| !line.contains("\"level\":\"debug\"")).count()
}

#[tokio::test]
async fn f22_who_wakes_from_suspension_is_connected_at_once() {
    let rig = Rig::with(1, RESUME_WINDOW, Manner::default()).await;
    rig.traffic.start(rig.entry, Load::LIGHT).await;
    rig.apply(0, Fault::AgentStopped).await;
    let asleep = shortened(12);
    lasts(asleep).await;
    // Longer than anybody waits: what was open has ended at the end that was awake.
    rig.gateway.audited("closed", |row| row["code"] == "resume_expired").await;
    rig.mend(0, Fault::AgentStopped).await;
    let woken = Instant::now();
    let answer = async || timeout(Duration::from_secs(1), Traffic::ask(rig.entry)).await.ok()?.ok();
    eventually("a question is answered", Duration::from_secs(3), answer).await;
    measured(&format!("an answer after {} s of sleep", asleep.as_secs()), woken);
    let report = rig.traffic.report();
    assert!(report.told.is_right(), "{report}");
    eventually("both ends of every stream know", SOON, async || {
        let report = rig.traffic.report();
        (report.lost_streams.len() == report.streams).then_some(())
    })
    .await;
}
