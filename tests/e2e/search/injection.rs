//! Values that would be syntax if they were pasted: found as they are, and nothing beside them. Refuses to know how they are written.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{names, searched};
use crate::fixtures::ldap_client::Directory;
use crate::fixtures::vendor::Vendor;
use crate::fixtures::{samba, slapd};
use crate::http::Web;
use crate::ldap::ldaps;

/// What people and attackers put into names.
const VALUES: [&str; 16] = [
    "*)(uid=*))(|(uid=*",
    "*",
    "x)(objectClass=*",
    "(&)",
    "admin*)((|userPassword=*)",
    "\\2a",
    "back\\slash",
    "x,ou=groups",
    "x+uid=u0001",
    "\"quoted\"",
    "#not hex",
    "<a;b>=c",
    "Łukasz Żółć",
    "a=b",
    "tab\tand / slash",
    "emoji 🗝",
];

/// Each byte escaped that is no letter (RFC 4514, RFC 4515).
fn escaped(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        let _ = if byte.is_ascii_alphanumeric() { write!(text, "{}", byte as char) } else { write!(text, "\\{byte:02x}") };
        text
    })
}

/// An entry for each of the values.
fn ldif(class: &str, base: &str) -> String {
    VALUES.iter().fold(String::new(), |ldif, value| {
        let (dn, value) = (format!("cn={},{base}", escaped(value)), STANDARD.encode(value));
        ldif + &format!("dn: {dn}\nchangetype: add\nobjectClass: {class}\ncn:: {value}\ndescription:: {value}\n\n")
    })
}

/// Searches for each value by tree, by text and by name: each finds its entry and no other.
async fn round_trips(web: &Web, base: &str, login: &Value) {
    let unit = base.split_once('=').unwrap().1.split(',').next().unwrap();
    let above = base.split_once(',').unwrap().1;
    for value in VALUES {
        let equal = json!({"equal": {"attribute": "description", "value": value}});
        let found = async |mut query: Value| {
            query["bind"] = login.clone();
            let (status, code, found) = searched(web, "hr", &query).await;
            assert_eq!((status, code.as_str(), names(&found).len()), (200, "", 1), "{query}: {found}");
            let attributes = found["entries"][0]["attributes"].clone();
            assert_eq!(attributes["description"], json!([value]), "{query}");
            found["entries"][0]["dn"].as_str().unwrap().to_owned()
        };
        let dn = found(json!({"base": base, "filter": equal})).await;
        let text = format!("(description={})", escaped(value));
        assert_eq!(found(json!({"base": base, "filter": text})).await, dn);
        let any = json!({"substrings": {"attribute": "description", "initial": value}});
        let exact = json!({"and": [any, equal, {"not": {"equal": {"attribute": "description", "value": "other"}}}]});
        assert_eq!(found(json!({"base": base, "filter": exact})).await, dn);
        let named = json!([{"cn": value}, {"ou": unit}, above]);
        assert_eq!(found(json!({"base": named, "scope": "base"})).await, dn);
        // The name that came back is a name.
        assert_eq!(found(json!({"base": dn, "scope": "base"})).await, dn);
    }
}

/// Bytes that are no text match nothing, and end nothing early.
async fn no_text(web: &Web, base: &str, login: &Value) {
    for bytes in [&b"a\0b"[..], b"\0", b"\xc0\xaa", b"\xc0\xaa)(uid=\xc0\xaa", b"\xff\xfe"] {
        let value = json!({"base64": STANDARD.encode(bytes)});
        let text: String = bytes.iter().fold("(description=".to_owned(), |text, byte| text + &format!("\\{byte:02x}")) + ")";
        for filter in [json!({"equal": {"attribute": "description", "value": value}}), json!(text)] {
            let (status, code, found) = searched(web, "hr", &json!({"base": base, "filter": filter, "bind": login})).await;
            let none = status == 200 && found["count"] == 0;
            assert!(code.is_empty() && (none || found["result"]["code"].as_u64() > Some(0)), "{bytes:?}: {status} {found}");
        }
    }
    // A NUL in a name, and one in the middle of a filter's text.
    let named = json!({"base": [{"cn": "x\0,ou=groups"}, base], "scope": "base", "bind": login});
    let (status, code, found) = searched(web, "hr", &named).await;
    assert!(code.is_empty() && (400..=404).contains(&status), "{status} {code} {found}");
    let (status, code, _) = searched(web, "hr", &json!({"base": base, "filter": "(cn=a\0)(cn=*)"})).await;
    assert_eq!((status, code.as_str()), (400, "request_invalid"));
}

#[tokio::test]
async fn e6_values_that_look_like_syntax_are_found_as_they_are_in_openldap() {
    let (vendor, base) = (Vendor::new(), format!("ou=people,{}", slapd::SUFFIX));
    let slapd = slapd::Slapd::start(&vendor).await;
    slapd.direct().modify(slapd::SERVICE, &ldif("device", &base)).await.ok();
    let web = Web::new(&[("hr", ldaps(slapd.ldaps(), &vendor, ""))]).await;
    round_trips(&web, &base, &Value::Null).await;
    no_text(&web, &base, &Value::Null).await;
}

#[tokio::test]
async fn e6_values_that_look_like_syntax_are_found_as_they_are_in_a_domain() {
    let (vendor, base) = (Vendor::new(), format!("OU=people,{}", samba::SUFFIX));
    let samba = samba::Samba::start(&vendor).await;
    let target = |allow: &str| ldaps(samba.ldaps(), &vendor, &format!(", allow: {{{allow}}}"));
    let writes = target("operations: [bind, add], modify_attributes: [cn, objectClass, description]");
    let web = Web::new(&[("hr", target("operations: [search, bind]")), ("writes", writes)]).await;
    Directory::at(web.raw("writes")).modify(samba::ADMIN, &ldif("container", &base)).await.ok();
    let login = json!({"dn": samba::login(1), "password": samba::password(1)});
    round_trips(&web, &base, &login).await;
    no_text(&web, &base, &login).await;
}
