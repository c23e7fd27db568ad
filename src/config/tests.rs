//! Every kind of mistake with its message, and what is read from a right file.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

const GATEWAY: &str = "version: 1\ngateway: {endpoints: [\"wss://gw1.vendor.example:443\"]}\n";
const AGENT: &str = "version: 1\ngateway: {endpoints: [\"wss://gw1.vendor.example:443\"]}\n";
const CANARY: &str = "canary-7f3a9c";

/// What is told about a gateway's file whose third line is `line`.
fn gateway(line: &str) -> String {
    told(parse_gateway("gateway.yaml", &format!("{GATEWAY}{line}\n")))
}

/// What is told about an agent's file whose third line is `line`.
fn agent(line: &str) -> String {
    told(parse_agent("agent.yaml", &format!("{AGENT}{line}\n")))
}

fn told<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
    result.expect_err("the file was taken").to_string()
}

#[test]
fn keys_are_checked_by_name() {
    assert_eq!(gateway("drian: {timeout: 3s}"), "config_invalid: gateway.yaml:3:1: unknown key `drian`; did you mean `drain`?");
    assert_eq!(
        gateway("limits: {streams: 3}"),
        "config_invalid: gateway.yaml:3:10: unknown key `streams`; expected one of: max_connections, max_handshakes, max_streams, max_lanes"
    );
    assert_eq!(gateway("version: 1"), "config_invalid: gateway.yaml:3:1: the key `version` is there twice");
    assert_eq!(agent("targets:\n  db: {kind: tcp}"), "config_invalid: agent.yaml:4:8: the key `address` is missing");
    assert_eq!(
        agent("targets:\n  db: {kind: tcp, address: \"a:1\", allow-lopback: true}"),
        "config_invalid: agent.yaml:4:35: unknown key `allow-lopback`; did you mean `allow_loopback`?"
    );
    assert_eq!(
        agent("targets:\n  db: {kind: tcp, address: \"a:1\"}\n  db: {kind: tcp, address: \"b:1\"}"),
        "config_invalid: agent.yaml:5:3: the key `db` is there twice"
    );
}

#[test]
fn the_version_is_required_and_known() {
    let name = "gateway.yaml";
    assert_eq!(told(parse_gateway(name, "gateway: {}")), "config_invalid: gateway.yaml:1:10: the key `endpoints` is missing");
    let without = GATEWAY.replace("version: 1\n", "");
    assert_eq!(told(parse_gateway(name, &without)), "config_invalid: gateway.yaml:1:1: the key `version` is missing");
    for version in ["2", "1.0", "one", "01"] {
        let other = GATEWAY.replace("version: 1", &format!("version: {version}"));
        assert_eq!(told(parse_gateway(name, &other)), "config_invalid: gateway.yaml:1:10: this program reads `version: 1`");
    }
}

#[test]
fn a_text_that_is_no_configuration_is_told_apart() {
    let broken = "not well-formed YAML: look for wrong indentation, an unclosed quote or bracket, or a tab";
    for (text, place, message) in [
        ("", "1:1", "the file is empty or ends too early"),
        ("# nothing\n", "2:1", "the file is empty or ends too early"),
        ("[]", "1:1", "expected a mapping (`key: value`)"),
        ("hello", "1:1", "expected a mapping (`key: value`)"),
        ("version: 1\n\tlog: {}\n", "1:10", broken),
        ("version: \"1\n", "2:1", broken),
        ("version: 1\n---\nversion: 1\n", "1:1", "the key `gateway` is missing"),
    ] {
        assert_eq!(told(parse_gateway("f", text)), format!("config_invalid: f:{place}: {message}"), "{text:?}");
    }
    assert_eq!(gateway("---\nversion: 1"), "config_invalid: gateway.yaml:4:1: more than one document (`---`) in the file");
    assert_eq!(gateway("log: !x {level: info}"), "config_invalid: gateway.yaml:3:9: tags (`!…`) are not supported");
    assert_eq!(gateway("<<: {}"), "config_invalid: gateway.yaml:3:1: merge keys (`<<`) are not supported");
}

