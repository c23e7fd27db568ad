//! Searches posted as JSON, from the gateway's HTTP entry point through the agent to real directories. Refuses to know how LDAP is read.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::fixtures::slapd::{PEOPLE, SUFFIX, Slapd};
use crate::fixtures::vendor::{NAME, Vendor};
use crate::http::Web;

/// `kind: ldap` for a directory with a certificate of this vendor, with more keys, each with a comma before it.
pub(crate) fn ldaps(at: SocketAddr, vendor: &Vendor, more: &str) -> String {
    let ca = vendor.ca();
    format!("kind: ldap, address: \"ldaps://{at}\", tls: {{ca_file: \"{}\", server_name: {NAME}}}{more}", ca.display())
}

/// A search of the target `hr`: the status, the code of a refusal, and the answer.
async fn search(web: &Web, query: &Value) -> (u16, String, Value) {
    let (status, code, body) = told(web, query, "application/json").await;
    (status, code, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

async fn told(web: &Web, query: &Value, accept: &str) -> (u16, String, String) {
    let url = format!("http://{}/v1/tenants/acme/groups/dc1/targets/hr/search", web.entry);
    let accept = format!("Accept: {accept}");
    web.told(&["--json", &query.to_string(), "-H", &accept], &url).await
}

#[tokio::test]
async fn every_entry_of_openldap_is_found_page_by_page_and_without_passwords() {
    let vendor = Vendor::new();
    let slapd = Slapd::start(&vendor).await;
    let web = Web::new(&[("hr", ldaps(slapd.ldaps(), &vendor, ""))]).await;
    let query = json!({"base": SUFFIX, "filter": "(objectClass=inetOrgPerson)"});
    let (status, _, all) = search(&web, &query).await;
    assert_eq!((status, all["count"].as_u64(), &all["truncated"]), (200, Some(PEOPLE as u64), &json!(false)));
    assert!(!all.to_string().to_lowercase().contains("userpassword"));
    let first = &all["entries"][0];
    assert_eq!(first["attributes"]["jpegPhoto"], json!([{"base64": "AP/+gA=="}]));
    assert_eq!(first["attributes"]["mail"], json!(["u0000@corp.example"]));

    let (_, _, lines) = told(&web, &query, "application/jsonl").await;
    assert_eq!(lines.lines().count(), PEOPLE + 1);
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({"result": {"code": 0, "name": "success"}, "count": PEOPLE, "truncated": false}));

    let some =
        json!({"base": SUFFIX, "filter": {"present": "mail"}, "size_limit": 1234, "page_size": 100, "attributes": ["uid"]});
    let (_, _, some) = search(&web, &some).await;
    assert_eq!((some["count"].as_u64(), &some["truncated"]), (Some(1234), &json!(true)));
    assert_eq!(some["entries"][0]["attributes"].as_object().unwrap().keys().collect::<Vec<_>>(), ["uid"]);
}
