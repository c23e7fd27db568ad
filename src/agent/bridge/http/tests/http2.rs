//! HTTP/2: by prior knowledge from the gateway, to origins that speak it and to those that don't.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};

use super::*;

type Sender<B> = hyper::client::conn::http2::SendRequest<B>;

/// Runs what hyper spawns among the rig's tasks.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// A client of HTTP/2 on a stream.
async fn client<B>(rig: &mut Rig) -> Sender<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
{
    let io = TokioIo::new(rig.stream(Spoken::Http).io);
    let (sender, connection) = hyper::client::conn::http2::handshake(Spawner(rig.tasks.clone()), io).await.unwrap();
    rig.tasks.spawn(async move { drop(connection.await) });
    sender
}

/// A rig whose origin takes HTTP/2 without TLS.
async fn rig() -> Rig {
    Rig::with("", |spec| spec.service = service("", true)).await
}

/// Serves the next connection to the origin with HTTP/2: sends each body back, with a trailer behind it.
async fn serve_echo(rig: &Rig) {
    let io = TokioIo::new(rig.listener.accept().await.unwrap().0);
    let served = hyper::server::conn::http2::Builder::new(Spawner(rig.tasks.clone())).serve_connection(io, service_fn(echo));
    rig.tasks.spawn(async move { drop(served.await) });
}

async fn echo(request: Request<Incoming>) -> Result<Response<impl Body<Data = Bytes, Error = hyper::Error>>, Infallible> {
    let told = format!("{:?} {} {}", request.version(), request.uri(), request.headers().contains_key("host"));
    let trailers: HeaderMap = [(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))].into_iter().collect();
    let body = request.into_body().with_trailers(async { Some(Ok(trailers)) });
    Ok(Response::builder().header("x-told", told).body(body).unwrap())
}

fn get<B>(path: &str, body: B) -> Request<B> {
    Request::builder().version(Version::HTTP_2).uri(format!("http://somebody{path}")).body(body).unwrap()
}

#[tokio::test]
async fn grpc_streams_both_ways_and_has_its_trailers() {
    let mut rig = rig().await;
    let mut sender = client(&mut rig).await;
    let (say, said) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let body = StreamBody::new(futures_util::stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) }));
    let asked = sender.send_request(get("/orders.Service/Watch", Box::pin(body)));
    let (answer, ()) = tokio::join!(asked, serve_echo(&rig));
    let mut answer = answer.unwrap();
    assert_eq!(answer.headers()["x-told"], format!("HTTP/2.0 http://{}/orders.Service/Watch false", rig.spec.address));
    for word in ["one", "two"] {
        say.send(Ok(Frame::data(Bytes::from(word)))).await.unwrap();
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(say);
    let frame = answer.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "0");
    let row = rig.row().await;
    assert_eq!((&row["up"], &row["down"], &row["status"]), (&6.into(), &6.into(), &200.into()));
}

#[tokio::test]
async fn many_requests_share_one_connection_of_http2() {
    let mut rig = rig().await;
    let sender = client::<Full<Bytes>>(&mut rig).await;
    let asks = (0..50).map(|index| {
        let mut sender = sender.clone();
        async move {
            sender.send_request(get("/a", Full::from(format!("{index}")))).await.unwrap().collect().await.unwrap().to_bytes()
        }
    });
    let (bodies, ()) = tokio::join!(futures_util::future::join_all(asks), serve_echo(&rig));
    assert!(bodies.iter().enumerate().all(|(index, body)| *body == format!("{index}")), "{bodies:?}");
    rig.nothing_dialled().await;
}

