//! Both ends of a stream of messages each way over HTTP/2 without TLS, as gRPC has it: client, and server that echoes.
//! Refuses to know through what they are connected.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream, client, server};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::PATIENCE;
use super::protocol::{Times, WebEntry};

/// What a message carries, in bytes; gRPC puts 5 more in front.
const MESSAGE: u8 = 64;

/// Serves streams in a thread of its own.
///
/// # Errors
/// When the address can't be listened on.
pub(crate) fn serve(at: SocketAddr) -> Result<()> {
    let runtime = runtime()?;
    let listener = runtime.block_on(TcpListener::bind(at)).with_context(|| format!("listening on {at}"))?;
    std::thread::spawn(move || runtime.block_on(accept(listener)));
    Ok(())
}

/// Sends messages on one stream for a time and waits for the echo of each.
pub(crate) fn chat(entry: &WebEntry, run_ms: u64) -> Result<Times> {
    runtime()?.block_on(async {
        let socket =
            timeout(PATIENCE, TcpStream::connect(entry.to)).await?.with_context(|| format!("connecting to {}", entry.to))?;
        socket.set_nodelay(true)?;
        let (requests, connection) = client::handshake(socket).await?;
        tokio::select! {
            ended = connection => bail!("the connection ended: {ended:?}"),
            times = converse(requests, entry, Duration::from_millis(run_ms)) => times,
        }
    })
}

async fn converse(requests: client::SendRequest<Bytes>, entry: &WebEntry, run: Duration) -> Result<Times> {
    let uri = format!("http://{}{}/bench.Echo/Chat", entry.to, entry.prefix);
    let mut request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(token) = &entry.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let (answer, mut send) = requests.ready().await?.send_request(request.body(())?, false)?;
    let message = Bytes::from([&[0, 0, 0, 0, MESSAGE][..], &[b'm'; MESSAGE as usize]].concat());
    // The first message comes before the answer's head, because servers of gRPC may wait for it; and it is not timed.
    send.send_data(message.clone(), false)?;
    let answer = timeout(PATIENCE, answer).await.context("waiting for an answer's head")??;
    ensure!(answer.status() == 200, "the answer is {:?}", answer);
    let mut receive = answer.into_body();
    timeout(PATIENCE, echo_of(&message, &mut receive)).await.context("waiting for the first echo")??;
    let (mut nanos, start) = (Vec::new(), Instant::now());
    while start.elapsed() < run {
        let sent = Instant::now();
        send.send_data(message.clone(), false)?;
        timeout(PATIENCE, echo_of(&message, &mut receive)).await.context("waiting for an echo")??;
        nanos.push(sent.elapsed().as_nanos() as u64);
    }
    send.send_data(Bytes::new(), true)?;
    let trailers = timeout(PATIENCE, receive.trailers()).await.context("waiting for the trailers")??;
    ensure!(
        trailers.is_some_and(|fields| fields.get("grpc-status").is_some_and(|status| status == "0")),
        "the trailers got lost"
    );
    Times::of(nanos).context("no message came back")
}

/// A message can come in parts.
async fn echo_of(message: &Bytes, receive: &mut RecvStream) -> Result<()> {
    let mut missing = message.len();
    while missing > 0 {
        let data = receive.data().await.context("the stream ended")??;
        receive.flow_control().release_capacity(data.len())?;
        missing = missing.checked_sub(data.len()).context("more than the echo came")?;
    }
    Ok(())
}

async fn accept(listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        // A connection that fails is the client's to report.
        connections.spawn(serve_connection(socket));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(socket: TcpStream) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut connection = server::handshake(socket).await?;
    let mut streams = JoinSet::new();
    while let Some(request) = connection.accept().await {
        let (request, answer) = request?;
        streams.spawn(echo(request.into_body(), answer));
        while streams.try_join_next().is_some() {}
    }
    Ok(())
}

async fn echo(mut receive: RecvStream, mut answer: SendResponse<Bytes>) -> Result<()> {
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut send: SendStream<Bytes> = answer.send_response(head, false)?;
    while let Some(data) = receive.data().await {
        let data = data?;
        receive.flow_control().release_capacity(data.len())?;
        // An end without bytes comes as data, too, and is not worth a frame.
        if !data.is_empty() {
            send.send_data(data, false)?;
        }
    }
    send.send_trailers(HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]))?;
    Ok(())
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
