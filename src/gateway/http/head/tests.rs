//! Heads in, heads out.

use http::HeaderName;

use super::*;
use crate::wire::open::Spoken;

fn told(source: &str, host: Option<&'static str>) -> Told<'static> {
    let (source, request) = (source.parse().unwrap(), RequestId::fresh());
    Told { request, source, host, secure: false, by_authorization: false, upgrade: None, http2: false }
}

fn parts(headers: &[(&'static str, &'static str)]) -> Parts {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    request.into_parts().0
}

fn made(parts: &Parts, told: &Told<'_>) -> HeaderMap {
    let (target, path) = ("acme/dc1/erp".parse().unwrap(), "/".parse().unwrap());
    let address = Address { target, spoken: Spoken::Http, path };
    request(parts, &address, &HeaderValue::from_static("erp.dc1.acme.underpass"), told).headers().clone()
}

#[test]
fn forwarded_says_where_a_request_comes_from_as_its_grammar_wants() {
    for (source, host, expected) in [
        ("192.0.2.1:1", Some("gw.example"), "for=192.0.2.1;host=\"gw.example\";proto=http"),
        ("[2001:db8::1]:1", Some("[::1]:80"), "for=\"[2001:db8::1]\";host=\"[::1]:80\";proto=http"),
        ("192.0.2.1:1", None, "for=192.0.2.1;proto=http"),
    ] {
        assert_eq!(made(&parts(&[]), &told(source, host))[FORWARDED], expected);
    }
}

#[test]
fn i1_a_token_stays_here_and_a_targets_own_login_passes() {
    let shown = parts(&[("authorization", "Bearer x"), ("proxy-authorization", "Basic y")]);
    let told = told("192.0.2.1:1", None);
    let passed = made(&shown, &told);
    assert!(passed.contains_key(AUTHORIZATION) && !passed.contains_key("proxy-authorization"));
    let ours = made(&shown, &Told { by_authorization: true, ..told });
    assert!(!ours.contains_key(AUTHORIZATION) && !ours.contains_key("proxy-authorization"));
}

#[test]
fn a_trace_context_that_is_none_is_replaced() {
    for wrong in
        [&[("traceparent", "x")][..], &[], &[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"); 2]]
    {
        let made = made(&parts(wrong), &told("192.0.2.1:1", None));
        let mut all = made.get_all(TRACEPARENT).iter();
        let (one, none) = (all.next().unwrap().to_str().unwrap().to_owned(), all.next());
        assert!(trace::is_traceparent(&one) && none.is_none() && !one.contains("0af7651916cd43dd"), "{one}");
    }
}

#[test]
fn e4_an_upgrade_is_one_that_the_connection_names_and_has_no_body() {
    let wanted = |headers: &[_]| crate::wire::hop::upgrade(&parts(headers)).map_err(|failure| failure.code);
    let websocket = Ok(Some(HeaderValue::from_static("websocket")));
    assert_eq!(wanted(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]), websocket);
    assert_eq!(wanted(&[("connection", "upgrade"), ("upgrade", "h2c, websocket")]), websocket);
    for none in
        [&[("upgrade", "websocket")][..], &[("connection", "upgrade")], &[("connection", "upgrade"), ("upgrade", "h2c")]]
    {
        assert_eq!(wanted(none), Ok(None));
    }
    for more in [("upgrade", "x"), ("content-length", "1"), ("transfer-encoding", "chunked")] {
        let headers = [("connection", "upgrade"), ("upgrade", "websocket"), more];
        assert_eq!(wanted(&headers), Err(Code::RequestInvalid), "{more:?}");
    }
}
