//! One stream at an agent, against real targets on loopback, with the gateway's end of its session in the test's hand.
//! Refuses to know TLS and links.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::agent::fixture::{agent, open, policy, spec};
use crate::agent::policy::Policy;
use crate::base::limits::{CANARY_DEADLINE, ECHOES};
use crate::base::tasks::Tasks;
use crate::tunnel::fixture::{Rows, sessions};
use crate::tunnel::session::Session;
use crate::wire::open::ECHO;

/// An agent that serves one session, with the gateway's end in the test's hand.
struct Site {
    agent: Arc<Agent>,
    rows: Rows,
    gateway: Session,
    /// Of both ends' sessions.
    session: Tasks,
    streams: Tasks,
}

impl Site {
    async fn new(policy: Policy, max_streams: usize) -> Self {
        let (agent, rows, _) = agent(policy, max_streams);
        let (mut theirs, gateway, session) = sessions(&[]).await;
        let (notifier, lanes) = (theirs.notifier.clone(), theirs.lanes.clone());
        let lane = lanes.first().clone();
        let context = Arc::new(Context { agent: agent.clone(), session: SessionId::fresh(), notifier, lane, lanes });
        let streams = Tasks::new();
        let spawner = streams.clone();
        session.spawn(async move {
            while let Some(stream) = theirs.incoming.accept().await {
                spawner.spawn(serve(context.clone(), stream));
            }
        });
        Self { agent, rows, gateway, session, streams }
    }

    /// With one target `db` at this address.
    async fn with(address: &str) -> Self {
        Self::new(policy(&[("db", spec(address, true))]), 9).await
    }

    async fn asks(&self, open: &Open) -> (Wired<Stream>, Reply) {
        let mut wired = Wired::new(self.gateway.lanes.open().await.unwrap().0);
        wired.send(open).await.unwrap();
        let reply = wired.receive().await.unwrap().unwrap();
        (wired, reply)
    }

    async fn refused(&self, open: &Open) -> Code {
        match self.asks(open).await.1 {
            Reply::Refused(refusal) => refusal.code,
            Reply::Accepted => panic!("accepted"),
        }
    }

    async fn quiet(&mut self) -> Vec<String> {
        self.streams.join().await;
        self.rows.take()
    }
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    (listener, at)
}

async fn closed_port() -> String {
    listener().await.1
}

/// An open stream, and the target's end of it.
async fn opened() -> (Site, Stream, TcpStream) {
    let (listener, at) = listener().await;
    let mut site = Site::with(&at).await;
    let (wired, reply) = site.asks(&open("db")).await;
    assert_eq!(reply, Reply::Accepted);
    let target = listener.accept().await.unwrap().0;
    assert_eq!(site.rows.take(), ["opened"]);
    (site, wired.into_parts().0, target)
}

