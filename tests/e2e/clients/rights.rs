//! What a caller may do and for how long: rights that end with their token, limits of its own, and nothing to be learnt about what
//! is not granted. Refuses to know real programs.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::client::{self, basic, echoed};
use crate::harness::entries::{Entries, Way};
use crate::harness::site::Agent;
use crate::harness::target::{Target, echoes, pattern};
use crate::harness::{SOON, eventually};

/// How soon a revoked caller's streams have ended.
const REVOKED: Duration = Duration::from_secs(5);

const BY_TOKEN: [Way; 4] = [Way::Connect, Way::ConnectTls, Way::Socks5, Way::Socks5Tls];

/// The codes with which a caller's streams were closed in one audit.
fn ends_of(rows: &[Value], caller: &str) -> Vec<Value> {
    let requests: Vec<_> =
        rows.iter().filter(|row| row["event"] == "opened" && row["caller"] == caller).map(|row| &row["request"]).collect();
    let closed = rows.iter().filter(|row| row["event"] == "closed" && requests.contains(&&row["request"]));
    closed.map(|row| row["code"].clone()).collect()
}

#[tokio::test]
async fn f27_a_revoked_tokens_streams_end_at_both_ends_and_another_tokens_go_on() {
    let echo = Target::echo().await;
    let entries = Entries::new(&[("echo", echo.address())]).await;
    let (gone, kept) = (entries.token("gone", "acme/dc1/*", &[]).await, entries.token("kept", "acme/*/echo", &[]).await);
    let (mut cut, mut going) = (Vec::new(), Vec::new());
    for way in BY_TOKEN {
        cut.push((way, entries.open(way, "echo", &gone.text).await.unwrap()));
        going.push(entries.open(way, "echo", &kept.text).await.unwrap());
    }
    let (process, at) = entries.connector(&gone, "echo").await;
    let mut local = TcpStream::connect(at).await.unwrap();
    echoes(&mut local, b"before").await.unwrap();
    for io in cut.iter_mut().map(|(_, io)| io).chain(&mut going) {
        echoed(io, b"before").await;
    }

    entries.revoke("gone").await;
    let ended = timeout(REVOKED, async {
        for (way, io) in &mut cut {
            assert!(io.read_to_end(&mut Vec::new()).await.is_err(), "{way:?}: it ended as if all were well");
        }
        assert!(local.read_to_end(&mut Vec::new()).await.is_err(), "connect ended it as if all were well");
    });
    ended.await.expect("within 5 s");
    for io in &mut going {
        echoed(io, b"after").await;
    }
    let caller = "token gone";
    eventually("both audits say why", SOON, async || {
        let revoked = |rows: Vec<Value>| ends_of(&rows, caller) == ["caller_revoked"; 5];
        (revoked(entries.site.gateway.audit()) && revoked(entries.site.agent.audit())).then_some(())
    })
    .await;
    for rows in [entries.site.gateway.audit(), entries.site.agent.audit()] {
        assert!(ends_of(&rows, "token kept").is_empty());
    }
    for way in BY_TOKEN {
        assert!(entries.open(way, "echo", &gone.text).await.is_err(), "{way:?}");
    }
    assert!(process.stderr().contains("stream_cut"), "{}", process.stderr());
}

#[tokio::test]
async fn f27_a_revoked_token_stays_revoked_after_a_crash_and_others_still_count() {
    let echo = Target::echo().await;
    let mut entries = Entries::new(&[("echo", echo.address())]).await;
    let (gone, kept) = (entries.token("gone", "acme/dc1/*", &[]).await, entries.token("kept", "acme/dc1/*", &[]).await);
    entries.revoke("gone").await;
    entries.site.gateway.process().signal(Signal::KILL);
    entries.site.gateway.start().await;
    entries.site.agent.connected().await;
    let refused = entries.open(Way::Connect, "echo", &gone.text).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("login_failed"), "{refused}");
    eventually("the agent is back", SOON, async || entries.open(Way::Connect, "echo", &kept.text).await.ok()).await;
}

/// A refusal, but for what differs each time.
fn without_request(answer: &str) -> String {
    let Some((before, rest)) = answer.split_once("\"request\":\"") else { return answer.to_owned() };
    let (_, after) = rest.split_once('"').expect("it has an end");
    format!("{before}{after}")
}

