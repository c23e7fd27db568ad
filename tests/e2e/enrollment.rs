//! Enrollment under attack: tokens used twice, raced, expired and guessed, requests that ask for more than a key, and what
//! crashes leave. Refuses to know the tunnel.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use underpass::wire::token::EnrollmentToken;

use crate::fixtures::peer::{ENROLL, client_config, dial};
use crate::harness::process::Program;
use crate::harness::site::{Agent, Gateway, TRUST_DOMAIN};
use crate::harness::{SOON, Scratch, eventually};

async fn gateway() -> Gateway {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    gateway
}

/// The secret inside a token, as it travels.
fn secret_of(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(EnrollmentToken::parse(token).unwrap().secret.expose())
}

/// POSTs bytes to the enrollment route: the status and the answer.
async fn post(gateway: &Gateway, body: &[u8]) -> (u16, Value) {
    let mut stream = dial(gateway, client_config(gateway, None, &[ENROLL]).into()).await.unwrap();
    let length = body.len();
    let head = format!("POST /v1/enroll HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
    // An answer may come before the whole body was taken.
    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await;
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("enrollment answers");
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("an answer: {answer:?}")).parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn redeem(gateway: &Gateway, secret: &str, csr: &[u8], name: &str) -> (u16, Value) {
    let body = json!({"secret": secret, "csr": STANDARD.encode(csr), "name": name});
    post(gateway, body.to_string().as_bytes()).await
}

/// A fresh request by openssl, with more arguments.
async fn csr(more: &[&str]) -> Vec<u8> {
    let scratch = Scratch::new();
    let out = scratch.path("csr");
    let key: &[&str] = if more.contains(&"-newkey") { &[] } else { &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"] };
    let make = Program::new("openssl").args(["req", "-new", "-nodes", "-subj", "/CN=mine", "-outform", "DER", "-keyout"]);
    make.arg(scratch.path("key")).arg("-out").arg(&out).args(key).args(more).run().await.ok();
    std::fs::read(out).unwrap()
}

fn code(answer: &Value) -> &str {
    answer["code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn s6_a_token_serves_one_key_and_that_one_again() {
    let gateway = gateway().await;
    let secret = secret_of(&gateway.token("acme", "dc1").await);
    let (mine, other) = (csr(&[]).await, csr(&[]).await);
    let (status, first) = redeem(&gateway, &secret, &mine, "a1").await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(first["agent"], "acme/dc1/a1");
    let (status, again) = redeem(&gateway, &secret, &mine, "a1").await;
    assert_eq!((status, &again["chain"]), (200, &first["chain"]), "a lost answer is given again");
    let (status, refused) = redeem(&gateway, &secret, &other, "a1").await;
    assert_eq!((status / 100, code(&refused)), (4, "token_refused"), "{refused}");
    gateway.audited("enrolled", |row| row["agent"] == "acme/dc1/a1").await;
    gateway.audited("enroll_refused", |row| row["code"] == "token_refused").await;
}

#[tokio::test]
async fn s6_fifty_that_race_for_a_token_get_one_certificate() {
    let gateway = gateway().await;
    let secret = secret_of(&gateway.token("acme", "dc1").await);
    let mut csrs = Vec::new();
    for _ in 0..50 {
        csrs.push(csr(&[]).await);
    }
    let race = csrs.iter().enumerate().map(|(at, csr)| {
        let (secret, gateway) = (&secret, &gateway);
        async move { redeem(gateway, secret, csr, &format!("a{at}")).await }
    });
    let answers = futures_util::future::join_all(race).await;
    let won = answers.iter().filter(|(status, _)| *status == 200).count();
    // Those beyond the limit of attempts were not even tried; but never more than one won.
    assert_eq!(won, 1, "{answers:?}");
    let enrolled = gateway.audit().iter().filter(|row| row["event"] == "enrolled").count();
    assert_eq!(enrolled, 1);
}

#[tokio::test]
async fn s6_an_expired_token_is_refused() {
    let gateway = gateway().await;
    let create = ["token", "create", "--tenant", "acme", "--group", "dc1", "--ttl", "1s"];
    let token = gateway.admin(&create).run().await.ok();
    let expires = EnrollmentToken::parse(&token).unwrap().expires;
    eventually("the token is past its time", SOON, async || (time::OffsetDateTime::now_utc() > expires).then_some(())).await;
    let (status, refused) = redeem(&gateway, &secret_of(&token), &csr(&[]).await, "a1").await;
    assert_eq!((status / 100, code(&refused)), (4, "token_expired"), "{refused}");
    let agent = Agent::blank(&gateway, "a1");
    let told = agent.enrollment(&token).run().await.exits(77);
    assert!(told.stderr.contains("token_expired"), "{}", told.stderr);
}

#[tokio::test]
async fn s6_guessing_is_limited_and_audited() {
    let gateway = gateway().await;
    let request = csr(&[]).await;
    let mut codes = Vec::new();
    for guess in 0..12u8 {
        let (status, answer) = redeem(&gateway, &URL_SAFE_NO_PAD.encode([guess; 32]), &request, "a1").await;
        assert_eq!(status / 100, 4, "{answer}");
        codes.push(code(&answer).to_owned());
    }
    assert_eq!(codes[..5], ["token_refused"; 5].map(str::to_owned), "{codes:?}");
    assert_eq!(codes[6..], ["enroll_limited"; 6].map(str::to_owned), "{codes:?}");
    gateway.audited("enroll_refused", |row| row["code"] == "enroll_limited").await;
    assert!(!gateway.agents().await.to_string().contains("\"a1\""));
}

#[tokio::test]
async fn s7_only_the_key_of_a_request_counts() {
    let gateway = gateway().await;
    for (name, more) in [
        ("plain", &[][..]),
        ("ca", &["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign"]),
        ("other-agent", &["-addext", "subjectAltName=URI:spiffe://corp.test/tenant/other/group/g/agent/a"]),
        (
            "gateway",
            &["-addext", "subjectAltName=URI:spiffe://corp.test/gateway/gw1", "-addext", "extendedKeyUsage=serverAuth"],
        ),
        ("wildcard", &["-addext", "subjectAltName=DNS:*,DNS:*.example.com,IP:127.0.0.1", "-subj", "/CN=*"]),
    ] {
        // Each has a gateway's minute of attempts to itself only in the end; five are allowed.
        let secret = secret_of(&gateway.token("acme", "dc1").await);
        let (status, answer) = redeem(&gateway, &secret, &csr(more).await, name).await;
        if status != 200 {
            assert_eq!(code(&answer), "csr_invalid", "{name}: {answer}");
            continue;
        }
        only_ours(name, answer["chain"].as_str().unwrap());
    }
}

/// Checks that a certificate says what the gateway decides and nothing else.
fn only_ours(name: &str, chain: &str) {
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
    let leaf = pem.parse_x509().unwrap();
    assert!(!leaf.is_ca(), "{name}");
    let names: Vec<_> =
        leaf.subject_alternative_name().unwrap().unwrap().value.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, [format!("URI(spiffe://{TRUST_DOMAIN}/tenant/acme/group/dc1/agent/{name})")]);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any && usage.other.is_empty(), "{name}: {usage:?}");
    assert!(!leaf.subject().to_string().contains("mine") && !leaf.subject().to_string().contains('*'), "{}", leaf.subject());
    let days = (leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()) / 86_400;
    assert!((29..=31).contains(&days), "{name}: {days} days");
}

#[tokio::test]
async fn s7_no_weak_broken_or_oversized_request_is_taken() {
    let gateway = gateway().await;
    let secret = secret_of(&gateway.token("acme", "dc1").await);
    let good = csr(&[]).await;
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let long = format!("subjectAltName=DNS:{}", vec!["a".repeat(60); 200].join(",DNS:"));
    // Each source has five attempts a minute, so this is the most that one gateway answers.
    for (what, request) in [
        ("RSA 1024", csr(&["-newkey", "rsa:1024"]).await),
        ("P-384", csr(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]).await),
        ("a forged signature", forged),
        ("huge extensions", csr(&["-addext", &long]).await),
    ] {
        let (status, answer) = redeem(&gateway, &secret, &request, "a1").await;
        assert_eq!(status / 100, 4, "{what}: {answer}");
        assert!(["csr_invalid", ""].contains(&code(&answer)), "{what}: {answer}");
    }
    let (status, answer) = redeem(&gateway, &secret, &good, "a1").await;
    assert_eq!(status, 200, "the token is not used up: {answer}");
}

