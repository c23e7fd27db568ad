//! Requests through the gateway to an agent that a test plays, as client, agent and audit see them. Refuses to know sockets and TLS.

mod streams;
mod wire;

use std::sync::atomic::AtomicUsize;

use futures_util::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::first::Rewound;
use super::stream::Owned;
use super::*;
use crate::base::grant::Grants;
use crate::base::tasks::Tasks;
use crate::gateway::callers::{PublishedToken, token_hash};
use crate::gateway::fixture::{Agent, agent, gateway};
use crate::gateway::quota::Limits;
use crate::tunnel::fixture::Rows;
use crate::tunnel::mux::Stream;

type Said = BoxBody<Bytes, hyper::Error>;
type Answering = BoxFuture<'static, Response<Said>>;

/// The bearer of each caller.
const CI: &str = "Bearer underpass-client-1.ci";
const OPS: &str = "Bearer underpass-client-1.ops";

/// A gateway, its agent, and what reached it.
struct Site {
    gateway: Arc<Gateway>,
    rows: Rows,
    tasks: Tasks,
    /// The stream's number, and the request's head.
    asked: mpsc::Receiver<(usize, Parts)>,
    drain: Drain,
}

fn text(text: &'static str) -> Said {
    Full::from(text).map_err(|never| match never {}).boxed()
}

fn token(text: &str, name: &str, limits: Limits) -> PublishedToken {
    let grants = Grants::new(vec!["acme/dc1/*".parse().unwrap()]).unwrap();
    PublishedToken { hash: token_hash(text), name: name.to_owned(), grants, limits, expires: None }
}

impl Site {
    /// With an agent that answers each request so.
    async fn new(answer: fn(Request<Incoming>) -> Answering) -> Self {
        Self::limited(answer, Limits::default()).await
    }

    /// With limits of the caller `ci`.
    async fn limited(answer: fn(Request<Incoming>) -> Answering, limits: Limits) -> Self {
        let (gateway, rows, tasks) = gateway();
        let tokens =
            vec![token("underpass-client-1.ci", "ci", limits), token("underpass-client-1.ops", "ops", Limits::default())];
        gateway.callers.publish(tokens);
        let agent = agent("a", &["erp", "crm"]).await;
        gateway.registry().add(agent.live.clone());
        let (tells, asked) = mpsc::channel(1000);
        let owned = tasks.clone();
        tasks.spawn(play(agent, answer, tells, owned));
        Self { gateway, rows, tasks, asked, drain: Drain::new() }
    }

    /// A client's end of a connection that the gateway serves.
    fn connection(&self) -> DuplexStream {
        let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
        let client = Client {
            gateway: self.gateway.clone(),
            base: Some("tunnel.example".into()),
            listener: "192.0.2.1:80".parse().unwrap(),
            source: "192.0.2.9:9".parse().unwrap(),
            certified: Ok(None),
            secure: true,
            binding: Binding::fresh(),
            idle: None,
        };
        let drain = self.drain.clone();
        self.tasks.spawn(async move {
            if let Ok(begun) = client.hear(&mut ours).await {
                begun.serve(ours, &drain).await;
            }
        });
        theirs
    }

    async fn http1(&self) -> http1::SendRequest<Said> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.connection())).await.unwrap();
        self.tasks.spawn(connection.with_upgrades());
        sender
    }

    async fn http2(&self) -> http2::SendRequest<Said> {
        let builder = http2::Builder::new(Owned(self.tasks.clone()));
        let (sender, connection) = builder.handshake(TokioIo::new(self.connection())).await.unwrap();
        self.tasks.spawn(connection);
        sender
    }

    /// The rows, once there are so many.
    async fn rows(&mut self, count: usize) -> Vec<String> {
        let mut rows = Vec::new();
        while rows.len() < count {
            tokio::task::yield_now().await;
            rows.extend(self.rows.take());
        }
        rows
    }
}

/// Serves whatever streams come.
async fn play(mut agent: Agent, answer: fn(Request<Incoming>) -> Answering, tells: mpsc::Sender<(usize, Parts)>, tasks: Tasks) {
    for number in 0.. {
        let (stream, early) = agent.accept().await;
        assert!(early.is_empty());
        tasks.spawn(serve(stream, number, answer, tells.clone(), tasks.clone()));
    }
}

