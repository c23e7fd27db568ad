//! Peers that keep to the protocol and mean ill: cloned identities, noise, one host that wants every place.
//! Refuses to know frames that no state allows.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use futures_util::StreamExt;
use rcgen::SanType;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use underpass::base::code::Code;
use underpass::base::id::{InstanceId, Name};
use underpass::wire::hello::{Hello, Kind, Offer, VERSIONS};
use underpass::wire::notice::{Control, Notice};

use crate::fixtures::certificates::Identity;
use crate::fixtures::peer::{DATA, Peer, SYN, TUNNEL, client_config, dial};
use crate::fixtures::vendor::secured;
use crate::harness::entries::Entries;
use crate::harness::site::{Agent, Gateway, Site, http_get};
use crate::harness::target::{Target, echoes, pattern, told};
use crate::harness::{SOON, connect_from, eventually, free_port, fresh_host, heavy, loopback};
use crate::wire::Attacked;

#[tokio::test]
async fn s5_a_cloned_agent_serves_beside_the_first_and_everybody_is_told_until_one_stops() {
    let (one, two) = (Target::named("one").await, Target::named("two").await);
    let port = free_port();
    let mut gateway = Gateway::init().await;
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/who")]));
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    let mut cloned = agent.clone_of().await;
    for (agent, who) in [(&mut agent, &one), (&mut cloned, &two)] {
        agent.configure(&Agent::targets(&[("who", who.address())]));
        agent.start().await;
    }
    for name in ["one", "two"] {
        eventually("both serve", SOON, async || (told(loopback(port)).await == name).then_some(())).await;
    }
    let row = gateway.audited("duplicate_identity", |row| row["agent"] == "acme/dc1/a1").await;
    assert_eq!(row["instances"], 2);
    assert!(row["sessions"][0]["instance"] != row["sessions"][1]["instance"], "{row}");
    assert!(row["sessions"][1]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{row}");

    let shown = async |gateway: &Gateway, args: &[&str]| gateway.admin(args).run().await.ok();
    let list = shown(&gateway, &["agents", "list"]).await;
    assert!(list.contains("DUPLICATE x2") && list.matches("127.0.0.1:").count() == 2, "both are to be found: {list}");
    assert!(shown(&gateway, &["gateway", "status"]).await.contains("acme/dc1/a1 x2"));
    let status: Value = serde_json::from_str(&shown(&gateway, &["gateway", "status", "--json"]).await).unwrap();
    assert!(status["sessions"].as_array().unwrap().iter().all(|session| session["duplicate"] == true), "{status}");
    let log = gateway.process().stderr();
    assert_eq!(log.lines().filter(|line| line.contains("duplicate_identity")).count(), 1, "told once: {log}");
    let counted = async |count: usize| {
        let line = format!("underpass_duplicate_identities {count}\n");
        eventually(&line, SOON, async || gateway.metrics().await.contains(&line).then_some(())).await;
    };
    counted(1).await;

    drop(cloned);
    eventually("one is left", SOON, async || {
        let list = gateway.admin(&["agents", "list"]).run().await.ok();
        (list.contains("connected") && !list.contains("DUPLICATE")).then_some(())
    })
    .await;
    counted(0).await;
}

#[tokio::test]
async fn e8_a_stolen_key_serves_on_another_host_until_it_is_revoked_and_not_5_s_longer() {
    let (echo, port) = (Target::echo().await, free_port());
    let mut gateway = Gateway::init().await;
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/echo")]));
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    let mut thief = agent.clone_of().await;
    let mut clients = Vec::new();
    // The second has no part in the first's stream: new ones go to the least loaded.
    for agent in [&mut agent, &mut thief] {
        agent.configure(&Agent::targets(&[("echo", echo.address())]));
        agent.start().await;
        let mut client = TcpStream::connect(loopback(port)).await.unwrap();
        echoes(&mut client, b"served").await.unwrap();
        clients.push(client);
    }
    gateway.revoke("acme/dc1/a1").await.ok();
    for client in &mut clients {
        let cut = async { while echoes(client, b"after").await.is_ok() {} };
        timeout(Duration::from_secs(5), cut).await.expect("cut within 5 s");
    }
    for agent in [&agent, &thief] {
        agent.fails_with("certificate_refused").await;
    }
    let revoked = gateway.audit().iter().filter(|row| row["event"] == "disconnected" && row["code"] == "revoked").count();
    assert_eq!(revoked, 2, "both sessions");
}

#[tokio::test]
async fn e9_an_agent_gone_bad_opens_nothing_and_speaks_for_no_stream_but_its_own() {
    let mut attacked = Attacked::new().await;
    let mut evil = attacked.greeted().await;
    evil.yamux(DATA, SYN, 3, 5, b"hello").await.unwrap();
    evil.until_reset(3).await;
    for (lane, stream) in (0..4).flat_map(|lane| (1..32).map(move |stream| (lane, stream))) {
        let forged = Notice::StreamClosed { lane, stream, code: Code::TargetReset };
        evil.message(1, 0, &Control::Notice(forged)).await.unwrap();
    }
    for meant_for_agents in [Notice::Renew, Notice::Lanes { count: 1000 }, Notice::Revoked] {
        evil.message(1, 0, &Control::Notice(meant_for_agents)).await.unwrap();
    }
    evil.until_heartbeat().await.expect("its session goes on");
    attacked.unharmed("forged notices").await;
}

#[tokio::test]
async fn e9_what_an_agent_offers_without_end_is_kept_within_bounds() {
    let _turn = heavy().await;
    let mut attacked = Attacked::new().await;
    let mut evil = attacked.greeted().await;
    let before = attacked.site.gateway.process().rss_kib();
    for round in 0..300 {
        let offer = |n| Offer { name: Name::parse(&format!("target-of-a-long-name-{n}-{round}")).unwrap(), kind: Kind::Tcp };
        let notice = Notice::TargetsChanged { added: (0..300).map(offer).collect(), removed: Vec::new() };
        evil.message(1, 0, &Control::Notice(notice)).await.unwrap();
    }
    evil.until_heartbeat().await.expect("its session goes on");
    let after = attacked.site.gateway.process().rss_kib();
    assert!(after < before + 8 * 1024, "RSS grew from {before} to {after} KiB for 90,000 targets");
    attacked.unharmed("targets without end").await;
}

#[tokio::test]
async fn e9_a_control_message_over_the_limit_ends_its_own_session_alone() {
    let mut attacked = Attacked::new().await;
    // 16 KiB and one byte, and 2^28-1: in the length before the message.
    for length in [&b"\x81\x80\x01"[..], b"\xff\xff\xff\x7f"] {
        let mut evil = attacked.greeted().await;
        evil.yamux(DATA, 0, 1, length.len() as u32, length).await.unwrap();
        attacked.ruined(evil, "a long control message").await;
    }
}

#[tokio::test]
async fn d1_one_host_with_more_half_open_connections_than_there_are_places_holds_up_nobody() {
    let _turn = heavy().await;
    let (echo, port) = (Target::echo().await, free_port());
    let mut gateway = Gateway::init().await;
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/echo")]));
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    agent.configure(&Agent::targets(&[("echo", echo.address())]));
    // Those that are let in are let go after 5 s, and so are those that wait. Should this machine be busy for so long, it proves
    // nothing, and is tried again.
    for _ in 0..5 {
        let mut held = Vec::new();
        for _ in 0..1100 {
            let mut half_open = connect_from("127.0.0.2", gateway.at).await.unwrap();
            let _ = half_open.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await;
            held.push(half_open);
        }
        agent.start().await;
        let mut client = TcpStream::connect(loopback(port)).await.unwrap();
        timeout(SOON, echoes(&mut client, b"meanwhile")).await.unwrap().unwrap();
        let kept = held.iter().filter(
            |half_open| matches!(half_open.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        );
        if kept.count() == 1024 {
            gateway.audited("connect_refused", |row| row["code"] == "handshake_limited" && row["source"] == "127.0.0.2").await;
            return;
        }
    }
    panic!("the host's connections were let go before others got in");
}

#[tokio::test]
async fn d8_noise_of_one_host_is_told_in_few_words_and_hides_nobody_elses() {
    let _turn = heavy().await;
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let at = gateway.at;
    let junk = async |host: &str| {
        let mut stream = connect_from(host, at).await.unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("junk is let go");
    };
    let before = (gateway.audit().len(), gateway.process().stderr().lines().count());
    futures_util::stream::iter(0..5000).for_each_concurrent(16, |_| junk("127.0.0.2")).await;
    junk("127.0.0.3").await;
    gateway.audited("connect_refused", |row| row["source"] == "127.0.0.3").await;
    let (rows, lines) = (gateway.audit().len() - before.0, gateway.process().stderr().lines().count() - before.1);
    assert!(rows < 50, "{rows} rows");
    assert!(lines < 100, "{lines} lines");
    // At the end it is told how many there were.
    gateway.process().signal(rustix::process::Signal::TERM);
    gateway.take_process().finish(SOON).await.exits(0);
    let rows = gateway.audit();
    let of = |event: &str| rows.iter().filter(|row| row["event"] == event).collect::<Vec<_>>();
    let counted: u64 = of("suppressed").iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(counted + of("connect_refused").len() as u64, 5001);
    assert_eq!(of("suppressed")[0]["most"][0]["source"], "127.0.0.2");
}

#[tokio::test]
async fn d6_an_endless_list_in_the_configuration_is_refused_by_its_size() {
    let gateway = Gateway::init().await;
    let networks = (0..1_000_000_u32).fold(String::new(), |mut text, n| {
        let [_, b, c, d] = n.to_be_bytes();
        let _ = write!(text, "10.{b}.{c}.{d}, ");
        text
    });
    gateway.configure(&format!("enrollment: {{allow_from: [{networks}]}}\n"));
    let refused = gateway.admin(&["gateway", "check"]).run().await.exits(78);
    assert!(refused.stderr.contains("config_unreadable") && refused.stderr.len() < 1000, "{}", refused.stderr);
}

/// What could move a terminal's cursor, or begin a line of somebody else's making.
const CURSOR: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n{\"event\":\"enrolled\"}\u{202e}";

#[tokio::test]
async fn r2_what_a_peer_says_of_itself_forges_no_line_and_moves_no_cursor() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let identity = Identity::of_agent(&Agent::enroll(&gateway, "a1").await);
    let hello = Hello {
        versions: VERSIONS,
        agent_version: CURSOR.to_owned() + &"x".repeat(10_000),
        instance: InstanceId::fresh(),
        targets: Vec::new(),
        capacity: 100,
        capabilities: vec![CURSOR.to_owned()],
    };
    let _session = Peer::greeted_with(&gateway, &identity, hello).await.unwrap();
    let list = gateway.admin(&["agents", "list"]).run().await.ok();
    assert!(list.contains("acme/dc1/a1") && list.lines().count() == 2, "{list}");
    // In what is asked for before there is a session.
    for head in [
        "GET /v1/\u{1b}[2J HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("GET /v1/{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)),
        "GET /v1/tunnel HTTP/1.1\r\nHost: a\r\nUser-Agent: \u{9b}2J\u{1b}]0;owned\u{7}\r\n\r\n".to_owned(),
        "GET /v1/tunnel HTTP/1.1\r\nHost: a\r\nUnderpass-Resume: \u{9b}2J\u{202e}\r\n\r\n".to_owned(),
    ] {
        let mut stream = dial(&gateway, client_config(&gateway, Some(&identity), &[TUNNEL]).into()).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("it is refused");
    }
    let alpn = dial(&gateway, client_config(&gateway, Some(&identity), &[b"\x1b[2J\r\nowned"]).into()).await;
    assert!(alpn.is_err());
    eventually("all are refused", SOON, async || {
        (gateway.audit().iter().filter(|row| row["event"] == "connect_refused").count() >= 5).then_some(())
    })
    .await;
    for text in [list, gateway.process().stderr(), audit_of(gateway.dir())] {
        is_inert(&text);
    }
    assert_eq!(gateway.audit().iter().filter(|row| row["event"] == "enrolled").count(), 1);
}

fn audit_of(state_dir: PathBuf) -> String {
    std::fs::read_to_string(state_dir.join("audit/audit.jsonl")).unwrap()
}

/// No character of a text does anything but show, and no line is endless.
fn is_inert(text: &str) {
    let active = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    let wrong = text.lines().find(|line| line.contains(active) || line.len() >= 2000);
    assert_eq!(wrong, None);
}

/// CONNECT, with one part or another that could move a cursor, forge a line or fill a disk.
fn strange_heads(token: &str) -> Vec<Vec<u8>> {
    let (here, login) = ("echo.dc1.acme.underpass:443", format!("Proxy-Authorization: Bearer {token}"));
    let long = "x".repeat(1 << 20);
    let user = base64::engine::general_purpose::STANDARD.encode(format!("{CURSOR}:{CURSOR}"));
    let head = |host: &str, field: &str| format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n\r\n").into_bytes();
    vec![
        head(CURSOR, &login),
        head("\u{1b}[2J.dc1.acme.underpass:443", &login),
        head("%1b%0d%0a.dc1.acme.underpass:443", &login),
        head(&format!("{long}.dc1.acme.underpass:443"), &login),
        head(&format!("{}.dc1.acme.underpass:443", &long[..5000]), &login),
        head(here, "Proxy-Authorization: Bearer \u{1b}[2J\u{202e}"),
        head(here, &format!("Proxy-Authorization: Basic {user}")),
        head(here, &format!("Proxy-Authorization: {}", &long[..5000])),
        head(here, &format!("{login}\r\nUser-Agent: \u{9b}2J{long}")),
        head(here, &format!("{login}\r\nHost: \u{1b}[2J")),
        format!("{CURSOR} {here} HTTP/1.1\r\n{login}\r\n\r\n").into_bytes(),
    ]
}

/// The same by SOCKS5: as host, as user and as token; the longest that fit.
fn strange_greetings(token: &str) -> Vec<Vec<u8>> {
    let said = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
    let greeting = |user: &[u8], token: &[u8], host: &[u8]| {
        [&[5, 1, 2, 1][..], &said(user), &said(token), &[5, 1, 0, 3], &said(host), &[1, 187]].concat()
    };
    let (token, cursor, long) = (token.as_bytes(), CURSOR.as_bytes(), CURSOR.repeat(255 / CURSOR.len()));
    vec![
        greeting(b"any", token, cursor),
        greeting(b"any", token, long.as_bytes()),
        greeting(b"any", token, b"\0.dc1.acme.underpass"),
        greeting(b"any", cursor, b"echo.dc1.acme.underpass"),
        greeting(cursor, long.as_bytes(), b"echo.dc1.acme.underpass"),
    ]
}

/// The same as names in a certificate, which libraries of TLS make no larger than 64 KiB.
fn strange_names() -> Vec<Vec<SanType>> {
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let mail = |text: &str| SanType::Rfc822Name(text.try_into().unwrap());
    let ascii: String = CURSOR.chars().filter(char::is_ascii).collect();
    vec![
        vec![uri(&format!("spiffe://vendor.test/{ascii}"))],
        vec![mail(&format!("{ascii}@vendor.test"))],
        vec![uri(&format!("spiffe://corp.test/tenant/acme/group/{ascii}/agent/a1"))],
        vec![uri(&format!("spiffe://vendor.test/{}", "x".repeat(60_000)))],
    ]
}

#[tokio::test]
async fn r2_what_a_client_says_of_itself_forges_no_line_and_moves_no_cursor() {
    let echo = Target::echo().await;
    let mut entries = Entries::new(&[("echo", echo.address())]).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let gateway = &entries.site.gateway;
    // Each from a host of its own, so that none is only counted.
    let recorded = async |host: &str, what: &str| {
        let of = |row: &Value| row["event"] != "opened" && row["source"].as_str().is_some_and(|it| it.starts_with(host));
        eventually(what, SOON, async || gateway.audit().iter().any(of).then_some(())).await;
    };
    let heads = strange_heads(&token).into_iter().map(|head| (entries.connect, head));
    let greetings = strange_greetings(&token).into_iter().map(|greeting| (entries.socks5, greeting));
    for (at, said) in heads.chain(greetings) {
        let host = fresh_host();
        let (mut reader, mut writer) = connect_from(&host, at).await.unwrap().into_split();
        // What is refused early takes no more.
        let say = async { writer.write_all(&said).await };
        let hear = async { reader.read_to_end(&mut Vec::new()).await };
        let _ = timeout(SOON, async { tokio::join!(say, hear) }).await.expect("it is refused");
        recorded(&host, &format!("{} is on record", String::from_utf8_lossy(&said[..said.len().min(200)]).escape_debug()))
            .await;
    }
    for names in strange_names() {
        let host = fresh_host();
        let connector = entries.vendor.connector(Some(&entries.vendor.client_named(names)));
        let stream = connect_from(&host, entries.connect_tls).await.unwrap();
        if let Ok(mut io) = secured(&connector, stream).await {
            let _ = io.write_all(b"CONNECT echo.dc1.acme.underpass:443 HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let _ = timeout(SOON, io.read_to_end(&mut Vec::new())).await.expect("it is refused");
        }
        recorded(&host, "a certificate of strange names is on record").await;
    }
    let Site { gateway, agent, .. } = &mut entries.site;
    let audit = audit_of(gateway.dir());
    assert!(audit.contains("u{1b}[2J"), "some of it is quoted: {audit}");
    for text in [audit, gateway.process().stderr(), audit_of(agent.dir()), agent.process().stderr()] {
        is_inert(&text);
    }
    assert_eq!(gateway.audit().iter().filter(|row| row["event"] == "enrolled").count(), 1);
}

#[tokio::test]
async fn i3_nothing_of_one_tenants_stream_shows_in_anothers() {
    let (secret, short) = (Target::echo().await, Target::echo().await);
    let (secrets, shorts) = (free_port(), free_port());
    let mut gateway = Gateway::init().await;
    gateway.configure(&Gateway::listeners(&[(secrets, "acme/dc1/echo"), (shorts, "other/dc1/echo")]));
    gateway.start().await;
    let mut agents =
        [Agent::enroll_in(&gateway, "acme", "dc1", "a1").await, Agent::enroll_in(&gateway, "other", "dc1", "a1").await];
    for (agent, target) in agents.iter_mut().zip([&secret, &short]) {
        agent.configure(&Agent::targets(&[("echo", target.address())]));
        agent.start().await;
    }
    let filled = vec![b'S'; 200_000];
    for round in 0..30 {
        let mut one = TcpStream::connect(loopback(secrets)).await.unwrap();
        timeout(SOON, echoes(&mut one, &filled)).await.unwrap().unwrap();
        let mut other = TcpStream::connect(loopback(shorts)).await.unwrap();
        let asked = &pattern(100)[..round % 20];
        other.write_all(asked).await.unwrap();
        other.shutdown().await.unwrap();
        // The echo has what its target got: nothing more came to either.
        let mut answer = Vec::new();
        timeout(SOON, other.read_to_end(&mut answer)).await.expect("it ends").unwrap();
        assert_eq!(answer, asked);
    }
}

#[tokio::test]
async fn i4_nobody_learns_of_targets_by_asking_the_probes_or_the_port() {
    let echo = Target::echo().await;
    let agents_metrics = free_port();
    let config =
        format!("metrics: {{listen: \"127.0.0.1:{agents_metrics}\"}}\n") + &Agent::targets(&[("canary", echo.address())]);
    let site = Site::with(&["canary"], "", &config).await;
    echoes(&mut site.client("canary").await, b"used").await.unwrap();
    let secrets = ["canary".to_owned(), echo.address().port().to_string(), "acme".to_owned(), "a1".to_owned()];
    let silent = |what: &str, text: &str| {
        // A port's digits may stand in a number by chance; it would be behind a colon.
        let told = secrets.iter().find(|secret| match secret.parse::<u16>() {
            Ok(port) => text.contains(&format!(":{port}")),
            Err(_) => text.contains(*secret),
        });
        assert_eq!(told, None, "{what}: {text}");
    };
    for role in ["gateway", "agent"] {
        let get = async |path: &str| match role {
            "gateway" => site.gateway.probe(path).await.expect("an answer"),
            _ => http_get(loopback(agents_metrics), path).await.expect("an answer"),
        };
        assert_eq!(get("/livez").await, (200, "live\n".to_owned()), "{role}");
        assert_eq!(get("/readyz").await, (200, "ready\n".to_owned()), "{role}");
        let (status, metrics) = get("/metrics").await;
        assert!(status == 200 && metrics.contains("underpass_streams_opened_total 1"), "{role}: {metrics}");
        silent(role, &metrics);
        for path in [
            "/",
            "/v1/status",
            "/v1/agents",
            "/v1/enrollment-tokens",
            "/metrics/",
            "//metrics",
            "/livez/../v1/agents",
            "/debug",
        ] {
            let (status, body) = get(path).await;
            assert_eq!(status, 404, "{role} {path}: {body}");
            silent(path, &body);
        }
    }
    let mut stranger = TcpStream::connect(site.gateway.at).await.unwrap();
    stranger.write_all(b"GET /v1/agents HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, stranger.read_to_end(&mut answer)).await.expect("it is let go");
    assert!(answer.len() <= 7, "at most an alert: {answer:?}");
}
