//! A certificate with its key: loading, saving and knowing when to renew it. Refuses to know how a certificate is obtained over the
//! network.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::authority::Authority;
use super::identity::{Identity, Role, hosts_of, parse};
use super::pem;
use super::request::PrivateKey;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::Endpoint;
use crate::base::files;
use crate::base::id::Name;

/// A gateway's certificate and key in its state directory.
const GATEWAY_PEM: &str = "gateway.pem";
const GATEWAY_KEY: &str = "gateway.key";

/// A chain (leaf first, root last) and the private key of its leaf.
#[derive(Debug)]
pub struct Credential {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
    identity: Identity,
}

impl Credential {
    /// Puts a chain and a key together.
    ///
    /// # Errors
    /// `state_invalid` if the leaf has no identity or is not for this key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, Failure> {
        let invalid = |failure: Failure| Failure::new(Code::StateInvalid, failure.detail);
        let leaf = chain.first().ok_or_else(|| Failure::new(Code::StateInvalid, "there is no certificate"))?;
        let identity = Identity::of_leaf(leaf).map_err(invalid)?;
        if parse(leaf).map_err(invalid)?.public_key().raw != key.spki_der() {
            return Err(Failure::new(Code::StateInvalid, "the certificate is for another key"));
        }
        Ok(Self { chain, key, identity })
    }

    /// Puts a chain in PEM, as the issuer sent it, and a key together.
    ///
    /// # Errors
    /// As [`Credential::new`].
    pub fn from_pem(chain: &str, key: PrivateKey) -> Result<Self, Failure> {
        Self::new(pem::parse(chain.as_bytes())?, key)
    }

    /// Loads what [`Credential::save`] wrote, also if a crash interrupted it: then the old pair or the new one.
    ///
    /// # Errors
    /// `state_missing` if there is no certificate or key; `state_invalid` if they are damaged or don't belong together;
    /// `file_permissions` if others could have read or changed them.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let chain = pem::load(certificate)?;
        let current = PrivateKey::load(key).and_then(|key| Self::new(chain.clone(), key));
        let Err(failure) = current else { return current };
        // The certificate is replaced before its key takes its place, so the key that fits it may still be waiting.
        let pending = pending_key(key);
        match PrivateKey::load(&pending).and_then(|key| Self::new(chain, key)) {
            Ok(renewed) if failure.code != Code::FilePermissions => {
                renewed.key.save(key)?;
                files::remove(&pending)?;
                Ok(renewed)
            }
            _ => Err(failure.context(certificate.display())),
        }
    }

    /// Writes the chain and the key to their files, mode 0600. After a crash at any point [`Credential::load`] finds the old pair or the
    /// new one, whole.
    ///
    /// # Errors
    /// As [`files::write_private`].
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), Failure> {
        let pending = pending_key(key);
        self.key.save(&pending)?;
        pem::save(certificate, &self.chain)?;
        self.key.save(key)?;
        files::remove(&pending)
    }

    /// Who it makes its holder.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Leaf first, root last.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// How long it is still valid; negative when it has ended.
    #[must_use]
    pub fn remaining(&self, now: OffsetDateTime) -> Duration {
        self.identity.not_after - now
    }

    /// Whether two thirds of its life are over: the time to renew it.
    #[must_use]
    pub fn in_last_third(&self, now: OffsetDateTime) -> bool {
        let lifetime = self.identity.not_after - self.identity.not_before;
        self.remaining(now) * 3 <= lifetime
    }
}

/// Where a new key waits until its certificate is there: beside the key that it will replace. An enrollment makes its key here
/// ([`PrivateKey::load_or_generate`]), so that it can be repeated with the same key; [`Credential::save`] clears it away.
#[must_use]
pub fn pending_key(key: &Path) -> PathBuf {
    let mut name = key.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    key.with_file_name(name)
}

/// The gateway's own credential in its state directory: the one that is there if it is good for this authority, id and endpoints
/// and not yet in its last third; else a new one.
///
/// # Errors
/// As [`Authority::issue_gateway`] and [`Credential::save`]; `file_permissions` if others could have read or changed the old one.
pub fn gateway_credential(
    authority: &Authority,
    directory: &Path,
    id: &Name,
    endpoints: &[Endpoint],
    now: OffsetDateTime,
) -> Result<Credential, Failure> {
    let (certificate, key) = (directory.join(GATEWAY_PEM), directory.join(GATEWAY_KEY));
    match Credential::load(&certificate, &key) {
        Ok(credential) if is_current(&credential, authority, id, endpoints, now) => return Ok(credential),
        // One that is missing or damaged can be made anew; one that others may have is for the operator to look at.
        Err(failure) if !matches!(failure.code, Code::StateMissing | Code::StateInvalid) => return Err(failure),
        _ => {}
    }
    let credential = authority.issue_gateway(id, endpoints, now)?;
    credential.save(&certificate, &key)?;
    Ok(credential)
}

fn is_current(credential: &Credential, authority: &Authority, id: &Name, endpoints: &[Endpoint], now: OffsetDateTime) -> bool {
    let role = Role::Gateway { trust_domain: authority.trust_domain().clone(), id: id.clone() };
    let wanted: BTreeSet<String> = endpoints.iter().map(|endpoint| endpoint.0.host.to_string()).collect();
    let names = credential.chain.first().and_then(|leaf| hosts_of(leaf).ok()).unwrap_or_default();
    let valid = credential.identity.not_before <= now && !credential.in_last_third(now);
    valid
        && credential.identity.role == role
        && authority.has_issued(&credential.chain)
        && names.into_iter().collect::<BTreeSet<_>>() == wanted
}

#[cfg(test)]
mod tests;
