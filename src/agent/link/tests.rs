//! A session's life at an agent, and a link without one. Refuses to know TLS and what streams carry.

use tokio::io::AsyncWriteExt;

use super::*;
use crate::agent::fixture::{agent, policy, spec};
use crate::pki::identity::{Role, Serial};
use crate::tunnel::fixture::{Rows, hello as greeting, sessions, welcomed};
use crate::tunnel::session::Session;

const ENDPOINT: &str = "wss://gw.example";

fn endpoint() -> Endpoint {
    ENDPOINT.parse().unwrap()
}

fn origin() -> Origin {
    Origin { gateway: Role::parse("spiffe://test.example/gateway/gw").unwrap(), address: None }
}

/// Of certificates that end in an hour.
pub(in crate::agent) fn grounds() -> Arc<ArcSwap<Grounds>> {
    let hour = OffsetDateTime::now_utc() + time::Duration::hours(1);
    let (serial, root) = (Serial::random().unwrap(), vec![0].into());
    Arc::new(ArcSwap::from_pointee(Grounds { serial, not_after: hour, gateway_not_after: hour, root }))
}

/// An agent that serves a session, with the gateway's end in the test's hand.
struct Site {
    agent: Arc<Agent>,
    rows: Rows,
    tasks: Tasks,
    gateway: Session,
    /// Of the gateway's end, and the connection.
    connection: Tasks,
    leave: Leave,
    why: watch::Receiver<Option<Failure>>,
    grounds: Arc<ArcSwap<Grounds>>,
}

async fn site() -> Site {
    let (agent, rows, tasks) = agent(policy(&[("db", spec("127.0.0.1:1", true))]), 9);
    let (session, gateway, connection) = sessions(&["db"]).await;
    let grounds = grounds();
    let held = Held {
        session,
        welcome: welcomed(&greeting(&[]), 1).unwrap(),
        grounds: grounds.clone(),
        origin: origin(),
        pace: Arc::new(Pace::new()),
        tasks: tasks.child(),
    };
    let (leave, why) = (Leave::default(), watch::Sender::new(None));
    let ended = why.subscribe();
    tasks.spawn(serve(agent.clone(), endpoint(), held, leave.clone(), why));
    Site { agent, rows, tasks, gateway, connection, leave, why: ended, grounds }
}

