//! One endpoint asked for one stream: TLS, CONNECT, the answer. No byte of a client's goes out before the answer has come.
//! Refuses to know whether it is asked again.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Client;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::Endpoint;
use crate::base::limits::{ASK_DEADLINE, CLIENT_HEAD, ENDPOINT_DEADLINE};
use crate::tunnel::dial::{self, Secured};
use crate::tunnel::half_close::HalfClose;
use crate::wire::connect;

/// A stream of the target's, and what the target has said already.
pub(super) struct Opened {
    pub(super) stream: HalfClose<Secured>,
    pub(super) first: BytesMut,
}

/// Why there is none.
pub(super) enum Miss {
    /// Nobody answered.
    Way(Failure),
    /// The gateway said no, or something strange.
    Refused(Failure),
}

/// Dials an endpoint and asks it.
pub(super) async fn ask(client: &Client, endpoint: &Endpoint) -> Result<Opened, Miss> {
    let dialled = within(ENDPOINT_DEADLINE, endpoint, secure(client, endpoint)).await;
    let mut stream = dialled.map_err(Miss::Way)?;
    let answered = within(ASK_DEADLINE, endpoint, exchange(client, endpoint, &mut stream)).await;
    match answered.map_err(Miss::Way)? {
        Ok(first) => Ok(Opened { stream: HalfClose::new(stream), first }),
        Err(refusal) => Err(Miss::Refused(refusal)),
    }
}

async fn within<T>(
    limit: Duration,
    endpoint: &Endpoint,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let silent =
        |_| Err(Failure::new(Code::GatewayTimeout, format_args!("{endpoint}: no answer within {} s", limit.as_secs())));
    tokio::time::timeout(limit, asked).await.unwrap_or_else(silent)
}

async fn secure(client: &Client, endpoint: &Endpoint) -> Result<Secured, Failure> {
    let proxy = client.egress.proxy_for(&endpoint.0)?;
    dial::secure_stream(&endpoint.0, proxy.as_ref(), client.config.clone()).await
}

/// Says CONNECT and reads the answer: what came behind it, or the refusal.
async fn exchange(client: &Client, endpoint: &Endpoint, stream: &mut Secured) -> Result<Result<BytesMut, Failure>, Failure> {
    let lost = |error| Failure::new(Code::LinkClosed, format_args!("{endpoint} did not answer CONNECT: {error}"));
    let request = connect::request(&client.target, &client.token);
    stream.write_all(request.as_bytes()).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut read = BytesMut::with_capacity(CLIENT_HEAD);
    loop {
        if stream.read_buf(&mut read).await.map_err(lost)? == 0 {
            return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
        match connect::answer(&read) {
            Ok(None) => {}
            Ok(Some((length, answer))) => {
                read.advance(length);
                return Ok(answer.map(|()| read));
            }
            Err(strange) => return Ok(Err(strange.context(endpoint))),
        }
    }
}
