//! The gateway's HTTP entry point: where a request goes, who may make it, and what is told when it can't be made.

use std::path::Path;

use super::{Web, http};
use crate::fixtures::nginx::Nginx;
use crate::fixtures::origin::Origin;
use crate::fixtures::vendor::NAME;
use crate::harness::process::Program;
use crate::harness::target::pattern;
use crate::harness::{SOON, Scratch, eventually, free_port, loopback, sha256_of};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn a_target_is_reached_by_path_and_by_host_name_with_either_version_of_http() {
    let origin = Origin::start().await;
    let web = Web::new(&[("erp-api", http(origin.address(), ""))]).await;
    let ca = web.vendor.ca();
    let at = |scheme: &str, at: std::net::SocketAddr| format!("{scheme}://erp-api--dc1--acme.{NAME}:{}/api?x=1", at.port());
    let resolve = |at: std::net::SocketAddr| format!("erp-api--dc1--acme.{NAME}:{}:127.0.0.1", at.port());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let said = web.curl(&["-f", version], &web.url("erp-api", "/api?x=1")).await.ok();
        assert_eq!(said, "GET /api\n", "{version}");
        let said = web.curl(&["-f", version, "--resolve", &resolve(web.entry)], &at("http", web.entry)).await.ok();
        assert_eq!(said, "GET /api\n", "{version}");
    }
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://127.0.0.1:{}/t/acme/dc1/erp-api/api?x=1", web.entry_tls.port());
        let said = web.curl(&["-f", version, "--cacert", text(&ca), "-w", "%{http_version}"], &url).await.ok();
        let wanted = if version == "--http2" { "2" } else { "1.1" };
        assert_eq!(said, format!("GET /api\n{wanted}"));
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|seen| seen.path == "/api?x=1"));
    assert_eq!(web.curl(&["-f"], &web.url("erp-api", "")).await.ok(), "GET /\n", "without a path it is the root");
}

