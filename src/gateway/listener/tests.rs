//! Clients' listeners on loopback, in front of a gateway in memory. Refuses to know what relaying does.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::base::grant::Grants;
use crate::base::limits::LOGIN_FAILURES_PER_MINUTE;
use crate::base::tasks::Tasks;
use crate::gateway::callers::{PublishedToken, token_hash};
use crate::gateway::fixture::{agent, caller, gateway, wanted};
use crate::gateway::quota::Limits;
use crate::tunnel::fixture::Rows;

fn spec(listen: SocketAddr, target: &str) -> ListenerSpec {
    of(listen, Entry::open(wanted(target).target, listen))
}

fn of(listen: SocketAddr, entry: Entry) -> ListenerSpec {
    ListenerSpec {
        listen,
        terms: Terms { entry, early_data: true, idle: None },
        allow_from: AllowFrom::all(),
        proxy_from: AllowFrom::nobody(),
        tls: None,
        certified: HashMap::new(),
        client_ca: None,
    }
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    std::net::TcpListener::bind(any()).unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn f44_a_reload_moves_new_connections_and_leaves_open_ones() {
    let (gateway, _rows, tasks) = gateway();
    let mut agent = agent("a", &["one", "two"]).await;
    gateway.registry().add(agent.live.clone());
    let listeners = Listeners::default();
    let (stays, goes) = (free(), free());
    listeners.apply(&gateway, vec![spec(stays, "one"), spec(goes, "one")]).unwrap();

    let mut first = TcpStream::connect(goes).await.unwrap();
    let (mut stream, _) = agent.accept().await;
    assert_eq!(listeners.apply(&gateway, vec![spec(stays, "two")]).unwrap(), [stays]);
    first.write_all(b"on").await.unwrap();
    assert_eq!(stream.read(&mut [0; 2]).await.unwrap(), 2);

    let _second = TcpStream::connect(stays).await.unwrap();
    assert_eq!(agent.asked().await.1.target.as_str(), "two");
    while TcpStream::connect(goes).await.is_ok() {
        tokio::task::yield_now().await;
    }
    tasks.abort().await;
}

#[tokio::test]
async fn f44_an_address_that_cannot_be_had_leaves_all_as_it_was() {
    let (gateway, _rows, tasks) = gateway();
    let mut agent = agent("a", &["one", "two"]).await;
    gateway.registry().add(agent.live.clone());
    let listeners = Listeners::default();
    let address = free();
    listeners.apply(&gateway, vec![spec(address, "one")]).unwrap();
    let taken = std::net::TcpListener::bind(any()).unwrap();
    let wrong = vec![spec(address, "two"), spec(free(), "two"), spec(taken.local_addr().unwrap(), "two")];
    assert_eq!(listeners.apply(&gateway, wrong).unwrap_err().code, Code::ListenFailed);
    let _client = TcpStream::connect(address).await.unwrap();
    assert_eq!(agent.asked().await.1.target.as_str(), "one");
    tasks.abort().await;
}

#[tokio::test]
async fn a_chosen_port_is_told_also_after_a_reload() {
    let (gateway, _rows, tasks) = gateway();
    let listeners = Listeners::default();
    let chosen = listeners.apply(&gateway, vec![spec(any(), "one")]).unwrap();
    assert_ne!(chosen[0].port(), 0);
    assert_eq!(listeners.apply(&gateway, vec![spec(any(), "two")]).unwrap(), chosen);
    tasks.abort().await;
}

#[tokio::test]
async fn a_source_that_is_not_allowed_is_refused_with_its_row() {
    let (gateway, mut rows, tasks) = gateway();
    let listeners = Listeners::default();
    let nobody = ListenerSpec { allow_from: AllowFrom::only(Some(Vec::new())), ..spec(any(), "one") };
    let address = listeners.apply(&gateway, vec![nobody]).unwrap()[0];
    let mut client = TcpStream::connect(address).await.unwrap();
    assert!(matches!(client.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert_eq!(rows.take(), ["connect_refused denied_source_ip"]);
    tasks.abort().await;
}

#[tokio::test]
async fn f19_a_refused_client_sees_a_reset() {
    let (gateway, mut rows, tasks) = gateway();
    let address = Listeners::default().apply(&gateway, vec![spec(any(), "one")]).unwrap()[0];
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(rows.take(), ["refused no_agent"]);
    tasks.abort().await;
}

#[tokio::test]
async fn a_drain_waits_for_clients_then_ends_the_sessions() {
    let (gateway, mut rows, tasks) = gateway();
    let mut agent = agent("a", &["one"]).await;
    gateway.registry().add(agent.live.clone());
    let listeners = Listeners::default();
    let address = listeners.apply(&gateway, vec![spec(any(), "one")]).unwrap()[0];
    let mut client = TcpStream::connect(address).await.unwrap();
    let (mut stream, _) = agent.accept().await;
    let finish = async {
        while gateway.ready().is_ok() {
            tokio::task::yield_now().await;
        }
        client.write_all(b"last").await.unwrap();
        client.shutdown().await.unwrap();
        let mut last = Vec::new();
        stream.read_to_end(&mut last).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        last
    };
    let (drained, last) = tokio::join!(gateway.drain(), finish);
    assert_eq!((drained, last.as_slice()), (crate::base::drain::Drained::Clean, &b"last"[..]));
    assert_eq!(rows.take(), ["opened", "closed"]);
    assert!(agent.live.link.is_lost() || agent.live.link.ended().await.code == Code::Stopping);
    tasks.abort().await;
}

#[tokio::test]
async fn a_client_that_was_admitted_before_a_reload_is_not_let_to_a_target_that_it_may_not_reach() {
    let spec = |target: &str, from: &str| ListenerSpec {
        allow_from: AllowFrom::only(Some(vec![from.parse().unwrap()])),
        ..spec("127.0.0.1:1".parse().unwrap(), target)
    };
    let (gateway, _rows, _tasks) = gateway();
    let (spec_now, drain) = (ArcSwap::from_pointee(spec("web", "127.0.0.0/8")), Drain::new());
    let clients = Clients { gateway, spec: spec_now, drain };
    let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let peer = "127.0.0.1:40000".parse().unwrap();
    let client = async || TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    assert!(clients.admits(&peer) && clients.handshake(client().await, peer).await.is_some());
    clients.spec.store(Arc::new(spec("db", "10.0.0.0/8")));
    assert!(clients.handshake(client().await, peer).await.is_none());
}

/// A gateway that knows the token `good`, and a listener of it.
fn with_token(entry: Entry) -> (Arc<Gateway>, Rows, Tasks, SocketAddr) {
    let (gateway, rows, tasks) = gateway();
    let grants = Grants::new(vec!["acme/dc1/*".parse().unwrap()]).unwrap();
    let (hash, name, limits) = (token_hash("good"), "ci".to_owned(), Limits::default());
    gateway.callers.publish(vec![PublishedToken { hash, name, grants, limits, expires: None }]);
    let address = Listeners::default().apply(&gateway, vec![of(any(), entry)]).unwrap()[0];
    (gateway, rows, tasks, address)
}

/// Says something and reads what comes until the end.
async fn told(address: SocketAddr, said: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(said).await.unwrap();
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    told
}

fn connect(host: &str, more: &str) -> Vec<u8> {
    format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n{more}\r\n").into_bytes()
}

#[tokio::test]
async fn clients_of_connect_log_in_and_learn_why_not() {
    let (_gateway, mut rows, tasks, address) = with_token(Entry::Connect);
    let (here, bearer) = ("db.dc1.acme.underpass", "Proxy-Authorization: Bearer good\r\n");
    for (said, status, row) in [
        (connect(here, ""), "407", "connect_refused login_required"),
        (connect(here, "Proxy-Authorization: Bearer bad\r\n"), "407", "connect_refused login_failed"),
        (connect("db.dc1.acme", bearer), "400", "connect_refused request_invalid"),
        (connect("db.dc2.acme.underpass", bearer), "403", "refused not_granted"),
        (connect(here, bearer), "503", "refused no_agent"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "400", "connect_refused request_invalid"),
    ] {
        let answer = String::from_utf8(told(address, &said).await).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(rows.take(), [row]);
    }
    tasks.abort().await;
}

#[tokio::test]
async fn clients_of_socks5_log_in_and_learn_why_not() {
    let (gateway, mut rows, tasks, address) = with_token(Entry::Socks5);
    let request = |host: &str| [&[5, 1, 0, 3, u8::try_from(host.len()).unwrap()], host.as_bytes(), &[1, 187]].concat();
    let login = |token: &str| [&[5, 1, 2, 1, 1, b'x', u8::try_from(token.len()).unwrap()], token.as_bytes()].concat();
    let asks = |host: &str| [login("good"), request(host)].concat();
    for (said, answer, row) in [
        (vec![5, 1, 0], vec![5, 0xff], "connect_refused login_required"),
        (login("bad"), vec![5, 2, 1, 1], "connect_refused login_failed"),
        (asks("db.dc2.acme.underpass"), vec![5, 2, 1, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0], "refused not_granted"),
        (asks("db.dc1.acme.underpass"), vec![5, 2, 1, 0, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0], "refused no_agent"),
    ] {
        assert_eq!(told(address, &said).await, answer, "{row}");
        assert_eq!(rows.take(), [row]);
    }
    let mut agent = agent("a", &["db"]).await;
    gateway.registry().add(agent.live.clone());
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&[asks("db.dc1.acme.underpass"), b"early".to_vec()].concat()).await.unwrap();
    let (mut stream, early) = agent.accept().await;
    assert_eq!(early, b"early");
    stream.write_all(b"!").await.unwrap();
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0, b'!']);
    tasks.abort().await;
}

