//! Greetings and notices, with an honest peer and with one that writes what it likes. Refuses to know who decides.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::base::id::Name;
use crate::tunnel::fixture::{frame, hello, pipes, raw, send, sessions, swallow, welcomed};
use crate::wire::hello::{Kind, Offer};

#[tokio::test]
async fn notices_of_every_kind_cross_both_ways() {
    let (mut agent, mut gateway, _tasks) = sessions(&["db"]).await;
    let name = Name::parse("db").unwrap();
    let added = vec![Offer { name: name.clone(), kind: Kind::Http }];
    for notice in [
        Notice::Drain { deadline: Duration::from_millis(1500) },
        Notice::Renew,
        Notice::Lanes { count: 3 },
        Notice::TargetsChanged { added, removed: vec![name] },
        Notice::Revoked,
    ] {
        agent.notifier.tell(notice.clone());
        gateway.notifier.tell(notice.clone());
        assert_eq!(gateway.notices.recv().await.unwrap(), notice);
        assert_eq!(agent.notices.recv().await.unwrap(), notice);
    }
    // Why a stream was closed is kept for whoever asks, once.
    agent.notifier.closing(0, 7, Code::TargetReset);
    agent.notifier.tell(Notice::Renew);
    assert_eq!(gateway.notices.recv().await, Some(Notice::Renew));
    assert_eq!((gateway.notifier.closed(0, 7), gateway.notifier.closed(0, 7)), (Some(Code::TargetReset), None));
}

#[tokio::test]
async fn a_full_queue_drops_notices_and_never_waits() {
    let (agent, mut gateway, _tasks) = sessions(&[]).await;
    // Not one await in between: nothing is written meanwhile.
    for count in 0..u32::try_from(NOTICE_QUEUE).unwrap() + 10 {
        agent.notifier.tell(Notice::Lanes { count });
    }
    let mut received = 0;
    while received < NOTICE_QUEUE {
        assert!(gateway.notices.recv().await.is_some());
        received += 1;
    }
    agent.notifier.tell(Notice::Renew);
    assert_eq!(gateway.notices.recv().await, Some(Notice::Renew));
}

#[tokio::test]
async fn f43_no_common_version_is_a_named_refusal_at_both_ends() {
    let (agent, gateway) = pipes();
    let tasks = Tasks::new();
    let newer = Hello { versions: 2..=3, ..hello(&[]) };
    let (theirs, ours) = tokio::join!(greet(agent, newer, &tasks), welcome(gateway, welcomed, &tasks));
    let (theirs, ours) = (theirs.err().unwrap(), ours.err().unwrap());
    assert_eq!((theirs.code, ours.code), (Code::ProtocolUnsupported, Code::ProtocolUnsupported));
    assert!(theirs.detail.contains("2 to 3"), "{theirs}");
    tasks.join().await;
}

