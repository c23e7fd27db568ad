//! Searches that can't be made: what is wrong with them, who may not, and whether the directory or the tunnel said no. Refuses to know what
//! a search finds.

use serde_json::{Value, json};

use super::{asked, searched, url};
use crate::fixtures::origin::Origin;
use crate::fixtures::slapd::{SUFFIX, Slapd, person};
use crate::fixtures::vendor::Vendor;
use crate::harness::process::Program;
use crate::http::{Web, http};
use crate::ldap::ldaps;

/// OpenLDAP as `hr`, and an origin as `web`.
async fn site() -> (Vendor, Slapd, Origin, Web) {
    let (vendor, origin) = (Vendor::new(), Origin::start().await);
    let slapd = Slapd::start(&vendor).await;
    let web = Web::new(&[("hr", ldaps(slapd.ldaps(), &vendor, "")), ("web", http(origin.address(), ""))]).await;
    (vendor, slapd, origin, web)
}

#[tokio::test]
async fn a_directorys_no_is_told_from_the_tunnels() {
    let (_vendor, mut slapd, _origin, web) = site().await;
    for (query, status, name) in [
        (json!({"base": format!("ou=nowhere,{SUFFIX}")}), 404, "noSuchObject"),
        (json!({"base": "no name"}), 400, "invalidDNSyntax"),
        (json!({"base": format!("ou=elsewhere,{SUFFIX}")}), 502, "unwillingToPerform"),
    ] {
        let (got, code, body) = searched(&web, "hr", &query).await;
        assert_eq!((got, code.as_str(), &body["result"]["name"]), (status, "", &json!(name)), "{query}: {body}");
    }
    let (_, _, body) = searched(&web, "hr", &json!({"base": format!("ou=nowhere,{SUFFIX}")})).await;
    assert_eq!(body["result"]["matched"], SUFFIX);
    let (status, code, _) = asked(&web, "web", &json!({}), "application/json").await;
    assert_eq!((status, code.as_str()), (404, "target_kind_mismatch"));
    let (status, code, _) = web.told(&[], &web.url("hr", "/")).await;
    assert_eq!((status, code.as_str()), (404, "target_kind_mismatch"), "a directory takes no requests of HTTP");
    let (status, code, _) = asked(&web, "nowhere", &json!({}), "application/json").await;
    assert_eq!((status, code.as_str()), (404, "target_unknown"));
    slapd.stop();
    for accept in ["application/json", "application/jsonl"] {
        let (status, code, _) = asked(&web, "hr", &json!({"base": SUFFIX}), accept).await;
        assert_eq!((status, code.as_str()), (502, "target_refused"));
    }
    slapd.restart().await;
    assert_eq!(searched(&web, "hr", &json!({"base": person(1)})).await.0, 200);
}

#[tokio::test]
async fn only_who_is_granted_the_target_searches_it() {
    let (_vendor, _slapd, _origin, web) = site().await;
    let other = web.gateway.admin(&["client-token", "create", "--name", "other", "--grant", "acme/dc1/web"]).run().await.ok();
    let status = async |token: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        let curl = Program::new("curl").args([
            "-sS",
            "-w",
            "\n%{http_code} %header{underpass-refusal}",
            "--json",
            "{}",
            "-H",
            &bearer,
        ]);
        let said = curl.arg(url(&web, "hr")).run().await.ok();
        said.rsplit_once('\n').unwrap().1.to_owned()
    };
    assert_eq!(status(other.trim()).await, "403 not_granted");
    assert_eq!(status(&format!("{}x", &web.token[..web.token.len() - 1])).await, "401 login_failed");
    assert_eq!(status("").await, "401 login_required");
    assert_eq!(status(&web.token).await.split(' ').next(), Some("404"), "the root is no entry of OpenLDAP's");
}

#[tokio::test]
async fn d9_what_is_no_search_is_refused_before_any_directory_hears_of_it() {
    let (_vendor, _slapd, _origin, web) = site().await;
    let posted = async |body: &str| {
        let file = web.agent.scratch().write("body", body);
        let data = format!("@{}", file.display());
        web.told(&["--data-binary", &data, "-H", "Content-Type: application/json"], &url(&web, "hr")).await
    };
    let deep = |open: &str, close: &str| format!("{{\"filter\": {}\"(a=b)\"{}}}", open.repeat(10_000), close.repeat(10_000));
    let many = |key: &str, value: Value| json!({key: value}).to_string();
    for body in [
        String::new(),
        "[]".to_owned(),
        "{".to_owned(),
        "{\"base\": \"\", \"base\": \"\"}".to_owned(),
        many("filter", json!({"equal": ["uid", "x"]})),
        many("bind", json!(["cn=x", "secret-word"])),
        many("bases", json!("")),
        many("scope", json!("children")),
        many("filter", json!("(uid=*")),
        many("filter", json!("(uid=*)(cn=*)")),
        many("filter", json!({"equal": {"attribute": "uid"}})),
        many("filter", json!({"equal": {"attribute": "uid)(cn", "value": "x"}})),
        many("filter", json!({"equal": {"attribute": "uid", "value": "x", "escaped": true}})),
        many("attributes", json!(["uid)(cn=*"])),
        many("attributes", json!(vec!["cn"; 300])),
        many("page_size", json!(0)),
        many("page_size", json!(100_000)),
        many("time_limit", json!(86_400)),
        many("size_limit", json!(-1)),
        many("bind", json!({"dn": "", "password": "secret-word"})),
        many("bind", json!({"dn": "cn=x", "password": ["secret-word"]})),
        deep("{\"not\": ", "}"),
        deep("[", "]"),
        format!("{{\"filter\": \"{}(a=b){}\"}}", "(!".repeat(10_000), ")".repeat(10_000)),
    ] {
        let (status, code, said) = posted(&body).await;
        let start: String = body.chars().take(80).collect();
        assert_eq!((status, code.as_str()), (400, "request_invalid"), "{start}: {said}");
        assert!(!said.contains("secret-word"), "{said}");
        let problem: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(problem["code"], "request_invalid");
    }
    let (status, code, _) = posted(&format!("{{\"base\": \"{}\"}}", "x".repeat(80 * 1024))).await;
    assert_eq!((status, code.as_str()), (400, "request_invalid"), "a body has its limit");
    let (status, code, _) = web.told(&["-G"], &url(&web, "hr")).await;
    assert_eq!((status, code.as_str()), (400, "request_invalid"), "a search is a POST");
}
