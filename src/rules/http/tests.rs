//! Which rule permits what, and what is said of a request that none permits; the index beside an evaluator that looks at every rule.

use proptest::prelude::*;

use super::*;

fn rules(json: &str) -> Rules {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// `allow N`, or the code.
fn decided(rules: &Rules, line: &str) -> String {
    let question: Question = line.parse().unwrap();
    let path = match Path::parse(&question.path) {
        Ok(path) => path,
        Err(failure) => return failure.code.to_string(),
    };
    match rules.decide(&question.ask(&path)) {
        Decision::Allow { place, rule } => {
            assert!(place.is_none_or(|place| rules.rules[place] == *rule));
            place.map_or("allow".to_owned(), |place| format!("allow {place}"))
        }
        Decision::Deny(denial) => denial.failure.code.to_string(),
    }
}

fn denial(rules: &Rules, line: &str) -> Denial {
    let question: Question = line.parse().unwrap();
    let path = Path::parse(&question.path).unwrap();
    match rules.decide(&question.ask(&path)) {
        Decision::Deny(denial) => denial,
        Decision::Allow { .. } => panic!("{line} is allowed"),
    }
}

const ERP: &str = r#"[
    {"methods": ["GET", "HEAD"], "path": "/api/v1/orders/**", "query": ["page", "limit"]},
    {"methods": ["POST"], "path": "/api/v1/tickets", "max_body": "1MiB"},
    {"methods": ["GET"], "path": "/api/*/status"},
    {"path": "/socket", "upgrade": true},
    {"methods": ["GET"], "path": "/api/v1/orders/**", "query": ["debug"]}
]"#;

#[test]
fn d9_the_first_rule_that_allows_all_of_a_request_permits_it() {
    let rules = rules(ERP);
    for (line, expected) in [
        ("GET erp /api/v1/orders", "allow 0"),
        ("HEAD erp /api/v1/orders/7/lines?page=1&limit=2&page=3", "allow 0"),
        ("GET erp /api/v1/orders?debug=1", "allow 4"),
        ("GET erp /api/v1/orders?debug=1&page=1", "request_denied"),
        ("GET erp /api/v1/orders?page=1;admin=1", "request_denied"),
        ("GET erp /api/v1/orders?p%61ge=1", "request_denied"),
        ("get erp /api/v1/orders", "request_denied"),
        ("DELETE erp /api/v1/orders", "request_denied"),
        ("GET erp /api/v1/ordersX", "request_denied"),
        ("GET erp /api/v1/orders/../users", "request_path"),
        ("GET erp /api/v1/orders/..%2fusers", "request_path"),
        ("POST erp /api/v1/tickets body=1MiB", "allow 1"),
        ("POST erp /api/v1/tickets", "allow 1"),
        ("POST erp /api/v1/tickets body=1048577B", "body_too_large"),
        ("GET erp /api/v2/status?whatever", "allow 2"),
        ("GET erp /socket upgrade", "allow 3"),
        ("PUT erp /socket", "allow 3"),
        ("GET erp /api/v2/status upgrade", "upgrade_denied"),
        ("CONNECT erp /socket", "request_denied"),
        ("TRACE erp /socket", "request_denied"),
    ] {
        assert_eq!(decided(&rules, line), expected, "{line}");
    }
}

#[test]
fn d9_without_rules_all_but_tunnels_and_upgrades_passes_and_with_an_empty_list_nothing() {
    for (line, expected) in [
        ("GET erp /", "allow"),
        ("PURGE erp /any/where?x=1 body=9TiB", "allow"),
        ("GET erp /a//b", "request_path"),
        ("GET erp /a upgrade", "upgrade_denied"),
        ("CONNECT erp /", "request_denied"),
        ("TRACE erp /", "request_denied"),
    ] {
        assert_eq!(decided(&Rules::any(), line), expected, "{line}");
    }
    assert_eq!(decided(&rules("[]"), "GET erp /"), "request_denied");
    assert!(rules("[]") != Rules::any() && Rules::any().listed().is_none());
}

#[test]
fn d9_a_denial_names_what_the_nearest_rule_does_not_allow() {
    let rules = rules(ERP);
    for (line, nearest, why) in [
        ("DELETE erp /api/v1/orders/7", Some(0), "DELETE /api/v1/orders/7: `allow[0]`: the method is not listed"),
        ("GET erp /api/v1/orders?page=1&q=1", Some(0), "`allow[0]`: the query key `q` is not listed"),
        ("GET erp /api/v1/users", None, "GET /api/v1/users: no rule is for this path"),
        ("GET erp /api/v2/status upgrade", Some(2), "`allow[2]`: `upgrade` is not true"),
        ("POST erp /api/v1/tickets body=2MiB", Some(1), "`allow[1]`: the body is larger than 1MiB"),
        ("CONNECT erp /socket", None, "CONNECT is never passed on"),
    ] {
        let denial = denial(&rules, line);
        assert!(denial.nearest == nearest && denial.failure.detail.contains(why), "{line}: {denial:?}");
    }
    assert!(denial(&self::rules("[]"), "GET erp /").failure.detail.contains("`allow` is empty"));
    assert!(denial(&Rules::any(), "GET erp / upgrade").failure.detail.contains("without `allow`: `upgrade` is not true"));
}

