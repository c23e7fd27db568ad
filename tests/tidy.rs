//! House rules that the compiler does not hold: who may use whom, how files open and how long they are, who may spawn and
//! sleep, and what may be compiled in. What the documents say is held by `readme`.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise, with its place")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A room uses rooms of lower rank and its own files, nothing else.
const RANKS: &[(&str, u8)] = &[
    ("base", 0),
    ("wire", 1),
    ("ldap", 1),
    ("pki", 1),
    ("observe", 1),
    ("rules", 2),
    ("tunnel", 2),
    ("gateway", 3),
    ("agent", 3),
    ("client", 3),
    ("control", 4),
    ("sim", 4),
    ("config", 5),
    ("app", 6),
    ("fuzzing", 6),
    ("cli", 7),
];

const MAX_LINES: usize = 600;

#[test]
fn rooms_use_only_rooms_of_lower_rank() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let Some((own, rank)) = RANKS.iter().find(|(room, _)| *room == room_of(&file)) else { continue };
        for used in rooms_used(&code_of(&file)) {
            match RANKS.iter().find(|(room, _)| *room == used) {
                Some((room, other)) if room != own && other >= rank => wrong.push(format!("{}: crate::{room}", file.display())),
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_has_a_rank() {
    let ranked: BTreeSet<_> = RANKS.iter().map(|(room, _)| (*room).to_owned()).collect();
    let rooms: BTreeSet<_> = rust_files("src").iter().map(|file| room_of(file)).collect();
    let unranked: Vec<_> = rooms.difference(&ranked).filter(|room| !["lib", "main"].contains(&room.as_str())).collect();
    assert!(unranked.is_empty(), "{unranked:?}");
}

#[test]
fn every_file_opens_with_what_it_owns_and_ends_in_time() {
    let mut wrong = Vec::new();
    for file in ["src", "tests", "certs", "benches", "fuzz/targets"].into_iter().flat_map(rust_files) {
        let text = std::fs::read_to_string(&file).unwrap();
        let opening = text.lines().next().unwrap_or_default();
        if !opening.starts_with("//! ") && !opening.starts_with("#![doc = include_str!") {
            wrong.push(format!("{}: opens with {opening:?}", file.display()));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines", file.display()));
        }
        if file.file_name().unwrap() == "mod.rs" {
            wrong.push(format!("{}: a room is `foo.rs` beside `foo/`", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_task_has_an_owner() {
    let spawns = |file: &PathBuf| ["tokio::spawn(", "task::spawn("].iter().any(|call| code_of(file).contains(call));
    let found: Vec<_> = rust_files("src").into_iter().filter(spawns).collect();
    assert_eq!(found, [PathBuf::from("src/base/tasks.rs")]);
}

/// Streams of a session are accepted, too: they are `incoming`, and where no listener is.
#[test]
fn every_socket_is_accepted_by_the_one_loop() {
    let sockets = ["listener.accept()", "socket.accept()", "Listener::accept(", "listener.poll_accept("];
    let accepts = |file: &PathBuf| {
        let code = code_of(file);
        let shipped = code.split("#[cfg(test)]").next().unwrap();
        let others = shipped.replace("incoming.accept()", "").contains(".accept()") && shipped.contains("Listener");
        others || sockets.iter().any(|call| shipped.contains(call))
    };
    // An engine has no sockets, and its `poll_accept` is a stream's.
    let engine = |file: &PathBuf| file.starts_with("src/tunnel/mux");
    let tests = |file: &PathBuf| {
        file.ends_with("fixture.rs") || file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"))
    };
    let found: Vec<_> = rust_files("src").into_iter().filter(|file| !tests(file) && !engine(file) && accepts(file)).collect();
    assert_eq!(found, [PathBuf::from("src/tunnel/listen.rs")]);
}

#[test]
fn no_channel_is_unbounded() {
    let endless = ["unbounded_channel", "mpsc::channel()", "futures_channel::mpsc::unbounded"];
    let found: Vec<_> =
        rust_files("src").into_iter().filter(|file| endless.iter().any(|call| code_of(file).contains(call))).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    let sleeps = ["thread::sleep", "time::sleep", "sleep("];
    let sleeping = |code: &str| sleeps.iter().any(|call| code.contains(call));
    let mut wrong: Vec<_> = rust_files("tests").into_iter().filter(|file| !file.ends_with("tidy.rs")).collect();
    wrong.retain(|file| sleeping(&code_of(file)));
    for file in rust_files("src") {
        let code = code_of(&file);
        let whole = file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
        let tests = if whole { &code } else { code.find("#[cfg(test)]\nmod tests").map_or("", |start| &code[start..]) };
        // With the clock paused, a sleep takes no time and no luck.
        if sleeping(tests) && !tests.contains("start_paused") {
            wrong.push(file);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Crates with a hole that is known, the first version without it, and who says so. Older yamux hangs split streams, too, and the
/// list of advisories that tools read does not have its holes.
const LEAST: &[(&str, [u32; 3], &str)] = &[
    ("aws-lc-sys", [0, 39, 0], "RUSTSEC-2026-0044 to 0048: names, signatures and revocations that were not checked"),
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007: a length that overflows"),
    ("h2", [0, 4, 16], "RUSTSEC-2026-0258: empty frames without end"),
    ("rustls", [0, 23, 18], "RUSTSEC-2024-0399: a crash by a ClientHello in fragments"),
    ("rustls-webpki", [0, 103, 13], "RUSTSEC-2026-0104: a crash by a list of revoked certificates"),
    ("time", [0, 3, 47], "RUSTSEC-2026-0009: a date that exhausts the stack"),
    ("tungstenite", [0, 20, 1], "RUSTSEC-2023-0065: a head without end"),
    ("yamux", [0, 14, 1], "GHSA-vxx9-2994-q338, CVE-2026-31814: crashes by one frame"),
];

#[test]
fn e13_ghsa_vxx9_2994_q338_rustsec_2026_0007_rustsec_2026_0009_rustsec_2026_0104_no_known_hole_is_locked() {
    let text = std::fs::read_to_string("Cargo.lock").unwrap();
    let mut wrong = Vec::new();
    for (name, least, why) in LEAST {
        let versions = locked(&text, name);
        assert!(!versions.is_empty(), "{name} is not locked: its row can go");
        wrong
            .extend(versions.into_iter().filter(|version| version < least).map(|version| format!("{name} {version:?}: {why}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(locked(&text, "yamux").len(), 1, "one yamux");
}

/// The versions of a crate in the text of a lock file, without what tells pre-releases apart.
fn locked(text: &str, name: &str) -> Vec<[u32; 3]> {
    let packages = text.split("[[package]]").filter(|package| package.contains(&format!("name = \"{name}\"\n")));
    let versions = packages.map(|package| package.split("version = \"").nth(1).unwrap().split('"').next().unwrap());
    let numbers =
        |version: &str| -> Vec<u32> { version.split(['.', '-', '+']).take(3).map(|part| part.parse().unwrap()).collect() };
    versions.map(|version| numbers(version).try_into().unwrap()).collect()
}

#[test]
fn the_reader_of_locked_versions_sees_them_all() {
    let text = "[[package]]\nname = \"a\"\nversion = \"0.10.2\"\n[[package]]\nname = \"a\"\nversion = \"1.2.3-rc.1+x\"\n\
                [[package]]\nname = \"a-b\"\nversion = \"9.9.9\"\n";
    assert_eq!(locked(text, "a"), [[0, 10, 2], [1, 2, 3]]);
}

#[test]
fn e13_one_crypto_provider_is_compiled() {
    let edges = ["tree", "--locked", "--offline", "--all-features", "-e", "normal,build,dev", "--prefix", "none"];
    let tree = Command::new(env!("CARGO")).args(edges).output().unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("aws-lc-rs"), "the tree was read");
    let barred: Vec<_> =
        ["ring", "openssl", "openssl-sys", "native-tls", "rsa"].into_iter().filter(|it| crates.contains(it)).collect();
    assert!(barred.is_empty(), "{barred:?}");
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let homes = ["work", "root", "home"].map(|dir| format!("/{dir}/"));
    let mut files = rust_files("src");
    files.extend(["tests", "certs", "benches", "fuzz/targets"].into_iter().flat_map(rust_files));
    files.extend(
        [
            "tests/run",
            "tests/FAULTS.md",
            "tests/chaos",
            "tests/peers/yamux-echo/main.go",
            "tests/peers/websocket-echo/README.md",
            "benches/run",
            "benches/instructions",
            "benches/README.md",
            "benches/reasons.toml",
            "fuzz/Cargo.toml",
            "fuzz/README.md",
            ".ci/run",
            "Cargo.toml",
            "README.md",
            "src/ARCHITECTURE.md",
        ]
        .map(PathBuf::from),
    );
    let named = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        homes.iter().any(|home| text.contains(home.as_str()))
    };
    let found: Vec<_> = files.into_iter().filter(named).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Every `.rs` file under a directory, sorted.
fn rust_files(dir: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::from(dir)]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The room a file belongs to: `src/pki/pin.rs` and `src/pki.rs` are of `pki`.
fn room_of(file: &Path) -> String {
    let first = file.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// A file without its comments.
fn code_of(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The rooms that `crate::room` and `crate::{room, …}` name.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.insert(word(group[start..at].trim_start()));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_reader_of_edges_sees_both_forms() {
    let used = rooms_used("use crate::pki::{pin, tls};\nuse crate::{base::{id, code}, wire};\ncrate::app::run();");
    assert_eq!(used, ["app", "base", "pki", "wire"].map(str::to_owned).into());
}

/// The list of faults is that of the tests. `UPDATE=1` writes which tests a row has.
#[test]
fn each_fault_in_a_tests_name_has_its_row_and_each_test_in_a_row_is_there() {
    const LIST: &str = "tests/FAULTS.md";
    let tests = tests_by_id();
    let (mut wrong, mut stale, mut listed, mut lines) = (Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
    let text = std::fs::read_to_string(LIST).unwrap();
    for line in text.lines() {
        let Some((id, cells, cell)) = row(line) else {
            lines.push(line.to_owned());
            continue;
        };
        if !listed.insert(id.to_owned()) {
            wrong.push(format!("{id} has two rows"));
        }
        let there = tests.get(id).cloned().unwrap_or_default();
        let named: BTreeSet<String> = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let kept: Vec<_> = named.intersection(&there).take(2).cloned().collect();
        let names = if kept.is_empty() { there.into_iter().take(2).collect() } else { kept };
        let right = match names.as_slice() {
            [] if cell.starts_with('-') => cell.to_owned(),
            [] => "-".to_owned(),
            names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        if right != cell {
            stale.push(format!("{id}: {right}, and not {cell}"));
        }
        lines.push(format!("{cells} {right} |"));
    }
    wrong.extend(tests.iter().filter(|(id, _)| !listed.contains(*id)).map(|(id, names)| format!("{id} has no row: {names:?}")));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(LIST, lines.join("\n") + "\n").unwrap();
        stale.clear();
    }
    wrong.extend(stale);
    assert!(wrong.is_empty(), "{LIST} (UPDATE=1 writes names): {wrong:#?}");
}

/// A row's id, all of it but the last cell, and that.
fn row(line: &str) -> Option<(&str, &str, &str)> {
    let (cells, cell) = line.strip_suffix('|')?.rsplit_once('|')?;
    let id = line.strip_prefix("| ")?.split(' ').next()?;
    let is_id = id.starts_with(|c: char| c.is_ascii_uppercase()) && id.contains(|c: char| c.is_ascii_digit());
    is_id.then_some((id, &line[..=cells.len()], cell.trim()))
}

/// Every test whose name begins with ids of faults, by each of these.
fn tests_by_id() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in ["src", "tests", "certs"].into_iter().flat_map(rust_files) {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if !line.starts_with("#[test]") && !line.starts_with("#[tokio::test") {
                continue;
            }
            let head = lines.by_ref().find(|line| line.contains("fn ")).unwrap();
            let name = head.split("fn ").nth(1).unwrap().split('(').next().unwrap();
            for id in ids_of(name) {
                found.entry(id).or_default().insert(name.to_owned());
            }
        }
    }
    found
}

/// `c1_f07_what_holds` is of C1 and F7, `s0_10_what_holds` of S0.10, `cve_2022_3294_e2_what_holds` of CVE-2022-3294 and E2.
fn ids_of(name: &str) -> Vec<String> {
    let words: Vec<_> = name.split('_').collect();
    let (mut ids, mut rest) = (Vec::new(), words.as_slice());
    loop {
        rest = match rest {
            ["cve" | "rustsec", year, number, after @ ..] => {
                ids.push(format!("{}-{year}-{number}", rest[0].to_uppercase()));
                after
            }
            ["ghsa", one, two, three, after @ ..] => {
                ids.push(format!("GHSA-{one}-{two}-{three}"));
                after
            }
            ["chisel", commit, after @ ..] => {
                ids.push(format!("CHISEL-{commit}"));
                after
            }
            ["netclaw", "sec", number, after @ ..] => {
                ids.push(format!("NETCLAW-SEC-{number}"));
                after
            }
            [word @ ("s0" | "s1"), part, after @ ..] if part.len() <= 2 && part.chars().all(|c| c.is_ascii_digit()) => {
                ids.push(format!("{}.{part}", word.to_uppercase()));
                after
            }
            [word, after @ ..] if is_short_id(word) => {
                let (letter, number) = word.split_at(1);
                ids.push(letter.to_uppercase() + number.trim_start_matches('0'));
                after
            }
            _ => return ids,
        };
    }
}

/// A letter and a number, such as `f7`, `f07` or `t2b`.
fn is_short_id(word: &str) -> bool {
    let digits = word.get(1..).unwrap_or_default().trim_end_matches('b');
    word.starts_with(|c: char| c.is_ascii_lowercase()) && !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

#[test]
fn the_reader_of_tests_names_sees_their_ids() {
    for (name, ids) in [
        ("c1_f07_a_silent_path", &["C1", "F7"][..]),
        ("t2b_fragments", &["T2b"]),
        ("s0_10_a_session", &["S0.10"]),
        ("cve_2022_35922_rustsec_2020_0043_d2_no_length", &["CVE-2022-35922", "RUSTSEC-2020-0043", "D2"]),
        ("ghsa_vxx9_2994_q338_the_mux", &["GHSA-vxx9-2994-q338"]),
        ("chisel_44310b6_a_target", &["CHISEL-44310b6"]),
        ("netclaw_sec_005_nothing", &["NETCLAW-SEC-005"]),
        ("a_name_f7_without", &[]),
    ] {
        assert_eq!(ids_of(name), ids, "{name}");
    }
}
