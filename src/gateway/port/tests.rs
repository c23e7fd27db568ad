//! What a session's attendant notices by itself. Refuses to know TLS and greetings.

use super::*;
use crate::base::id::InstanceId;
use crate::base::tasks::Tasks;
use crate::gateway::fixture::{Agent, gateway, process};
use crate::pki::identity::Serial;
use crate::tunnel::fixture::{Rows, hello};
use crate::tunnel::session::greet;

/// A gateway, and those who attend to the sessions of `acme/dc1/a`.
struct Site {
    gateway: Arc<Gateway>,
    rows: Rows,
    tasks: Tasks,
}

fn site() -> Site {
    let (gateway, rows, tasks) = gateway();
    Site { gateway, rows, tasks }
}

impl Site {
    /// A session of this process begins.
    async fn joins(&self, instance: InstanceId) -> Agent {
        let (agent, mut session) = process("a", &["db"], instance).await;
        let (gateway, live) = (self.gateway.clone(), agent.live.clone());
        let share = gateway.held.take(&live.agent);
        gateway.registry.add(live.clone());
        self.tasks.spawn(async move {
            let _held = (Entered(&gateway, &live), share);
            attend(&gateway, &live, &mut session).await
        });
        agent
    }

    /// The rows of so many seconds, but for those that come every minute.
    async fn within(&mut self, seconds: u64) -> Vec<String> {
        let mut rows = self.all_within(seconds).await;
        rows.retain(|row| row != "reauthorised");
        rows
    }

