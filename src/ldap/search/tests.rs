//! Searches read from JSON. Refuses to know what is found.

use proptest::prelude::*;

use super::*;

fn query(json: &str) -> Query {
    Query::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn wrong(json: &str) -> String {
    Query::parse(json.as_bytes()).expect_err(json).to_string()
}

#[test]
fn the_documented_search_is_read() {
    let all = query(
        r#"{"bind": {"dn": "cn=reader,dc=corp,dc=example", "password": " p w "}, "base": [{"ou": "people"}, "dc=corp,dc=example"],
            "scope": "one", "filter": {"and": [{"equal": {"attribute": "uid", "value": "j*"}}, {"present": "mail"}]},
            "attributes": ["cn", "member;range=0-1499", "*", "+", "1.1", "2.5.4.3"], "page_size": 7, "size_limit": 9, "time_limit": 5}"#,
    );
    assert_eq!(all.base.as_str(), "ou=people,dc=corp,dc=example");
    assert_eq!(all.filter.to_string(), "(&(uid=j\\2a)(mail=*))");
    assert_eq!((all.scope, all.page_size, all.size_limit, all.time_limit), (Scope::One, 7, 9, 5));
    let bind = all.bind.unwrap();
    assert_eq!(bind.password.expose(), " p w ", "as it is");
    let least = query("{}");
    assert_eq!((least.base.as_str(), least.scope, least.size_limit), ("", Scope::Subtree, 0));
    assert_eq!(least.filter.to_string(), "(objectClass=*)");
    assert!(least.bind.is_none() && least.attributes.is_empty());
    assert_eq!(query(r#"{"filter": "(|(a=b)(c=d))"}"#).filter.to_string(), "(|(a=b)(c=d))");
}

#[test]
fn what_is_not_understood_is_refused_and_named() {
    assert!(wrong(r#"{"Base": "dc=x"}"#).contains("unknown field `Base`"));
    assert!(wrong(r#"{"scope": "sub"}"#).contains("`subtree`"));
    assert!(wrong(r#"{"filter": "uid=*"}"#).contains("filter"));
    assert!(wrong(r#"{"filter": {"equal": {"attribute": "uid)(x", "value": "y"}}}"#).contains("attribute"));
    assert!(wrong(r#"{"attributes": ["cn", "c n"]}"#).contains("`attributes`"));
    assert!(wrong(r#"{"attributes": "cn"}"#).contains("sequence"));
    assert!(wrong(r#"{"page_size": 0}"#).contains("from 1 to 1000"));
    assert!(wrong(r#"{"time_limit": 601}"#).contains("from 1 to 600"));
    assert!(wrong(r#"{"size_limit": -1}"#).contains("u32"));
    assert!(wrong(r#"{"size_limit": 4294967295}"#).contains("2147483647"));
    assert!(wrong("{} {}").contains("trailing"));
    // Lists in the place of objects would say nothing about their values.
    assert!(wrong("[]").contains("expected an object"));
    assert!(wrong(r#"{"bind": ["cn=x", "pw"]}"#).contains("expected an object"));
    assert!(wrong(r#"{"filter": {"equal": ["uid", "jdoe"]}}"#).contains("expected an object"));
    let deep = format!("{{\"filter\": {}\"(a=b)\"{}}}", "{\"not\": ".repeat(5_000), "}".repeat(5_000));
    assert!(wrong(&deep).contains("recursion"));
}

#[test]
fn e7_a_login_without_a_name_or_a_password_is_none() {
    assert!(wrong(r#"{"bind": {"dn": "cn=x", "password": ""}}"#).contains("empty password"));
    assert!(wrong(r#"{"bind": {"dn": "", "password": "x"}}"#).contains("without a name"));
    assert!(wrong(r#"{"bind": {"dn": "cn=x"}}"#).contains("missing field `password`"));
}

#[test]
fn i1_no_error_and_no_debug_output_has_the_password() {
    for json in [
        r#"{"bind": {"dn": "cn=x", "password": 246813579}}"#,
        r#"{"bind": {"dn": "cn=x", "password": ["hunter2"]}}"#,
        r#"{"bind": "cn=x%hunter2"}"#,
        r#"{"bind": ["cn=x", "hunter2, expected "], "x": 1}"#,
        r#"{"bind": {"dn": 246813579, "password": "hunter2"}}"#,
        r#"{"bind": {"dn": "cn=x", "password": "hunter2"}, "scope": "hunter", "x": 1}"#,
        "{\"bind\": {\"dn\": \"cn=x\", \"password\": \"hunter2\n\"}}",
    ] {
        let error = wrong(json);
        assert!(!error.contains("hunter2") && !error.contains("246813579"), "{error}");
        assert!(error.contains("line "), "{error}");
    }
    let fine = query(r#"{"bind": {"dn": "cn=x", "password": "hunter2"}}"#);
    assert!(!format!("{fine:?}").contains("hunter2"));
}

proptest! {
    /// What was meant as one value stays one, on its way through the text and back, also as the client library reads it.
    #[test]
    fn e6_a_value_in_a_tree_stays_a_value(value in "\\PC*|[\\x00()*\\\\|&!=a]{0,12}") {
        let tree = serde_json::json!({"filter": {"equal": {"attribute": "uid", "value": value}}});
        let filter = query(&tree.to_string()).filter;
        let text = filter.to_string();
        prop_assert_eq!(&text.parse::<Filter>().unwrap(), &filter);
        prop_assert_eq!(as_the_library_reads(&text), filter.to_ber());
    }

    #[test]
    fn a_filter_of_any_form_is_what_the_library_sends(filter in any_filter()) {
        let text = filter.to_string();
        prop_assert_eq!(as_the_library_reads(&text), filter.to_ber(), "{}", text);
    }
}

/// The text as ldap3 parses and writes it.
fn as_the_library_reads(text: &str) -> Vec<u8> {
    use ldap3::asn1::{ASNTag, write};
    let tag = ldap3::parse_filter(text).unwrap_or_else(|()| panic!("ldap3 can't read {text}"));
    let mut bytes = bytes::BytesMut::new();
    write::encode_into(&mut bytes, tag.into_structure()).unwrap();
    bytes.to_vec()
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let value = || "[a*()\\\\ ]{1,4}";
    let name = || prop_oneof![Just("uid"), Just("2.5.4.3"), Just("cn;lang-de")];
    let compare = prop_oneof![Just("equal"), Just("greater_or_equal"), Just("less_or_equal"), Just("approximate")];
    let leaf = prop_oneof![
        (compare, name(), value())
            .prop_map(|(kind, name, value)| serde_json::json!({kind: {"attribute": name, "value": value}})),
        name().prop_map(|name| serde_json::json!({"present": name})),
        (name(), proptest::option::of(value()), proptest::collection::vec(value(), 1..3), proptest::option::of(value()))
            .prop_map(|(name, initial, any, last)| {
                serde_json::json!({"substrings": {"attribute": name, "initial": initial, "any": any, "final": last}})
            }),
        (name(), value(), any::<bool>()).prop_map(|(name, value, dn)| {
            serde_json::json!({"extensible": {"attribute": name, "rule": "1.2.840.113556.1.4.803", "value": value, "dn": dn}})
        }),
    ];
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|inner| serde_json::json!({"and": inner})),
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|inner| serde_json::json!({"or": inner})),
            inner.prop_map(|inner| serde_json::json!({"not": inner})),
        ]
    });
    tree.prop_map(|tree| serde_json::from_value(tree).unwrap())
}
