//! What passes under which rules, in messages as clients and directories send them. Refuses to know sockets.

mod conversations;
mod grammars;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::ldap::ber::{Writer, tag, validate};
use crate::ldap::filter::Filter;
use crate::ldap::message::answer;

/// Rules as a file has them.
fn rules(allow: Value) -> Arc<Rules> {
    Arc::new(serde_json::from_value(allow.clone()).unwrap_or_else(|error| panic!("{allow}: {error}")))
}

/// What the rules say to a question.
fn ask(rules: &Arc<Rules>, question: &str) -> Answer {
    format!("ldap hr {question}").parse::<Question>().unwrap_or_else(|error| panic!("{question}: {error}")).ask(rules)
}

fn allowed(rules: &Arc<Rules>, question: &str) {
    let answer = ask(rules, question);
    assert!(answer.allowed, "{question}: {} {}", answer.rule, answer.why);
}

fn denied(rules: &Arc<Rules>, question: &str, by: Rule) {
    let answer = ask(rules, question);
    assert!(!answer.allowed, "{question} passes");
    assert_eq!(answer.rule, by, "{question}: {}", answer.why);
}

/// A search for everything below `dc=corp`, with these controls.
fn search(id: u32, filter: &str, limits: (u32, u32), controls: &[&[u8]]) -> Vec<u8> {
    search_by(0, id, filter, limits, controls)
}

/// The same, which follows aliases so far.
fn search_by(aliases: u32, id: u32, filter: &str, limits: (u32, u32), controls: &[&[u8]]) -> Vec<u8> {
    let mut op = Writer::default();
    op.constructed(0x63, |it| {
        it.octets(tag::OCTETS, b"dc=corp");
        it.number(tag::ENUMERATED, 2);
        it.number(tag::ENUMERATED, aliases);
        it.number(tag::INTEGER, limits.0);
        it.number(tag::INTEGER, limits.1);
        it.truth(tag::BOOLEAN, false);
        filter.parse::<Filter>().unwrap().write(it);
        it.constructed(tag::SEQUENCE, |_| {});
    });
    answer::request(id, &op.into_bytes(), controls)
}

fn control(oid: &str, critical: bool, value: Option<&[u8]>) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.constructed(tag::SEQUENCE, |it| {
        it.octets(tag::OCTETS, oid.as_bytes());
        if critical {
            it.truth(tag::BOOLEAN, true);
        }
        value.into_iter().for_each(|value| it.octets(tag::OCTETS, value));
    });
    writer.into_bytes()
}

/// What becomes of a client's first message.
fn first(rules: &Arc<Rules>, bytes: &[u8]) -> Up {
    validate(bytes).unwrap();
    Conversation::new(rules.clone()).client(bytes).unwrap()
}

