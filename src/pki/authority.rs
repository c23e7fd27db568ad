//! The certificate authority of one trust domain: made once by `gateway init`, it signs agents and gateways. Refuses to know who may
//! be enrolled, and keeps no list of what it issued.
//!
//! In its directory are `root.pem`, `root.key`, `issuing.pem` and `issuing.key`. Running needs all but `root.key`, which may be kept
//! elsewhere.

mod init;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::identity::{Role, Serial, TrustDomain, parse};
use super::pem;
use super::pin::Pin;
use super::renew::Credential;
use super::request::{PrivateKey, RequestedKey};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::endpoint::{Endpoint, Host};
use crate::base::id::{AgentId, Name};

/// A gateway's certificate lives 90 days.
pub const GATEWAY_LIFETIME: Duration = Duration::from_secs(90 * DAY);

/// How far certificates are backdated, for clocks that are slow.
const BACKDATED: time::Duration = time::Duration::minutes(10);

const DAY: u64 = 24 * 60 * 60;

/// The root's certificate, and the issuing CA's with its key.
pub struct Authority {
    trust_domain: TrustDomain,
    root: CertificateDer<'static>,
    pin: Pin,
    issuing: CertificateDer<'static>,
    issuing_not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for an agent.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Leaf, issuing CA and root in PEM.
    pub chain_pem: String,
    /// The leaf's serial.
    pub serial: Serial,
    /// The end of the leaf's validity.
    pub not_after: OffsetDateTime,
}

impl Authority {
    /// Makes a root and an issuing CA in a directory, which is made with mode 0700 if it is missing. It is all or nothing: what a crash
    /// leaves behind is never loaded, and replaced by the next attempt.
    ///
    /// # Errors
    /// `state_exists` if any of the four files is there, or another process is making them; as [`crate::base::files`] otherwise.
    pub fn init(directory: &Path, trust_domain: &TrustDomain, now: OffsetDateTime) -> Result<Self, Failure> {
        init::init(directory, trust_domain, now)?;
        Self::load(directory)
    }

    /// Loads the authority.
    ///
    /// # Errors
    /// `state_missing` if there is none, or it was left half-made; `state_invalid` if the files are damaged or don't belong together;
    /// `file_permissions` if others could have read or changed them.
    pub fn load(directory: &Path) -> Result<Self, Failure> {
        init::refuse_unfinished(directory)?;
        let root = pem::load_one(&directory.join(init::ROOT_PEM))?;
        let issuing = pem::load_one(&directory.join(init::ISSUING_PEM))?;
        let key = PrivateKey::load(&directory.join(init::ISSUING_KEY))?;
        Self::assemble(root, issuing, key).map_err(|failure| failure.context(directory.display()))
    }

