//! What has happened to others of this kind, by its number: each is tried on the real processes, and comes to nothing.
//! Those that fit beside tests of the same attack are there, with the number in their names. Refuses to know attacks without one.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;
use underpass::wire::open::Spoken;

use crate::fixtures::certificates::{Identity, Signer, agent_leaf, authority};
use crate::fixtures::client::echoed;
use crate::fixtures::peer::{DATA, ENROLL, Peer, SYN, TUNNEL, UPGRADE, WINDOW, client_config, dial, read_head, yamux};
use crate::fixtures::vendor::secured;
use crate::harness::entries::{CERTIFIED, Entries, Way};
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, told};
use crate::harness::{SOON, eventually, free_port, loopback};
use crate::identity::{all_refused, site};
use crate::reach::{TakenOver, ask, open};
use crate::wire::Attacked;

#[tokio::test]
async fn cve_2026_32314_data_with_syn_beyond_the_window_costs_its_stream_or_its_session_and_nobody_elses() {
    let mut attacked = Attacked::new().await;
    // All of it comes: the stream is lost, and the session goes on.
    let over = 256 * 1024 + 1;
    let mut evil = attacked.greeted().await;
    for part in yamux(0, DATA, SYN, 3, over, &vec![7; over as usize]).chunks(60_000) {
        evil.frame(2, part).await.unwrap();
    }
    evil.until_reset(3).await;
    evil.until_heartbeat().await.expect("the session goes on");
    attacked.unharmed("a SYN with more data than its window").await;
    // More than any window.
    evil.yamux(DATA, SYN, 5, u32::MAX, b"").await.unwrap();
    attacked.ruined(evil, "a SYN with a length of 4 GiB").await;
    for length in [over, u32::MAX] {
        let mut unknown = attacked.upgraded().await;
        unknown.heartbeat().await.unwrap();
        unknown.yamux(DATA, SYN, 1, length, b"").await.unwrap();
        unknown.is_cut().await;
        attacked.unharmed("the same before any greeting").await;
    }
}

#[tokio::test]
async fn cve_2026_31814_credit_beyond_any_number_overflows_nothing() {
    let mut attacked = Attacked::new().await;
    let mut evil = attacked.greeted().await;
    let closed = [yamux(0, DATA, SYN, 3, 0, b""), yamux(0, DATA, 4, 3, 0, b"")].concat();
    let twice = |stream| yamux(0, WINDOW, 0, stream, u32::MAX, b"").repeat(2);
    // A stream that is closed, one that never was, one of the other side's, and the control stream, which breaks.
    let _ = evil.frame(2, &[closed, twice(3), twice(4711), twice(2), twice(1)].concat()).await;
    attacked.unharmed("credit beyond any number").await;
}

#[tokio::test]
async fn cve_2022_35922_rustsec_2020_0043_nothing_is_allocated_for_a_claimed_length() {
    let mut attacked = Attacked::new().await;
    let before = attacked.site.gateway.process().rss_kib();
    for claimed in [(1_u64 << 63) - 1, 1 << 62, 1 << 32, 1 << 30] {
        let mut evil = attacked.greeted().await;
        let head = [&[0x82, 0xff][..], &claimed.to_be_bytes(), &[0; 4]].concat();
        let _ = evil.raw(&head).await;
        attacked.ruined(evil, "a claimed length").await;
    }
    let after = attacked.site.gateway.process().rss_kib();
    assert!(after < before + 8 * 1024, "RSS grew from {before} to {after} KiB");
}

