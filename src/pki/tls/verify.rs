//! The verifiers: webpki's verdict on the chain first, then ours on the roles. Refuses to know where certificates come from.
//!
//! webpki does not look at key usages, nor at what a certificate says beside its names; so of every chain it accepts, the CAs must
//! be CAs that may sign, and the leaf must have exactly one role.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme};

use super::super::authority::is_signing_ca;
use super::super::identity::{Identity, Role, TrustDomain, parse};
use super::super::pin::Pin;
use super::super::revoke::Revocations;
use super::presented::intercepted;
use crate::base::code::{Code, Failure, OrFail};

/// Certificates above the leaf; ours sends two, and a change of roots may need a third. More are not worth the search for a path.
const MAX_ABOVE_LEAF: usize = 4;

/// A client's chain: webpki's verdict first, then ours on what it does not look at.
#[derive(Debug)]
pub(super) struct ClientVerifier<R> {
    pub(super) webpki: Arc<dyn ClientCertVerifier>,
    pub(super) rules: R,
}

/// What is asked of a client's chain that webpki has accepted.
pub(super) trait Rules: fmt::Debug + Send + Sync {
    /// Why it is refused, if it is.
    fn check(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), Failure>;
}

/// The gateway's: agents of its trust domain that are not revoked.
#[derive(Debug)]
pub(super) struct Agents {
    trust_domain: TrustDomain,
    revocations: Revocations,
}