    fn assemble(root: CertificateDer<'static>, issuing: CertificateDer<'static>, key: PrivateKey) -> Result<Self, Failure> {
        let invalid = |why: &str| Failure::new(Code::StateInvalid, why);
        let parsed = |der| parse(der).map_err(|failure| Failure::new(Code::StateInvalid, failure.detail));
        let (root_parsed, issuing_parsed) = (parsed(&root)?, parsed(&issuing)?);
        for (child, child_name) in [(&root_parsed, "root.pem"), (&issuing_parsed, "issuing.pem")] {
            if !is_signing_ca(child) || child.issuer() != root_parsed.subject() {
                return Err(Failure::new(Code::StateInvalid, format_args!("{child_name} is no CA under root.pem")));
            }
            child
                .verify_signature(Some(root_parsed.public_key()))
                .or_fail(Code::StateInvalid, format_args!("{child_name} is not signed by the key of root.pem"))?;
        }
        if issuing_parsed.public_key().raw != key.spki_der() {
            return Err(invalid("issuing.key is not the key of issuing.pem"));
        }
        let trust_domain = trust_domain_of(&root_parsed).ok_or_else(|| invalid("root.pem names no trust domain"))?;
        if trust_domain_of(&issuing_parsed).as_ref() != Some(&trust_domain) {
            return Err(invalid("issuing.pem is of another trust domain than root.pem"));
        }
        let issuing_not_after = issuing_parsed.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&issuing, key.into_key_pair()).or_fail(Code::StateInvalid, "issuing.pem")?;
        Ok(Self { trust_domain, pin: Pin::of(&root)?, root, issuing, issuing_not_after, issuer })
    }

    /// The name of this PKI.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root's certificate: all that others need to trust this PKI.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The root's pin.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// The end of the issuing CA; nothing that it issues outlives it.
    #[must_use]
    pub fn issuing_not_after(&self) -> OffsetDateTime {
        self.issuing_not_after
    }

    /// Issues an agent's certificate for a key that was asked for. The lifetime is cut at the issuing CA's end.
    ///
    /// # Errors
    /// `issuer_expiring` if the issuing CA has ended; `internal` if signing fails.
    pub fn issue_agent(
        &self,
        agent: &AgentId,
        key: &RequestedKey,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, Failure> {
        let role = Role::Agent { trust_domain: self.trust_domain.clone(), agent: agent.clone() };
        let mut params = self.leaf(&role, agent.to_string(), lifetime, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (leaf, serial, not_after) = self.sign(params, key.spki())?;
        Ok(Issued { chain_pem: pem::encode([&leaf, &self.issuing, &self.root]), serial, not_after })
    }

    /// Issues a gateway's certificate with a fresh key, for [`GATEWAY_LIFETIME`], good for every endpoint's name or address.
    ///
    /// # Errors
    /// As [`Authority::issue_agent`]; `config_invalid` if an endpoint's name cannot be in a certificate.
    pub fn issue_gateway(&self, id: &Name, endpoints: &[Endpoint], now: OffsetDateTime) -> Result<Credential, Failure> {
        let role = Role::Gateway { trust_domain: self.trust_domain.clone(), id: id.clone() };
        let mut params = self.leaf(&role, id.to_string(), GATEWAY_LIFETIME, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for host in endpoints.iter().map(|endpoint| &endpoint.0.host).collect::<BTreeSet<_>>() {
            params.subject_alt_names.push(match host {
                Host::Ip(address) => SanType::IpAddress(*address),
                Host::Dns(name) => SanType::DnsName(name.as_str().try_into().or_fail(Code::ConfigInvalid, name)?),
            });
        }
        let key = PrivateKey::generate()?;
        let (leaf, _, _) = self.sign(params, key.key_pair())?;
        Credential::new(vec![leaf, self.issuing.clone(), self.root.clone()], key)
    }

    /// Whether a chain was issued by this authority as it is now.
    pub(super) fn has_issued(&self, chain: &[CertificateDer<'static>]) -> bool {
        matches!(chain, [_, issuing, root] if *issuing == self.issuing && *root == self.root)
    }

    /// Whether a certificate has the key of the root or of the issuing CA.
    pub(super) fn has_key_of(&self, certificate: &CertificateDer<'_>) -> Result<bool, Failure> {
        let pin = Pin::of(certificate)?;
        Ok(pin == self.pin || pin == Pin::of(&self.issuing)?)
    }

    fn leaf(&self, role: &Role, name: String, lifetime: Duration, now: OffsetDateTime) -> Result<CertificateParams, Failure> {
        if now >= self.issuing_not_after {
            let ended = format_args!("the issuing CA ended at {}, now it is {now}", self.issuing_not_after);
            return Err(Failure::new(Code::IssuerExpiring, ended));
        }
        let uri = role.to_string().as_str().try_into().or_fail(Code::Internal, "a role URI is ASCII")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&self.trust_domain, name);
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATED;
        let wanted = time::Duration::try_from(lifetime).ok().and_then(|lifetime| now.checked_add(lifetime));
        params.not_after = wanted.map_or(self.issuing_not_after, |end| end.min(self.issuing_not_after));
        Ok(params)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<(CertificateDer<'static>, Serial, OffsetDateTime), Failure> {
        let serial = Serial::random()?;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(serial.as_be_bytes()));
        // X.509 knows whole seconds.
        params.not_after = params.not_after.replace_nanosecond(0).or_fail(Code::Internal, "zero nanoseconds")?;
        let certificate = params.signed_by(key, &self.issuer).or_fail(Code::Internal, "cannot sign a certificate")?;
        Ok((certificate.into(), serial, params.not_after))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({}, {})", self.trust_domain, self.pin)
    }
}

/// Whether a certificate is a CA that may sign certificates, and only that: no extended key usage.
pub(super) fn is_signing_ca(certificate: &X509Certificate<'_>) -> bool {
    let is_ca = matches!(certificate.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
    let signs = matches!(certificate.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign());
    is_ca && signs && matches!(certificate.extended_key_usage(), Ok(None))
}

fn trust_domain_of(certificate: &X509Certificate<'_>) -> Option<TrustDomain> {
    let names = certificate.subject_alternative_name().ok()??;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => uri.strip_prefix("spiffe://")?.parse().ok(),
        _ => None,
    }
}

/// Nobody decides by the subject: it is for people who look at certificates.
fn subject(trust_domain: &TrustDomain, name: impl Into<String>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, trust_domain.as_str());
    subject.push(DnType::CommonName, name.into());
    subject
}

#[cfg(test)]
mod tests;
