//! From a TLS stream to an upgraded one: the WebSocket opening handshake (RFC 6455, 4) of both ends, and the agent's first
//! heartbeat. It refuses to know certificates and sessions.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::{accept_hdr_async_with_config, client_async_with_config};
use uuid::Uuid;

use super::Io;
use super::websocket::{Decoder, Event, Opcode, Sender, config, head};
use crate::base::code::{Code, Failure};
use crate::base::endpoint::Endpoint;
use crate::base::id::{InstanceId, printable};
use crate::pki::tls;
use crate::wire::heartbeat::Heartbeat;
use crate::wire::resume::{self, Resume};

/// The one path.
pub const PATH: &str = "/v1/tunnel";

/// The one subprotocol.
pub const SUBPROTOCOL: &str = "underpass.v1";

/// Tells a refused dialer why: a name of the codes' table.
pub const REFUSAL_HEADER: &str = "underpass-refusal";

/// A connection on which WebSocket frames travel from here on.
pub struct Upgraded {
    /// Where they travel.
    pub io: Box<dyn Io>,
    /// Heartbeats that this end has sent, the last one just now.
    pub beats: u64,
    /// What this end has yet to echo.
    pub echo: Option<Bytes>,
    /// When it takes up a broken lane: bytes of streams that the peer has received on it.
    pub received: Option<u64>,
}

/// Why the agent's end has no upgraded connection.
#[derive(Debug)]
pub struct Refused {
    /// What the gateway answered, or what kept it from answering.
    pub failure: Failure,
    /// Which gateway instance it was, if it said so: it does with `not_here`.
    pub instance: Option<InstanceId>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, instance: None }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        refused.failure
    }
}

/// Bytes of a heartbeat.
const HEARTBEAT_LEN: usize = 17;

/// The agent's end: asks, reads the answer (with which TLS 1.3 reports a refused client certificate), sends the first heartbeat.
/// `resume` asks for a further lane of a session, or takes up a broken one, instead of a new session.
///
/// # Errors
/// What TLS reports; `upgrade_refused` or the gateway's own code otherwise.
pub async fn client(stream: Box<dyn Io>, endpoint: &Endpoint, resume: Option<&Resume>) -> Result<Upgraded, Refused> {
    let mut request = http::Request::get(format!("wss://{}{PATH}", endpoint.0))
        .header("Host", endpoint.0.to_string())
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
        .header("Sec-WebSocket-Protocol", SUBPROTOCOL)
        .header("User-Agent", concat!("underpass/", env!("CARGO_PKG_VERSION")));
    if let Some(resume) = resume {
        request = request.header(resume::HEADER, resume.to_string());
    }
    let request = request.body(()).map_err(|error| Failure::new(Code::Internal, error))?;
    let (socket, answer) =
        client_async_with_config(request, stream, Some(config())).await.map_err(|error| refused(error, endpoint))?;
    let received = answer.headers().get(resume::RECEIVED_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    // Nothing is lost by this: the gateway sends nothing before the first heartbeat.
    let mut io = socket.into_inner();
    let offset = resume.map_or(0, |resume| resume.claim.received);
    let first = Heartbeat { kind: Heartbeat::PING, sequence: 1, received: offset }.to_bytes();
    let (head, len) = head(Sender::Client, Opcode::Ping, first.len());
    let sent = async {
        io.write_all(&[&head[..len], &first].concat()).await?;
        io.flush().await
    };
    sent.await.map_err(|error| refused(Error::Io(error), endpoint))?;
    Ok(Upgraded { io, beats: 1, echo: None, received })
}

/// The gateway's end, of that instance: checks path, subprotocol and resume header, lets `admit` decide by the last, answers, and waits
/// for the first heartbeat. Yields what `admit` did; with it `admit` says how far a lane has got that is taken up again.
///
/// # Errors
/// The refusal that was sent; `upgrade_refused` for what was no upgrade of ours, `protocol_violation` for another first frame.
pub async fn server<T>(
    stream: Box<dyn Io>,
    instance: InstanceId,
    admit: impl FnOnce(Option<Resume>) -> Result<(T, Option<u64>), Failure> + Unpin,
) -> Result<(Upgraded, T), Failure>
where
    T: Unpin,
{
    let mut verdict = None;
    #[allow(clippy::result_large_err, reason = "the shape of the library's callback")]
    let check = |request: &Request, mut response: Response| match check_request(request).and_then(|resume| {
        let received = resume.as_ref().map(|resume| resume.claim.received);
        Ok((admit(resume)?, received))
    }) {
        Ok(((admitted, told), received)) => {
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
            if let Some(told) = told {
                response.headers_mut().insert(resume::RECEIVED_HEADER, HeaderValue::from(told));
            }
            verdict = Some(Ok((admitted, received)));
            Ok(response)
        }
        Err(failure) => {
            let answer = refuse(request, instance, &failure);
            verdict = Some(Err(failure));
            Err(answer)
        }
    };
    let upgraded = accept_hdr_async_with_config(stream, check, Some(config())).await;
    let admitted = verdict.transpose()?;
    let socket = upgraded.map_err(|error| Failure::new(Code::UpgradeRefused, printable(&error.to_string(), 200)))?;
    let (admitted, received) = admitted.ok_or_else(|| Failure::new(Code::Internal, "an upgrade that nobody decided about"))?;
    // What came before the answer was sent is lost by this; an agent of ours waits for it.
    let mut io = socket.into_inner();
    let echo = Some(first_heartbeat(&mut io).await?);
    Ok((Upgraded { io, beats: 0, echo, received }, admitted))
}

/// What the request asks to resume, if it is one of ours.
fn check_request(request: &Request) -> Result<Option<Resume>, Failure> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if request.uri().path() != PATH {
        return Err(Failure::new(Code::UpgradeRefused, "the tunnel is at /v1/tunnel"));
    }
    let offered = header("sec-websocket-protocol").unwrap_or_default();
    if !offered.split(',').any(|protocol| protocol.trim() == SUBPROTOCOL) {
        return Err(Failure::new(Code::ProtocolUnsupported, "the subprotocol is underpass.v1"));
    }
    let mut claims = request.headers().get_all(resume::HEADER).iter();
    let parsed = claims.next().map(|value| value.to_str().unwrap_or_default().parse::<Resume>());
    // What is proved must be what is taken, whoever reads the request.
    if claims.next().is_some() {
        return Err(Failure::new(Code::UpgradeRefused, "one connection is one lane"));
    }
    parsed.transpose().map_err(|error| Failure::new(Code::UpgradeRefused, error))
}

