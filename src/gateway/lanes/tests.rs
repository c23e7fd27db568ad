//! Who may join which session, and a lane's life at the gateway. Refuses to know TLS.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::base::id::SessionId;
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::gateway::fixture::{Agent, agent, certificate, gateway, gateway_with, settings};
use crate::observe::audit::{Audit, AuditSettings, OnFull};
use crate::tunnel::fixture::{Rows, half, pipes};
use crate::wire::resume::Claim;

const EXPORTER: Exporter = [9; 32];

/// A gateway with one session of `acme/dc1/a`.
struct Site {
    gateway: Arc<Gateway>,
    rows: Rows,
    agent: Agent,
}

async fn site() -> Site {
    let (gateway, rows, _) = gateway();
    let agent = agent("a", &["db"]).await;
    gateway.registry.add(agent.live.clone());
    Site { gateway, rows, agent }
}

impl Site {
    fn claim(&self, lane: u32) -> Claim {
        Claim::new_lane(self.agent.live.session, lane)
    }

    fn admit(&self, agent: &str, claim: Claim, secret: &str) -> Result<Joining, Code> {
        let resume = claim.prove(&Secret::new(secret), &EXPORTER);
        let admitted = admit(&self.gateway, &agent.parse().unwrap(), &resume, &EXPORTER);
        admitted.map(|(joining, _)| joining).map_err(|failure| failure.code)
    }
}

const SECRET: &str = "c2VjcmV0";

#[tokio::test]
async fn s1_a_lane_needs_its_session_its_agent_its_secret_and_a_new_number() {
    let site = site().await;
    let code = |agent: &str, claim: Claim, secret: &str| site.admit(agent, claim, secret).err();
    let other = Claim { session: SessionId::fresh(), ..site.claim(1) };
    assert_eq!(code("acme/dc1/a", other, SECRET), Some(Code::NotHere));
    assert_eq!(code("acme/dc1/b", site.claim(1), SECRET), Some(Code::LaneRefused));
    assert_eq!(code("evil/dc1/a", site.claim(1), SECRET), Some(Code::NotHere), "no word to other tenants");
    assert_eq!(code("acme/dc1/a", site.claim(1), "guessed"), Some(Code::LaneRefused));
    assert_eq!(code("acme/dc1/a", Claim { generation: 1, ..site.claim(1) }, SECRET), Some(Code::LaneRefused));
    let joining = site.admit("acme/dc1/a", site.claim(1), SECRET).unwrap();
    assert_eq!(code("acme/dc1/a", site.claim(1), SECRET), Some(Code::LaneRefused), "the same once more");
    drop(joining);
    assert_eq!(code("acme/dc1/a", site.claim(1), SECRET), Some(Code::LaneRefused), "nor later");
    site.agent.live.drain();
    assert_eq!(code("acme/dc1/a", site.claim(2), SECRET), Some(Code::SessionLanes));
    site.gateway.registry.remove(&site.agent.live);
    assert_eq!(code("acme/dc1/a", site.claim(3), SECRET), Some(Code::NotHere));
}

#[tokio::test]
async fn d3_what_an_agent_tries_in_a_minute_is_limited_and_hurts_no_other() {
    let site = site().await;
    let tries = LANES_PER_MINUTE + 5;
    let refused = (0..tries).filter_map(|_| site.admit("acme/dc1/a", site.claim(1), "guessed").err());
    let limited = refused.filter(|code| *code == Code::SessionLanes).count();
    assert!((1..=5).contains(&limited), "{limited}");
    assert_eq!(site.admit("acme/dc1/b", site.claim(1), "guessed").err(), Some(Code::LaneRefused));
    // Attempts to take lanes up are counted by themselves.
    let again = Claim { generation: 1, ..site.claim(0) };
    let refused = (0..RESUMES_PER_MINUTE + 5).filter_map(|_| site.admit("acme/dc1/a", again, "guessed").err());
    let limited = refused.filter(|code| *code == Code::SessionLanes).count();
    assert!((1..=5).contains(&limited), "{limited}");
    assert_eq!(site.admit("acme/dc1/b", again, "guessed").err(), Some(Code::LaneRefused));
}

/// How a lane ends of which the test says what becomes of it.
async fn ended(how: impl AsyncFnOnce(&Site, &crate::tunnel::fixture::Half)) -> Vec<String> {
    let mut site = site().await;
    let joining = site.admit("acme/dc1/a", site.claim(1), SECRET).unwrap();
    let (theirs, ours) = pipes();
    let theirs = half(theirs, Side::Agent);
    let (gateway, peer) = (site.gateway.clone(), "192.0.2.1:2".parse().unwrap());
    let live = site.agent.live.clone();
    let life = async {
        serve(&gateway, joining, ours, certificate(), peer).await;
        assert_eq!(live.lanes.count(), 1, "it is forgotten");
    };
    tokio::join!(life, how(&site, &theirs));
    theirs.link.ended().await;
    site.rows.take()
}

