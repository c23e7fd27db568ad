//! The product's WebSocket frames and those of tungstenite, through the echo that conformance suites are run against. Refuses to
//! know the mux.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, accept_hdr_async, client_async};
use underpass::tunnel::websocket::{Decoder, Event, Sender};

use crate::end::SOON;
use crate::{client, echo, server, upgrade};

/// What a pipe holds: less than a message.
const PIPE: usize = 10_000;

/// tungstenite at one end, the echo at the other.
struct Peer {
    socket: WebSocketStream<DuplexStream>,
    echo: JoinSet<std::io::Result<()>>,
}

impl Peer {
    /// tungstenite as the client.
    async fn client() -> Self {
        let (near, mut far) = tokio::io::duplex(PIPE);
        let mut echo = JoinSet::new();
        echo.spawn(async move {
            let rest = upgrade::server(&mut far).await?;
            echo::echo(far, Sender::Client, rest).await
        });
        Self { socket: client_async("ws://echo.example/", near).await.unwrap().0, echo }
    }

    /// tungstenite as the server.
    async fn server() -> Self {
        let (near, mut far) = tokio::io::duplex(PIPE);
        let mut echo = JoinSet::new();
        echo.spawn(async move {
            let rest = upgrade::client(&mut far, "echo.example", "/").await?;
            echo::echo(far, Sender::Server, rest).await
        });
        Self { socket: accept_async(near).await.unwrap(), echo }
    }

    async fn both() -> [Self; 2] {
        [Self::client().await, Self::server().await]
    }

    /// Sends, while it takes what comes: the pipe is short.
    async fn send(&mut self, frames: Vec<Frame>, answers: usize) -> Vec<Message> {
        let (mut sends, mut takes) = (&mut self.socket).split();
        let sending = async {
            for frame in frames {
                sends.send(Message::Frame(frame)).await.unwrap();
            }
        };
        let taking = async {
            let mut taken = Vec::new();
            while taken.len() < answers {
                taken.push(takes.next().await.unwrap().unwrap());
            }
            taken
        };
        timeout(SOON, async { tokio::join!(sending, taking).1 }).await.expect("it is answered")
    }

    /// The last word on both sides, and that the echo has ended well.
    async fn end(mut self) -> Option<CloseFrame> {
        let mut last = None;
        let reading = async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Close(reason) = message {
                    last = reason;
                }
            }
        };
        timeout(SOON, reading).await.expect("the connection ends");
        drop(self.socket);
        self.echo.join_next().await.unwrap().unwrap().unwrap();
        last
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn binary(payload: Vec<u8>, last: bool) -> Frame {
    Frame::message(payload, OpCode::Data(Data::Binary), last)
}

fn continuation(payload: Vec<u8>, last: bool) -> Frame {
    Frame::message(payload, OpCode::Data(Data::Continue), last)
}

#[tokio::test]
async fn binary_messages_of_any_length_come_back() {
    let lengths = (0..=1200).chain((1200..=65_536).step_by(977)).chain([65_534, 65_535, 65_536]);
    for mut peer in Peer::both().await {
        for length in lengths.clone() {
            let answers = peer.send(vec![binary(pattern(length), true)], 1).await;
            assert_eq!(answers, [Message::binary(pattern(length))], "{length}");
        }
    }
}

#[tokio::test]
async fn a_message_in_fragments_comes_back_whole_and_pings_within_it_are_answered_at_once() {
    let ping = |payload: &'static [u8]| Frame::ping(payload);
    for mut peer in Peer::both().await {
        let frames = vec![
            binary(pattern(300), false),
            ping(b"first"),
            continuation(Vec::new(), false),
            continuation(pattern(65_536), false),
            ping(b""),
            continuation(pattern(7), true),
            binary(Vec::new(), false),
            continuation(Vec::new(), true),
        ];
        let whole = [pattern(300), pattern(65_536), pattern(7)].concat();
        let wanted =
            [Message::Pong("first".into()), Message::Pong("".into()), Message::binary(whole), Message::binary(Vec::new())];
        assert_eq!(peer.send(frames, 4).await, wanted);
    }
}

#[tokio::test]
async fn a_close_is_answered_in_kind() {
    for code in [1000, 1001, 1003, 1008, 1011, 3000, 4999] {
        for mut peer in Peer::both().await {
            let reason = CloseFrame { code: CloseCode::from(code), reason: "done".into() };
            peer.socket.close(Some(reason)).await.unwrap();
            assert_eq!(peer.end().await.map(|last| last.code.into()), Some(code), "{code}");
        }
    }
    for mut peer in Peer::both().await {
        peer.socket.close(None).await.unwrap();
        assert_eq!(peer.end().await, None);
    }
}

/// A frame of a client with the key 0.
fn raw(first: u8, second: u8, rest: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | second], rest].concat()
}

