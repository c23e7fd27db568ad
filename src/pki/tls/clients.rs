//! Client certificates on listeners: who may show one, under the vendor's own CA, and which names it gives. Refuses to know
//! what a name is granted.
//!
//! The private PKI has no part in it: neither does its CA count here, nor a certificate that says a role of it, whoever signed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CommonState, RootCertStore};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::super::authority::Authority;
use super::super::identity::{Role, parse};
use super::super::pem;
use super::verify::{ClientVerifier, Rules};
use super::{configured, peer_leaf};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::id::{printable, unprintable};

/// Whose certificates a listener takes.
#[derive(Clone, Copy, Debug)]
pub struct ClientCa<'a> {
    /// One or more CA certificates of the vendor's own, in PEM.
    pub file: &'a Path,
    /// Whether a client without a certificate is refused.
    pub required: bool,
    /// The PKI of gateways and agents, which must not be the one of clients.
    pub private: &'a Authority,
}

impl ClientCa<'_> {
    /// Tells other CAs from the same: SHA-256 of their certificates.
    ///
    /// # Errors
    /// As [`super::listener_config`] for the file.
    pub fn hash(&self) -> Result<[u8; 32], Failure> {
        let mut context = digest::Context::new(&digest::SHA256);
        pem::load(self.file).map_err(configured)?.iter().for_each(|der| context.update(der));
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Ok(hash)
    }
}

/// The names of the client of this connection, from the chain that this connection's handshake verified, in the order of its
/// certificate: DNS names, URIs and mail addresses, as they are written; the subject's common name only if the certificate has
/// no alternative names at all. None before the handshake has ended, and without a certificate.
#[must_use]
pub fn client_names(connection: &CommonState) -> Vec<String> {
    // The verifier has read them before, so there is no error left.
    peer_leaf(connection).and_then(|leaf| names_of(leaf).ok()).unwrap_or_default()
}

/// When the certificate of the client of this connection ends. None before the handshake has ended, and without a certificate.
#[must_use]
pub fn client_not_after(connection: &CommonState) -> Option<OffsetDateTime> {
    parse(peer_leaf(connection)?).ok().map(|leaf| leaf.validity().not_after.to_datetime())
}

/// The verifier for a listener.
pub(super) fn verifier(clients: &ClientCa<'_>, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Failure> {
    let anchors = anchors(clients)?;
    let rules = Vendors { constrained: anchors.roots.iter().any(|anchor| anchor.name_constraints.is_some()) };
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider);
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    // Its hints are the vendor's CAs, so that a client with several certificates knows which one is meant.
    let webpki = builder.build().or_fail(Code::ConfigInvalid, clients.file.display())?;
    Ok(Arc::new(ClientVerifier { webpki, rules }))
}

fn anchors(clients: &ClientCa<'_>) -> Result<RootCertStore, Failure> {
    let invalid = |why: &str| Failure::new(Code::ConfigInvalid, format_args!("{}: {why}", clients.file.display()));
    let mut anchors = RootCertStore::empty();
    for der in pem::load(clients.file).map_err(configured)? {
        let certificate = parse(&der).map_err(|failure| invalid(&failure.detail))?;
        if clients.private.has_key_of(&der).map_err(configured)? {
            return Err(invalid("it holds a CA of the gateway's own PKI, whose certificates are for gateways and agents"));
        }
        if !may_sign(&certificate) {
            return Err(invalid("it holds a certificate that is no CA"));
        }
        anchors.add(der.clone()).or_fail(Code::ConfigInvalid, clients.file.display())?;
    }
    Ok(anchors)
}

/// A listener's: clients of the vendor's own CAs.
#[derive(Debug)]
struct Vendors {
    /// One of the CAs that are trusted has name constraints.
    constrained: bool,
}

impl Rules for Vendors {
    /// webpki takes a leaf without extended key usage, and a CA that may not sign; and it holds no common name to name constraints, since
    /// it knows none.
    fn check(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), Failure> {
        let mut constrained = self.constrained;
        for der in above {
            let certificate = parse(der)?;
            if !may_sign(&certificate) {
                return Err(refused("a certificate above the leaf is no CA that may sign"));
            }
            constrained |= !matches!(certificate.name_constraints(), Ok(None));
        }
        let certificate = parse(leaf)?;
        if !matches!(certificate.extended_key_usage(), Ok(Some(usage)) if usage.value.client_auth) {
            return Err(refused("its extended key usage does not have clientAuth"));
        }
        if constrained && matches!(certificate.subject_alternative_name(), Ok(None)) {
            return Err(refused("a CA above it has name constraints, which hold alternative names alone, and it has none"));
        }
        names_of(leaf).map(drop)
    }
}

/// Whether a certificate is a CA, and may sign certificates if it says what it may.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let is_ca = matches!(certificate.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
    let signs = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    is_ca && signs
}

/// The names of a leaf. One that has a role of the private PKI has none, and is refused.
fn names_of(leaf: &CertificateDer<'_>) -> Result<Vec<String>, Failure> {
    let certificate = parse(leaf)?;
    let Some(alternatives) = certificate.subject_alternative_name().map_err(refused)? else {
        return Ok(common_name(&certificate).into_iter().collect());
    };
    let mut names = Vec::new();
    for name in &alternatives.value.general_names {
        let name = match name {
            GeneralName::URI(uri) if Role::parse(uri).is_some() => {
                return Err(refused(format_args!("it is of gateways and agents: `{}`", printable(uri, 200))));
            }
            GeneralName::URI(name) | GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => *name,
            GeneralName::Invalid(..) => return Err(refused("it has an alternative name that is undecodable")),
            _ => continue,
        };
        if name.is_empty() || name.contains(unprintable) {
            return Err(refused("it has an alternative name that is not printable"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// The one common name, if it is printable.
fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next()?.as_str(), names.next()) {
        (Ok(name), None) if !name.is_empty() && !name.contains(unprintable) => Some(name.to_owned()),
        _ => None,
    }
}

fn refused(why: impl fmt::Display) -> Failure {
    Failure::new(Code::CertificateRefused, format_args!("the client's certificate is not taken: {why}"))
}
