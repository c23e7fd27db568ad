//! Which `allow:` is taken and which is a mistake, and how it is written out. Refuses to know requests.

use serde_json::{Value, json};

use super::*;

fn mistake(allow: Value) -> String {
    serde_json::from_value::<Rules>(allow.clone()).err().unwrap_or_else(|| panic!("{allow} is taken")).to_string()
}

#[test]
fn d9_every_mistake_names_its_key() {
    for (allow, key, why) in [
        (json!({"operation": []}), "operation", "unknown field"),
        (json!({"operations": ["read"]}), "read", "unknown variant"),
        (json!({"operations": ["modify"]}), "allow.operations", "needs `modify_attributes`"),
        (json!({"modify_attributes": ["cn"]}), "allow.modify_attributes", "neither modify nor add"),
        (json!({"operations": ["modify"], "modify_attributes": ["unicodePwd"]}), "allow.modify_attributes", "denied"),
        (json!({"operations": ["extended"]}), "allow.operations", "needs the list"),
        (json!({"extended": ["1.2.3"]}), "allow.extended", "has no `extended`"),
        (json!({"operations": ["extended"], "extended": ["1.3.6.1.4.1.1466.20037"]}), "allow.extended", "StartTLS"),
        (json!({"operations": ["extended"], "extended": ["whoami"]}), "allow.extended", "no OID"),
        (json!({"controls": ["paged"]}), "allow.controls", "no OID"),
        (json!({"controls": ["1.3.6.1.4.1.4203.666.5.16"]}), "allow.controls", "no rule sees"),
        (json!({"base": "people"}), "allow.base", "type=value"),
        (json!({"base": ["<GUID=x>"]}), "allow.base", "angle brackets"),
        (json!({"base": []}), "allow.base", "leave the key out"),
        (json!({"base": 5}), "a DN", "expected"),
        (json!({"scope": "sub"}), "sub", "unknown variant"),
        (json!({"attributes": ["userPassword"]}), "allow.attributes", "denied"),
        (json!({"attributes": ["cn"], "deny_attributes": ["2.5.4.3"]}), "allow.attributes", "denied"),
        (json!({"attributes": ["cn;lang-en"]}), "allow.attributes", "options"),
        (json!({"attributes": ["*"]}), "allow.attributes", "no attribute"),
        (json!({"deny_attributes": ["1.2.3.4"]}), "allow.deny_attributes", "not known here"),
        (json!({"filter_size": 0}), "allow.filter_size", "from 1"),
        (json!({"filter_depth": 49}), "allow.filter_depth", "to 48"),
        (json!({"size_limit": 0}), "allow.size_limit", "at least 1"),
        (json!({"time_limit": "500ms"}), "allow.time_limit", "whole seconds"),
        (json!({"time_limit": "0s"}), "allow.time_limit", "whole seconds"),
        (json!({"referrals": "follow"}), "follow", "unknown variant"),
    ] {
        let told = mistake(allow.clone());
        assert!(told.contains(key) && told.contains(why), "{allow}: {told}");
    }
}

#[test]
fn rules_are_written_out_so_that_they_are_read_as_the_same() {
    for allow in [
        json!({}),
        json!({"base": "dc=x", "size_limit": 5, "time_limit": "90s", "referrals": "pass", "scope": "one", "attributes": ["cn"]}),
        json!({"base": ["DC=x", "dc=y"], "operations": ["modify", "extended"], "modify_attributes": ["cn"], "extended": ["1.2"],
            "deny_attributes": ["sn"], "controls": []}),
    ] {
        let rules: Rules = serde_json::from_value(allow).unwrap();
        let shown = serde_json::to_value(&rules).unwrap();
        assert_eq!(serde_json::from_value::<Rules>(shown.clone()).unwrap(), rules, "{shown}");
    }
}