impl Agents {
    /// Their verifier.
    pub(super) fn verifier(
        root: &CertificateDer<'static>,
        trust_domain: TrustDomain,
        revocations: Revocations,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ClientVerifier<Self>, Failure> {
        let webpki = WebPkiClientVerifier::builder_with_provider(anchors(root)?, provider.clone())
            // No hints: they would tell a stranger which PKI this is, and agents have one certificate anyway.
            .clear_root_hint_subjects()
            .build()
            .or_fail(Code::StateInvalid, "the root")?;
        Ok(ClientVerifier { webpki, rules: Self { trust_domain, revocations } })
    }
}

impl Rules for Agents {
    fn check(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), Failure> {
        check_signers(above)?;
        let identity = Identity::of_leaf(leaf)?;
        let refused =
            |code, why: &str| Failure::new(code, format_args!("{} (serial {}) {why}", identity.role, identity.serial));
        match &identity.role {
            Role::Agent { trust_domain, .. } if *trust_domain == self.trust_domain => {}
            _ => return Err(refused(Code::CertificateRefused, "is no agent of this trust domain")),
        }
        if self.revocations.contains(&identity.serial) {
            return Err(refused(Code::Revoked, "is revoked"));
        }
        Ok(())
    }
}

impl<R: Rules> ClientCertVerifier for ClientVerifier<R> {
    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_length(above).map_err(carried)?;
        let verified = self.webpki.verify_client_cert(leaf, above, now)?;
        self.rules.check(leaf, above).map_err(carried)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// The agent's: gateways under one root, under the name that was dialled.
#[derive(Debug)]
pub(super) struct AgentVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    root: CertificateDer<'static>,
    /// None at enrollment, when the root alone is known.
    trust_domain: Option<TrustDomain>,
}

impl AgentVerifier {
    pub(super) fn new(
        root: &CertificateDer<'static>,
        trust_domain: Option<TrustDomain>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Failure> {
        let webpki = WebPkiServerVerifier::builder_with_provider(anchors(root)?, provider.clone())
            .build()
            .or_fail(Code::StateInvalid, "the root")?;
        Ok(Self { webpki, root: root.clone(), trust_domain })
    }

    fn check(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), Failure> {
        let wrong = |failure: Failure| Failure::new(Code::GatewayIdentity, failure.detail);
        check_signers(above).map_err(wrong)?;
        let identity = Identity::of_leaf(leaf).map_err(wrong)?;
        let own = self.trust_domain.as_ref().is_none_or(|own| own == identity.role.trust_domain());
        if own && matches!(identity.role, Role::Gateway { .. }) {
            return Ok(());
        }
        Err(Failure::new(Code::GatewayIdentity, format_args!("{} is no gateway of this agent's trust domain", identity.role)))
    }
}

impl ServerCertVerifier for AgentVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_length(above).map_err(|_| carried(intercepted(leaf)))?;
        let verdict = self.webpki.verify_server_cert(leaf, above, name, ocsp, now);
        let verified = verdict.map_err(|error| named(error, &self.root, leaf, above))?;
        self.check(leaf, above).map_err(carried)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// At enrollment: the root with the pin is looked for in what the gateway shows, then verified to as an agent's would be.
#[derive(Debug)]
pub(super) struct PinVerifier {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    pub(super) fn new(pin: Pin, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = check_length(above).and_then(|()| root_with(self.pin, above)).map_err(|_| carried(intercepted(leaf)))?;
        let verifier = AgentVerifier::new(&root.clone().into_owned(), None, &self.provider).map_err(carried)?;
        verifier.verify_server_cert(leaf, above, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The self-signed CA with this pin among the certificates of a chain.
pub(super) fn root_with<'a, 'der>(pin: Pin, chain: &'a [CertificateDer<'der>]) -> Result<&'a CertificateDer<'der>, Failure> {
    let is_root = |der: &CertificateDer<'_>| {
        parse(der).is_ok_and(|certificate| {
            certificate.subject() == certificate.issuer()
                && is_signing_ca(&certificate)
                && certificate.verify_signature(None).is_ok()
        })
    };
    chain
        .iter()
        .find(|der| Pin::of(der).is_ok_and(|found| found == pin) && is_root(der))
        .ok_or_else(|| Failure::new(Code::TlsIntercepted, "the chain does not hold the pinned root"))
}

fn anchors(root: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, Failure> {
    let mut store = RootCertStore::empty();
    store.add(root.clone()).or_fail(Code::StateInvalid, "the root certificate")?;
    Ok(Arc::new(store))
}

/// Refuses a chain that is longer than any that is needed.
fn check_length(above: &[CertificateDer<'_>]) -> Result<(), Failure> {
    if above.len() > MAX_ABOVE_LEAF {
        let why = format_args!("the chain has {} certificates above the leaf, {MAX_ABOVE_LEAF} are allowed", above.len());
        return Err(Failure::new(Code::CertificateRefused, why));
    }
    Ok(())
}

/// Whatever path webpki found leads through these alone, so all of them must be CAs that may sign.
fn check_signers(above: &[CertificateDer<'_>]) -> Result<(), Failure> {
    for der in above {
        if !is_signing_ca(&parse(der)?) {
            let why = "a certificate above the leaf is no CA that may sign, or has an extended key usage";
            return Err(Failure::new(Code::CertificateRefused, why));
        }
    }
    Ok(())
}

/// Whatever else is wrong with it, a certificate that does not come from our root is somebody else's. One that does keeps the reason.
fn named(error: Error, root: &CertificateDer<'_>, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Error {
    if descends(root, leaf, above) { error } else { carried(intercepted(leaf)) }
}

/// Whether the leaf was signed by our root, or by one that our root has signed. Serves the wording of an error alone.
fn descends(root: &CertificateDer<'_>, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> bool {
    let signed_by = |child: &CertificateDer<'_>, parent: &CertificateDer<'_>| match (parse(child), parse(parent)) {
        (Ok(child), Ok(parent)) => {
            child.issuer() == parent.subject() && child.verify_signature(Some(parent.public_key())).is_ok()
        }
        _ => false,
    };
    signed_by(leaf, root) || above.iter().any(|issuer| signed_by(leaf, issuer) && signed_by(issuer, root))
}

/// An error of the TLS library that carries our reason, for [`super::explain`].
fn carried(failure: Failure) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(failure))))
}
