//! Filters read and written in their three forms. Refuses to know rules.

use proptest::prelude::*;

use super::*;

fn filter(text: &str) -> Filter {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn from_ber(bytes: &[u8]) -> Result<Filter, Malformed> {
    Filter::from_ber(Element::only(bytes, "a filter")?)
}

#[test]
fn the_examples_of_rfc_4515_are_read_and_written_as_they_are() {
    for text in [
        "(cn=Babs Jensen)",
        "(!(cn=Tim Howes))",
        "(&(objectClass=Person)(|(sn=Jensen)(cn=Babs J*)))",
        "(o=univ*of*mich*)",
        "(seeAlso=)",
        "(cn:caseExactMatch:=Fred Flintstone)",
        "(cn:=Betty Rubble)",
        "(sn:dn:2.4.6.8.10:=Barney Rubble)",
        "(o:dn:=Ace Industry)",
        "(:1.2.3:=Wilma Flintstone)",
        "(:dn:2.4.6.8.10:=Dino)",
        "(o=Parens R Us \\28for all your parenthetical needs\\29)",
        "(cn=*\\2a*)",
        "(filename=C:\\5cMyFile)",
        "(bin=\\00\\00\\00\\04)",
        "(sn=Lučić)",
        "(uid>=a)",
        "(uid<=a=b)",
        "(uid~=a)",
        "(mail;lang-en=*)",
        "(&)",
        "(|(&)(uid=x))",
    ] {
        assert_eq!(filter(text).to_string(), text);
    }
    assert_eq!(filter("(sn=Lu\\c4\\8di\\c4\\87)"), filter("(sn=Lučić)"));
}

#[test]
fn what_is_no_filter_is_refused() {
    for wrong in [
        "",
        "uid=x",
        "(uid=x",
        "uid=x)",
        "(uid=x))",
        "(uid=x)(uid=y)",
        "(uid)",
        "()",
        "(&",
        "(&uid=x)",
        "(& (uid=x))",
        "(!)",
        "(!(a=1)(b=2))",
        "(uid=*)(uid=*))(|(uid=*)",
        "(uid=\\)",
        "(uid=\\2)",
        "(uid=\\+1)",
        "(uid=\\zz)",
        "(uid=a(b)",
        "(uid=\0)",
        "(ui d=x)",
        "(=x)",
        "(uid=a**b)",
        "(uid=**)",
        "(uid>=a*)",
        "(:=x)",
        "(:dn:=x)",
        "(uid::=x)",
        "(a:b:c:=x)",
    ] {
        assert!(wrong.parse::<Filter>().is_err(), "{wrong:?}");
    }
}

#[test]
fn a_filter_is_the_bytes_of_rfc_4511() {
    let bytes = b"\xa0\x18\xa3\x08\x04\x03uid\x04\x01x\xa4\x0c\x04\x02cn\x30\x06\x80\x01a\x82\x01b";
    assert_eq!(filter("(&(uid=x)(cn=a*b))").to_ber(), bytes);
    assert_eq!(from_ber(bytes).unwrap().to_string(), "(&(uid=x)(cn=a*b))");
    let matched = b"\xa9\x0e\x81\x032.4\x82\x02cn\x83\x00\x84\x01\xff";
    assert_eq!(from_ber(&matched[..16]).unwrap().to_string(), "(cn:dn:2.4:=)");
    assert_eq!(filter("(cn:dn:2.4:=)").to_ber(), matched);
}

#[test]
fn d7_bytes_that_are_no_filter_are_refused() {
    for wrong in [
        &b"\xaa\x00"[..],
        b"\xa2\x00",
        b"\xa2\x06\x87\x01a\x87\x01b",
        b"\xa3\x05\x04\x03uid",
        b"\xa3\x09\x04\x03uid\x04\x01x\x30",
        b"\x87\x00",
        b"\x87\x03a b",
        b"\xa4\x06\x04\x02cn\x30\x00",
        b"\xa4\x08\x04\x02cn\x30\x02\x80\x00",
        b"\xa4\x0c\x04\x02cn\x30\x06\x82\x01a\x80\x01b",
        b"\xa9\x02\x83\x00",
    ] {
        assert!(from_ber(wrong).is_err(), "{wrong:x?}");
    }
}

#[test]
fn d7_depth_and_size_are_bounded_whatever_the_form() {
    let deep = |depth: usize| format!("{}(uid=x){}", "(!".repeat(depth - 1), ")".repeat(depth - 1));
    let deepest = filter(&deep(LDAP_FILTER_DEPTH));
    assert_eq!(deepest.depth(), LDAP_FILTER_DEPTH);
    assert!(deep(LDAP_FILTER_DEPTH + 1).parse::<Filter>().unwrap_err().0.contains("deep"));
    let json = |depth: usize| format!("{}{{\"present\":\"uid\"}}{}", "{\"not\":".repeat(depth - 1), "}".repeat(depth - 1));
    assert!(serde_json::from_str::<Filter>(&json(LDAP_FILTER_DEPTH)).is_ok());
    assert!(serde_json::from_str::<Filter>(&json(LDAP_FILTER_DEPTH + 1)).is_err());
    let mut ber = deepest.to_ber();
    assert!(from_ber(&ber).is_ok());
    ber.splice(0..0, [0xa2, 0x81, u8::try_from(ber.len()).unwrap()]);
    assert!(from_ber(&ber).unwrap_err().0.contains("deep"));
    let wide = |terms: usize| format!("(|{})", "(uid=x)".repeat(terms - 1));
    assert_eq!(filter(&wide(LDAP_FILTER_TERMS)).depth(), 2);
    assert!(wide(LDAP_FILTER_TERMS + 1).parse::<Filter>().unwrap_err().0.contains("terms"));
}

#[test]
fn every_attribute_that_a_filter_names_is_told() {
    let named: Vec<_> = filter("(&(a=1)(!(|(b=*)(c=*x*)(d>=1)(e<=1)(f~=1)))(g:dn:=x)(h:1.2:=x)(:1.2:=x))")
        .named()
        .map(|it| format!("{it:?}"))
        .collect();
    let names = "abcdefgh".chars().map(|name| format!("Attribute(\"{name}\")")).chain(["Any".to_owned()]);
    assert_eq!(named, names.collect::<Vec<_>>());
}

#[test]
fn a_filter_is_read_of_json_as_a_tree_or_as_text() {
    let tree = r#"{"and":[{"equal":{"attribute":"uid","value":"a*)(b"}},{"or":[{"present":"mail"},{"not":{"substrings":{"attribute":"cn","initial":"J","any":["o"],"final":"n"}}}]},{"greater_or_equal":{"attribute":"n","value":"1"}},{"less_or_equal":{"attribute":"n","value":"9"}},{"approximate":{"attribute":"sn","value":"x"}},{"equal":{"attribute":"objectGUID","value":{"base64":"AP8="}}},{"extensible":{"attribute":"memberOf","rule":"1.2.840.113556.1.4.1941","value":"cn=x","dn":true}}]}"#;
    let text = r"(&(uid=a\2a\29\28b)(|(mail=*)(!(cn=J*o*n)))(n>=1)(n<=9)(sn~=x)(objectGUID=\00\ff)(memberOf:dn:1.2.840.113556.1.4.1941:=cn=x))";
    let read: Filter = serde_json::from_str(tree).unwrap();
    assert_eq!(read.to_string(), text);
    assert_eq!(serde_json::to_string(&read).unwrap(), tree);
    assert_eq!(serde_json::from_str::<Filter>(&serde_json::to_string(text).unwrap()).unwrap(), read);
    for wrong in [
        r#"{"equal":{"attribute":"uid)(x","value":"x"}}"#,
        r#"{"equal":{"attribute":"uid","value":"x","more":1}}"#,
        r#"{"equal":{"attribute":"uid","value":1}}"#,
        r#"{"xor":[]}"#,
        r#"{"not":[]}"#,
        r#"{"present":"uid","and":[]}"#,
        r#"{"substrings":{"attribute":"uid"}}"#,
        r#"{"extensible":{"value":"x"}}"#,
        r#"{"equal":{"attribute":"uid","value":{"base64":"?"}}}"#,
        r#""uid=x""#,
        "[]",
    ] {
        assert!(serde_json::from_str::<Filter>(wrong).is_err(), "{wrong}");
    }
}

/// Filters as anybody might write them.
fn any_filter() -> impl Strategy<Value = Filter> {
    let attribute = || "[a-zA-Z][a-zA-Z0-9-]{0,6}(;lang-[a-z]{2})?|[1-9]\\.[1-9]{1,4}";
    let value =
        || prop_oneof![proptest::collection::vec(any::<u8>(), 0..8), "[*()\\\\\u{0}a-c é]{0,8}".prop_map(String::into_bytes)];
    let part = || proptest::collection::vec(any::<u8>(), 1..4);
    let assertion = || (attribute(), value()).prop_map(|(attribute, value)| Assertion { attribute, value });
    let leaf = prop_oneof![
        assertion().prop_map(Term::Equal),
        assertion().prop_map(Term::GreaterOrEqual),
        assertion().prop_map(Term::LessOrEqual),
        assertion().prop_map(Term::Approximate),
        attribute().prop_map(Term::Present),
        (attribute(), part(), proptest::collection::vec(part(), 0..3), proptest::option::of(part())).prop_map(
            |(attribute, initial, any, last)| Term::Substrings(Substrings { attribute, initial: Some(initial), any, last })
        ),
        (proptest::option::of("1\\.[1-9]{1,3}"), attribute(), value(), any::<bool>()).prop_map(
            |(rule, attribute, value, dn)| Term::Extensible(Extensible { rule, attribute: Some(attribute), value, dn })
        ),
    ];
    leaf.prop_map(|term| vec![term])
        .prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|all| [vec![Term::And(all.len())], all.concat()].concat()),
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|all| [vec![Term::Or(all.len())], all.concat()].concat()),
                inner.prop_map(|one| [vec![Term::Not], one].concat()),
            ]
        })
        .prop_map(|terms| Filter { terms })
}

proptest! {
    #[test]
    fn e6_a_filter_is_the_same_in_each_of_its_forms(filter in any_filter()) {
        let (ber, text, json) = (filter.to_ber(), filter.to_string(), serde_json::to_string(&filter).unwrap());
        prop_assert_eq!(from_ber(&ber).unwrap(), filter.clone());
        prop_assert_eq!(text.parse::<Filter>().unwrap(), filter.clone(), "{}", text);
        prop_assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter, "{}", json);
    }

    #[test]
    fn e6_whatever_a_value_is_it_stays_one_value(value in "\\PC{0,16}|[*)(|&=uid\\\\\u{0}]{0,24}") {
        let tree = serde_json::json!({"equal": {"attribute": "uid", "value": value}});
        let filter: Filter = serde_json::from_value(tree).unwrap();
        let again: Filter = filter.to_string().parse().unwrap();
        prop_assert_eq!(again.terms(), [Term::Equal(Assertion { attribute: "uid".into(), value: value.into_bytes() })]);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[()&|!=*:a-c\\\\0<>~]{0,24}") {
        if let Ok(filter) = text.parse::<Filter>() {
            prop_assert_eq!(filter.to_string().parse(), Ok(filter));
        }
    }
}