impl Site {
    async fn ended(&mut self) -> Code {
        self.why.wait_for(Option::is_some).await.unwrap().as_ref().unwrap().code
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_fails_waits_longer_each_time_and_ends_with_the_drain() {
    let (agent, _rows, tasks) = agent(policy(&[]), 9);
    agent.start();
    let mut longest = Duration::ZERO;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let link = agent.board().links().remove(0);
        assert_eq!(link.last_error.unwrap().code, "state_missing");
        longest = longest.max(Duration::from_millis(link.next_attempt_ms.unwrap()));
    }
    assert!(longest > RECONNECT_BASE * 4 && longest <= RECONNECT_MAX, "{longest:?}");
    let before = Instant::now();
    agent.drain.begin();
    tasks.join().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_session_that_nobody_serves_is_dismissed_with_its_tasks() {
    let (session, gateway, _connection) = sessions(&[]).await;
    let tasks = Tasks::new();
    // As a greeted session has: a task that lives as long as the session's notifier.
    let alive = session.notifier.clone();
    tasks.spawn(async move {
        std::future::pending::<()>().await;
        drop(alive);
    });
    let (welcome, grounds) = (welcomed(&greeting(&[]), 1).unwrap(), grounds());
    let (origin, pace) = (origin(), Arc::new(Pace::new()));
    let same = Failure::new(Code::SameGateway, "another link has it");
    dismiss(Held { session, welcome, grounds, origin, pace, tasks }, same).await;
    assert_eq!(gateway.link.ended().await.code, Code::SameGateway);
}

#[tokio::test]
async fn f05_a_gateway_that_drains_releases_the_link_and_the_session_ends_with_its_last_stream() {
    let mut site = site().await;
    let drain = Notice::Drain { deadline: Duration::from_secs(9) };
    site.gateway.notifier.tell(drain.clone());
    site.leave.released.cancelled().await;
    // It serves on until there is another session, or can be none.
    let (mut stream, _place) = site.gateway.lanes.open().await.unwrap();
    stream.write_all(b"\0").await.unwrap();
    site.leave.succeeded.cancel();
    assert!(matches!(site.gateway.notices.recv().await, Some(Notice::Drain { .. })));
    drop(stream);
    assert!(site.why.borrow().is_none(), "a stream may still be under way");
    site.gateway.notifier.tell(drain);
    site.ended().await;
    assert_eq!(site.rows.take(), ["connected", "refused open_invalid", "disconnected stopping"]);
    assert_eq!(site.gateway.link.ended().await.code, Code::Stopping);
}

#[tokio::test]
async fn f02_an_agent_that_drains_says_so_and_ends_once_the_gateway_has_understood() {
    let mut site = site().await;
    site.agent.drain.begin();
    assert!(matches!(site.gateway.notices.recv().await, Some(Notice::Drain { .. })));
    assert!(site.why.borrow().is_none(), "a stream may still be under way");
    site.gateway.notifier.tell(Notice::Drain { deadline: Duration::from_secs(9) });
    site.ended().await;
    site.tasks.join().await;
    assert_eq!(site.rows.take(), ["connected", "disconnected stopping"]);
}

#[tokio::test]
async fn a_session_that_breaks_has_its_row_with_the_reason() {
    let mut site = site().await;
    // It says so without a reason.
    site.gateway.link.close_because(Failure::new(Code::LinkDead, "x"));
    assert_eq!(site.ended().await, Code::LinkClosed);
    assert_eq!(site.rows.take(), ["connected", "disconnected link_closed"]);
}

#[tokio::test]
async fn a_session_that_its_gateway_ends_has_its_row_with_what_the_gateway_says() {
    for code in [Code::AgentDisabled, Code::CertificateExpired, Code::Stopping] {
        let mut site = site().await;
        site.gateway.lanes.close_because(&Failure::new(code, "acme/dc1/a"));
        assert_eq!(site.ended().await, code);
        assert_eq!(site.rows.take(), ["connected".to_owned(), format!("disconnected {code}")]);
    }
}

#[tokio::test]
async fn r1_a_session_that_is_cut_with_its_task_has_its_row() {
    let mut site = site().await;
    site.gateway.notifier.tell(Notice::Renew);
    while site.rows.take().is_empty() {
        tokio::task::yield_now().await;
    }
    site.tasks.abort().await;
    assert_eq!(site.rows.take(), ["disconnected stopping"]);
    site.connection.abort().await;
}

#[tokio::test]
async fn a_reload_is_told_to_the_gateway() {
    let mut site = site().await;
    // The task has looked at the policy once it serves.
    while site.rows.take().is_empty() {
        tokio::task::yield_now().await;
    }
    site.agent.reload(policy(&[("web", spec("127.0.0.1:2", true))]));
    let mut changes = Vec::new();
    while changes.len() < 2 {
        match site.gateway.notices.recv().await.unwrap() {
            Notice::TargetsChanged { added, removed } => {
                changes.extend(added.into_iter().map(|offer| format!("+{}", offer.name)));
                changes.extend(removed.into_iter().map(|name| format!("-{name}")));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(changes, ["-db", "+web"]);
}

#[tokio::test(start_paused = true)]
async fn s0_10_a_session_is_reauthorised_every_minute_on_record() {
    let mut site = site().await;
    tokio::time::sleep(Duration::from_secs(181)).await;
    assert_eq!(site.rows.take(), ["connected", "reauthorised", "reauthorised", "reauthorised"]);
    site.agent.reload(policy(&[]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let row = site.rows.next().await;
    assert_eq!((&row["event"], &row["policy"], &row["agent"]), (&"reauthorised".into(), &1.into(), &"acme/dc1/a".into()));
}

#[tokio::test(start_paused = true)]
async fn s0_10_a_certificate_that_has_ended_ends_its_session_within_a_minute() {
    let mut site = site().await;
    let long_ago = OffsetDateTime::now_utc() - time::Duration::hours(1);
    site.grounds.store(Arc::new(Grounds { not_after: long_ago, ..Grounds::clone(&site.grounds.load()) }));
    let before = Instant::now();
    assert_eq!(site.ended().await, Code::CertificateExpired);
    assert!(before.elapsed() <= REAUTHORISE + Duration::from_secs(1));
    assert_eq!(site.rows.take(), ["connected", "disconnected certificate_expired"]);
}

#[tokio::test(start_paused = true)]
async fn a_gateways_certificate_that_has_ended_releases_the_link_before_it_ends_the_session() {
    let site = site().await;
    let just_now = OffsetDateTime::now_utc() - time::Duration::seconds(1);
    site.grounds.store(Arc::new(Grounds { gateway_not_after: just_now, ..Grounds::clone(&site.grounds.load()) }));
    site.leave.released.cancelled().await;
}

#[tokio::test(start_paused = true)]
async fn f16_on_waking_a_link_that_waits_dials_at_once() {
    let (agent, _rows, tasks) = agent(policy(&[]), 9);
    tasks.spawn(keep(agent.clone(), endpoint()));
    let next = || Duration::from_millis(agent.board().links()[0].next_attempt_ms.unwrap_or_default());
    while next() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    agent.wakes.tell(Duration::from_secs(3600));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(next() <= RECONNECT_BASE, "dialled, and waits as after a first failure: {:?}", next());
    tasks.abort().await;
}

#[tokio::test(start_paused = true)]
async fn f16_a_long_sleep_breaks_a_session_and_a_short_one_does_not() {
    let mut site = site().await;
    while site.rows.take().is_empty() {
        tokio::task::yield_now().await;
    }
    site.agent.wakes.tell(Duration::from_secs(3));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(site.why.borrow().is_none(), "its gateway waits for longer");
    site.agent.wakes.tell(Duration::from_secs(5));
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), site.ended()).await, Ok(Code::LinkDead));
}