    async fn all_within(&mut self, seconds: u64) -> Vec<String> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.rows.take()
    }

    /// Who holds several of which identity, as status and metrics tell.
    fn duplicates(&self) -> Vec<(String, usize)> {
        let duplicates = self.gateway.registry.duplicates();
        duplicates.iter().map(|(agent, holders)| (agent.to_string(), holders.len())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn s5_two_processes_of_one_identity_are_told_of_once_and_until_one_ends() {
    let mut site = site();
    let first = site.joins(InstanceId::fresh()).await;
    assert!(site.within(60).await.is_empty());
    let second = site.joins(InstanceId::fresh()).await;
    assert!(site.within(9).await.is_empty() && site.duplicates().is_empty());
    assert_eq!(site.within(2).await, ["duplicate_identity"]);
    assert_eq!(site.duplicates(), [("acme/dc1/a".to_owned(), 2)]);
    assert!(site.within(60).await.is_empty(), "it is told once");
    let third = site.joins(InstanceId::fresh()).await;
    assert_eq!(site.within(11).await, ["duplicate_identity"], "another process is news");
    assert_eq!(site.duplicates(), [("acme/dc1/a".to_owned(), 3)]);
    for clone in [&first, &third] {
        clone.session.link.close();
    }
    assert!(site.within(1).await.is_empty() && site.duplicates().is_empty());
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn s5_a_second_way_a_restart_and_a_handover_are_no_duplicates() {
    let mut site = site();
    let here = InstanceId::fresh();
    let sessions = [site.joins(here).await, site.joins(here).await];
    assert!(site.within(60).await.is_empty());
    // What is left of the process before lingers for a while.
    let restarted = site.joins(InstanceId::fresh()).await;
    assert!(site.within(9).await.is_empty());
    for session in &sessions {
        session.session.link.close();
    }
    assert!(site.within(60).await.is_empty());
    // One that takes no new streams has handed over.
    restarted.session.notifier.tell(Notice::Drain { deadline: Duration::from_secs(600) });
    let _next = site.joins(InstanceId::fresh()).await;
    assert!(site.within(60).await.is_empty() && site.duplicates().is_empty());
}

#[tokio::test(start_paused = true)]
async fn s5_a_clone_that_is_between_two_connections_whenever_it_is_due_is_told_of_all_the_same() {
    let mut site = site();
    let first = site.joins(InstanceId::fresh()).await;
    let clone = site.joins(InstanceId::fresh()).await;
    clone.resumable();
    let mut rows = Vec::new();
    tokio::time::sleep(DUPLICATE_AFTER - Duration::from_millis(500)).await;
    for _ in 0..60 {
        clone.breaks();
        tokio::time::sleep(Duration::from_secs(1)).await;
        clone.resumes();
        rows.extend(site.within(9).await);
    }
    assert_eq!(rows, ["duplicate_identity"]);
    drop(first);
}

/// What an agent of that role would show.
fn shown(io: Box<dyn Io>, role: &str) -> Shown {
    let identity = Identity {
        role: Role::parse(role).unwrap(),
        serial: crate::pki::identity::Serial::random().unwrap(),
        not_before: time::OffsetDateTime::UNIX_EPOCH,
        not_after: time::OffsetDateTime::now_utc() + time::Duration::days(30),
    };
    Shown { io, identity, exporter: [9; 32], peer: "192.0.2.1:1".parse().unwrap() }
}

#[tokio::test]
async fn s1_behind_tls_an_agent_begins_a_session_and_nobody_else() {
    let mut site = site();
    for role in ["tenant/acme/group/dc1/agent/a", "gateway/gw"] {
        let (theirs, ours) = tokio::io::duplex(64 * 1024);
        let taken = take(&site.gateway, shown(Box::new(ours), &format!("spiffe://test.example/{role}")));
        let upgraded = upgrade::client(Box::new(theirs), &"wss://gw.example".parse().unwrap(), None).await;
        if role.starts_with("gateway") {
            assert!(upgraded.is_err());
        } else {
            let (_, session) = greet(upgraded.unwrap(), hello(&["db"]), &site.tasks).await.unwrap();
            assert_eq!(site.gateway.registry.sessions().len(), 1);
            session.link.close();
        }
        taken.await.unwrap();
        assert!(site.gateway.registry.sessions().is_empty());
    }
    assert_eq!(site.rows.take(), ["connected", "disconnected stopping", "connect_refused certificate_refused"]);
}

#[tokio::test(start_paused = true)]
async fn f50_a_session_whose_ids_run_out_serves_until_the_agent_has_another() {
    let mut site = site();
    let mut agent = site.joins(InstanceId::fresh()).await;
    let open = async |live: &Arc<Live>| live.lanes.open().await.map(drop);
    open(&agent.live).await.unwrap();
    assert!(site.within(60).await.is_empty());
    agent.live.link.wear();
    open(&agent.live).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(1), agent.session.notices.recv()).await;
    let Ok(Some(Notice::Drain { deadline })) = told else { panic!("{told:?}") };
    // There are ids for more than a minute yet.
    for _ in 0..100 {
        open(&agent.live).await.unwrap();
    }
    assert!(agent.live.usable(), "requests are served meanwhile");
    agent.session.notifier.tell(Notice::Drain { deadline });
    let understood = tokio::time::timeout(Duration::from_secs(1), agent.session.notices.recv()).await;
    assert!(matches!(understood, Ok(Some(Notice::Drain { .. }))), "{understood:?}: it is asked for once");
    assert!(agent.live.draining());
}

#[tokio::test]
async fn d1_a_source_is_one_whatever_it_calls_itself() {
    let Site { gateway, .. } = site();
    let port = Port(gateway);
    let source = |ip: &str| Service::<TcpStream, SocketAddr>::source(&port, &SocketAddr::new(ip.parse().unwrap(), 1));
    assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
    assert_eq!(source("2001:db8::1"), source("2001:db8:0:ffff::2"));
    assert!(source("192.0.2.1") != source("192.0.2.2") && source("2001:db8::1") != source("2001:db8:1::1"));
}

#[tokio::test(start_paused = true)]
async fn s0_10_a_session_is_reauthorised_every_minute_on_record() {
    let mut site = site();
    let agent = site.joins(InstanceId::fresh()).await;
    assert_eq!(site.all_within(181).await, ["reauthorised"; 3]);
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn s0_10_what_any_lane_has_shown_ends_the_session_when_it_counts_no_more() {
    let site = site();
    let (gateway, lane) = (site.gateway.clone(), Serial::random().unwrap());
    let hour = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    let agent = site.joins(InstanceId::fresh()).await;
    agent.live.certificates().shown(1, Certificate { serial: lane, not_after: hour });
    gateway.revocations.publish([Serial::random().unwrap()].into());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!agent.live.link.has_ended(), "another's");
    gateway.revocations.publish([lane].into());
    assert_eq!(agent.live.link.ended().await.code, Code::Revoked);
    assert_eq!(agent.live.lanes.lost(Code::SessionLost), Code::Revoked, "its streams learn why");
}

#[tokio::test(start_paused = true)]
async fn f16_a_long_sleep_breaks_every_session() {
    let site = site();
    let agent = site.joins(InstanceId::fresh()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.gateway.wakes.tell(Duration::from_secs(60));
    let ended = tokio::time::timeout(Duration::from_secs(2), agent.live.link.ended());
    assert_eq!(ended.await.unwrap().code, Code::LinkDead);
}
