//! Where secrets are not, who may read files, and what is on record when a process is killed. Refuses to know the wire.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use underpass::wire::token::EnrollmentToken;

use crate::fixtures::squid::Squid;
use crate::harness::process::{Process, Program};
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes};
use crate::harness::{SOON, eventually, free_port};

const PASSWORD: &str = "canary-Pa55word-4711";

/// Every file under a directory.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Everything about a process that others can see.
pub(crate) fn visible(process: &Process) -> Vec<(String, Vec<u8>)> {
    let proc = |file: &str| std::fs::read(format!("/proc/{}/{file}", process.id())).unwrap();
    vec![
        ("stdout".to_owned(), process.stdout().into_bytes()),
        ("stderr".to_owned(), process.stderr().into_bytes()),
        ("cmdline".to_owned(), proc("cmdline")),
        ("environ".to_owned(), proc("environ")),
    ]
}

/// The private part of a key file as it could leak: the middle of its PEM, and of its bytes.
fn key_forms(file: &Path) -> Vec<Vec<u8>> {
    let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_file(file).unwrap() else { panic!("PKCS #8") };
    // PKCS #8 of P-256 holds the private scalar at byte 36.
    let scalar = key.secret_pkcs8_der()[36..68].to_vec();
    let text = std::fs::read_to_string(file).unwrap();
    vec![scalar, text.lines().nth(1).unwrap().as_bytes()[20..60].to_vec()]
}

#[tokio::test]
async fn i1_no_secret_is_where_it_does_not_belong() {
    let echo = Target::echo().await;
    let mut gateway = Gateway::init().await;
    let port = free_port();
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/echo")]));
    gateway.start().await;
    let mut agent = Agent::blank(&gateway, "a1");
    let token = gateway.token("acme", "dc1").await;
    let enrolled = agent.enrollment(&token).run().await.exits(0);

    // A proxy that refuses the password, so that errors speak of it; then without it, so that bytes flow.
    let squid = Squid::with_login().await;
    let file = agent.scratch().write("proxy-password", PASSWORD);
    let targets = Agent::targets(&[("echo", echo.address())]);
    let url = squid.url();
    let proxy = format!("proxy: {{url: \"{url}\", username: site, password: {{file: \"{}\"}}}}\n", file.display());
    agent.configure(&(proxy + &targets));
    let checked = agent.command(&["agent", "check"]).run().await;
    agent.launch();
    agent.fails_with("proxy_auth_required").await;
    let status = agent.status().await.unwrap().to_string();
    let mut seen = visible(agent.process());
    agent.process().kill();
    agent.configure(&targets);
    agent.start().await;
    let mut client = tokio::net::TcpStream::connect(crate::harness::loopback(port)).await.unwrap();
    echoes(&mut client, b"hello").await.unwrap();

    seen.extend(visible(agent.process()));
    seen.extend(visible(gateway.process()));
    for done in [enrolled, checked] {
        seen.push(("a command's stdout".to_owned(), done.stdout.into_bytes()));
        seen.push(("a command's stderr".to_owned(), done.stderr.into_bytes()));
    }
    seen.push(("agent status".to_owned(), status.into_bytes()));
    seen.push(("metrics".to_owned(), gateway.metrics().await.into_bytes()));
    for file in files(&agent.dir()).into_iter().chain(files(&gateway.dir())) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        seen.push((file.display().to_string(), bytes));
    }

    let secret = EnrollmentToken::parse(&token).unwrap().secret.expose().to_vec();
    let mut canaries = vec![
        ("the token", token.as_bytes()[60..].to_vec()),
        ("the token's secret", secret.clone()),
        ("the token's secret, base64url", URL_SAFE_NO_PAD.encode(&secret).into_bytes()),
        ("the token's secret, hex", secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()),
        ("the proxy's password", PASSWORD.as_bytes().to_vec()),
        ("the proxy's credentials", STANDARD.encode(format!("site:{PASSWORD}")).into_bytes()),
    ];
    let pki = gateway.dir().join("pki");
    for file in [agent.dir().join("agent.key"), pki.join("root.key"), pki.join("issuing.key"), pki.join("gateway.key")] {
        canaries.extend(key_forms(&file).into_iter().map(|form| ("a private key", form)));
    }
    for (what, canary) in &canaries {
        for (place, bytes) in &seen {
            let own = *what == "a private key" && place.ends_with(".key");
            assert!(own || !contains(bytes, canary), "{what} is in {place}");
        }
    }
}

#[tokio::test]
async fn e11_what_is_made_is_private_whatever_the_umask() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let agent = Agent::blank(&gateway, "a1");
    let token = gateway.token("acme", "dc1").await;
    let file = agent.scratch().write("token", token);
    let (dir, program) = (agent.dir(), Program::underpass_path());
    let shell = format!(
        "umask 0; exec {} agent enroll --state-dir {} --token-file {}",
        program.display(),
        dir.display(),
        file.display()
    );
    Program::new("sh").args(["-c", &shell]).run().await.ok();
    for path in files(&gateway.dir()).into_iter().chain(files(&dir)) {
        let mode = path.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
    for dir in [&dir, &gateway.dir(), &gateway.dir().join("pki")] {
        assert_eq!(dir.metadata().unwrap().mode() & 0o022, 0, "{}", dir.display());
    }
}