async fn is_reset(target: &mut TcpStream) {
    let read = target.read(&mut [0; 16]).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bytes_before_the_reply_reach_the_target_after_it_and_the_end_is_orderly() {
    let (listener, at) = listener().await;
    let mut site = Site::with(&at).await;
    let mut wired = Wired::new(site.gateway.lanes.open().await.unwrap().0);
    wired.send(&open("db")).await.unwrap();
    let (mut stream, _) = wired.into_parts();
    stream.write_all(b"early").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut target = listener.accept().await.unwrap().0;
    let mut up = Vec::new();
    target.read_to_end(&mut up).await.unwrap();
    assert_eq!(up, b"early");
    target.write_all(b"answer").await.unwrap();
    drop(target);
    let mut wired = Wired::new(stream);
    assert_eq!(wired.receive().await, Ok(Some(Reply::Accepted)));
    let (mut stream, first) = wired.into_parts();
    let mut down = first.to_vec();
    stream.read_to_end(&mut down).await.unwrap();
    assert_eq!(down, b"answer");
    assert_eq!(site.quiet().await, ["opened", "closed"]);
}

#[tokio::test]
async fn every_refusal_says_why_and_has_one_row() {
    let mut site = Site::with(&closed_port().await).await;
    assert_eq!(site.refused(&open("other")).await, Code::TargetUnknown);
    assert_eq!(site.refused(&open("db")).await, Code::TargetRefused);
    let spoken = crate::wire::open::Spoken::Http;
    assert_eq!(site.refused(&Open { spoken, ..open("db") }).await, Code::TargetKindMismatch);
    assert_eq!(site.quiet().await, ["refused target_unknown", "refused target_refused", "refused target_kind_mismatch"]);
}

#[tokio::test]
async fn e1_a_gateway_cannot_have_what_the_configuration_forbids() {
    let site = Site::new(policy(&[("meta", spec("169.254.169.254:80", true)), ("own", spec("127.0.0.1:80", false))]), 9).await;
    assert_eq!(site.refused(&open("meta")).await, Code::AddressForbidden);
    assert_eq!(site.refused(&open("own")).await, Code::LoopbackForbidden);
}

#[tokio::test]
async fn f02_an_agent_that_shuts_down_refuses_so_that_another_is_tried() {
    let site = Site::with(&closed_port().await).await;
    site.agent.drain.begin();
    let code = site.refused(&open("db")).await;
    assert_eq!(code, Code::AgentDraining);
    assert!(code.elsewhere());
}

#[tokio::test]
async fn the_agents_streams_are_counted_over_all_targets() {
    let (_listener, at) = listener().await;
    let site = Site::new(policy(&[("a", spec(&at, true)), ("b", spec(&at, true))]), 1).await;
    let (held, reply) = site.asks(&open("a")).await;
    assert_eq!((reply, site.agent.streams()), (Reply::Accepted, 1));
    assert_eq!(site.refused(&open("b")).await, Code::AgentStreams);
    drop(held);
    while site.agent.streams() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(site.asks(&open("b")).await.1, Reply::Accepted);
}

async fn answer_to(bytes: &[u8]) -> Reply {
    let site = Site::with(&closed_port().await).await;
    let mut stream = site.gateway.lanes.open().await.unwrap().0;
    stream.write_all(bytes).await.unwrap();
    Wired::new(stream).receive().await.unwrap().unwrap()
}

#[tokio::test]
async fn t1_an_open_that_is_none_is_refused_by_name() {
    for bytes in [&[0xff; 64][..], &[0x81, 0x80, 0x01], &[0], &[2, 0x10, 1]] {
        let Reply::Refused(refusal) = answer_to(bytes).await else { panic!("accepted {bytes:?}") };
        assert_eq!(refusal.code, Code::OpenInvalid, "{bytes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_that_does_not_come_to_its_end_is_refused_at_the_deadline() {
    let before = Instant::now();
    // Nine bytes were announced.
    let Reply::Refused(refusal) = answer_to(&[9, 0x0a]).await else { panic!("accepted") };
    assert_eq!((refusal.code, before.elapsed().as_secs()), (Code::OpenInvalid, OPEN_DEADLINE.as_secs()));
}

#[tokio::test]
async fn f44_a_reload_that_takes_the_target_away_resets_its_streams_alone() {
    let (listener, at) = listener().await;
    let mut site = Site::new(policy(&[("gone", spec(&at, true)), ("kept", spec(&at, true))]), 9).await;
    let (gone, _) = site.asks(&open("gone")).await;
    let mut gone_target = listener.accept().await.unwrap().0;
    let (kept, _) = site.asks(&open("kept")).await;
    let mut kept_target = listener.accept().await.unwrap().0;
    site.agent.reload(policy(&[("kept", spec(&at, true))]));
    is_reset(&mut gone_target).await;
    let (mut gone, mut kept) = (gone.into_parts().0, kept.into_parts().0);
    assert_eq!(gone.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    kept.write_all(b"on").await.unwrap();
    assert_eq!(kept_target.read(&mut [0; 2]).await.unwrap(), 2);
    drop(kept);
    assert_eq!(site.quiet().await, ["opened", "opened", "closed target_removed", "closed client_reset"]);
    assert_eq!(site.gateway.notifier.closed(0, gone.id()), Some(Code::TargetRemoved));
}

#[tokio::test]
async fn f19_a_reset_goes_through_to_the_other_side_either_way() {
    let (mut site, stream, mut target) = opened().await;
    drop(stream);
    is_reset(&mut target).await;
    assert_eq!(site.quiet().await, ["closed client_reset"]);

    let (mut site, mut stream, target) = opened().await;
    reset_on_close(&target, true);
    drop(target);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(site.quiet().await, ["closed target_reset"]);
}

#[tokio::test]
async fn a_resets_reason_may_come_after_it_and_its_place_does_not_wait() {
    let (mut site, stream, mut target) = opened().await;
    let id = stream.id();
    drop(stream);
    is_reset(&mut target).await;
    while site.agent.streams() > 0 {
        tokio::task::yield_now().await;
    }
    site.gateway.notifier.closing(0, id, Code::CallerRevoked);
    assert_eq!(site.quiet().await, ["closed caller_revoked"]);
}

#[tokio::test]
async fn f01_a_lost_session_is_a_reset_for_the_target_and_says_so_also_when_the_target_is_stuck() {
    let (mut site, mut stream, mut target) = opened().await;
    // The target reads nothing, so the agent waits in the middle of a write; how long we watch decides nothing.
    let moment = std::time::Duration::from_millis(100);
    while tokio::time::timeout(moment, stream.write_all(&[0; 65_536])).await.is_ok() {}
    site.session.abort().await;
    assert_eq!(site.quiet().await, ["closed session_lost"]);
    let end = loop {
        match target.read(&mut [0; 65_536]).await {
            Ok(0) => panic!("it looks finished"),
            Ok(_) => {}
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(end, io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn r1_a_stream_that_is_cut_with_its_task_has_its_row_and_looks_cut() {
    let (mut site, _stream, mut target) = opened().await;
    site.streams.abort().await;
    assert_eq!(site.rows.take(), ["closed drain_deadline"]);
    is_reset(&mut target).await;
}

#[tokio::test]
async fn an_early_answer_and_its_end_reach_a_client_that_is_still_sending() {
    let (mut site, mut stream, mut target) = opened().await;
    stream.write_all(&[0; 4096]).await.unwrap();
    target.write_all(b"413").await.unwrap();
    target.shutdown().await.unwrap();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    // What is not read becomes a reset, which ends the upload and not the answer that has arrived.
    drop(target);
    while stream.write_all(&[0; 65_536]).await.is_ok() {}
    assert_eq!(site.quiet().await, ["closed target_reset"]);
    assert_eq!(site.gateway.notifier.closed(0, stream.id()), Some(Code::TargetReset));
}

/// What an echo gives back for these bytes, once they have ended.
async fn echoed(site: &Site, bytes: &[u8]) -> Vec<u8> {
    let (wired, reply) = site.asks(&Open { spoken: Spoken::Echo, ..open("echo") }).await;
    assert_eq!(reply, Reply::Accepted);
    let (mut stream, _) = wired.into_parts();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    back
}

#[tokio::test]
async fn c13_an_echo_reaches_nothing_needs_no_permit_and_is_answered_when_there_is_no_place_left() {
    let mut site = Site::new(policy(&[]), 0).await;
    assert_eq!(site.refused(&open("db")).await, Code::AgentStreams);
    assert_eq!(site.rows.take(), ["refused agent_streams"]);
    assert_eq!(echoed(&site, b"canary").await, b"canary");
    assert_eq!(echoed(&site, b"").await, b"");
    assert!(site.quiet().await.is_empty(), "no client's stream, so no row");
}

#[tokio::test(start_paused = true)]
async fn d2_a_gateway_gains_nothing_by_echoes() {
    let site = Site::with("127.0.0.1:1").await;
    let long = [7; 2 * ECHO];
    let (wired, _) = site.asks(&Open { spoken: Spoken::Echo, ..open("db") }).await;
    let (mut stream, _) = wired.into_parts();
    stream.write_all(&long).await.unwrap();
    let mut back = [0; ECHO];
    stream.read_exact(&mut back).await.unwrap();
    assert!(!matches!(stream.read(&mut back).await, Ok(1..)), "no more than is to be echoed");
    let mut held = Vec::new();
    for _ in 0..ECHOES {
        held.push(site.asks(&Open { spoken: Spoken::Echo, ..open("echo") }).await);
    }
    let echo = Open { spoken: Spoken::Echo, ..open("echo") };
    assert_eq!(site.refused(&echo).await, Code::AgentStreams);
    tokio::time::sleep(CANARY_DEADLINE).await;
    assert_eq!(echoed(&site, b"again").await, b"again", "those that say nothing have had their time");
}
