//! Tests of handshakes with a listener that takes the certificates of a vendor's own CA.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyUsagePurpose, NameConstraints, SanType,
};

use super::*;

const LISTENER: &str = "db.vendor.example";

/// A gateway's private PKI, a vendor's own for clients, and files of a listener.
struct Vendor {
    private: Authority,
    thief: hostile::Authority,
    own: hostile::Authority,
    dir: tempfile::TempDir,
}

impl Vendor {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let private = Authority::init(&pki, &"acme.example".parse().unwrap(), OffsetDateTime::now_utc()).unwrap();
        let vendor = Self {
            private,
            thief: hostile::Authority::stolen(&pki, "acme.example"),
            own: hostile::Authority::fresh("vendor.example"),
            dir,
        };
        let shown = vendor.own.gateway("any", LISTENER);
        pem::save(&vendor.file("tls.pem"), &shown.chain).unwrap();
        let key = rcgen::KeyPair::try_from(shown.key.secret_der()).unwrap();
        files::write_private(&vendor.file("tls.key"), key.serialize_pem().as_bytes()).unwrap();
        vendor.trust([&vendor.own.root]);
        vendor
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes these the CAs of clients.
    fn trust<'a>(&self, roots: impl IntoIterator<Item = &'a CertificateDer<'static>>) {
        pem::save(&self.file("clients.pem"), roots).unwrap();
    }

    fn listener(&self, required: bool) -> Result<Arc<ServerConfig>, Failure> {
        let file = self.file("clients.pem");
        let clients = ClientCa { file: &file, required, private: &self.private };
        listener_config(&self.file("tls.pem"), &self.file("tls.key"), Some(&clients), &[])
    }

    /// A client that shows anything, or nothing.
    fn client(&self, shown: Option<Presented>) -> ClientConfig {
        let builder = client_builder().dangerous().with_custom_certificate_verifier(webpki_of(&self.own.root));
        let Some(shown) = shown else { return builder.with_no_client_auth() };
        let shown = CertifiedKey::new(shown.chain, aws_lc_rs::sign::any_ecdsa_type(&shown.key).unwrap());
        builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)))
    }

    async fn meet(&self, required: bool, shown: Option<Presented>) -> Met {
        meet(self.listener(required).unwrap(), Arc::new(self.client(shown)), LISTENER).await
    }

    /// The names under which a listener knows who shows this.
    async fn names(&self, shown: Option<Presented>) -> Vec<String> {
        client_names(self.meet(false, shown).await.server.unwrap().0.get_ref().1)
    }
}