#[test]
fn values_are_read_strictly() {
    let duration = "is not a duration: expected a number and a unit, such as 500ms, 10s, 5m, 2h or 30d";
    let size = "is not a size: expected a whole number and a unit, such as 512KiB, 16MiB or 2GiB";
    for (line, place, message) in [
        ("drain: {timeout: 3x}", "3:18", format!("`3x` {duration}")),
        ("drain: {timeout: 30}", "3:18", format!("`30` {duration}")),
        ("drain: {timeout: -3s}", "3:18", format!("`-3s` {duration}")),
        ("drain: {timeout: }", "3:16", "expected a value, found nothing".into()),
        ("drain: {timeout: [1s]}", "3:18", "expected a single value".into()),
        ("drain: [1s]", "3:8", "expected a mapping (`key: value`)".into()),
        ("drain:", "3:6", "expected a mapping (`key: value`)".into()),
        ("audit: {max_size: 16MB}", "3:19", format!("`16MB` {size}")),
        ("audit: {max_size: 16777216}", "3:19", format!("`16777216` {size}")),
        ("audit: {max_size: 1.5GiB}", "3:19", format!("`1.5GiB` {size}")),
        ("audit: {max_size: 99999999999TiB}", "3:19", format!("`99999999999TiB` {size}")),
        ("audit: {max_size: 16KiB}", "3:19", "`audit.max_size` is at least 1MiB".into()),
        ("audit: {on_full: drip}", "3:18", "unknown value `drip`; did you mean `drop`?".into()),
        ("log: {level: loud}", "3:14", "unknown value `loud`; expected one of: error, warn, info, debug".into()),
        ("limits: {max_connections: 1_000}", "3:27", "`1_000` is not a whole number".into()),
        ("limits: {max_connections: 0x10}", "3:27", "`0x10` is not a whole number".into()),
        ("limits: {max_connections: 0}", "3:27", "`limits.max_connections` is from 1 to 1000000".into()),
        ("limits: {max_lanes: 17}", "3:21", "`limits.max_lanes` is from 1 to 16".into()),
        ("limits: {max_handshakes: 0}", "3:26", "`limits.max_handshakes` is from 1 to `limits.max_connections`".into()),
        ("enrollment: {certificate_lifetime: 400d}", "3:36", "`certificate_lifetime` is from 1h to 365d".into()),
        (
            "tenants: {acme: {limits: {max_streams: 0}}}",
            "3:40",
            "`max_streams` of tenant acme is at least 1; leave it out for no limit".into(),
        ),
    ] {
        assert_eq!(gateway(line), format!("config_invalid: gateway.yaml:{place}: {message}"), "{line}");
    }
}

#[test]
fn a_wrong_window_of_resumption_is_quoted_and_the_way_to_have_none_is_told() {
    let with = |window: &str| {
        let line = format!("gateway: {{endpoints: [\"wss://gw1.vendor.example:443\"], resume_window: {window}}}");
        told(parse_gateway("gateway.yaml", &format!("version: 1\n{line}\n")))
    };
    assert_eq!(with("10m"), "config_invalid: gateway.yaml:2:71: `gateway.resume_window` is 10m: it is at most 5m");
    for word in ["-1", "off", "none"] {
        let duration = "is not a duration: expected a number and a unit, such as 500ms, 10s, 5m, 2h or 30d";
        let told = format!("config_invalid: gateway.yaml:2:71: `{word}` {duration}; `0` switches resumption off");
        assert_eq!(with(word), told);
    }
}

#[test]
fn words_that_yaml_1_1_took_for_booleans_are_no_booleans() {
    for word in ["yes", "no", "on", "off", "y", "1"] {
        let line = format!("listeners:\n  - {{listen: \"127.0.0.1:1\", target: a/b/c, early_data: {word}}}");
        assert_eq!(gateway(&line), "config_invalid: gateway.yaml:4:56: expected true or false", "{word}");
    }
}

