//! Requests that two readers take for different ones: each precedent by its name, sent as bytes, and what the origin got of it.

use super::*;

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a client says is refused, or breaks off; the origin is not dialled.
async fn refused(request: &str) -> String {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say(request).await;
    let (answer, _) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer:?}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:?}: nothing behind it was read: {answer:?}");
    rig.nothing_dialled().await;
    answer
}

/// What the origin gets of a request that passes, up to the end of `body`. The client's connection goes on or is closed.
async fn passes(request: &str, ends: &str) -> String {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.say(request).await;
    let mut origin = rig.origin().await;
    let mut got = origin.head().await;
    while !got.ends_with(ends) {
        got += &origin.read(1).await;
    }
    origin.say(OK).await;
    client.answer().await;
    got
}

#[tokio::test]
async fn rustsec_2021_0020_te_and_cl_are_read_by_the_coding_and_the_connection_closes() {
    for lengths in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"] {
        let mut rig = Rig::new("").await;
        let mut client = rig.client();
        client.say(&format!("POST /a HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\n{NEXT}")).await;
        let mut origin = rig.origin().await;
        let head = origin.head().await;
        assert_eq!((value(&head, "content-length"), value(&head, "transfer-encoding")), (None, Some("chunked")), "{head}");
        assert_eq!(origin.read(5).await, "0\r\n\r\n");
        origin.say(OK).await;
        let (answer, code) = client.rest().await;
        assert_eq!((answer.matches("HTTP/1.1 ").count(), code), (1, None), "what followed was read as a request: {answer}");
        assert_eq!(origin.rest().await, "");
    }
}

#[tokio::test]
async fn rustsec_2021_0078_lengths_that_are_none_are_refused() {
    for length in ["+5", "5, 5", "5,6", "0x5", "5 5", "-1", "5;", "18446744073709551616", "", " "] {
        refused(&format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nhello{NEXT}")).await;
    }
    refused("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello").await;
    let got = passes("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "hello").await;
    assert_eq!(got.to_ascii_lowercase().matches("content-length: 5").count(), 1, "{got}");
}

#[tokio::test]
async fn rustsec_2021_0079_codings_other_than_chunked_are_refused() {
    for coding in
        ["xchunked", "chunked, identity", "gzip, chunked", "chunked, chunked", "identity", "chunked\u{b}", "x", "chunked;a=1"]
    {
        refused(&format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n{NEXT}")).await;
    }
    refused("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    refused("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn rustsec_2026_0034_http10_with_a_coding_is_refused() {
    refused("POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    refused("POST /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn heads_with_folds_blanks_and_bare_line_ends_are_refused() {
    for head in [
        "GET /a HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded: 2\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\n\tX: 1\r\n\r\n",
        "GET /a HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nX: 1\0\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /a HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET /a HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /a\r\n\r\n",
        "G\0T /a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /a HTTP/1.1\r\n\r\n",
    ] {
        refused(head).await;
    }
}

#[tokio::test]
async fn line_ends_without_cr_are_made_whole() {
    let got = passes("GET /a HTTP/1.1\nHost: a\nX: 1\n\n", "\r\n\r\n").await;
    assert_eq!(got.matches('\n').count(), got.matches("\r\n").count(), "{got:?}");
    assert_eq!(value(&got, "x"), Some("1"));
}

#[tokio::test]
async fn what_chunks_say_beside_their_length_goes_no_further() {
    let chunks = "5;a=\"b\";c\r\nhello\r\n0;last\r\n\r\n";
    let got = passes(&format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"), "0\r\n\r\n").await;
    assert!(got.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{got:?}");
    for chunks in [
        "5\nhello\n0\n\n",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n",
        "g\r\n",
        "5 5\r\nhello\r\n",
        "\r\n",
        "fffffffffffffffff\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
    ] {
        let mut rig = Rig::new("").await;
        let mut client = rig.client();
        client.say(&format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{NEXT}")).await;
        let got = rig.origin().await.rest().await;
        assert!(!got.contains("0\r\n\r\n") && !got.contains("/next"), "{chunks:?}: the body broke off: {got:?}");
        let (answer, _) = client.rest().await;
        assert!(!answer.contains("200 OK"), "{chunks:?}: {answer}");
    }
}

#[tokio::test]
async fn e3_connection_names_no_header_away_and_h2c_is_passed_over() {
    refused("GET /a HTTP/1.1\r\nHost: a\r\nConnection: X-Auth\r\nX-Auth: 1\r\n\r\n").await;
    refused("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close, Cookie\r\nCookie: 1\r\n\r\n").await;
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    let got = passes(&format!("GET /a HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n"), "\r\n\r\n").await;
    for gone in ["connection", "upgrade", "http2-settings"] {
        assert_eq!(value(&got, gone), None, "{got}");
    }
}

#[tokio::test]
async fn a_head_beyond_its_limit_is_refused() {
    let long = "x".repeat(70_000);
    for head in [
        format!("GET /a HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        format!("GET /a HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(200)),
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let mut rig = Rig::new("").await;
        let Client { io, served } = rig.client();
        let (mut read, mut write) = tokio::io::split(io);
        let says = rig.tasks.spawn(async move {
            // It may be closed before it is through.
            let _ = write.write_all(head.as_bytes()).await;
        });
        let answer = super::head(&mut read).await;
        assert!(answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 "), "{answer}");
        drop(read);
        says.await.unwrap();
        served.await.unwrap();
    }
}

#[tokio::test]
async fn pipelined_requests_are_decided_one_by_one_and_answered_in_order() {
    let mut rig = Rig::new(r#"[{"path": "/a"}, {"path": "/c"}]"#).await;
    let mut client = rig.client();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.say(&[request("/a"), request("/b"), request("/c")].concat()).await;
    let mut origin = rig.origin().await;
    assert!(origin.head().await.starts_with("GET /a "));
    origin.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
    assert!(client.answer().await.0.starts_with("HTTP/1.1 403 "));
    assert!(origin.head().await.starts_with("GET /c "));
    origin.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
}
