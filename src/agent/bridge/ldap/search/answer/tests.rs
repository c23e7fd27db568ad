//! Answers as programs get them. Refuses to know how they are carried.

use std::sync::Mutex;

use http_body_util::BodyExt;
use serde_json::{Value as Json, json};

use super::super::fixture::{Asked, directory, done, entry, search};
use super::*;
use crate::agent::fixture::open;
use crate::ldap::message::{Operation, answer};

/// The answer's status, code and body, and the row that the audit has.
async fn told(
    form: Form,
    query: &str,
    reply: impl FnMut(&Asked) -> Vec<u8> + Send + 'static,
) -> (u16, Option<String>, String, Json) {
    let (audit, mut rows) = Audit::discard().observed();
    let account = Account::begin(&audit, &Arc::new(open("hr")), RequestId::fresh());
    let rules = r#"{"operations": ["search", "bind"], "referrals": "pass"}"#;
    let search = search(query, rules, directory(reply));
    let response = match form {
        Form::Document => document(search, account).await,
        Form::Lines(kind) => lines(search, kind, account).await,
    };
    let (status, code) = (response.status().as_u16(), response.headers().get(REFUSAL).cloned());
    assert!(response.headers().contains_key(REQUEST_ID));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let row = serde_json::from_str(&rows.try_recv().unwrap()).unwrap();
    (status, code.map(|code| code.to_str().unwrap().to_owned()), String::from_utf8(body.to_vec()).unwrap(), row)
}

const AS_LINES: Form = Form::Lines(LINES[0]);

fn two(asked: &Asked) -> Vec<u8> {
    let reference = answer::message(asked.id, &[], |writer| {
        writer.constructed(0x73, |uris| uris.octets(crate::ldap::ber::tag::OCTETS, b"ldap://x/"));
    });
    let entries = [entry(asked.id, "cn=a", &[("cn", b"a")]), reference, entry(asked.id, "cn=b", &[("objectGUID", b"\xff")])];
    [entries.concat(), done(asked.id, 0, b"")].concat()
}

#[tokio::test]
async fn a_document_has_the_entries_and_how_it_ended() {
    let (status, code, body, row) = told(Form::Document, "{}", two).await;
    assert_eq!((status, code), (200, None));
    assert_eq!(
        serde_json::from_str::<Json>(&body).unwrap(),
        json!({
            "entries": [
                {"dn": "cn=a", "attributes": {"cn": ["a"]}},
                {"dn": "cn=b", "attributes": {"objectGUID": [{"base64": "/w=="}]}},
            ],
            "references": ["ldap://x/"],
            "result": {"code": 0, "name": "success"}, "count": 2, "truncated": false,
        })
    );
    assert!(body.ends_with("}\n"));
    assert_eq!((&row["event"], &row["path"], &row["status"]), (&json!("request"), &json!("/search"), &json!(200)));
    assert_eq!((row["down"].as_u64(), row.get("code")), (Some(body.len() as u64), None));
    let (_, _, none, _) = told(Form::Document, "{}", |asked| done(asked.id, 0, b"")).await;
    assert_eq!(serde_json::from_str::<Json>(&none).unwrap()["entries"], json!([]));
}

#[tokio::test]
async fn lines_come_one_by_one_and_the_last_says_how_it_ended() {
    let (status, _, body, row) = told(AS_LINES, "{}", two).await;
    assert_eq!(status, 200);
    let lines: Vec<Json> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines,
        [
            json!({"dn": "cn=a", "attributes": {"cn": ["a"]}}),
            json!({"references": ["ldap://x/"]}),
            json!({"dn": "cn=b", "attributes": {"objectGUID": [{"base64": "/w=="}]}}),
            json!({"result": {"code": 0, "name": "success"}, "count": 2, "truncated": false}),
        ]
    );
    assert_eq!((row["down"].as_u64(), row.get("code")), (Some(body.len() as u64), None));
}

#[tokio::test]
async fn a_directorys_no_is_told_from_underpasss() {
    let missing = |asked: &Asked| answer::done_as(asked.id, Operation::Search, 32, "dc=corp", "no such", &[]);
    for form in [Form::Document, AS_LINES] {
        let (status, code, body, _) = told(form, "{}", missing).await;
        assert_eq!((status, code), (404, None));
        let body: Json = serde_json::from_str(&body).unwrap();
        let result = json!({"code": 32, "name": "noSuchObject", "matched": "dc=corp", "message": "no such"});
        assert_eq!((&body["result"], body.get("code")), (&result, None));
        let (status, code, body, row) = told(form, r#"{"filter": "(userPassword=x)"}"#, missing).await;
        assert_eq!((status, code.as_deref()), (403, Some("request_denied")));
        let body: Json = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["code"], &row["code"]), (&json!("request_denied"), &json!("request_denied")));
        let (status, code, ..) = told(form, "{}", |_| b"garbage".to_vec()).await;
        assert_eq!((status, code.as_deref()), (502, Some("directory_invalid")));
    }
}

#[tokio::test]
async fn an_error_in_the_middle_is_a_line() {
    let (status, _, body, row) =
        told(AS_LINES, "{}", |asked| [entry(asked.id, "cn=a", &[]), b"garbage".to_vec()].concat()).await;
    assert_eq!(status, 200);
    let last: Json = serde_json::from_str(body.lines().last().unwrap()).unwrap();
    assert_eq!((&last["error"]["code"], &row["code"]), (&json!("directory_invalid"), &json!("directory_invalid")));
}

#[tokio::test]
async fn a_document_is_bounded_and_lines_are_not() {
    let large = |asked: &Asked| {
        let entries = (0..20).flat_map(|_| entry(asked.id, "cn=x", &[("cn", &[b'x'; 512 * 1024])]));
        entries.chain(done(asked.id, 0, b"")).collect()
    };
    let (status, code, ..) = told(Form::Document, "{}", large).await;
    assert_eq!((status, code.as_deref()), (422, Some("search_too_large")));
    let (status, _, body, _) = told(AS_LINES, "{}", large).await;
    assert_eq!((status, body.lines().count()), (200, 21));
}

#[tokio::test]
async fn who_goes_away_ends_the_search_and_its_row_says_so() {
    let (audit, mut rows) = Audit::discard().observed();
    let account = Account::begin(&audit, &Arc::new(open("hr")), RequestId::fresh());
    let gone = Arc::new(Mutex::new(false));
    let asked = gone.clone();
    let search = search(
        "{}",
        "{}",
        directory(move |request| {
            *asked.lock().unwrap() = true;
            entry(request.id, "cn=a", &[])
        }),
    );
    let mut body = lines(search, LINES[1], account).await.into_body();
    assert!(body.frame().await.is_some() && *gone.lock().unwrap());
    drop(body);
    let row: Json = serde_json::from_str(&rows.try_recv().unwrap()).unwrap();
    assert_eq!((&row["code"], &row["status"]), (&json!("client_reset"), &json!(200)));
}

#[test]
fn lines_are_for_who_accepts_them() {
    let form = |accept: &'static str| Form::of(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]));
    assert_eq!(form("application/json, application/JSONL;q=0.5"), Form::Lines("application/jsonl"));
    assert_eq!(form("application/x-ndjson"), Form::Lines("application/x-ndjson"));
    assert_eq!(form("*/*"), Form::Document);
    assert_eq!(Form::of(&HeaderMap::new()), Form::Document);
}