#[test]
fn networks_are_whole_and_never_an_empty_list() {
    for (list, place, message) in [
        ("[192.0.2.0/24, 10.0.0.1/8]", "3:41", "`10.0.0.1/8` has bits after its prefix; did you mean `10.0.0.0/8`?"),
        (
            "[gw.example]",
            "3:27",
            "`gw.example` is not a network: expected an address with a prefix, such as 10.0.0.0/8 or fd00::/8",
        ),
        ("[]", "3:26", "an empty list would let nobody in; leave the key out to let everybody in"),
        ("10.0.0.0/8", "3:26", "expected a list (`- item` or `[item]`)"),
    ] {
        let line = format!("enrollment: {{allow_from: {list}}}");
        assert_eq!(gateway(&line), format!("config_invalid: gateway.yaml:{place}: {message}"), "{list}");
    }
    let config = parse_gateway("g", &format!("{GATEWAY}enrollment: {{allow_from: [192.0.2.7, \"fd00::/8\"]}}\n")).unwrap();
    let networks: Vec<_> = config.enrollment.allow_from.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["192.0.2.7/32", "fd00::/8"]);
}

#[test]
fn a_client_listener_off_loopback_says_who_may_connect() {
    let open = "is reachable from other hosts and has no `allow_from`";
    for address in ["0.0.0.0:5432", "10.0.0.1:5432", "[::]:5432", "[::ffff:10.0.0.1]:5432"] {
        let line = format!("listeners:\n  - {{listen: \"{address}\", target: acme/dc1/db}}");
        assert_eq!(gateway(&line), format!("listener_open: gateway.yaml:4:14: `{address}` {open}"));
        let line = format!("metrics: {{listen: \"{address}\"}}");
        assert_eq!(gateway(&line), format!("listener_open: gateway.yaml:3:19: `{address}` {open}"));
        assert_eq!(agent(&line), format!("listener_open: agent.yaml:3:19: `{address}` {open}"));
        // Everybody has to be said in so many words.
        assert!(gateway(&format!("metrics: {{listen: \"{address}\", allow_from: [any]}}")).starts_with("listener_open"));
        parse_gateway("g", &format!("{GATEWAY}metrics: {{listen: \"{address}\", allow_from: [10.0.0.0/8]}}\n")).unwrap();
    }
    for address in ["127.0.0.1:5432", "127.9.9.9:5432", "[::1]:5432"] {
        parse_gateway("g", &format!("{GATEWAY}listeners: [{{listen: \"{address}\", target: acme/dc1/db}}]\n")).unwrap();
    }
}

