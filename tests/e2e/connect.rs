//! `underpass connect`: a client's own host, from a token's file to a target behind an agent. Refuses to know other ways in.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use underpass::wire::token::{ClientToken, TokenSecret};

use crate::fixtures::squid::Squid;
use crate::harness::process::{Process, Program};
use crate::harness::site::{Agent, Site};
use crate::harness::target::{Target, echoes, pattern};
use crate::harness::{SOON, Scratch, always, eventually, free_port, loopback, sha256_of};

/// A site without listeners, and a client's host with a token for it.
struct Client {
    site: Site,
    scratch: Scratch,
}

impl Client {
    async fn of(targets: &[(&str, std::net::SocketAddr)]) -> Self {
        Self::with("", targets).await
    }

    /// The same with more of gateway.yaml.
    async fn with(gateway_more: &str, targets: &[(&str, std::net::SocketAddr)]) -> Self {
        let site = Site::with(&[], gateway_more, &Agent::targets(targets)).await;
        let made = site.gateway.admin(&["client-token", "create", "--grant", "acme/dc1/*", "--name", "ci"]).run().await;
        let scratch = Scratch::new();
        scratch.write("token", made.ok());
        Self { site, scratch }
    }

    fn token_file(&self) -> PathBuf {
        self.scratch.path("token")
    }

    /// A token like this client's with a secret of somebody's own.
    fn strangers_token_file(&self) -> PathBuf {
        let mut token = ClientToken::parse(&std::fs::read_to_string(self.token_file()).unwrap()).unwrap();
        token.secret = TokenSecret::generate().unwrap();
        self.scratch.write("stranger", token.encode().expose())
    }

    fn connect(&self, target: &str) -> Program {
        Program::underpass().args(["connect", &format!("acme/dc1/{target}"), "--token-file"]).arg(self.token_file())
    }

    /// A shell command in which `connect` is the product with this client's token.
    fn shell(&self, command: &str) -> Program {
        let connect =
            format!("'{}' connect --token-file '{}'", Program::underpass_path().display(), self.token_file().display());
        Program::new("bash").args(["-o", "pipefail", "-c"]).arg(command.replace("connect ", &format!("{connect} ")))
    }

    /// `--stdio` with its streams in this test's hands.
    fn stdio(&self, target: &str) -> Streams {
        self.stdio_with(target, &[])
    }

    fn stdio_with(&self, target: &str, envs: &[(&str, String)]) -> Streams {
        let mut command = Command::new(Program::underpass_path());
        command.args(["connect", &format!("acme/dc1/{target}"), "--stdio", "--token-file"]).arg(self.token_file());
        command
            .envs(envs.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        Streams { input: child.stdin.take().unwrap(), output: child.stdout.take().unwrap(), child }
    }

    /// `--listen`, once it says where.
    async fn listen(&self, target: &str) -> Listening {
        let mut process = self.connect(target).args(["--listen", "127.0.0.1:0", "--json"]).start();
        let said = eventually("connect says where it listens", SOON, async || {
            assert!(process.is_running(), "connect ended");
            process.stdout().lines().next().map(str::to_owned)
        });
        let said: Value = serde_json::from_str(&said.await).unwrap();
        assert_eq!(said["target"], format!("acme/dc1/{target}"));
        Listening { at: said["listening"].as_str().unwrap().parse().unwrap(), process }
    }
}

struct Streams {
    input: ChildStdin,
    output: ChildStdout,
    child: Child,
}

impl Streams {
    /// What it exits with, and what it said beside the stream.
    async fn ends(mut self) -> (i32, String) {
        drop(self.input);
        let mut said = String::new();
        let end = async {
            self.child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = timeout(SOON, end).await.expect("connect ends");
        (status.code().unwrap(), said)
    }
}

struct Listening {
    at: std::net::SocketAddr,
    process: Process,
}

/// What comes until the stream is cut, which no clean end of file is.
async fn is_cut(stream: &mut TcpStream) {
    let read = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("a stream is cut");
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn connect_carries_bytes_unchanged_between_pipes_files_and_a_listener() {
    let echo = Target::echo().await;
    let client = Client::of(&[("echo", echo.address())]).await;
    let file = client.scratch.write("bytes", pattern(64 << 20));
    let wanted = sha256_of(&file).await;
    let path = file.display();
    for command in [
        format!("cat {path} | connect acme/dc1/echo --stdio | sha256sum"),
        format!("connect acme/dc1/echo --stdio <{path} >{path}.out && sha256sum <{path}.out"),
    ] {
        let sum = client.shell(&command).run().await.ok();
        assert_eq!(sum.split_whitespace().next(), Some(wanted.as_str()), "{command}");
    }
    let listening = client.listen("echo").await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(TcpStream::connect(listening.at).await.unwrap());
    }
    let bytes = pattern(300_000);
    for echoed in futures_util::future::join_all(clients.iter_mut().map(|client| echoes(client, &bytes))).await {
        echoed.unwrap();
    }
    let caller = client.site.gateway.audited("opened", |row| row["target"] == "acme/dc1/echo").await;
    assert_eq!(caller["caller"], "token ci", "{caller}");
}

#[tokio::test]
async fn f20_either_end_may_end_first_over_standard_streams() {
    let question = Target::start(|mut stream| async move {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).await?;
        stream.write_all(&[b"you said ", asked.as_slice()].concat()).await?;
        stream.shutdown().await
    });
    let (question, named) = (question.await, Target::named("hello").await);
    let client = Client::of(&[("question", question.address()), ("named", named.address())]).await;