#[tokio::test]
async fn t2_what_breaks_the_protocol_is_told_and_ends_the_connection() {
    let key = [0; 4];
    let close = |reason: &[u8]| raw(0x88, u8::try_from(reason.len()).unwrap(), &[&key, reason].concat());
    for (what, bytes, code) in [
        ("a reserved bit", raw(0xc2, 0, &key), 1002),
        ("a reserved bit in a ping", raw(0x99, 0, &key), 1002),
        ("an opcode that does not exist", raw(0x83, 0, &key), 1002),
        ("a control opcode that does not exist", raw(0x8b, 0, &key), 1002),
        ("text, by design", raw(0x81, 0, &key), 1003),
        ("a client that does not mask", vec![0x82, 0], 1002),
        ("a continuation of nothing", raw(0x80, 0, &key), 1002),
        ("a message within a message", [raw(0x02, 0, &key), raw(0x82, 0, &key)].concat(), 1002),
        ("a ping in pieces", raw(0x09, 0, &key), 1002),
        ("a ping of 126 bytes", raw(0x89, 126, &[&[0, 126][..], &key, &[0; 126]].concat()), 1002),
        ("more than 64 KiB in a frame, by design", raw(0x82, 127, &[&[0, 0, 0, 0, 0, 1, 0, 1][..], &key].concat()), 1009),
        ("a length longer than need be", raw(0x82, 126, &[&[0, 125][..], &key].concat()), 1009),
        ("a close of one byte", close(&[3]), 1002),
        ("a close with a code that never travels", close(&1005_u16.to_be_bytes()), 1002),
        ("a close with a code of nobody", close(&2999_u16.to_be_bytes()), 1002),
        ("a close whose reason is no text", close(&[0x03, 0xe8, 0xff]), 1007),
    ] {
        let Peer { socket, mut echo } = Peer::client().await;
        let mut io = socket.into_inner();
        // A ping before it is answered, a ping behind it is not.
        let ping = |text: &[u8; 2]| raw(0x89, 2, &[&key[..], text].concat());
        io.write_all(&[ping(b"go"), bytes, ping(b"no")].concat()).await.unwrap();
        io.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, io.read_to_end(&mut answer)).await.expect("the connection ends").unwrap();
        let mut told = events(&answer);
        told.retain(|event| !matches!(event, Event::Data(_)));
        assert_eq!(told, [Event::Pong("go".into()), Event::Close(code_only(code))], "{what}");
        echo.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn code_only(code: u16) -> bytes::Bytes {
    code.to_be_bytes().to_vec().into()
}

fn events(bytes: &[u8]) -> Vec<Event> {
    let (mut decoder, mut bytes) = (Decoder::new(Sender::Server), BytesMut::from(bytes));
    std::iter::from_fn(|| decoder.next(&mut bytes).unwrap()).collect()
}

#[tokio::test]
async fn the_server_echoes_on_each_of_its_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut echo = JoinSet::new();
    echo.spawn(server::run(listener));
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let stream = TcpStream::connect(address).await.unwrap();
        sockets.push(client_async("ws://echo.example/any/path", stream).await.unwrap().0);
    }
    for (at, socket) in sockets.iter_mut().enumerate() {
        socket.send(Message::binary(pattern(at))).await.unwrap();
        assert_eq!(timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap(), Message::binary(pattern(at)));
    }
}

#[tokio::test]
async fn the_client_runs_every_case_and_has_the_reports_written() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let paths = Arc::new(Mutex::new(Vec::new()));
    let suite = async {
        for _ in 0..4 {
            let (stream, _) = listener.accept().await.unwrap();
            let mut path = String::new();
            #[allow(clippy::result_large_err, reason = "the shape of the library's callback")]
            let note = |request: &Request, response: Response| {
                path = request.uri().to_string();
                Ok(response)
            };
            let mut socket = accept_hdr_async(stream, note).await.unwrap();
            if path == "/getCaseCount" {
                socket.send(Message::text("2")).await.unwrap();
            } else {
                socket.send(Message::binary(pattern(70_000 / 2))).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(pattern(70_000 / 2)));
            }
            socket.close(None).await.unwrap();
            paths.lock().unwrap().push(path);
            while let Some(Ok(_)) = socket.next().await {}
            assert!(matches!(socket.close(None).await, Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed)));
        }
    };
    let (ran, ()) = timeout(SOON, async { tokio::join!(client::run(&url, "underpass", |_| ()), suite) }).await.unwrap();
    ran.unwrap();
    let wanted = [
        "/getCaseCount",
        "/runCase?case=1&agent=underpass",
        "/runCase?case=2&agent=underpass",
        "/updateReports?agent=underpass",
    ];
    assert_eq!(*paths.lock().unwrap(), wanted);
}