#[test]
fn a_listener_whose_clients_log_in_is_open_to_all_and_makes_sense() {
    let load = |listener: &str| parse_gateway("g", &format!("{GATEWAY}listeners: [{{{listener}}}]\n"));
    let ca = "tls: {cert: c, key: k}, client_ca: {file: ca, names: {ci.example: {grants: [acme/dc1/*]}}}";
    for good in [
        "listen: \"0.0.0.0:1\", kind: connect",
        "listen: \"[::]:1\", kind: socks5",
        "listen: \"[::]:1\", kind: http, base_domain: Tunnel.vendor.example",
        &format!("listen: \"0.0.0.0:1\", target: a/b/c, {ca}"),
        &format!("listen: \"0.0.0.0:1\", kind: connect, {ca}"),
    ] {
        load(good).unwrap_or_else(|failure| panic!("{good}: {failure}"));
    }
    for (bad, told) in [
        ("listen: \"127.0.0.1:1\"", "needs its `target`"),
        ("listen: \"127.0.0.1:1\", kind: connect, target: a/b/c", "name the target themselves"),
        ("listen: \"127.0.0.1:1\", kind: ftp", "unknown"),
        ("listen: \"127.0.0.1:1\", kind: http, target: a/b/c", "name the target themselves"),
        ("listen: \"127.0.0.1:1\", kind: http, base_domain: 127.0.0.1", "is no domain"),
        ("listen: \"127.0.0.1:1\", kind: connect, base_domain: a.example", "is for listeners of kind http"),
        ("listen: \"127.0.0.1:1\", kind: connect, client_ca: {file: ca, names: {x: {grants: [a/b/c]}}}", "needs `tls`"),
        ("listen: \"127.0.0.1:1\", kind: connect, tls: {cert: c, key: k}, client_ca: {file: ca, names: {}}", "is empty"),
        (
            "listen: \"127.0.0.1:1\", kind: connect, tls: {cert: c, key: k}, client_ca: {file: ca, names: {x: {grants: []}}}",
            "0 grants",
        ),
        (
            "listen: \"127.0.0.1:1\", kind: connect, tls: {cert: c, key: k}, client_ca: {file: ca, names: {x: {grants: [a/b]}}}",
            "is no grant",
        ),
        (
            "listen: \"127.0.0.1:1\", kind: connect, tls: {cert: c, key: k}, client_ca: {file: ca, names: {x: {grants: [a/b/c], \
             limits: {rate: 0B}}}}",
            "`rate` of x is at least 1",
        ),
        ("listen: \"127.0.0.1:1\", kind: socks5, idle_timeout: 10ms", "at least 1s"),
        ("listen: \"127.0.0.1:1\", kind: socks5, proxy_protocol_from: [any]", "`any` is not a network"),
        ("listen: \"127.0.0.1:1\", kind: socks5, proxy_protocol_from: [0.0.0.0/0]", "`0.0.0.0/0` is everybody"),
        ("listen: \"127.0.0.1:1\", kind: connect, proxy_protocol_from: [10.0.0.1, \"::/0\"]", "`::/0` is everybody"),
    ] {
        let failure = load(bad).unwrap_err().to_string();
        assert!(failure.contains(told) && failure.contains(":3:"), "{bad}: {failure}");
    }
}

#[test]
fn no_two_listeners_share_an_address() {
    let two = |a: &str, b: &str| {
        format!("listeners:\n  - {{listen: \"{a}\", target: acme/dc1/db}}\n  - {{listen: \"{b}\", target: acme/dc2/db}}")
    };
    assert_eq!(
        gateway(&two("127.0.0.1:1", "127.0.0.1:1")),
        "config_invalid: gateway.yaml:5:14: the listener of acme/dc2/db and the listener of acme/dc1/db both listen on 127.0.0.1:1"
    );
    assert_eq!(
        gateway("listeners: [{listen: \"127.0.0.1:443\", target: acme/dc1/db}]"),
        "config_invalid: gateway.yaml:3:22: the listener of acme/dc1/db and `gateway.listen` both listen on 127.0.0.1:443 \
         (0.0.0.0:443 includes it)"
    );
    assert_eq!(
        gateway("listeners: [{listen: \"127.0.0.1:1\", target: acme/dc1/db}]\nmetrics: {listen: \"127.0.0.1:1\"}"),
        "config_invalid: gateway.yaml:4:19: `metrics.listen` and the listener of acme/dc1/db both listen on 127.0.0.1:1"
    );
    assert_eq!(
        gateway(&two("127.0.0.1:0", "127.0.0.1:0")),
        "config_invalid: gateway.yaml:5:14: two listeners have 127.0.0.1:0: a free port is for one alone"
    );
    for (a, b) in [
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("127.0.0.1:1", "[::1]:1"),
        ("127.0.0.1:1", "127.0.0.2:1"),
        ("127.0.0.1:0", "127.0.0.2:0"),
    ] {
        parse_gateway("g", &format!("{GATEWAY}{}\n", two(a, b))).unwrap();
    }
}

#[test]
fn everybody_is_no_balancer() {
    let text = "version: 1\ngateway:\n  endpoints: [\"wss://g:443\"]\n  proxy_protocol_from: [0.0.0.0/0]\n";
    let failure = parse_gateway("gateway.yaml", text).unwrap_err().to_string();
    assert_eq!(
        failure,
        "config_invalid: gateway.yaml:4:25: `0.0.0.0/0` is everybody, who could then claim any address: name the balancers"
    );
}

