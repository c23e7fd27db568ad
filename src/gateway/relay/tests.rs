//! Every outcome of an open and every end of a stream, as client, agent and audit see it. Refuses to know sockets and TLS.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::DuplexStream;

use super::*;
use crate::base::id::Name;
use crate::gateway::fixture::{Agent, Left, agent, caller, client, gateway, wanted};
use crate::gateway::quota::Limits;
use crate::tunnel::fixture::Rows;

/// A relay at work, seen from outside.
struct Site {
    gateway: Arc<Gateway>,
    rows: Rows,
    tasks: crate::base::tasks::Tasks,
    agents: Vec<Agent>,
}

impl Site {
    async fn new(agents: usize) -> Self {
        let (gateway, rows, tasks) = gateway();
        let mut site = Self { gateway, rows, tasks, agents: Vec::new() };
        for number in 0..agents {
            let agent = agent(&format!("a{number}"), &["db"]).await;
            site.gateway.registry.add(agent.live.clone());
            site.agents.push(agent);
        }
        site
    }

    fn client(&self) -> (DuplexStream, Left) {
        self.client_of(wanted("db"))
    }

    fn client_of(&self, wanted: Wanted) -> (DuplexStream, Left) {
        let (io, theirs, left) = client();
        let gateway = self.gateway.clone();
        self.tasks.spawn(async move { relay(&gateway, io, Box::new(wanted)).await });
        (theirs, left)
    }

    /// The agent that the next stream goes to, and the one after it.
    async fn turns(&mut self) -> (usize, usize) {
        let first = self.gateway.registry.pick(&group(), &Name::parse("db").unwrap(), &[]).unwrap();
        let number = self.agents.iter().position(|agent| agent.live.session == first.session).unwrap();
        // The pick above was a turn, so the next is the other's.
        (1 - number, number)
    }

    /// A client whose stream to the first agent is open.
    async fn opened(&mut self) -> (DuplexStream, Left, Stream) {
        let (mut client, left) = self.client();
        let (mut stream, _) = self.agents[0].accept().await;
        stream.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
        assert_eq!(self.rows.take(), ["opened"]);
        (client, left, stream)
    }

    /// Every relay has ended.
    async fn quiet(&mut self) -> Vec<String> {
        self.tasks.join().await;
        self.rows.take()
    }
}

fn group() -> crate::base::id::GroupId {
    wanted("db").target.group
}

/// What a client that is cut reads until then.
async fn cut(mut client: DuplexStream, left: &Left) -> Vec<u8> {
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    assert!(left.reset(), "it looks finished");
    read
}

#[tokio::test]
async fn an_accepted_stream_carries_both_ways_and_ends_in_order() {
    let mut site = Site::new(1).await;
    let (mut client, left) = site.client();
    let (mut stream, _) = site.agents[0].accept().await;
    client.write_all(b"up").await.unwrap();
    client.shutdown().await.unwrap();
    let mut up = Vec::new();
    stream.read_to_end(&mut up).await.unwrap();
    stream.write_all(b"down").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut down = Vec::new();
    client.read_to_end(&mut down).await.unwrap();
    assert_eq!((up.as_slice(), down.as_slice()), (&b"up"[..], &b"down"[..]));
    assert_eq!(site.quiet().await, ["opened", "closed"]);
    assert!(!left.reset());
}

#[tokio::test]
async fn the_targets_first_words_come_with_the_reply() {
    let mut site = Site::new(1).await;
    let (mut client, _) = site.client();
    let (mut wired, open) = site.agents[0].asked().await;
    assert_eq!((open.target.as_str(), open.caller.as_str(), open.source), ("db", "test", Some("192.0.2.9:9".parse().unwrap())));
    assert!(open.deadline <= REPLY_DEADLINE && open.deadline > REPLY_DEADLINE / 2);
    let mut reply = BytesMut::new();
    codec::encode(&Reply::Accepted, &mut reply);
    reply.extend_from_slice(b"220 ready");
    wired.send(&Reply::Accepted).await.unwrap();
    let (mut stream, _) = wired.into_parts();
    stream.write_all(b"220 ready").await.unwrap();
    let mut greeting = [0; 9];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready");
    site.tasks.abort().await;
    assert_eq!(site.rows.take(), ["opened", "closed drain_deadline"]);
}