#[tokio::test]
async fn s7_bodies_that_are_no_request_are_refused() {
    let gateway = gateway().await;
    let deep = format!("{{\"secret\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    for body in [&b"{"[..], deep.as_bytes(), &vec![b' '; 20_000]] {
        let (status, answer) = post(&gateway, body).await;
        assert!((400..500).contains(&status), "{status} {answer}");
    }
    let agent = Agent::enroll(&gateway, "a1").await;
    assert!(agent.dir().join("agent.pem").exists());
}

#[tokio::test]
async fn r2_a_name_with_control_characters_forges_no_line() {
    let mut gateway = gateway().await;
    let secret = secret_of(&gateway.token("acme", "dc1").await);
    let evil = "a\r\n{\"event\":\"enrolled\"}\u{1b}[31m";
    let (status, _) = redeem(&gateway, &secret, &csr(&[]).await, evil).await;
    assert_eq!(status / 100, 4);
    assert!(gateway.audit().iter().all(|row| row["event"] != "enrolled"));
    let log = gateway.process().stderr();
    assert!(!log.contains('\u{1b}') && log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
}

#[tokio::test]
async fn r1_what_was_answered_is_on_disk_when_the_gateway_is_killed() {
    let mut gateway = gateway().await;
    let token = gateway.token("acme", "dc1").await;
    gateway.process().kill();
    assert_eq!(gateway.audit().iter().filter(|row| row["event"] == "token_created").count(), 1);
    gateway.start().await;
    let agent = Agent::blank(&gateway, "a1");
    agent.enrollment(&token).run().await.ok();
    gateway.process().kill();
    assert_eq!(gateway.audit().iter().filter(|row| row["event"] == "enrolled").count(), 1);
    gateway.start().await;
    assert!(gateway.agents().await.to_string().contains("a1"));
    gateway.revoke("acme/dc1/a1").await.ok();
    gateway.process().kill();
    assert_eq!(gateway.audit().iter().filter(|row| row["event"] == "revoked").count(), 1);
}

#[tokio::test]
async fn a_token_for_another_pin_enrolls_nobody() {
    let (one, two) = (gateway().await, gateway().await);
    // The second gateway's pin with the first one's address: a token that somebody has tampered with would look like this.
    let mut token = EnrollmentToken::parse(&two.token("acme", "dc1").await).unwrap();
    token.endpoints = vec![one.endpoint().parse().unwrap()];
    let agent = Agent::blank(&one, "a1");
    let refused = agent.enrollment(token.encode().expose()).run().await;
    assert_ne!(refused.code(), 0);
    assert!(refused.stderr.contains("tls_intercepted"), "{}", refused.stderr);
    assert!(!agent.dir().join("agent.pem").exists());
    let half = &two.token("acme", "dc1").await[..60];
    let refused = agent.enrollment(half).run().await.exits(64);
    assert!(refused.stderr.contains("token_invalid") && !refused.stderr.contains(&half[30..]), "{}", refused.stderr);
}

#[tokio::test]
async fn a_token_may_come_by_standard_input() {
    let gateway = gateway().await;
    let (agent, token) = (Agent::blank(&gateway, "a1"), gateway.token("acme", "dc1").await);
    agent.command(&["agent", "enroll", "--token-file", "-"]).stdin(token + "\n").run().await.ok();
    assert!(agent.dir().join("agent.pem").exists());
    let other = Agent::blank(&gateway, "a2");
    let token = gateway.token("acme", "dc1").await;
    other.command(&["agent", "activate", "--token-file", "-"]).stdin(token).run().await.ok();
}
