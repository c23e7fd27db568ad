//! One stream of HTTP through the hop, with the client's end and the origin's in the test's hands, byte by byte.

use tokio::io::{DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::agent::fixture;
use crate::agent::policy::{HttpService, Service, TargetSpec};
use crate::base::id::{RequestId, SessionId};
use crate::base::tasks::Tasks;
use crate::rules::http::Rules;
use crate::tunnel::fixture::Rows;
use crate::tunnel::ledger::Asked;

mod bodies;
mod connections;
mod http2;
mod smuggling;
mod upgrades;

/// A target `erp` and its origin's listener.
struct Rig {
    agent: Arc<Agent>,
    rows: Rows,
    tasks: Tasks,
    listener: TcpListener,
    spec: TargetSpec,
}

/// The client's end of a stream.
struct Client {
    io: DuplexStream,
    served: JoinHandle<Option<Option<Code>>>,
}

/// The origin's end of a connection.
struct Far(TcpStream);

impl Rig {
    /// With these rules; none: `""`.
    async fn new(rules: &str) -> Self {
        Self::with(rules, |_| {}).await
    }

    async fn with(rules: &str, change: impl FnOnce(&mut TargetSpec)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut spec = fixture::spec(&listener.local_addr().unwrap().to_string(), true);
        spec.service = service(rules, false);
        change(&mut spec);
        let (agent, rows, tasks) = fixture::agent(fixture::policy(&[("erp", spec.clone())]), 9);
        Self { agent, rows, tasks, listener, spec }
    }

    /// A stream of a client's own bytes.
    fn client(&mut self) -> Client {
        self.stream(Spoken::Raw)
    }

    fn stream(&mut self, spoken: Spoken) -> Client {
        let open = Open { spoken, ..fixture::open("erp") };
        let permit = Arc::new(self.agent.policy().authorize(&open).unwrap());
        let identity = &self.agent.settings.agent;
        let mut asked = Asked::new(&self.agent.audit, open.request, "erp".into(), "c".into(), None, None);
        let ledger = Arc::new(asked.opened(SessionId::fresh(), identity, None, ()).unwrap());
        self.rows.take();
        let (io, near) = duplex(64 * 1024);
        let serve = serve_io(self.agent.clone(), permit, open, ledger, near, BytesMut::new());
        Client { io, served: self.tasks.spawn(serve) }
    }

    /// The next connection to the origin.
    async fn origin(&self) -> Far {
        Far(self.listener.accept().await.unwrap().0)
    }

    /// Nothing has been dialled.
    async fn nothing_dialled(&self) {
        tokio::select! {
            biased;
            _ = self.listener.accept() => panic!("the origin was dialled"),
            () = tokio::task::yield_now() => {}
        }
    }

    /// A request's row.
    async fn row(&mut self) -> serde_json::Value {
        loop {
            let row = self.rows.next().await;
            if row["event"] == "request" {
                return row;
            }
        }
    }
}

fn service(rules: &str, http2: bool) -> Service {
    let rules = if rules.is_empty() { Rules::any() } else { serde_json::from_str(rules).unwrap() };
    Service::Http(HttpService { tls: None, http2, rules: Arc::new(rules) })
}

impl Client {
    async fn say(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// An answer's head.
    async fn head(&mut self) -> String {
        head(&mut self.io).await
    }

    async fn read(&mut self, len: usize) -> String {
        exactly(&mut self.io, len).await
    }

    async fn read_bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.io.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Asks, and reads the answer that has its length.
    async fn ask(&mut self, request: &str) -> (String, String) {
        self.say(request).await;
        self.answer().await
    }

    async fn answer(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = value(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.read(length).await;
        (head, body)
    }

    /// All that comes until the stream's end, and why it was cut.
    async fn rest(mut self) -> (String, Option<Code>) {
        let mut rest = Vec::new();
        self.io.read_to_end(&mut rest).await.unwrap();
        drop(self.io);
        (String::from_utf8(rest).unwrap(), self.served.await.unwrap().unwrap())
    }
}

impl Far {
    async fn head(&mut self) -> String {
        head(&mut self.0).await
    }

    async fn read(&mut self, len: usize) -> String {
        exactly(&mut self.0, len).await
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn rest(mut self) -> String {
        let mut rest = Vec::new();
        // A reset ends it as well.
        let _ = self.0.read_to_end(&mut rest).await;
        String::from_utf8(rest).unwrap()
    }
}

async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

async fn exactly(io: &mut (impl AsyncRead + Unpin), len: usize) -> String {
    let mut bytes = vec![0; len];
    io.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// A header's value in a head.
fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn c21_a_request_reaches_the_origin_as_it_was_matched_and_its_answer_comes_back() {
    let mut rig = Rig::new(r#"[{"methods": ["GET"], "path": "/api/*/orders", "query": ["q"]}]"#).await;
    let mut client = rig.client();
    client.say("GET /api/%C3%A9;v=1/orders?q=%2e%2f&q={ HTTP/1.1\r\nHost: somebody\r\nCookie: a=1\r\n\r\n").await;
    let mut origin = rig.origin().await;
    let head = origin.head().await;
    assert!(head.starts_with("GET /api/%C3%A9;v=1/orders?q=%2e%2f&q={ HTTP/1.1\r\n"), "{head}");
    assert_eq!(value(&head, "host"), Some(rig.spec.address.to_string().as_str()));
    assert_eq!(value(&head, "cookie"), Some("a=1"));
    assert_eq!(value(&head, "forwarded"), Some("for=192.0.2.9;host=\"somebody\";proto=http"));
    assert!(value(&head, "traceparent").is_some() && value(&head, "transfer-encoding").is_none());
    let id = value(&head, "underpass-request").unwrap().to_owned();
    origin.say("HTTP/1.1 404 Gone Fishing\r\nContent-Length: 4\r\nLocation: http://10.0.0.1/x\r\nUnderpass-Refusal: no_agent\r\nKeep-Alive: timeout=5\r\n\r\nlost").await;
    let (head, body) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 404 ") && body == "lost", "{head}");
    assert_eq!(value(&head, "location"), Some("http://10.0.0.1/x"));
    assert_eq!((value(&head, "underpass-refusal"), value(&head, "keep-alive")), (None, None));
    let row = rig.row().await;
    assert_eq!((&row["method"], &row["path"], &row["status"]), (&"GET".into(), &"/api/%C3%A9;v=1/orders".into(), &404.into()));
    assert_eq!(
        (&row["request"], &row["up"], &row["down"], &row["code"]),
        (&id.into(), &0.into(), &4.into(), &serde_json::Value::Null)
    );
}

#[tokio::test]
async fn d9_a_refused_request_is_answered_recorded_and_dials_nothing() {
    let mut rig = Rig::new(r#"[{"methods": ["GET", "POST"], "path": "/a/**", "max_body": "4B"}]"#).await;
    for (request, status, code) in [
        ("DELETE /a HTTP/1.1\r\nHost: a\r\n\r\n", 403, "request_denied"),
        ("GET /b HTTP/1.1\r\nHost: a\r\n\r\n", 403, "request_denied"),
        ("GET /a/..%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_path"),
        ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 413, "body_too_large"),
        ("GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 403, "upgrade_denied"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_path"),
        ("TRACE /a HTTP/1.1\r\nHost: a\r\n\r\n", 403, "request_denied"),
        ("CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n", 403, "request_denied"),
        ("GET http://a/a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_invalid"),
    ] {
        let mut client = rig.client();
        let (head, body) = client.ask(request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        assert_eq!(
            (value(&head, "underpass-refusal"), value(&head, "content-type")),
            (Some(code), Some("application/problem+json"))
        );
        let row = rig.row().await;
        assert_eq!((&row["status"], &row["code"]), (&status.into(), &code.into()), "{request}");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&problem["code"], &problem["request"]), (&code.into(), &row["request"]));
        rig.nothing_dialled().await;
    }
}

#[tokio::test]
async fn tls_inside_the_tunnel_is_refused_with_a_code_that_says_so() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.io.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    client.io.shutdown().await.unwrap();
    let (answer, code) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("tls_to_http_target"), "{answer}");
    assert_eq!(code, Some(Code::TlsToHttpTarget));
    rig.nothing_dialled().await;
}

#[tokio::test]
async fn a_stream_that_says_nothing_ends_in_good_order() {
    let mut rig = Rig::new("").await;
    let mut client = rig.client();
    client.io.shutdown().await.unwrap();
    assert_eq!(client.rest().await, (String::new(), None));
}

#[tokio::test]
async fn d9_headers_pass_both_ways_as_the_rule_lists_them() {
    let mut rig = Rig::new(r#"[{"path": "/", "request_headers": ["accept"], "response_headers": ["etag"]}]"#).await;
    let mut client = rig.client();
    client.say("GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\nCookie: secret\r\nX-Other: 1\r\n\r\n").await;
    let mut origin = rig.origin().await;
    let head = origin.head().await;
    assert_eq!((value(&head, "accept"), value(&head, "cookie"), value(&head, "x-other")), (Some("x"), None, None));
    origin.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: e\r\nSet-Cookie: secret\r\nServer: x\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((value(&head, "etag"), value(&head, "set-cookie"), value(&head, "server")), (Some("e"), None, None));
}

#[tokio::test]
async fn a_request_after_a_reload_is_decided_by_the_new_rules() {
    let mut rig = Rig::new(r#"[{"path": "/a"}]"#).await;
    let mut client = rig.client();
    client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = rig.origin().await;
    origin.head().await;
    origin.say(OK).await;
    assert!(client.answer().await.0.starts_with("HTTP/1.1 200 "));
    let changed = TargetSpec { service: service(r#"[{"path": "/b"}]"#, false), ..rig.spec.clone() };
    rig.agent.reload(fixture::policy(&[("erp", changed)]));
    assert!(client.ask("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.0.starts_with("HTTP/1.1 403 "));
    client.say("GET /b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(origin.head().await.starts_with("GET /b "), "by the same connection");
}

#[tokio::test]
async fn a_gateways_word_of_a_client_is_passed_on_and_a_request_has_its_id() {
    let mut rig = Rig::new("").await;
    let mut client = rig.stream(Spoken::Http);
    let id = RequestId::fresh().to_string();
    let said = format!("GET / HTTP/1.1\r\nHost: x\r\nForwarded: for=1.2.3.4\r\nUnderpass-Request: {id}\r\n\r\n");
    client.say(&said).await;
    let mut origin = rig.origin().await;
    let head = origin.head().await;
    assert_eq!((value(&head, "forwarded"), value(&head, "underpass-request")), (Some("for=1.2.3.4"), Some(id.as_str())));
    origin.say(OK).await;
    client.answer().await;
    assert_eq!(rig.row().await["request"], id.as_str());
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_cut_after_the_targets_idle_timeout() {
    let mut rig = Rig::with("", |spec| spec.limits.idle_timeout = Some(Duration::from_secs(8))).await;
    let mut client = rig.client();
    client.say("GET / HTTP/1.1\r\nHost: x\r\n").await;
    assert_eq!(client.rest().await, (String::new(), Some(Code::IdleTimeout)));
}

#[tokio::test]
async fn a_drain_ends_an_idle_stream_and_lets_a_request_finish() {
    let mut rig = Rig::new("").await;
    let (mut busy, mut idle) = (rig.client(), rig.client());
    busy.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut origin = rig.origin().await;
    origin.head().await;
    idle.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut other = rig.origin().await;
    other.head().await;
    other.say(OK).await;
    idle.answer().await;
    rig.agent.drain.begin();
    assert_eq!(idle.rest().await, (String::new(), None));
    origin.say(OK).await;
    let (answer, code) = busy.rest().await;
    assert!(answer.ends_with("\r\n\r\nok") && code.is_none(), "{answer}");
}