async fn serve(
    mut stream: Stream,
    number: usize,
    answer: fn(Request<Incoming>) -> Answering,
    tells: mpsc::Sender<(usize, Parts)>,
    tasks: Tasks,
) {
    let Ok(first) = first::read(&mut stream).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let mut told = Request::new(()).into_parts().0;
        (told.method, told.uri, told.version) = (head.method.clone(), head.uri.clone(), head.version);
        told.headers = head.headers.clone();
        tells.try_send((number, told)).unwrap();
        let answered = answer(Request::from_parts(head, body));
        async move { Ok::<_, std::convert::Infallible>(answered.await) }
    });
    let io = TokioIo::new(Rewound::new(first.bytes, stream));
    // How it ends is the test's.
    if first.http2 {
        let _ = hyper::server::conn::http2::Builder::new(Owned(tasks)).serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await;
    }
}

fn hello(_: Request<Incoming>) -> Answering {
    Box::pin(async { Response::new(text("hello")) })
}

/// Sends back what comes, trailers too.
fn echo(request: Request<Incoming>) -> Answering {
    Box::pin(async move { Response::new(request.into_body().boxed()) })
}

fn get(path: &str, bearer: Option<&str>) -> Request<Said> {
    ask("GET", path, bearer, text(""))
}

fn ask(method: &str, path: &str, bearer: Option<&str>, body: Said) -> Request<Said> {
    let request = Request::builder().method(method).uri(path).header("host", "gw.example:443");
    let request = bearer.into_iter().fold(request, |request, bearer| request.header("authorization", bearer));
    request.body(body).unwrap()
}