#[tokio::test]
async fn the_gateways_refusal_reaches_the_agent_by_its_code() {
    let (agent, gateway) = pipes();
    let tasks = Tasks::new();
    let refuse = |_: &Hello, _| Err(Refusal::new(Code::Stopping, "tonight"));
    let (theirs, ours) = tokio::join!(greet(agent, hello(&[]), &tasks), welcome(gateway, refuse, &tasks));
    assert_eq!(theirs.err().unwrap(), Failure::new(Code::Stopping, "tonight"));
    assert_eq!(ours.err().unwrap().code, Code::Stopping);
    // Nothing of the connection is left.
    tasks.join().await;
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_does_not_come_ends_the_connection_in_five_seconds() {
    let (mut raw, gateway) = raw().await;
    let tasks = Tasks::new();
    let before = Instant::now();
    let beats = async {
        // Alive and echoing, but silent where it matters.
        loop {
            let gone = tokio::time::timeout(Duration::from_secs(1), swallow(&mut raw)).await.is_ok();
            if gone || raw.send(Message::Ping(vec![].into())).await.is_err() {
                return;
            }
        }
    };
    let (ours, ()) = tokio::join!(welcome(gateway, welcomed, &tasks), beats);
    assert_eq!(ours.err().unwrap().code, Code::ProtocolViolation);
    assert!(before.elapsed() < HELLO_DEADLINE + Duration::from_secs(7));
    tasks.join().await;
}

#[tokio::test(start_paused = true)]
async fn a_welcome_that_does_not_come_is_a_timeout_of_the_gateway() {
    let (agent, gateway) = pipes();
    let tasks = Tasks::new();
    let gateway = crate::tunnel::fixture::half(gateway, Side::Gateway);
    assert_eq!(greet(agent, hello(&[]), &tasks).await.err().unwrap().code, Code::GatewayTimeout);
    tasks.join().await;
    drop(gateway);
}

#[tokio::test(start_paused = true)]
async fn a_greeting_that_is_given_up_leaves_no_connection_behind() {
    let (agent, gateway) = pipes();
    let tasks = Tasks::new();
    let gateway = crate::tunnel::fixture::half(gateway, Side::Gateway);
    let given_up = tokio::time::timeout(Duration::from_secs(1), greet(agent, hello(&[]), &tasks)).await;
    assert!(given_up.is_err());
    tasks.join().await;
    assert_eq!(gateway.link.ended().await.code, Code::Stopping);
}

/// The gateway's verdict on a first message.
async fn first_message(message: Control) -> Failure {
    let (mut raw, ours) = raw().await;
    let mut body = BytesMut::new();
    codec::encode(&message, &mut body);
    let tasks = Tasks::new();
    let length = u32::try_from(body.len()).unwrap();
    send(&mut raw, frame(0, 0, 1, 1, length, &body)).await;
    let (ours, ()) = tokio::join!(welcome(ours, welcomed, &tasks), async { while let Some(Ok(_)) = raw.next().await {} });
    ours.err().unwrap()
}

#[tokio::test]
async fn t1_another_first_message_is_a_violation() {
    for message in [Control::Notice(Notice::Renew), Control::Unknown, Control::Refused(Refusal::new(Code::Internal, ""))] {
        assert_eq!(first_message(message.clone()).await.code, Code::ProtocolViolation, "{message:?}");
    }
}

#[tokio::test]
async fn t1_a_connection_that_breaks_during_the_greeting_says_why() {
    let (mut raw, ours) = raw().await;
    let tasks = Tasks::new();
    let (ours, ()) = tokio::join!(welcome(ours, welcomed, &tasks), async {
        send(&mut raw, frame(0, 0, 1, 1, 1, &[9])).await;
        raw.send(Message::Text("no".into())).await.unwrap();
        while let Some(Ok(_)) = raw.next().await {}
    });
    assert_eq!(ours.err().unwrap().code, Code::ProtocolViolation);
}

/// What ends a session on whose control stream the agent says this after the greeting.
async fn after_greeting(bytes: Vec<u8>) -> Failure {
    let (mut raw, ours) = raw().await;
    let tasks = Tasks::new();
    let mut body = BytesMut::new();
    codec::encode(&Control::Hello(hello(&[])), &mut body);
    send(&mut raw, frame(0, 0, 1, 1, u32::try_from(body.len()).unwrap(), &body)).await;
    let (_, _, session) = welcome(ours, welcomed, &tasks).await.unwrap();
    send(&mut raw, bytes).await;
    let (ended, ()) = tokio::join!(session.link.ended(), async { while let Some(Ok(_)) = raw.next().await {} });
    ended
}

#[tokio::test]
async fn t1_nonsense_on_the_control_stream_ends_the_session_with_a_violation() {
    let mut again = BytesMut::new();
    codec::encode(&Control::Hello(hello(&[])), &mut again);
    for (name, body) in [
        ("garbage", vec![0xff; 64]),
        ("too long", vec![0x81, 0x80, 0x01]),
        ("a second Hello", again.to_vec()),
        ("a bad name", vec![7, 0xa2, 1, 4, 0x12, 2, b'-', b'-']),
    ] {
        let failure = after_greeting(frame(0, 0, 0, 1, u32::try_from(body.len()).unwrap(), &body)).await;
        assert_eq!(failure.code, Code::ProtocolViolation, "{name}: {failure}");
    }
    assert_eq!(after_greeting(frame(0, 0, 4, 1, 0, &[])).await.code, Code::ProtocolViolation, "closed");
    assert_eq!(after_greeting(frame(0, 0, 8, 1, 0, &[])).await.code, Code::SessionLost, "reset");
}

#[tokio::test]
async fn f43_a_message_of_a_newer_version_is_ignored() {
    let (mut agent, mut gateway, _tasks) = sessions(&[]).await;
    // Field 200, empty: no body that this build knows.
    let mut stream = agent.lanes.open().await.unwrap().0;
    stream.write_all(&[3, 0xc2, 0x0c, 0]).await.unwrap();
    let mut wired = Wired::new(gateway.incoming.accept().await.unwrap());
    assert!(matches!(wired.receive().await, Ok(Some(Control::Unknown))));
    gateway.notifier.tell(Notice::Renew);
    assert_eq!(agent.notices.recv().await, Some(Notice::Renew));
}

#[tokio::test]
async fn a_stream_that_the_peer_gave_up_can_no_longer_be_written_to() {
    let (mut agent, gateway, _tasks) = sessions(&[]).await;
    let mut ours = gateway.lanes.open().await.unwrap().0;
    ours.write_all(b"?").await.unwrap();
    let mut theirs = agent.incoming.accept().await.unwrap();
    // An answer before the question's end, after which nothing more is read.
    theirs.write_all(b"413").await.unwrap();
    theirs.shutdown().await.unwrap();
    agent.notifier.closing(0, theirs.id(), Code::TargetReset);
    drop(theirs);
    let error = loop {
        if let Err(error) = ours.write_all(&[0; 4096]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"413");
    assert_eq!(gateway.notifier.closed(0, ours.id()), Some(Code::TargetReset));
}
