//! Agents behind a corporate HTTP proxy: with a login, forbidden, broken, inspected, or not to be used.
//! Refuses to know what the tunnel carries.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::fixtures::peer::read_head;
use crate::fixtures::squid::{INSPECTOR, LOGIN, Squid};
use crate::harness::site::{Agent, Gateway};
use crate::harness::target::{Target, echoes, pattern};
use crate::harness::{SOON, free_port, loopback};

/// A gateway with a listener for `echo`, and an enrolled agent that is not started.
async fn site() -> (Gateway, Agent, Target, u16) {
    let (mut gateway, echo, port) = (Gateway::init().await, Target::echo().await, free_port());
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/echo")]));
    gateway.start().await;
    let agent = Agent::enroll(&gateway, "a1").await;
    (gateway, agent, echo, port)
}

/// `proxy:` with the login of the proxy, and the target.
fn through(agent: &Agent, echo: &Target, url: &str, password: &str) -> String {
    let file = agent.scratch().write("proxy-password", password);
    let (user, file) = (LOGIN.0, file.display());
    format!("proxy: {{url: \"{url}\", username: {user}, password: {{file: \"{file}\"}}}}\n")
        + &Agent::targets(&[("echo", echo.address())])
}

async fn serves(port: u16) {
    let mut client = tokio::net::TcpStream::connect(loopback(port)).await.unwrap();
    timeout(SOON, echoes(&mut client, &pattern(1_000_000))).await.unwrap().unwrap();
    client.shutdown().await.unwrap();
}

#[tokio::test]
async fn c2_the_tunnel_passes_a_proxy_that_wants_a_login() {
    let (_gateway, mut agent, echo, port) = site().await;
    let squid = Squid::with_login().await;
    agent.configure(&through(&agent, &echo, &squid.url(), LOGIN.1));
    agent.start().await;
    serves(port).await;
    let session = agent.session().await.unwrap();
    assert!(session["proxy"].to_string().contains(&squid.address().to_string()), "status shows the proxy: {session}");
    // squid writes its log line when the tunnel ends.
    agent.process().kill();
    crate::harness::eventually("squid saw CONNECT", SOON, async || squid.log().contains("CONNECT").then_some(())).await;
    assert!(squid.log().contains(LOGIN.0), "{}", squid.log());
}

#[tokio::test]
async fn c2_an_agent_enrolls_through_the_proxy() {
    let (gateway, _, _, _) = site().await;
    let squid = Squid::open().await;
    let agent = Agent::blank(&gateway, "a2");
    let token = gateway.token("acme", "dc1").await;
    agent.enrollment(&token).args(["--proxy", &squid.url()]).run().await.ok();
    crate::harness::eventually("squid saw CONNECT", SOON, async || squid.log().contains("CONNECT").then_some(())).await;
}

#[tokio::test]
async fn c2_a_wrong_password_is_named_407() {
    let (_gateway, mut agent, echo, _) = site().await;
    let squid = Squid::with_login().await;
    agent.configure(&through(&agent, &echo, &squid.url(), "wrong-canary-4711"));
    agent.launch();
    agent.fails_with("proxy_auth_required").await;
    let (status, log) = (agent.status().await.unwrap().to_string(), agent.process().stderr());
    assert!(!status.contains("wrong-canary-4711") && !log.contains("wrong-canary-4711"), "the password shows");
}

#[tokio::test]
async fn c2_a_forbidding_proxy_is_named_403() {
    let (_gateway, mut agent, echo, _) = site().await;
    let squid = Squid::forbidding().await;
    agent.configure(&through(&agent, &echo, &squid.url(), LOGIN.1));
    agent.launch();
    agent.fails_with("proxy_denied").await;
}

#[tokio::test]
async fn c2_a_proxy_that_cannot_reach_the_gateway_is_named_502() {
    let (_gateway, mut agent, echo, _) = site().await;
    let squid = Squid::open().await;
    let nobody = format!("wss://127.0.0.1:{}", free_port());
    agent.configure_endpoint(&nobody, &through(&agent, &echo, &squid.url(), LOGIN.1));
    agent.launch();
    agent.fails_with("proxy_bad_gateway").await;
}

#[tokio::test]
async fn c2_a_dead_proxy_is_named_and_its_return_is_found() {
    let (_gateway, mut agent, echo, port) = site().await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    agent.configure(&through(&agent, &echo, &nobody, LOGIN.1));
    agent.launch();
    agent.fails_with("proxy_unreachable").await;
    let squid = Squid::with_login().await;
    agent.configure(&through(&agent, &echo, &squid.url(), LOGIN.1));
    agent.start().await;
    serves(port).await;
}

#[tokio::test]
async fn c2_the_environments_proxy_is_used_and_shown_and_no_proxy_is_kept_to() {
    let (_gateway, agent, echo, port) = site().await;
    let squid = Squid::open().await;
    let mut agent = agent.with_env("HTTPS_PROXY", &squid.url());
    agent.configure(&Agent::targets(&[("echo", echo.address())]));
    agent.start().await;
    serves(port).await;
    let session = agent.session().await.unwrap();
    assert!(session["proxy"].to_string().contains(&squid.address().to_string()), "status shows the proxy: {session}");
    agent.process().kill();
    crate::harness::eventually("squid saw CONNECT", SOON, async || squid.log().contains("CONNECT").then_some(())).await;

    let before = squid.log();
    let mut agent = agent.with_env("NO_PROXY", "example.com,127.0.0.0/8");
    agent.start().await;
    serves(port).await;
    let session = agent.session().await.unwrap();
    assert!(!session["proxy"].to_string().contains(&squid.address().to_string()), "no proxy in use: {session}");
    agent.process().kill();
    assert_eq!(squid.log(), before, "the proxy was not asked");
}