async fn whole(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn e3_a_request_is_made_anew_for_the_agent_and_the_answer_for_the_client() {
    let mut site = Site::new(|_| {
        Box::pin(async {
            let response = Response::builder().status(201).header("location", "https://erp.internal/x").header("x-own", "1");
            let response = response.header("connection", "x-once").header("x-once", "1").header("keep-alive", "timeout=5");
            response.header("underpass-request", "forged").header("underpass-other", "1").body(text("made")).unwrap()
        })
    })
    .await;
    let mut request = ask("POST", "/t/acme/dc1/erp/a/b%2Fc?d=e", Some(CI), text("body"));
    for (name, value) in [
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("underpass-request", "forged"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"),
        ("te", "gzip, trailers"),
        ("keep-alive", "timeout=5"),
        ("cookie", "a=1"),
    ] {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let response = site.http1().await.send_request(request).await.unwrap();
    let headers = response.headers().clone();
    assert_eq!(whole(response).await, (201, "made".to_owned()));

    let (_, asked) = site.asked.recv().await.unwrap();
    let id = asked.headers["underpass-request"].to_str().unwrap();
    assert_eq!((asked.method.as_str(), asked.uri.to_string()), ("POST", "/a/b%2Fc?d=e".to_owned()));
    let mut names: Vec<_> = asked.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let expected = ["content-length", "cookie", "forwarded", "host", "te", "traceparent", "tracestate", "underpass-request"];
    assert_eq!(names, expected, "no token, no claim, nothing of the connection");
    assert_eq!(asked.headers["host"], "erp.dc1.acme.underpass");
    assert_eq!(asked.headers["forwarded"], "for=192.0.2.9;host=\"gw.example:443\";proto=https");
    assert_eq!(asked.headers["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!(asked.headers["te"], "trailers");

    assert_eq!(headers["underpass-request"], id);
    assert_eq!(
        (&headers["location"], &headers["x-own"]),
        (&HeaderValue::from_static("https://erp.internal/x"), &"1".parse().unwrap())
    );
    for name in ["x-once", "keep-alive", "underpass-other"] {
        assert!(!headers.contains_key(name) || name == "x-once", "{name}");
    }
    assert_eq!(site.rows(2).await, ["opened", "request"]);
}

#[tokio::test]
async fn a_target_is_reached_by_path_by_host_and_by_http2() {
    let mut site = Site::new(hello).await;
    let mut request = get("/t/x/y/z", Some(CI));
    request.headers_mut().insert("host", HeaderValue::from_static("ERP--dc1--acme.Tunnel.example"));
    assert_eq!(whole(site.http1().await.send_request(request).await.unwrap()).await, (200, "hello".to_owned()));
    let (_, asked) = site.asked.recv().await.unwrap();
    assert_eq!((asked.uri.to_string(), asked.version), ("/t/x/y/z".to_owned(), http::Version::HTTP_11));
    assert_eq!(asked.headers["forwarded"], "for=192.0.2.9;host=\"erp--dc1--acme.tunnel.example\";proto=https");
    assert!(asked.headers["traceparent"].to_str().is_ok_and(crate::wire::trace::is_traceparent), "a new one");

    let request = Request::builder().uri("https://gw.example/t/acme/dc1/erp?x").header("authorization", CI);
    let response = site.http2().await.send_request(request.body(text("")).unwrap()).await.unwrap();
    assert_eq!((response.version(), whole(response).await.0), (http::Version::HTTP_2, 200));
    let (stream, asked) = site.asked.recv().await.unwrap();
    assert_eq!((stream, asked.version), (1, http::Version::HTTP_2));
    assert_eq!(asked.uri.to_string(), "http://erp.dc1.acme.underpass/?x");
    assert!(!asked.headers.contains_key("host"));
}

#[tokio::test]
async fn i2_i5_who_may_not_is_told_why_in_one_form_and_reaches_no_agent() {
    let mut site = Site::new(hello).await;
    for (method, path, bearer, status, code) in [
        ("GET", "/t/acme/dc1/erp/", None, 401, "login_required"),
        ("GET", "/t/acme/dc1/erp/", Some("Bearer underpass-client-1.wrong"), 401, "login_failed"),
        ("GET", "/t/other/dc1/erp/", Some(CI), 403, "not_granted"),
        ("GET", "/t/acme/dc1/nothing/", Some(CI), 404, "target_unknown"),
        ("GET", "/t/acme/dc1", Some(CI), 404, "target_unknown"),
        ("GET", "/", None, 404, "target_unknown"),
        ("GET", "/v1/tenants/acme/groups/dc1/targets/erp/search", Some(CI), 400, "request_invalid"),
    ] {
        let response = site.http1().await.send_request(ask(method, path, bearer, text(""))).await.unwrap();
        let headers = response.headers().clone();
        assert_eq!((headers["underpass-refusal"].to_str().unwrap(), response.status().as_u16()), (code, status), "{path}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{path}");
        let problem: serde_json::Value = serde_json::from_str(&whole(response).await.1).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()));
        assert_eq!(problem["request"], headers["underpass-request"].to_str().unwrap());
        assert_eq!(
            problem["detail"].as_str().is_some_and(|detail| detail.contains("/t/TENANT")),
            path == "/" || path == "/t/acme/dc1"
        );
    }
    assert!(site.asked.try_recv().is_err());
    let rows = site.rows.take();
    assert_eq!(rows.iter().filter(|row| row.starts_with("refused")).count(), 2, "{rows:?}");
    assert_eq!(rows.iter().filter(|row| row.starts_with("connect_refused")).count(), 5, "{rows:?}");
}

#[tokio::test]
async fn a_refusal_of_the_agents_passes_and_is_in_the_audit() {
    let mut site = Site::new(|_| {
        Box::pin(async {
            let response = Response::builder().status(403).header("underpass-refusal", "request_denied");
            response.header("content-type", "application/problem+json").body(text("{}")).unwrap()
        })
    })
    .await;
    let response = site.http1().await.send_request(get("/t/acme/dc1/erp/x", Some(CI))).await.unwrap();
    assert_eq!(
        (response.headers()["underpass-refusal"].to_str().unwrap(), response.status().as_u16()),
        ("request_denied", 403)
    );
    assert_eq!(whole(response).await.1, "{}");
    assert_eq!(site.rows(2).await, ["opened", "request request_denied"]);
}
