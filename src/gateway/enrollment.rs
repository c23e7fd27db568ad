//! The enrollment route, behind its own ALPN: one HTTP/1.1 request of 16 KiB at most, answered as JSON.
//! It refuses to judge tokens: the issuer does.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Gateway;
use super::issuer::{EnrollAsk, Enrolled};
use crate::base::code::{Code, Exit, Failure, OrFail};
use crate::base::id::Name;
use crate::base::limits::{HANDSHAKE_DEADLINE, MAX_CSR, MAX_HTTP_REQUEST};
use crate::base::secret::Secret;
use crate::observe::audit::Event;
use crate::observe::metrics;
use crate::wire::enroll::{EnrollRequest, EnrollResponse, ErrorBody, PATH};

/// From the handshake to the answer; issuing takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// Serves one connection of an enrolling agent.
pub async fn serve<S>(gateway: &Arc<Gateway>, stream: S, source: IpAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(gateway, request, source).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_DEADLINE)
        .max_buf_size(MAX_HTTP_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%source, %error, "an enrollment broke off"),
        Err(_) => tracing::debug!(%source, "an enrollment took too long"),
    }
}

async fn answer(gateway: &Gateway, request: Request<Incoming>, source: IpAddr) -> Response<Full<Bytes>> {
    let found = request.uri().path() == PATH && request.method() == Method::POST;
    match enroll(gateway, request, source).await {
        Ok(enrolled) => json(StatusCode::OK, &enrolled),
        Err(failure) if found => refuse(&failure),
        Err(failure) => error(StatusCode::NOT_FOUND, &failure),
    }
}

async fn enroll(gateway: &Gateway, request: Request<Incoming>, source: IpAddr) -> Result<EnrollResponse, Failure> {
    let ask = read(request, source).await.inspect_err(|failure| report(gateway, source, failure))?;
    let Enrolled { agent, chain_pem, not_after, endpoints } = gateway.issuer.enroll(ask).await?;
    Ok(EnrollResponse {
        agent: agent.to_string(),
        chain: chain_pem,
        not_after: not_after.format(&Rfc3339).or_fail(Code::Internal, "writing a time")?,
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
    })
}

async fn read(request: Request<Incoming>, source: IpAddr) -> Result<EnrollAsk, Failure> {
    if request.uri().path() != PATH || request.method() != Method::POST {
        return Err(Failure::new(Code::EnrollRefused, format_args!("the only route here is POST {PATH}")));
    }
    let body = Limited::new(request.into_body(), MAX_HTTP_REQUEST).collect().await;
    let body = body.map_err(|error| Failure::new(Code::CsrInvalid, format_args!("the request's body: {error}")))?.to_bytes();
    parse(&body, source)
}

/// What the issuer never sees; its own refusals it records itself.
fn report(gateway: &Gateway, source: IpAddr, failure: &Failure) {
    metrics::enrollment_refused(failure.code);
    if gateway.audit.limited(&Event::EnrollRefused { code: failure.code, detail: &failure.detail, source }) {
        tracing::info!(%source, code = %failure.code, detail = %failure.detail, "enrollment refused");
    }
}

fn parse(body: &[u8], source: IpAddr) -> Result<EnrollAsk, Failure> {
    let request: EnrollRequest = serde_json::from_slice(body).map_err(|error| {
        // The parser's own words quote what it stumbled over: a secret in the wrong place, maybe.
        let (kind, line, column) = (error.classify(), error.line(), error.column());
        Failure::new(Code::CsrInvalid, format_args!("the request's body, line {line}, column {column}: {kind:?} error"))
    })?;
    let csr = STANDARD.decode(&request.csr).or_fail(Code::CsrInvalid, "the signing request is no base64")?;
    if csr.len() > MAX_CSR {
        return Err(Failure::new(Code::CsrInvalid, format_args!("a signing request has at most {MAX_CSR} bytes")));
    }
    let agent = request.name.as_deref().map(Name::parse).transpose().or_fail(Code::CsrInvalid, "the agent's name")?;
    Ok(EnrollAsk { secret: Secret::new(&request.secret), csr, agent, source })
}

fn refuse(failure: &Failure) -> Response<Full<Bytes>> {
    let status = match failure.code {
        Code::EnrollLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::CsrInvalid => StatusCode::BAD_REQUEST,
        code if code.exit() == Exit::Denied => StatusCode::FORBIDDEN,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, failure)
}

fn error(status: StatusCode, failure: &Failure) -> Response<Full<Bytes>> {
    let body = ErrorBody {
        code: failure.code.to_string(),
        detail: failure.detail.clone(),
        cause: failure.code.cause().to_owned(),
        remedy: failure.code.remedy().to_owned(),
    };
    json(status, &body)
}

fn json<T: serde::Serialize>(status: StatusCode, body: &T) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;
    use crate::gateway::fixture::gateway;

    #[tokio::test(start_paused = true)]
    async fn d1_a_stranger_without_a_head_or_a_body_loses_its_place() {
        let (gateway, ..) = gateway();
        for (bytes, deadline) in [
            ("", HANDSHAKE_DEADLINE),
            ("POST /v1/enroll HTTP/1.1\r\nHo", HANDSHAKE_DEADLINE),
            ("POST /v1/enroll HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", DEADLINE),
        ] {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            theirs.write_all(bytes.as_bytes()).await.unwrap();
            let began = Instant::now();
            serve(&gateway, ours, "192.0.2.1".parse().unwrap()).await;
            assert_eq!(began.elapsed().as_secs(), deadline.as_secs(), "{bytes:?}");
            let _ = theirs.read(&mut [0]).await;
        }
    }
}
