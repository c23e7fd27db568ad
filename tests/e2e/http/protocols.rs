//! What HTTP is used for beside documents: upgrades, events, trailers, waiting before a body. Refuses to know rules.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use underpass::base::tasks::Tasks;

use super::{Web, http, says};
use crate::fixtures::origin::Origin;
use crate::harness::target::{Target, pattern};
use crate::harness::{SOON, eventually};

/// A request that asks for the echo of the origin, with a line before its end.
fn asks_for_echo(web: &Web, target: &str, more: &str) -> String {
    format!(
        "GET /t/acme/dc1/{target}/socket HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: upgrade\r\nUpgrade: echo\r\n{more}\r\n",
        web.token
    )
}

#[tokio::test]
async fn an_upgrade_passes_where_a_rule_allows_it_and_carries_bytes_both_ways() {
    let origin = Origin::start().await;
    let upgrade = ", allow: [{path: /socket, upgrade: true}]";
    let web = Web::new(&[("live", http(origin.address(), upgrade)), ("plain", http(origin.address(), ""))]).await;
    let mut client = BufReader::new(TcpStream::connect(web.entry).await.unwrap());
    client.write_all(asks_for_echo(&web, "live", "").as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(timeout(SOON, client.read_line(&mut head)).await.unwrap().unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101 ") && head.to_ascii_lowercase().contains("upgrade: echo"), "{head}");
    let sent = pattern(1 << 20);
    let (mut from, mut to) = tokio::io::split(client);
    let mut back = vec![0; sent.len()];
    let (wrote, read) = tokio::join!(to.write_all(&sent), timeout(SOON, from.read_exact(&mut back)));
    wrote.unwrap();
    read.unwrap().unwrap();
    assert!(back == sent);
    to.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, from.read(&mut back)).await.unwrap().unwrap(), 0, "the end goes both ways");
    let refused = says(web.entry, asks_for_echo(&web, "plain", "Connection: close\r\n").as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("upgrade_denied"), "{refused}");
}

#[tokio::test]
async fn e4_an_origin_that_fakes_a_101_is_a_broken_target() {
    let origin = Origin::start().await;
    let web = Web::new(&[("live", http(origin.address(), ", allow: [{path: /**, upgrade: true}]"))]).await;
    let (status, code, _) = web.told(&[], &web.url("live", "/fake-101")).await;
    assert_eq!(status, 502, "{code}");
    let asked = asks_for_echo(&web, "live", "").replace("/socket", "/fake-101");
    let said = says(web.entry, asked.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 502 "), "{said}");
}

#[tokio::test]
async fn events_arrive_one_by_one_as_they_happen() {
    for version in [2, 1] {
        let origin = Origin::start().await;
        let web = Web::new(&[("live", http(origin.address(), ""))]).await;
        let tasks = Tasks::new();
        let mut body = get(&web, version, "/events", &tasks).await;
        for number in 0..3 {
            origin.event();
            let event = timeout(SOON, body.frame()).await.expect("no event waits for the next").unwrap().unwrap();
            assert_eq!(event.into_data().unwrap(), format!("data: {number}\n\n"));
        }
    }
}

#[tokio::test]
async fn trailers_arrive_as_grpc_needs_them() {
    let origin = Origin::start().await;
    let web = Web::new(&[("grpc", http(origin.address(), ", http2: true")), ("old", http(origin.address(), ""))]).await;
    let said =
        web.curl(&["-f", "--http2-prior-knowledge", "-H", "TE: trailers", "-D", "-"], &web.url("grpc", "/trailers")).await.ok();
    assert!(said.contains("message") && said.to_ascii_lowercase().contains("grpc-status: 0"), "{said}");
    assert_eq!((origin.last().version, origin.last().header("te")), (hyper::Version::HTTP_2, Some("trailers")));
    let url = web.url("old", "/x");
    web.curl(&["-f", "--http2-prior-knowledge"], &url).await.ok();
    assert_eq!(origin.last().version, hyper::Version::HTTP_11, "to an origin that doesn't say it takes HTTP/2");
}

#[tokio::test]
async fn a_client_that_waits_before_its_body_is_told_to_go_on_or_not() {
    let origin = Origin::start().await;
    let web = Web::new(&[("erp-api", http(origin.address(), ", allow: [{path: /echo, max_body: 1MiB}]"))]).await;
    let waits =
        ["-f", "-H", "Expect: 100-continue", "--expect100-timeout", "20", "--max-time", "15", "--data-binary", "@/etc/passwd"];
    let wanted = std::fs::read_to_string("/etc/passwd").unwrap();
    assert_eq!(web.curl(&waits, &web.url("erp-api", "/echo")).await.ok(), wanted);
    let before = origin.seen().len();
    let (status, code, _) = web.told(&waits[1..], &web.url("erp-api", "/other")).await;
    assert_eq!((status, code.as_str(), origin.seen().len()), (403, "request_denied", before));
}

#[tokio::test]
async fn d5_targets_that_are_silent_endless_or_broken_are_told_apart() {
    let silent = Target::start(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
        Ok(())
    })
    .await;
    let endless = Target::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        loop {
            stream.write_all(b"X-Endless: and one more and one more and one more and one more\r\n").await?;
        }
    })
    .await;
    let torn = Target::start(|mut stream| async move {
        let mut head = vec![0; 4096];
        let _ = stream.read(&mut head).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this").await
    })
    .await;
    let rude = Target::start(|mut stream| async move { stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await }).await;
    let web = Web::new(&[
        ("silent", http(silent.address(), ", limits: {response_timeout: 500ms}")),
        ("endless", http(endless.address(), "")),
        ("torn", http(torn.address(), "")),
        ("rude", http(rude.address(), "")),
    ])
    .await;
    let (status, code, _) = web.told(&[], &web.url("silent", "/")).await;
    assert_eq!((status, code.as_str()), (504, "response_timeout"));
    for target in ["endless", "rude"] {
        let (status, code, body) = web.told(&[], &web.url(target, "/")).await;
        assert_eq!(status, 502, "{target}: {code} {body}");
    }
    let cut = web.curl(&["-f"], &web.url("torn", "/")).await;
    assert!(cut.code() == 18 || cut.code() == 56 || cut.code() == 92, "a part is not taken for all: {}", cut.code());
    let memory = web.agent.running().rss_kib();
    assert!(memory < 64 << 10, "{memory} KiB");
    eventually("each is on record", SOON, async || {
        let rows = Web::requests(&web.agent.audit());
        (rows.iter().filter(|row| !row["code"].is_null()).count() >= 4).then_some(())
    })
    .await;
}

/// The body of a GET, frame by frame.
async fn get(web: &Web, version: u8, path: &str, tasks: &Tasks) -> hyper::body::Incoming {
    let io = TokioIo::new(TcpStream::connect(web.entry).await.unwrap());
    // In HTTP/1.1 a path alone, in HTTP/2 all of the URL's parts.
    let target = if version == 2 { web.url("live", path) } else { format!("/t/acme/dc1/live{path}") };
    let request = Request::get(target).header("authorization", format!("Bearer {}", web.token));
    let mut request = request.body(Full::<Bytes>::default()).unwrap();
    let answer = if version == 2 {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tasks.spawn(async { drop(connection.await) });
        timeout(SOON, sender.send_request(request)).await.unwrap().unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tasks.spawn(async { drop(connection.await) });
        request.headers_mut().insert("host", "x".parse().unwrap());
        timeout(SOON, sender.send_request(request)).await.unwrap().unwrap()
    };
    assert_eq!(answer.status(), 200);
    answer.into_body()
}
