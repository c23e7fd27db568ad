//! Programs that know nothing of proxies: ssh and what runs over it by `connect --stdio`, databases and scripts by
//! `connect --listen`. Refuses to know curl.

use std::path::Path;
use std::time::Duration;

use crate::fixtures::client::basic;
use crate::fixtures::nginx::Nginx;
use crate::fixtures::postgres::Postgres;
use crate::fixtures::redis::Redis;
use crate::fixtures::sshd::{HOST, Sshd};
use crate::fixtures::vendor::Vendor;
use crate::harness::entries::Entries;
use crate::harness::process::Program;
use crate::harness::target::{Target, pattern};
use crate::harness::{Scratch, heavy};

const MINUTE: Duration = Duration::from_secs(60);

/// A server whose clients come by `connect --stdio`.
struct Shell {
    entries: Entries,
    ssh: String,
    scratch: Scratch,
    _sshd: Sshd,
}

impl Shell {
    async fn new() -> Self {
        let sshd = Sshd::start().await;
        let entries = Entries::new(&[("ssh", sshd.address())]).await;
        let token = entries.token("ci", "acme/dc1/ssh", &[]).await;
        let command = entries.proxy_command(&token, "ssh");
        let config = sshd.client_config(&format!("ProxyCommand {command}"));
        Self { entries, ssh: format!("ssh -F {}", config.display()), scratch: Scratch::new(), _sshd: sshd }
    }

    fn ssh(&self) -> Program {
        let words: Vec<_> = self.ssh.split(' ').collect();
        Program::new(words[0]).args(&words[1..])
    }

    /// A directory with files of many sizes in some folders.
    fn tree(&self, name: &str) -> std::path::PathBuf {
        let root = self.scratch.path(name);
        for index in 0..200 {
            let folder = root.join(format!("folder {}", index % 7));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("file-{index}")), pattern(index * index * 31)).unwrap();
        }
        root
    }
}

/// Fails the test unless both directories hold the same files with the same bytes.
async fn same(one: &Path, other: &Path) {
    assert_eq!(Program::new("diff").arg("-r").args([one, other]).run().await.ok(), "");
}

#[tokio::test]
async fn ssh_runs_commands_and_passes_bytes_and_exit_codes_by_connect_stdio() {
    let shell = Shell::new().await;
    assert_eq!(shell.ssh().args([HOST, "echo $((6*7))"]).run().await.ok(), "42\n");
    let failed = shell.ssh().args([HOST, "cat; exit 7"]).stdin("some input").run().await.exits(7);
    assert_eq!(failed.stdout, "some input");
    let file = shell.scratch.write("big", pattern(16 << 20));
    let sum = crate::harness::sha256_of(&file).await;
    let piped = shell.ssh().args([HOST, "sha256sum"]).stdin(pattern(16 << 20)).run_within(MINUTE).await.ok();
    assert!(piped.starts_with(&sum), "{piped}");
    for client in [&shell.entries.site.gateway.audit(), &shell.entries.site.agent.audit()] {
        let opened: Vec<_> = client.iter().filter(|row| row["event"] == "opened").collect();
        assert!(opened.len() == 3 && opened.iter().all(|row| row["caller"] == "token ci"), "{opened:?}");
    }
}

#[tokio::test]
async fn rsync_and_git_keep_every_byte_by_connect_stdio() {
    let shell = Shell::new().await;
    let (tree, copy) = (shell.tree("tree"), shell.scratch.path("copy"));
    let rsync = || Program::new("rsync").args(["-a", "--checksum", "-e", &shell.ssh]);
    let (from, to) = (format!("{}/", tree.display()), format!("{HOST}:{}/", copy.display()));
    rsync().args([&from, &to]).run_within(MINUTE).await.ok();
    same(&tree, &copy).await;
    // Once more finds nothing to do, and back again is the same.
    assert_eq!(rsync().args(["--itemize-changes", &from, &to]).run_within(MINUTE).await.ok(), "");
    let back = shell.scratch.path("back");
    rsync().args([&to, &format!("{}/", back.display())]).run_within(MINUTE).await.ok();
    same(&tree, &back).await;

    let (bare, clone) = (shell.scratch.path("bare.git"), shell.scratch.path("clone"));
    let git = |args: &[&str]| {
        let own =
            ["-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"];
        let program = Program::new("git").env("GIT_SSH_COMMAND", &shell.ssh).env("GIT_CONFIG_NOSYSTEM", "1");
        program.env("HOME", shell.scratch.path("")).args(own).args(args)
    };
    let within = tree.to_str().unwrap();
    git(&["-C", within, "init", "-q"]).run().await.ok();
    git(&["-C", within, "add", "."]).run().await.ok();
    git(&["-C", within, "commit", "-q", "-m", "all"]).run().await.ok();
    git(&["clone", "-q", "--bare", within, bare.to_str().unwrap()]).run().await.ok();
    let remote = format!("{HOST}:{}", bare.display());
    git(&["clone", "-q", &remote, clone.to_str().unwrap()]).run_within(MINUTE).await.ok();
    std::fs::remove_dir_all(tree.join(".git")).unwrap();
    std::fs::rename(clone.join(".git"), shell.scratch.path("git")).unwrap();
    same(&tree, &clone).await;
    let pushed = shell.scratch.path("git");
    let pushed = pushed.to_str().unwrap();
    git(&["--git-dir", pushed, "tag", "v1"]).run().await.ok();
    git(&["--git-dir", pushed, "push", "-q", "origin", "v1"]).run_within(MINUTE).await.ok();
    let tags = git(&["--git-dir", bare.to_str().unwrap(), "tag"]).run().await.ok();
    assert_eq!(tags, "v1\n");
}