/// What an agent says behind a TLS inspector, with `trust` given to it as the OS store.
async fn inspected(trust: Option<&dyn Fn(&Squid) -> std::path::PathBuf>) {
    let (gateway, agent, echo, _) = site().await;
    let squid = Squid::inspecting().await;
    let mut agent = match trust {
        Some(file) => agent.with_env("SSL_CERT_FILE", &file(&squid).display().to_string()),
        None => agent,
    };
    agent.configure(&through(&agent, &echo, &squid.url(), LOGIN.1));
    agent.launch();
    let detail = agent.fails_with("tls_intercepted").await;
    assert!(detail.contains(INSPECTOR), "names the issuer: {detail}");
    assert!(!gateway.audit().iter().any(|row| row["event"] == "connected"), "never connected");
    assert!(!agent.is_connected().await);
    assert!(Path::new(&agent.dir()).join("agent.pem").exists());
}

#[tokio::test]
async fn s4_tls_inspection_is_named_with_its_issuer_and_never_accepted() {
    inspected(None).await;
}

#[tokio::test]
async fn s3_a_ca_in_the_os_store_changes_nothing() {
    inspected(Some(&Squid::ca)).await;
}

#[tokio::test]
async fn s4_enrollment_through_an_inspector_is_refused_and_burns_no_token() {
    let (gateway, _, _, _) = site().await;
    let squid = Squid::inspecting().await;
    let agent = Agent::blank(&gateway, "a2");
    let token = gateway.token("acme", "dc1").await;
    let refused = agent.enrollment(&token).args(["--proxy", &squid.url()]).run().await.exits(77);
    assert!(refused.stderr.contains("tls_intercepted") && refused.stderr.contains(INSPECTOR), "{}", refused.stderr);
    agent.enrollment(&token).run().await.ok();
}

/// What an agent says of a proxy that answers each CONNECT with this, over and over; how often it asked, and how much it took.
async fn answered(with: &'static [u8], repeated: usize) -> (String, String, usize, usize, Agent) {
    let (_gateway, mut agent, echo, _) = site().await;
    let (asked, taken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (asks, takes) = (asked.clone(), taken.clone());
    let proxy = Target::start(move |mut stream| {
        let (asks, takes) = (asks.clone(), takes.clone());
        async move {
            // Whoever asks again on the same connection is answered again.
            loop {
                read_head(&mut stream).await?;
                asks.fetch_add(1, Ordering::SeqCst);
                for _ in 0..repeated {
                    stream.write_all(with).await?;
                    takes.fetch_add(with.len(), Ordering::SeqCst);
                }
            }
        }
    })
    .await;
    let password = "canary-pr0xy-4711";
    agent.configure(&through(&agent, &echo, &format!("http://{}", proxy.address()), password));
    agent.launch();
    let error = crate::harness::eventually("the agent says why", SOON, async || {
        let error = agent.session().await?["last_error"].clone();
        Some((error["code"].as_str()?.to_owned(), error["detail"].as_str()?.to_owned()))
    })
    .await;
    let (asked, connections) = (asked.load(Ordering::SeqCst), proxy.connections());
    assert!(asked <= connections, "{asked} times on {connections} connections: once each, then it waits");
    assert!(connections <= 3, "{connections} connections by then");
    let told = format!("{}{}{:?}", agent.process().stderr(), agent.status().await.unwrap(), agent.audit());
    let basic = STANDARD.encode(format!("{}:{password}", LOGIN.0));
    assert!(!told.contains(password) && !told.contains(&basic), "the password shows");
    (error.0, error.1, asked, taken.load(Ordering::SeqCst), agent)
}

#[tokio::test]
async fn e12_a_proxys_answer_of_a_gigabyte_is_cut_off() {
    const LINE: &[u8] = &[b'a'; 1 << 20];
    for start in [&b"HTTP/1.1 200 Connected\r\nX: "[..], b"HTTP/1.1 407 Wrong\r\nX: "] {
        let answer: &'static [u8] = Box::leak([start, LINE].concat().into_boxed_slice());
        let (code, detail, _, taken, mut agent) = answered(answer, 1024).await;
        assert_eq!(code, "proxy_protocol", "{detail}");
        assert!(taken < 64 << 20, "{taken} bytes were taken");
        assert!(agent.process().rss_kib() < 64 * 1024, "{} KiB", agent.process().rss_kib());
    }
}

#[tokio::test]
async fn e12_a_proxy_that_asks_for_the_password_again_and_again_gets_it_once_a_connection() {
    let asks = b"HTTP/1.1 407 Again\r\nProxy-Authenticate: Basic realm=\"site\"\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(answered(asks, 1).await.0, "proxy_auth_required");
}

#[tokio::test]
async fn e12_what_a_proxy_slips_in_behind_its_answer_is_not_the_gateways() {
    for junk in [
        &b"HTTP/1.1 200 Connected\r\n\r\n\x16\x03\x03\x00\x02\x01\x00"[..],
        b"HTTP/1.1 200 Connected\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(answered(junk, 1).await.0, "proxy_protocol");
    }
}
