//! Clients' listeners on loopback, in front of a gateway in memory. Refuses to know what relaying does.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::gateway::fixture::{agent, gateway, wanted};

fn spec(listen: SocketAddr, target: &str) -> ListenerSpec {
    let target = wanted(target).target;
    ListenerSpec { listen, target, allow_from: AllowFrom::all(), tls: None, early_data: true }
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
        listen: "127.0.0.1:1".parse().unwrap(),
        target: target.parse().unwrap(),
        allow_from: AllowFrom::only(Some(vec![from.parse().unwrap()])),
        tls: None,
        early_data: true,
    };
    let (gateway, _rows, _tasks) = gateway();
    let clients = Clients { gateway, spec: ArcSwap::from_pointee(spec("acme/dc1/web", "127.0.0.0/8")) };
    let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let peer = "127.0.0.1:40000".parse().unwrap();
    let client = async || TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    assert!(clients.admits(&peer) && clients.handshake(client().await, peer).await.is_some());
    clients.spec.store(Arc::new(spec("other/dc1/db", "10.0.0.0/8")));
    assert!(clients.handshake(client().await, peer).await.is_none());
}
