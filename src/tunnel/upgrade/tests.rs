//! The opening handshake of both ends, its refusals, and its bounds. Refuses to know TLS.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::base::id::SessionId;
use crate::base::limits::HANDSHAKE_DEADLINE;
use crate::wire::resume::Claim;

const GOOD: &str = "GET /v1/tunnel HTTP/1.1\r\nHost: gw.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: underpass.v1\r\n";

fn endpoint() -> Endpoint {
    "wss://gw.example".parse().unwrap()
}

/// A gateway that has no sessions.
fn admit(stopping: bool) -> impl FnOnce(Option<Resume>) -> Result<((), Option<u64>), Failure> {
    move |resume| match resume {
        _ if stopping => Err(Failure::new(Code::Stopping, "the gateway is shutting down")),
        Some(resume) => Err(Failure::new(Code::NotHere, resume.claim.session)),
        None => Ok(((), None)),
    }
}

/// What the gateway answers to a head, and what it says itself.
async fn answer(head: &str, stopping: bool) -> (String, Result<(), Failure>) {
    let (mut agent, gateway) = tokio::io::duplex(1 << 17);
    agent.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    agent.shutdown().await.unwrap();
    let verdict = server(Box::new(gateway), InstanceId::fresh(), admit(stopping)).await.map(drop);
    let mut answer = String::new();
    agent.read_to_string(&mut answer).await.unwrap();
    (answer, verdict)
}

async fn refused(head: &str, stopping: bool, status: &str, code: Code) {
    let (answer, verdict) = answer(head, stopping).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}\n{answer}");
    assert!(answer.to_ascii_lowercase().contains(&format!("{REFUSAL_HEADER}: {code}\r\n")), "{answer}");
    assert!(verdict.is_err());
}

#[tokio::test]
async fn both_ends_meet() {
    let (agent, gateway) = tokio::io::duplex(1 << 16);
    let endpoint = endpoint();
    let (theirs, ours) =
        tokio::join!(client(Box::new(agent), &endpoint, None), server(Box::new(gateway), InstanceId::fresh(), admit(false)));
    assert!(theirs.is_ok() && ours.is_ok());
}

#[tokio::test]
async fn what_is_no_upgrade_of_ours_is_refused_by_name() {
    let version = Code::ProtocolUnsupported;
    refused(&GOOD.replace("/v1/tunnel", "/"), false, "404", Code::UpgradeRefused).await;
    refused(&GOOD.replace("/v1/tunnel", "/v1/tunnel/x"), false, "404", Code::UpgradeRefused).await;
    refused(&GOOD.replace("underpass.v1", "underpass.v2, chat"), false, "400", version).await;
    refused(&GOOD.replace("Sec-WebSocket-Protocol: underpass.v1\r\n", ""), false, "400", version).await;
    refused(GOOD, true, "503", Code::Stopping).await;
}

#[tokio::test]
async fn a_lane_of_a_session_that_is_not_there_is_told_apart_from_nonsense() {
    let resume = Resume { claim: Claim::new_lane(SessionId::fresh(), 1), proof: [7; resume::PROOF] };
    refused(&format!("{GOOD}Underpass-Resume: {resume}\r\n"), false, "409", Code::NotHere).await;
    for text in ["", "x", "1, 2, 3, 4, 5"] {
        refused(&format!("{GOOD}Underpass-Resume: {text}\r\n"), false, "400", Code::UpgradeRefused).await;
    }
}

#[tokio::test]
async fn cve_2026_40910_a_request_that_makes_two_claims_is_judged_by_neither() {
    let claim = |lane| Resume { claim: Claim::new_lane(SessionId::fresh(), lane), proof: [7; resume::PROOF] };
    for (first, second) in [(claim(1).to_string(), claim(2).to_string()), (claim(1).to_string(), "x".to_owned())] {
        let head = format!("{GOOD}Underpass-Resume: {first}\r\nUnderpass-Resume: {second}\r\n");
        refused(&head, false, "400", Code::UpgradeRefused).await;
    }
}

#[tokio::test]
async fn e4_what_only_looks_like_an_upgrade_is_none() {
    for head in [
        GOOD.replace("GET", "POST"),
        GOOD.replace("HTTP/1.1", "HTTP/1.0"),
        GOOD.replace("Version: 13", "Version: 8"),
        GOOD.replace("Upgrade: websocket", "Upgrade: h2c"),
        GOOD.replace("Connection: Upgrade", "Connection: close"),
        GOOD.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        "\u{16}\u{3}\u{1}\r\n".to_owned(),
    ] {
        let (answer, verdict) = answer(&head, false).await;
        assert!(!answer.contains(" 101 "), "{head}\n{answer}");
        assert_eq!(verdict.unwrap_err().code, Code::UpgradeRefused, "{head}");
    }
}

#[tokio::test]
async fn e4_what_follows_a_request_before_its_answer_is_not_taken_for_frames() {
    let (mut agent, gateway) = tokio::io::duplex(1 << 16);
    agent.write_all(format!("{GOOD}\r\nGET /v1/tunnel HTTP/1.1\r\n").as_bytes()).await.unwrap();
    assert_eq!(server(Box::new(gateway), InstanceId::fresh(), admit(false)).await.err().unwrap().code, Code::UpgradeRefused);
}

#[tokio::test]
async fn the_refusal_reaches_the_dialer_with_its_code() {
    let (agent, gateway) = tokio::io::duplex(1 << 16);
    let endpoint = endpoint();
    let (theirs, _) =
        tokio::join!(client(Box::new(agent), &endpoint, None), server(Box::new(gateway), InstanceId::fresh(), admit(true)));
    let failure = Failure::from(theirs.err().unwrap());
    assert_eq!(failure, Failure::new(Code::Stopping, "wss://gw.example:443: the gateway is shutting down"));
}

