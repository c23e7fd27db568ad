//! The documents say what the program does: tables are made from the code, every command parses, every configuration loads,
//! every unit is one, every link leads somewhere, and every test that the crate page names is there.
//!
//! `UPDATE=1 cargo test --test readme` writes the tables anew.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise, with its place")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use underpass::base::code::Code;
use underpass::base::grant::MAX_GRANTS;
use underpass::base::limits;
use underpass::cli::check_command_line;
use underpass::config::{parse_agent, parse_gateway};
use underpass::observe::metrics;

const README: &str = "README.md";
const ARCHITECTURE: &str = "src/ARCHITECTURE.md";

#[test]
fn the_tables_are_those_of_the_code() {
    let mut text = read(README);
    let before = text.clone();
    for (name, table) in [("codes", codes()), ("metrics", metrics_table())] {
        let (begin, end) = (format!("<!-- {name}: "), format!("<!-- end of {name} -->"));
        let start = text.find(&begin).unwrap_or_else(|| panic!("{README} has no `{begin}`"));
        let start = start + text[start..].find('\n').unwrap() + 1;
        let stop = start + text[start..].find(&end).unwrap_or_else(|| panic!("{README} has no `{end}`"));
        text.replace_range(start..stop, &table);
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(README, &text).unwrap();
    } else {
        assert!(text == before, "a table in {README} is old: `UPDATE=1 cargo test --test readme` makes it anew");
    }
}

#[test]
fn every_command_parses() {
    let mut tried = 0;
    for line in blocks(&read(README), "sh").iter().flat_map(|block| lines(block)) {
        let words = words(&line);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let words = match words.as_slice() {
            ["sudo", "-u", _, rest @ ..] | ["sudo", rest @ ..] => rest,
            all => all,
        };
        let arguments = match words {
            ["underpass", arguments @ ..] => arguments,
            ["cargo", "run", rest @ ..] => &rest[rest.iter().position(|word| *word == "--").unwrap() + 1..],
            _ => continue,
        };
        check_command_line(arguments).unwrap_or_else(|error| panic!("`{line}`: {error}"));
        tried += 1;
    }
    assert!(tried > 10, "only {tried} commands were found");
}

#[test]
fn every_configuration_loads() {
    let (mut gateways, mut agents) = (0, 0);
    for block in blocks(&read(README), "yaml") {
        // Parts of a file have no version; they are tried behind a beginning.
        let text = if block.starts_with("version: ") {
            block
        } else {
            format!("version: 1\ngateway: {{endpoints: [\"wss://gw1.vendor.example\"]}}\n{block}")
        };
        let is_gateways = text.contains("\nlisteners:");
        let parsed = if is_gateways {
            gateways += 1;
            parse_gateway(README, &text).map(drop)
        } else {
            agents += 1;
            parse_agent(README, &text).map(drop)
        };
        parsed.unwrap_or_else(|failure| panic!("{failure}\n{text}"));
    }
    assert!(gateways >= 2 && agents >= 2, "{gateways} of gateways and {agents} of agents were found");
}

