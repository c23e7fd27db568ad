//! What of a request is refused, and what is made of the rest.

use http::Request;

use super::*;

fn parts(method: &str, uri: &str, version: Version, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri).version(version);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn plain(headers: &[(&str, &str)]) -> Parts {
    parts("GET", "/a", Version::HTTP_11, headers)
}

fn client(source: &str) -> Caller {
    Caller { by_gateway: false, source: Some(source.parse().unwrap()), trace: None }
}

fn gateway() -> Caller {
    Caller { by_gateway: true, source: None, trace: None }
}

fn rebuilt(headers: &[(&str, &str)], caller: &Caller) -> HeaderMap {
    let mut parts = plain(headers);
    rebuild(&mut parts.headers, RequestId::fresh(), caller, None, None);
    parts.headers
}

#[test]
fn e3_a_head_with_two_readings_is_refused() {
    let host = ("host", "erp");
    for (parts, code) in [
        (plain(&[host]), None),
        (plain(&[host, ("transfer-encoding", "chunked")]), None),
        (plain(&[]), Some(Code::RequestInvalid)),
        (plain(&[host, host]), Some(Code::RequestInvalid)),
        (plain(&[host, ("transfer-encoding", "xchunked")]), Some(Code::RequestInvalid)),
        (plain(&[host, ("transfer-encoding", "gzip, chunked")]), Some(Code::RequestInvalid)),
        (plain(&[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]), Some(Code::RequestInvalid)),
        (plain(&[host, ("connection", "X-Auth"), ("x-auth", "1")]), Some(Code::RequestInvalid)),
        (parts("GET", "http://erp/a", Version::HTTP_11, &[host]), Some(Code::RequestInvalid)),
        (parts("CONNECT", "erp:443", Version::HTTP_11, &[host]), Some(Code::RequestDenied)),
        (parts("GET", "/a", Version::HTTP_10, &[]), None),
        (parts("GET", "https://erp/a", Version::HTTP_2, &[]), None),
    ] {
        assert_eq!(check(&parts).map_err(|failure| failure.code).err(), code, "{parts:?}");
    }
}

#[test]
fn e4_an_upgrade_is_wished_for_in_one_form() {
    let websocket = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")];
    assert_eq!(wish(&plain(&websocket)).unwrap().unwrap().key.unwrap(), "x");
    assert_eq!(wish(&plain(&[("connection", "upgrade"), ("upgrade", "SPDY/3.1")])).unwrap().unwrap().key, None);
    for none in [
        plain(&websocket[1..]),
        plain(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMA")]),
        parts("GET", "/a", Version::HTTP_10, &websocket),
        parts("GET", "/a", Version::HTTP_2, &websocket),
    ] {
        assert_eq!(wish(&none), Ok(None), "{none:?}");
    }
    for bad in [
        plain(&websocket[..2]),
        plain(&[&websocket[..], &[("sec-websocket-key", "y")]].concat()),
        plain(&[&websocket[..], &[("upgrade", "spdy")]].concat()),
        plain(&[&websocket[..], &[("content-length", "4")]].concat()),
        plain(&[&websocket[..], &[("transfer-encoding", "chunked")]].concat()),
        parts("POST", "/a", Version::HTTP_11, &websocket),
    ] {
        assert_eq!(wish(&bad).map_err(|failure| failure.code), Err(Code::RequestInvalid), "{bad:?}");
    }
}

#[test]
fn what_a_client_claims_about_itself_is_replaced_by_what_is_known() {
    let claims = [
        ("host", "erp.acme"),
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-real-ip", "1.2.3.4"),
        ("underpass-request", "0192f0c1-2345-7000-8000-000000000001"),
        ("underpass-refusal", "x"),
        ("traceparent", "nonsense"),
        ("tracestate", "a=b"),
    ];
    let headers = rebuilt(&claims, &client("[2001:db8::1]:9"));
    assert_eq!(headers[FORWARDED], "for=\"[2001:db8::1]\";host=\"erp.acme\";proto=http");
    assert_eq!(rebuilt(&claims, &client("[::ffff:192.0.2.9]:9"))[FORWARDED], "for=192.0.2.9;host=\"erp.acme\";proto=http");
    assert_eq!(rebuilt(&[("host", "a\"b")], &client("192.0.2.9:9"))[FORWARDED], "for=192.0.2.9;proto=http");
    assert!(trace::is_traceparent(headers[TRACEPARENT].to_str().unwrap()));
    assert_ne!(headers[REQUEST_ID], claims[4].1);
    for gone in ["host", "x-forwarded-for", "x-real-ip", "underpass-refusal", "tracestate"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn what_a_gateway_says_of_a_client_is_passed_on() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let said = [
        ("forwarded", "for=1.2.3.4;host=a;proto=https"),
        ("x-forwarded-for", "6.6.6.6"),
        ("traceparent", trace),
        ("tracestate", "a=b"),
    ];
    let headers = rebuilt(&said, &gateway());
    assert_eq!((&headers[FORWARDED], &headers[TRACEPARENT]), (&said[0].1.parse().unwrap(), &trace.parse().unwrap()));
    assert!(headers.contains_key(TRACESTATE) && !headers.contains_key("x-forwarded-for"));
    let told = "0192f0c1-2345-7000-8000-000000000001";
    let parts = plain(&[("underpass-request", told)]);
    assert_eq!(id(&parts, &gateway()).to_string(), told);
    assert_ne!(id(&parts, &client("192.0.2.9:9")).to_string(), told);
}

#[test]
fn cookies_that_came_one_by_one_are_one_line() {
    let headers = rebuilt(&[("cookie", "a=1"), ("cookie", "b=2")], &gateway());
    assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
}

#[test]
fn only_the_one_expectation_there_is_passes() {
    for (what, has_body, passes) in [("100-Continue", true, true), ("100-continue", false, false), ("pizza", true, false)] {
        let mut parts = plain(&[("expect", what)]);
        assert_eq!((expects(&mut parts, has_body), parts.headers.contains_key(EXPECT)), (passes, passes), "{what}");
    }
}
