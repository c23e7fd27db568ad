//! Tests of real handshakes in memory: every certificate of the hostile recipe against both verifiers.

mod clients;

use std::collections::HashSet;
use std::io;

use rustls::client::danger::ServerCertVerifier;
use rustls::{HandshakeKind, ProtocolVersion};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::server::TlsStream as ServerStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector};

use super::*;
use crate::base::endpoint::Endpoint;
use crate::pki::authority::Authority;
use crate::pki::hostile::{self, Presented};
use crate::pki::request::{PrivateKey, RequestedKey};

const HOST: &str = "gateway.example";
const AGENT: &str = "acme/dc1/a1";

/// A gateway, an agent of it, and a thief who has the CA's keys.
struct World {
    authority: Authority,
    thief: hostile::Authority,
    revocations: Revocations,
    gateway: GatewayTls,
    credential: Credential,
    agent: AgentTls,
}

impl World {
    fn new() -> Self {
        let (dir, now) = (tempfile::tempdir().unwrap(), OffsetDateTime::now_utc());
        let authority = Authority::init(dir.path(), &"acme.example".parse().unwrap(), now).unwrap();
        let revocations = Revocations::new();
        let gateway = GatewayTls::new(authority.root(), &gateway_of(&authority), revocations.clone()).unwrap();
        let credential = agent_of(&authority);
        let agent = AgentTls::new(&credential, authority.root()).unwrap();
        let thief = hostile::Authority::stolen(dir.path(), "acme.example");
        Self { authority, thief, revocations, gateway, credential, agent }
    }

    /// A client that shows anything, and takes any gateway of ours.
    fn client_showing(&self, shown: Presented) -> ClientConfig {
        let verifier = Arc::new(AgentVerifier::new(self.authority.root(), None, &provider()).unwrap());
        // The plain way would look into the certificate, and refuse the strangest ones on the client's side already.
        let shown = CertifiedKey::new(shown.chain, aws_lc_rs::sign::any_ecdsa_type(&shown.key).unwrap());
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
        with_alpn(client_builder().dangerous().with_custom_certificate_verifier(verifier).with_client_cert_resolver(resolver))
    }
}

fn gateway_of(authority: &Authority) -> Credential {
    let endpoints: Vec<Endpoint> =
        ["wss://gateway.example", "wss://10.1.2.3", "wss://[fd00::1]"].map(|text| text.parse().unwrap()).into();
    authority.issue_gateway(&"gw1".parse().unwrap(), &endpoints, OffsetDateTime::now_utc()).unwrap()
}

fn agent_of(authority: &Authority) -> Credential {
    let key = PrivateKey::generate().unwrap();
    let requested = RequestedKey::from_csr(&key.csr_der().unwrap()).unwrap();
    let lifetime = std::time::Duration::from_secs(30 * 86400);
    let issued = authority.issue_agent(&AGENT.parse().unwrap(), &requested, lifetime, OffsetDateTime::now_utc()).unwrap();
    Credential::from_pem(&issued.chain_pem, key).unwrap()
}

fn private_key_of(key: &PrivateKey) -> PrivateKeyDer<'static> {
    key.pkcs8_der().into()
}

fn with_alpn(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    config
}

fn server_showing(shown: Presented) -> Arc<ServerConfig> {
    let mut config = server_builder(Arc::new(NoClientAuth)).with_single_cert(shown.chain, shown.key).unwrap();
    config.alpn_protocols = vec![ALPN_TUNNEL.to_vec(), ALPN_ENROLL.to_vec()];
    Arc::new(config)
}

fn at(host: &str) -> HostPort {
    format!("{host}:443").parse().unwrap()
}

type ClientStream = tokio_rustls::client::TlsStream<DuplexStream>;

/// What each side got: the gateway the client's bytes, the client the gateway's.
struct Met {
    server: Result<(ServerStream<DuplexStream>, Vec<u8>), io::Error>,
    client: Result<(ClientStream, Vec<u8>), io::Error>,
}