#[test]
fn every_event_of_the_audit_has_its_row_and_its_example() {
    let text = read(README);
    let start = text.find("| event | at |").expect("the table of events");
    let first_cells =
        text[start..].lines().skip(2).take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
    let listed: BTreeSet<_> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect();
    let examples = blocks(&text, "json").concat();
    let shown: BTreeSet<_> = examples
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .map(|row| row["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, shown);
    let code = read("src/observe/audit.rs");
    let body = code.split("pub enum Event<'a> {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let variants =
        body.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(char::is_uppercase));
    let events: BTreeSet<_> = variants.map(|line| snake(line.split([' ', ',']).next().unwrap())).collect();
    assert_eq!(listed, events);
}

#[test]
fn the_limits_are_those_of_the_code() {
    let text = read(README);
    let kib = |bytes: usize| bytes / 1024;
    let rows = [
        format!("| streams of a session | {} (`limits.max_streams`) |", limits::MAX_STREAMS),
        format!("| {} (`targets.NAME.limits.max_streams`), {} (", limits::TARGET_STREAMS, limits::MAX_STREAMS),
        format!("| {}, {} (`limits` of the gateway) |", limits::MAX_CONNECTIONS, limits::MAX_HANDSHAKES),
        format!(
            "| handshake and upgrade; greeting | {} s; {} s |",
            limits::HANDSHAKE_DEADLINE.as_secs(),
            limits::HELLO_DEADLINE.as_secs()
        ),
        format!(
            "| {} s; then a wait of up to {} s, doubling to {} s",
            limits::DIAL_DEADLINE.as_secs(),
            limits::RECONNECT_BASE.as_secs_f64(),
            limits::RECONNECT_MAX.as_secs()
        ),
        format!(
            "| {} s; {} s of silence, or {} s in which nothing sent gets through, or {} s of unacknowledged",
            limits::HEARTBEAT.as_secs(),
            limits::DEAD_AFTER.as_secs(),
            limits::STUCK_AFTER.as_secs(),
            limits::TCP_USER_TIMEOUT.as_secs()
        ),
        format!("its head; all of it | {} s; {} s |", limits::HANDSHAKE_DEADLINE.as_secs(), limits::HTTP_DEADLINE.as_secs()),
        format!("over all agents tried | {} s |", limits::REPLY_DEADLINE.as_secs()),
        format!("of these from one address | {}, {} |", limits::MAX_ENROLLING, limits::MAX_ENROLLING_PER_SOURCE),
        format!("begun in a minute | {}; {} |", limits::MAX_SESSIONS_PER_AGENT, limits::SESSIONS_PER_MINUTE),
        format!("until that is told | {} s |", limits::DUPLICATE_AFTER.as_secs()),
        format!(
            "in a minute | {} (`limits.max_lanes`); {}, {} |",
            limits::MAX_LANES,
            limits::LANE_DIALS_PER_MINUTE,
            limits::LANES_PER_MINUTE
        ),
        format!(
            "a pause after {} attempts that failed | {} s; {} s |",
            limits::LANE_MISSES,
            limits::LANE_IDLE.as_secs(),
            limits::LANE_PAUSE.as_secs()
        ),
        format!("uses the {} streams of slack", limits::MUX_SLACK),
        format!(
            "| {} s (`connect_timeout`); {} addresses of a name, one more every {} ms |",
            limits::CONNECT_TIMEOUT.as_secs(),
            limits::MAX_ADDRESSES,
            limits::HAPPY_EYEBALLS_DELAY.as_millis()
        ),
        format!("addresses are used for | {} s |", limits::DNS_CACHE.as_secs()),
        format!("ahead of the reply | {} KiB |", kib(limits::EARLY_DATA)),
        format!(
            "unread bytes kept on it | {} KiB to {} MiB; {} MiB; {} MiB |",
            kib(limits::STREAM_WINDOW),
            limits::STREAM_WINDOW_MAX >> 20,
            limits::SESSION_GROWTH >> 20,
            limits::SESSION_BUFFER >> 20
        ),
        format!("after that, a second | {}; {} |", limits::CHURN_BURST, limits::CHURN_PER_SECOND),
        format!("a control message | {} KiB; {} KiB |", kib(limits::MAX_MESSAGE), kib(limits::MAX_CONTROL_MESSAGE)),
        format!("its signing request | {} KiB; {} KiB |", kib(limits::MAX_HTTP_REQUEST), kib(limits::MAX_CSR)),
        format!("(IPv6: one /64) | {} a minute |", limits::ENROLL_PER_MINUTE),
        format!("of all | {} a minute, {} a minute |", limits::AUDIT_STRANGERS_PER_SOURCE, limits::AUDIT_STRANGERS_PER_MINUTE),
        format!("| {}, {} MiB |", limits::LOG_LINES, limits::LOG_BUFFER / (1 << 20)),
    ];
    has(&text, &rows);
}

#[test]
fn the_limits_of_resumption_are_those_of_the_code() {
    let rows = [
        format!(
            "tried at a gateway in a minute | {}; {}; {} |",
            limits::RESUME_DIALS_AT_ONCE,
            limits::RESUME_DIALS_PER_MINUTE,
            limits::RESUMES_PER_MINUTE
        ),
        format!("of all | {} a minute, {} a minute |", limits::AUDIT_BREAKS_PER_AGENT, limits::AUDIT_BREAKS_PER_MINUTE),
    ];
    has(&read(README), &rows);
}

#[test]
fn the_limits_of_the_link_are_those_of_the_code() {
    let rows = [
        format!(
            "| {} s (`gateway.resume_window`, at most {} m, 0 for not at all); {} s |",
            limits::RESUME_WINDOW.as_secs(),
            limits::MAX_RESUME_WINDOW.as_secs() / 60,
            limits::RESUME_PATIENCE.as_secs()
        ),
        format!(
            "a broken lane up | {} s; then a wait of up to {} s, doubling to {} s, with full jitter |",
            limits::RESUME_DEADLINE.as_secs(),
            limits::RESUME_BASE.as_secs_f64(),
            limits::RESUME_MAX.as_secs()
        ),
        format!("next connection, at each end | {} MiB |", limits::RETAINED >> 20),
    ];
    has(&read(README), &rows);
}

#[test]
fn the_limits_of_clients_are_those_of_the_code() {
    let days = |time: Duration| time.as_secs() / (24 * 60 * 60);
    let rows = [
        format!(
            "a silent standard input after the target's end | {} s; {} s; {} s; {} s |",
            limits::ENDPOINT_DEADLINE.as_secs(),
            limits::REPLY_DEADLINE.as_secs(),
            limits::ASK_DEADLINE.as_secs(),
            limits::STDIN_LINGER.as_secs()
        ),
        format!("stay listed for | {}; {} days |", limits::MAX_CLIENT_TOKENS, days(limits::CLIENT_TOKEN_KEPT)),
        format!(
            "its validity | {} bytes; {MAX_GRANTS}; {} minute to {} days, {} unless said, or none |",
            limits::MAX_CLIENT_TOKEN,
            limits::CLIENT_TOKEN_TTL_MIN.as_secs() / 60,
            days(limits::CLIENT_TOKEN_TTL_MAX),
            days(limits::CLIENT_TOKEN_TTL)
        ),
    ];
    has(&read(README), &rows);
}

/// systemd itself judges them where it is installed; that both have what they are praised for is checked everywhere.
#[test]
fn the_units_are_accepted_by_systemd() {
    let units: Vec<_> = blocks(&read(README), "ini").into_iter().filter(|block| block.starts_with("[Unit]")).collect();
    assert_eq!(units.len(), 2, "one for each role");
    let dir = tempfile::tempdir().unwrap();
    for (role, unit) in ["gateway", "agent"].iter().zip(units) {
        for setting in
            ["Type=notify", "User=underpass", "ProtectSystem=strict", "NoNewPrivileges=yes", "ExecReload=/bin/kill -HUP"]
        {
            assert!(unit.contains(setting), "{role}: {setting}");
        }
        let run = format!("ExecStart=/usr/local/bin/underpass {role} run\n");
        assert!(unit.contains(&run), "{role}: {run}");
        let file = dir.path().join(format!("underpass-{role}.service"));
        std::fs::write(&file, unit.replace("/usr/local/bin/underpass", env!("CARGO_BIN_EXE_underpass"))).unwrap();
        let Ok(verdict) = Command::new("systemd-analyze").arg("verify").arg(&file).output() else { continue };
        let said = String::from_utf8_lossy(&verdict.stderr);
        let ours: Vec<_> = said.lines().filter(|line| line.contains("underpass-")).collect();
        assert!(verdict.status.success() && ours.is_empty(), "{said}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    for document in [README, ARCHITECTURE, "certs/README.md", "benches/README.md"] {
        let text = read(document);
        let anchors: Vec<_> = text.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            if !file.is_empty() {
                let there = Path::new(document).parent().unwrap().join(file);
                // A run of the harness makes these.
                let made = there.starts_with("benches/charts") || there.ends_with("benches/RESULTS.md");
                assert!(made || there.exists(), "{document}: {target}");
            } else {
                assert!(anchors.iter().any(|anchor| anchor == section), "{document}: {target}");
            }
        }
    }
}

#[test]
fn every_test_that_the_crate_page_names_is_there() {
    let page = read(ARCHITECTURE);
    let start = page.find("\n## Invariants\n").expect("the page has its invariants");
    let section = page[start + 1..].split("\n## ").next().unwrap();
    let mut sources = String::new();
    collect(Path::new("src"), &mut sources);
    collect(Path::new("tests"), &mut sources);
    let named: Vec<_> = section.split('`').skip(1).step_by(2).filter(|word| is_test_name(word)).collect();
    assert!(named.len() > 20, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

fn has(text: &str, rows: &[String]) {
    let missing: Vec<_> = rows.iter().filter(|row| !text.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

fn codes() -> String {
    let mut table = "| code | fault | exit | retried | cause | remedy |\n|---|---|---|---|---|---|\n".to_owned();
    for code in Code::ALL {
        let (fault, exit, retried) = (code.fault().as_str(), code.exit() as u8, if code.elsewhere() { "yes" } else { "" });
        writeln!(table, "| `{code}` | {fault} | {exit} | {retried} | {} | {} |", code.cause(), code.remedy()).unwrap();
    }
    table
}

fn metrics_table() -> String {
    let mut table = "| metric | kind | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for metric in metrics::ALL {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help).unwrap();
    }
    table
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced blocks of one language, also indented ones.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), None);
    let fence = format!("```{language}");
    for line in text.lines() {
        let bare = line.trim_start();
        match (&mut open, bare) {
            (None, bare) if bare == fence => open = Some((line.len() - bare.len(), String::new())),
            (None, _) => {}
            (Some((_, block)), "```") => {
                found.push(std::mem::take(block));
                open = None;
            }
            (Some((indent, block)), _) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
        }
    }
    found
}

/// Lines of a shell script, continued ones joined, comments left out.
fn lines(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// The words of a command up to its first redirection or pipe.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '<' | '>' | '|' | ';' | '&') => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn snake(variant: &str) -> String {
    let mut out = String::new();
    for c in variant.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn is_test_name(word: &str) -> bool {
    word.matches('_').count() >= 3 && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn collect(dir: &Path, into: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}