#[tokio::test]
async fn requests_of_http2_reach_an_origin_of_http11_by_some_connections() {
    let mut rig = Rig::new("").await;
    let sender = client::<Full<Bytes>>(&mut rig).await;
    let asks = (0..3).map(|index| {
        let mut sender = sender.clone();
        let request = Request::builder().method("POST").uri("http://x/a").header("cookie", "a=1").header("cookie", "b=2");
        async move { sender.send_request(request.body(Full::from(format!("{index}"))).unwrap()).await.unwrap() }
    });
    let serve = async {
        let mut origins = Vec::new();
        for _ in 0..3 {
            let mut origin = rig.origin().await;
            let head = origin.head().await;
            assert!(head.starts_with("POST /a HTTP/1.1\r\n"), "{head}");
            assert_eq!((value(&head, "content-length"), value(&head, "cookie")), (Some("1"), Some("a=1; b=2")));
            origin.read(1).await;
            origins.push(origin);
        }
        for origin in &mut origins {
            origin
                .say("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
                .await;
        }
        origins
    };
    let (answers, mut origins) = tokio::join!(futures_util::future::join_all(asks), serve);
    for answer in answers {
        assert!(!answer.headers().contains_key("connection") && !answer.headers().contains_key("transfer-encoding"));
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "ok");
    }
    let mut again = sender.clone();
    let ask = again.send_request(get("/b", Full::from("")));
    let heard = futures_util::future::select_all(origins.iter_mut().map(|origin| Box::pin(origin.0.readable())));
    tokio::select! {
        _ = ask => panic!("nobody has answered"),
        _ = heard => {}
        _ = rig.listener.accept() => panic!("it was to use one that is there"),
    }
}

#[tokio::test]
async fn refusals_of_http2_are_answers_and_other_requests_go_on() {
    let mut rig = Rig::with("", |spec| spec.service = service(r#"[{"path": "/a"}]"#, true)).await;
    let mut sender = client::<Empty<Bytes>>(&mut rig).await;
    for (path, status, code) in [("/b", 403, "request_denied"), ("/a/%2e%2e/b", 400, "request_path")] {
        let answer = sender.send_request(get(path, Empty::new())).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["underpass-refusal"]),
            (status, &HeaderValue::from_static(code))
        );
        assert_eq!(rig.row().await["code"], code);
    }
    let connect = Request::builder().method("CONNECT").uri("erp:443").body(Empty::new()).unwrap();
    assert_eq!(sender.send_request(connect).await.unwrap().status(), 403);
    rig.nothing_dialled().await;
    let (answer, ()) = tokio::join!(sender.send_request(get("/a", Empty::new())), serve_echo(&rig));
    assert_eq!(answer.unwrap().status(), 200);
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field as HPACK writes it without its tables (RFC 7541, 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

#[tokio::test]
async fn heads_of_http2_that_would_be_others_in_http11_are_refused() {
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a")];
    let with = |more: &[(&'static str, &'static str)]| [&pseudo[..], more].concat();
    for fields in [
        with(&[("x", "1\r\ny: 2")]),
        with(&[("x", "1\0")]),
        with(&[("x\r\ny", "1")]),
        with(&[("X", "1")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("connection", "close")]),
        with(&[("upgrade", "h2c")]),
        with(&[(":path", "/b")]),
        with(&[(":status", "200")]),
        with(&[("host", "a"), ("host", "b")]),
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a HTTP/1.1\r\nX: 1")],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "http://b/a")],
        vec![(":method", "G T"), (":scheme", "http"), (":authority", "a"), (":path", "/a")],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a")],
    ] {
        let mut rig = rig().await;
        let mut client = rig.stream(Spoken::Http);
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
        client.io.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &block)].concat()).await.unwrap();
        loop {
            let mut head = [0; 9];
            if client.io.read_exact(&mut head).await.is_err() {
                break;
            }
            let payload = client.read_bytes(usize::from(head[1]) << 8 | usize::from(head[2])).await;
            // A reset of the stream, the end of the connection, or an answer of status 400: 0x8c in HPACK's table.
            match head[3] {
                3 | 7 => break,
                1 => {
                    assert_eq!(payload[0], 0x8c, "{fields:?}");
                    break;
                }
                _ => {}
            }
        }
        rig.nothing_dialled().await;
    }
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let mut rig = rig().await;
    let client = rig.stream(Spoken::Http);
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/%2e")];
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let mut flood = [PREFACE, &frame(4, 0, 0, &[])].concat();
    for stream in 0..2000 {
        flood.extend(frame(1, 5, 2 * stream + 1, &block));
        flood.extend(frame(3, 0, 2 * stream + 1, &8u32.to_be_bytes()));
    }
    let (mut read, mut write) = tokio::io::split(client.io);
    let says = rig.tasks.spawn(async move { drop(write.write_all(&flood).await) });
    let mut all = Vec::new();
    read.read_to_end(&mut all).await.unwrap();
    says.await.unwrap();
    client.served.await.unwrap();
    rig.nothing_dialled().await;
}