fn refuse(request: &Request, instance: InstanceId, failure: &Failure) -> ErrorResponse {
    let status = match failure.code {
        Code::UpgradeRefused if request.uri().path() != PATH => StatusCode::NOT_FOUND,
        Code::UpgradeRefused | Code::ProtocolUnsupported => StatusCode::BAD_REQUEST,
        Code::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    let mut response = ErrorResponse::new(Some(format!("{failure}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(REFUSAL_HEADER, HeaderValue::from_static(failure.code.as_str()));
    if failure.code == Code::NotHere
        && let Ok(instance) = HeaderValue::from_str(&instance.to_string())
    {
        response.headers_mut().insert(resume::INSTANCE_HEADER, instance);
    }
    response
}

async fn first_heartbeat<S: AsyncRead + Unpin>(io: &mut S) -> Result<Bytes, Failure> {
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::new(Code::LinkClosed, "closed before the first heartbeat"),
        _ => Failure::new(Code::LinkClosed, error),
    };
    let (expected, len) = head(Sender::Client, Opcode::Ping, HEARTBEAT_LEN);
    let mut frame = BytesMut::zeroed(len + HEARTBEAT_LEN);
    // The kind and the length first: another frame may be shorter, and nothing follow it.
    io.read_exact(&mut frame[..2]).await.map_err(broken)?;
    if frame[..2] == expected[..2] {
        io.read_exact(&mut frame[2..]).await.map_err(broken)?;
        if let Ok(Some(Event::Ping(bytes))) = Decoder::new(Sender::Client).next(&mut frame)
            && Heartbeat::from_bytes(&bytes).is_some_and(|beat| beat.kind == Heartbeat::PING)
        {
            return Ok(bytes);
        }
    }
    Err(Failure::new(Code::ProtocolViolation, "the first frame was no heartbeat"))
}

/// Whose fault a failed upgrade is.
fn refused(error: Error, endpoint: &Endpoint) -> Refused {
    let failure = match error {
        Error::Io(error) => tls::explain(&error, &endpoint.0),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => tls::explain(&io::ErrorKind::UnexpectedEof.into(), &endpoint.0),
        Error::Http(response) => return answered(&response, endpoint),
        other => Failure::new(Code::UpgradeRefused, format_args!("{endpoint}: {}", printable(&other.to_string(), 200))),
    };
    failure.into()
}

/// What a gateway says by its code and that alone; of whatever stands in front of it, all that helps to find it.
fn answered(response: &http::Response<Option<Vec<u8>>>, endpoint: &Endpoint) -> Refused {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let body = body.trim();
    let failure = match header(REFUSAL_HEADER).and_then(|code| code.parse::<Code>().ok()) {
        Some(code) => {
            let detail = body.strip_prefix(code.as_str()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(body);
            Failure::new(code, format_args!("{endpoint}: {}", printable(detail, 200)))
        }
        None => {
            let detail = format_args!("{endpoint} answered HTTP {}: {}", response.status(), printable(body, 200));
            Failure::new(Code::UpgradeRefused, detail)
        }
    };
    let instance = header(resume::INSTANCE_HEADER).and_then(|id| InstanceId::from_bytes(id.parse::<Uuid>().ok()?.as_bytes()));
    Refused { failure, instance }
}

#[cfg(test)]
mod tests;