#[tokio::test]
async fn cve_2020_24356_e11_keys_and_configurations_that_others_could_change_are_refused() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    let (dir, mode) =
        (agent.dir(), |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap());
    let refused = async |what: &str| {
        let end = agent.command(&["agent", "run"]).run().await;
        assert_eq!(end.code(), 78, "{what}: {}", end.stderr);
        assert!(end.stderr.contains("file_permissions"), "{what}: {}", end.stderr);
    };
    let (key, config) = (dir.join("agent.key"), dir.join("agent.yaml"));
    mode(&key, 0o644);
    refused("a key that others can read").await;
    mode(&key, 0o600);
    mode(&config, 0o664);
    refused("a configuration that the group can write").await;
    mode(&config, 0o602);
    refused("a configuration that others can write").await;
    mode(&config, 0o600);
    mode(&dir, 0o777);
    refused("a directory that others can write").await;
    mode(&dir, 0o700);
    let elsewhere = agent.scratch().path("elsewhere.key");
    std::fs::rename(&key, &elsewhere).unwrap();
    symlink(&elsewhere, &key).unwrap();
    refused("a key behind a symbolic link").await;
    std::fs::rename(&elsewhere, &key).unwrap();
    agent.start().await;

    gateway.process().kill();
    let issuing = gateway.dir().join("pki/issuing.key");
    mode(&issuing, 0o640);
    let end = gateway.admin(&["gateway", "run"]).run().await.exits(78);
    assert!(end.stderr.contains("file_permissions"), "{}", end.stderr);
}

#[tokio::test]
async fn e11_the_admin_sockets_are_their_owners_alone() {
    let site = Site::new(&[]).await;
    for socket in [site.gateway.dir().join("admin.sock"), site.agent.dir().join("agent.sock")] {
        let mode = socket.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}: {mode:o}", socket.display());
    }
    let socket = site.gateway.dir().join("admin.sock");
    let other = Program::new("curl").args(["-sS", "--max-time", "5", "http://a/v1/agents", "--unix-socket"]).arg(socket);
    assert_ne!(other.user("nobody").run().await.code(), 0);
}

#[tokio::test]
async fn r1_a_stream_that_answered_is_on_record_when_the_processes_are_killed() {
    let named = Target::named("here").await;
    let mut site = Site::new(&[("who", named.address())]).await;
    let mut client = site.client("who").await;
    let mut answer = [0; 4];
    timeout(SOON, client.read_exact(&mut answer)).await.unwrap().unwrap();
    site.agent.process().kill();
    site.gateway.process().kill();
    let row = |rows: Vec<serde_json::Value>| rows.into_iter().find(|row| row["event"] == "opened").expect("a row");
    let (at_gateway, at_agent) = (row(site.gateway.audit()), row(site.agent.audit()));
    assert_eq!(at_gateway["request"], at_agent["request"], "one request id on both sides");
    assert_eq!(at_agent["address"], named.address().to_string());
    // And a restart goes on where it stopped.
    site.gateway.start().await;
    site.agent.start().await;
    assert_eq!(site.gateway.audit().iter().filter(|row| row["event"] == "started").count(), 2);
}

/// The subcommands that a command's help lists.
fn subcommands(help: &str) -> Vec<String> {
    let listed =
        help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1).take_while(|line| line.starts_with("  "));
    // Deeper lines go on with a description.
    let listed = listed.filter(|line| !line.starts_with("   "));
    listed.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).filter(|name| name != "help").collect()
}

#[tokio::test]
async fn c11_no_flag_takes_a_secret() {
    let mut open = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(command) = open.pop() {
        let help = Program::underpass().args(&command).arg("--help").run().await.ok();
        for name in subcommands(&help) {
            open.push(command.iter().cloned().chain([name]).collect());
        }
        seen += 1;
        for flag in help.split_whitespace().filter(|word| word.starts_with("--")) {
            let suspect = ["password", "passphrase", "secret", "token", "key", "credential"].iter().any(|it| flag.contains(it));
            assert!(!suspect || flag.contains("-file"), "{command:?} has {flag}");
        }
    }
    assert!(seen > 10, "only {seen} commands were found");
    // Nor may it come in by a URL or in the place of a file's name.
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let (agent, token) = (Agent::blank(&gateway, "a1"), gateway.token("acme", "dc1").await);
    let url = format!("http://user:{PASSWORD}@127.0.0.1:1");
    let refused = agent.enrollment(&token).args(["--proxy", &url]).run().await.exits(64);
    assert!(!refused.stderr.contains(PASSWORD), "{}", refused.stderr);
    let refused = Program::underpass().args(["agent", "enroll", "--token-file", &token, "--state-dir"]).arg(agent.dir());
    let refused = refused.run().await;
    assert!(refused.code() != 0 && !refused.stderr.contains(&token[60..]), "{}", refused.stderr);
}

#[tokio::test]
async fn d8_a_full_audit_refuses_or_drops_as_configured_and_recovers() {
    let echo = Target::echo().await;
    let small = "audit: {max_size: 1MiB, on_full: refuse}\n";
    let site = Site::with(&["echo"], "", &(small.to_owned() + &Agent::targets(&[("echo", echo.address())]))).await;
    let serves = async || {
        let mut client = tokio::net::TcpStream::connect(site.at("echo")).await.ok()?;
        timeout(SOON, echoes(&mut client, b"x")).await.expect("served or let go").ok()
    };
    let mut served = 0;
    while serves().await.is_some() {
        served += 1;
        assert!(served < 20_000, "1 MiB does not hold so many streams");
    }
    site.gateway.audited("refused", |row| row["code"] == "audit_full").await;
    let size: u64 = files(&site.agent.dir().join("audit")).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(size <= 1 << 20, "{size}");
    let rotated = files(&site.agent.dir().join("audit")).into_iter().filter(|file| !file.ends_with("audit.jsonl"));
    rotated.for_each(|file| std::fs::remove_file(file).unwrap());
    eventually("it serves again", SOON, async || serves().await).await;
}
