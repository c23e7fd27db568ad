//! Who is taken for an agent and who for a gateway: every wrong certificate, resumption, and nothing but the pinned root.
//! Refuses to know enrollment.

use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls::HandshakeKind;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::fixtures::certificates::{Identity, Signer, uri};
use crate::fixtures::peer::{ENROLL, Peer, TUNNEL, UPGRADE, client_config, dial, dial_afresh, read_head};
use crate::harness::site::{Agent, Gateway, Site, TRUST_DOMAIN};
use crate::harness::target::{Target, echoes};
use crate::harness::{SOON, eventually};

/// What a client with this certificate gets: the error that ended it, and how many bytes of application data came before.
async fn refusal(gateway: &Gateway, identity: Option<&Identity>, alpn: &[&[u8]]) -> (String, usize) {
    let mut stream = match dial_afresh(gateway, client_config(gateway, identity, alpn).into()).await {
        Ok(stream) => stream,
        Err(error) => return (error.to_string(), 0),
    };
    // TLS 1.3 tells a client only after its side of the handshake; what it sends meanwhile counts for nothing.
    let _ = stream.write_all(b"GET /v1/tunnel HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut received = Vec::new();
    let end = timeout(SOON, stream.read_to_end(&mut received)).await.expect("it is refused");
    (end.map_or_else(|error| error.to_string(), |_| "end of file".to_owned()), received.len())
}

/// Checks that each identity is refused by a TLS alert without a byte of data, audited, and that the site serves on.
pub(crate) async fn all_refused(wrong: Vec<(&str, Option<Identity>)>, site: &Site) {
    let agents = site.gateway.agents().await.to_string();
    let refusals = || site.gateway.audit().iter().filter(|row| row["event"] == "connect_refused").count();
    for (what, identity) in wrong {
        let before = refusals();
        let (error, received) = refusal(&site.gateway, identity.as_ref(), &[TUNNEL]).await;
        assert!(error.contains("fatal alert"), "{what}: {error}");
        assert_eq!(received, 0, "{what}: application data");
        eventually(&format!("{what}: the refusal is audited"), SOON, async || (refusals() > before).then_some(())).await;
    }
    assert_eq!(site.gateway.agents().await.to_string().matches("a1").count(), agents.matches("a1").count(), "no state left");
    let mut client = site.client("echo").await;
    timeout(SOON, echoes(&mut client, b"still serving")).await.unwrap().unwrap();
}

/// A site with a target that echoes.
pub(crate) async fn site() -> (Site, Target) {
    let echo = Target::echo().await;
    (Site::new(&[("echo", echo.address())]).await, echo)
}

/// The tests' own makings are right where they are not made wrong: with nothing edited, the gateway takes the certificate.
async fn accepted(site: &Site, identity: &Identity) {
    Peer::greeted(&site.gateway, identity).await.expect("a right certificate is taken");
}

#[tokio::test]
async fn s1_no_wrong_client_certificate_is_taken() {
    let (site, _echo) = site().await;
    let ours = Signer::of(&site.gateway);
    accepted(&site, &ours.leaf(|_| ())).await;
    let enrolled = Identity::of_agent(&site.agent);
    accepted(&site, &enrolled).await;

    let now = OffsetDateTime::now_utc();
    let under_a_leaf = ours.signer(|params| params.is_ca = IsCa::ExplicitNoCa);
    let under_a_non_signer = ours.signer(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let deeper = ours.signer(|_| ());
    let mut swapped = enrolled.clone();
    swapped.chain = ours.leaf(|_| ()).chain;
    let wrong = vec![
        ("no certificate", None),
        ("a public CA's", Some(Signer::stranger(|_| ()).leaf(|_| ()))),
        (
            "expired",
            Some(ours.leaf(|params| {
                params.not_before = now - Duration::days(2);
                params.not_after = now - Duration::minutes(1);
            })),
        ),
        ("not yet valid", Some(ours.leaf(|params| params.not_before = now + Duration::hours(1)))),
        ("a server's EKU", Some(ours.leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]))),
        ("no EKU", Some(ours.leaf(|params| params.extended_key_usages.clear()))),
        ("signed by an agent", Some(under_a_leaf.leaf(|_| ()))),
        ("signed by a CA without keyCertSign", Some(under_a_non_signer.leaf(|_| ()))),
        ("signed by a CA below the issuing CA", Some(deeper.leaf(|_| ()))),
        ("signed by a namesake of our CA", Some(ours.namesake().leaf(|_| ()))),
    ];
    all_refused(wrong, &site).await;
    // A client can't even be built that sends a certificate without its key; this one signs with another key.
    assert!(
        rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_client_auth_cert(swapped.chain, swapped.key)
            .is_err()
    );
}

