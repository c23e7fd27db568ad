//! Tests: heads and answers, whole and in pieces, and what hostile ones get.

use proptest::prelude::*;

use super::*;
use crate::base::id::RequestId;

const TARGET: &str = "sales-db.dc1.acme.underpass:5432";

fn head(lines: &str) -> String {
    format!("CONNECT {TARGET} HTTP/1.1\r\n{lines}\r\n")
}

fn parsed(text: &str) -> (Head, usize) {
    parse(text.as_bytes()).unwrap_or_else(|failure| panic!("{failure}: {text:?}")).expect("it is whole")
}

fn refusal(bytes: impl AsRef<[u8]>) -> String {
    let failure = parse(bytes.as_ref()).unwrap_err();
    assert_eq!(failure.code, Code::RequestInvalid);
    failure.detail
}

#[test]
fn a_head_names_the_target_and_may_show_a_token() {
    for (text, token) in [
        (head(""), None),
        (format!("CONNECT {TARGET} HTTP/1.0\r\n\r\n"), None),
        (head("Host: sales-db.dc1.acme.underpass:5432\r\nProxy-Connection: Keep-Alive\r\nContent-Length: 0\r\n"), None),
        (head("Host: Sales-DB.dc1.acme.underpass.\r\n"), None),
        (head("Authorization: Bearer for-the-target\r\n"), None),
        (head("proxy-authorization: Basic YW55OnQwa2Vu\r\n"), Some("t0ken")),
        (head("PROXY-AUTHORIZATION:bearer t0ken \r\n"), Some("t0ken")),
    ] {
        let (head, len) = parsed(&format!("{text}SSH-2.0-early\r\n"));
        assert_eq!((head.target.to_string().as_str(), len), ("acme/dc1/sales-db", text.len()), "{text}");
        assert_eq!(head.login.as_ref().map(Secret::expose), token, "{text}");
    }
}

#[test]
fn our_own_request_is_taken() {
    let target: TargetId = "acme/dc1/sales-db".parse().unwrap();
    for token in ["t0ken", "a:b", "\"x\"", &"x".repeat(255)] {
        let text = request(&target, &Secret::new(token));
        let (head, len) = parsed(&text);
        assert_eq!((head.target, head.login.unwrap().expose(), len), (target.clone(), token, text.len()));
    }
    let forged = request(&target, &Secret::new("t0ken\r\nHost: other"));
    assert_eq!(forged.matches("\r\n").count(), 5, "a token adds no line: {}", *forged);
}

#[test]
fn cve_2026_40910_no_second_name_of_the_target_and_no_second_login() {
    for (lines, why) in [
        ("Host: sales-db.dc1.other.underpass\r\n", "different targets"),
        ("Host: sales-db.dc1.acme.underpass:22\r\n", "different targets"),
        ("Host: \r\n", "different targets"),
        ("Host: gw1.vendor.example\r\n", "different targets"),
        ("Host: sales-db.dc1.acme.underpass@x\r\n", "different targets"),
        ("Host: sales-db.dc1.acme.underpass\r\nhost: sales-db.dc1.acme.underpass\r\n", "host comes twice"),
        ("Proxy-Authorization: Bearer a\r\nproxy-authorization: Bearer a\r\n", "comes twice"),
        ("Proxy-Authorization: Bearer a, Bearer b\r\n", "characters that no token has"),
    ] {
        assert!(refusal(head(lines)).contains(why), "{lines}: {}", refusal(head(lines)));
    }
}

#[test]
fn cve_2025_4366_a_body_or_an_upgrade_is_not_taken() {
    for lines in [
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: 0, 0\r\n",
        "Content-Length: 00\r\n",
        "Content-Length: \r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Upgrade: h2c\r\n",
    ] {
        assert!(refusal(head(lines)).contains("neither body nor upgrade"), "{lines}");
    }
}