#[test]
fn d9_a_rule_that_is_no_rule_says_what_is_wrong() {
    for (json, why) in [
        (r#"{}"#, "missing field `path`"),
        (r#"{"path": "/a", "paths": 1}"#, "unknown field `paths`"),
        (r#"{"path": "/a*"}"#, "whole segment"),
        (r#"{"path": "/a", "methods": ["get"]}"#, "written in capitals, `GET`"),
        (r#"{"path": "/a", "methods": ["G T"]}"#, "is no method"),
        (r#"{"path": "/a", "methods": ["CONNECT"]}"#, "no rule permits"),
        (r#"{"path": "/a", "methods": ["TRACE"]}"#, "no rule permits"),
        (r#"{"path": "/a", "methods": ["TRACK"]}"#, "no rule permits"),
        // Nothing behind a key is not the same as leaving it out.
        (r#"{"path": "/a", "methods": null}"#, "null"),
        (r#"{"path": "/a", "query": null}"#, "null"),
        (r#"{"path": "/a", "request_headers": null}"#, "null"),
        (r#"{"path": "/a", "response_headers": null}"#, "null"),
        (r#"{"path": "/a", "max_body": null}"#, "null"),
        (r#"{"path": "/a", "query": ["a=b"]}"#, "no key of a query"),
        (r#"{"path": "/a", "query": [""]}"#, "no key of a query"),
        (r#"{"path": "/a", "query": ["é"]}"#, "no key of a query"),
        (r#"{"path": "/a", "request_headers": ["Host"]}"#, "cannot be listed"),
        (r#"{"path": "/a", "request_headers": ["Underpass-Request"]}"#, "cannot be listed"),
        (r#"{"path": "/a", "response_headers": ["Transfer-Encoding"]}"#, "cannot be listed"),
        (r#"{"path": "/a", "response_headers": ["X Y"]}"#, "no name of a header"),
        (r#"{"path": "/a", "max_body": "1MB"}"#, "is not a size"),
        (r#"{"path": "/a", "upgrade": "yes"}"#, "expected a boolean"),
    ] {
        let error = serde_json::from_str::<Rule>(json).expect_err(json).to_string();
        assert!(error.contains(why), "{json}: {error}");
    }
    let many = vec![Rule::on(Pattern::everything()); MAX_RULES + 1];
    assert_eq!(Rules::new(many).unwrap_err().code, Code::ConfigInvalid);
    let long = format!(r#"{{"path": "/a", "query": [{}]}}"#, vec![r#""a""#; 257].join(","));
    assert!(serde_json::from_str::<Rule>(&long).unwrap_err().to_string().contains("at most 256"));
}

#[test]
fn names_of_headers_are_compared_in_small_letters() {
    let rule: Rule = serde_json::from_str(r#"{"path": "/a", "request_headers": ["Content-Type", "content-type"]}"#).unwrap();
    let headers = rule.request_headers.unwrap();
    assert!(headers.contains("content-type") && headers.iter().count() == 1);
}

/// Looks at every rule in turn.
fn naive(rules: &[Rule], ask: &Ask<'_>) -> Option<usize> {
    rules.iter().position(|rule| rule.permits(ask))
}

prop_compose! {
    fn any_rule()(
        path in "(/[ab*]){0,3}(/|/\\*\\*)",
        methods in prop::option::of(prop::collection::vec("GET|POST|PUT", 0..3)),
        query in prop::option::of(prop::collection::vec("[xy]", 0..2)),
        max_body in prop::option::of(0u64..3),
        upgrade: bool,
    ) -> Rule {
        let json = serde_json::json!({"path": path, "upgrade": upgrade, "max_body": max_body.map_or("none".into(), |it| format!("{it}B"))});
        let mut json = json;
        if let Some(methods) = methods { json["methods"] = methods.into(); }
        if let Some(query) = query { json["query"] = query.into(); }
        serde_json::from_value(json).unwrap()
    }
}

proptest! {
    #[test]
    fn d9_the_index_finds_what_looking_at_every_rule_finds(
        list in prop::collection::vec(any_rule(), 0..24),
        method in "GET|POST|HEAD", path in "(/[abc]){0,3}/?(\\?[xyz]=1)?", upgrade: bool, body in prop::option::of(0u64..4),
    ) {
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let path = Path::parse(&path).unwrap();
        let ask = Ask { method: &method, path: &path, upgrade, body };
        let rules = Rules::new(list).unwrap();
        let by_index = match rules.decide(&ask) {
            Decision::Allow { place, .. } => place,
            Decision::Deny(denial) => {
                let nearest = denial.nearest.map(|place| rules.rules[place].flaw(&ask).unwrap().code());
                prop_assert_eq!(nearest.unwrap_or(Code::RequestDenied), denial.failure.code);
                let nobody = rules.rules.iter().all(|rule| !rule.path.matches(&path));
                prop_assert_eq!(denial.nearest.is_none(), nobody);
                None
            }
        };
        prop_assert_eq!(by_index, naive(&rules.rules, &ask));
    }

    #[test]
    fn d9_rules_are_written_as_they_are_read(list in prop::collection::vec(any_rule(), 0..4)) {
        let rules = Rules::new(list).unwrap();
        let written = serde_json::to_string(&rules).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Rules>(&written).unwrap(), &rules);
        for rule in &rules.rules {
            prop_assert_eq!(&serde_json::from_str::<Rule>(&rule.to_string()).unwrap(), rule);
        }
    }
}
