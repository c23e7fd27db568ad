//! Asks a running process over its admin socket. It refuses to know what the routes mean.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::print;
use crate::base::code::{Code, Failure, OrFail};
use crate::tunnel::dial::beside;
use crate::wire::enroll::ErrorBody;

/// A list of every agent of a large gateway is a few MiB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// What is asked for is in memory or in a small database: a health check is to learn soon that it does not come.
const GET_DEADLINE: Duration = Duration::from_secs(5);

/// What is to be done goes to the disk first, which may be slow.
const POST_DEADLINE: Duration = Duration::from_secs(30);

/// Asks without a body.
pub(super) async fn get<A: DeserializeOwned>(socket: &Path, path: &str) -> Result<A, Failure> {
    let exchange = exchange(socket, Method::GET, path, Bytes::new());
    timeout(GET_DEADLINE, exchange).await.unwrap_or_else(|_| Err(silent(socket, GET_DEADLINE, "")))
}

/// Asks with a JSON body.
pub(super) async fn post<Q: Serialize, A: DeserializeOwned>(socket: &Path, path: &str, body: &Q) -> Result<A, Failure> {
    let body = serde_json::to_vec(body).or_fail(Code::Internal, "writing the request")?;
    let exchange = exchange(socket, Method::POST, path, body.into());
    let perhaps = "; it may be done all the same: its audit says so";
    timeout(POST_DEADLINE, exchange).await.unwrap_or_else(|_| Err(silent(socket, POST_DEADLINE, perhaps)))
}

fn silent(socket: &Path, limit: Duration, then: &str) -> Failure {
    let why = format_args!("{}: no answer within {}{then}", socket.display(), print::duration(limit));
    Failure::new(Code::NotAnswering, why)
}

/// A socket that nobody serves refuses. One that has too many waiting belongs to somebody who doesn't take them.
fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::WouldBlock { Code::NotAnswering } else { Code::NotRunning };
    Failure::new(code, format_args!("{}: {error}", socket.display()))
}

async fn exchange<A: DeserializeOwned>(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<A, Failure> {
    let stream = UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_hangs_is_told_soon_and_apart_from_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let code = async |of: &Path| get::<Value>(of, "/v1/status").await.unwrap_err().code;
        assert_eq!(code(&socket).await, Code::NotRunning);
        let hangs = UnixListener::bind(&socket).unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(code(&socket).await, Code::NotAnswering);
        assert_eq!(began.elapsed().as_secs(), GET_DEADLINE.as_secs());
        let failure = post::<_, Value>(&socket, "/v1/agents/disable", &json!({})).await.unwrap_err();
        assert!(failure.code == Code::NotAnswering && failure.detail.contains("may be done"), "{failure}");
        drop(hangs);
        assert_eq!(code(&socket).await, Code::NotRunning, "a socket that a dead process left");
    }
}
