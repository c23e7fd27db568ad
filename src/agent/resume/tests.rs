//! How an agent takes lanes up at gateways of all kinds. Refuses to know TLS and streams.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::agent::Agent;
use crate::agent::acceptor::Acceptor;
use crate::agent::connector::Origin;
use crate::agent::fixture::{policy, settings};
use crate::agent::link::tests::grounds;
use crate::agent::reach::{Reach, Reaching, Secured};
use crate::base::drain::Drain;
use crate::base::endpoint::Endpoint;
use crate::base::id::SessionId;
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::pki::identity::Role;
use crate::tunnel::fixture::{audit, pipes, sessions};
use crate::tunnel::mux::Side;
use crate::tunnel::upgrade;

const WINDOW: Duration = Duration::from_secs(30);

/// Attempts after which a test has seen enough.
const MANY: usize = 10_000;

/// A gateway that answers every attempt so; when it takes a lane up, the connection ends at once.
struct Answers {
    answer: Result<(), Code>,
    dialled: Arc<AtomicUsize>,
    tasks: Tasks,
}

fn gateway() -> Role {
    Role::parse("spiffe://test.example/gateway/gw").unwrap()
}

impl Reach for Answers {
    fn proxy(&self, _: &Endpoint) -> Result<Option<HostPort>, Failure> {
        Ok(None)
    }

    fn secure<'a>(&'a self, _: &'a HostPort, _: &'a Endpoint) -> Reaching<'a> {
        Box::pin(async move {
            if self.dialled.fetch_add(1, Ordering::Relaxed) > MANY {
                std::future::pending::<()>().await;
            }
            let (theirs, ours) = tokio::io::duplex(4096);
            let answer = self.answer;
            let instance = InstanceId::fresh();
            self.tasks.spawn(async move {
                let refused = |code| Failure::new(code, "as the test wants it");
                let _ = upgrade::server(Box::new(ours), instance, |_| answer.map(|()| ((), Some(0))).map_err(refused)).await;
            });
            let grounds = Grounds::clone(&grounds().load());
            Ok(Secured { io: Box::new(theirs), gateway: gateway(), exporter: [9; 32], address: None, grounds })
        })
    }
}

/// An agent with a lane that breaks, at such a gateway.
struct Site {
    lane: Lane,
    dialled: Arc<AtomicUsize>,
    tasks: Tasks,
}

async fn site(answer: Result<(), Code>) -> Site {
    let (tasks, dialled) = (Tasks::new(), Arc::default());
    let reach = Answers { answer, dialled: Arc::clone(&dialled), tasks: tasks.clone() };
    let (settings, audit) = (settings(9), audit().0);
    let agent = Agent::with(settings, policy(&[]), audit, Drain::new(), tasks.clone(), Box::new(reach), Box::new(Acceptor));
    let connector = Connector {
        agent,
        endpoint: "wss://203.0.113.1".parse().unwrap(),
        origin: Origin { gateway: gateway(), address: None },
        session: SessionId::fresh(),
        instance: InstanceId::fresh(),
        secret: Secret::new("c2VjcmV0"),
        grounds: grounds(),
        direct_address: None,
        pace: Arc::new(Pace::new()),
    };
    let (session, ..) = sessions(&[]).await;
    let (theirs, ours) = pipes();
    let (lane, _) = session.lanes.next_seat().unwrap().attach(theirs, Side::Agent, &tasks);
    lane.link().resumable(WINDOW);
    tasks.spawn(keep(Arc::new(connector), lane.clone(), CancellationToken::new()));
    drop(ours);
    Site { lane, dialled, tasks }
}

impl Site {
    async fn dialled_within(&self, seconds: u64) -> u32 {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        u32::try_from(self.dialled.swap(0, Ordering::Relaxed)).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn d3_a_gateway_that_takes_a_lane_up_only_to_break_it_is_dialled_at_a_pace() {
    let site = site(Ok(())).await;
    let at_once = site.dialled_within(1).await;
    assert!((RESUME_DIALS_AT_ONCE..RESUME_DIALS_AT_ONCE + 10).contains(&at_once), "{at_once}");
    for _ in 0..3 {
        let in_a_minute = site.dialled_within(60).await;
        assert!(in_a_minute.abs_diff(RESUME_DIALS_PER_MINUTE) < 10, "{in_a_minute}");
    }
    assert!(!site.lane.link().has_ended(), "an unlucky one goes on all the same");
    site.tasks.abort().await;
}

#[tokio::test(start_paused = true)]
async fn s0_10_a_lane_whose_agent_may_no_longer_come_is_over_at_once() {
    for code in [Code::NotHere, Code::LaneRefused, Code::AgentDisabled, Code::Revoked, Code::CertificateRefused] {
        let site = site(Err(code)).await;
        let ended = tokio::time::timeout(Duration::from_secs(1), site.lane.link().ended()).await;
        assert_eq!(ended.expect("it waits for its window").code, code);
        assert_eq!(site.dialled_within(60).await, 1);
    }
    for code in [Code::Stopping, Code::SessionLanes] {
        let site = site(Err(code)).await;
        assert_eq!(site.lane.link().ended().await.code, Code::ResumeExpired, "{code}");
        assert!(site.dialled_within(0).await > 10);
    }
}

#[test]
fn a_session_that_its_own_gateway_gave_up_has_expired_and_one_that_another_never_had_has_not() {
    let holder = InstanceId::fresh();
    let code = |code, instance| match missed(Refused { failure: Failure::new(code, "x"), instance }, holder) {
        Miss::Refused(failure) => Some(failure.code),
        Miss::Elsewhere(_) | Miss::Failed(_) => None,
    };
    assert_eq!(code(Code::NotHere, Some(holder)), Some(Code::ResumeExpired));
    assert_eq!(code(Code::NotHere, Some(InstanceId::fresh())), Some(Code::NotHere), "it was restarted");
    assert_eq!(code(Code::NotHere, None), Some(Code::NotHere), "it does not say");
    assert_eq!(code(Code::LaneRefused, Some(holder)), Some(Code::LaneRefused));
    assert_eq!(code(Code::Stopping, Some(holder)), None, "worth another attempt");
}

#[tokio::test]
async fn the_log_is_told_of_the_first_attempt_that_fails_and_then_every_ten_seconds() {
    let (connector, _tasks) = crate::agent::connector::tests::connector(&[], None, None);
    let mut shown = Shown { connector: &connector, lane: 0, told: None };
    let start = Instant::now();
    let told = (0..30).filter(|second| shown.is_told(start + Duration::from_secs(*second)));
    assert_eq!(told.collect::<Vec<_>>(), [0, 10, 20]);
}