#[tokio::test]
async fn what_the_origin_gets_is_made_anew_and_says_who_asked() {
    let origin = Origin::start().await;
    let web = Web::new(&[("erp-api", http(origin.address(), ""))]).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = format!("traceparent: {parent}");
    let headers = [
        "X-Forwarded-For: 203.0.113.66",
        "Forwarded: for=203.0.113.66",
        "X-Real-IP: 203.0.113.66",
        "Underpass-Request: mine",
        "Underpass-Refusal: no_agent",
        "Keep-Alive: 5",
        "Proxy-Connection: keep-alive",
        "TE: gzip",
        "X-Own: kept",
        &trace,
    ];
    let mut options = vec!["-f", "-D", "-"];
    headers.iter().for_each(|header| options.extend(["-H", header]));
    let said = web.curl(&options, &web.url("erp-api", "/api")).await.ok();
    let seen = origin.last();
    let shown = format!("{seen:?}");
    assert_eq!(seen.header("host"), Some(origin.address().to_string().as_str()));
    assert_eq!(seen.header("x-own"), Some("kept"));
    assert!(!shown.contains("203.0.113.66"), "nobody else's word on who asks: {shown}");
    for gone in ["keep-alive", "proxy-connection", "te", "authorization", "proxy-authorization", "underpass-refusal"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    let forwarded = seen.header("forwarded").unwrap();
    assert!(forwarded.contains("for=\"127.0.0.1:") || forwarded.contains("for=127.0.0.1"), "{forwarded}");
    assert!(forwarded.contains(&format!("host=\"{}\"", web.entry)) && forwarded.contains("proto=http"), "{forwarded}");
    assert_eq!(seen.header("traceparent"), Some(parent), "a caller's own trace goes on");
    let request = seen.header("underpass-request").unwrap();
    assert!(said.to_ascii_lowercase().contains(&format!("underpass-request: {request}")), "the same id in the answer: {said}");
    for audit in [web.gateway.audit(), web.agent.audit()] {
        let row = eventually("a row", SOON, async || {
            let audits = [web.gateway.audit(), web.agent.audit()];
            let _ = &audit;
            audits
                .iter()
                .all(|rows| Web::requests(rows).iter().any(|row| row["request"] == request))
                .then(|| Web::requests(&audits[0]).into_iter().find(|row| row["request"] == request).unwrap())
        })
        .await;
        assert_eq!((&row["method"], &row["path"], &row["status"]), (&"GET".into(), &"/api".into(), &200.into()));
    }
    web.curl(&["-f"], &web.url("erp-api", "/api")).await.ok();
    let made = origin.last();
    let trace = made.header("traceparent").unwrap();
    assert!(trace.len() == 55 && trace.starts_with("00-"), "one is made: {trace}");
}

#[tokio::test]
async fn requests_of_one_caller_share_a_stream_and_have_an_id_and_a_row_each() {
    let origin = Origin::start().await;
    let web = Web::new(&[("erp-api", http(origin.address(), ""))]).await;
    for number in 0..5 {
        web.curl(&["-f"], &web.url("erp-api", &format!("/{number}"))).await.ok();
    }
    assert_eq!(origin.connections(), 1);
    let ids: std::collections::BTreeSet<_> =
        origin.seen().iter().map(|seen| seen.header("underpass-request").unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 5);
    eventually("five rows on both sides, one stream", SOON, async || {
        let [gateway, agent] = [web.gateway.audit(), web.agent.audit()];
        let opened = |rows: &[serde_json::Value]| rows.iter().filter(|row| row["event"] == "opened").count();
        let rows = [&gateway, &agent].map(|rows| (Web::requests(rows).len(), opened(rows)));
        (rows == [(5, 1), (5, 1)]).then_some(())
    })
    .await;
    let other = web.gateway.admin(&["client-token", "create", "--name", "other", "--grant", "acme/dc1/*"]).run().await.ok();
    let bearer = format!("Authorization: Bearer {}", other.trim());
    Program::new("curl").args(["-sSf", "-H", &bearer, &web.url("erp-api", "/other")]).run().await.ok();
    assert_eq!(origin.connections(), 2, "another caller has a connection of its own");
}

#[tokio::test]
async fn who_may_not_is_told_so_and_nothing_reaches_the_origin() {
    let origin = Origin::start().await;
    let down = loopback(free_port());
    let web = Web::new(&[
        ("erp-api", http(origin.address(), "")),
        ("down", http(down, "")),
        ("raw", format!("kind: tcp, address: \"{down}\"")),
    ])
    .await;
    let other = web.gateway.admin(&["client-token", "create", "--name", "o", "--grant", "acme/dc1/other"]).run().await.ok();
    let wrong = format!("{}x", &web.token[..web.token.len() - 1]);
    for (token, target, status, code) in [
        (Some(wrong.as_str()), "acme/dc1/erp-api", 401, "login_failed"),
        (None, "acme/dc1/erp-api", 401, "login_required"),
        (Some(other.trim()), "acme/dc1/erp-api", 403, "not_granted"),
        (Some(other.trim()), "acme/dc1/nothing", 403, "not_granted"),
        (Some(&web.token), "acme/dc1/nothing", 404, "target_unknown"),
        (Some(&web.token), "acme/dc1/raw", 404, "target_kind_mismatch"),
        (Some(&web.token), "acme/dc1/down", 502, "target_refused"),
    ] {
        let url = format!("http://{}/t/{target}/x", web.entry);
        let header = token.map(|token| format!("Authorization: Bearer {token}"));
        let mut options = vec!["-sS", "-D", "-", "-w", "%{http_code}"];
        options.extend(header.as_deref().map(|header| ["-H", header]).into_iter().flatten());
        let said = Program::new("curl").args(options).arg(url).run().await.ok();
        let lower = said.to_ascii_lowercase();
        assert!(lower.contains(&format!("underpass-refusal: {code}")), "{target}: {said}");
        assert!(
            lower.contains("content-type: application/problem+json") && lower.contains(&format!("\"code\":\"{code}\"")),
            "{said}"
        );
        assert!(said.ends_with(&status.to_string()), "{code}: {said}");
        assert_eq!(lower.contains("www-authenticate: "), status == 401, "{said}");
    }
    assert!(origin.seen().is_empty());
    let (status, _, said) = web.told(&[], &format!("http://{}/", web.entry)).await;
    assert!(status == 404 && said.contains("/t/"), "says how a target is named: {said}");
}

#[tokio::test]
async fn bodies_of_any_size_go_both_ways_unchanged() {
    let nginx = Nginx::start().await;
    std::fs::write(nginx.file("big"), pattern(64 << 20)).unwrap();
    let web = Web::new(&[("files", http(nginx.address(), ""))]).await;
    let scratch = Scratch::new();
    let wanted = sha256_of(&nginx.file("big")).await;
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let out = scratch.path("out");
        web.curl(&["-f", version, "-o", text(&out)], &web.url("files", "/big")).await.ok();
        assert_eq!(sha256_of(&out).await, wanted, "{version}");
        web.curl(&["-f", version, "-T", text(&out)], &web.url("files", "/up/big")).await.ok();
        assert_eq!(sha256_of(&nginx.file("up/big")).await, wanted, "{version}");
        std::fs::remove_file(nginx.file("up/big")).unwrap();
    }
    let memory = [web.gateway.running(), web.agent.running()].map(crate::harness::process::Process::rss_kib);
    assert!(memory.iter().all(|kib| *kib < 64 << 10), "{memory:?} KiB");
}