#[tokio::test(start_paused = true)]
async fn d1_a_client_that_does_not_say_what_it_wants_is_closed() {
    for entry in [Entry::Connect, Entry::Socks5] {
        let (_gateway, mut rows, tasks, address) = with_token(entry);
        let mut client = TcpStream::connect(address).await.unwrap();
        assert!(matches!(client.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        assert_eq!(rows.take(), ["connect_refused request_invalid"]);
        tasks.abort().await;
    }
}

#[tokio::test]
async fn who_fails_too_often_is_told_so_and_a_right_token_from_there_is_still_taken() {
    let (_gateway, mut rows, tasks, address) = with_token(Entry::Connect);
    let here = "db.dc1.acme.underpass";
    for n in 0..LOGIN_FAILURES_PER_MINUTE + 2 {
        let answer = String::from_utf8(told(address, &connect(here, "Proxy-Authorization: Bearer bad\r\n")).await).unwrap();
        let (status, code) = if n < LOGIN_FAILURES_PER_MINUTE { ("407", "login_failed") } else { ("429", "login_limited") };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{n}: {answer}");
        assert_eq!(rows.take(), [format!("connect_refused {code}")]);
    }
    told(address, &connect(here, "Proxy-Authorization: Bearer good\r\n")).await;
    assert_eq!(rows.take(), ["refused no_agent"]);
    tasks.abort().await;
}

#[tokio::test]
async fn f27_certificates_callers_are_cut_with_their_name_their_cas_and_their_listener_and_by_nothing_else() {
    let (gateway, _rows, tasks) = gateway();
    let (listeners, listen) = (Listeners::default(), free());
    let apply = |grants: &str, ca: u8| {
        let new = caller("certificate ci", grants);
        let certified = HashMap::from([("ci.example".to_owned(), new)]);
        let spec = ListenerSpec { certified, client_ca: Some([ca; 32]), ..of(listen, Entry::Connect) };
        listeners.apply(&gateway, vec![spec]).unwrap();
        listeners.0.lock().unwrap()[&listen].service.spec.load().certified["ci.example"].clone()
    };
    let first = apply("acme/dc1/*", 1);
    assert!(Arc::ptr_eq(&apply("acme/dc1/*", 1), &first) && !first.is_revoked());
    let other_rights = apply("acme/dc1/db", 1);
    assert!(first.is_revoked() && !other_rights.is_revoked());
    let other_ca = apply("acme/dc1/db", 2);
    assert!(other_rights.is_revoked() && !other_ca.is_revoked());
    listeners.apply(&gateway, Vec::new()).unwrap();
    assert!(other_ca.is_revoked());
    tasks.abort().await;
}
