//! HTTP targets: reads a stream's requests, has each decided, makes it anew to the origin, and the answer anew to the client. It refuses
//! to know the gateway.

mod account;
mod body;
mod exchange;
mod headers;
mod inline;
mod origin;
mod request;
mod response;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use request::exercise;

use std::error::Error as _;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use self::inline::{Inline, Running};
use self::origin::Origin;
use self::request::Caller;
use super::Hop;
use crate::agent::Agent;
use crate::agent::policy::Permit;
use crate::base::code::Code;
use crate::base::limits::{
    ANSWER_LINGER, HTTP_BUFFER, HTTP_HEAD, HTTP_HEADERS, HTTP_IDLE, HTTP2_REQUESTS, HTTP2_RESETS, HTTP2_WINDOW,
};
use crate::observe::metrics;
use crate::tunnel::ledger::Ledger;
use crate::tunnel::metered::Metered;
use crate::tunnel::mux::lost;
use crate::tunnel::splice::Direction;
use crate::wire::hop::PREFACE;
use crate::wire::open::{Open, Spoken};

/// The first byte of a TLS handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What an idle stream is looked at for in its idle time: a quarter late is soon enough.
const LOOKS: u32 = 4;

/// One stream, its target, and what its requests have in common.
struct Bridge {
    agent: Arc<Agent>,
    permit: Arc<Permit>,
    open: Open,
    caller: Caller,
    origin: Arc<Origin>,
    /// What goes on when a request has made another protocol of the stream.
    tail: Mutex<Option<Tail>>,
}

type Tail = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Bridge {
    /// What goes on with the stream once its connection has been given up to it.
    fn go_on(&self, tail: impl Future<Output = ()> + Send + 'static) {
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(tail));
    }
}

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Nothing at all.
    Nothing,
    /// TLS, which only the client and the target could read.
    Tls,
    Http1,
    Http2,
}

/// Serves one stream of HTTP requests to its end. Yields why it was cut, if it was.
pub async fn serve(hop: Hop) -> Option<Code> {
    let Hop { agent, permit, open, stream, early, ledger } = hop;
    serve_io(agent, permit, open, ledger, stream, early).await
}

async fn serve_io<Io>(
    agent: Arc<Agent>,
    permit: Arc<Permit>,
    open: Open,
    ledger: Arc<Ledger<()>>,
    mut io: Io,
    mut early: BytesMut,
) -> Option<Code>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let idle = permit.target().spec.limits.idle_timeout;
    let opening = opening(&mut io, &mut early).await;
    let io = Metered::new(io, early.freeze(), Direction::Up, ledger.clone());
    tokio::select! {
        biased;
        code = serve_opened(opening, io, agent, permit, open) => code,
        () = idles(idle, &ledger) => Some(Code::IdleTimeout),
    }
}

async fn serve_opened<Io>(opening: Opening, io: Io, agent: Arc<Agent>, permit: Arc<Permit>, open: Open) -> Option<Code>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let inline = Inline::default();
    let origin = match Origin::new(agent.clone(), permit.clone(), inline.clone()) {
        Ok(origin) => Arc::new(origin),
        Err(failure) => return Some(failure.code),
    };
    let by_gateway = open.spoken == Spoken::Http;
    let caller = Caller { by_gateway, source: open.source, trace: open.trace.clone() };
    let bridge = Arc::new(Bridge { agent, permit, open, caller, origin, tail: Mutex::default() });
    match opening {
        Opening::Nothing => None,
        Opening::Tls => {
            metrics::refused(Code::TlsToHttpTarget);
            Some(Code::TlsToHttpTarget)
        }
        Opening::Http1 => serve_http1(&bridge, &inline, io).await,
        Opening::Http2 => serve_http2(&bridge, &inline, io).await,
    }
}