/// The answer to a CONNECT for this target.
async fn connect(entries: &Entries, target: &str, token: &str) -> String {
    let mut io = TcpStream::connect(entries.connect).await.unwrap();
    let answer = client::connect(&mut io, target, Some(token)).await.unwrap();
    assert!(!answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
    assert!(!answer.contains(target) && !answer.contains("127.0.0.1"), "{answer}");
    without_request(&answer)
}

async fn socks5(entries: &Entries, target: &str, token: &str) -> Vec<u8> {
    let mut io = TcpStream::connect(entries.socks5).await.unwrap();
    client::socks5(&mut io, target, Some(token)).await.unwrap()
}

#[tokio::test]
async fn i2_what_is_not_granted_looks_the_same_whether_it_exists_or_not() {
    let echo = Target::echo().await;
    let entries = Entries::new(&[("echo", echo.address())]).await;
    let mut other = Agent::enroll_in(&entries.site.gateway, "acme", "dc2", "b1").await;
    other.configure(&Agent::targets(&[("db", echo.address())]));
    other.start().await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let real = "acme/dc2/db";
    // Lengths are the same, so that what depends on what was asked would show.
    let made_up = ["acme/dc2/xy", "acme/dc9/db", "nope/dc1/db", "nope/dc9/xy"];
    let (by_connect, by_socks5) = (connect(&entries, real, &token).await, socks5(&entries, real, &token).await);
    assert!(
        by_connect.starts_with("HTTP/1.1 403 ") && by_connect.contains("\r\nUnderpass-Refusal: not_granted\r\n"),
        "{by_connect}"
    );
    for target in made_up {
        assert_eq!(connect(&entries, target, &token).await, by_connect, "{target}");
        assert_eq!(socks5(&entries, target, &token).await, by_socks5, "{target}");
    }
    assert_eq!(echo.connections(), 0);
    for path in ["/v1/agents", "/v1/client-tokens", "/metrics", "/"] {
        let mut io = TcpStream::connect(entries.connect).await.unwrap();
        let login = basic(&token);
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: gateway\r\nProxy-Authorization: {login}\r\nAuthorization: {login}\r\n\r\n");
        io.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, io.read_to_string(&mut answer)).await.expect("it is answered").unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("b1"), "{answer}");
    }
}

#[tokio::test]
async fn i5_a_token_that_is_nearly_right_is_refused_like_any_other() {
    let echo = Target::echo().await;
    let entries = Entries::new(&[("echo", echo.address())]).await;
    let good = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let revoked = entries.token("gone", "acme/dc1/*", &[]).await.text;
    entries.revoke("gone").await;
    let mut nearly = good.clone().into_bytes();
    *nearly.last_mut().unwrap() = if good.ends_with('A') { b'B' } else { b'A' };
    let nearly = String::from_utf8(nearly).unwrap();
    let target = "acme/dc1/echo";
    let (by_connect, by_socks5) = (connect(&entries, target, "wrong").await, socks5(&entries, target, "wrong").await);
    assert!(by_connect.starts_with("HTTP/1.1 407 ") && by_connect.contains("login_failed"), "{by_connect}");
    for token in [&nearly, &good[..good.len() - 1], &good.to_lowercase(), &revoked, &"x".repeat(255)] {
        assert_eq!(connect(&entries, target, token).await, by_connect);
        assert_eq!(socks5(&entries, target, token).await, by_socks5);
    }
    let mut io = entries.open(Way::Connect, "echo", &good).await.unwrap();
    echoed(&mut io, b"the right one").await;
}

#[tokio::test]
async fn a_caller_has_its_streams_and_no_more_whatever_way_it_comes() {
    let echo = Target::echo().await;
    let entries = Entries::new(&[("echo", echo.address())]).await;
    let token = entries.token("two", "acme/dc1/*", &["--max-streams", "2"]).await.text;
    let other = entries.token("other", "acme/dc1/*", &[]).await.text;
    let first = entries.open(Way::Connect, "echo", &token).await.unwrap();
    let _second = entries.open(Way::Socks5Tls, "echo", &token).await.unwrap();
    for way in BY_TOKEN {
        let refused = entries.open(way, "echo", &token).await.map(drop).unwrap_err().to_string();
        let connect = matches!(way, Way::Connect | Way::ConnectTls);
        assert!(!connect || refused.starts_with("HTTP/1.1 503 ") && refused.contains("quota_exceeded"), "{way:?}: {refused}");
    }
    echoed(&mut entries.open(Way::Connect, "echo", &other).await.unwrap(), b"another caller").await;
    drop(first);
    eventually("its place is free again", SOON, async || entries.open(Way::Connect, "echo", &token).await.ok()).await;
}

#[tokio::test]
async fn a_callers_rate_slows_it_down_and_nobody_else() {
    let source = Target::start(|mut stream| async move {
        stream.write_all(&pattern(4 << 20)).await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut Vec::new()).await.map(drop)
    })
    .await;
    let entries = Entries::new(&[("source", source.address())]).await;
    let slow = entries.token("slow", "acme/dc1/*", &["--rate", "1MiB"]).await.text;
    let fast = entries.token("fast", "acme/dc1/*", &[]).await.text;
    let fetch = async |token: &str| {
        let (start, mut came) = (Instant::now(), Vec::new());
        let mut io = entries.open(Way::Connect, "source", token).await.unwrap();
        timeout(SOON, io.read_to_end(&mut came)).await.expect("it ends").unwrap();
        assert!(came == pattern(4 << 20));
        start.elapsed()
    };
    // A second's worth is free; a rate is a promise, so it doesn't depend on how busy the machine is.
    assert!(fetch(&slow).await >= Duration::from_secs(3));
    fetch(&fast).await;
}

#[tokio::test]
async fn a_grant_is_for_whole_names_and_its_stars() {
    let echo = Target::echo().await;
    let entries = Entries::new(&[("echo", echo.address()), ("echo-2", echo.address())]).await;
    for (number, (grant, one, two)) in
        [("acme/dc1/echo", true, false), ("acme/*/echo-2", false, true), ("*/*/*", true, true), ("other/*/*", false, false)]
            .into_iter()
            .enumerate()
    {
        let token = entries.token(&format!("t{number}"), grant, &[]).await.text;
        assert_eq!(entries.open(Way::Connect, "echo", &token).await.is_ok(), one, "{grant}");
        assert_eq!(entries.open(Way::Connect, "echo-2", &token).await.is_ok(), two, "{grant}");
    }
}
