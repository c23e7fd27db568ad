//! Connections to the origin: whose they are, when they are used again, and what is said of one that fails.

use super::*;

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_connection_serves_one_stream_and_its_requests_in_turn() {
    let mut rig = Rig::new("").await;
    let (mut one, mut other) = (rig.client(), rig.client());
    one.say(GET).await;
    let mut first = rig.origin().await;
    first.head().await;
    first.say("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n").await;
    one.answer().await;
    one.say(GET).await;
    first.head().await;
    first.say(OK).await;
    one.answer().await;
    other.say(GET).await;
    let mut second = rig.origin().await;
    second.head().await;
    second.say(OK).await;
    other.answer().await;
    drop(one.io);
    assert_eq!(first.rest().await, "", "it ends with its stream");
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced_unseen() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    for _ in 0..3 {
        client.say(GET).await;
        let mut origin = rig.origin().await;
        origin.head().await;
        origin.say(OK).await;
        assert_eq!(client.answer().await.1, "ok");
    }
    client.say(GET).await;
    let mut origin = rig.origin().await;
    origin.head().await;
    origin.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    let (head, body) = client.answer().await;
    assert_eq!((value(&head, "connection"), body.as_str()), (None, "ok"), "the client's own goes on");
    client.say(GET).await;
    rig.origin().await.head().await;
}

#[tokio::test]
async fn a_request_is_made_again_only_where_it_can_do_no_harm() {
    for (request, again) in [("GET /a", true), ("DELETE /a", true), ("POST /a", false), ("PATCH /a", false)] {
        let mut rig = Rig::new("").await;
        let mut client = rig.client();
        client.say(GET).await;
        let mut origin = rig.origin().await;
        origin.head().await;
        origin.say(OK).await;
        client.answer().await;
        client.say(&format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        origin.head().await;
        // It was read, and may have been done.
        drop(origin);
        if again {
            let mut origin = rig.origin().await;
            assert!(origin.head().await.starts_with(request));
            origin.say(OK).await;
        }
        let (head, _) = client.answer().await;
        let expected = if again { "HTTP/1.1 200 " } else { "HTTP/1.1 502 " };
        assert!(head.starts_with(expected), "{request}: {head}");
    }
}

#[tokio::test]
async fn what_fails_at_the_origin_has_its_code() {
    for (answer, status, code) in [
        ("", 502, "target_reset"),
        ("HTTP/1.1 200 OK\r\nContent-Le", 502, "target_reset"),
        ("SSH-2.0-OpenSSH_9.7\r\n\r\n", 502, "response_invalid"),
        ("HTTP/1.1 200 OK\r\nX : 1\r\n\r\n", 502, "response_invalid"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 502, "response_invalid"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx", 502, "response_invalid"),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 502, "response_invalid"),
    ] {
        let mut rig = Rig::new("").await;
        let mut client = rig.client();
        client.say(GET).await;
        let mut origin = rig.origin().await;
        origin.head().await;
        origin.say(answer).await;
        drop(origin);
        let (head, body) = client.answer().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}: {head}");
        assert_eq!(value(&head, "underpass-refusal"), Some(code), "{answer:?}");
        assert!(!body.contains("127.0.0.1"), "what is inside the site stays there: {body}");
        client.say(GET).await;
        rig.origin().await.head().await;
    }
}

#[tokio::test]
async fn an_origin_that_is_not_there_has_its_code() {
    let mut rig = Rig::new("").await;
    drop(std::mem::replace(&mut rig.listener, TcpListener::bind("127.0.0.1:0").await.unwrap()));
    let (head, _) = rig.client().ask(GET).await;
    assert!(head.starts_with("HTTP/1.1 502 ") && value(&head, "underpass-refusal") == Some("target_refused"), "{head}");
    let mut rig = Rig::with("", |spec| spec.allow_loopback = false).await;
    let (head, _) = rig.client().ask(GET).await;
    assert!(head.starts_with("HTTP/1.1 403 ") && value(&head, "underpass-refusal") == Some("loopback_forbidden"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn d5_an_origin_that_accepts_and_is_silent_has_its_time() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n1").await;
    let mut origin = rig.origin().await;
    origin.head().await;
    let begun = tokio::time::Instant::now();
    for _ in 0..2 {
        sleep(Duration::from_secs(50)).await;
        client.say("2").await;
        origin.read(1).await;
    }
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 504 ") && value(&head, "underpass-refusal") == Some("response_timeout"), "{head}");
    assert_eq!(begun.elapsed().as_secs(), 160, "it begins with the last of the request");
    assert_eq!(origin.rest().await.len(), 1);
}

#[tokio::test]
async fn d5_a_head_without_end_is_cut() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say(GET).await;
    let mut origin = rig.origin().await;
    origin.head().await;
    origin.say("HTTP/1.1 200 OK\r\n").await;
    let line = format!("X: {}\r\n", "x".repeat(1000));
    // It may be closed before it is through.
    while origin.0.write_all(line.as_bytes()).await.is_ok() {}
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 502 ") && value(&head, "underpass-refusal") == Some("response_invalid"), "{head}");
}

#[tokio::test]
async fn an_answer_with_both_lengths_is_read_by_its_coding() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say(GET).await;
    let mut origin = rig.origin().await;
    origin.head().await;
    origin.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((value(&head, "content-length"), value(&head, "transfer-encoding")), (None, Some("chunked")), "{head}");
    assert_eq!(client.read(12).await, "2\r\nok\r\n0\r\n\r\n");
}