impl Met {
    fn is_ok(&self) -> bool {
        self.server.is_ok() && self.client.is_ok()
    }

    /// What the gateway would log; that it got a byte of the client is a failure of the test.
    fn refusal(&self) -> Failure {
        refusal_of(self.server.as_ref().map(drop).unwrap_err())
    }

    /// What the agent would log.
    fn explanation(&self) -> Failure {
        explain(self.client.as_ref().map(drop).unwrap_err(), &at(HOST))
    }
}

/// Both sides shake hands, say something and hear the other.
async fn meet(server: Arc<ServerConfig>, client: Arc<ClientConfig>, host: &str) -> Met {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_all(b"from gateway").await?;
        let mut heard = vec![0; 10];
        stream.read_exact(&mut heard).await?;
        Ok((stream, heard))
    };
    let dial = async {
        let mut stream = TlsConnector::from(client).connect(server_name(&at(host)).unwrap(), near).await?;
        stream.write_all(b"from agent").await?;
        stream.flush().await?;
        let mut heard = vec![0; 12];
        stream.read_exact(&mut heard).await?;
        Ok((stream, heard))
    };
    let (server, client) = tokio::join!(serve, dial);
    Met { server, client }
}

#[tokio::test]
async fn an_agent_and_a_gateway_know_each_other_by_name_or_address() {
    let world = World::new();
    for host in [HOST, "10.1.2.3", "[fd00::1]"] {
        let met = meet(world.gateway.tunnel(), world.agent.client_config(), host).await;
        let (server, heard) = met.server.unwrap();
        assert_eq!(heard, b"from agent");
        let (client, heard) = met.client.unwrap();
        assert_eq!(heard, b"from gateway");
        let (agent, gateway) = (peer_identity(server.get_ref().1).unwrap(), peer_identity(client.get_ref().1).unwrap());
        assert_eq!(agent, *world.credential.identity());
        assert_eq!(gateway.role.to_string(), "spiffe://acme.example/gateway/gw1");
        let connection = client.get_ref().1;
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(connection.negotiated_cipher_suite().unwrap().suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(connection.alpn_protocol(), Some(ALPN_TUNNEL));
        assert_eq!(connection.peer_certificates().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn s1_s2_a_certificate_that_is_not_an_agents_of_this_pki_gets_no_byte_through() {
    let world = World::new();
    let hostile = hostile::as_client(&world.thief, AGENT, OffsetDateTime::now_utc());
    assert!(hostile.len() > 30);
    for shown in hostile {
        let name = shown.name;
        let expected =
            if matches!(name, "expired" | "not yet valid") { Code::CertificateExpired } else { Code::CertificateRefused };
        let met = meet(world.gateway.tunnel(), Arc::new(world.client_showing(shown)), HOST).await;
        assert_eq!(met.refusal().code, expected, "{name}: {}", met.refusal());
        assert_eq!(met.explanation().code, expected, "{name}: {}", met.explanation());
    }
    let good = world.thief.agent(AGENT);
    assert!(
        meet(world.gateway.tunnel(), Arc::new(world.client_showing(good)), HOST).await.is_ok(),
        "the recipe's good agent is let in"
    );
}

#[tokio::test]
async fn s1_without_a_certificate_there_is_no_tunnel() {
    let world = World::new();
    let verifier = Arc::new(AgentVerifier::new(world.authority.root(), None, &provider()).unwrap());
    let config = client_builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let met = meet(world.gateway.tunnel(), Arc::new(with_alpn(config)), HOST).await;
    assert_eq!(met.refusal().code, Code::CertificateRefused);
    assert_eq!(met.explanation().code, Code::CertificateRefused);
    assert!(met.refusal().detail.contains("no client certificate"), "{}", met.refusal());
}

#[tokio::test]
async fn cve_2024_45337_s1_another_agents_certificate_without_its_key_is_of_no_use() {
    let world = World::new();
    let own = private_key_of(&PrivateKey::generate().unwrap());
    let stolen = Presented { name: "stolen", chain: world.credential.chain().to_vec(), key: own };
    let met = meet(world.gateway.tunnel(), Arc::new(world.client_showing(stolen)), HOST).await;
    assert_eq!(met.refusal().code, Code::CertificateRefused);
}

#[tokio::test]
async fn s2_a_server_that_is_not_our_gateway_gets_no_byte_of_the_agent() {
    let world = World::new();
    let hostile = hostile::as_server(&world.thief, HOST, OffsetDateTime::now_utc());
    assert!(hostile.len() > 18);
    for shown in hostile {
        let name = shown.name;
        let expected: &[Code] = match name {
            "expired" | "not yet valid" => &[Code::CertificateExpired],
            "another host's name" | "an agent as a gateway" => &[Code::GatewayName, Code::GatewayIdentity],
            "another CA of the same trust domain"
            | "another PKI's CA with our chain appended"
            | "self-signed"
            | "self-signed with our root's subject"
            | "the same subjects with other keys"
            | "a chain of many certificates" => &[Code::TlsIntercepted],
            "signed by an agent" | "a CA below the issuing CA" => &[Code::TlsIntercepted],
            _ => &[Code::GatewayIdentity],
        };
        let met = meet(server_showing(shown), world.agent.client_config(), HOST).await;
        let explanation = met.explanation();
        assert!(expected.contains(&explanation.code), "{name}: {explanation}");
        assert!(met.server.is_err(), "{name}: the server heard the agent");
    }
    let good = world.thief.gateway("gw1", HOST);
    assert!(meet(server_showing(good), world.agent.client_config(), HOST).await.is_ok(), "the recipe's good gateway is taken");
}

#[tokio::test]
async fn s3_a_public_cas_certificate_for_the_gateways_name_is_refused() {
    let world = World::new();
    let public = hostile::Authority::fresh("public.example");
    let met = meet(server_showing(public.gateway("gw1", HOST)), world.agent.client_config(), HOST).await;
    assert_eq!(met.explanation().code, Code::TlsIntercepted);
    assert!(met.server.is_err());
}

#[tokio::test]
async fn s4_an_inspecting_proxy_is_named_by_its_issuer_and_subject() {
    let world = World::new();
    let inspector = hostile::Authority::fresh("inspector.example");
    for client in [world.agent.client_config(), enroll_client(world.authority.pin()).0] {
        let met = meet(server_showing(inspector.gateway("gw1", HOST)), client, HOST).await;
        let explanation = met.explanation();
        assert_eq!(explanation.code, Code::TlsIntercepted);
        assert!(explanation.detail.contains("gateway.example:443"), "{explanation}");
        assert!(explanation.detail.contains("issuer=\"CN=hostile issuing\" subject=\"CN=leaf\""), "{explanation}");
        assert!(met.server.is_err());
    }
}

#[tokio::test]
async fn s4_an_inspector_is_named_even_if_its_certificate_is_bad_in_other_ways_too() {
    let world = World::new();
    let inspector = hostile::Authority::fresh("inspector.example");
    for shown in hostile::as_server(&inspector, "elsewhere.example", OffsetDateTime::now_utc()) {
        let name = shown.name;
        let met = meet(server_showing(shown), world.agent.client_config(), HOST).await;
        assert_eq!(met.explanation().code, Code::TlsIntercepted, "{name}: {}", met.explanation());
    }
}

#[tokio::test]
async fn s8_no_session_is_resumed_so_a_revocation_counts_at_once() {
    let world = World::new();
    let mut client = world.client_showing(Presented {
        name: "the agent",
        chain: world.credential.chain().to_vec(),
        key: private_key(&world.credential),
    });
    client.resumption = Resumption::in_memory_sessions(8);
    client.enable_early_data = true;
    let client = Arc::new(client);
    for attempt in 0..2 {
        let (stream, _) = meet(world.gateway.tunnel(), client.clone(), HOST).await.client.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "attempt {attempt}");
        assert!(!stream.get_ref().1.is_early_data_accepted());
    }
    let serial = world.credential.identity().serial;
    world.revocations.publish(HashSet::from([serial]));
    let met = meet(world.gateway.tunnel(), client.clone(), HOST).await;
    assert_eq!(met.refusal().code, Code::Revoked);
    assert!(met.refusal().detail.contains(AGENT.rsplit('/').next().unwrap()), "{}", met.refusal());
    assert!(met.refusal().detail.contains(&serial.to_string()), "{}", met.refusal());
    let explanation = met.explanation();
    assert!(explanation.code == Code::CertificateRefused && explanation.detail.contains("revoked"), "{explanation}");
    world.revocations.publish(HashSet::new());
    assert!(meet(world.gateway.tunnel(), client, HOST).await.is_ok());
}

#[tokio::test]
async fn an_expired_gateway_is_told_apart_from_a_wrong_clock_by_both_times() {
    let world = World::new();
    let now = OffsetDateTime::now_utc();
    let expired = hostile::as_server(&world.thief, HOST, now).into_iter().find(|shown| shown.name == "expired").unwrap();
    let explanation = meet(server_showing(expired), world.agent.client_config(), HOST).await.explanation();
    let hour = |time: OffsetDateTime| time.format(&time::format_description::well_known::Rfc3339).unwrap()[..13].to_owned();
    assert!(explanation.detail.contains(&hour(now - time::Duration::hours(1))), "{explanation}");
    assert!(explanation.detail.contains(&hour(now)), "{explanation}");
}

#[tokio::test]
async fn a_renewed_gateway_certificate_is_shown_from_the_next_handshake_on() {
    let world = World::new();
    let (first, _) = meet(world.gateway.tunnel(), world.agent.client_config(), HOST).await.client.unwrap();
    let renewed = gateway_of(&world.authority);
    world.gateway.replace(&renewed).unwrap();
    let (second, _) = meet(world.gateway.tunnel(), world.agent.client_config(), HOST).await.client.unwrap();
    assert_eq!(peer_identity(second.get_ref().1).unwrap().serial, renewed.identity().serial);
    assert_ne!(peer_identity(first.get_ref().1).unwrap().serial, renewed.identity().serial);
}

#[tokio::test]
async fn enrollment_trusts_the_pinned_root_and_learns_it() {
    let world = World::new();
    let (config, root) = enroll_client(world.authority.pin());
    let (client, _) = meet(world.gateway.enroll(), config, HOST).await.client.unwrap();
    let (learnt, trust_domain) = root.of(client.get_ref().1).unwrap();
    assert_eq!((&learnt, &trust_domain), (world.authority.root(), world.authority.trust_domain()));
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(ALPN_ENROLL));
    assert!(AgentTls::new(&world.credential, &learnt).is_ok());
}

#[tokio::test]
async fn s2_at_enrollment_a_matching_hash_elsewhere_counts_for_nothing() {
    let world = World::new();
    let foreign = hostile::Authority::fresh("acme.example");
    let with_chain = |shown: Presented, chain: &[&CertificateDer<'static>]| Presented {
        chain: shown.chain.iter().take(1).chain(chain.iter().copied()).cloned().collect(),
        ..shown
    };
    let (ours, theirs) = (&world.thief, &foreign);
    let pinned = |der: &CertificateDer<'static>| enroll_client(Pin::of(der).unwrap()).0;
    let good = || ours.gateway("gw1", HOST);
    let leaf_pin = good();
    let cases = [
        (
            "the real root above a foreign leaf",
            with_chain(theirs.gateway("gw1", HOST), &[&theirs.issuing, &theirs.root, &ours.root]),
            pinned(&ours.root),
        ),
        ("the pin of the issuing CA", good(), pinned(&ours.issuing)),
        ("the pin of the leaf", Presented { chain: leaf_pin.chain.clone(), ..leaf_pin.copied() }, pinned(&leaf_pin.chain[0])),
        ("no root in the chain", with_chain(good(), &[&ours.issuing]), pinned(&ours.root)),
        ("another root", theirs.gateway("gw1", HOST), pinned(&ours.root)),
    ];
    for (name, shown, client) in cases {
        let met = meet(server_showing(shown), client, HOST).await;
        assert!(matches!(met.explanation().code, Code::TlsIntercepted), "{name}: {}", met.explanation());
        assert!(met.server.is_err(), "{name}");
    }
    for shown in hostile::as_server(ours, HOST, OffsetDateTime::now_utc()) {
        if shown.name == "another trust domain's gateway under our CA" {
            continue; // Whose trust domain it is, is learnt here.
        }
        let name = shown.name;
        let met = meet(server_showing(shown), pinned(&ours.root), HOST).await;
        assert!(met.client.is_err() && met.server.is_err(), "{name}");
    }
}

impl Presented {
    fn copied(&self) -> Self {
        Self { name: self.name, chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

#[tokio::test]
async fn s2_a_root_with_the_pinned_key_but_not_its_signature_is_refused() {
    let world = World::new();
    let mut forged = world.authority.root().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let forged = CertificateDer::from(forged);
    let pin = world.authority.pin();
    assert_eq!(Pin::of(&forged).unwrap(), pin);
    assert!(verify::root_with(pin, &[forged]).is_err());
    assert!(verify::root_with(pin, std::slice::from_ref(world.authority.root())).is_ok());
}

#[tokio::test]
async fn roles_do_not_pass_for_each_other() {
    let world = World::new();
    let gateway = gateway_of(&world.authority);
    assert_eq!(AgentTls::new(&gateway, world.authority.root()).unwrap_err().code, Code::StateInvalid);
    let wrong = GatewayTls::new(world.authority.root(), &world.credential, Revocations::new());
    assert_eq!(wrong.unwrap_err().code, Code::StateInvalid);
}

#[tokio::test]
async fn what_answers_instead_of_tls_is_quoted() {
    let world = World::new();
    for (answer, quoted) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nServer: portal\r\n\r\n"[..],
            "HTTP answered instead of TLS: `HTTP/1.1 400 Bad Request`",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "something else answered instead of TLS: `SSH-2.0-OpenSSH_9.2`"),
        (b"220 mail.example \x1b[2J\r\n", "`220 mail.example \\u{1b}[2J`"),
    ] {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(answer).await.unwrap();
        let connect = TlsConnector::from(world.agent.client_config())
            .connect(server_name(&at(HOST)).unwrap(), FirstBytes::new(near))
            .into_fallible();
        let (error, io) = connect.await.unwrap_err();
        assert_eq!(explain(&error, &at(HOST)).code, Code::TlsPlaintext);
        let failure = explain_plaintext(&error, io.first_bytes(), &at(HOST));
        assert_eq!(failure.code, Code::TlsPlaintext);
        assert!(failure.detail.starts_with("gateway.example:443") && failure.detail.ends_with(quoted), "{failure}");
    }
}

#[tokio::test]
async fn a_client_without_tls_and_a_silent_end_have_their_own_reasons() {
    let world = World::new();
    let (mut near, far) = tokio::io::duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = TlsAcceptor::from(world.gateway.tunnel()).accept(far).await.unwrap_err();
    assert_eq!(refusal_of(&error).code, Code::TlsPlaintext);

    let protocol_version_alert = [21, 3, 3, 0, 2, 2, 70];
    for (answer, reason) in [(&protocol_version_alert[..], "does not speak TLS 1.3"), (&[], "closed during the handshake")] {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(answer).await.unwrap();
        far.shutdown().await.unwrap();
        let connector = TlsConnector::from(world.agent.client_config());
        let error = connector.connect(server_name(&at(HOST)).unwrap(), near).await.unwrap_err();
        let failure = explain(&error, &at(HOST));
        assert!(failure.code == Code::TlsFailed && failure.detail.contains(reason), "{failure}");
    }
}

#[tokio::test]
async fn the_protocol_is_chosen_from_what_the_client_offers() {
    let world = World::new();
    let all = [ALPN_TUNNEL, ALPN_ENROLL, ALPN_CLIENT];
    let offered: [(&[&[u8]], Option<Protocol>); 9] = [
        (&[ALPN_TUNNEL], Some(Protocol::Tunnel)),
        (&[ALPN_ENROLL], Some(Protocol::Enroll)),
        (&[ALPN_CLIENT], Some(Protocol::Client)),
        (&[b"h2", ALPN_TUNNEL], Some(Protocol::Tunnel)),
        (&[], None),
        (&[b"h2"], None),
        (&[b"underpass-enroll/2"], None),
        (&[ALPN_ENROLL, ALPN_TUNNEL], None),
        (&all, None),
    ];
    for (names, expected) in offered {
        let verifier: Arc<dyn ServerCertVerifier> =
            Arc::new(AgentVerifier::new(world.authority.root(), None, &provider()).unwrap());
        let mut config = client_builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let dial = TlsConnector::from(Arc::new(config)).connect(server_name(&at(HOST)).unwrap(), near);
        let serve = async {
            let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), far).await.unwrap();
            let chosen = choose(start.client_hello().alpn());
            if let Ok(protocol) = &chosen {
                let accepted = start.into_stream(world.gateway.config(*protocol)).await;
                // The tunnel alone wants a certificate.
                assert_eq!(accepted.is_ok(), *protocol != Protocol::Tunnel);
            }
            chosen
        };
        let (_, chosen) = tokio::join!(dial, serve);
        assert_eq!(chosen.as_ref().ok(), expected.as_ref(), "{chosen:?}");
        assert!(chosen.is_ok() || chosen.is_err_and(|failure| failure.code == Code::ProtocolViolation));
    }
}

#[tokio::test]
async fn a_client_listener_shows_the_vendors_own_certificate() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("tls.pem"), dir.path().join("tls.key"));
    assert_eq!(listener_config(&certificate, &key, None, &[]).unwrap_err().code, Code::ConfigUnreadable);
    let vendor = hostile::Authority::fresh("vendor.example");
    let shown = vendor.gateway("any", "db.vendor.example");
    pem::save(&certificate, &shown.chain).unwrap();
    let own = PrivateKey::generate().unwrap();
    own.save(&key).unwrap();
    assert_eq!(listener_config(&certificate, &key, None, &[]).unwrap_err().code, Code::ConfigInvalid, "another key");
    let pkcs8 = rcgen::KeyPair::try_from(shown.key.secret_der()).unwrap();
    files::write_private(&key, pkcs8.serialize_pem().as_bytes()).unwrap();
    let config = listener_config(&certificate, &key, None, &[]).unwrap();
    let verifier = webpki_of(&vendor.root);
    let client = client_builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    assert!(meet(config, Arc::new(client), "db.vendor.example").await.is_ok());
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(listener_config(&certificate, &key, None, &[]).unwrap_err().code, Code::FilePermissions);
}

fn webpki_of(root: &CertificateDer<'static>) -> Arc<dyn ServerCertVerifier> {
    let mut store = rustls::RootCertStore::empty();
    store.add(root.clone()).unwrap();
    rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider()).build().unwrap()
}

#[test]
fn the_provider_may_be_installed_any_number_of_times() {
    install_provider();
    install_provider();
    let first = CryptoProvider::get_default().unwrap().cipher_suites[0].suite();
    assert_eq!(first, CipherSuite::TLS13_AES_128_GCM_SHA256);
}