#[tokio::test]
async fn s2_no_role_passes_for_another() {
    let (site, _echo) = site().await;
    let ours = Signer::of(&site.gateway);
    let mut other = Gateway::init().await;
    other.start().await;
    let foreign = Agent::enroll(&other, "a1").await;
    let role = |role: &str| Some(ours.leaf(|params| params.subject_alt_names = vec![uri(role)]));
    let td = TRUST_DOMAIN;
    let agent = format!("spiffe://{td}/tenant/acme/group/dc1/agent/a1");
    let wrong = vec![
        ("an agent of another CA of the same name", Some(Identity::of_agent(&foreign))),
        ("the gateway's own", Some(Identity::of_gateway(&site.gateway))),
        ("a gateway's role", role(&format!("spiffe://{td}/gateway/gw1"))),
        ("another trust domain", role("spiffe://evil.test/tenant/acme/group/dc1/agent/a1")),
        ("a trust domain that begins like ours", role(&format!("spiffe://{td}.evil.test/tenant/acme/group/dc1/agent/a1"))),
        ("a path with more", role(&format!("{agent}/more"))),
        ("a path with an empty part", role(&format!("spiffe://{td}/tenant//group/dc1/agent/a1"))),
        ("a path with upper case", role(&format!("spiffe://{td}/tenant/ACME/group/dc1/agent/a1"))),
        ("a path with an escape", role(&format!("spiffe://{td}/tenant/acme%2f/group/dc1/agent/a1"))),
        ("a query", role(&format!("{agent}?x=y"))),
        ("another scheme", role(&agent.replace("spiffe:", "https:"))),
        ("no role", Some(ours.leaf(|params| params.subject_alt_names.clear()))),
        ("two roles", Some(ours.leaf(|params| params.subject_alt_names.push(uri(&agent.replace("acme", "other")))))),
        ("both EKUs", Some(ours.leaf(|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)))),
        ("any EKU", Some(ours.leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]))),
    ];
    all_refused(wrong, &site).await;
}

/// What the agent says of a server with this certificate in the place of its gateway.
async fn impostor(site: &mut Site, identity: Identity) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("wss://{}", listener.local_addr().unwrap());
    site.agent.configure_endpoint(&endpoint, "");
    site.agent.launch();
    let session = async {
        while let Err(_refused) = Peer::accept(&listener, &identity).await {}
        panic!("the agent greeted an impostor");
    };
    let error = eventually("the agent says why", SOON, async || {
        let session = site.agent.session().await?;
        let error = &session["last_error"];
        Some((error["code"].as_str()?.to_owned(), error["detail"].as_str()?.to_owned()))
    });
    tokio::select! {
        never = session => never,
        error = error => error,
    }
}