#[tokio::test]
async fn a_gateway_without_the_session_says_which_one_it_is() {
    let (agent, gateway) = tokio::io::duplex(1 << 16);
    let (endpoint, instance) = (endpoint(), InstanceId::fresh());
    let resume = Resume { claim: Claim::new_lane(SessionId::fresh(), 1), proof: [7; resume::PROOF] };
    let client = client(Box::new(agent), &endpoint, Some(&resume));
    let (theirs, _) = tokio::join!(client, server(Box::new(gateway), instance, admit(false)));
    let Refused { failure, instance: told } = theirs.err().unwrap();
    assert_eq!((failure.code, told), (Code::NotHere, Some(instance)));
    let from_elsewhere =
        "HTTP/1.1 409 Conflict\r\nUnderpass-Refusal: not_here\r\nUnderpass-Instance: me\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(dialed(from_elsewhere).await.code, Code::NotHere, "whoever it is");
}

/// What the agent makes of an answer.
async fn dialed(answer: &str) -> Failure {
    let (agent, mut other) = tokio::io::duplex(1 << 17);
    other.write_all(answer.as_bytes()).await.unwrap();
    other.shutdown().await.unwrap();
    client(Box::new(agent), &endpoint(), None).await.err().unwrap().into()
}

#[tokio::test]
async fn f42_what_stands_in_front_of_the_gateway_is_quoted() {
    let failure = dialed("HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nContent-Length: 5\r\n\r\noops\n").await;
    assert_eq!(failure.code, Code::UpgradeRefused);
    assert!(failure.detail.contains("502"), "{failure}");
    // A name that is no code of ours is nothing to go by.
    let failure = dialed("HTTP/1.1 403 Forbidden\r\nUnderpass-Refusal: rm -rf\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(failure.code, Code::UpgradeRefused);
    assert_eq!(dialed("SSH-2.0-OpenSSH\r\n").await.code, Code::UpgradeRefused);
}

async fn flood(agent: &mut DuplexStream, bytes: &[u8], times: usize) -> usize {
    for sent in 0..times {
        if agent.write_all(bytes).await.is_err() {
            return sent * bytes.len();
        }
    }
    times * bytes.len()
}

#[tokio::test]
async fn d2_a_head_of_a_mebibyte_is_refused_without_being_kept() {
    let (mut agent, gateway) = tokio::io::duplex(4096);
    let send = async {
        agent.write_all(format!("{GOOD}X: ").as_bytes()).await.unwrap();
        flood(&mut agent, &[b'a'; 4096], 256).await
    };
    let (verdict, sent) = tokio::join!(server(Box::new(gateway), InstanceId::fresh(), admit(false)), send);
    assert_eq!(verdict.err().unwrap().code, Code::UpgradeRefused);
    assert!(sent <= 128 * 1024, "{sent} bytes were taken");
}

#[tokio::test]
async fn d2_an_answer_of_a_mebibyte_is_refused_without_being_kept() {
    let (agent, mut other) = tokio::io::duplex(4096);
    let send = async {
        other.write_all(b"HTTP/1.1 101 Switching Protocols\r\nX: ").await.unwrap();
        flood(&mut other, &[b'a'; 4096], 256).await
    };
    let endpoint = endpoint();
    let (verdict, sent) = tokio::join!(client(Box::new(agent), &endpoint, None), send);
    assert!(verdict.is_err());
    assert!(sent <= 128 * 1024, "{sent} bytes were taken");
}

#[tokio::test(start_paused = true)]
async fn d2_a_head_that_trickles_is_ended_by_its_pieces_or_by_the_callers_deadline() {
    let (mut agent, gateway) = tokio::io::duplex(4096);
    let trickle = async {
        for byte in GOOD.bytes() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if agent.write_all(&[byte]).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    };
    let verdict = tokio::select! {
        verdict = tokio::time::timeout(HANDSHAKE_DEADLINE, server(Box::new(gateway), InstanceId::fresh(), admit(false))) => verdict.ok(),
        () = trickle => None,
    };
    assert!(verdict.is_none_or(|verdict| verdict.is_err()));
}

#[tokio::test]
async fn the_first_frame_is_a_heartbeat() {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    for (message, code) in [
        (Message::Binary(vec![0; 12].into()), Code::ProtocolViolation),
        (Message::Text("hello".into()), Code::ProtocolViolation),
        (Message::Ping(vec![].into()), Code::ProtocolViolation),
        (Message::Ping(vec![2; 17].into()), Code::ProtocolViolation),
        (Message::Pong(vec![1; 17].into()), Code::ProtocolViolation),
        (Message::Close(None), Code::ProtocolViolation),
    ] {
        let (agent, gateway) = tokio::io::duplex(1 << 16);
        let agent = async {
            let request = http::Request::get("wss://gw.example/v1/tunnel")
                .header("Host", "gw.example")
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket")
                .header("Sec-WebSocket-Version", "13")
                .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
                .header("Sec-WebSocket-Protocol", SUBPROTOCOL)
                .body(())
                .unwrap();
            let (mut socket, _) = client_async_with_config(request, agent, None).await.unwrap();
            socket.send(message.clone()).await.unwrap();
            socket
        };
        let (_socket, verdict) = tokio::join!(agent, server(Box::new(gateway), InstanceId::fresh(), admit(false)));
        assert_eq!(verdict.err().unwrap().code, code, "{message:?}");
    }
}
