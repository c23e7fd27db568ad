//! The race of addresses in paused time, and proxies that answer what the test says. Refuses to know TLS.

use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Races with attempts that take as long as their port says in milliseconds; odd ones fail then. Yields when each began, too.
async fn raced(texts: &[&str]) -> (io::Result<u16>, Vec<(u16, u128)>) {
    let start = Instant::now();
    let begun = Arc::new(Mutex::new(Vec::new()));
    let connect = |address: SocketAddr| {
        begun.lock().unwrap().push((address.port(), start.elapsed().as_millis()));
        async move {
            tokio::time::sleep(Duration::from_millis(address.port().into())).await;
            if address.port() % 2 == 1 { Err(io::Error::other(format!("port {}", address.port()))) } else { Ok(address.port()) }
        }
    };
    let won = race(addresses(texts), connect).await;
    let begun = begun.lock().unwrap().clone();
    (won, begun)
}

#[test]
fn f39_addresses_alternate_and_are_bounded() {
    let mixed = interleave(addresses(&["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1", "10.0.0.3:1", "[fd00::2]:1"]));
    assert_eq!(mixed, addresses(&["[fd00::1]:1", "10.0.0.1:1", "[fd00::2]:1", "10.0.0.2:1", "10.0.0.3:1"]));
    let many = vec!["10.0.0.1:1".parse().unwrap(); 1000];
    assert_eq!(interleave(many).len(), MAX_ADDRESSES);
    assert!(interleave(Vec::new()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn d6_of_a_name_with_a_thousand_addresses_16_are_tried() {
    let (won, begun) = raced(&["10.0.0.1:1"; 1000]).await;
    assert_eq!((won.is_err(), begun.len()), (true, 16));
}

#[tokio::test(start_paused = true)]
async fn f39_a_silent_address_delays_the_next_by_250_ms() {
    let (won, begun) = raced(&["[fd00::1]:60000", "10.0.0.1:10", "10.0.0.2:10"]).await;
    assert_eq!((won.unwrap(), begun), (10, vec![(60_000, 0), (10, 250)]));
}

#[tokio::test(start_paused = true)]
async fn f38_a_failed_address_is_followed_by_the_next_at_once() {
    let (won, begun) = raced(&["10.0.0.1:1", "10.0.0.2:3", "10.0.0.3:4"]).await;
    assert_eq!((won.unwrap(), begun), (4, vec![(1, 0), (3, 1), (4, 4)]));
}

#[tokio::test(start_paused = true)]
async fn the_first_success_wins_also_over_an_earlier_start() {
    let (won, begun) = raced(&["10.0.0.1:1000", "10.0.0.2:100", "10.0.0.3:2000"]).await;
    assert_eq!((won.unwrap(), begun.len()), (100, 2));
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_last_error_is_told() {
    let (won, _) = raced(&["10.0.0.1:501", "10.0.0.2:101"]).await;
    assert_eq!(won.unwrap_err().to_string(), "port 501");
    let (won, _) = raced(&[]).await;
    assert_eq!(won.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
}

fn at(text: &str) -> HostPort {
    text.parse().unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

#[test]
fn no_proxy_takes_names_domains_addresses_and_networks() {
    let no_proxy: Vec<String> =
        ["gw.example", ".corp.example", "192.0.2.7", "10.0.0.0/8", "fd00::/16"].map(ToString::to_string).to_vec();
    let egress = Egress::through(&at("proxy.example:3128"), &no_proxy, None);
    for (to, proxied) in [
        ("gw.example:443", false),
        ("GW.EXAMPLE:443", false),
        ("other.example:443", true),
        ("a.corp.example:443", false),
        ("192.0.2.7:443", false),
        ("192.0.2.8:443", true),
        ("10.1.2.3:443", false),
        ("11.1.2.3:443", true),
        ("[fd00::1]:443", false),
        ("[fd01::1]:443", true),
    ] {
        let proxy = egress.proxy_for(&at(to)).unwrap();
        assert_eq!(proxy.map(|proxy| proxy.at.to_string()), proxied.then(|| "proxy.example:3128".to_owned()), "{to}");
    }
    let none = Egress::through(&at("proxy.example:3128"), &["*".to_owned()], None);
    assert!(none.proxy_for(&at("gw.example:443")).unwrap().is_none());
    assert!(Egress::default().proxy_for(&at("gw.example:443")).unwrap().is_none());
}

#[test]
fn a_proxy_that_is_not_spoken_is_named_without_its_credentials() {
    for url in ["socks5://user:hunter2@proxy.example:1080", "https://user:hunter2@proxy.example"] {
        let egress = Egress { matcher: Some(Arc::new(Matcher::builder().all(url).build())), authorization: None };
        let failure = egress.proxy_for(&at("gw.example:443")).unwrap_err();
        assert_eq!(failure.code, Code::ProxyProtocol);
        assert!(failure.detail.contains("proxy.example") && !failure.detail.contains("hunter2"), "{failure}");
    }
}

#[test]
fn i1_credentials_come_from_the_url_too_and_are_not_shown() {
    let matcher = Matcher::builder().all("http://user:hunter2@[fd00::1]:3128").build();
    let egress = Egress { matcher: Some(Arc::new(matcher)), authorization: None };
    let proxy = egress.proxy_for(&at("gw.example:443")).unwrap().unwrap();
    assert_eq!(proxy.at, at("[fd00::1]:3128"));
    assert_eq!(proxy.authorization.as_ref().unwrap().expose(), "Basic dXNlcjpodW50ZXIy");
    let shown = format!("{proxy:?} {egress:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("dXNlcjpodW50ZXIy"), "{shown}");
}

/// A proxy that reads one request and answers with this; yields the request.
async fn proxy(answer: Vec<u8>) -> (Proxy, tokio::task::JoinHandle<Option<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().into();
    let serve = crate::base::tasks::Tasks::new().spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        // The other end may have had enough.
        let _ = stream.write_all(&answer).await;
        let mut echo = [0; 4];
        if stream.read_exact(&mut echo).await.is_ok() {
            stream.write_all(&echo).await.unwrap();
        }
        String::from_utf8(request).unwrap()
    });
    (Proxy { at, authorization: Some(secret("Basic dXNlcjpodW50ZXIy")) }, serve)
}

#[tokio::test]
async fn f40_connect_carries_bytes_both_ways_and_the_login() {
    let (proxy, served) = proxy(b"HTTP/1.1 200 Connection established\r\nVia: squid\r\n\r\n".to_vec()).await;
    let (mut stream, _) = through_proxy(&proxy, &at("gw.example:443")).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
    let request = served.await.unwrap().unwrap().to_ascii_lowercase();
    assert!(request.starts_with("connect gw.example:443 http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: gw.example:443\r\n"), "{request}");
    assert!(request.contains("\r\nproxy-authorization: basic dxnlcjpodw50zxiy\r\n"), "{request}");
}

async fn answered(answer: &[u8]) -> Failure {
    let (proxy, _served) = proxy(answer.to_vec()).await;
    let failure = through_proxy(&proxy, &at("gw.example:443")).await.unwrap_err();
    assert!(failure.detail.contains("gw.example:443") || failure.detail.contains("127.0.0.1"), "{failure}");
    assert!(!failure.detail.contains("dXNlcjpodW50ZXIy"), "{failure}");
    failure
}

#[tokio::test]
async fn f40_what_a_proxy_answers_has_its_own_code() {
    for (status, code) in [
        ("407 Proxy Authentication Required", Code::ProxyAuthRequired),
        ("403 Forbidden", Code::ProxyDenied),
        ("502 Bad Gateway", Code::ProxyBadGateway),
        ("503 Service Unavailable", Code::ProxyBadGateway),
        ("504 Gateway Timeout", Code::ProxyBadGateway),
        ("302 Found", Code::ProxyProtocol),
        ("500 Oops", Code::ProxyProtocol),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(answered(answer.as_bytes()).await.code, code, "{status}");
    }
    assert_eq!(answered(b"SSH-2.0-OpenSSH_9.6\r\n").await.code, Code::ProxyProtocol);
    let (listener, dead) = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().into();
        (listener, Proxy { at, authorization: None })
    };
    drop(listener);
    assert_eq!(through_proxy(&dead, &at("gw.example:443")).await.unwrap_err().code, Code::ProxyUnreachable);
}

#[tokio::test]
async fn e12_bytes_behind_the_proxys_answer_are_not_taken_for_the_gateways() {
    let failure = answered(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n").await;
    assert_eq!(failure.code, Code::ProxyProtocol);
}

#[tokio::test]
async fn e12_a_huge_answer_of_the_proxy_is_cut_off() {
    let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
    for line in 0..100_000 {
        answer.extend(format!("X-{line}: {}\r\n", "a".repeat(40)).bytes());
    }
    assert_eq!(answered(&answer).await.code, Code::ProxyProtocol);
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; 8 << 20]].concat();
    assert_eq!(answered(&endless).await.code, Code::ProxyProtocol);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere: HostPort = listener.local_addr().unwrap().into();
    drop(listener);
    let failure = resolve_and_race(&nowhere, &Wording::GATEWAY).await.unwrap_err();
    assert_eq!(failure.code, Code::GatewayRefused);
    assert!(failure.detail.contains(&nowhere.to_string()), "{failure}");
}
