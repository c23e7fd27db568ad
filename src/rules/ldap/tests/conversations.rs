//! What becomes of messages one after the other, in both directions. Refuses to know sockets.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::base::limits::LDAP_OUTSTANDING;
use crate::ldap::ber::Malformed;
use crate::ldap::message::Message;
use crate::ldap::message::response::{Entry, Response};

fn bind(id: u32, name: &str, password: &str) -> Vec<u8> {
    let mut op = Writer::default();
    op.constructed(0x60, |it| {
        it.number(tag::INTEGER, 3);
        it.octets(tag::OCTETS, name.as_bytes());
        it.octets(tag::context(0), password.as_bytes());
    });
    answer::request(id, &op.into_bytes(), &[])
}

fn sasl(id: u32, mechanism: &str) -> Vec<u8> {
    let mut op = Writer::default();
    op.constructed(0x60, |it| {
        it.number(tag::INTEGER, 3);
        it.octets(tag::OCTETS, b"");
        it.constructed(tag::context_constructed(3), |it| it.octets(tag::OCTETS, mechanism.as_bytes()));
    });
    answer::request(id, &op.into_bytes(), &[])
}

fn find(id: u32) -> Vec<u8> {
    search(id, "(cn=*)", (0, 0), &[])
}

fn done(id: u32, operation: Operation) -> Vec<u8> {
    answer::done(id, operation, ResultCode::Success, "")
}

fn abandon(id: u32, of: u8) -> Vec<u8> {
    answer::request(id, &[0x50, 0x01, of], &[])
}

fn entry(id: u32, dn: &str, names: &[&str]) -> Vec<u8> {
    let element = |name: &str| {
        let mut writer = Writer::default();
        writer.constructed(tag::SEQUENCE, |it| {
            it.octets(tag::OCTETS, name.as_bytes());
            it.constructed(tag::SET, |it| it.octets(tag::OCTETS, b"value"));
        });
        writer.into_bytes()
    };
    let mut name = Writer::default();
    name.octets(tag::OCTETS, dn.as_bytes());
    let attributes: Vec<_> = names.iter().map(|name| element(name)).collect();
    let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
    answer::entry(id, &name.into_bytes(), &attributes, b"")
}

/// The attributes of what a client gets of an entry.
fn names(down: Down, whole: &[u8]) -> Vec<String> {
    let bytes = match down {
        Down::Pass => whole.to_vec(),
        Down::Replace(bytes) => bytes,
        other => panic!("{other:?}"),
    };
    validate(&bytes).unwrap();
    let message = Message::parse(&bytes).unwrap();
    let Response::Entry(mut entry) = Response::read(&message).unwrap() else { panic!() };
    let mut names = Vec::new();
    while let Some(attribute) = Entry::next_attribute(&mut entry).unwrap() {
        names.push(String::from_utf8(attribute.description.to_vec()).unwrap());
    }
    names
}

fn binding() -> Conversation {
    Conversation::new(rules(json!({"operations": ["bind", "search", "compare"]})))
}

/// The result's code of what a client is answered.
fn code(up: &Up) -> u32 {
    let Up::Answer(bytes, _) = up else { panic!("{up:?}") };
    let message = Message::parse(bytes).unwrap();
    let Response::Done(_, done) = Response::read(&message).unwrap() else { panic!() };
    done.code
}

#[test]
fn an_anonymous_bind_before_any_other_is_answered_here_and_after_one_it_drops_who_was_there() {
    let mut conversation = binding();
    assert_eq!(conversation.client(&bind(1, "", "")).unwrap(), Up::Answer(done(1, Operation::Bind), None));
    assert_eq!(conversation.client(&bind(2, "cn=a", "secret")).unwrap(), Up::Pass);
    assert_eq!(conversation.directory(&done(2, Operation::Bind)).unwrap(), Down::Pass);
    assert_eq!(conversation.client(&bind(3, "", "")).unwrap(), Up::Pass, "the directory must forget who it was");
}