#[tokio::test]
async fn f27_a_revoked_tokens_requests_end_and_are_refused() {
    let origin = Origin::start().await;
    let web = Web::new(&[("erp-api", http(origin.address(), ""))]).await;
    let bearer = format!("Authorization: Bearer {}", web.token);
    let waiting = Program::new("curl").args(["-sSN", "-H", &bearer, &web.url("erp-api", "/events")]).start();
    eventually("it is asked", SOON, async || (!origin.seen().is_empty()).then_some(())).await;
    web.gateway.admin(&["client-token", "revoke", "ci"]).run().await.ok();
    let cut = waiting.finish(std::time::Duration::from_secs(5)).await;
    assert_ne!(cut.code(), 0, "a broken answer does not look whole");
    let (status, code, _) = web.told(&[], &web.url("erp-api", "/x")).await;
    assert_eq!((status, code.as_str()), (401, "login_failed"));
}

#[tokio::test]
async fn a_reload_puts_new_rules_in_force_on_open_streams() {
    let origin = Origin::start().await;
    let mut web = Web::new(&[("erp-api", http(origin.address(), ""))]).await;
    web.curl(&["-f"], &web.url("erp-api", "/secret")).await.ok();
    let allow = ", allow: [{path: /public/**}]";
    web.agent.configure(&Web::targets(&[("erp-api", http(origin.address(), allow))]));
    web.agent.process().signal(rustix::process::Signal::HUP);
    eventually("the new rules are in force", SOON, async || {
        let (status, code, _) = web.told(&[], &web.url("erp-api", "/secret")).await;
        (status == 403 && code == "request_denied").then_some(())
    })
    .await;
    web.curl(&["-f"], &web.url("erp-api", "/public/x")).await.ok();
    assert_eq!(origin.connections(), 1, "the stream lived on");
}

#[tokio::test]
async fn tls_to_the_target_is_verified_and_told_apart() {
    let vendor = crate::fixtures::vendor::Vendor::new();
    let origin = Origin::start_tls(&vendor.server(), &["h2", "http/1.1"]).await;
    let port = origin.address().port();
    let secure = |more: &str| format!("kind: http, address: \"https://127.0.0.1:{port}\"{more}");
    let (ca, named) = (
        vendor.ca().display().to_string(),
        format!(", tls: {{ca_file: \"{}\", server_name: other.test}}", vendor.ca().display()),
    );
    let web = Web::new(&[
        ("good", secure(&format!(", tls: {{ca_file: \"{ca}\"}}"))),
        ("untrusted", secure("")),
        ("misnamed", secure(&named)),
    ])
    .await;
    assert_eq!(web.curl(&["-f"], &web.url("good", "/x")).await.ok(), "GET /x\n");
    assert_eq!(web.curl(&["-f", "--http2-prior-knowledge"], &web.url("good", "/x")).await.ok(), "GET /x\n");
    assert_eq!(origin.last().version, hyper::Version::HTTP_2, "HTTP/2 all the way");
    for (target, wanted) in [("untrusted", "target_tls_untrusted"), ("misnamed", "target_tls_name_mismatch")] {
        let (status, code, _) = web.told(&[], &web.url(target, "/x")).await;
        assert_eq!((status, code.as_str()), (502, wanted));
    }
}
