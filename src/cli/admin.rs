//! Asks a running process over its admin socket. It refuses to know what the routes mean.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::base::code::{Code, Failure, OrFail};
use crate::tunnel::dial::beside;
use crate::wire::enroll::ErrorBody;

/// A list of every agent of a large gateway is a few MiB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

const DEADLINE: Duration = Duration::from_secs(30);

/// Asks without a body.
pub(super) async fn get<A: DeserializeOwned>(socket: &Path, path: &str) -> Result<A, Failure> {
    ask(socket, Method::GET, path, Bytes::new()).await
}

/// Asks with a JSON body.
pub(super) async fn post<Q: Serialize, A: DeserializeOwned>(socket: &Path, path: &str, body: &Q) -> Result<A, Failure> {
    let body = serde_json::to_vec(body).or_fail(Code::Internal, "writing the request")?;
    ask(socket, Method::POST, path, body.into()).await
}

async fn ask<A: DeserializeOwned>(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<A, Failure> {
    let exchange = tokio::time::timeout(DEADLINE, exchange(socket, method, path, body)).await;
    exchange.unwrap_or_else(|_| Err(Failure::new(Code::NotRunning, format_args!("{} does not answer", socket.display()))))
}

async fn exchange<A: DeserializeOwned>(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<A, Failure> {
    let stream = UnixStream::connect(socket).await.or_fail(Code::NotRunning, socket.display())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.or_fail(Code::NotRunning, path)?;
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "localhost")
        .header("Content-Type", "application/json")
        .body(Full::from(body))
        .or_fail(Code::Internal, path)?;
    let answer = async {
        let response = sender.send_request(request).await.or_fail(Code::NotRunning, path)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok::<_, Failure>((status, body.or_fail(Code::NotRunning, path)?.to_bytes()))
    };
    let (status, body) = beside(connection, answer).await?;
    if status.is_success() {
        return serde_json::from_slice(&body).or_fail(Code::Internal, format_args!("the answer of {path}"));
    }
    let error: ErrorBody = serde_json::from_slice(&body).or_fail(Code::Internal, format_args!("{path} answered {status}"))?;
    Err(Failure::new(error.code.parse().unwrap_or(Code::Internal), error.detail))
}