#[test]
fn e7_a_name_without_a_password_is_never_a_success() {
    for rules in [rules(json!({})), rules(json!({"operations": ["bind"]}))] {
        let denial = denial(first(&rules, &bind(1, "cn=admin,dc=corp", "")));
        assert_eq!((denial.rule, denial.code), (Rule::EmptyPassword, ResultCode::UnwillingToPerform));
        assert_eq!(code(&first(&rules, &bind(1, "", "secret"))), 49);
    }
    let mut conversation = binding();
    conversation.client(&bind(1, "cn=a", "secret")).unwrap();
    conversation.directory(&done(1, Operation::Bind)).unwrap();
    assert_eq!(code(&conversation.client(&bind(2, "cn=admin", "")).unwrap()), 53, "nor after another bind");
}

#[test]
fn security_layers_and_other_ways_to_log_in_are_refused() {
    let rules = rules(json!({"operations": ["bind"]}));
    for mechanism in ["GSSAPI", "GSS-SPNEGO", "DIGEST-MD5", "EXTERNAL", "PLAIN", "SCRAM-SHA-256", ""] {
        let denial = denial(first(&rules, &sasl(1, mechanism)));
        assert_eq!((denial.rule, denial.code), (Rule::Sasl, ResultCode::AuthMethodNotSupported), "{mechanism}");
    }
    let sicily = answer::request(1, b"\x60\x0b\x02\x01\x03\x04\x04NTLM\x8a\x00", &[]);
    assert_eq!(denial(first(&rules, &sicily)).rule, Rule::Sasl);
    let version_2 = answer::request(1, b"\x60\x07\x02\x01\x02\x04\x00\x80\x00", &[]);
    assert_eq!(denial(first(&rules, &version_2)).rule, Rule::Version);
}

#[test]
fn while_a_bind_is_under_way_nothing_else_is_asked() {
    let mut conversation = binding();
    assert_eq!(conversation.client(&find(1)).unwrap(), Up::Pass);
    assert_eq!(conversation.client(&bind(2, "cn=a", "secret")).unwrap(), Up::Pass);
    for (id, message) in [(3, find(3)), (4, bind(4, "", "")), (5, bind(5, "cn=b", "other"))] {
        let up = conversation.client(&message).unwrap();
        assert_eq!(code(&up), ResultCode::Busy as u32, "{id}");
        assert_eq!(denial(up).rule, Rule::BindUnderWay);
    }
    assert_eq!(conversation.client(&abandon(6, 2)).unwrap(), Up::Drop, "a bind can't be abandoned");
    assert_eq!(conversation.directory(&done(2, Operation::Bind)).unwrap(), Down::Pass);
    assert_eq!(conversation.client(&find(3)).unwrap(), Up::Pass);
    assert_eq!(conversation.directory(&done(1, Operation::Search)).unwrap(), Down::Drop, "the bind has ended it");
}

#[test]
fn denied_attributes_are_removed_from_entries_whatever_their_spelling() {
    let mut conversation = Conversation::new(rules(json!({"deny_attributes": ["employeeNumber"]})));
    conversation.client(&find(1)).unwrap();
    let clean = entry(1, "cn=x", &["cn", "mail;lang-en", "member;range=0-1499", "userCertificate;binary"]);
    assert_eq!(conversation.directory(&clean).unwrap(), Down::Pass);
    let spellings = [
        "userPassword",
        "USERPASSWORD",
        "2.5.4.35",
        "userPassword;x",
        "cn",
        "1.2.840.113556.1.4.90",
        "ms-Mcs-AdmPwd",
        "employeenumber",
        "1.2.3.4.5",
        "bad name",
        "",
        "sn",
    ];
    let dirty = entry(1, "cn=x", &spellings);
    assert_eq!(names(conversation.directory(&dirty).unwrap(), &dirty), ["cn", "sn"]);
}

#[test]
fn a_list_of_attributes_holds_for_entries_too() {
    let mut conversation = Conversation::new(rules(json!({"attributes": ["cn", "1.3.6.1.4.1.99.1"]})));
    conversation.client(&find(1)).unwrap();
    let whole = entry(1, "cn=x", &["2.5.4.3", "CN;lang-de", "mail", "1.3.6.1.4.1.99.1", "objectClass"]);
    assert_eq!(names(conversation.directory(&whole).unwrap(), &whole), ["2.5.4.3", "CN;lang-de", "1.3.6.1.4.1.99.1"]);
}