#[tokio::test]
async fn what_one_agent_refuses_another_gets_with_the_same_bytes() {
    let mut site = Site::new(2).await;
    let (first, second) = site.turns().await;
    let (mut client, _left) = site.client();
    client.write_all(b"early").await.unwrap();
    let (mut wired, _) = site.agents[first].asked().await;
    let mut early = [0; 5];
    let (mut stream, before) = {
        wired.send(&Reply::Refused(Refusal::new(Code::TargetStreams, "full"))).await.unwrap();
        wired.into_parts()
    };
    if before.is_empty() {
        stream.read_exact(&mut early).await.unwrap();
    }
    let (mut stream, before) = site.agents[second].accept().await;
    let mut again = before;
    while again.len() < 5 {
        again.push(stream.read_u8().await.unwrap());
    }
    assert_eq!(again, b"early");
    client.shutdown().await.unwrap();
    drop(stream);
    drop(client);
    assert_eq!(site.quiet().await, ["opened", "closed target_reset"]);
}

#[tokio::test]
async fn what_no_other_could_do_better_is_refused_at_once() {
    let mut site = Site::new(2).await;
    let (first, _) = site.turns().await;
    let (client, left) = site.client();
    site.agents[first].refuse(Code::TargetKindMismatch).await;
    assert_eq!(cut(client, &left).await, b"");
    assert_eq!(site.quiet().await, ["refused target_kind_mismatch"]);
}

#[tokio::test]
async fn when_all_agents_refuse_the_last_refusal_is_told() {
    let mut site = Site::new(2).await;
    let (first, second) = site.turns().await;
    let (client, left) = site.client();
    site.agents[first].refuse(Code::TargetStreams).await;
    site.agents[second].refuse(Code::TargetRefused).await;
    cut(client, &left).await;
    assert_eq!(site.quiet().await, ["refused target_refused"]);
}

#[tokio::test]
async fn f47_without_an_agent_the_answer_comes_at_once() {
    let mut site = Site::new(0).await;
    let (client, left) = site.client();
    cut(client, &left).await;
    assert_eq!(site.quiet().await, ["refused no_agent"]);
}

#[tokio::test]
async fn a_session_lost_before_the_reply_is_tried_elsewhere_if_no_byte_was_sent() {
    let mut site = Site::new(2).await;
    let (first, second) = site.turns().await;
    let (mut client, _left) = site.client();
    let _asked = site.agents[first].asked().await;
    site.agents[first].tasks.abort().await;
    let (mut stream, _) = site.agents[second].accept().await;
    stream.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    client.read_exact(&mut hello).await.unwrap();
    site.tasks.abort().await;
    assert_eq!(site.rows.take(), ["opened", "closed drain_deadline"]);
}

