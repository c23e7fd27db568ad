//! Clients that show a certificate instead of a token: the vendor's CA and the listener's own list say who is in, and the
//! private PKI counts for nothing there. Refuses to know how certificates are verified.

use rcgen::SanType;
use rustix::process::Signal;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::certificates::{Identity, Signer};
use crate::fixtures::client::{self, Io, echoed};
use crate::fixtures::nginx::Nginx;
use crate::fixtures::vendor::secured;
use crate::harness::entries::{CERTIFIED, Entries, Way};
use crate::harness::process::{Finished, Program};
use crate::harness::target::Target;
use crate::harness::{SOON, eventually};

const PAGE: &str = "hello from nginx\n";

/// A page through the CONNECT listener with TLS, with a certificate and a token or without.
async fn page(entries: &Entries, certificate: Option<&Identity>, token: Option<&str>) -> Finished {
    let proxy = format!("https://{}", entries.connect_tls);
    let mut curl = Program::new("curl").args(["-sSf", "-v", "--max-time", "25", "-p", "-x", &proxy, "--proxy-cacert"]);
    curl = curl.arg(entries.vendor.ca());
    if let Some(certificate) = certificate {
        let files = entries.vendor.save("shown", certificate);
        curl = curl.arg("--proxy-cert").arg(files.cert).arg("--proxy-key").arg(files.key);
    }
    if let Some(token) = token {
        curl = curl.args(["--proxy-user", &format!("any:{token}")]);
    }
    curl.arg("http://web.dc1.acme.underpass/index.html").run().await
}

fn refused_with(done: Finished, code: &str) {
    assert!(done.code() != 0 && done.stdout.is_empty(), "{}", done.stderr);
    assert!(done.stderr.contains(&format!("< Underpass-Refusal: {code}")), "{code}: {}", done.stderr);
}

#[tokio::test]
async fn a_certificate_of_a_known_name_is_as_good_as_a_token_and_a_wrong_token_beside_it_is_not() {
    let nginx = Nginx::start().await;
    let entries = Entries::new(&[("web", nginx.address())]).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let known = entries.vendor.client(CERTIFIED);
    assert_eq!(page(&entries, Some(&known), None).await.ok(), PAGE);
    let opened = entries.site.gateway.audited("opened", |_| true).await;
    assert!(opened["caller"].as_str().unwrap().contains(CERTIFIED), "{opened}");
    entries.site.agent.audited("opened", |row| row["caller"] == opened["caller"]).await;
    assert_eq!(page(&entries, None, Some(&token)).await.ok(), PAGE);
    assert_eq!(page(&entries, Some(&known), Some(&token)).await.ok(), PAGE);
    assert_eq!(entries.audits_of("opened", "token ci"), [2, 2], "the token is what it asked with");
    refused_with(page(&entries, Some(&known), Some("wrong")).await, "login_failed");
    refused_with(page(&entries, None, None).await, "login_required");
}

/// Who shows this gets nothing, with a token or without, and the audit names the code.
async fn gets_nothing(entries: &Entries, token: &str, what: &str, certificate: &Identity, code: &str) {
    for token in [None, Some(token)] {
        let refused = page(entries, Some(certificate), token).await;
        assert!(refused.code() != 0 && refused.stdout.is_empty(), "{what}: {}", refused.stderr);
    }
    let connector = entries.vendor.connector(Some(certificate));
    for at in [entries.certified, entries.socks5_tls] {
        let stream = TcpStream::connect(at).await.unwrap();
        let Ok(mut io) = secured(&connector, stream).await else { continue };
        let _ = io.write_all(b"\x05\x01\x00").await;
        let mut answer = Vec::new();
        let _ = timeout(SOON, io.read_to_end(&mut answer)).await.expect("it is let go");
        // At most SOCKS5's word that no way to log in will do.
        assert!(answer.is_empty() || at == entries.socks5_tls && answer == [5, 0xff], "{what}: {answer:?}");
    }
    let of = |row: &serde_json::Value| row["code"] == code;
    entries.site.gateway.audited("connect_refused", of).await;
}

#[tokio::test]
async fn s1_a_certificate_that_nobody_here_knows_gets_nothing_not_even_with_a_token() {
    let nginx = Nginx::start().await;
    let entries = Entries::new(&[("web", nginx.address())]).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let vendor = &entries.vendor;
    gets_nothing(&entries, &token, "unknown name", &vendor.client("eve.vendor.test"), "login_failed").await;
    let stranger = Signer::stranger(|_| ()).leaf(|params| {
        params.subject_alt_names = vec![SanType::DnsName(CERTIFIED.try_into().unwrap())];
    });
    gets_nothing(&entries, &token, "another CA", &stranger, "tls_failed").await;
    let old = vendor.client_until(CERTIFIED, OffsetDateTime::now_utc() - time::Duration::minutes(1));
    gets_nothing(&entries, &token, "expired", &old, "tls_failed").await;
    let server = Identity::load(&vendor.server().cert, &vendor.server().key);
    gets_nothing(&entries, &token, "a server's", &server, "tls_failed").await;
    assert_eq!(entries.site.gateway.audit().iter().filter(|row| row["event"] == "opened").count(), 0);
}