#[test]
fn endpoints_are_given_and_given_once() {
    let file = |list: &str| told(parse_agent("agent.yaml", &format!("version: 1\ngateway: {{endpoints: {list}}}\n")));
    assert_eq!(file("[]"), "config_invalid: agent.yaml:2:22: `gateway.endpoints` needs at least one");
    assert_eq!(
        file("[\"wss://g:1\", \"wss://h:1\", \"wss://G:1/\"]"),
        "config_invalid: agent.yaml:2:49: wss://g:1 is there twice"
    );
    assert_eq!(
        file("[\"https://g:1\"]"),
        "config_invalid: agent.yaml:2:23: `https://g:1` is not an endpoint: expected wss://HOST:PORT"
    );
}

#[test]
fn e1_a_target_that_would_never_be_dialled_is_refused_now() {
    let target = |rest: &str| agent(&format!("targets:\n  db: {{kind: tcp, {rest}}}"));
    let forbidden = "The target's address is link-local, metadata, multicast, broadcast or unspecified: never dialled.";
    for address in
        ["169.254.169.254:80", "[fe80::1]:80", "0.0.0.0:80", "[::ffff:169.254.169.254]:80", "[64:ff9b::a9fe:a9fe]:80"]
    {
        let told = target(&format!("allow_loopback: true, address: \"{address}\""));
        assert!(told.starts_with("address_forbidden: agent.yaml:4:50: ") && told.ends_with(forbidden), "{told}");
    }
    assert_eq!(
        target("address: \"127.0.0.1:80\""),
        "loopback_forbidden: agent.yaml:4:28: 127.0.0.1:80: \
         The target is on the agent's own host, which its configuration does not allow."
    );
    assert_eq!(
        target("address: \"2130706433:80\""),
        "config_invalid: agent.yaml:4:28: `2130706433` is not a host: a DNS name in ASCII without a final dot, or an IP address"
    );
    parse_agent("a", &format!("{AGENT}targets: {{db: {{kind: tcp, address: \"127.0.0.1:1\", allow_loopback: true}}}}\n"))
        .unwrap();
}

#[test]
fn targets_are_of_a_known_kind_with_limits_in_range() {
    let target = |rest: &str| agent(&format!("targets:\n  db: {{address: \"a:1\", {rest}}}"));
    assert_eq!(
        target("kind: tpc"),
        "config_invalid: agent.yaml:4:30: `tpc` is no kind of target; `tcp`, `http` and `ldap` are"
    );
    assert_eq!(target("kind: tcp, send_proxy: v1"), "config_invalid: agent.yaml:4:47: unknown value `v1`; did you mean `v2`?");
    assert_eq!(
        target("kind: tcp, limits: {connect_timeout: 60s}"),
        "config_invalid: agent.yaml:4:61: `connect_timeout` is from 10ms to 15s: the client is answered within 15s"
    );
    assert_eq!(
        target("kind: tcp, limits: {idle_timeout: 0s}"),
        "config_invalid: agent.yaml:4:58: `idle_timeout` is at least 1s, or none"
    );
    assert_eq!(
        target("kind: tcp, limits: {max_streams: 0}"),
        "config_invalid: agent.yaml:4:57: `max_streams` is from 1 to 100000"
    );
    let name = "is not a name: lower-case letters and digits, single hyphens between them, at most 32 characters";
    assert!(agent("targets: {a_b: {kind: tcp, address: \"a:1\"}}").contains(&format!("agent.yaml:3:11: `a_b` {name}")));
}

