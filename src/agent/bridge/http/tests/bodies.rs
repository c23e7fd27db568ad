//! Bodies both ways: their lengths and codings, trailers, leave to send, limits, and what breaks off in the middle.

use super::*;

const POST: &str = "POST /a HTTP/1.1\r\nHost: a\r\n";

#[tokio::test]
async fn a_body_keeps_its_length_or_its_chunks() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say(&format!("{POST}Content-Length: 5\r\n\r\nhello")).await;
    let mut origin = rig.origin().await;
    let head = origin.head().await;
    assert_eq!((value(&head, "content-length"), value(&head, "transfer-encoding")), (Some("5"), None));
    assert_eq!(origin.read(5).await, "hello");
    origin.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((value(&head, "content-length"), value(&head, "transfer-encoding")), (None, Some("chunked")));
    assert_eq!(client.read(13).await, "3\r\nabc\r\n0\r\n\r\n");
    assert_eq!((rig.row().await["up"].clone(), rig.rows.take().len()), (5.into(), 0));

    client.say(&format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).await;
    let head = origin.head().await;
    assert_eq!((value(&head, "content-length"), value(&head, "transfer-encoding")), (None, Some("chunked")));
    assert_eq!(origin.read(15).await, "5\r\nhello\r\n0\r\n\r\n");
    origin.say(OK).await;
    client.answer().await;

    client.say(&format!("{POST}Content-Length: 0\r\n\r\n")).await;
    assert_eq!(value(&origin.head().await, "content-length"), Some("0"));
    origin.say(OK).await;
    client.answer().await;

    client.say("GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    assert_eq!(value(&origin.head().await, "transfer-encoding"), Some("chunked"), "a GET with a body keeps it");
    assert_eq!(origin.read(15).await, "5\r\nhello\r\n0\r\n\r\n");
}

#[tokio::test]
async fn answers_without_a_body_have_none_whatever_they_say() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = rig.origin().await;
    origin.head().await;
    origin.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    assert_eq!(value(&client.head().await, "content-length"), Some("1000"));
    assert!(rig.row().await["code"].is_null());
    for (answer, status) in
        [("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: e\r\n\r\n", 304), ("HTTP/1.1 204 No Content\r\n\r\n", 204)]
    {
        client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(origin.head().await.starts_with("GET"), "by the same connection");
        origin.say(answer).await;
        assert!(client.head().await.starts_with(&format!("HTTP/1.1 {status} ")));
    }
    client.say("GET /b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(origin.head().await.starts_with("GET /b "));
    origin.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
}

#[tokio::test]
async fn server_sent_events_come_one_by_one() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = rig.origin().await;
    origin.head().await;
    origin.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
    client.head().await;
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        origin.say(event).await;
        assert_eq!(client.read(event.len() + 5).await, format!("9\r\n{event}\r\n"));
    }
    drop(origin);
    assert_eq!(client.read(5).await, "0\r\n\r\n", "an answer without a length ends with its connection");
}

#[tokio::test]
async fn trailers_pass_both_ways_but_none_that_belongs_into_a_head() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say(&format!("{POST}TE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Host\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n")).await;
    let mut origin = rig.origin().await;
    let head = origin.head().await;
    assert_eq!(value(&head, "te"), Some("trailers"));
    assert_eq!(origin.head().await.to_ascii_lowercase(), "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n");
    origin
        .say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Status\r\n\r\n2\r\nok\r\n0\r\nX-Status: 0\r\n\r\n")
        .await;
    client.head().await;
    assert_eq!(client.head().await.to_ascii_lowercase(), "2\r\nok\r\n0\r\nx-status: 0\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_waits_for_leave_gets_it_from_the_origin() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say(&format!("{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")).await;
    let mut origin = rig.origin().await;
    assert_eq!(value(&origin.head().await, "expect"), Some("100-continue"));
    origin.say("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.say("hello").await;
    assert_eq!(origin.read(5).await, "hello");
    origin.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
}

#[tokio::test]
async fn an_origin_that_refuses_a_body_is_heard_before_it_is_sent() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say(&format!("{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")).await;
    let mut origin = rig.origin().await;
    origin.head().await;
    origin.say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    let (answer, code) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 417 ") && answer.ends_with("no") && code.is_none(), "{answer}");
    assert_eq!(origin.rest().await, "", "and the connection was not used again");
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_knows_nothing_of_leave_gets_the_body_after_a_while() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say(&format!("{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")).await;
    let mut origin = rig.origin().await;
    origin.head().await;
    assert_eq!(origin.read(5).await, "hello");
}

#[tokio::test]
async fn a_refused_body_is_not_waited_for() {
    let mut rig = Rig::new(r#"[{"path": "/b"}]"#).await;
    let mut client = rig.client();
    client.say(&format!("{POST}Content-Length: 1000000\r\n\r\nhello")).await;
    let (answer, code) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("onnection: close") && code.is_none(), "{answer}");
}

#[tokio::test]
async fn d9_a_body_without_a_length_is_cut_at_its_rules_limit() {
    let mut rig = Rig::new(r#"[{"path": "/a", "max_body": "8B"}]"#).await;
    let mut client = rig.client();
    client.say(&format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")).await;
    let mut origin = rig.origin().await;
    origin.head().await;
    let mut got = String::new();
    while !got.ends_with("o\r\n") {
        got += &origin.read(1).await;
    }
    client.say("5\r\nworld\r\n").await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(value(&head, "underpass-refusal"), Some("body_too_large"));
    assert_eq!(origin.rest().await, "", "and no end of the body");
    assert_eq!(rig.row().await["code"], "body_too_large");
}

#[tokio::test]
async fn d5_an_answer_that_breaks_off_has_no_clean_end() {
    for (begin, rest) in
        [("Content-Length: 10\r\n\r\n12345", "12345"), ("Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", "5\r\n12345\r\n")]
    {
        let mut rig = Rig::new("").await;
        let mut client = rig.client();
        client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut origin = rig.origin().await;
        origin.head().await;
        origin.say(&format!("HTTP/1.1 200 OK\r\n{begin}")).await;
        client.head().await;
        drop(origin);
        assert_eq!(client.rest().await, (rest.to_owned(), Some(Code::TargetReset)));
        assert_eq!(rig.row().await["code"], "target_reset");
    }
}

#[tokio::test]
async fn a_client_that_gives_up_ends_its_request_at_the_origin() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = rig.origin().await;
    origin.head().await;
    drop(client.io);
    assert_eq!(origin.rest().await, "");
    assert_eq!(rig.row().await["code"], "client_reset");
    client.served.await.unwrap();
}

#[tokio::test]
async fn a_large_body_moves_in_little_memory_and_waits_for_its_reader() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = rig.origin().await;
    origin.head().await;
    let length = 64 * 1024 * 1024;
    origin.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).await;
    let chunk = vec![7; 1024 * 1024];
    let mut sent = 0;
    // Nobody reads: the origin can't get rid of it.
    while let Ok(written) = timeout(Duration::from_millis(200), origin.0.write(&chunk)).await {
        sent += written.unwrap();
    }
    assert!(sent < length / 2, "{sent} bytes are held somewhere");
    let mut left = length - sent;
    let tasks = rig.tasks.clone();
    tasks.spawn(async move {
        while left > 0 {
            left -= origin.0.write(&chunk[..chunk.len().min(left)]).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    client.head().await;
    let mut body = vec![0; length];
    client.io.read_exact(&mut body).await.unwrap();
    assert!(body.iter().all(|byte| *byte == 7));
    assert_eq!(rig.row().await["down"], length);
    tasks.abort().await;
}
