//! Upgrades: the one that came about, and every way in which one doesn't.

use super::*;

const RULES: &str = r#"[{"path": "/socket", "upgrade": true}, {"path": "/plain"}]"#;
const WISH: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

fn wish(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{WISH}\r\n")
}

#[tokio::test]
async fn a_websocket_passes_both_ways_until_both_have_ended() {
    let mut rig = Rig::new(RULES).await;
    let mut client = rig.client();
    // Both may say something right behind their heads.
    client.say(&(wish("/socket") + "early")).await;
    let mut origin = rig.origin().await;
    let head = origin.head().await;
    assert_eq!((value(&head, "connection"), value(&head, "upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(value(&head, "sec-websocket-version"), Some("13"));
    origin.say(&format!("{SWITCH}X-Other: 1\r\n\r\nfirst")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 ") && value(&head, "upgrade") == Some("websocket"), "{head}");
    assert_eq!(value(&head, "x-other"), Some("1"));
    assert_eq!(client.read(5).await, "first");
    assert_eq!(origin.read(5).await, "early");
    client.say("more").await;
    assert_eq!(origin.read(4).await, "more");
    client.io.shutdown().await.unwrap();
    assert_eq!(exactly(&mut origin.0, 0).await, "");
    origin.say("last").await;
    drop(origin);
    assert_eq!(client.rest().await, ("last".to_owned(), None));
    let row = rig.row().await;
    assert_eq!((&row["status"], &row["up"], &row["down"]), (&101.into(), &9.into(), &9.into()));
    assert!(row["code"].is_null(), "{row}");
}

#[tokio::test]
async fn e4_bytes_behind_an_upgrade_that_was_not_granted_are_never_read() {
    let mut rig = Rig::new(RULES).await;
    let next = "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n";
    for answer in [
        "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
    ] {
        let mut client = rig.client();
        client.say(&(wish("/socket") + next)).await;
        let mut origin = rig.origin().await;
        origin.head().await;
        origin.say(answer).await;
        let (answer, code) = client.rest().await;
        assert_eq!((answer.matches("HTTP/1.1").count(), code), (1, None), "{answer}");
        assert!(answer.contains("onnection: close") && answer.ends_with("no"), "{answer}");
        assert_eq!(origin.rest().await, "");
    }
    let mut client = rig.client();
    client.say(&(wish("/plain") + next)).await;
    let (answer, _) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("upgrade_denied"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    rig.nothing_dialled().await;
}

#[tokio::test]
async fn e4_a_101_that_is_none_ends_both_connections() {
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    for answer in [
        "HTTP/1.1 101 Fine\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        format!("HTTP/1.1 101 Fine\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{accept}\r\n"),
        format!("HTTP/1.1 101 Fine\r\nUpgrade: websocket\r\n{accept}\r\n"),
        "HTTP/1.1 101 Fine\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n".to_owned(),
    ] {
        let mut rig = Rig::new(RULES).await;
        let mut client = rig.client();
        client.say(&wish("/socket")).await;
        let mut origin = rig.origin().await;
        origin.head().await;
        origin.say(&answer).await;
        client.say("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (told, _) = client.rest().await;
        assert!(told.starts_with("HTTP/1.1 502 ") && told.contains("response_invalid"), "{answer:?}: {told}");
        assert_eq!((told.matches("HTTP/1.1").count(), origin.rest().await.as_str()), (1, ""));
    }
}

#[tokio::test]
async fn a_cut_upgrade_is_recorded() {
    let mut rig = Rig::new(RULES).await;
    let mut client = rig.client();
    client.say(&wish("/socket")).await;
    let mut origin = rig.origin().await;
    origin.head().await;
    origin.say(&format!("{SWITCH}\r\n")).await;
    client.head().await;
    client.served.abort();
    let row = rig.row().await;
    assert_eq!((&row["status"], &row["code"]), (&101.into(), &"client_reset".into()));
}