#[test]
fn a_target_says_what_its_kind_needs_and_nothing_else() {
    let target = |rest: &str| agent(&format!("targets:\n  x: {{{rest}}}"));
    for (wrong, why) in [
        ("kind: http, address: \"a:1\"", "a target of kind http is https://HOST or http://HOST, with :PORT if need be"),
        ("kind: http, address: \"ldaps://a\"", "a target of kind http is https://HOST or http://HOST, with :PORT if need be"),
        ("kind: http, address: \"https://a/path\"", "which paths are allowed is said in `allow`"),
        ("kind: http, address: \"https://u:p@a\"", "an address holds no credentials"),
        ("kind: tcp, address: \"https://a\"", "a target of kind tcp is HOST:PORT"),
        ("kind: ldap, address: \"a:636\"", "a target of kind ldap is ldaps://HOST, with :PORT if need be"),
        ("kind: ldap, address: \"ldap://a\"", "LDAP in clear text is not spoken"),
        (
            "kind: ldap, address: \"ldap://a\", start_tls: true, alternates: [\"ldaps://b\"]",
            "StartTLS begins on addresses ldap://HOST",
        ),
        ("kind: ldap, address: \"ldaps://a\", alternates: [\"ldap://b\"]", "LDAP in clear text is not spoken"),
        ("kind: http, address: \"https://a\", http2: true", "`http2` is for http://HOST"),
        ("kind: http, address: \"http://a\", tls: {}", "there is no TLS with http://a:80"),
        ("kind: http, address: \"https://a\", tls: {cert: c}", "`tls.cert` and `tls.key` need each other"),
        ("kind: http, address: \"https://a\", send_proxy: v2", "`send_proxy` is for targets of kind tcp"),
        ("kind: tcp, address: \"a:1\", http2: true", "`http2` is for targets of kind http"),
        (
            "kind: http, address: \"https://a\", allow: {operations: [search]}",
            "of a target of kind http, `allow` is a list of rules",
        ),
        ("kind: ldap, address: \"ldaps://a\", allow: []", "of a target of kind ldap, `allow` is a map"),
        ("kind: http, address: \"https://a\", allow: ", "a list of rules (http) or a map of them (ldap)"),
        ("kind: http, address: \"https://a\", allow: null", "a list of rules (http) or a map of them (ldap)"),
        ("kind: ldap, address: \"ldaps://a\", allow: ~", "a list of rules (http) or a map of them (ldap)"),
        ("kind: tcp, address: \"a:1\", allow: []", "nothing is known of what passes through"),
        ("kind: http, address: \"https://169.254.169.254\"", "address_forbidden"),
        ("kind: ldap, address: \"ldaps://a\", alternates: [\"ldaps://127.0.0.1\"]", "loopback_forbidden"),
    ] {
        let said = target(wrong);
        assert!(said.contains(why) && said.contains("agent.yaml:4:"), "{wrong}: {said}");
    }
    let config = format!(
        "{AGENT}targets: {{x: {{kind: ldap, address: \"ldap://DC1\", start_tls: true, alternates: [\"ldap://dc2:1389\"]}}}}\n"
    );
    let config = parse_agent("a", &config).unwrap();
    let target = config.targets.values().next().unwrap();
    assert_eq!(
        (target.address.to_string(), target.alternates[0].to_string()),
        ("ldap://dc1:389".into(), "ldap://dc2:1389".into())
    );
}

#[test]
fn a_name_of_digits_stays_as_it_is_written() {
    let config = parse_agent("a", &format!("{AGENT}targets: {{007: {{kind: tcp, address: \"a:1\"}}}}\n")).unwrap();
    assert_eq!(config.targets.keys().next().unwrap().as_str(), "007");
}

#[test]
fn i1_no_error_shows_a_secret_that_stands_where_a_reference_belongs_or_nearby() {
    let proxy = |rest: &str| format!("proxy: {{url: \"http://p:3128\", username: u, {rest}}}\n");
    for text in [
        proxy(&format!("password: {CANARY}")),
        proxy(&format!("password: \"{CANARY}\"")),
        proxy(&format!("password: [{CANARY}]")),
        proxy(&format!("password: {{value: {CANARY}}}")),
        proxy(&format!("password: {{file: [{CANARY}]}}")),
        proxy(&format!("password: {{env: {CANARY}}}")),
        proxy(&format!("password: {{env: X, also: {CANARY}}}")),
        proxy(&format!("password: !{CANARY} x")),
        proxy(&format!("password: *{CANARY}")),
        proxy(&format!("pasword: {CANARY}")),
        proxy(&format!("password: \"{CANARY}")),
        proxy(&format!("password: {CANARY}]")),
        format!("proxy:\n  url: \"http://u:{CANARY}@p:3128\"\n"),
        format!("proxy:\n  url: \"{CANARY}\"\n"),
        format!("# {CANARY}\nproxy:\n  password: {CANARY}\n wrong: {CANARY}\n  # {CANARY}\n"),
        format!("limits: {{max_streams: x}} # {CANARY}\n# {CANARY}\n"),
    ] {
        let told = agent(&text);
        assert!(!told.contains(CANARY), "{text}\n{told}");
        assert!(told.contains("agent.yaml:"), "{told}");
    }
    assert_eq!(
        agent(&proxy(&format!("password: {CANARY}"))),
        "config_invalid: agent.yaml:3:44: expected a reference to the secret, not the secret itself: \
         {file: PATH}, {env: NAME} or {credential: NAME}"
    );
}

