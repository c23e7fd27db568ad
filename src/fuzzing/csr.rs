//! Requests for a certificate, as an enrolling agent sends them. Refuses to know who may enroll.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::told;
use crate::base::code::Code;
use crate::base::id::AgentId;
use crate::base::limits::MAX_CSR;
use crate::pki::authority::Authority;
use crate::pki::pem;
use crate::pki::request::{PrivateKey, RequestedKey};

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// The check of requests over an input: a request as it is, or, after an odd first byte, parts of one that is completed with a key
/// and its signature, since no mutation finds these. From what is taken only the key gets into the certificate.
///
/// # Panics
/// When that is not so.
pub fn csr(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    if how & 1 == 0 {
        check(rest);
    } else if let Some(request) = completed(rest) {
        check(&request);
    }
}

fn check(request: &[u8]) {
    match RequestedKey::from_csr(request) {
        Ok(key) => {
            assert!(request.len() <= MAX_CSR);
            certified(&key);
        }
        Err(failure) => {
            assert_eq!(failure.code, Code::CsrInvalid);
            told(&failure);
        }
    }
}

/// The certificate for a key differs from that for any other request in its serial, key, and what follows from these.
fn certified(key: &RequestedKey) {
    let leaf = ISSUER.issue(key);
    let (leaf, plain) = (parse(&leaf), parse(&ISSUER.plain));
    assert_eq!(leaf.version(), plain.version());
    assert_eq!(leaf.subject(), plain.subject());
    assert_eq!(leaf.issuer(), plain.issuer());
    assert_eq!(leaf.validity(), plain.validity());
    assert_eq!(extensions(&leaf), extensions(&plain));
    let usage = leaf.extended_key_usage().expect("it can be read").expect("it is there").value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any && usage.other.is_empty(), "{usage:?}");
    let public = leaf.public_key();
    let hash = digest::digest(&digest::SHA256, public.raw);
    assert_eq!(hash.as_ref(), key.spki_sha256(), "not the key that was asked for");
    assert!(matches!(public.parsed(), Ok(PublicKey::EC(point)) if point.key_size() == 256), "{public:?}");
    // Whatever was sent, a key is written in one way.
    assert_eq!(public.raw.len(), plain.public_key().raw.len());
    assert_eq!(public.algorithm, plain.public_key().algorithm);
}

/// Every extension with its value, but for the one that is the key's hash.
fn extensions<'a>(certificate: &'a X509Certificate<'_>) -> Vec<(String, bool, &'a [u8])> {
    let all = certificate.extensions().iter().filter(|extension| extension.oid != OID_X509_EXT_SUBJECT_KEY_IDENTIFIER);
    all.map(|extension| (extension.oid.to_id_string(), extension.critical, extension.value)).collect()
}

fn parse<'a>(leaf: &'a CertificateDer<'static>) -> X509Certificate<'a> {
    let (rest, leaf) = X509Certificate::from_der(leaf).expect("what is issued can be read");
    assert!(rest.is_empty());
    leaf
}

/// A request (RFC 2986, 4) of parts, each behind its length in one byte: version, subject, algorithm of the key, attributes,
/// algorithm of the signature, and what follows it.
fn completed(parts: &[u8]) -> Option<Vec<u8>> {
    let mut rest = parts;
    let mut part = || {
        let (length, after) = rest.split_first()?;
        let (part, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        Some(part)
    };
    let (version, subject, key_algorithm, attributes, signature_algorithm) = (part()?, part()?, part()?, part()?, part()?);
    let bits = |bytes: &[u8]| tlv(BIT_STRING, &[&[0], bytes].concat());
    let public = tlv(SEQUENCE, &[key_algorithm, &bits(ISSUER.subject.public_key().as_ref())].concat());
    let info = tlv(SEQUENCE, &[version, subject, &public, attributes].concat());
    let signature = ISSUER.subject.sign(&SystemRandom::new(), &info).expect("a P-256 key signs");
    let mut request = tlv(SEQUENCE, &[&info, signature_algorithm, &bits(signature.as_ref())].concat());
    request.extend_from_slice(rest);
    Some(request)
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut whole = vec![tag];
    let length = content.len().to_be_bytes();
    match content.len() {
        0..=0x7f => whole.push(length[7]),
        0x80..=0xff => whole.extend([0x81, length[7]]),
        _ => whole.extend([0x82, length[6], length[7]]),
    }
    whole.extend_from_slice(content);
    whole
}

/// An authority, made once, and a subject with a key of its own.
static ISSUER: LazyLock<Issuer> = LazyLock::new(Issuer::new);

struct Issuer {
    authority: Authority,
    agent: AgentId,
    now: OffsetDateTime,
    subject: EcdsaKeyPair,
    /// The leaf for a request that says nothing.
    plain: CertificateDer<'static>,
}

impl Issuer {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("there is a directory for temporary files");
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("a time");
        let trust_domain = "fuzz.example".parse().expect("a trust domain");
        let authority = Authority::init(&dir.path().join("ca"), &trust_domain, now).expect("a new authority");
        let agent = "acme/dc1/agent-1".parse().expect("an agent");
        let subject = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a new key");
        let request = PrivateKey::generate().and_then(|key| key.csr_der()).expect("a request");
        let key = RequestedKey::from_csr(&request).expect("our own request");
        let mut issuer = Self { authority, agent, now, subject, plain: CertificateDer::from(Vec::new()) };
        issuer.plain = issuer.issue(&key);
        issuer
    }

    fn issue(&self, key: &RequestedKey) -> CertificateDer<'static> {
        let lifetime = Duration::from_hours(24);
        let issued = self.authority.issue_agent(&self.agent, key, lifetime, self.now).expect("it is issued");
        pem::parse(issued.chain_pem.as_bytes()).expect("a chain").swap_remove(0)
    }
}
