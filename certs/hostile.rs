//! Test recipe: a certificate authority like ours without its scruples, and the certificates that must be refused. Unit and integration
//! tests include this file by path; it knows nothing of the crate.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "every test takes the part it needs")]

use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

const OID_SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];

/// A chain with its key, and what is wrong with it.
pub struct Presented {
    pub name: &'static str,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// A root and an issuing CA whose keys the test holds.
pub struct Authority {
    pub root: CertificateDer<'static>,
    pub issuing: CertificateDer<'static>,
    pub trust_domain: String,
    root_params: Option<CertificateParams>,
    root_key: KeyPair,
    issuing_key: KeyPair,
}

impl Authority {
    /// A new one.
    pub fn fresh(trust_domain: &str) -> Self {
        let (root_key, issuing_key) = (p256(), p256());
        let root_params = ca_params(trust_domain, "hostile root", 1);
        let root = root_params.self_signed(&root_key).unwrap();
        let issuing = ca_params(trust_domain, "hostile issuing", 0);
        let issuing = issuing.signed_by(&issuing_key, &Issuer::from_params(&root_params, &root_key)).unwrap();
        Self {
            root: root.into(),
            issuing: issuing.into(),
            trust_domain: trust_domain.to_owned(),
            root_params: Some(root_params),
            root_key,
            issuing_key,
        }
    }

    /// The keys of a gateway's state directory, as a thief would take them.
    pub fn stolen(directory: &Path, trust_domain: &str) -> Self {
        let certificate = |name: &str| CertificateDer::from_pem_file(directory.join(name)).unwrap();
        let key = |name: &str| KeyPair::from_pem(&std::fs::read_to_string(directory.join(name)).unwrap()).unwrap();
        Self {
            root: certificate("root.pem"),
            issuing: certificate("issuing.pem"),
            trust_domain: trust_domain.to_owned(),
            root_params: None,
            root_key: key("root.key"),
            issuing_key: key("issuing.key"),
        }
    }

    /// The same root key in a new certificate.
    pub fn root_anew(&self) -> CertificateDer<'static> {
        let mut params = self.root_params.clone().unwrap();
        params.not_after += Duration::days(1);
        params.self_signed(&self.root_key).unwrap().into()
    }

    pub fn agent_uri(&self, id: &str) -> String {
        let [tenant, group, agent] = id.split('/').collect::<Vec<_>>().try_into().unwrap();
        format!("spiffe://{}/tenant/{tenant}/group/{group}/agent/{agent}", self.trust_domain)
    }

    pub fn gateway_uri(&self, id: &str) -> String {
        format!("spiffe://{}/gateway/{id}", self.trust_domain)
    }

