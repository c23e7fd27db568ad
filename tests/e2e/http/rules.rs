//! What a target's rules permit, whoever asks by whatever way, and paths that two readers could read differently. Refuses to know what
//! an origin does with the rest.

use super::{Web, http, says};
use crate::fixtures::origin::Origin;

const RULES: &str = ", allow: [{methods: [GET, HEAD], path: /api/v1/orders/**, query: [page, limit]}, \
                     {methods: [POST], path: /api/v1/tickets, max_body: 1KiB}, \
                     {methods: [GET], path: \"/api/*/status\", request_headers: [accept], response_headers: [content-type]}]";

async fn site() -> (Origin, Web) {
    let origin = Origin::start().await;
    let web = Web::new(&[("erp-api", http(origin.address(), RULES))]).await;
    (origin, web)
}

#[tokio::test]
async fn d9_a_request_passes_if_a_rule_allows_all_of_it_and_otherwise_never_arrives() {
    let (origin, web) = site().await;
    for (options, path, status, code) in [
        (&["-G"][..], "/api/v1/orders", 200, ""),
        (&["-G"], "/api/v1/orders/7/lines?page=2", 200, ""),
        (&["-I"], "/api/v1/orders/7", 200, ""),
        (&["-G"], "/api/v1/orders/7?debug=1", 403, "request_denied"),
        (&["-G"], "/api/v1/ordersX", 403, "request_denied"),
        (&["-X", "DELETE"], "/api/v1/orders/7", 403, "request_denied"),
        (&["-X", "get"], "/api/v1/orders/7", 403, "request_denied"),
        (&["-d", "small"], "/api/v1/tickets", 200, ""),
        (&["-d", "small"], "/api/v1/tickets/7", 403, "request_denied"),
        (&["-G"], "/api/v2/status", 200, ""),
        (&["-G"], "/api/status", 403, "request_denied"),
        (&["-X", "TRACE"], "/api/v1/orders", 403, "request_denied"),
    ] {
        let before = origin.seen().len();
        let (got, said, body) = web.told(options, &web.url("erp-api", path)).await;
        assert_eq!((got, said.as_str()), (status, code), "{options:?} {path}: {body}");
        assert_eq!(origin.seen().len() - before, usize::from(status == 200), "{options:?} {path}");
    }
    web.agent.audited("request", |row| row["code"] == "request_denied" && row["path"] == "/api/v1/ordersX").await;
}

#[tokio::test]
async fn d9_a_body_is_limited_when_it_says_its_length_and_when_it_does_not() {
    let (origin, web) = site().await;
    let large = "x".repeat(4096);
    let url = web.url("erp-api", "/api/v1/tickets");
    let (status, code, _) = web.told(&["-d", &large], &url).await;
    assert_eq!((status, code.as_str()), (413, "body_too_large"));
    assert!(origin.seen().is_empty(), "known beforehand: nothing is sent");
    let (status, code, _) = web.told(&["-H", "Transfer-Encoding: chunked", "-d", &large], &url).await;
    assert_eq!((status, code.as_str()), (413, "body_too_large"));
}

#[tokio::test]
async fn d9_headers_pass_that_are_listed_both_ways() {
    let (origin, web) = site().await;
    let options = ["-f", "-D", "-", "-H", "X-Secret: 1", "-H", "Accept: text/plain", "-H", "Cookie: a=b"];
    let said = web.curl(&options, &web.url("erp-api", "/api/v1/status")).await.ok();
    let seen = origin.last();
    assert_eq!((seen.header("accept"), seen.header("x-secret"), seen.header("cookie")), (Some("text/plain"), None, None));
    assert_eq!(seen.header("host"), Some(origin.address().to_string().as_str()), "what the protocol needs passes");
    assert!(!said.to_ascii_lowercase().contains("\r\ndate:") || said.contains("underpass-request"), "{said}");
}

#[tokio::test]
async fn d9_the_rules_hold_for_raw_entry_points_too() {
    let (origin, web) = site().await;
    let raw = web.raw("erp-api");
    let good = says(raw, b"GET /api/v1/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(good.starts_with("HTTP/1.1 200 ") && good.contains("GET /api/v1/orders"), "{good}");
    let bad = says(raw, b"GET /admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(
        bad.starts_with("HTTP/1.1 403 ") && bad.to_ascii_lowercase().contains("underpass-refusal: request_denied"),
        "{bad}"
    );
    assert_eq!(origin.seen().len(), 1);
    let seen = origin.last();
    assert!(seen.header("underpass-request").is_some() && seen.header("traceparent").is_some());
    assert!(seen.header("forwarded").unwrap().contains("127.0.0.1"), "the client's address");
}

#[tokio::test]
async fn tls_to_an_http_target_is_refused_by_name() {
    let (origin, web) = site().await;
    let client = crate::harness::process::Program::new("curl").args(["-sSk", "--max-time", "20"]);
    let failed = client.arg(format!("https://{}/", web.raw("erp-api"))).run().await;
    assert_ne!(failed.code(), 0);
    web.agent.audited("closed", |row| row["code"] == "tls_to_http_target").await;
    web.gateway.audited("closed", |row| row["code"] == "tls_to_http_target").await;
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn c21_paths_that_two_readers_read_differently_are_refused_before_any_rule() {
    let origin = Origin::start().await;
    // Even where everything is allowed.
    let web = Web::new(&[("erp-api", http(origin.address(), ""))]).await;
    let paths = [
        "/a/../b",
        "/a/./b",
        "/..",
        "/a/..;/b",
        "/a/%2e%2e/b",
        "/a/.%2e/b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%00b",
        "//a",
        "/a//b",
        "/a/%2e/b",
        "/a/..%3b/b",
        "/%",
        "/a%zz",
    ];
    for path in paths {
        let (status, code, body) = web.told(&[], &web.url("erp-api", path)).await;
        assert_eq!((status, code.as_str()), (400, "request_path"), "{path}: {body}");
        let raw = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let said = says(web.raw("erp-api"), raw.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{path}: {said}");
    }
    for raw in ["GET /a\\b HTTP/1.1", "GET /a\u{e9} HTTP/1.1", "GET a HTTP/1.1", "GET * HTTP/1.1"] {
        let said = says(web.raw("erp-api"), format!("{raw}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{raw}: {said}");
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
}