#[test]
fn e4_a_head_has_one_spelling() {
    for text in [
        head("X: a\r\n folded\r\n"),
        head("X: a\r\n\tfolded\r\n"),
        head(" X: a\r\n"),
        head("Host : sales-db.dc1.acme.underpass\r\n"),
        head("X\r\n"),
        head(": a\r\n"),
        head("X: a\0b\r\n"),
        head("X: a\x01b\r\n"),
        head("X: a\rb\r\n"),
        head("X: a\n\r\n"),
        head("X: a\r\r\n"),
        format!("CONNECT {TARGET} HTTP/1.1\n\n"),
        format!("\r\nCONNECT {TARGET} HTTP/1.1\r\n\r\n"),
        format!(" CONNECT {TARGET} HTTP/1.1\r\n\r\n"),
        format!("CONNECT  {TARGET} HTTP/1.1\r\n\r\n"),
        format!("CONNECT {TARGET}  HTTP/1.1\r\n\r\n"),
        format!("CONNECT\t{TARGET} HTTP/1.1\r\n\r\n"),
        format!("CONNECT {TARGET}\r\n\r\n"),
        format!("CONNECT {TARGET} HTTP/2.0\r\n\r\n"),
        format!("CONNECT {TARGET} HTTP/1.10\r\n\r\n"),
        format!("CONNECT {TARGET} http/1.1\r\n\r\n"),
        format!("connect {TARGET} HTTP/1.1\r\n\r\n"),
        format!("GET {TARGET} HTTP/1.1\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ] {
        refusal(&text);
    }
    assert_eq!(
        refusal("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        "this listener takes CONNECT alone, as programs send it for https://; curl needs -p for http://"
    );
}

#[test]
fn e1_the_target_is_in_the_request_line_as_host_and_port() {
    for target in [
        "sales-db.dc1.acme.underpass",
        "sales-db.dc1.acme.underpass:",
        "sales-db.dc1.acme.underpass:0",
        "sales-db.dc1.acme.underpass:65536",
        "sales-db.dc1.acme.underpass:+80",
        "sales-db.dc1.acme.underpass:000080",
        "sales-db.dc1.acme.underpass:80:80",
        "sales-db.dc1.acme.underpass:http",
        ":80",
        "http://sales-db.dc1.acme.underpass:80",
        "http://sales-db.dc1.acme.underpass:80/",
        "/sales-db.dc1.acme.underpass:80",
        "sales-db.dc1.acme.underpass:80/",
        "*",
        "user@sales-db.dc1.acme.underpass:80",
        "127.0.0.1:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "localhost:80",
        "sales-db。dc1.acme.underpass:80",
    ] {
        refusal(format!("CONNECT {target} HTTP/1.1\r\n\r\n"));
    }
    parsed("CONNECT sales-db.dc1.acme.underpass:65535 HTTP/1.1\r\n\r\n");
}

#[test]
fn other_protocols_are_named_at_their_first_byte() {
    for (bytes, why) in [
        (&b"\x16\x03\x01"[..], "TLS"),
        (b"\x05\x01\x02", "SOCKS"),
        (b"\x04\x01", "SOCKS"),
        (b"\0", "no HTTP"),
        (b"\r\n", "no HTTP"),
        (b"\x81", "no HTTP"),
    ] {
        assert!(refusal(bytes).contains(why), "{bytes:?}");
        assert_eq!(refusal(&bytes[..1]), refusal(bytes));
    }
}

#[test]
fn d2_a_head_has_a_limit_in_bytes_and_in_headers() {
    let filled = |len: usize| {
        let rest = len - head("X: \r\n").len();
        head(&format!("X: {}\r\n", "x".repeat(rest)))
    };
    assert_eq!(parsed(&filled(CLIENT_HEAD)).1, CLIENT_HEAD);
    assert!(refusal(filled(CLIENT_HEAD + 1)).contains("longer than 8192"));
    assert!(parse(&filled(CLIENT_HEAD + 1).as_bytes()[..CLIENT_HEAD - 1]).unwrap().is_none());
    assert!(refusal(&filled(CLIENT_HEAD + 1).as_bytes()[..CLIENT_HEAD]).contains("longer than 8192"));
    parsed(&head(&"X: y\r\n".repeat(CLIENT_HEADERS)));
    assert!(refusal(head(&"X: y\r\n".repeat(CLIENT_HEADERS + 1))).contains("too many headers"));
}

#[test]
fn i1_no_error_shows_what_may_be_a_token() {
    for text in [
        format!("CONNECT user:hunter2@{TARGET} HTTP/1.1\r\n\r\n"),
        format!("CONNECT http://user:hunter2@{TARGET} HTTP/1.1\r\n\r\n"),
        head("Proxy-Authorization: hunter2\r\n"),
        head("Proxy-Authorization: Bearer hunter2 hunter2\r\n"),
        head("Proxy-Authorization: Bearer hunter2\x01\r\n"),
        head("Proxy-Authorization: Bearer hunter2\r\nHost: a\r\n"),
        head("Proxy-Authorization Bearer hunter2\r\n"),
        head("hunter2\r\n"),
        head("Host: user:hunter2@x\r\n"),
    ] {
        assert!(!refusal(&text).contains("hunter2"), "{text}");
    }
}

/// The answer as our client reads it.
fn told(bytes: &[u8]) -> Failure {
    let (len, verdict) = answer(bytes).unwrap().expect("it is whole");
    assert_eq!(len, bytes.len());
    verdict.unwrap_err()
}

#[test]
fn an_answer_says_yes_or_why_not() {
    let yes = [accepted(), b"220 ready\r\n"].concat();
    assert_eq!(answer(&yes).unwrap(), Some((accepted().len(), Ok(()))));
    for code in Code::ALL {
        let refusal = refused(&Refused { code: *code, detail: Some("target `x`: \"no\""), request: None });
        assert_eq!(told(&refusal), Failure::new(*code, "target `x`: \"no\""), "{code}");
        let bare = refused(&Refused { code: *code, detail: None, request: None });
        assert_eq!(told(&bare), Failure::new(*code, "refused by the gateway"));
    }
    let request = RequestId::fresh();
    let refusal = refused(&Refused { code: Code::NoAgent, detail: None, request: Some(request) });
    assert_eq!(told(&refusal).detail, format!("request {request}"));
}

#[test]
fn a_refusal_has_a_status_that_every_program_knows() {
    for (code, status, more) in [
        (Code::RequestInvalid, "400 Bad Request", ""),
        (Code::LoginRequired, "407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"underpass\"\r\n"),
        (Code::LoginFailed, "407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"underpass\"\r\n"),
        (Code::LoginLimited, "429 Too Many Requests", "Retry-After: 60\r\n"),
        (Code::NotGranted, "403 Forbidden", ""),
        (Code::SourceDenied, "403 Forbidden", ""),
        (Code::AddressForbidden, "403 Forbidden", ""),
        (Code::TargetUnknown, "404 Not Found", ""),
        (Code::TargetRefused, "502 Bad Gateway", ""),
        (Code::SessionLost, "502 Bad Gateway", ""),
        (Code::NoAgent, "503 Service Unavailable", ""),
        (Code::QuotaExceeded, "503 Service Unavailable", ""),
        (Code::TargetTimeout, "504 Gateway Timeout", ""),
    ] {
        let text = String::from_utf8(refused(&Refused { code, detail: Some("why"), request: None })).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let expected = format!(
            "HTTP/1.1 {status}\r\nUnderpass-Refusal: {code}\r\n{more}Connection: close\r\n\
             Content-Type: application/problem+json\r\nContent-Length: {}",
            body.len()
        );
        assert_eq!(head, expected);
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let number: u16 = status[..3].parse().unwrap();
        let problem = serde_json::json!({
            "type": "about:blank", "title": code.cause(), "status": number, "code": code.as_str(), "detail": "why"
        });
        assert_eq!(body, problem);
    }
}

#[test]
fn r2_a_detail_forges_no_header_and_stays_short() {
    let detail = format!("\r\n\r\nHTTP/1.1 200 OK\r\n\u{1b}[2J{}", "\u{202e}\"".repeat(1 << 16));
    let refusal = refused(&Refused { code: Code::NoAgent, detail: Some(&detail), request: None });
    assert!(refusal.len() < CLIENT_HEAD && told(&refusal).code == Code::NoAgent);
    assert!(!refusal.contains(&0x1b));
}

#[test]
fn e12_what_is_no_gateways_answer_is_refused_and_kept_short() {
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'x'; 1 << 20]].concat();
    for bytes in [
        endless.as_slice(),
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 407 No\r\nUnderpass-Refusal: login_failed\r\n\r\n",
        b"HTTP/1.1 407 No\r\nUnderpass-Refusal: login_failed\r\nContent-Length: 1000000000\r\n\r\n",
        b"HTTP/1.1 407 No\r\nUnderpass-Refusal: login_failed\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\x15\x03\x01",
    ] {
        assert_eq!(answer(bytes).unwrap_err().code, Code::ProtocolViolation, "{:?}", &bytes[..20.min(bytes.len())]);
    }
    let newer = b"HTTP/1.1 403 No\r\nUnderpass-Refusal: from_the_future\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(told(newer), Failure::new(Code::Internal, "from_the_future"));
}