fn denial(up: Up) -> Denial {
    match up {
        Up::Answer(_, Some(denial)) => denial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn d9_searching_and_comparing_pass_by_default_and_nothing_else_does() {
    let rules = rules(json!({}));
    assert_eq!(*rules, Rules::default());
    allowed(&rules, "search base=dc=corp scope=subtree filter=(uid=jdoe) attributes=cn,mail");
    allowed(&rules, "search filter=(objectClass=*)");
    allowed(&rules, "compare dn=cn=x,dc=corp attribute=cn value=x");
    allowed(&rules, "bind dn=");
    for question in [
        "bind dn=cn=x,dc=corp",
        "modify dn=cn=x attributes=cn",
        "add dn=cn=x attributes=cn",
        "delete dn=cn=x",
        "modify_dn dn=cn=x new_rdn=cn=y",
        "extended oid=1.3.6.1.4.1.4203.1.11.3",
    ] {
        denied(&rules, question, Rule::Operations);
    }
    denied(&rules, "extended oid=1.3.6.1.4.1.1466.20037", Rule::StartTls);
}

#[test]
fn d9_operations_pass_each_by_choice() {
    let rules = rules(json!({"operations": ["bind", "delete", "extended"], "extended": ["1.3.6.1.4.1.4203.1.11.3"]}));
    allowed(&rules, "bind dn=cn=x,dc=corp");
    allowed(&rules, "delete dn=cn=x,dc=corp");
    allowed(&rules, "extended oid=1.3.6.1.4.1.4203.1.11.3");
    denied(&rules, "extended oid=1.3.6.1.4.1.4203.1.11.1", Rule::Extended);
    denied(&rules, "extended oid=1.3.6.1.4.1.1466.20037", Rule::StartTls);
    denied(&rules, "search base=dc=corp", Rule::Operations);
}

#[test]
fn d9_a_base_is_compared_as_a_name_and_not_as_text() {
    let rules = rules(json!({"base": ["ou=People,dc=corp,dc=example", "ou=groups,dc=corp,dc=example"], "scope": "one",
        "operations": ["search", "compare", "modify", "add", "delete", "modify_dn"], "modify_attributes": ["cn", "objectClass"]}));
    allowed(&rules, "search base=OU=people , DC=Corp,dc=example scope=one");
    allowed(&rules, "search base=2.5.4.11=Gro\\75ps,dc=corp,dc=example scope=base");
    denied(&rules, "search base=ou=people,dc=corp,dc=example scope=subtree", Rule::Scope);
    for dn in [
        "dc=corp,dc=example",
        "",
        "ou=people\\,dc=corp\\,dc=example",
        "xou=people,dc=corp,dc=example",
        "ou=people,dc=corp,dc=example,dc=evil",
        "<GUID=b3d8d7e0-f0a5-4c4f-9a5b-0c8f0d0a1b2c>",
        "<WKGUID=aa312825768811d1aded00c04fd8d5cd,dc=corp,dc=example>",
        "cn=\"a,ou=people,dc=corp,dc=example\"",
    ] {
        denied(&rules, &format!("search base={dn} scope=base"), Rule::Base);
        denied(&rules, &format!("compare dn={dn} attribute=cn"), Rule::Base);
        denied(&rules, &format!("modify dn={dn} attributes=cn"), Rule::Base);
        denied(&rules, &format!("add dn={dn} attributes=cn"), Rule::Base);
        denied(&rules, &format!("delete dn={dn}"), Rule::Base);
        denied(&rules, &format!("modify_dn dn={dn} new_rdn=cn=x"), Rule::Base);
        denied(&rules, &format!("modify_dn dn=cn=x,ou=people,dc=corp,dc=example new_rdn=cn=x new_superior={dn}"), Rule::Base);
    }
    allowed(&rules, "modify_dn dn=cn=x,ou=people,dc=corp,dc=example new_rdn=cn=y");
    allowed(&rules, "modify_dn dn=cn=x,ou=people,dc=corp,dc=example new_rdn=cn=y new_superior=ou=groups,dc=corp,dc=example");
    denied(&rules, "modify_dn dn=ou=people,dc=corp,dc=example new_rdn=cn=y", Rule::Base);
    denied(&rules, "modify_dn dn=cn=x,ou=people,dc=corp,dc=example new_rdn=cn=y,ou=z", Rule::Base);
}

#[test]
fn d9_what_holds_secrets_can_not_be_asked_about_whatever_its_spelling() {
    let rules = rules(json!({"deny_attributes": ["employeeNumber", "name", "secretThing"]}));
    for name in DENIED_ATTRIBUTES.iter().chain(&[
        "USERPASSWORD",
        "2.5.4.35",
        "OID.2.5.4.35",
        "userPassword;lang-en",
        "2.5.4.35;x",
        "1.2.840.113556.1.4.90",
        "2.16.840.1.113730.3.1.3",
        "EMPLOYEENUMBER;binary",
        "sn",
        "2.5.4.4",
        "surname",
        "commonName",
        "name",
        "secretthing",
        "1.2.3.4.5",
        "anr",
    ]) {
        for filter in ["={}", "=*", "=a*b", ">=a", "<=a", "~=a", ":=a", ":dn:=a", ":2.5.13.2:=a"] {
            let filter = format!("(&(objectClass=*)(!({name}{filter})))");
            denied(&rules, &format!("search base=dc=corp filter={filter}"), Rule::DenyAttributes);
        }
        denied(&rules, &format!("compare dn=dc=corp attribute={name} value=x"), Rule::DenyAttributes);
    }
    denied(&rules, "search base=dc=corp filter=(:2.5.13.2:=secret)", Rule::ExtensibleMatch);
    allowed(&rules, "search base=dc=corp filter=(mail=*)");
    let answer = ask(&rules, "search base=dc=corp attributes=*,+,1.1,mail,UserPassword,2.5.4.35;x,cn");
    assert_eq!((answer.allowed, answer.left_out), (true, ["UserPassword", "2.5.4.35;x", "cn"].map(str::to_owned).to_vec()));
}

#[test]
fn d9_a_supertype_is_no_way_around_a_denied_attribute() {
    let rules = rules(json!({"deny_attributes": ["sn"]}));
    denied(&rules, "search filter=(name=Smith)", Rule::DenyAttributes);
    denied(&rules, "search filter=(anr=Smith)", Rule::DenyAttributes);
    allowed(&rules, "search filter=(cn=Smith)");
}

#[test]
fn d9_a_list_of_attributes_is_all_that_may_be_read_and_asked_about() {
    let rules = rules(json!({"attributes": ["cn", "MAIL", "1.3.6.1.4.1.99.1", "name"]}));
    allowed(&rules, "search filter=(&(objectClass=person)(|(commonName=x)(0.9.2342.19200300.100.1.3=*)))");
    allowed(&rules, "search filter=(1.3.6.1.4.1.99.1=x)");
    denied(&rules, "search filter=(uid=x)", Rule::Attributes);
    denied(&rules, "search filter=(name=x)", Rule::Attributes);
    denied(&rules, "search filter=(userPassword=x)", Rule::DenyAttributes);
    denied(&rules, "search filter=(1.3.6.1.4.1.99.2=x)", Rule::Attributes);
    denied(&rules, "compare dn=cn=x attribute=telephoneNumber", Rule::Attributes);
}

#[test]
fn d9_what_may_be_written_is_listed() {
    let rules = rules(
        json!({"operations": ["modify", "add", "modify_dn"], "modify_attributes": ["cn", "objectClass", "telephoneNumber"]}),
    );
    allowed(&rules, "modify dn=cn=x attributes=telephoneNumber;lang-en,2.5.4.3");
    allowed(&rules, "add dn=cn=x,dc=corp attributes=objectClass,cn");
    allowed(&rules, "modify_dn dn=cn=x,dc=corp new_rdn=2.5.4.3=y");
    for name in ["mail", "1.2.3.4", "uid;x"] {
        denied(&rules, &format!("modify dn=cn=x attributes=cn,{name}"), Rule::ModifyAttributes);
        denied(&rules, &format!("add dn=cn=x attributes=cn,{name}"), Rule::ModifyAttributes);
    }
    for name in ["userPassword", "unicodePwd", "2.5.4.35", "1.2.840.113556.1.4.90;x"] {
        denied(&rules, &format!("modify dn=cn=x attributes={name}"), Rule::DenyAttributes);
        denied(&rules, &format!("add dn=cn=x attributes={name}"), Rule::DenyAttributes);
    }
    denied(&rules, "add dn=mail=x,dc=corp attributes=cn", Rule::ModifyAttributes);
    denied(&rules, "modify_dn dn=cn=x new_rdn=cn=y+mail=x", Rule::ModifyAttributes);
    denied(&rules, "modify_dn dn=cn=x new_rdn=userPassword=y", Rule::DenyAttributes);
}

#[test]
fn d9_a_name_that_can_not_be_read_writes_nothing_with_or_without_a_base() {
    for allow in [
        json!({"operations": ["add", "modify_dn"], "modify_attributes": ["cn"]}),
        json!({"operations": ["add", "modify_dn"], "modify_attributes": ["cn"], "base": "dc=corp"}),
    ] {
        let rules = rules(allow);
        for dn in [
            r#"userPassword="pwned",ou=people,dc=corp"#,
            "userPassword=pw+cn=q;ou=people,dc=corp",
            "cn=q;userPassword=pw,dc=corp",
            "cn;lang-de=q,dc=corp",
            "cn=q,dc=corp;dc=corp",
        ] {
            for question in [format!("add dn={dn} attributes=cn"), format!("modify_dn dn={dn} new_rdn=cn=x")] {
                let question: Question = format!("ldap hr {question}").parse().unwrap();
                let denial = denial(first(&rules, question.message()));
                assert_eq!((denial.rule, denial.code), (Rule::Base, ResultCode::InvalidDnSyntax), "{dn}");
            }
        }
        denied(&rules, "modify_dn dn=cn=x,dc=corp new_rdn=cn=\"y\"", Rule::Base);
        allowed(&rules, "add dn=cn=x,dc=corp attributes=cn");
    }
}

#[test]
fn d9_a_rename_takes_no_value_from_an_entry_that_may_not_be_written() {
    let rules = rules(json!({"operations": ["modify_dn"], "modify_attributes": ["cn"]}));
    for (old, rule) in [("mail=x", Rule::ModifyAttributes), ("cn=x+userPassword=y", Rule::DenyAttributes)] {
        denied(&rules, &format!("modify_dn dn={old},dc=corp new_rdn=cn=y"), rule);
    }
    let mut op = Writer::default();
    op.constructed(0x6c, |it| {
        it.octets(tag::OCTETS, b"mail=x,dc=corp");
        it.octets(tag::OCTETS, b"cn=y");
        it.truth(tag::BOOLEAN, false);
    });
    assert_eq!(first(&rules, &answer::request(1, &op.into_bytes(), &[])), Up::Pass, "it keeps its old name's values");
}

#[test]
fn d9_within_a_base_no_search_follows_aliases() {
    let (anywhere, within) = (rules(json!({})), rules(json!({"base": "dc=corp"})));
    for aliases in 1..=3 {
        let asked = search_by(aliases, 3, "(cn=*)", (1, 0), &[]);
        assert_eq!(first(&anywhere, &asked), Up::Pass);
        assert_eq!(first(&within, &asked), Up::Replace(search(3, "(cn=*)", (1, 0), &[])));
    }
    assert_eq!(first(&within, &search(3, "(cn=*)", (1, 0), &[])), Up::Pass);
}

#[test]
fn d7_filters_are_as_large_and_as_deep_as_the_rules_say() {
    let rules = rules(json!({"filter_size": 4, "filter_depth": 3}));
    allowed(&rules, "search filter=(&(a=1)(!(b=2)))");
    denied(&rules, "search filter=(&(a=1)(b=2)(c=3)(d=4))", Rule::FilterSize);
    denied(&rules, "search filter=(!(!(!(a=1))))", Rule::FilterDepth);
}

#[test]
fn limits_are_lowered_to_the_rules_and_all_else_stays() {
    let rules = rules(json!({"size_limit": 500, "time_limit": "1m"}));
    let paged = control("1.2.840.113556.1.4.319", true, Some(b"\x30\x05\x02\x01\x64\x04\x00"));
    for (asked, sent) in [((0, 0), (500, 60)), ((501, 61), (500, 60)), ((1000, 10), (500, 10)), ((5, 0), (5, 60))] {
        let sent = search(3, "(cn=*)", sent, &[&paged]);
        assert_eq!(first(&rules, &search(3, "(cn=*)", asked, &[&paged])), Up::Replace(sent));
    }
    assert_eq!(first(&rules, &search(3, "(cn=*)", (500, 60), &[&paged])), Up::Pass);
}

#[test]
fn controls_pass_by_their_list_and_others_are_left_out_or_refused() {
    let rules = rules(json!({}));
    let (paged, deleted) = (control("1.2.840.113556.1.4.319", true, None), control("1.2.840.113556.1.4.417", false, None));
    assert_eq!(first(&rules, &search(3, "(cn=*)", (0, 0), &[&paged])), Up::Pass);
    let without = search(3, "(cn=*)", (0, 0), &[&paged]);
    assert_eq!(first(&rules, &search(3, "(cn=*)", (0, 0), &[&deleted, &paged])), Up::Replace(without));
    let critical = control("1.2.840.113556.1.4.417", true, None);
    let denial = denial(first(&rules, &search(3, "(cn=*)", (0, 0), &[&critical])));
    assert_eq!((denial.rule, denial.code), (Rule::Controls, ResultCode::UnavailableCriticalExtension));
}

#[test]
fn d9_controls_that_name_attributes_are_looked_at_as_filters_are() {
    let rules = rules(json!({"controls": [
        "1.2.840.113556.1.4.473", "1.2.826.0.1.3344810.2.3", "1.3.6.1.1.12", "1.3.6.1.1.13.1", "1.3.6.1.1.13.2"
    ]}));
    let value = |content: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::default();
        content(&mut writer);
        writer.into_bytes()
    };
    let by = |oid: &str, value: &[u8]| first(&rules, &search(3, "(cn=*)", (0, 0), &[&control(oid, false, Some(value))]));
    let sort = |name: &str| {
        value(&|it| {
            it.constructed(tag::SEQUENCE, |it| it.constructed(tag::SEQUENCE, |it| it.octets(tag::OCTETS, name.as_bytes())))
        })
    };
    let read = |name: &str| value(&|it| it.constructed(tag::SEQUENCE, |it| it.octets(tag::OCTETS, name.as_bytes())));
    let terms = |filter: &str| value(&|it| it.constructed(tag::SEQUENCE, |it| filter.parse::<Filter>().unwrap().write(it)));
    let filter = |filter: &str| filter.parse::<Filter>().unwrap().to_ber();
    assert_eq!(by("1.2.840.113556.1.4.473", &sort("cn")), Up::Pass);
    assert_eq!(by("1.2.826.0.1.3344810.2.3", &terms("(cn=a*)")), Up::Pass);
    assert_eq!(by("1.3.6.1.1.12", &filter("(|(cn=a)(mail=b))")), Up::Pass);
    assert_eq!(by("1.3.6.1.1.13.1", &read("cn")), Up::Pass);
    for (oid, value, rule) in [
        ("1.2.840.113556.1.4.473", sort("userPassword"), Rule::DenyAttributes),
        ("1.2.840.113556.1.4.473", sort("2.5.4.35;x"), Rule::DenyAttributes),
        ("1.2.826.0.1.3344810.2.3", terms("(unicodePwd=a*)"), Rule::DenyAttributes),
        ("1.2.826.0.1.3344810.2.3", terms("(:2.5.13.2:=a)"), Rule::ExtensibleMatch),
        ("1.2.826.0.1.3344810.2.3", terms("(&(cn=a))"), Rule::Controls),
        ("1.3.6.1.1.12", filter("(|(cn=a)(userPassword=b))"), Rule::DenyAttributes),
        ("1.3.6.1.1.12", vec![], Rule::Controls),
        ("1.3.6.1.1.13.1", read("userPassword"), Rule::DenyAttributes),
        ("1.3.6.1.1.13.2", read("*"), Rule::ExtensibleMatch),
        ("1.3.6.1.1.13.2", b"\x30\x00".to_vec(), Rule::ExtensibleMatch),
    ] {
        assert_eq!(denial(by(oid, &value)).rule, rule, "{oid} {value:x?}");
    }
}

#[test]
fn a_question_that_is_none_says_how_one_is_written() {
    for line in [
        "",
        "ldap",
        "ldap hr",
        "ldap hr find base=x",
        "ldap H_R search",
        "http hr search",
        "ldap hr search bse=x",
        "ldap hr search filter=uid=x",
        "ldap hr search scope=all",
        "ldap hr search size=x",
        "ldap hr delete",
        "ldap hr compare dn=x",
    ] {
        let failure = line.parse::<Question>().expect_err(line);
        assert!(failure.code == crate::base::code::Code::Usage && failure.detail.contains("write `ldap TARGET"), "{failure}");
    }
    let question: Question = "ldap hr search base=ou=my people,dc=x filter=(cn=a b) attributes=cn, mail".parse().unwrap();
    assert_eq!(question.target.as_str(), "hr");
    let answer = question.ask(&rules(json!({"base": "ou=my people,dc=x", "attributes": ["cn"]})));
    assert_eq!((answer.allowed, answer.rule, answer.left_out), (true, Rule::Operations, vec!["mail".to_owned()]));
}