/// Reads as much as tells what is spoken.
async fn opening(stream: &mut (impl AsyncRead + Unpin), early: &mut BytesMut) -> Opening {
    loop {
        match early.first() {
            Some(&TLS_HANDSHAKE) => return Opening::Tls,
            Some(_) if PREFACE.starts_with(early) && early.len() < 4 => {}
            Some(_) if early.starts_with(&PREFACE[..4]) => return Opening::Http2,
            Some(_) => return Opening::Http1,
            None => {}
        }
        match timeout(HTTP_IDLE, stream.read_buf(early)).await {
            Ok(Ok(1..)) => {}
            _ if early.is_empty() => return Opening::Nothing,
            _ => return Opening::Http1,
        }
    }
}

async fn serve_http1<Io>(bridge: &Arc<Bridge>, inline: &Inline, io: Io) -> Option<Code>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut running = Running::default();
    let service = service_fn(|request| exchange::exchange(bridge.clone(), request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HTTP_IDLE).max_header_size(HTTP_HEAD).max_buf_size(HTTP_BUFFER);
    // The gateway adds a few to what it takes.
    builder.max_headers(HTTP_HEADERS + 8);
    let mut connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    let served = inline.beside(&mut running, async {
        tokio::select! {
            biased;
            served = &mut connection => served,
            () = bridge.agent.drain.begins() => {
                Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    });
    let code = served.await.err().and_then(|error| code_of(&error));
    let tail = bridge.tail.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tail) = tail {
        inline.beside(&mut running, tail).await;
        return None;
    }
    // In any other case dropping it resets the stream: nobody may take what was cut for a whole.
    if let (None | Some(Code::RequestInvalid), Some(parts)) = (code, connection.into_parts()) {
        linger(parts.io.into_inner()).await;
    }
    code
}

async fn serve_http2<Io>(bridge: &Arc<Bridge>, inline: &Inline, io: Io) -> Option<Code>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut running = Running::default();
    let owner = bridge.clone();
    let service = service_fn(move |request| exchange::exchange(owner.clone(), request));
    let mut builder = http2::Builder::new(inline.clone());
    builder.timer(TokioTimer::new()).max_concurrent_streams(HTTP2_REQUESTS);
    builder.max_pending_accept_reset_streams(HTTP2_RESETS).max_local_error_reset_streams(HTTP2_RESETS);
    builder.initial_stream_window_size(HTTP2_WINDOW).initial_connection_window_size(HTTP2_WINDOW);
    builder.max_header_list_size(u32::try_from(HTTP_HEAD).unwrap_or(u32::MAX));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let served = inline.beside(&mut running, async {
        tokio::select! {
            biased;
            served = &mut connection => served,
            () = bridge.agent.drain.begins() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    });
    served.await.err().and_then(|error| code_of(&error))
}

/// Ends the stream in good order. What the client still sends is read for a moment, since a reset would overtake what it was told.
async fn linger(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let ends = async {
        io.shutdown().await?;
        let mut rest = [0; 4096];
        while io.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Who doesn't end by then is reset.
    let _ = timeout(ANSWER_LINGER, ends).await;
}

/// Ends when nothing has moved for that long.
async fn idles(idle: Option<Duration>, ledger: &Ledger<()>) {
    let Some(idle) = idle else { return std::future::pending().await };
    let (mut moved, mut still) = (ledger.moved(), 0);
    while still < LOOKS {
        sleep(idle / LOOKS).await;
        let now = ledger.moved();
        still = if now == moved { still + 1 } else { 0 };
        moved = now;
    }
}

/// Why a client's connection broke off; none if it merely had nothing more to ask.
fn code_of(error: &hyper::Error) -> Option<Code> {
    let lost = error.source().and_then(|source| source.downcast_ref::<io::Error>()).and_then(lost);
    match lost {
        _ if error.is_parse() => {
            metrics::refused(Code::RequestInvalid);
            Some(Code::RequestInvalid)
        }
        _ if error.is_timeout() => None,
        // The origin's answer broke off in the middle.
        _ if error.is_user() || error.is_body_write_aborted() => Some(Code::TargetReset),
        lost => lost.or(Some(Code::ClientReset)),
    }
}

#[cfg(test)]
mod tests;