/// What a reader tells of bytes that come in pieces: the first answer that is not "more".
fn in_pieces<T>(
    bytes: &[u8],
    cuts: &[usize],
    read: impl Fn(&[u8]) -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    ends.into_iter().map(|end| read(&bytes[..end])).find(|told| !matches!(told, Ok(None))).unwrap_or(Ok(None))
}

/// Bytes that are nearly heads or answers.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "CONNECT ",
        "GET ",
        TARGET,
        ":",
        "443",
        " ",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\r\n",
        "\r",
        "\n",
        "\0",
        "\t",
        "Host: ",
        "X: ",
        "Proxy-Authorization: ",
        "Basic YTpi",
        "Bearer t0ken",
        "Content-Length: ",
        "0",
        "Upgrade",
        "HTTP/1.1 ",
        "200",
        "403",
        "Underpass-Refusal: ",
        "no_agent",
        "{\"detail\":\"x\"}",
        "é",
        "\u{16}",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat().into_bytes())
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(any::<usize>(), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_do_not_change_what_a_head_says(bytes in nearly(), begun in any::<bool>(), cuts in cuts()) {
        let begin = format!("CONNECT {TARGET} HTTP/1.1\r\n");
        let bytes = if begun { [begin.as_bytes(), &bytes, b"\r\n\r\n"].concat() } else { bytes };
        let simple = |read: Result<Option<(Head, usize)>, Failure>| {
            read.map(|found| found.map(|(head, len)| (head.target, head.login.map(|it| it.expose().to_owned()), len)))
        };
        let whole = simple(parse(&bytes));
        prop_assert_eq!(in_pieces(&bytes, &cuts, |bytes| simple(parse(bytes))), whole.clone());
        if let Ok(Some((_, _, len))) = whole {
            prop_assert!(len <= CLIENT_HEAD && bytes[..len].ends_with(b"\r\n\r\n"));
        }
    }

    #[test]
    fn cuts_do_not_change_what_an_answer_says(bytes in nearly(), begun in any::<bool>(), cuts in cuts()) {
        let begin = b"HTTP/1.1 403 No\r\nUnderpass-Refusal: no_agent\r\n";
        let bytes = if begun { [begin, bytes.as_slice()].concat() } else { bytes };
        prop_assert_eq!(in_pieces(&bytes, &cuts, answer), answer(&bytes));
    }
}