#[tokio::test(start_paused = true)]
async fn a_lanes_life_is_in_the_audit_however_it_ends() {
    let cut = ended(async |_, theirs| {
        // Its task has begun.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        theirs.tasks.abort().await;
    });
    let cut = cut.await;
    assert_eq!(cut, ["lane_opened", "lane_closed link_closed"]);
    let closed = ended(async |_, theirs| theirs.link.close()).await;
    assert_eq!(closed, ["lane_opened", "lane_closed"]);
    let disabled = Failure::new(Code::AgentDisabled, "acme/dc1/a");
    let disabled = ended(async |site, _| site.agent.live.lanes.close_because(&disabled)).await;
    assert_eq!(disabled, ["lane_opened", "lane_closed agent_disabled"]);
    let idle = ended(async |_, _| {}).await;
    assert_eq!(idle, ["lane_opened", "lane_closed"], "after a minute without a stream");
    let session = ended(async |site, _| site.agent.session.link.close()).await;
    assert_eq!(session, ["lane_opened", "lane_closed"]);
}

#[tokio::test]
async fn t1_a_stream_that_the_agent_opens_on_a_lane_is_reset() {
    let rows = ended(async |_, theirs| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = theirs.opener.open().await.unwrap();
        stream.write_all(b"let me in").await.unwrap();
        assert!(stream.read(&mut [0; 1]).await.is_err());
        theirs.link.close();
    })
    .await;
    assert_eq!(rows, ["lane_opened", "lane_closed"]);
}

/// The agent takes its first lane up again, and the gateway serves that connection for as long as it has something to do for it.
async fn takes_up(gateway: &Gateway, agent: &Agent) {
    let (claim, ours, theirs) = agent.attempt();
    let resume = claim.prove(&Secret::new(SECRET), &EXPORTER);
    let (joining, received) = admit(gateway, &agent.live.agent, &resume, &EXPORTER).unwrap();
    agent.goes_on(claim, theirs, received.unwrap());
    serve(gateway, joining, ours, certificate(), "192.0.2.1:2".parse().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_a_lane_up_leaves_its_place_to_others_while_the_lane_goes_on() {
    let site = site().await;
    site.agent.resumable();
    for _ in 0..3 {
        let served = timeout(Duration::from_secs(60), takes_up(&site.gateway, &site.agent));
        assert!(served.await.is_ok(), "it holds a place of the listener's");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(site.agent.live.usable() && !site.agent.session.link.is_paused(), "the lane has that connection");
    }
}

#[tokio::test]
async fn d8_an_agent_that_resumes_without_end_has_few_rows() {
    let dir = tempfile::tempdir().unwrap();
    let settings_of = AuditSettings { dir: dir.path().join("audit"), max_size: 1 << 20, on_full: OnFull::Refuse };
    let gateway = gateway_with(settings(), Audit::open(&settings_of).unwrap(), &Tasks::new());
    let agent = agent("a", &["db"]).await;
    gateway.registry.add(agent.live.clone());
    agent.resumable();
    for _ in 0..200 {
        takes_up(&gateway, &agent).await;
    }
    let rows = std::fs::read_to_string(dir.path().join("audit/audit.jsonl")).unwrap();
    let count = |event: &str| rows.lines().filter(|row| row.contains(&format!("\"event\":\"{event}\""))).count();
    assert_eq!((count("lane_resumed"), count("reauthorised")), (30, 30));
}

#[tokio::test(start_paused = true)]
async fn s0_10_a_further_lane_whose_certificate_was_revoked_meanwhile_ends_its_session() {
    let site = site().await;
    let joining = site.admit("acme/dc1/a", site.claim(1), SECRET).unwrap();
    let shown = certificate();
    site.gateway.revocations.publish([shown.serial].into());
    let (theirs, ours) = pipes();
    let _theirs = half(theirs, Side::Agent);
    let peer = "192.0.2.1:2".parse().unwrap();
    let _ = timeout(Duration::from_secs(10), serve(&site.gateway, joining, ours, shown, peer)).await;
    let ended = timeout(Duration::from_secs(10), site.agent.live.link.ended()).await;
    assert_eq!(ended.expect("the session goes on").code, Code::Revoked);
}
