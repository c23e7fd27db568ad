//! Clients that guess tokens, talk junk, or talk too slowly: what they cost others, and what is told of them. Refuses to know
//! clients that are let in.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::client::{self, SOCKS5_OPEN};
use crate::fixtures::haproxy::BALANCER;
use crate::harness::entries::Entries;
use crate::harness::site::Agent;
use crate::harness::target::{Target, echoes};
use crate::harness::{SOON, connect_from, eventually, heavy};

/// Whoever guesses.
const GUESSER: &str = "127.0.0.6";

#[tokio::test]
async fn d8_two_thousand_wrong_tokens_are_told_in_few_words_and_keep_nobody_out() {
    let _turn = heavy().await;
    let echo = Target::echo().await;
    let mut entries = Entries::new(&[("echo", echo.address())]).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let (by_connect, by_socks5, target) = (entries.connect, entries.socks5, "acme/dc1/echo");
    let guess = async |number: usize| {
        let wrong = format!("guess-{number}");
        if number.is_multiple_of(4) {
            let mut io = connect_from(GUESSER, by_socks5).await.unwrap();
            assert_eq!(client::socks5(&mut io, target, Some(&wrong)).await.unwrap(), [5, 2, 1, 1]);
        } else {
            let mut io = connect_from(GUESSER, by_connect).await.unwrap();
            let answer = client::connect(&mut io, target, Some(&wrong)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 407 ") || answer.starts_with("HTTP/1.1 429 "), "{answer}");
        }
    };
    let before = (entries.site.gateway.audit().len(), entries.site.gateway.process().stderr().lines().count());
    futures_util::stream::iter(0..2000).for_each_concurrent(16, guess).await;
    let mut right = connect_from(GUESSER, by_connect).await.unwrap();
    let answer = client::connect(&mut right, target, Some(&token)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    echoes(&mut right, b"the right one").await.unwrap();
    let mut right = connect_from(GUESSER, by_socks5).await.unwrap();
    assert!(client::socks5(&mut right, target, Some(&token)).await.unwrap().ends_with(&SOCKS5_OPEN));

    let rows = entries.site.gateway.audit().len() - before.0;
    let lines = entries.site.gateway.process().stderr().lines().count() - before.1;
    assert!(rows < 60, "{rows} rows");
    assert!(lines < 120, "{lines} lines");
    entries.site.gateway.audited("connect_refused", |row| row["code"] == "login_failed" && row["source"] == GUESSER).await;
}

#[tokio::test]
async fn d8_five_thousand_refused_asks_of_one_token_are_told_in_few_words_and_stop_nobody() {
    let _turn = heavy().await;
    let echo = Target::echo().await;
    let mut entries = Entries::new(&[("echo", echo.address())]).await;
    let file = entries.site.gateway.dir().join("gateway.yaml");
    let small = std::fs::read_to_string(&file).unwrap() + "audit: {max_size: 1MiB, on_full: refuse}\n";
    std::fs::write(&file, small).unwrap();
    entries.site.gateway.start().await;
    let nothing = entries.token("nothing", "nobody/*/*", &[]).await.text;
    let (other, ci) = (entries.token("other", "acme/dc1/*", &[]).await.text, entries.token("ci", "acme/dc1/*", &[]).await.text);
    let ask = async |token: &str, target: &str| {
        let mut io = TcpStream::connect(entries.connect).await.unwrap();
        client::connect(&mut io, target, Some(token)).await.unwrap()
    };
    let before = (entries.site.gateway.audit().len(), entries.site.gateway.running().stderr().lines().count());
    let asks = futures_util::stream::iter(0..5000).for_each_concurrent(16, async |_| {
        assert!(ask(&nothing, "acme/dc1/echo").await.contains("not_granted"));
    });
    asks.await;
    assert!(ask(&other, "acme/dc9/echo").await.contains("not_granted"));
    entries.site.gateway.audited("refused", |row| row["caller"] == "token other").await;
    let rows = entries.site.gateway.audit().len() - before.0;
    // The log comes behind: nobody waits for it.
    let said = eventually("the log tells of the other caller", SOON, async || {
        Some(entries.site.gateway.running().stderr()).filter(|said| said.contains("token other"))
    });
    let lines = said.await.lines().count() - before.1;
    assert!((60..150).contains(&rows), "{rows} rows");
    assert!((60..150).contains(&lines), "{lines} lines");
    let opened = eventually("another caller's stream is open", SOON, async || {
        let mut io = TcpStream::connect(entries.connect).await.unwrap();
        let answer = client::connect(&mut io, "acme/dc1/echo", Some(&ci)).await.unwrap();
        answer.starts_with("HTTP/1.1 200 ").then_some(io)
    });
    echoes(&mut opened.await, b"nevertheless").await.unwrap();
}

/// Sends a byte each second as long as it is let; what it was told at the end.
async fn dribble(mut io: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let (mut said, mut answer) = (bytes.iter(), Vec::new());
    loop {
        tokio::select! {
            read = io.read_buf(&mut answer) => if !matches!(read, Ok(1..)) { return answer },
            _ = ticks.tick() => if let Some(byte) = said.next() { let _ = io.write_all(&[*byte]).await; },
        }
    }
}

#[tokio::test]
async fn d1_heads_that_come_byte_by_byte_are_let_go_and_clients_beside_them_are_served() {
    let echo = Target::echo().await;
    let keys = format!(", proxy_protocol_from: [{BALANCER}]");
    let entries = Entries::with(&Agent::targets(&[("echo", echo.address())]), &["echo"], &keys).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let (head, hello) = (b"CONNECT echo.dc1.acme.underpass:443 HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let greeting = [&[5, 30][..], &[0; 30]].concat();
    let slow = [
        (GUESSER, entries.connect, &head[..]),
        (GUESSER, entries.connect, b""),
        (GUESSER, entries.connect_tls, hello),
        (GUESSER, entries.socks5, &greeting),
        (GUESSER, entries.certified, b""),
        (BALANCER, entries.site.at("echo"), b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n"),
        (BALANCER, entries.connect, b""),
    ];
    let dribbles = futures_util::stream::iter(slow).for_each_concurrent(None, async |(host, at, bytes)| {
        let io = connect_from(host, at).await.unwrap();
        let answer = timeout(SOON, dribble(io, bytes)).await.unwrap_or_else(|_| panic!("{at} is held by {bytes:?}"));
        assert_eq!(answer, b"", "{at}");
    });
    let beside = async {
        let mut io = connect_from(GUESSER, entries.connect).await.unwrap();
        assert!(client::connect(&mut io, "acme/dc1/echo", Some(&token)).await.unwrap().starts_with("HTTP/1.1 200 "));
        echoes(&mut io, b"beside them").await.unwrap();
    };
    tokio::join!(dribbles, beside);
    assert_eq!(echo.connections(), 1);
    entries.site.gateway.audited("connect_refused", |row| row["code"] == "request_invalid" && row["source"] == GUESSER).await;
}
