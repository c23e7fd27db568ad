//! Searches posted as JSON, from the gateway's HTTP entry point through the agent to real directories. Refuses to know how LDAP is read.

mod errors;
mod injection;
mod samba;

use serde_json::{Value, json};

use crate::fixtures::slapd::{PEOPLE, SUFFIX, Slapd, password, person};
use crate::fixtures::vendor::Vendor;
use crate::http::Web;
use crate::ldap::ldaps;

/// A search of a target: the status, the code of a refusal, and the answer.
pub(crate) async fn searched(web: &Web, target: &str, query: &Value) -> (u16, String, Value) {
    let (status, code, body) = asked(web, target, query, "application/json").await;
    (status, code, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// The same with the answer as it came, in a form that is asked for.
pub(crate) async fn asked(web: &Web, target: &str, query: &Value, accept: &str) -> (u16, String, String) {
    let accept = format!("Accept: {accept}");
    web.told(&["--json", &query.to_string(), "-H", &accept], &url(web, target)).await
}

/// Where searches of a target are posted.
fn url(web: &Web, target: &str) -> String {
    format!("http://{}/v1/tenants/acme/groups/dc1/targets/{target}/search", web.entry)
}

/// The names that a search has found.
fn names(found: &Value) -> Vec<&str> {
    found["entries"].as_array().unwrap_or_else(|| panic!("{found}")).iter().map(|entry| entry["dn"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_entry_of_openldap_is_found_page_by_page_and_without_passwords() {
    let vendor = Vendor::new();
    let slapd = Slapd::start(&vendor).await;
    let web = Web::new(&[("hr", ldaps(slapd.ldaps(), &vendor, ""))]).await;
    let query = json!({"base": SUFFIX, "filter": "(objectClass=inetOrgPerson)"});
    let (status, _, all) = searched(&web, "hr", &query).await;
    assert_eq!((status, all["count"].as_u64(), &all["truncated"]), (200, Some(PEOPLE as u64), &json!(false)));
    assert!(!all.to_string().to_lowercase().contains("userpassword"));
    let first = &all["entries"][0];
    assert_eq!(first["attributes"]["jpegPhoto"], json!([{"base64": "AP/+gA=="}]));
    assert_eq!(first["attributes"]["mail"], json!(["u0000@corp.example"]));
    // The part of the tree that another server has is not told of, nor a page that is.
    assert_eq!(all["references"], json!([]));

    let some =
        json!({"base": SUFFIX, "filter": {"present": "mail"}, "size_limit": 1234, "page_size": 100, "attributes": ["uid"]});
    let (_, _, some) = searched(&web, "hr", &some).await;
    assert_eq!((some["count"].as_u64(), &some["truncated"]), (Some(1234), &json!(true)));
    assert_eq!(some["entries"][0]["attributes"].as_object().unwrap().keys().collect::<Vec<_>>(), ["uid"]);
}

#[tokio::test]
async fn lines_come_one_for_each_entry_and_take_no_more_memory_the_more_there_are() {
    let vendor = Vendor::new();
    let slapd = Slapd::start(&vendor).await;
    let web = Web::new(&[("hr", ldaps(slapd.ldaps(), &vendor, ""))]).await;
    let query = json!({"base": SUFFIX, "filter": "(objectClass=inetOrgPerson)"});
    let (agent, gateway) = (web.agent.running(), web.gateway.running());
    let one = json!({"base": person(1), "scope": "base"});
    asked(&web, "hr", &one, "application/jsonl").await;
    let before = (agent.rss_kib(), gateway.rss_kib());
    for accept in ["application/jsonl", "application/x-ndjson", "application/json;q=0.1, application/jsonl"] {
        let (status, _, lines) = asked(&web, "hr", &query, accept).await;
        assert_eq!((status, lines.lines().count()), (200, PEOPLE + 1), "{accept}");
        let parsed: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed[0]["attributes"]["sn"].as_array().unwrap().len(), 1);
        let end = json!({"result": {"code": 0, "name": "success"}, "count": PEOPLE, "truncated": false});
        assert_eq!(parsed[PEOPLE], end);
    }
    let grown = (agent.rss_kib().saturating_sub(before.0), gateway.rss_kib().saturating_sub(before.1));
    assert!(grown.0 < 16 * 1024 && grown.1 < 16 * 1024, "{grown:?} KiB more");
}

#[tokio::test]
async fn a_search_logs_in_where_a_bind_is_allowed_and_never_without_a_password() {
    let vendor = Vendor::new();
    let slapd = Slapd::start(&vendor).await;
    let with = |allow: &str| ldaps(slapd.ldaps(), &vendor, allow);
    let login =
        ", allow: {operations: [search, bind], base: \"ou=people,dc=corp,dc=example\", scope: one, attributes: [cn, uid]}";
    let web = Web::new(&[("hr", with("")), ("login", with(login))]).await;
    let query = |password: &str| {
        json!({"base": format!("ou=people,{SUFFIX}"), "scope": "one", "filter": {"and": [{"equal": {"attribute": "uid", "value": "u0009"}},
               {"not": {"present": "cn"}}]}, "bind": {"dn": person(1), "password": password}})
    };
    let (status, code, found) = searched(&web, "login", &query(&password(1))).await;
    assert_eq!((status, code.as_str(), found["count"].as_u64()), (200, "", Some(0)), "{found}");
    // The directory's own no, and the site's.
    let (status, code, body) = searched(&web, "login", &query("wrong")).await;
    assert_eq!((status, code.as_str(), &body["result"]["name"]), (403, "", &json!("invalidCredentials")));
    let (status, code, body) = searched(&web, "hr", &query(&password(1))).await;
    assert_eq!((status, code.as_str()), (403, "request_denied"), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("targets.hr.allow.operations: bind is not among"), "{body}");
    let (status, code, body) = searched(&web, "login", &query("")).await;
    assert_eq!((status, code.as_str()), (400, "request_invalid"), "{body}");
    for (query, rule) in [
        (json!({"base": SUFFIX, "scope": "one"}), "base"),
        (json!({"base": [{"ou": "people"}, SUFFIX]}), "scope"),
        (json!({"base": person(1), "scope": "base", "filter": "(sn=*)"}), "attributes"),
        (json!({"base": person(1), "scope": "base", "filter": "(userPassword=*)"}), "deny_attributes"),
    ] {
        let (status, code, body) = searched(&web, "login", &query).await;
        assert_eq!((status, code.as_str()), (403, "request_denied"), "{query}: {body}");
        assert!(body["detail"].as_str().unwrap().starts_with(&format!("targets.login.allow.{rule}: ")), "{query}: {body}");
    }
    let (_, _, found) = searched(&web, "login", &json!({"base": person(1), "scope": "base", "attributes": ["*", "+"]})).await;
    assert_eq!(found["entries"][0]["attributes"], json!({"cn": ["Person 0001"], "uid": ["u0001"]}));
    web.agent.audited("request", |row| row["target"] == "login" && row["code"] == "request_denied").await;
    let secret = password(1);
    for rows in [web.agent.audit(), web.gateway.audit()] {
        assert!(rows.iter().all(|row| !row.to_string().contains(&secret)));
    }
    assert!(!web.agent.running().stderr().contains(&secret) && !web.gateway.running().stderr().contains(&secret));
}