/// A ClientHello as a library makes it, in one record.
fn client_hello(gateway: &Gateway) -> Vec<u8> {
    let config = Arc::new(client_config(gateway, None, &[TUNNEL]));
    let mut connection = rustls::ClientConnection::new(config, ServerName::from(gateway.at.ip())).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// The same in records of so many bytes.
fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[0x16, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
    hello[5..].chunks(size).flat_map(record).collect()
}

#[tokio::test]
async fn rustsec_2024_0399_a_client_hello_in_fragments_crashes_nothing() {
    let mut attacked = Attacked::new().await;
    let at = attacked.site.gateway.at;
    let hello = client_hello(&attacked.site.gateway);
    for size in [1, 2, 7, 100, hello.len()] {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let _ = stream.write_all(&fragmented(&hello, size)).await;
        let mut first = [0];
        let answered = timeout(SOON, stream.read(&mut first)).await.expect("answered or let go");
        assert!(!matches!(answered, Ok(1)) || [0x15, 0x16].contains(&first[0]), "{size}: {first:?}");
    }
    let [whole, pieces] = [hello.clone(), fragmented(&hello, 9)];
    let tails: [&[u8]; 5] = [b"", &[0x15, 3, 3, 0, 2, 1, 0], &[0x17, 3, 3, 0, 1, 0], &[0x16, 3, 1, 0, 0], &[0xff; 100]];
    for (start, tail) in [&whole, &pieces].into_iter().flat_map(|start| tails.map(|tail| (start, tail))) {
        for cut in [1, 5, 6, start.len() / 2, start.len() - 1] {
            let mut stream = TcpStream::connect(at).await.unwrap();
            let _ = stream.write_all(&[&start[..cut], tail].concat()).await;
            // What ends here, ends its connection.
            let _ = stream.shutdown().await;
            let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("it is let go");
        }
    }
    attacked.unharmed("fragments of a ClientHello").await;
}

#[tokio::test]
async fn rustsec_2024_0336_bytes_behind_a_close_notify_keep_nobody_busy() {
    let mut attacked = Attacked::new().await;
    // More than there are threads: each that went round in circles would hold one.
    for upgraded in [false, true].repeat(8) {
        let config = client_config(&attacked.site.gateway, Some(attacked.evil()), &[TUNNEL]);
        let mut stream = dial(&attacked.site.gateway, config.into()).await.unwrap();
        if upgraded {
            stream.write_all(UPGRADE.as_bytes()).await.unwrap();
            read_head(&mut stream).await.unwrap();
        }
        stream.flush().await.unwrap();
        let (socket, connection) = stream.get_mut();
        connection.send_close_notify();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes.extend([0x17, 3, 3, 0xff, 0xff]);
        bytes.extend([0xa5; 70_000]);
        let _ = socket.write_all(&bytes).await;
        let _ = timeout(SOON, socket.read_to_end(&mut Vec::new())).await.expect("it is let go");
    }
    attacked.unharmed("garbage behind close_notify").await;
}

/// A leaf below so many intermediates of one name, each signed by the next: whoever looks for a path finds ever more of them.
fn maze(leaf: &CertificateParams, intermediates: usize) -> Identity {
    let keys: Vec<_> = (0..intermediates).map(|_| KeyPair::generate().unwrap()).collect();
    let signed_by = |params: &CertificateParams, key: &KeyPair, by: usize| {
        let copy = KeyPair::try_from(keys[by % intermediates].serialize_der()).unwrap();
        params.signed_by(key, &Issuer::new(authority(), copy)).unwrap().der().clone()
    };
    let key = KeyPair::generate().unwrap();
    let leaf = signed_by(leaf, &key, 0);
    let above = (0..intermediates).map(|n| signed_by(&authority(), &keys[n], n + 1));
    Identity { chain: std::iter::once(leaf).chain(above).collect(), key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
}

/// As many intermediates as are looked at, and far more.
const MAZES: [usize; 2] = [4, 50];

#[tokio::test]
async fn rustsec_2023_0053_a_maze_of_intermediates_is_refused_before_the_deadline() {
    let (site, _echo) = site().await;
    let mazes = MAZES.map(|intermediates| ("a maze", Some(maze(&agent_leaf(), intermediates))));
    all_refused(mazes.into(), &site).await;
    let rows = site.gateway.audit();
    let refused: Vec<_> = rows.iter().filter(|row| row["event"] == "connect_refused").collect();
    assert!(refused.iter().all(|row| row["code"] != "tls_failed"), "by its certificate, and not by the clock: {refused:?}");
}

#[tokio::test]
async fn rustsec_2023_0053_a_client_with_a_maze_of_intermediates_is_refused_before_the_deadline() {
    let echo = Target::echo().await;
    let entries = Entries::new(&[("echo", echo.address())]).await;
    let mut leaf = agent_leaf();
    leaf.subject_alt_names = vec![SanType::DnsName(CERTIFIED.try_into().unwrap())];
    let refused =
        || entries.site.gateway.audit().into_iter().filter(|row| row["event"] == "connect_refused").collect::<Vec<_>>();
    for intermediates in MAZES {
        // The intermediates have the name of the vendor's own CA.
        let connector = entries.vendor.connector(Some(&maze(&leaf, intermediates)));
        for at in [entries.certified, entries.connect_tls, entries.socks5_tls] {
            let before = refused().len();
            let Ok(mut io) = secured(&connector, TcpStream::connect(at).await.unwrap()).await else { continue };
            let _ = timeout(SOON, io.read_to_end(&mut Vec::new())).await.expect("it is let go");
            eventually("it is on record", SOON, async || (refused().len() > before).then_some(())).await;
        }
    }
    assert!(
        refused().iter().all(|row| row["code"] == "tls_failed"),
        "by its certificate, and not by the clock: {:?}",
        refused()
    );
    echoed(&mut entries.open(Way::Certified, "echo", "").await.unwrap(), b"still serving").await;
}

#[tokio::test]
async fn cve_2025_49825_a_certificate_below_an_agents_is_nobodys() {
    let (site, _echo) = site().await;
    let ours = Signer::of(&site.gateway);
    // The key of an enrolled agent as an issuer, that calls itself one or not, and one below that.
    let agent = Identity::of_agent(&site.agent);
    let nested = |claims: CertificateParams| {
        let key = KeyPair::try_from(agent.key.secret_der()).unwrap();
        let (leafs, issuer) = (KeyPair::generate().unwrap(), Issuer::new(claims, key));
        let leaf = agent_leaf().signed_by(&leafs, &issuer).unwrap().der().clone();
        let chain = std::iter::once(leaf).chain(agent.chain.iter().cloned()).collect();
        Identity { chain, key: PrivateKeyDer::try_from(leafs.serialize_der()).unwrap() }
    };
    let no_signer = ours.signer(|params| params.is_ca = rcgen::IsCa::ExplicitNoCa);
    let wrong = vec![
        ("signed by an enrolled agent's key", Some(nested(agent_leaf()))),
        ("the same by an agent that calls itself a CA", Some(nested(authority()))),
        ("two below a certificate that may not sign", Some(no_signer.signer(|_| ()).leaf(|_| ()))),
        ("signed by a stranger with our CA's name", Some(ours.namesake().leaf(|_| ()))),
        ("a CA's certificate as a client's", Some(ours.leaf(|params| params.is_ca = authority().is_ca))),
    ];
    all_refused(wrong, &site).await;
}

#[tokio::test]
async fn cve_2024_45337_who_a_peer_is_follows_from_the_key_that_it_used() {
    let mut attacked = Attacked::new().await;
    let victim = Identity::of_agent(&attacked.site.agent);
    let mut shown = attacked.evil().clone();
    // Another agent's certificate among one's own proves nothing.
    shown.chain.insert(1, victim.chain[0].clone());
    let taken = Peer::greeted(&attacked.site.gateway, &shown).await;
    let rows = attacked.site.gateway.audit();
    let connected: Vec<_> = rows.iter().filter(|row| row["event"] == "connected").collect();
    assert_eq!(connected.len(), 1 + usize::from(taken.is_ok()));
    assert!(connected[1..].iter().all(|row| row["agent"] == "evil/g/e1"), "{connected:?}");
    attacked.unharmed("two leaves").await;
}

#[tokio::test]
async fn rustsec_2026_0033_what_follows_a_refused_upgrade_is_not_even_read_as_a_request() {
    let mut attacked = Attacked::new().await;
    for (what, refused) in [
        ("another version", UPGRADE.replace("Version: 13", "Version: 12")),
        ("another path", UPGRADE.replace("/v1/tunnel", "/v1/other")),
        ("no upgrade", UPGRADE.replace("Connection: Upgrade\r\n", "")),
        ("HTTP/1.0", UPGRADE.replace("HTTP/1.1", "HTTP/1.0")),
        ("a body", UPGRADE.replace("\r\n\r\n", "\r\nContent-Length: 4\r\n\r\nbody")),
        ("a chunked body", UPGRADE.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    ] {
        let config = client_config(&attacked.site.gateway, Some(attacked.evil()), &[TUNNEL]);
        let mut stream = dial(&attacked.site.gateway, config.into()).await.unwrap();
        stream.write_all((refused + UPGRADE).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it is let go");
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains(" 101 ") && answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
    }
    attacked.unharmed("pipelined upgrades").await;
}

#[tokio::test]
async fn rustsec_2021_0078_a_body_of_contradicting_lengths_hides_no_second_request() {
    let mut attacked = Attacked::new().await;
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: 18446744073709551621",
        "Content-Length:\r\n 5",
    ] {
        for version in ["1.1", "1.0"] {
            let config = client_config(&attacked.site.gateway, None, &[ENROLL]);
            let mut stream = dial(&attacked.site.gateway, config.into()).await.unwrap();
            let smuggled = "POST /v1/enroll HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}";
            let request = format!("POST /v1/enroll HTTP/{version}\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\n{smuggled}");
            let _ = stream.write_all(request.as_bytes()).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it is let go");
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.matches("HTTP/1.").count() <= 1, "{lengths:?} of HTTP/{version}: {answer}");
        }
    }
    attacked.unharmed("contradicting lengths").await;
}

/// A proxy that lets through who knows the password.
async fn proxy(password: &str) -> Target {
    let right = format!("Basic {}", STANDARD.encode(format!("site:{password}")));
    Target::start(move |mut stream| {
        let right = right.clone();
        async move {
            let head = read_head(&mut stream).await?;
            if !head.contains(&right) {
                return stream.write_all(b"HTTP/1.1 407 Wrong\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            }
            let to = head.split(' ').nth(1).unwrap_or_default();
            let mut gateway = TcpStream::connect(to).await?;
            stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
            copy_bidirectional(&mut stream, &mut gateway).await.map(drop)
        }
    })
    .await
}

#[tokio::test]
async fn cve_2024_43798_a_password_is_read_wherever_it_is_said_to_be_and_a_wrong_one_is_refused() {
    const RIGHT: &str = "r1ght-passw0rd";
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let proxy = proxy(RIGHT).await;
    let url = format!("http://{}", proxy.address());
    let mut agent = Agent::enroll(&gateway, "a1").await;
    for reference in ["{file: FILE}", "{env: SITE_PASSWORD}", "{credential: proxy.password}"] {
        for password in ["wr0ng-passw0rd", RIGHT] {
            let file = agent.scratch().write("proxy.password", password);
            let dir = file.parent().unwrap().display().to_string();
            agent = agent.with_env("SITE_PASSWORD", password).with_env("CREDENTIALS_DIRECTORY", &dir);
            if reference.contains("env") {
                std::fs::remove_file(&file).unwrap();
            }
            let reference = reference.replace("FILE", &format!("{:?}", file.display().to_string()));
            agent.configure(&format!("proxy: {{url: {url:?}, username: site, password: {reference}}}\n"));
            agent.launch();
            if password == RIGHT {
                agent.connected().await;
            } else {
                agent.fails_with("proxy_auth_required").await;
            }
        }
    }
    // On the command line, too.
    let newcomer = Agent::blank(&gateway, "a2");
    let token = gateway.token("acme", "dc1").await;
    for (password, code) in [("wr0ng-passw0rd", 77), (RIGHT, 0)] {
        let file = newcomer.scratch().write("password", password);
        let enroll = newcomer.enrollment(&token).args(["--proxy", &url, "--proxy-username", "site", "--proxy-password-file"]);
        enroll.arg(file).run().await.exits(code);
    }
}

#[tokio::test]
async fn chisel_44310b6_a_target_removed_while_a_session_lives_takes_no_further_stream() {
    let (gone, kept) = (Target::echo().await, Target::echo().await);
    let mut site = TakenOver::new(&Agent::targets(&[("gone", gone.address()), ("kept", kept.address())])).await;
    let mut cloud = site.cloud().await;
    assert_eq!(ask(&mut cloud, 2, &open("gone", Spoken::Raw)).await, "accepted");
    site.reload(&Agent::targets(&[("kept", kept.address())])).await;
    assert_eq!(ask(&mut cloud, 4, &open("gone", Spoken::Raw)).await, "target_unknown", "on the same session");
    assert_eq!(ask(&mut cloud, 6, &open("kept", Spoken::Raw)).await, "accepted");
    assert_eq!(gone.connections(), 1);
}

#[tokio::test]
async fn netclaw_sec_005_nothing_is_trusted_for_coming_from_this_host() {
    let metrics = free_port();
    let config = format!("metrics: {{listen: \"127.0.0.1:{metrics}\"}}\n") + &Agent::targets(&[("own", loopback(metrics))]);
    let site = Site::with(&["own"], "", &config).await;
    // The agent's own listener is no target, whatever its configuration says.
    assert_eq!(told(site.at("own")).await, "");
    site.agent.audited("refused", |row| row["code"] == "address_forbidden").await;
    // What administers the gateway is on no TCP port: not on the metrics' of this host, and not on the agents'.
    for path in ["/v1/agents", "/v1/status", "/v1/enrollment-tokens"] {
        assert_eq!(site.gateway.probe(path).await.expect("an answer").0, 404, "{path}");
        for identity in [None, Some(Identity::of_agent(&site.agent))] {
            let alpn = if identity.is_some() { TUNNEL } else { ENROLL };
            let mut stream =
                dial(&site.gateway, client_config(&site.gateway, identity.as_ref(), &[alpn]).into()).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it ends");
            assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{path}");
        }
    }
}