    let mut streams = client.stdio("question");
    streams.input.write_all(b"hello").await.unwrap();
    let Streams { input, mut output, mut child } = streams;
    drop(input);
    let mut said = Vec::new();
    timeout(SOON, output.read_to_end(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, b"you said hello");
    assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());

    // The target has ended: standard output is closed although standard input is open, and that is still carried.
    let mut streams = client.stdio("named");
    said.clear();
    timeout(SOON, streams.output.read_to_end(&mut said)).await.expect("standard output is closed").unwrap();
    assert_eq!(said, b"hello");
    streams.input.write_all(b"and an upload").await.unwrap();
    assert_eq!(streams.ends().await, (0, String::new()));
    let carried = |row: &Value| row["target"] == "acme/dc1/named" && row["up"] == 13;
    assert_eq!(client.site.gateway.audited("closed", carried).await["code"], Value::Null);
}

#[tokio::test]
async fn a_standard_input_that_nobody_ends_holds_nothing_up_once_the_target_has_ended() {
    let named = Target::named("hello").await;
    let client = Client::of(&[("named", named.address())]).await;
    let mut streams = client.stdio("named");
    let mut said = Vec::new();
    timeout(SOON, streams.output.read_to_end(&mut said)).await.expect("standard output is closed").unwrap();
    let status = timeout(SOON, streams.child.wait()).await.expect("connect ends").unwrap();
    assert!(status.success() && said == b"hello");
    drop(streams.input);
}

#[tokio::test]
async fn a_refusal_has_its_exit_code_its_name_and_no_byte_on_standard_output() {
    let echo = Target::echo().await;
    let client = Client::of(&[("echo", echo.address()), ("down", loopback(free_port()))]).await;
    let stranger = client.strangers_token_file();
    let narrow = client.site.gateway.admin(&["client-token", "create", "--grant", "acme/dc1/other"]).run().await.ok();
    let narrow = client.scratch.write("narrow", narrow);
    let open = client.scratch.write("open", "secret");
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let token = client.token_file();
    for (target, file, exit, code) in [
        ("acme/dc1/down", &token, 69, "target_refused"),
        ("acme/dc1/nothing", &token, 78, "target_unknown"),
        ("acme/dc2/echo", &token, 77, "not_granted"),
        ("acme/dc1/echo", &narrow, 77, "not_granted"),
        ("acme/dc1/echo", &stranger, 77, "login_failed"),
        ("acme/dc1/echo", &open, 78, "file_permissions"),
        ("acme/dc1/echo", &client.scratch.path("absent"), 78, "secret_missing"),
    ] {
        for json in [&["--json"][..], &[]] {
            let run =
                Program::underpass().args(["connect", target, "--stdio", "--token-file"]).arg(file).args(json).run().await;
            let run = run.exits(exit);
            assert!(run.stderr.contains(code) && run.stdout.is_empty(), "{target}: {}{}", run.stdout, run.stderr);
        }
    }
    let usage = client.connect("echo").run().await.exits(64);
    assert!(usage.stderr.contains("--stdio") && usage.stderr.contains("--listen"), "{}", usage.stderr);
    let open = client.connect("echo").args(["--listen", "0.0.0.0:0"]).run().await.exits(78);
    assert!(open.stderr.contains("listener_open"), "{}", open.stderr);
    let pasted = std::fs::read_to_string(&token).unwrap();
    let pasted =
        Program::underpass().args(["connect", "acme/dc1/echo", "--stdio", "--token-file", pasted.trim()]).run().await.exits(64);
    assert!(!pasted.stderr.contains("underpass-client-1.") && pasted.stderr.contains("fresh one"), "{}", pasted.stderr);

    let mut listening = client.listen("down").await;
    is_cut(&mut TcpStream::connect(listening.at).await.unwrap()).await;
    eventually("the listener says why", SOON, async || listening.process.stderr().contains("target_refused").then_some(()))
        .await;
    assert!(listening.process.is_running());
}

#[tokio::test]
async fn cve_2024_43798_the_token_is_read_from_where_the_environment_says_and_a_wrong_one_is_refused() {
    let named = Target::named("hello").await;
    let client = Client::of(&[("named", named.address())]).await;
    let connect = || Program::underpass().args(["connect", "acme/dc1/named", "--stdio"]);
    let (right, wrong) = (client.token_file(), client.strangers_token_file());
    let none = connect().run().await.exits(64);
    assert!(none.stderr.contains("--token-file"), "{}", none.stderr);
    let refused = connect().env("UNDERPASS_CLIENT_TOKEN_FILE", &wrong).run().await.exits(77);
    assert!(refused.stderr.contains("login_failed") && refused.stdout.is_empty(), "{}{}", refused.stdout, refused.stderr);
    client.site.gateway.audited("connect_refused", |row| row["code"] == "login_failed").await;
    assert_eq!(named.connections(), 0);
    assert_eq!(connect().env("UNDERPASS_CLIENT_TOKEN_FILE", &right).run().await.ok(), "hello");
    // What is said on the command line comes first.
    let said = connect().env("UNDERPASS_CLIENT_TOKEN_FILE", &right).arg("--token-file").arg(&wrong);
    assert!(said.run().await.exits(77).stderr.contains("login_failed"));
}

#[tokio::test]
async fn a_stream_without_a_byte_ends_with_the_timeout_of_clients() {
    let echo = Target::echo().await;
    let client = Client::with("clients: {idle_timeout: 1s}\n", &[("echo", echo.address())]).await;
    let listening = client.listen("echo").await;
    let mut local = TcpStream::connect(listening.at).await.unwrap();
    let mut streams = client.stdio("echo");
    echoes(&mut local, b"once").await.unwrap();
    streams.input.write_all(b"once").await.unwrap();
    timeout(SOON, streams.output.read_exact(&mut [0; 4])).await.unwrap().unwrap();
    is_cut(&mut local).await;
    let mut rest = Vec::new();
    timeout(SOON, streams.output.read_to_end(&mut rest)).await.expect("it is cut").unwrap();
    let (code, said) = streams.ends().await;
    assert!(code == 69 && rest.is_empty() && said.contains("stream_cut"), "{code} {said}");
    let gateway = &client.site.gateway;
    let ends = || gateway.audit().iter().filter(|row| row["event"] == "closed" && row["code"] == "idle_timeout").count();
    eventually("both are on record", SOON, async || (ends() == 2).then_some(())).await;
}

#[tokio::test]
async fn f4_a_gateway_that_restarts_is_waited_for_and_costs_the_streams_that_it_carried() {
    let echo = Target::echo().await;
    let mut client = Client::of(&[("echo", echo.address())]).await;
    let listening = client.listen("echo").await;
    let mut local = TcpStream::connect(listening.at).await.unwrap();
    echoes(&mut local, b"before").await.unwrap();
    let mut streams = client.stdio("echo");
    streams.input.write_all(b"before").await.unwrap();
    timeout(SOON, streams.output.read_exact(&mut [0; 6])).await.unwrap().unwrap();

    client.site.gateway.process().kill();
    is_cut(&mut local).await;
    let mut rest = Vec::new();
    timeout(SOON, streams.output.read_to_end(&mut rest)).await.unwrap().unwrap();
    let (code, said) = streams.ends().await;
    assert!(code == 69 && rest.is_empty() && said.contains("stream_cut"), "{code} {said}");

    let mut waiting = TcpStream::connect(listening.at).await.unwrap();
    eventually("somebody is told", SOON, async || listening.process.stderr().contains("\"waiting\"").then_some(())).await;
    client.site.gateway.start().await;
    timeout(SOON, echoes(&mut waiting, b"after")).await.unwrap().unwrap();
    assert_eq!(listening.process.stderr().matches("\"waiting\"").count(), 1, "{}", listening.process.stderr());
}

#[tokio::test]
async fn a_signal_lets_open_streams_finish_and_exits_0() {
    let echo = Target::echo().await;
    let client = Client::of(&[("echo", echo.address())]).await;
    let listening = client.listen("echo").await;
    let mut local = TcpStream::connect(listening.at).await.unwrap();
    echoes(&mut local, b"before").await.unwrap();
    listening.process.signal(Signal::TERM);
    eventually("nobody is let in any more", SOON, async || TcpStream::connect(listening.at).await.err()).await;
    echoes(&mut local, b"after").await.unwrap();
    local.shutdown().await.unwrap();
    local.read_to_end(&mut Vec::new()).await.unwrap();
    let ended = listening.process.finish(SOON).await.exits(0);
    assert!(ended.stderr.contains("draining"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_reader_that_rests_on_either_side_keeps_its_stream() {
    /// Longer than `TCP_USER_TIMEOUT`.
    const REST: Duration = Duration::from_secs(8);
    let size = 48 << 20;
    let source = Target::start(move |mut stream| async move {
        stream.write_all(&pattern(size)).await?;
        stream.shutdown().await
    });
    let sink = Target::start(|mut stream| async move {
        // It takes nothing until the test lets it, by what comes back.
        let (mut asked, mut whole) = ([0], Vec::new());
        stream.peek(&mut asked).await?;
        tokio::time::timeout(REST, std::future::pending::<()>()).await.unwrap_err();
        stream.read_to_end(&mut whole).await?;
        stream.write_all(whole.len().to_string().as_bytes()).await?;
        stream.shutdown().await
    });
    let (source, sink) = (source.await, sink.await);
    let client = Client::of(&[("source", source.address()), ("sink", sink.address())]).await;
    let mut down = client.stdio("source");
    let file = client.scratch.write("bytes", pattern(size));
    let up = client.shell(&format!("connect acme/dc1/sink --stdio <{}", file.display())).start();
    always("the download's process lives", REST, async || down.child.try_wait().unwrap().is_none()).await;
    let mut whole = Vec::new();
    timeout(SOON, down.output.read_to_end(&mut whole)).await.unwrap().unwrap();
    assert!(whole == pattern(size), "{} bytes came", whole.len());
    assert_eq!(down.ends().await, (0, String::new()));
    assert_eq!(up.finish(SOON).await.ok(), size.to_string());
}

#[tokio::test]
async fn i1_the_token_is_in_no_list_of_processes_and_in_no_output() {
    let echo = Target::echo().await;
    let mut client = Client::of(&[("echo", echo.address()), ("down", loopback(free_port()))]).await;
    let text = std::fs::read_to_string(client.token_file()).unwrap();
    let secret = &text.trim()["underpass-client-1.".len() + 60..];
    let listening = client.listen("echo").await;
    let mut local = TcpStream::connect(listening.at).await.unwrap();
    echoes(&mut local, b"hello").await.unwrap();
    let process = |what: &str| std::fs::read(format!("/proc/{}/{what}", listening.process.id())).unwrap();
    let refused = client.connect("down").arg("--stdio").run().await.exits(69);
    let mut said = vec![refused.stdout, refused.stderr, listening.process.stdout(), listening.process.stderr()];
    said.extend([process("cmdline"), process("environ")].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    said.extend([client.site.gateway.process().stderr(), client.site.agent.process().stderr()]);
    said.extend(client.site.gateway.audit().iter().chain(&client.site.agent.audit()).map(Value::to_string));
    assert!(said.iter().any(|text| text.contains("token ci")), "the caller is named");
    assert!(said.iter().all(|text| !text.contains(secret)), "the token shows");
}

#[tokio::test]
async fn c2_f20_the_environments_proxy_is_used_also_for_one_ended_streams_and_no_proxy_is_kept_to() {
    let echo = Target::echo().await;
    let named = Target::named("hello").await;
    let client = Client::of(&[("echo", echo.address()), ("named", named.address())]).await;
    let squid = Squid::open().await;
    let through = client.connect("echo").arg("--stdio").env("HTTPS_PROXY", squid.url()).stdin("hello");
    let direct = through.clone().env("NO_PROXY", "127.0.0.0/8");
    assert_eq!(direct.run().await.ok(), "hello");
    assert!(!squid.log().contains("CONNECT"), "{}", squid.log());
    assert_eq!(through.run().await.ok(), "hello");
    let gateway = client.site.gateway.at.to_string();
    eventually("squid saw it", SOON, async || squid.log().contains(&gateway).then_some(())).await;
    // squid takes the end of TCP one way for that of both.
    let mut streams = client.stdio_with("named", &[("HTTPS_PROXY", squid.url())]);
    let mut said = Vec::new();
    timeout(SOON, streams.output.read_to_end(&mut said)).await.expect("standard output is closed").unwrap();
    streams.input.write_all(b"and an upload").await.unwrap();
    assert_eq!((said.as_slice(), streams.ends().await), (b"hello".as_slice(), (0, String::new())));
    client.site.gateway.audited("closed", |row| row["target"] == "acme/dc1/named" && row["up"] == 13).await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let refused = client.connect("echo").arg("--stdio").env("HTTPS_PROXY", nobody).run().await.exits(69);
    assert!(refused.stderr.contains("proxy_unreachable"), "{}", refused.stderr);
}
