//! What Active Directory's attributes become in JSON. Refuses to know who may see them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{names, searched};
use crate::fixtures::samba::{PEOPLE, SUFFIX, Samba, login, password, person};
use crate::fixtures::vendor::Vendor;
use crate::http::Web;
use crate::ldap::ldaps;

#[tokio::test]
async fn a_domain_is_searched_with_a_login_and_its_binary_values_are_base64() {
    let vendor = Vendor::new();
    let samba = Samba::start(&vendor).await;
    let web = Web::new(&[("hr", ldaps(samba.ldaps(), &vendor, ", allow: {operations: [search, bind]}"))]).await;
    let bind = json!({"dn": login(1), "password": password(1)});
    let filter = json!({"and": [{"equal": {"attribute": "sAMAccountName", "value": "u0001"}}, {"present": "objectSid"}]});
    let (status, _, found) = searched(&web, "hr", &json!({"base": SUFFIX, "filter": filter, "bind": bind})).await;
    assert_eq!((status, names(&found)), (200, vec![person(1).as_str()]), "{found}");
    let staff = format!("CN=staff,OU=people,{SUFFIX}");
    let attributes = &found["entries"][0]["attributes"];
    let bytes = |name: &str| STANDARD.decode(attributes[name][0]["base64"].as_str().unwrap()).unwrap();
    assert_eq!((bytes("objectGUID").len(), &bytes("objectSid")[..2]), (16, &[1, 5][..]));
    assert_eq!(attributes["memberOf"], json!([staff]));
    assert!(!attributes.to_string().to_lowercase().contains("pwd\""), "{attributes}");

    // By what was found: bytes go back as they came.
    let same = json!({"equal": {"attribute": "objectGUID", "value": attributes["objectGUID"][0]}});
    let (_, _, again) = searched(&web, "hr", &json!({"base": SUFFIX, "filter": same, "bind": bind})).await;
    assert_eq!(names(&again), [person(1)]);
    // Many members come in ranges, where it is said which.
    for (attribute, members) in [("member", PEOPLE - 1), ("member;range=0-9", 10)] {
        let query = json!({"base": &staff, "scope": "base", "attributes": [attribute], "bind": bind});
        let (_, _, group) = searched(&web, "hr", &query).await;
        assert_eq!(group["entries"][0]["attributes"][attribute].as_array().map(Vec::len), Some(members), "{group}");
    }
    // In chain, as Active Directory has it.
    let chain = json!({"extensible": {"attribute": "memberOf", "rule": "1.2.840.113556.1.4.1941", "value": staff}});
    let (_, _, members) =
        searched(&web, "hr", &json!({"base": SUFFIX, "filter": chain, "attributes": ["1.1"], "page_size": 7, "bind": bind}))
            .await;
    assert_eq!((members["count"].as_u64(), &members["truncated"]), (Some(PEOPLE as u64 - 1), &json!(false)));

    let (status, code, body) =
        searched(&web, "hr", &json!({"base": SUFFIX, "bind": {"dn": login(1), "password": "wrong"}})).await;
    assert_eq!((status, code.as_str(), &body["result"]["name"]), (403, "", &json!("invalidCredentials")));
    let (status, code, body) = searched(&web, "hr", &json!({"base": SUFFIX})).await;
    assert_eq!((status, code.as_str()), (502, ""), "a domain tells nobody: {body}");
}