#[test]
fn proxy_credentials_are_whole() {
    let both = "`proxy.username` and `proxy.password` need each other";
    assert_eq!(agent("proxy: {url: \"http://p:1\", username: u}"), format!("config_invalid: agent.yaml:3:8: {both}"));
    assert_eq!(agent("proxy: {url: \"http://p:1\", password: {env: P}}"), format!("config_invalid: agent.yaml:3:8: {both}"));
    for url in ["https://p:1", "p:1", "http://p", "http://p:1/path"] {
        let told = agent(&format!("proxy: {{url: \"{url}\"}}"));
        assert_eq!(told, "config_invalid: agent.yaml:3:14: a proxy is written http://HOST:PORT");
    }
}

/// A file with everything in it, beside a secret and a certificate that it names.
const FULL_GATEWAY: &str = include_str!("tests/gateway.yaml");
const FULL_AGENT: &str = include_str!("tests/agent.yaml");

#[test]
fn what_is_written_out_is_read_as_the_same_whatever_it_holds() {
    let words = ["null", "true", "no", "1", "0x1f", "1e3"].map(|word| format!("\"{word}\": {{limits: {{max_streams: 3}}}}"));
    let strange = r#""\u0000\u0007\u0085\u2028\u007f\ufeff\uffff\u202e\\ 'a': {b} #c\t\"d\" ""#;
    for line in [
        format!("tenants: {{{}}}", words.join(", ")),
        format!("audit: {{dir: {strange}}}"),
        "audit: {dir: \"null\"}".to_owned(),
        "drain: {timeout: 1s 1ms 1500us 1ns}".to_owned(),
        "drain: {timeout: 18446744073709551615s}".to_owned(),
    ] {
        let config =
            parse_gateway("gateway.yaml", &format!("{GATEWAY}{line}\n")).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(parse_gateway("effective", &effective(&config)), Ok(config), "{line}");
    }
}

#[test]
fn the_effective_configuration_has_every_default_and_can_be_loaded_again() {
    for (given, expected) in
        [(GATEWAY, include_str!("tests/gateway-default.yaml")), (FULL_GATEWAY, include_str!("tests/gateway-effective.yaml"))]
    {
        let config = parse_gateway("g", given).unwrap();
        let shown = effective(&config);
        assert_eq!(shown, expected);
        assert_eq!(parse_gateway("again", &shown).unwrap(), config);
    }
    for (given, expected) in
        [(AGENT, include_str!("tests/agent-default.yaml")), (FULL_AGENT, include_str!("tests/agent-effective.yaml"))]
    {
        let config = parse_agent("a", given).unwrap();
        let shown = effective(&config);
        assert_eq!(shown, expected);
        assert_eq!(parse_agent("again", &shown).unwrap(), config);
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let config = parse_gateway("g", FULL_GATEWAY).unwrap();
    assert_eq!(config.tenants[&"acme".parse().unwrap()].limits.rate, Some(100 * 1024 * 1024));
    assert_eq!(config.enrollment.certificate_lifetime, Duration::from_hours(14 * 24));
    assert!(!config.listeners[0].early_data && config.listeners[1].early_data);
    let config = parse_agent("a", FULL_AGENT).unwrap();
    let target = &config.targets[&"sales-db".parse().unwrap()];
    assert_eq!(target.limits.idle_timeout, Some(Duration::from_mins(30)));
    assert_eq!(target.send_proxy, SendProxy::V2);
    assert_eq!(config.audit.settings(Path::new("/state")).dir, PathBuf::from("/state/audit"));
}

struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }
}