#[tokio::test]
async fn s2_s3_an_agent_takes_no_server_but_its_gateway() {
    let (mut site, _echo) = site().await;
    let ours = Signer::of(&site.gateway);
    let server = |role: &str| {
        ours.leaf(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![uri(role), rcgen::SanType::IpAddress([127, 0, 0, 1].into())];
        })
    };
    let gateway = format!("spiffe://{TRUST_DOMAIN}/gateway/gw1");
    let stranger = Signer::stranger(|params| params.distinguished_name.push(rcgen::DnType::OrganizationName, "Inspectors"));
    for (what, identity, code) in [
        ("an agent's certificate", Identity::of_agent(&site.agent), ""),
        ("an agent's role", server(&format!("spiffe://{TRUST_DOMAIN}/tenant/acme/group/dc1/agent/a1")), "gateway_identity"),
        ("another trust domain's", server("spiffe://evil.test/gateway/gw1"), "gateway_identity"),
        (
            "another name",
            ours.leaf(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                params.subject_alt_names = vec![uri(&gateway), rcgen::SanType::IpAddress([127, 0, 0, 9].into())];
            }),
            "gateway_name",
        ),
        (
            "expired",
            ours.leaf(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                params.subject_alt_names = vec![uri(&gateway), rcgen::SanType::IpAddress([127, 0, 0, 1].into())];
                params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
                params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
            }),
            "certificate_expired",
        ),
        (
            "a stranger's",
            stranger.leaf(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                params.subject_alt_names = vec![uri(&gateway), rcgen::SanType::IpAddress([127, 0, 0, 1].into())];
            }),
            "tls_intercepted",
        ),
    ] {
        let (got, detail) = impostor(&mut site, identity).await;
        assert!(code.is_empty() || got == code, "{what}: {got} instead of {code}: {detail}");
        if code == "tls_intercepted" {
            assert!(detail.contains("Inspectors"), "names the issuer: {detail}");
        }
    }
    // And the real one in the same place is taken.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    site.agent.configure_endpoint(&format!("wss://{}", listener.local_addr().unwrap()), "");
    site.agent.launch();
    let identity = Identity::of_gateway(&site.gateway);
    let _peer = Peer::accept(&listener, &identity).await.expect("the real gateway's certificate is taken");
    site.agent.connected().await;
}

#[tokio::test]
async fn s1_a_protocol_is_chosen_by_its_alpn_alone() {
    let (site, _echo) = site().await;
    let enrolled = Identity::of_agent(&site.agent);
    for (what, alpn) in [
        ("none", &[][..]),
        ("an unknown one", &[&b"h2"[..]][..]),
        ("two of ours", &[TUNNEL, ENROLL][..]),
        ("two of ours and another", &[b"h2", ENROLL, TUNNEL][..]),
    ] {
        let (error, received) = refusal(&site.gateway, Some(&enrolled), alpn).await;
        assert!(error.contains("alert") || error.contains("eof") || error.contains("reset"), "{what}: {error}");
        assert_eq!(received, 0, "{what}");
    }
    // Enrollment's connection leads to no tunnel.
    let mut stream = dial(&site.gateway, client_config(&site.gateway, Some(&enrolled), &[ENROLL]).into()).await.unwrap();
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    timeout(SOON, stream.read_exact(&mut first)).await.unwrap().unwrap();
    assert!(first.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&first));
}

#[tokio::test]
async fn s8_no_session_is_resumed_so_a_revoked_agent_cannot_slip_in() {
    let (site, _echo) = site().await;
    let identity = Identity::of_agent(&site.agent);
    // One configuration, so that the client keeps and offers whatever tickets it is given.
    let mut config = client_config(&site.gateway, Some(&identity), &[TUNNEL]);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let mut stream = dial(&site.gateway, config.clone()).await.unwrap();
        stream.write_all(UPGRADE.as_bytes()).await.unwrap();
        let answer = read_head(&mut stream).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "the certificate was taken: {answer}");
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connection.tls13_tickets_received(), 0, "no ticket is given out");
        assert!(!connection.is_early_data_accepted());
    }
    site.gateway.revoke("acme/dc1/a1").await.ok();
    let mut stream = dial(&site.gateway, config).await.unwrap();
    let _ = stream.write_all(UPGRADE.as_bytes()).await;
    let mut answer = Vec::new();
    let end = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(end.is_err() && answer.is_empty(), "{end:?}");
}
