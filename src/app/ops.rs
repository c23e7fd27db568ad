//! The two small HTTP servers of a process: metrics and probes over TCP, the admin API over a Unix socket.
//! It refuses to know what the admin routes do.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use super::process::{UPKEEP, measure};
use crate::base::allow::{AllowFrom, site};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::drain::Drain;
use crate::base::limits::{HANDSHAKE_DEADLINE, HTTP_DEADLINE, MAX_HTTP_REQUEST};
use crate::base::tasks::Tasks;
use crate::control::Caller;
use crate::observe::metrics::Metrics;
use crate::tunnel::listen::{self, Caps, Service, bind};

/// Operators and scrapers are few.
const CAPS: Caps = Caps { connections: 64, handshakes: 64 };

/// The sample server's: a download may take its time.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(3600);

/// Whether the process can do its work.
pub type Readiness = Arc<dyn Fn() -> Result<(), Failure> + Send + Sync>;

/// Shows what the role's gauges are now.
pub type Gauges = Arc<dyn Fn() + Send + Sync>;

/// Serves `/metrics`, `/livez` and `/readyz`. The role's gauges are shown anew for each scrape, so that they agree with what is counted
/// as it happens.
///
/// # Errors
/// `listen_failed`.
pub fn serve_metrics(
    address: SocketAddr,
    allow: AllowFrom,
    (metrics, gauges): (Metrics, Gauges),
    ready: Readiness,
    drain: &Drain,
    tasks: &Tasks,
) -> Result<SocketAddr, Failure> {
    let scrape = move || async move {
        gauges();
        metrics.render()
    };
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(move || async move { readiness(&ready) }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "here are /metrics, /livez and /readyz\n") });
    listen_on(address, Http { router, allow, deadline: HTTP_DEADLINE }, drain, tasks)
}

/// Serves a sample's routes over TCP; yields where.
///
/// # Errors
/// `listen_failed`.
pub fn serve_sample(
    address: SocketAddr,
    router: Router,
    allow: AllowFrom,
    drain: &Drain,
    tasks: &Tasks,
) -> Result<SocketAddr, Failure> {
    listen_on(address, Http { router, allow, deadline: SAMPLE_DEADLINE }, drain, tasks)
}

fn listen_on(address: SocketAddr, http: Http, drain: &Drain, tasks: &Tasks) -> Result<SocketAddr, Failure> {
    let socket = bind(address)?;
    let address = socket.local_addr().unwrap_or(address);
    tasks.spawn(listen::serve(socket, CAPS, Arc::new(http), drain.clone(), tasks.clone()));
    Ok(address)
}

fn readiness(ready: &Readiness) -> (StatusCode, String) {
    match ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {failure}\n")),
    }
}

/// Serves an admin API on a socket that only this user can reach. A socket that a dead process left is replaced.
///
/// # Errors
/// `listen_failed`, also when another process answers there.
pub async fn serve_admin(path: &Path, router: Router, drain: &Drain, tasks: &Tasks) -> Result<(), Failure> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(Failure::new(Code::ListenFailed, format_args!("another process answers on {}", path.display())));
    }
    // What is left of a dead process; anything else shows itself at the bind.
    let _ = std::fs::remove_file(path);
    let socket = UnixListener::bind(path).or_fail(Code::ListenFailed, path.display())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).or_fail(Code::ListenFailed, path.display())?;
    let service = Arc::new(Http { router, allow: AllowFrom::all(), deadline: HTTP_DEADLINE });
    tasks.spawn(listen::serve(socket, CAPS, service, drain.clone(), tasks.clone()));
    Ok(())
}

/// Keeps metrics in order for as long as `tasks` live, and does what else is `more` to do as often.
pub fn keep_up(metrics: Metrics, tasks: &Tasks, more: impl Fn() + Send + 'static) {
    tasks.spawn(async move {
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tick.tick().await;
            metrics.run_upkeep();
            measure();
            more();
        }
    });
}

struct Http {
    router: Router,
    allow: AllowFrom,
    /// A connection's whole life.
    deadline: Duration,
}

impl Service<TcpStream, SocketAddr> for Http {
    type Ready = TcpStream;

    fn admits(&self, peer: &SocketAddr) -> bool {
        self.allow.admits(peer.ip())
    }

    async fn handshake(&self, io: TcpStream, _: SocketAddr) -> Option<TcpStream> {
        Some(io)
    }

    async fn serve(&self, io: TcpStream) {
        serve_http(io, self.router.clone(), self.deadline).await;
    }

    fn source(&self, peer: &SocketAddr) -> Option<IpAddr> {
        Some(site(peer.ip()))
    }

    fn timed_out(&self, _: SocketAddr) {}

    fn crowded(&self, _: SocketAddr) {}
}

impl Service<UnixStream, Option<u32>> for Http {
    type Ready = (UnixStream, Caller);

    /// The file's mode keeps other users out once it is set, between making the socket and that it does not. A caller that the
    /// kernel can't name is nobody.
    fn admits(&self, peer: &Option<u32>) -> bool {
        let own = rustix::process::geteuid().as_raw();
        peer.is_some_and(|uid| uid == own || uid == 0)
    }

    async fn handshake(&self, io: UnixStream, peer: Option<u32>) -> Option<(UnixStream, Caller)> {
        peer.map(|uid| (io, Caller::uid(uid)))
    }

    async fn serve(&self, (io, caller): (UnixStream, Caller)) {
        serve_http(io, self.router.clone().layer(axum::Extension(caller)), self.deadline).await;
    }

    /// Its users are those who may end the process.
    fn source(&self, _: &Option<u32>) -> Option<IpAddr> {
        None
    }

    fn timed_out(&self, _: Option<u32>) {}

    fn crowded(&self, _: Option<u32>) {}
}

async fn serve_http<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: Io, router: Router, deadline: Duration) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_DEADLINE)
        .max_buf_size(MAX_HTTP_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    if let Ok(Err(error)) = tokio::time::timeout(deadline, connection).await {
        tracing::debug!(%error, "an admin connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    /// How long a client that sends `bytes` and reads nothing keeps its connection.
    async fn kept(bytes: &[u8]) -> Duration {
        let large = || async { "x".repeat(1 << 20) };
        let router = Router::new().route("/", post(|body: String| async { body })).route("/large", get(large));
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(bytes).await.unwrap();
        let began = Instant::now();
        serve_http(ours, router, HTTP_DEADLINE).await;
        // It was there all the time.
        let _ = theirs.read(&mut [0]).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn d1_a_client_without_a_head_a_body_or_an_ear_loses_its_place() {
        for head in ["", "GET / HTTP/1.1\r\nHo"] {
            assert_eq!(kept(head.as_bytes()).await.as_secs(), HANDSHAKE_DEADLINE.as_secs(), "{head:?}");
        }
        for request in ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", "GET /large HTTP/1.1\r\nHost: a\r\n\r\n"]
        {
            assert_eq!(kept(request.as_bytes()).await.as_secs(), HTTP_DEADLINE.as_secs(), "{request:?}");
        }
        assert_eq!(kept(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n").await, Duration::ZERO);
    }

    #[test]
    fn e11_an_admin_socket_serves_its_own_user_and_root_alone() {
        let http = Http { router: Router::new(), allow: AllowFrom::all(), deadline: HTTP_DEADLINE };
        let admits = |uid| Service::<UnixStream, Option<u32>>::admits(&http, &uid);
        let own = rustix::process::geteuid().as_raw();
        assert!(admits(Some(own)) && admits(Some(0)));
        assert!(!admits(Some(own + 1)) && !admits(None));
    }
}