#[tokio::test]
async fn psql_and_pgbench_with_tls_of_their_own_by_connect_listen() {
    let _turn = heavy().await;
    let vendor = Vendor::new();
    let postgres = Postgres::start_tls(&vendor.server()).await;
    let entries = Entries::new(&[("db", postgres.address())]).await;
    let token = entries.token("ci", "acme/dc1/db", &[]).await;
    let (_process, at) = entries.connector(&token, "db").await;
    let client = |name: &str| {
        let program = Postgres::client(name, at).env("PGSSLMODE", "verify-full");
        program.env("PGSSLROOTCERT", vendor.ca())
    };
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(client("psql").args(["-Atc", sql]).run().await.ok(), "t\n");
    client("pgbench").args(["-q", "-i", "-s", "1"]).run_within(MINUTE).await.ok();
    assert_eq!(client("psql").args(["-Atc", "select count(*) from pgbench_accounts"]).run().await.ok(), "100000\n");
    let report = client("pgbench").args(["-n", "-c", "8", "-t", "25"]).run_within(MINUTE).await.ok();
    assert!(report.contains("200/200"), "{report}");
}

#[tokio::test]
async fn redis_benchmark_runs_without_an_error_by_a_listener_and_by_connect_listen() {
    let _turn = heavy().await;
    let redis = Redis::start().await;
    let entries = Entries::new(&[("cache", redis.address())]).await;
    let token = entries.token("ci", "acme/dc1/cache", &[]).await;
    let (process, at) = entries.connector(&token, "cache").await;
    for at in [entries.site.at("cache"), at] {
        let load = ["-n", "20000", "-c", "50", "-t", "set,get", "-q"];
        let done = Redis::client("redis-benchmark", at).args(load).run_within(MINUTE).await.exits(0);
        let said = format!("{}{}", done.stdout, done.stderr);
        let finished = |name: &str| done.stdout.lines().any(|line| line.contains(name) && line.contains("requests per second"));
        assert!(finished("SET: ") && finished("GET: ") && !said.to_lowercase().contains("error"), "{said}");
    }
    assert_eq!(process.stderr(), "", "connect has nothing to say");
}

/// What a vendor's engineer writes: a page through CONNECT, and bytes through a local port, both ways and half-closed.
const SCRIPT: &str = r#"
import hashlib, http.client, os, socket, threading

web = http.client.HTTPConnection("127.0.0.1", int(os.environ["PROXY"]), timeout=20)
web.set_tunnel("web.dc1.acme.underpass", 80, headers={"Proxy-Authorization": os.environ["LOGIN"]})
web.request("GET", "/index.html")
print(web.getresponse().read().decode(), end="")

payload = bytes(range(256)) * 65536
local = socket.create_connection(("127.0.0.1", int(os.environ["LOCAL"])), timeout=20)
def send():
    local.sendall(payload)
    local.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
back = bytearray()
while chunk := local.recv(65536):
    back += chunk
sender.join()
print("same" if back == payload else f"{len(back)} bytes came back")

refused = http.client.HTTPConnection("127.0.0.1", int(os.environ["PROXY"]), timeout=20)
refused.set_tunnel("web.dc1.acme.underpass", 80, headers={"Proxy-Authorization": "Bearer wrong"})
try:
    refused.request("GET", "/")
except OSError as error:
    print(error)
"#;

#[tokio::test]
async fn a_python_program_by_connect_and_by_connect_listen() {
    let (nginx, echo) = (Nginx::start().await, Target::echo().await);
    let entries = Entries::new(&[("web", nginx.address()), ("echo", echo.address())]).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await;
    let (_process, local) = entries.connector(&token, "echo").await;
    let program = Program::new("python3").args(["-c", SCRIPT]).env("LOGIN", basic(&token.text));
    let program = program.env("PROXY", entries.connect.port().to_string()).env("LOCAL", local.port().to_string());
    let said = program.run_within(MINUTE).await.ok();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["hello from nginx", "same"], "{said}");
    assert!(lines[2].contains("407"), "{said}");
}