/// What a vendor's certificate for a client is like.
fn params(own: &hostile::Authority, names: Vec<SanType>) -> CertificateParams {
    let mut params = own.agent_params("any/any/any");
    params.subject_alt_names = names;
    params
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

#[tokio::test]
async fn a_client_is_known_by_the_names_of_its_certificate() {
    let vendor = Vendor::new();
    let names = vec![
        dns("App.vendor.example"),
        uri("spiffe://vendor.example/ns/prod/sa/app"),
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
        SanType::Rfc822Name("app@vendor.example".try_into().unwrap()),
        dns("*.vendor.example"),
    ];
    let shown = vendor.own.signed("a client", &params(&vendor.own, names));
    let expected = ["App.vendor.example", "spiffe://vendor.example/ns/prod/sa/app", "app@vendor.example", "*.vendor.example"];
    assert_eq!(vendor.names(Some(shown)).await, expected);
}

#[tokio::test]
async fn a_common_name_counts_only_without_alternative_names() {
    let vendor = Vendor::new();
    let named = |names: Vec<SanType>, common: &[&str]| {
        let mut params = params(&vendor.own, names);
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (at, name) in common.iter().enumerate() {
            let kind = if at == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
            params.distinguished_name.push(kind, *name);
        }
        vendor.own.signed("a client", &params)
    };
    assert_eq!(vendor.names(Some(named(vec![], &["app"]))).await, ["app"]);
    assert_eq!(vendor.names(Some(named(vec![dns("web")], &["app"]))).await, ["web"]);
    let address = SanType::IpAddress("10.0.0.1".parse().unwrap());
    assert!(vendor.names(Some(named(vec![address], &["app"]))).await.is_empty(), "an address is an alternative name");
    assert!(vendor.names(Some(named(vec![], &["app", "web"]))).await.is_empty(), "which of two?");
    assert!(vendor.names(Some(named(vec![], &["app\u{202e}"]))).await.is_empty());
    assert!(vendor.names(Some(named(vec![], &[]))).await.is_empty());
}

#[tokio::test]
async fn s1_a_listener_may_require_a_certificate() {
    let vendor = Vendor::new();
    assert!(vendor.names(None).await.is_empty(), "optional: nobody is known");
    let met = vendor.meet(true, None).await;
    assert_eq!(met.refusal().code, Code::CertificateRefused);
    let shown = vendor.own.signed("a client", &params(&vendor.own, vec![dns("app")]));
    assert!(vendor.meet(true, Some(shown)).await.is_ok());
}

#[tokio::test]
async fn s2_a_certificate_of_the_private_pki_is_no_clients_whoever_signed_it() {
    let vendor = Vendor::new();
    let (agent, gateway) = (vendor.thief.agent(AGENT), vendor.thief.gateway("gw1", HOST));
    for required in [false, true] {
        for shown in [agent.copied(), gateway.copied()] {
            assert_eq!(vendor.meet(required, Some(shown)).await.refusal().code, Code::CertificateRefused);
        }
    }
    let foreign = hostile::Authority::fresh("elsewhere.example");
    for names in [
        vec![uri(&vendor.thief.agent_uri(AGENT))],
        vec![dns("app"), uri(&foreign.agent_uri(AGENT))],
        vec![uri(&vendor.thief.gateway_uri("gw1"))],
    ] {
        let shown = vendor.own.signed("signed by the vendor's CA", &params(&vendor.own, names));
        let refusal = vendor.meet(false, Some(shown)).await.refusal();
        assert_eq!(refusal.code, Code::CertificateRefused);
        assert!(refusal.detail.contains("of gateways and agents: `spiffe://"), "{refusal}");
    }
}

#[tokio::test]
async fn s2_the_private_pkis_cas_are_not_taken_for_clients() {
    let vendor = Vendor::new();
    let (root, issuing) = (&vendor.thief.root, &vendor.thief.issuing);
    for roots in [vec![root], vec![issuing], vec![&vendor.own.root, issuing]] {
        vendor.trust(roots);
        let failure = vendor.listener(false).unwrap_err();
        assert_eq!(failure.code, Code::ConfigInvalid);
        assert!(failure.detail.contains("clients.pem") && failure.detail.contains("own PKI"), "{failure}");
    }
    vendor.trust([&vendor.own.root, &hostile::Authority::fresh("acme.example").root]);
    assert!(vendor.listener(false).is_ok(), "several of others are");
    vendor.trust(&vendor.own.agent(AGENT).chain[..1]);
    assert!(vendor.listener(false).unwrap_err().detail.contains("no CA"));
    files::write_private(&vendor.file("clients.pem"), b"nonsense").unwrap();
    assert_eq!(vendor.listener(false).unwrap_err().code, Code::ConfigInvalid);
    std::fs::remove_file(vendor.file("clients.pem")).unwrap();
    assert_eq!(vendor.listener(false).unwrap_err().code, Code::ConfigUnreadable);
}

#[tokio::test]
async fn s1_a_certificate_that_is_not_good_gets_no_byte_through_even_where_none_is_needed() {
    let vendor = Vendor::new();
    let now = OffsetDateTime::now_utc();
    // The recipe's leaves say a role; these must be refused for what else is wrong with them, so they are made to say none.
    let good = params(&vendor.own, vec![dns("app")]);
    let hostile = hostile::any_leaf(&vendor.own, &good, now);
    assert!(hostile.len() > 12);
    for shown in hostile {
        let name = shown.name;
        // A vendor's CA may be restricted in what it signs, and need not say that it signs.
        let fine = matches!(name, "issuer without key usage" | "issuer with an extended usage");
        let met = vendor.meet(false, Some(shown)).await;
        assert_eq!(met.is_ok(), fine, "{name}");
        if !fine {
            let expected =
                if matches!(name, "expired" | "not yet valid") { Code::CertificateExpired } else { Code::CertificateRefused };
            assert_eq!(met.refusal().code, expected, "{name}: {}", met.refusal());
        }
    }
    let usages = [vec![], vec![ExtendedKeyUsagePurpose::ServerAuth], vec![ExtendedKeyUsagePurpose::Any]];
    for usages in usages {
        let mut params = good.clone();
        params.extended_key_usages = usages;
        let met = vendor.meet(false, Some(vendor.own.signed("another usage", &params))).await;
        assert_eq!(met.refusal().code, Code::CertificateRefused, "{:?}", params.extended_key_usages);
    }
    for shown in hostile::without_one_role(&vendor.own) {
        if matches!(shown.name, "an undecodable URI" | "two alternative-name extensions") {
            let name = shown.name;
            assert_eq!(vendor.meet(false, Some(shown)).await.refusal().code, Code::CertificateRefused, "{name}");
        }
    }
    let foreign = hostile::Authority::fresh("vendor.example").signed("another CA", &good);
    assert_eq!(vendor.meet(false, Some(foreign)).await.refusal().code, Code::CertificateRefused);
    let mut stolen = vendor.own.signed("without its key", &good);
    stolen.key = private_key_of(&PrivateKey::generate().unwrap());
    assert_eq!(vendor.meet(false, Some(stolen)).await.refusal().code, Code::CertificateRefused);
}

/// A CA of the vendor's that may sign names of `a.test` alone.
fn department(constrain: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a department's CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    constrain(&mut params);
    params
}

fn constrained_in_dns(params: &mut CertificateParams) {
    let permitted_subtrees = vec![GeneralSubtree::DnsName("a.test".to_owned())];
    params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
}

/// The same of URIs, which the library that makes certificates can't say.
fn constrained_in_uris(params: &mut CertificateParams) {
    let content = b"\x30\x0c\xa0\x0a\x30\x08\x86\x06a.test".to_vec();
    let mut constraints = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    constraints.set_criticality(true);
    params.custom_extensions.push(constraints);
}

#[tokio::test]
async fn rustsec_2026_0098_rustsec_2026_0099_a_ca_signs_no_name_beyond_its_constraints() {
    let vendor = Vendor::new();
    let (by_dns, by_uri) = (department(constrained_in_dns), department(constrained_in_uris));
    for (ca, names, taken) in [
        (&by_dns, vec![dns("app.a.test")], true),
        (&by_dns, vec![dns("app.b.test")], false),
        (&by_dns, vec![dns("app.a.test"), dns("app.b.test")], false),
        (&by_dns, vec![dns("*.test")], false),
        (&by_uri, vec![dns("app.b.test")], true),
        (&by_uri, vec![uri("spiffe://b.test/app")], false),
        // webpki compares no URIs, so none is taken.
        (&by_uri, vec![uri("spiffe://a.test/app")], false),
    ] {
        let shown = vendor.own.signed_under("by a department", &params(&vendor.own, names.clone()), ca);
        let met = vendor.meet(false, Some(shown)).await;
        assert_eq!(met.is_ok(), taken, "{names:?}");
        if !taken {
            assert_eq!(met.refusal().code, Code::CertificateRefused, "{names:?}: {}", met.refusal());
        }
    }
}

#[tokio::test]
async fn rustsec_2026_0044_a_common_name_is_no_way_round_name_constraints() {
    let vendor = Vendor::new();
    let mut named = params(&vendor.own, Vec::new());
    named.distinguished_name = rcgen::DistinguishedName::new();
    named.distinguished_name.push(DnType::CommonName, "app.b.test");
    let shown = |ca: &CertificateParams| vendor.own.signed_under("by a department", &named, ca);
    assert_eq!(vendor.names(Some(shown(&department(|_| ())))).await, ["app.b.test"]);
    for ca in [department(constrained_in_dns), department(constrained_in_uris)] {
        let refusal = vendor.meet(false, Some(shown(&ca))).await.refusal();
        assert_eq!(refusal.code, Code::CertificateRefused);
        assert!(refusal.detail.contains("name constraints"), "{refusal}");
    }
    // A trusted CA that has them itself.
    let key = rcgen::KeyPair::generate().unwrap();
    let own = department(constrained_in_dns);
    vendor.trust([own.self_signed(&key).unwrap().der()]);
    let leafs = rcgen::KeyPair::generate().unwrap();
    let leaf = named.signed_by(&leafs, &rcgen::Issuer::from_params(&own, &key)).unwrap();
    let leafs = PrivateKeyDer::try_from(leafs.serialize_der()).unwrap();
    let shown = Presented { name: "by a trusted one", chain: vec![leaf.der().clone()], key: leafs };
    assert!(vendor.meet(false, Some(shown)).await.refusal().detail.contains("name constraints"));
}

#[tokio::test]
async fn cve_2024_45337_who_a_client_is_comes_from_the_verified_chain_after_the_handshake() {
    let vendor = Vendor::new();
    let shown = vendor.own.signed("a client", &params(&vendor.own, vec![dns("app")]));
    let mut config = vendor.client(Some(shown));
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    for attempt in 0..2 {
        let met = meet(vendor.listener(false).unwrap(), config.clone(), LISTENER).await;
        let (client, _) = met.client.unwrap();
        assert_eq!(client.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "attempt {attempt}");
        assert_eq!(client_names(met.server.unwrap().0.get_ref().1), ["app"]);
    }
    let begun = rustls::ServerConnection::new(vendor.listener(true).unwrap()).unwrap();
    assert!(client_names(&begun).is_empty(), "not before the handshake has ended");
}
