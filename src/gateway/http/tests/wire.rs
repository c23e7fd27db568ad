//! What is spoken between: bodies, trailers, upgrades, and clients who keep to no rule.

use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let site = Site::new(echo).await;
    let frames = || {
        let trailers = [("grpc-status", "0")].map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let data = vec![b'x'; 1 << 20];
        let parts = [Frame::data(Bytes::from(data)), Frame::trailers(trailers.into_iter().collect())];
        BodyExt::boxed(StreamBody::new(futures_util::stream::iter(parts.map(Ok))))
    };
    let request = Request::builder().method("POST").uri("https://gw/t/acme/dc1/erp/").header("authorization", CI);
    let response = site.http2().await.send_request(request.body(frames()).unwrap()).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes().len(), 1 << 20);

    let mut request = ask("POST", "/t/acme/dc1/erp/", Some(CI), frames());
    request.headers_mut().insert("trailer", HeaderValue::from_static("grpc-status"));
    let response = site.http1().await.send_request(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 1 << 20);
}

/// Answers what it is given so far, until that ends.
fn switch(mut request: Request<Incoming>) -> Answering {
    Box::pin(async move {
        let asked = request.headers()["upgrade"].clone();
        let upgrade = hyper::upgrade::on(&mut request);
        Tasks::new().spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut said = [0; 4];
            io.read_exact(&mut said).await.unwrap();
            io.write_all(&said).await.unwrap();
            io.shutdown().await.unwrap();
        });
        Response::builder().status(101).header("connection", "upgrade").header("upgrade", asked).body(text("")).unwrap()
    })
}

#[tokio::test]
async fn a_websocket_passes_on_a_stream_of_its_own() {
    let mut site = Site::new(switch).await;
    for _ in 0..2 {
        let mut request = get("/t/acme/dc1/erp/ws", Some(CI));
        for (name, value) in [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let mut response = site.http1().await.send_request(request).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["upgrade"]), (101, &HeaderValue::from_static("websocket")));
        let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        io.write_all(b"ping").await.unwrap();
        io.shutdown().await.unwrap();
        let mut said = String::new();
        io.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "ping");
        let mut rows = site.rows(3).await;
        rows.sort();
        assert_eq!(rows, ["closed", "opened", "request"]);
    }
    assert_eq!((site.asked.recv().await.unwrap().0, site.asked.recv().await.unwrap().0), (0, 1));
}

/// What is answered to raw bytes until the connection ends.
async fn said(site: &Site, bytes: &[u8]) -> String {
    let mut io = site.connection();
    // It may have been refused in the middle.
    let _ = io.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = io.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn e3_a_head_that_two_readers_read_differently_is_refused() {
    let mut site = Site::new(hello).await;
    let head = format!("Authorization: {CI}\r\nConnection: close\r\n");
    for (line, more) in [
        ("CONNECT erp.dc1.acme.underpass:443 HTTP/1.1", "Host: erp.dc1.acme.underpass:443\r\n"),
        ("GET /t/acme/dc1/erp HTTP/1.1", ""),
        ("GET /t/acme/dc1/erp HTTP/1.1", "Host: a\r\nHost: b\r\n"),
        ("GET http://b/t/acme/dc1/erp HTTP/1.1", "Host: a\r\n"),
        ("POST /t/acme/dc1/erp HTTP/1.1", "Host: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n"),
        ("POST /t/acme/dc1/erp HTTP/1.1", "Host: a\r\nContent-Length: +4\r\n"),
        ("POST /t/acme/dc1/erp HTTP/1.1", "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"),
        ("POST /t/acme/dc1/erp HTTP/1.1", "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("POST /t/acme/dc1/erp HTTP/1.0", "Host: a\r\nTransfer-Encoding: chunked\r\n"),
        ("GET /t/acme/dc1/erp HTTP/1.1", "Host: a\r\nConnection: authorization\r\n"),
        ("GET /t/acme/dc1/erp HTTP/1.1", "Host: a\r\nX : y\r\n"),
        ("GET /t/acme/dc1/erp HTTP/1.1", "Host: a\r\n folded: y\r\n"),
    ] {
        let answer = said(&site, format!("{line}\r\n{more}{head}\r\n0\r\n\r\n").as_bytes()).await;
        let status = if line.starts_with("CONNECT") { "HTTP/1.1 405" } else { "HTTP/1." };
        assert!(
            answer.starts_with(status) && (answer.contains(" 400 ") || answer.contains(" 405 ")),
            "{line} {more}: {answer}"
        );
    }
    assert!(site.asked.try_recv().is_err());

    // One reading is right (RFC 9112, 6.3); it alone goes on, and nothing is read behind it.
    for lengths in ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"] {
        let request = format!("POST /t/acme/dc1/erp HTTP/1.1\r\nHost: a\r\nAuthorization: {CI}\r\n{lengths}\r\n\r\n");
        let answer =
            said(&site, format!("{request}0\r\n\r\nGET /t/acme/dc1/erp/smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        let (_, asked) = site.asked.recv().await.unwrap();
        assert!(!asked.headers.contains_key("content-length") && asked.uri.path() == "/");
    }
    assert!(site.asked.try_recv().is_err());
}

#[tokio::test]
async fn a_body_is_sent_when_the_agent_gives_leave() {
    let site = Site::new(echo).await;
    let mut io = site.connection();
    let head = format!(
        "POST /t/acme/dc1/erp HTTP/1.1\r\nHost: a\r\nAuthorization: {CI}\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    );
    io.write_all(head.as_bytes()).await.unwrap();
    let mut leave = [0; 25];
    io.read_exact(&mut leave).await.unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    io.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("body"), "{answer}");

    let site = Site::new(|_| Box::pin(async { Response::builder().status(413).body(text("no")).unwrap() })).await;
    let mut io = site.connection();
    io.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "no leave was given: {answer}");
}

#[tokio::test(start_paused = true)]
async fn e10_a_connection_without_a_request_is_closed_in_time() {
    let site = Site::new(hello).await;
    let begun = Instant::now();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    assert!(!said(&site, preface).await.is_empty());
    assert!((5..12).contains(&begun.elapsed().as_secs()), "a client of HTTP/2 that asks for nothing: {:?}", begun.elapsed());

    let mut io = site.connection();
    io.write_all(format!("GET /t/acme/dc1/erp HTTP/1.1\r\nHost: a\r\nAuthorization: {CI}\r\n\r\nGET /slow").as_bytes())
        .await
        .unwrap();
    let begun = Instant::now();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!((74..85).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn e10_a_flood_of_resets_ends_its_connection() {
    let mut site = Site::new(hello).await;
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // Literal fields without indexing (RFC 7541, 6.2.2): enough for a request, and no login.
    let fields = [&b"\x82\x86\x84\x41\x02gw"[..]].concat();
    for stream in (1..20_000_u32).step_by(2) {
        flood.extend([&[0, 0, u8::try_from(fields.len()).unwrap(), 1, 5][..], &stream.to_be_bytes(), &fields].concat());
        flood.extend([&[0, 0, 4, 3, 0][..], &stream.to_be_bytes(), &8_u32.to_be_bytes()].concat());
    }
    let answer = said(&site, &flood).await;
    assert!(answer.contains("too_many") || !answer.is_empty());
    assert!(site.asked.try_recv().is_err());
    assert!(site.rows.take().len() < 2000, "most was never looked at");
}
