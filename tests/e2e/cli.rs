//! The command line by itself: exit codes, what is never overwritten, what is explained, and the quickstart.
//! Refuses to know the tunnel.

use rustix::process::Signal;
use serde_json::Value;
use underpass::base::code::Code;

use crate::harness::process::Program;
use crate::harness::site::{Agent, Gateway};
use crate::harness::target::Target;
use crate::harness::{SOON, Scratch, eventually, free_port};

#[tokio::test]
async fn without_a_gateway_its_commands_exit_69() {
    let gateway = Gateway::init().await;
    for args in
        [&["agents", "list"][..], &["agents", "revoke", "acme/dc1/a1"], &["token", "create", "--tenant", "a", "--group", "b"]]
    {
        let refused = gateway.admin(args).run().await.exits(69);
        assert!(refused.stderr.contains("not_running"), "{}", refused.stderr);
        assert!(refused.stdout.is_empty());
    }
    let scratch = Scratch::new();
    Program::underpass().args(["agent", "status", "--state-dir"]).arg(scratch.path("")).run().await.exits(69);
}

#[tokio::test]
async fn init_refuses_to_overwrite() {
    let gateway = Gateway::init().await;
    let files = || {
        let pki = gateway.dir().join("pki");
        let mut all: Vec<_> = std::fs::read_dir(pki).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = files();
    assert!(!before.is_empty());
    let again = gateway.admin(&["gateway", "init", "--endpoint", "wss://127.0.0.1:1"]).run().await.exits(78);
    assert!(again.stderr.contains("state_exists"), "{}", again.stderr);
    assert!(files() == before, "nothing was changed");
}

#[tokio::test]
async fn a_wrong_command_line_exits_64() {
    for args in
        [&["no-such-command"][..], &["token", "create"], &["explain", "no_such_code"], &["gateway", "init", "--nonsense"]]
    {
        let refused = Program::underpass().args(args).run().await.exits(64);
        assert!(refused.stdout.is_empty() && !refused.stderr.is_empty());
    }
    Program::underpass().arg("--help").run().await.ok();
    assert!(Program::underpass().arg("--version").run().await.ok().starts_with("underpass "));
}

#[tokio::test]
async fn what_the_environment_says_counts_and_is_not_shown_as_typed() {
    let scratch = Scratch::new();
    let with = |args: &[&str]| Program::underpass().args(args).env("UNDERPASS_GATEWAY_DIR", scratch.path("elsewhere"));
    let refused = with(&["agents", "disable"]).run().await.exits(64);
    assert!(refused.stderr.contains("Usage: underpass agents disable <NAME>"), "{}", refused.stderr);
    let refused = with(&["agents", "list"]).run().await.exits(69);
    assert!(refused.stderr.contains("elsewhere"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_wrong_configuration_exits_78_and_names_the_place() {
    let gateway = Gateway::init().await;
    gateway.configure("listners: []\n");
    for command in ["check", "run"] {
        let refused = gateway.admin(&["gateway", command]).run().await.exits(78);
        assert!(refused.stderr.contains("gateway.yaml:"), "{}", refused.stderr);
        assert!(refused.stderr.contains("listeners"), "a did-you-mean: {}", refused.stderr);
    }
}

#[tokio::test]
async fn check_prints_the_effective_configuration() {
    let gateway = Gateway::init().await;
    let text = gateway.admin(&["gateway", "check"]).run().await.ok();
    assert!(text.contains("gw1") && text.contains("max_handshakes"), "defaults are filled in: {text}");
    let json: Value = serde_json::from_str(&gateway.admin(&["gateway", "check", "--json"]).run().await.ok()).unwrap();
    assert!(json.is_object());
}

#[tokio::test]
async fn tokens_that_would_travel_in_clear_are_told_of_by_check_and_by_the_gateway() {
    let mut gateway = Gateway::init().await;
    let (clear, local) = (free_port(), free_port());
    let listeners = |clear: u16| {
        format!(
            "listeners:\n  - {{listen: \"0.0.0.0:{clear}\", kind: socks5, allow_from: [127.0.0.1]}}\n  \
             - {{listen: \"127.0.0.1:{local}\", kind: connect}}\n"
        )
    };
    gateway.configure(&listeners(clear));
    let checked = gateway.admin(&["gateway", "check", "--json"]).run().await.exits(0);
    assert!(checked.stderr.contains(&format!("0.0.0.0:{clear} has no `tls`")), "{}", checked.stderr);
    assert_eq!(checked.stderr.lines().count(), 1, "{}", checked.stderr);
    gateway.start().await;
    let warned = |gateway: &Gateway, clear: u16| {
        let said = gateway.running().stderr();
        let mut warnings = said.lines().filter(|line| line.contains("plain text"));
        warnings.any(|line| line.contains("\"level\":\"warn\"") && line.contains(&format!("0.0.0.0:{clear}")))
    };
    assert!(warned(&gateway, clear), "{}", gateway.running().stderr());
    let other = free_port();
    gateway.configure(&listeners(other));
    gateway.process().signal(Signal::HUP);
    eventually("it is told at a reload", SOON, async || warned(&gateway, other).then_some(())).await;
    assert_eq!(gateway.running().stderr().lines().filter(|line| line.contains("plain text")).count(), 2);
}

#[tokio::test]
async fn every_code_is_explained() {
    let all: Value = serde_json::from_str(&Program::underpass().args(["explain", "--json"]).run().await.ok()).unwrap();
    let table = all.as_array().or_else(|| all["codes"].as_array()).expect("a list");
    let names: Vec<_> = table.iter().map(|row| row["code"].as_str().unwrap()).collect();
    assert_eq!(names, Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>());
    for row in table {
        for part in ["fault", "cause", "remedy"] {
            assert!(!row[part].as_str().unwrap().is_empty(), "{row}");
        }
    }
    let one = Program::underpass().args(["explain", "tls_intercepted"]).run().await.ok();
    assert!(one.contains(Code::TlsIntercepted.cause()) && one.contains(Code::TlsIntercepted.remedy()), "{one}");
    let human = Program::underpass().arg("explain").run().await.ok();
    assert!(Code::ALL.iter().all(|code| human.contains(code.as_str())), "{human}");
}

/// The quickstart's URL, once it says that it is ready.
async fn url_of(quickstart: &crate::harness::process::Process) -> String {
    eventually("the quickstart is ready", SOON, async || {
        let text = quickstart.stdout();
        let start = text.find("ready: http://")? + "ready: ".len();
        text[start..].split_whitespace().next().map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn the_quickstart_serves_curl_and_ends_with_0_on_ctrl_c() {
    let quickstart = Program::underpass().arg("quickstart").start();
    let url = url_of(&quickstart).await;
    let page = Program::new("curl").args(["-sSf", "--max-time", "10", &url]).run().await.ok();
    assert!(!page.is_empty());
    quickstart.signal(Signal::INT);
    quickstart.finish(SOON).await.exits(0);
}

#[tokio::test]
async fn c1_the_quickstarts_link_can_be_cut_while_a_download_goes_on() {
    let quickstart = Program::underpass().arg("quickstart").start();
    let url = url_of(&quickstart).await;
    let (slow, sum) = (format!("{url}/mib/64"), "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351");
    let script = format!("curl -sSf --limit-rate 32M --max-time 60 {slow} | sha256sum");
    let download = Program::new("sh").args(["-c", &script]).start();
    for _ in 0..5 {
        let cut = format!("{url}/cut");
        assert_eq!(Program::new("curl").args(["-sSf", "--max-time", "10", "-X", "POST", &cut]).run().await.ok(), "cut\n");
    }
    assert!(download.finish(SOON).await.ok().starts_with(sum));
    let resumed = || quickstart.stdout().matches("  resumed  lane 0").count();
    eventually("each cut was mended", SOON, async || (resumed() == 5).then_some(())).await;
    quickstart.signal(Signal::INT);
    quickstart.finish(SOON).await.exits(0);
}

#[tokio::test]
async fn the_quickstart_tells_how_it_ends() {
    let quickstart = Program::underpass().arg("quickstart").start();
    let url = url_of(&quickstart).await;
    let endless =
        Program::new("curl").args(["-s", "-o", "/dev/null", "--limit-rate", "1M", &format!("{url}/mib/1024")]).start();
    eventually("the download runs", SOON, async || quickstart.stdout().contains("  opened   ").then_some(())).await;
    quickstart.signal(Signal::INT);
    let ended = quickstart.finish(SOON).await.exits(75);
    let said = ended.stdout.split_once("ending: open streams may finish for 5 s").expect("how long it waits").1;
    let (row, last) = (said.find("  closed   "), said.find("ended: what was open has been cut"));
    assert!(row.is_some() && row < last && said.contains(", drain_deadline"), "{said}");
    drop(endless);
}

#[tokio::test]
async fn the_quickstart_warns_of_a_listener_that_is_open_to_others() {
    let quickstart = Program::underpass().args(["quickstart", "--listen", "0.0.0.0:0"]).start();
    let url = url_of(&quickstart).await;
    assert!(url.starts_with("http://127.0.0.1:"), "one that leads there: {url}");
    let warned = || quickstart.stdout().contains("warning: whoever reaches 0.0.0.0:").then_some(());
    eventually("the warning", SOON, async || warned()).await;
    let nothing = Program::new("curl").args(["-s", &format!("{url}/nothing")]).run().await.ok();
    assert!(nothing.contains("/mib/COUNT"), "{nothing}");
    quickstart.signal(Signal::INT);
    quickstart.finish(SOON).await.exits(0);
}

#[tokio::test]
async fn the_quickstart_takes_a_target_and_speaks_json() {
    let target = Target::named("my own target").await;
    let address = format!("tcp://{}", target.address());
    let quickstart = Program::underpass().args(["quickstart", "--json", "--target", &address]).start();
    let ready = eventually("the ready event", SOON, async || {
        let text = quickstart.stdout();
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is an object"));
        rows.into_iter().find(|row| row["event"] == "ready")
    })
    .await;
    let url = ready["url"].as_str().unwrap();
    let at = url.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_end_matches('/');
    let mut client = tokio::net::TcpStream::connect(at).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut client, &mut answer).await.unwrap();
    assert_eq!(answer, "my own target");
    drop(client);
    eventually("the stream shows as opened and closed", SOON, async || {
        let text = quickstart.stdout();
        (text.contains("\"opened\"") && text.contains("\"closed\"")).then_some(())
    })
    .await;
    quickstart.signal(Signal::INT);
    quickstart.finish(SOON).await.exits(0);
}

#[tokio::test]
async fn an_agent_without_an_identity_says_so() {
    let scratch = Scratch::new();
    let dir = scratch.path("agent");
    std::fs::create_dir(&dir).unwrap();
    crate::harness::write_private(&dir.join("agent.yaml"), "version: 1\ngateway: {endpoints: [\"wss://127.0.0.1:1\"]}\n");
    let refused = Program::underpass().args(["agent", "run", "--state-dir"]).arg(dir).run().await.exits(78);
    assert!(refused.stderr.contains("state_missing"), "{}", refused.stderr);
}

#[tokio::test]
async fn enrolling_keeps_an_agent_yaml_that_exists() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let agent = Agent::enroll(&gateway, "a1").await;
    agent.configure("# mine\n");
    let before = std::fs::read(agent.dir().join("agent.yaml")).unwrap();
    let token = gateway.token("acme", "dc1").await;
    agent.enrollment(&token).run().await.ok();
    assert_eq!(std::fs::read(agent.dir().join("agent.yaml")).unwrap(), before);
}