    /// What an agent's certificate is like.
    pub fn agent_params(&self, id: &str) -> CertificateParams {
        leaf_params(vec![uri(&self.agent_uri(id))], vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// What a gateway's certificate is like.
    pub fn gateway_params(&self, id: &str, host: &str) -> CertificateParams {
        let mut params = leaf_params(vec![uri(&self.gateway_uri(id))], vec![ExtendedKeyUsagePurpose::ServerAuth]);
        params.subject_alt_names.extend(CertificateParams::new(vec![host.to_owned()]).unwrap().subject_alt_names);
        params
    }

    /// A good agent.
    pub fn agent(&self, id: &str) -> Presented {
        self.signed("a good agent", &self.agent_params(id))
    }

    /// A good gateway.
    pub fn gateway(&self, id: &str, host: &str) -> Presented {
        self.signed("a good gateway", &self.gateway_params(id, host))
    }

    /// Signs anything.
    pub fn signed(&self, name: &'static str, params: &CertificateParams) -> Presented {
        let key = p256();
        let issuer = Issuer::from_ca_cert_der(&self.issuing, &self.issuing_key).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        presented(name, vec![leaf.into(), self.issuing.clone(), self.root.clone()], &key)
    }

    /// Signs a leaf by an intermediate CA that the root signed.
    pub fn signed_under(&self, name: &'static str, params: &CertificateParams, intermediate: &CertificateParams) -> Presented {
        let (key, intermediate_key) = (p256(), p256());
        let root = Issuer::from_ca_cert_der(&self.root, &self.root_key).unwrap();
        let intermediate_der = intermediate.signed_by(&intermediate_key, &root).unwrap();
        let leaf = params.signed_by(&key, &Issuer::from_params(intermediate, &intermediate_key)).unwrap();
        presented(name, vec![leaf.into(), intermediate_der.into(), self.root.clone()], &key)
    }
}

/// Client certificates that a gateway of `ours` must refuse; `agent` is the name they claim.
pub fn as_client(ours: &Authority, agent: &str, now: OffsetDateTime) -> Vec<Presented> {
    let foreign = Authority::fresh(&ours.trust_domain);
    let agent_uri = ours.agent_uri(agent);
    let client = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut all = any_leaf(ours, &ours.agent_params(agent), now);
    all.extend(without_one_role(ours));
    all.push(renamed("another CA of the same trust domain", foreign.agent(agent)));
    all.push(renamed(
        "a public CA",
        Authority::fresh("public.example").signed("", &leaf_params(vec![uri(&agent_uri)], client)),
    ));
    all.push(renamed("another PKI's CA with our chain appended", {
        let mut other = foreign.agent(agent);
        other.chain.extend([ours.issuing.clone(), ours.root.clone()]);
        other
    }));
    all.push(renamed("a gateway as a client", ours.gateway("gw1", "gateway.example")));
    all.push(renamed("another trust domain's URI under our CA", {
        let other = format!("spiffe://other.example/{}", agent_uri.splitn(4, '/').nth(3).unwrap());
        ours.signed("", &leaf_params(vec![uri(&other)], vec![ExtendedKeyUsagePurpose::ClientAuth]))
    }));
    all
}

/// Server certificates that an agent of `ours` must refuse when it dials `host`.
pub fn as_server(ours: &Authority, host: &str, now: OffsetDateTime) -> Vec<Presented> {
    let foreign = Authority::fresh(&ours.trust_domain);
    let mut all = any_leaf(ours, &ours.gateway_params("gw1", host), now);
    all.push(renamed("another CA of the same trust domain", foreign.gateway("gw1", host)));
    all.push(renamed("another PKI's CA with our chain appended", {
        let mut other = foreign.gateway("gw1", host);
        other.chain.extend([ours.issuing.clone(), ours.root.clone()]);
        other
    }));
    all.push(renamed("an agent as a gateway", ours.agent("acme/dc1/a1")));
    all.push(renamed("an agent with the gateway's name", {
        let mut params = ours.gateway_params("gw1", host);
        params.subject_alt_names[0] = uri(&ours.agent_uri("acme/dc1/a1"));
        ours.signed("", &params)
    }));
    all.push(renamed("the name alone, as a public CA certifies it", {
        let mut params = ours.gateway_params("gw1", host);
        params.subject_alt_names.remove(0);
        ours.signed("", &params)
    }));
    all.push(renamed("another trust domain's gateway under our CA", {
        let mut params = ours.gateway_params("gw1", host);
        params.subject_alt_names[0] = uri("spiffe://other.example/gateway/gw1");
        ours.signed("", &params)
    }));
    all.push(renamed("another host's name", ours.gateway("gw1", "elsewhere.example")));
    all
}

/// Leaves of `ours` whose names or usages do not give exactly one role.
pub fn without_one_role(ours: &Authority) -> Vec<Presented> {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    let agent = || uri(&ours.agent_uri("acme/dc1/a1"));
    let leaf = |name, names, usages| ours.signed(name, &leaf_params(names, usages));
    let dns = |name: &str| SanType::DnsName(ia5(name));
    let mut undecodable = leaf_params(vec![], vec![ClientAuth]);
    undecodable
        .custom_extensions
        .push(CustomExtension::from_oid_content(OID_SUBJECT_ALT_NAME, undecodable_names(&ours.agent_uri("acme/dc1/a1"))));
    let mut repeated = ours.agent_params("acme/dc1/a1");
    repeated
        .custom_extensions
        .push(CustomExtension::from_oid_content(OID_SUBJECT_ALT_NAME, names_of(&ours.agent_uri("acme/dc1/a2"))));
    vec![
        leaf("no name", vec![], vec![ClientAuth]),
        leaf("a DNS name alone", vec![dns("agent.example")], vec![ClientAuth]),
        leaf("two role URIs", vec![agent(), uri(&ours.agent_uri("acme/dc1/a2"))], vec![ClientAuth]),
        leaf("the role URI twice", vec![agent(), agent()], vec![ClientAuth]),
        leaf("both roles", vec![agent(), uri(&ours.gateway_uri("gw1"))], vec![ClientAuth]),
        leaf("a role and another URI", vec![agent(), uri("https://acme.example/")], vec![ClientAuth]),
        leaf("a role with a further part", vec![uri(&format!("{}/admin", ours.agent_uri("acme/dc1/a1")))], vec![ClientAuth]),
        leaf("a trust domain alone", vec![uri(&format!("spiffe://{}", ours.trust_domain))], vec![ClientAuth]),
        leaf("an agent with a DNS name", vec![agent(), dns("gateway.example")], vec![ClientAuth]),
        leaf("an agent with a mail address", vec![agent(), SanType::Rfc822Name(ia5("a@acme.example"))], vec![ClientAuth]),
        leaf("two usages", vec![agent()], vec![ClientAuth, ServerAuth]),
        leaf("a further usage", vec![agent()], vec![ClientAuth, CodeSigning]),
        leaf("any usage", vec![agent()], vec![Any]),
        leaf(
            "clientAuth and an unknown usage",
            vec![agent()],
            vec![ClientAuth, ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 4, 1, 99])],
        ),
        leaf("no usage", vec![agent()], vec![]),
        leaf("the other role's usage", vec![agent()], vec![ServerAuth]),
        ours.signed("an undecodable URI", &undecodable),
        ours.signed("two alternative-name extensions", &repeated),
    ]
}