#[test]
fn paths_in_a_file_are_relative_to_it() {
    let site = Site::new();
    let loaded = load_gateway(&site.write("gateway.yaml", 0o644, FULL_GATEWAY)).unwrap();
    assert_eq!(loaded.listeners[1].tls.as_ref().unwrap().key, site.0.path().join("tls/db.key"));
    let loaded = load_agent(&site.write("agent.yaml", 0o600, FULL_AGENT)).unwrap();
    assert_eq!(loaded.audit.dir, PathBuf::from("audit"), "relative to the state directory, which is not known here");
    assert_eq!(loaded.proxy.unwrap().password, Some(SecretRef::File(site.0.path().join("proxy.password"))));
}

#[test]
fn e11_a_configuration_that_others_can_write_is_refused() {
    let site = Site::new();
    for mode in [0o664, 0o646, 0o666] {
        let path = site.write("agent.yaml", mode, AGENT);
        assert_eq!(load_agent(&path).unwrap_err().code, Code::FilePermissions, "{mode:o}");
    }
    let missing = load_agent(&site.0.path().join("nowhere.yaml")).unwrap_err();
    assert_eq!(missing.code, Code::ConfigUnreadable);
    assert!(missing.detail.contains("nowhere.yaml does not exist"), "{missing}");
}

#[test]
fn a_loaded_file_is_named_in_its_errors() {
    let site = Site::new();
    let path = site.write("agent.yaml", 0o644, "version: 1\ngatway: {}\n");
    let told = load_agent(&path).unwrap_err().detail;
    assert_eq!(told, format!("{}:2:1: unknown key `gatway`; did you mean `gateway`?", path.display()));
}

#[test]
fn i1_secrets_come_from_private_places_and_are_never_shown() {
    let site = Site::new();
    let path = site.write("proxy.password", 0o600, &format!("{CANARY}\n"));
    let config = parse_agent("a", FULL_AGENT).unwrap();
    assert!(!effective(&config).contains(CANARY));
    let reference = SecretRef::File(path.clone());
    let secret = reference.resolve().unwrap();
    assert_eq!(secret.expose(), CANARY);
    assert!(!format!("{secret:?} {reference:?} {reference}").contains(CANARY));

    site.write("proxy.password", 0o644, CANARY);
    let refused = reference.resolve().unwrap_err();
    assert_eq!(refused.code, Code::FilePermissions);
    assert!(!refused.to_string().contains(CANARY), "{refused}");

    site.write("proxy.password", 0o600, "\n");
    assert_eq!(reference.resolve().unwrap_err().code, Code::SecretMissing);
    fs::remove_file(&path).unwrap();
    let missing = reference.resolve().unwrap_err();
    assert_eq!(missing.code, Code::SecretMissing);
    assert!(missing.detail.contains("proxy.password does not exist"), "{missing}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_makes_the_reader_panic_and_every_error_is_one_printable_line(
        at in 0usize..FULL_AGENT.len(), cut in 0usize..40, put in "[a-z0-9:{}\\[\\]\"'&*!|>#\\-\u{1b}\u{9b}\t\n ]{0,12}",
    ) {
        for full in [FULL_AGENT, FULL_GATEWAY] {
            let (before, rest) = full.split_at(at.min(full.len()));
            let text = format!("{before}{put}{}", rest.get(cut..).unwrap_or_default());
            for error in [parse_agent("f", &text).err(), parse_gateway("f", &text).err()].into_iter().flatten() {
                let told = error.to_string();
                assert!(!told.contains(crate::base::id::unprintable), "{told:?}");
                assert!(told.contains(": f:"), "{told}");
            }
        }
    }
}