#[tokio::test]
async fn s1_certificates_of_the_private_pki_are_worth_nothing_at_a_clients_listener() {
    let nginx = Nginx::start().await;
    let entries = Entries::new(&[("web", nginx.address())]).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let agent = Identity::of_agent(&entries.site.agent);
    gets_nothing(&entries, &token, "an agent's", &agent, "tls_failed").await;
    let gateway = Identity::of_gateway(&entries.site.gateway);
    gets_nothing(&entries, &token, "the gateway's", &gateway, "tls_failed").await;

    // Nor is the private root taken for a CA of clients.
    let mut entries = entries;
    let (own, root) = (entries.vendor.ca(), entries.site.gateway.dir().join("pki/root.pem"));
    let text = std::fs::read_to_string(entries.site.gateway.dir().join("gateway.yaml")).unwrap();
    let changed = text.replace(&own.display().to_string(), &root.display().to_string());
    assert_ne!(text, changed);
    crate::harness::write_private(&entries.site.gateway.dir().join("gateway.yaml"), changed);
    entries.site.gateway.process().signal(Signal::HUP);
    let refused = entries.site.gateway.audited("reload_refused", |_| true).await;
    assert!(refused.to_string().contains("own PKI"), "{refused}");
}

/// Reads until the connection has broken or ended; a client must be able to tell the one from the other.
async fn is_cut(what: &str, io: &mut Box<dyn Io>) {
    let end = timeout(SOON, io.read_to_end(&mut Vec::new())).await.expect("it ends");
    assert!(end.is_err(), "{what}: it ended as if all were well");
}

#[tokio::test]
async fn f27_a_reload_without_a_certificates_name_ends_its_streams_and_no_others() {
    let echo = Target::echo().await;
    let mut entries = Entries::new(&[("echo", echo.address())]).await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await.text;
    let mut gone = Vec::new();
    for way in [Way::Certified, Way::CertifiedConnect, Way::CertifiedSocks5] {
        gone.push((way, entries.open(way, "echo", "").await.unwrap()));
    }
    let mut kept = vec![(Way::ConnectTls, entries.open(Way::ConnectTls, "echo", &token).await.unwrap())];
    let second = entries.vendor.client("second.vendor.test");
    entries.configure(&[(CERTIFIED, "acme/dc1/*"), ("second.vendor.test", "acme/dc1/*")], "");
    entries.reload().await;
    let stream = TcpStream::connect(entries.connect_tls).await.unwrap();
    let mut io: Box<dyn Io> = Box::new(secured(&entries.vendor.connector(Some(&second)), stream).await.unwrap());
    client::connect(&mut io, "acme/dc1/echo", None).await.unwrap();
    kept.push((Way::CertifiedConnect, io));
    for (_, io) in gone.iter_mut().chain(&mut kept) {
        echoed(io, b"before").await;
    }

    entries.configure(&[("second.vendor.test", "acme/dc1/*")], "");
    entries.reload().await;
    for (way, io) in &mut gone {
        is_cut(&format!("{way:?}"), io).await;
    }
    for (_, io) in &mut kept {
        echoed(io, b"after").await;
    }
    eventually("both audits say why", SOON, async || {
        let cut = |rows: Vec<serde_json::Value>| rows.iter().filter(|row| row["code"] == "caller_revoked").count();
        (cut(entries.site.gateway.audit()) == 3 && cut(entries.site.agent.audit()) == 3).then_some(())
    })
    .await;
    assert!(entries.open(Way::CertifiedConnect, "echo", "").await.is_err());
}

#[tokio::test]
async fn e8_a_stream_does_not_outlive_the_certificate_that_opened_it() {
    let echo = Target::echo().await;
    let entries = Entries::new(&[("echo", echo.address())]).await;
    let ends = OffsetDateTime::now_utc() + time::Duration::seconds(4);
    let brief = entries.vendor.connector(Some(&entries.vendor.client_until(CERTIFIED, ends)));
    let mut by_token = entries.open(Way::ConnectTls, "echo", &entries.token("ci", "acme/dc1/*", &[]).await.text).await.unwrap();
    let mut open = Vec::new();
    for way in [Way::Certified, Way::CertifiedConnect, Way::CertifiedSocks5] {
        let mut io = entries.open_from("127.0.0.1", way, "echo", "", &brief).await.unwrap();
        echoed(&mut io, b"before").await;
        open.push(io);
    }
    for io in &mut open {
        is_cut("a stream of an expired certificate", io).await;
    }
    assert!(OffsetDateTime::now_utc() >= ends - time::Duration::seconds(1), "not before its time");
    echoed(&mut by_token, b"after").await;
}