/// What is wrong with any leaf, whatever its role. `good` is what the leaf would be like.
pub fn any_leaf(ours: &Authority, good: &CertificateParams, now: OffsetDateTime) -> Vec<Presented> {
    let changed = |name, change: &dyn Fn(&mut CertificateParams)| {
        let mut params = good.clone();
        change(&mut params);
        ours.signed(name, &params)
    };
    let mut without_key_cert_sign = ca_params(&ours.trust_domain, "an issuer without keyCertSign", 0);
    without_key_cert_sign.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let mut no_key_usage = ca_params(&ours.trust_domain, "an issuer without key usage", 0);
    no_key_usage.key_usages = vec![];
    let mut with_usage = ca_params(&ours.trust_domain, "an issuer with extended usage", 0);
    with_usage.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let mut not_a_ca = ours.agent_params("acme/dc1/thief");
    not_a_ca.distinguished_name = common_name("an agent");
    vec![
        changed("expired", &|p| (p.not_before, p.not_after) = (now - Duration::days(2), now - Duration::hours(1))),
        changed("not yet valid", &|p| (p.not_before, p.not_after) = (now + Duration::hours(1), now + Duration::days(2))),
        changed("wrong usage", &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
        changed("a leaf that is a CA", &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        signed_by_agent(ours, good, &not_a_ca),
        ours.signed_under("issuer is no CA", good, &not_a_ca),
        ours.signed_under("issuer without keyCertSign", good, &without_key_cert_sign),
        ours.signed_under("issuer without key usage", good, &no_key_usage),
        ours.signed_under("issuer with an extended usage", good, &with_usage),
        below_the_issuing_ca(ours, good),
        self_signed(good),
        self_signed_as(ours, good),
        same_issuer_other_key(ours, good),
        chain_of(ours, good, 12),
    ]
}

/// A leaf signed with the key of an agent.
fn signed_by_agent(ours: &Authority, good: &CertificateParams, agent: &CertificateParams) -> Presented {
    let (agent_key, key) = (p256(), p256());
    let issuing = Issuer::from_ca_cert_der(&ours.issuing, &ours.issuing_key).unwrap();
    let agent_der = agent.signed_by(&agent_key, &issuing).unwrap();
    let leaf = good.signed_by(&key, &Issuer::from_params(agent, &agent_key)).unwrap();
    presented("signed by an agent", vec![leaf.into(), agent_der.into(), ours.issuing.clone(), ours.root.clone()], &key)
}

/// The issuing CA's path length is 0: it may not make CAs.
fn below_the_issuing_ca(ours: &Authority, good: &CertificateParams) -> Presented {
    let (ca_key, key) = (p256(), p256());
    let ca = ca_params(&ours.trust_domain, "a CA too deep", 0);
    let ca_der = ca.signed_by(&ca_key, &Issuer::from_ca_cert_der(&ours.issuing, &ours.issuing_key).unwrap()).unwrap();
    let leaf = good.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    presented("a CA below the issuing CA", vec![leaf.into(), ca_der.into(), ours.issuing.clone(), ours.root.clone()], &key)
}

fn self_signed(good: &CertificateParams) -> Presented {
    let key = p256();
    presented("self-signed", vec![good.self_signed(&key).unwrap().into()], &key)
}

fn self_signed_as(ours: &Authority, good: &CertificateParams) -> Presented {
    let key = p256();
    let mut params = good.clone();
    params.distinguished_name = subject_of(&ours.root);
    let leaf = params.self_signed(&key).unwrap();
    presented("self-signed with our root's subject", vec![leaf.into(), ours.issuing.clone(), ours.root.clone()], &key)
}

/// Root and issuing CA with the subjects of ours and other keys.
fn same_issuer_other_key(ours: &Authority, good: &CertificateParams) -> Presented {
    let (root_key, issuing_key, key) = (p256(), p256(), p256());
    let mut root = ca_params(&ours.trust_domain, "", 1);
    root.distinguished_name = subject_of(&ours.root);
    let mut issuing = ca_params(&ours.trust_domain, "", 0);
    issuing.distinguished_name = subject_of(&ours.issuing);
    let root_der = root.self_signed(&root_key).unwrap();
    let issuing_der = issuing.signed_by(&issuing_key, &Issuer::from_params(&root, &root_key)).unwrap();
    let leaf = good.signed_by(&key, &Issuer::from_params(&issuing, &issuing_key)).unwrap();
    presented("the same subjects with other keys", vec![leaf.into(), issuing_der.into(), root_der.into()], &key)
}

/// A good leaf with many certificates between it and its issuer.
fn chain_of(ours: &Authority, good: &CertificateParams, length: usize) -> Presented {
    let mut presented = ours.signed("a chain of many certificates", good);
    for _ in 0..length {
        let key = p256();
        presented.chain.insert(1, ca_params("filler.example", "filler", 9).self_signed(&key).unwrap().into());
    }
    presented
}

/// Certification requests.
pub mod requests {
    use rcgen::{Attribute, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize, SigningKey};

    use super::*;

    /// A request that asks for more than it will get.
    pub fn greedy(key: &KeyPair) -> Vec<u8> {
        let names = ["*.example", "gateway.example", "10.0.0.1"].map(str::to_owned).to_vec();
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.push(uri("spiffe://acme.example/gateway/gw1"));
        params.distinguished_name = common_name("root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]));
        params.serialize_request(key).unwrap().der().to_vec()
    }

    /// A well-formed request of about so many bytes.
    pub fn of_size(bytes: usize) -> Vec<u8> {
        let filler = vec![b'x'; bytes - 250];
        let mut der = vec![0x04, 0x82];
        der.extend(u16::try_from(filler.len()).unwrap().to_be_bytes());
        der.extend(filler);
        let mut values = vec![0x31, 0x82];
        values.extend(u16::try_from(der.len()).unwrap().to_be_bytes());
        values.extend(der);
        let attribute = Attribute { oid: &[1, 3, 6, 1, 4, 1, 99], values };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request_with_attributes(&p256(), vec![attribute]).unwrap().der().to_vec()
    }

    pub fn p384() -> Vec<u8> {
        plain(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap())
    }

    pub fn ed25519() -> Vec<u8> {
        plain(&KeyPair::generate_for(&PKCS_ED25519).unwrap())
    }

    /// A request with an RSA key of so many bits. Making such keys takes minutes or is refused, so the modulus is made up and the
    /// signature is of another key: the request has to be refused for its key already.
    pub fn rsa(bits: usize) -> Vec<u8> {
        let signer = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        if bits == 2048 {
            return plain(&signer);
        }
        let mut modulus = vec![0x00];
        modulus.extend(vec![0xc1; bits / 8]);
        let mut body = der(0x02, &modulus);
        body.extend(der(0x02, &[1, 0, 1]));
        plain(&Borrowed { key: der(0x30, &body), signer })
    }

    /// The request with another's public key in the place of its own.
    pub fn with_foreign_key(csr: &[u8]) -> Vec<u8> {
        let (own, foreign) = (public_point(csr), p256());
        let mut changed = csr.to_vec();
        changed[own..own + 65].copy_from_slice(foreign.der_bytes());
        changed
    }

    fn public_point(csr: &[u8]) -> usize {
        let bit_string = [0x03, 0x42, 0x00, 0x04];
        csr.windows(4).position(|window| window == bit_string).unwrap() + 3
    }

    fn plain(key: &impl SigningKey) -> Vec<u8> {
        CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
    }

    struct Borrowed {
        key: Vec<u8>,
        signer: KeyPair,
    }

    impl PublicKeyData for Borrowed {
        fn der_bytes(&self) -> &[u8] {
            &self.key
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &PKCS_RSA_SHA256
        }
    }

    impl SigningKey for Borrowed {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            self.signer.sign(message)
        }
    }
}

fn p256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn presented(name: &'static str, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Presented {
    Presented { name, chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
}

fn renamed(name: &'static str, presented: Presented) -> Presented {
    Presented { name, ..presented }
}

fn leaf_params(names: Vec<SanType>, usages: Vec<ExtendedKeyUsagePurpose>) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("leaf");
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    (params.not_before, params.not_after) = (now - Duration::minutes(10), now + Duration::days(30));
    params
}

fn ca_params(trust_domain: &str, name: &str, path_length: u8) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - Duration::minutes(10), now + Duration::days(365));
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn subject_of(certificate: &CertificateDer<'_>) -> DistinguishedName {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    let mut subject = DistinguishedName::new();
    let organization = parsed.subject().iter_organization().next().map(|name| name.as_str().unwrap().to_owned());
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject.push(DnType::CommonName, parsed.subject().iter_common_name().next().unwrap().as_str().unwrap());
    subject
}

fn uri(text: &str) -> SanType {
    SanType::URI(ia5(text))
}

fn ia5(text: &str) -> Ia5String {
    text.try_into().unwrap()
}

/// GeneralNames with one URI.
fn names_of(uri: &str) -> Vec<u8> {
    der(0x30, &der(0x86, uri.as_bytes()))
}

/// GeneralNames with a good role URI and one that is no text.
fn undecodable_names(uri: &str) -> Vec<u8> {
    let mut names = der(0x86, uri.as_bytes());
    names.extend(der(0x86, b"spiffe://\xff\xfe/gateway/gw1"));
    der(0x30, &names)
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ ..0x80 => out.push(u8::try_from(short).unwrap()),
        long => {
            out.push(0x82);
            out.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}