#[test]
fn an_entry_outside_of_every_base_is_left_out_wherever_an_alias_leads() {
    let mut conversation = Conversation::new(rules(json!({"base": "dc=corp"})));
    conversation.client(&find(1)).unwrap();
    assert_eq!(conversation.directory(&entry(1, "cn=x,DC=Corp", &["cn"])).unwrap(), Down::Pass);
    for outside in ["cn=x,dc=other", "<GUID=x>;cn=x,dc=corp", "cn=x"] {
        assert_eq!(conversation.directory(&entry(1, outside, &["cn"])).unwrap(), Down::Drop, "{outside}");
    }
}

#[test]
fn an_entry_whose_name_shows_a_denied_value_is_left_out() {
    let mut conversation = Conversation::new(rules(json!({"deny_attributes": ["employeeNumber"], "attributes": ["cn"]})));
    conversation.client(&find(1)).unwrap();
    assert_eq!(
        conversation.directory(&entry(1, "uid=x,dc=corp", &["cn"])).unwrap(),
        Down::Pass,
        "it is not listed, but not denied"
    );
    for dn in ["employeeNumber=7,dc=corp", "cn=x+2.16.840.1.113730.3.1.3=7,dc=corp", "cn=y,userPassword=x,dc=corp", "cn=\"x\""]
    {
        assert_eq!(conversation.directory(&entry(1, dn, &["cn"])).unwrap(), Down::Drop, "{dn}");
    }
}

#[test]
fn a_login_goes_on_as_long_as_the_rules_let_it_through() {
    let (with, without) = (rules(json!({"operations": ["bind", "search"]})), rules(json!({"operations": ["search"]})));
    let mut nobody = Conversation::new(with.clone());
    assert!(nobody.heed(&without), "nobody has logged in");
    assert_eq!(denial(nobody.client(&bind(1, "cn=a", "secret")).unwrap()).rule, Rule::Operations);
    let mut somebody = Conversation::new(with.clone());
    somebody.client(&bind(1, "cn=a", "secret")).unwrap();
    assert!(somebody.heed(&with) && !somebody.heed(&without), "it might succeed");
    somebody.directory(&done(1, Operation::Bind)).unwrap();
    assert!(somebody.heed(&rules(json!({"operations": ["bind"]}))) && !somebody.heed(&without));
}

#[test]
fn an_unbind_with_something_in_it_is_none() {
    assert!(binding().client(b"\x30\x06\x02\x01\x04\x42\x01\x00").is_err());
}

#[test]
fn referrals_are_left_out_unless_they_may_pass() {
    let reference = answer::message(1, &[], |it| it.constructed(0x73, |it| it.octets(tag::OCTETS, b"ldap://evil.example/")));
    let referral = answer::message(1, &[], |it| {
        it.constructed(0x65, |it| {
            it.number(tag::ENUMERATED, 10);
            it.octets(tag::OCTETS, b"");
            it.octets(tag::OCTETS, b"ldap://evil.example/");
            it.constructed(tag::context_constructed(3), |it| it.octets(tag::OCTETS, b"ldap://evil.example/"));
        });
    });
    let mut conversation = Conversation::new(rules(json!({})));
    conversation.client(&find(1)).unwrap();
    assert_eq!(conversation.directory(&reference).unwrap(), Down::Drop);
    let Down::Replace(bytes) = conversation.directory(&referral).unwrap() else { panic!() };
    assert!(!bytes.windows(4).any(|it| it == b"evil"));
    assert_eq!(code(&Up::Answer(bytes, None)), ResultCode::UnwillingToPerform as u32);
    let mut conversation = Conversation::new(rules(json!({"referrals": "pass"})));
    conversation.client(&find(1)).unwrap();
    assert_eq!(conversation.directory(&reference).unwrap(), Down::Pass);
    assert_eq!(conversation.directory(&referral).unwrap(), Down::Pass);
}

