//! How often further lanes are dialled, and what becomes of their streams. Refuses to know TLS.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::agent::connector::tests::connector;
use crate::agent::fixture::{agent, policy, spec};
use crate::tunnel::fixture::{half, pipes, sessions};
use crate::tunnel::session::Session;

/// A session's further lanes, of `wss://gw.example` that resolves to nothing.
async fn further() -> (Further, Session) {
    let (connector, tasks) = connector(&[], None, None);
    let (session, gateway, _) = sessions(&[]).await;
    let (notifier, lanes) = (session.notifier.clone(), session.lanes.clone());
    let further = Further { connector, notifier, lanes, streams: tasks.child(), serving: tasks.child() };
    (further, gateway)
}

/// How many attempts a gateway causes that asks for a lane each second, three minutes long, if they end so.
async fn attempts(outcome: Result<(), Code>) -> usize {
    let (session, _gateway, _tasks) = sessions(&[]).await;
    let wanted = watch::Sender::new(1);
    let dialled = AtomicUsize::new(0);
    let following = follow(wanted.subscribe(), &session.lanes, |_| {
        dialled.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            outcome.map_err(|code| Failure::new(code, "as the test wants it"))
        }
    });
    let asking = async {
        for _ in 0..180 {
            wanted.send_replace(4);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = following => {}
        () = asking => {}
    }
    assert!(!session.link.has_ended(), "the session has not noticed");
    dialled.into_inner()
}

#[tokio::test(start_paused = true)]
async fn d3_three_misses_are_enough_for_a_minute_however_often_the_gateway_asks() {
    assert_eq!(attempts(Err(Code::NotHere)).await, 3 * LANE_MISSES);
    assert_eq!(attempts(Err(Code::SessionLanes)).await, 3, "another address would not help");
    assert_eq!(attempts(Err(Code::LaneRefused)).await, 3);
}

#[tokio::test(start_paused = true)]
async fn d3_a_gateway_that_takes_lanes_and_closes_them_gets_no_more_than_its_share() {
    // What was dialled is gone at once: the session has one lane whenever it is looked at.
    let attempts = attempts(Ok(())).await;
    assert!((LANE_DIALS_PER_MINUTE..=4 * LANE_DIALS_PER_MINUTE).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_or_drains_asks_for_nothing_more() {
    let (further, ..) = further().await;
    let (released, tasks) = (CancellationToken::new(), Tasks::new());
    let wanted = watch::Sender::new(1);
    let keeping = tasks.spawn(keep(further, wanted.subscribe(), released.clone()));
    wanted.send_replace(2);
    // It fails: there is no identity on the disk.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!keeping.is_finished());
    released.cancel();
    keeping.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn d3_a_minutes_attempts_are_bounded_also_when_they_succeed() {
    let mut budget = Budget::default();
    let taken = |budget: &mut Budget| (0..100).filter(|_| budget.take(Instant::now())).count();
    assert_eq!(taken(&mut budget), LANE_DIALS_PER_MINUTE);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(taken(&mut budget), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(taken(&mut budget), LANE_DIALS_PER_MINUTE);
    assert!(budget.0.len() <= LANE_DIALS_PER_MINUTE);
}

#[tokio::test]
async fn a_lanes_streams_are_served_and_end_with_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (agent, mut rows, tasks) = agent(policy(&[("db", spec("127.0.0.1:1", true))]), 9);
    let (mut further, _gateway) = further().await;
    Arc::get_mut(&mut further.connector).unwrap().agent = agent.clone();
    let seat = further.lanes.next_seat().unwrap();
    let (ours, theirs) = pipes();
    let (lane, incoming) = seat.attach(ours, Side::Agent, &tasks);
    let context = Arc::new(Context {
        agent,
        session: further.connector.session,
        notifier: further.notifier.clone(),
        lane,
        lanes: further.lanes.clone(),
    });
    let (lanes, streams) = (further.lanes.clone(), further.streams.clone());
    let life = tasks.spawn(serve(Arc::new(further), context, seat, incoming, "203.0.113.1:443".to_owned()));
    let gateway = half(theirs, Side::Gateway);
    let mut stream = gateway.opener.open().await.unwrap();
    stream.write_all(&[1, 0]).await.unwrap();
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).await.unwrap();
    // One that waits for the rest of its opening.
    let mut waiting = gateway.opener.open().await.unwrap();
    waiting.write_all(&[9]).await.unwrap();
    while streams.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(lanes.count(), 2);
    gateway.link.close();
    life.await.unwrap();
    streams.join().await;
    assert_eq!(lanes.count(), 1);
    let rows = rows.take();
    assert_eq!((rows.first().unwrap().as_str(), rows.last().unwrap().as_str()), ("lane_opened", "lane_closed"));
    assert!(rows.contains(&"refused open_invalid".to_owned()), "{rows:?}");
}
