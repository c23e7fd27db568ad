//! House rules that the compiler does not hold: who may use whom, how files open and how long they are, who may spawn and
//! sleep, and what may be compiled in. What the documents say is held by `readme`.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise, with its place")]

use std::collections::BTreeSet;
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
    ("fuzzing", 8),
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
        let tests = if whole { &code } else { code.find("#[cfg(test)]").map_or("", |start| &code[start..]) };
        // With the clock paused, a sleep takes no time and no luck.
        if sleeping(tests) && !tests.contains("start_paused") {
            wrong.push(file);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn ghsa_vxx9_2994_q338_the_mux_is_one_without_known_holes() {
    let lock = std::fs::read_to_string("Cargo.lock").unwrap();
    let versions: Vec<Vec<u32>> = lock
        .split("[[package]]")
        .filter(|package| package.contains("name = \"yamux\"\n"))
        .map(|package| package.split("version = \"").nth(1).unwrap().split('"').next().unwrap())
        .map(|version| version.split('.').map(|part| part.parse().unwrap()).collect())
        .collect();
    assert_eq!(versions.len(), 1, "one yamux: {versions:?}");
    assert!(versions[0] >= vec![0, 14, 1], "{versions:?}: older ones hang split streams or can be crashed by a packet");
}

#[test]
fn one_crypto_provider_is_compiled() {
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