#[test]
fn d7_answers_to_what_nobody_asked_end_the_belief_in_a_directory() {
    let fails = |conversation: &mut Conversation, bytes: &[u8]| -> Malformed { conversation.directory(bytes).unwrap_err() };
    let mut conversation = binding();
    fails(&mut conversation, &done(1, Operation::Search));
    conversation.client(&find(1)).unwrap();
    fails(&mut conversation, &done(2, Operation::Search));
    fails(&mut conversation, &done(1, Operation::Bind));
    fails(&mut conversation, &find(1));
    assert_eq!(conversation.directory(&entry(1, "cn=x", &["cn"])).unwrap(), Down::Pass);
    assert_eq!(conversation.directory(&done(1, Operation::Search)).unwrap(), Down::Pass);
    fails(&mut conversation, &done(1, Operation::Search));
    fails(&mut conversation, &entry(1, "cn=x", &["cn"]));
    conversation.client(&bind(3, "cn=a", "b")).unwrap();
    fails(&mut conversation, &entry(3, "cn=x", &["cn"]));
}

#[test]
fn what_a_directory_says_unasked_is_its_farewell_or_nothing() {
    let mut conversation = binding();
    assert_eq!(conversation.directory(&answer::notice_of_disconnection(ResultCode::Unavailable, "")).unwrap(), Down::Last);
    let other = answer::message(0, &[], |it| {
        it.constructed(0x78, |it| {
            it.number(tag::ENUMERATED, 0);
            it.octets(tag::OCTETS, b"");
            it.octets(tag::OCTETS, b"");
            it.octets(tag::context(10), b"1.2.3");
        });
    });
    assert_eq!(conversation.directory(&other).unwrap(), Down::Drop);
    assert_eq!(conversation.directory(&entry(0, "cn=x", &["cn"])).unwrap(), Down::Drop);
}

#[test]
fn an_abandon_passes_for_what_is_under_way_and_late_answers_go_nowhere() {
    let mut conversation = binding();
    assert_eq!(conversation.client(&abandon(1, 9)).unwrap(), Up::Drop);
    conversation.client(&find(2)).unwrap();
    assert_eq!(conversation.client(&abandon(3, 2)).unwrap(), Up::Pass);
    assert_eq!(conversation.directory(&entry(2, "cn=x", &["cn"])).unwrap(), Down::Drop);
    assert_eq!(conversation.directory(&done(2, Operation::Search)).unwrap(), Down::Drop);
    assert!(conversation.directory(&done(2, Operation::Search)).is_err());
    assert_eq!(conversation.client(b"\x30\x05\x02\x01\x04\x42\x00").unwrap(), Up::Last);
}

#[test]
fn d7_operations_under_way_are_bounded_and_ids_are_used_once_at_a_time() {
    let mut conversation = binding();
    let limit = u32::try_from(LDAP_OUTSTANDING).unwrap();
    for id in 1..=limit {
        assert_eq!(conversation.client(&find(id)).unwrap(), Up::Pass);
    }
    assert_eq!(denial(conversation.client(&find(limit + 1)).unwrap()).rule, Rule::Outstanding);
    assert!(conversation.client(&find(1)).is_err());
    conversation.directory(&done(1, Operation::Search)).unwrap();
    assert_eq!(conversation.client(&find(1)).unwrap(), Up::Pass);
    assert!(conversation.client(&find(0)).is_err());
    assert!(conversation.client(&done(7, Operation::Search)).is_err());
}

proptest! {
    /// Whatever comes from either side is taken or refused.
    #[test]
    fn any_sound_message_is_taken_or_refused(which in 0..5usize, changes in proptest::collection::vec((2..64usize, any::<u8>()), 0..4)) {
        let known = [find(1), bind(1, "cn=a", "b"), abandon(2, 1), entry(1, "cn=x", &["cn", "userPassword"]), done(1, Operation::Search)];
        let mut wire = known[which].clone();
        for (at, byte) in changes {
            let length = wire.len();
            wire[at % length] = byte;
        }
        if validate(&wire).is_ok() {
            let _ = binding().client(&wire);
            let mut conversation = binding();
            conversation.client(&find(1)).unwrap();
            let _ = conversation.directory(&wire);
        }
    }
}
