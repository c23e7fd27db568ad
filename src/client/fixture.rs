//! For tests: a gateway that does what the test says, with a real PKI, and clients with a token for it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Client, Event, Observer, Settings};
use crate::base::code::{Code, Failure};
use crate::base::endpoint::Endpoint;
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::pki::authority::Authority;
use crate::pki::revoke::Revocations;
use crate::pki::tls::GatewayTls;
use crate::tunnel::dial::Egress;
use crate::wire::connect::{self, Refused};
use crate::wire::token::{ClientToken, TokenSecret};

/// A client's connection as the gateway has it.
pub(super) type Asked = TlsStream<BufReader<TcpStream>>;

/// Listens with a certificate for its address, and nothing more.
pub(super) struct Gateway {
    pub(super) endpoint: Endpoint,
    pub(super) pin: [u8; 32],
    tls: GatewayTls,
    listener: TcpListener,
}

impl Gateway {
    pub(super) async fn new() -> Self {
        let (dir, now) = (tempfile::tempdir().unwrap(), OffsetDateTime::now_utc());
        let authority = Authority::init(dir.path(), &"test.example".parse().unwrap(), now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint(listener.local_addr().unwrap().into());
        let credential = authority.issue_gateway(&"gw".parse().unwrap(), std::slice::from_ref(&endpoint), now).unwrap();
        let tls = GatewayTls::new(authority.root(), &credential, Revocations::new()).unwrap();
        Self { endpoint, pin: *authority.pin().as_bytes(), tls, listener }
    }

    /// The next client that gets as far as a request, and what it said.
    pub(super) async fn asked(&self) -> (Asked, String) {
        loop {
            let (stream, _) = self.listener.accept().await.unwrap();
            let accept = TlsAcceptor::from(self.tls.client()).accept(BufReader::new(stream));
            let Ok(mut stream) = accept.await else { continue };
            let mut head = BytesMut::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0, "a request has an end");
            }
            return (stream, String::from_utf8(head.to_vec()).unwrap());
        }
    }

    /// The next client, and the answer yes.
    pub(super) async fn accept(&self) -> Asked {
        let (mut stream, _) = self.asked().await;
        stream.write_all(connect::accepted()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    /// The next client, and the answer no.
    pub(super) async fn refuse(&self, code: Code) {
        let (mut stream, _) = self.asked().await;
        stream.write_all(&connect::refused(&Refused { code, detail: Some("as the test says"), request: None })).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    /// A connection that is closed before anything is said.
    pub(super) async fn drop_one(&self) {
        drop(self.listener.accept().await.unwrap());
    }

    pub(super) fn token(&self, endpoints: &[Endpoint]) -> Secret {
        ClientToken { endpoints: endpoints.to_vec(), pin: self.pin, secret: TokenSecret::generate().unwrap() }.encode()
    }

    /// A client with a token for this gateway.
    pub(super) fn client(&self) -> (Arc<Client>, Told) {
        client(self.token(std::slice::from_ref(&self.endpoint)), Vec::new())
    }
}

/// What an observer was told: `waiting CODE` or `failed CODE`.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn observer(&self) -> Observer {
        let told = self.0.clone();
        Arc::new(move |event| {
            told.lock().unwrap().push(match event {
                Event::Waiting(failure) => format!("waiting {}", failure.code),
                Event::Failed { failure, .. } => format!("failed {}", failure.code),
            });
        })
    }
}

pub(super) fn client(token: Secret, endpoints: Vec<Endpoint>) -> (Arc<Client>, Told) {
    let told = Told::default();
    let client = made(token, endpoints, &told).unwrap();
    (Arc::new(client), told)
}

pub(super) fn made(token: Secret, endpoints: Vec<Endpoint>, told: &Told) -> Result<Client, Failure> {
    let settings = Settings { target: "acme/dc1/db".parse().unwrap(), token, endpoints, egress: Egress::default() };
    Client::new(settings, told.observer())
}

/// Two ends of a TCP connection.
pub(super) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A client's listener on loopback.
pub(super) struct Local {
    pub(super) at: SocketAddr,
    pub(super) drain: crate::base::drain::Drain,
    pub(super) tasks: Tasks,
}

pub(super) fn listening(client: &Arc<Client>, allow_from: &[&str]) -> Local {
    let allow_from: Vec<_> = allow_from.iter().map(|network| network.parse().unwrap()).collect();
    let socket = super::listener::bind("127.0.0.1:0".parse().unwrap(), &allow_from).unwrap();
    let (at, drain, tasks) = (socket.local_addr().unwrap(), crate::base::drain::Drain::new(), Tasks::new());
    tasks.spawn(super::listener::serve(client.clone(), socket, allow_from, drain.clone(), tasks.clone()));
    Local { at, drain, tasks }
}
