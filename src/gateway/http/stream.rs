//! One stream of requests: opened, spoken on by HTTP, and ended with its caller's rights. Refuses to know which requests go by it.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use http::HeaderValue;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinHandle;

use super::body::Upload;
use super::streams::{Described, Key};
use crate::base::code::Code;
use crate::base::id::RequestId;
use crate::base::limits::{HTTP_BUFFER, HTTP_HEAD, HTTP_HEADERS, HTTP2_KEEPALIVE, HTTP2_REQUESTS, HTTP2_RESETS, HTTP2_WINDOW};
use crate::base::tasks::Tasks;
use crate::gateway::Gateway;
use crate::gateway::ingress::{Answer, Wanted};
use crate::gateway::registry::Live;
use crate::gateway::relay::{AgentEnd, Begun, Held, open_silent};
use crate::tunnel::ledger::Ledger;
use crate::tunnel::metered::Metered;
use crate::tunnel::mux::{Stream, lost};
use crate::tunnel::session::lanes::Lanes;
use crate::tunnel::splice::Direction;
use crate::wire::name::host_of;
use crate::wire::refusal::Refusal;

/// A stream of HTTP/1.1 as opened.
pub(super) struct Opened {
    pub(super) sender: http1::SendRequest<Upload>,
    pub(super) described: Arc<Described>,
    pub(super) task: JoinHandle<Option<()>>,
    /// For who makes another protocol of it.
    pub(super) ledger: Option<Arc<Ledger<Held>>>,
}

/// What is wanted of a stream of requests.
pub(super) fn wanted(key: &Key, source: SocketAddr) -> Wanted {
    Wanted {
        target: key.target.clone(),
        spoken: key.spoken,
        caller: key.caller.clone(),
        until: key.until,
        source,
        early_data: false,
        idle: None,
        answer: Answer::Nothing,
        early: BytesMut::new(),
    }
}

/// Opens one on which HTTP/1.1 is spoken. Of one that is to be `upgraded` the caller says how it ended.
///
/// # Errors
/// Why it is refused; that is recorded.
pub(super) async fn open_http1(
    gateway: &Arc<Gateway>,
    request: RequestId,
    wanted: Wanted,
    upgraded: bool,
) -> Result<Opened, Refusal> {
    let (io, described, mut life) = open(gateway, request, wanted).await?;
    life.upgraded = upgraded;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HTTP_BUFFER).max_header_size(HTTP_HEAD).max_headers(HTTP_HEADERS);
    let (sender, connection) = builder.handshake(io).await.map_err(broken)?;
    let ledger = upgraded.then(|| life.ledger.clone());
    let task = gateway.clients.spawn(life.lead(connection.with_upgrades(), None));
    Ok(Opened { sender, described, task, ledger })
}

/// Opens one on which HTTP/2 is spoken.
///
/// # Errors
/// Why it is refused; that is recorded.
pub(super) async fn open_http2(
    gateway: &Arc<Gateway>,
    request: RequestId,
    wanted: Wanted,
) -> Result<(http2::SendRequest<Upload>, Arc<Described>), Refusal> {
    let (io, described, life) = open(gateway, request, wanted).await?;
    let own = gateway.clients.child();
    let mut builder = http2::Builder::new(Owned(own.clone()));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(2 * HTTP2_WINDOW)
        .max_concurrent_reset_streams(HTTP2_RESETS)
        .initial_max_send_streams(HTTP2_REQUESTS as usize)
        .max_header_list_size(u32::try_from(HTTP_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(HTTP2_KEEPALIVE)
        .keep_alive_timeout(HTTP2_KEEPALIVE);
    let (sender, connection) = builder.handshake(io).await.map_err(broken)?;
    gateway.clients.spawn(life.lead(connection, Some(own)));
    Ok((sender, described))
}

type Io = TokioIo<Metered<Stream, Held>>;

/// The stream has the id of the request that it is opened for, so that a refusal is found by what the client was told.
async fn open(gateway: &Arc<Gateway>, request: RequestId, wanted: Wanted) -> Result<(Io, Arc<Described>, Life), Refusal> {
    let Begun { agent: AgentEnd { live, lane, stream }, first, ledger } = *open_silent(gateway, request, &wanted).await?;
    let (id, ledger) = (stream.id(), Arc::new(ledger));
    let io = TokioIo::new(Metered::new(stream, first, Direction::Down, ledger.clone()));
    let authority = HeaderValue::try_from(host_of(&wanted.target)).expect("a target's host is plain text");
    let (target, caller) = (wanted.target.to_string(), wanted.caller.name().to_owned());
    let described = Arc::new(Described { request, target, caller, authority, live: live.clone() });
    Ok((io, described, Life { wanted, live, lane, id, ledger, upgraded: false }))
}

/// A stream's life: until its connection ends, or its caller's rights.
struct Life {
    wanted: Wanted,
    live: Arc<Live>,
    lane: u32,
    id: u32,
    ledger: Arc<Ledger<Held>>,
    upgraded: bool,
}

impl Life {
    /// Drives the connection, with those tasks that are its own.
    async fn lead(self, connection: impl Future<Output = Result<(), hyper::Error>>, own: Option<Tasks>) {
        // Dropped after its end was told of.
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            biased;
            () = self.wanted.ends() => None,
            ended = &mut connection => Some(ended),
        };
        match ended {
            None => {
                self.ledger.ends(Some(Code::CallerRevoked));
                self.live.notifier.closing(self.lane, self.id, Code::CallerRevoked);
            }
            // Whoever has it goes on.
            Some(Ok(())) if self.upgraded => {}
            Some(Ok(())) => self.ledger.ends(self.live.notifier.closed(self.lane, self.id)),
            Some(Err(error)) => {
                let code = self.live.notifier.closed(self.lane, self.id).unwrap_or_else(|| code_of(&error, &self.live.lanes));
                self.ledger.ends(Some(code));
            }
        }
        if let Some(own) = own {
            own.abort().await;
        }
    }
}

/// Why a stream of requests broke off, by what its connection says.
fn code_of(error: &hyper::Error, lanes: &Lanes) -> Code {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source {
        Some(error) => lost(error).map_or(Code::TargetReset, |why| lanes.lost(why)),
        None if error.is_canceled() || error.is_incomplete_message() => Code::StreamCut,
        None => Code::ClientReset,
    }
}

fn broken(error: hyper::Error) -> Refusal {
    Refusal::new(Code::SessionLost, error)
}

/// Has the tasks of an HTTP/2 connection owned.
#[derive(Clone)]
pub(super) struct Owned(pub(super) Tasks);

impl<F> Executor<F> for Owned
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