#[tokio::test]
async fn a_session_lost_after_bytes_were_sent_leaves_the_outcome_unknown() {
    let mut site = Site::new(2).await;
    let (first, _) = site.turns().await;
    let (mut client, left) = site.client();
    client.write_all(b"x").await.unwrap();
    let (wired, _) = site.agents[first].asked().await;
    let (mut stream, early) = wired.into_parts();
    if early.is_empty() {
        stream.read_u8().await.unwrap();
    }
    site.agents[first].tasks.abort().await;
    cut(client, &left).await;
    assert_eq!(site.quiet().await, ["refused outcome_unknown"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_reply_is_given_up_at_the_deadline() {
    let mut site = Site::new(1).await;
    let before = Instant::now();
    let (client, left) = site.client();
    let _asked = site.agents[0].asked().await;
    cut(client, &left).await;
    assert_eq!(before.elapsed().as_secs(), REPLY_DEADLINE.as_secs());
    assert_eq!(site.quiet().await, ["refused open_timeout"]);
}

#[tokio::test(start_paused = true)]
async fn early_data_is_kept_up_to_its_bound_and_no_further() {
    let site = Site::new(1).await;
    let (mut client, _left) = site.client();
    let mut agents = site.agents;
    let flood = vec![5; 3 * EARLY_DATA];
    client.write_all(&flood).await.unwrap();
    let (wired, _) = agents[0].asked().await;
    let (mut stream, early) = wired.into_parts();
    let mut rest = vec![0; EARLY_DATA - early.len()];
    stream.read_exact(&mut rest).await.unwrap();
    let more = tokio::time::timeout(Duration::from_secs(1), stream.read_u8()).await;
    assert!(more.is_err(), "more than {EARLY_DATA} bytes before the reply");
    let mut wired = Wired::new(stream);
    wired.send(&Reply::Accepted).await.unwrap();
    let (mut stream, _) = wired.into_parts();
    let mut late = vec![0; 2 * EARLY_DATA];
    stream.read_exact(&mut late).await.unwrap();
    assert!(late.iter().all(|byte| *byte == 5));
}

#[tokio::test(start_paused = true)]
async fn without_early_data_no_byte_goes_ahead_of_the_reply() {
    let site = Site::new(1).await;
    let (mut client, _left) = site.client_of(Wanted { early_data: false, ..wanted("db") });
    let mut agents = site.agents;
    client.write_all(b"early").await.unwrap();
    let (wired, _) = agents[0].asked().await;
    let (mut stream, early) = wired.into_parts();
    assert!(early.is_empty());
    assert!(tokio::time::timeout(Duration::from_secs(1), stream.read_u8()).await.is_err());
    let mut wired = Wired::new(stream);
    wired.send(&Reply::Accepted).await.unwrap();
    let mut late = [0; 5];
    wired.into_parts().0.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"early");
}

#[tokio::test]
async fn a_reply_that_was_sent_is_believed_although_the_stream_has_been_reset_since() {
    let mut site = Site::new(1).await;
    let (mut client, left) = site.client();
    let (mut wired, _) = site.agents[0].asked().await;
    wired.send(&Reply::Refused(Refusal::new(Code::TargetKindMismatch, ""))).await.unwrap();
    drop(wired);
    // Its writing fails, and the reply says more than that.
    let _ = client.write_all(b"too late").await;
    cut(client, &left).await;
    assert_eq!(site.quiet().await, ["refused target_kind_mismatch"]);
}

#[tokio::test]
async fn what_is_no_reply_is_a_defect_of_the_agent_and_not_retried() {
    let mut site = Site::new(2).await;
    let (first, _) = site.turns().await;
    let (client, left) = site.client();
    let (wired, _) = site.agents[first].asked().await;
    let (mut stream, _) = wired.into_parts();
    stream.write_all(&[0xff; 16]).await.unwrap();
    cut(client, &left).await;
    assert_eq!(site.quiet().await, ["refused open_invalid"]);
}

#[tokio::test]
async fn a_session_that_is_lost_under_a_writing_client_is_lost_and_no_reset_of_the_target() {
    let mut site = Site::new(1).await;
    let (mut client, left) = site.client();
    let (_stream, _) = site.agents[0].accept().await;
    // More than the window takes: the relay waits in the middle of a write.
    client.write_all(&[0; 200 * 1024]).await.unwrap();
    client.write_all(&[0; 200 * 1024]).await.unwrap();
    site.agents[0].tasks.abort().await;
    cut(client, &left).await;
    assert_eq!(site.quiet().await, ["opened", "closed session_lost"]);
}

#[tokio::test]
async fn r1_a_stream_that_is_cut_before_it_is_open_has_its_row() {
    let mut site = Site::new(1).await;
    let (client, left) = site.client();
    let _asked = site.agents[0].asked().await;
    site.tasks.abort().await;
    assert_eq!(site.rows.take(), ["refused stopping"]);
    cut(client, &left).await;
}

#[tokio::test]
async fn bytes_that_one_agent_refused_do_not_make_the_loss_of_another_an_unknown_outcome() {
    let site = Site::new(1).await;
    let live = &site.agents[0].live;
    live.link.close();
    live.link.ended().await;
    let wanted = wanted("db");
    let ask = Ask { request: RequestId::fresh(), wanted: &wanted, route: site.gateway.table.route(&wanted), ahead: true };
    let mut early = Early { kept: BytesMut::from("x"), ended: false, sent: true };
    let attempt = attempt(&ask, live, &mut client().0, &mut early, Instant::now() + REPLY_DEADLINE).await;
    assert!(attempt.is_err() && !early.sent);
}

#[tokio::test]
async fn f19_a_reset_by_the_target_reaches_the_client_as_one() {
    let mut site = Site::new(1).await;
    let (client, left, mut stream) = site.opened().await;
    stream.write_all(b"half an ans").await.unwrap();
    drop(stream);
    assert_eq!(cut(client, &left).await, b"half an ans");
    assert_eq!(site.quiet().await, ["closed target_reset"]);
}

#[tokio::test]
async fn f20_a_client_that_is_gone_after_its_last_word_is_told_to_the_agent() {
    let mut site = Site::new(1).await;
    let (client, _left, mut stream) = site.opened().await;
    drop(client);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    stream.write_all(b"to nobody").await.unwrap();
    assert_eq!(site.quiet().await, ["closed client_reset"]);
    // The gateway has closed its half, so only the notice can end the agent's writing.
    while stream.write_all(&[0; 4096]).await.is_ok() {}
    assert_eq!(site.agents[0].session.notifier.closed(0, stream.id()), Some(Code::ClientReset));
}

#[tokio::test]
async fn a_revoked_session_does_not_keep_its_clients() {
    let mut site = Site::new(1).await;
    let (client, left, _stream) = site.opened().await;
    site.agents[0].live.link.close();
    cut(client, &left).await;
    assert_eq!(site.quiet().await, ["closed session_lost"]);
}

#[tokio::test]
async fn r1_a_stream_that_is_cut_while_open_has_its_row_and_looks_cut() {
    let mut site = Site::new(1).await;
    let (client, left, _stream) = site.opened().await;
    site.tasks.abort().await;
    assert_eq!(site.rows.take(), ["closed drain_deadline"]);
    cut(client, &left).await;
}

#[tokio::test]
async fn a_tenant_beyond_its_streams_is_refused_and_an_ended_stream_gives_its_place_back() {
    let mut site = Site::new(1).await;
    let limits = Limits { max_streams: Some(1), rate: None };
    site.gateway.table().limit(&HashMap::from([(Name::parse("acme").unwrap(), limits)]));
    let held = site.opened().await;
    let (client, left) = site.client();
    cut(client, &left).await;
    assert_eq!(site.rows.take(), ["refused quota_exceeded"]);
    drop(held);
    assert_eq!(site.quiet().await.len(), 1);
    site.opened().await;
}

#[tokio::test]
async fn i2_what_a_caller_is_not_granted_is_refused_whether_it_is_there_or_not() {
    let mut site = Site::new(1).await;
    for target in ["acme/dc1/db", "acme/dc1/none", "acme/dc9/db", "nobody/dc1/db"] {
        let (target, caller) = (target.parse().unwrap(), caller("token ci", "acme/dc1/web"));
        let (client, left) = site.client_of(Wanted { target, caller, ..wanted("db") });
        cut(client, &left).await;
        assert_eq!(site.rows.take(), ["refused not_granted"]);
    }
}

#[tokio::test]
async fn f27_a_revoked_callers_stream_is_cut_and_told_to_the_agent_and_no_others() {
    let mut site = Site::new(1).await;
    let (mut kept, _, mut goes_on) = site.opened().await;
    let revoked = caller("token ci", "acme/dc1/*");
    let (client, left) = site.client_of(Wanted { caller: revoked.clone(), ..wanted("db") });
    let (mut stream, _) = site.agents[0].accept().await;
    stream.write_all(b"!").await.unwrap();
    while site.rows.take().is_empty() {
        tokio::task::yield_now().await;
    }
    revoked.revoke();
    assert_eq!(cut(client, &left).await, b"!");
    assert!(stream.read_u8().await.is_err());
    while site.agents[0].session.notifier.closed(0, stream.id()) != Some(Code::CallerRevoked) {
        tokio::task::yield_now().await;
    }
    assert_eq!(site.rows.take(), ["closed caller_revoked"]);
    kept.write_all(b"?").await.unwrap();
    assert_eq!(goes_on.read_u8().await.unwrap(), b'?');
}

#[tokio::test]
async fn f27_a_caller_revoked_while_its_stream_is_opened_gets_none() {
    let mut site = Site::new(1).await;
    let revoked = caller("token ci", "acme/dc1/*");
    let (client, left) = site.client_of(Wanted { caller: revoked.clone(), ..wanted("db") });
    let (mut wired, _) = site.agents[0].asked().await;
    revoked.revoke();
    assert_eq!(cut(client, &left).await, b"");
    assert_eq!(site.rows.take(), ["refused caller_revoked"]);
    assert!(wired.send(&Reply::Accepted).await.is_err() || wired.into_parts().0.read_u8().await.is_err());
}

#[tokio::test]
async fn e8_a_stream_does_not_outlive_its_callers_certificate() {
    let mut site = Site::new(1).await;
    let until = time::OffsetDateTime::now_utc() + Duration::from_millis(200);
    let (client, left) = site.client_of(Wanted { until: Some(until), ..wanted("db") });
    let (mut stream, _) = site.agents[0].accept().await;
    stream.write_all(b"!").await.unwrap();
    assert_eq!(cut(client, &left).await, b"!");
    assert!(time::OffsetDateTime::now_utc() >= until, "not before its time");
    assert_eq!(site.rows.take(), ["opened", "closed caller_revoked"]);
}

#[tokio::test]
async fn a_caller_beyond_its_streams_is_refused_and_others_are_not() {
    let mut site = Site::new(1).await;
    let limits = Limits { max_streams: Some(1), rate: None };
    let limited = Arc::new(crate::gateway::callers::Caller::new("token ci".to_owned(), only("acme/dc1/*"), limits));
    let ask = || Wanted { caller: limited.clone(), ..wanted("db") };
    let (held, _) = site.client_of(ask());
    let _stream = site.agents[0].accept().await;
    let (client, left) = site.client_of(ask());
    cut(client, &left).await;
    while !site.rows.take().contains(&"refused quota_exceeded".to_owned()) {
        tokio::task::yield_now().await;
    }
    let _other = site.opened().await;
    drop(held);
}

fn only(grant: &str) -> crate::base::grant::Grants {
    crate::base::grant::Grants::new(vec![grant.parse().unwrap()]).unwrap()
}

#[tokio::test]
async fn a_connect_is_answered_after_the_reply_and_its_early_bytes_go_ahead() {
    let mut site = Site::new(1).await;
    let early = BytesMut::from("early");
    let (mut client, _left) = site.client_of(Wanted { answer: Answer::Connect, early, ..wanted("db") });
    let (wired, _) = site.agents[0].asked().await;
    let (mut stream, mut said) = wired.into_parts();
    while said.len() < 5 {
        stream.read_buf(&mut said).await.unwrap();
    }
    assert_eq!(&said[..], b"early");
    assert!(client.read_u8().now_or_never().is_none(), "an answer before the reply");
    Wired::new(&mut stream).send(&Reply::Accepted).await.unwrap();
    stream.write_all(b"220 ready").await.unwrap();
    stream.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    let mut told = String::new();
    client.read_to_string(&mut told).await.unwrap();
    assert_eq!(told, "HTTP/1.1 200 Connection established\r\n\r\n220 ready");
}

#[tokio::test]
async fn a_refused_connect_is_told_the_code_and_nothing_from_inside_the_site() {
    let mut site = Site::new(1).await;
    let (mut client, left) = site.client_of(Wanted { answer: Answer::Connect, ..wanted("db") });
    let (mut wired, _) = site.agents[0].asked().await;
    wired.send(&Reply::Refused(Refusal::new(Code::TargetReset, "10.20.0.7:5432"))).await.unwrap();
    let mut told = String::new();
    client.shutdown().await.unwrap();
    client.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 502 ") && told.contains("Underpass-Refusal: target_reset\r\n"), "{told}");
    assert!(!told.contains("10.20") && !left.reset(), "{told}");
    assert_eq!(site.quiet().await, ["refused target_reset"]);
}

#[tokio::test]
async fn a_caller_that_was_revoked_since_its_login_is_let_in_no_more() {
    let mut site = Site::new(1).await;
    let revoked = caller("token ci", "acme/dc1/*");
    revoked.revoke();
    let (client, left) = site.client_of(Wanted { caller: revoked, ..wanted("db") });
    cut(client, &left).await;
    assert_eq!(site.quiet().await, ["refused caller_revoked"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_from_the_first_byte_either_way_and_whatever_agents_refuse() {
    let mut site = Site::new(2).await;
    let (refuses, accepts) = site.turns().await;
    let limits = Limits { max_streams: None, rate: std::num::NonZeroU32::new(1024) };
    let limited = Arc::new(crate::gateway::callers::Caller::new("token ci".to_owned(), only("acme/dc1/*"), limits));
    let early = BytesMut::from(&[7; 8 * 1024][..]);
    let asks = Wanted { answer: Answer::Connect, early, caller: limited, ..wanted("db") };
    let (mut client, _left) = site.client_of(asks);
    client.write_all(&[7; 8 * 1024]).await.unwrap();
    let (mut wired, _) = site.agents[refuses].asked().await;
    wired.send(&Reply::Refused(Refusal::new(Code::TargetStreams, "full"))).await.unwrap();
    let (mut refused, mut before) = wired.into_parts();
    refused.read_buf(&mut before).await.unwrap_or_default();
    assert!(before.is_empty(), "client bytes ahead of their rate");

    let (wired, _) = site.agents[accepts].asked().await;
    let since = Instant::now();
    let mut words = BytesMut::new();
    codec::encode(&Reply::Accepted, &mut words);
    words.extend_from_slice(&[9; 8 * 1024]);
    let (mut stream, mut up) = wired.into_parts();
    stream.write_all(&words).await.unwrap();
    let mut down = Vec::new();
    let both = async {
        tokio::join!(async { while up.len() < 16 * 1024 && stream.read_buf(&mut up).await.unwrap() > 0 {} }, async {
            while down.len() < 39 + 8 * 1024 && client.read_buf(&mut down).await.unwrap() > 0 {}
        },)
    };
    both.await;
    let answer = down.iter().filter(|byte| **byte != 9).count();
    assert_eq!((up.len(), down.len() - answer), (16 * 1024, 8 * 1024));
    // 24 KiB in all; a second's worth had been saved up.
    assert!((22..=24).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
}
