//! A subject's own key and the request to certify it. Refuses to know who the subject is: of a request nothing but the public key is
//! taken, since names, usages and lifetime are the issuer's to choose.

use std::fmt;
use std::path::Path;

use aws_lc_rs::digest;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::base::code::{Code, Failure, OrFail};
use crate::base::files;
use crate::base::limits::MAX_CSR;

/// A private key on the curve P-256. It is never printed and leaves the process only into a file of mode 0600.
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// A fresh key.
    ///
    /// # Errors
    /// `internal` if the system has no randomness.
    pub fn generate() -> Result<Self, Failure> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).or_fail(Code::Internal, "cannot generate a key")
    }

    /// Loads a key that [`PrivateKey::save`] wrote.
    ///
    /// # Errors
    /// As [`files::read_private`]; `state_invalid` if it is no P-256 key in PKCS #8 PEM.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let pem = Zeroizing::new(files::read_private(path)?);
        let what = || format!("{} holds no P-256 key in PKCS #8 PEM", path.display());
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).or_fail(Code::StateInvalid, what())?;
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map(Self).or_fail(Code::StateInvalid, what())
    }

    /// Loads the key if there is one, else makes and saves it. So a request that has to be repeated is made with the same key.
    ///
    /// # Errors
    /// As [`PrivateKey::load`] and [`PrivateKey::save`].
    pub fn load_or_generate(path: &Path) -> Result<Self, Failure> {
        match Self::load(path) {
            Err(missing) if missing.code == Code::StateMissing => {
                let key = Self::generate()?;
                key.save(path)?;
                Ok(key)
            }
            result => result,
        }
    }

    /// Writes the key as PKCS #8 PEM with mode 0600, whole or not at all.
    ///
    /// # Errors
    /// As [`files::write_private`].
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        files::write_private(path, Zeroizing::new(self.0.serialize_pem()).as_bytes())
    }

    /// A certification request (PKCS #10, RFC 2986) in DER. It carries no name and no extension: the issuer would not read them.
    ///
    /// # Errors
    /// `internal` if signing fails.
    pub fn csr_der(&self) -> Result<Vec<u8>, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.0).or_fail(Code::Internal, "cannot sign the certificate request")?;
        Ok(request.der().to_vec())
    }

    /// The public key's SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(super) fn into_key_pair(self) -> KeyPair {
        self.0
    }

    pub(super) fn key_pair(&self) -> &KeyPair {
        &self.0
    }

    /// The key as the TLS library takes it, in PKCS #8.
    pub(super) fn pkcs8_der(&self) -> PrivatePkcs8KeyDer<'static> {
        self.0.serialized_der().to_vec().into()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}

/// The SubjectPublicKeyInfo of an uncompressed P-256 key in DER (RFC 5480, 2), up to the point's 64 bytes. A key has this one
/// form: parsers take others as well, and in these it would have another hash.
const P256: [u8; 27] =
    *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";

/// A public key that its owner has asked to certify, and has proven to hold.
#[derive(Clone, Debug)]
pub struct RequestedKey {
    spki: SubjectPublicKeyInfo,
    hash: [u8; 32],
}

impl RequestedKey {
    /// Takes the public key out of a certification request in DER (RFC 2986). All else in it is ignored.
    ///
    /// # Errors
    /// `csr_invalid` if it is longer than [`MAX_CSR`], malformed, followed by other bytes, not for an ECDSA P-256 key, or not signed
    /// by that key.
    pub fn from_csr(der: &[u8]) -> Result<Self, Failure> {
        if der.len() > MAX_CSR {
            return Err(refused(format_args!("it has {} bytes, {MAX_CSR} are allowed", der.len())));
        }
        let (rest, csr) =
            X509CertificationRequest::from_der(der).map_err(|error| refused(format_args!("malformed: {error}")))?;
        if !rest.is_empty() {
            return Err(refused("it is followed by other bytes"));
        }
        // Before the signature is verified, so that its cost is that of P-256 whatever was sent.
        let spki = csr.certification_request_info.subject_pki.raw;
        if !matches!(spki.strip_prefix(&P256), Some(point) if point.len() == 64) {
            return Err(refused("the key is not an uncompressed ECDSA P-256 key"));
        }
        if csr.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(refused("it is not signed with ECDSA and SHA-256"));
        }
        csr.verify_signature().map_err(|_| refused("its signature is not of its key"))?;
        let hash = digest::digest(&digest::SHA256, spki).as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(Self { spki: SubjectPublicKeyInfo::from_der(spki).map_err(refused)?, hash })
    }

    /// The SHA-256 of the key's SubjectPublicKeyInfo: the same key has the same hash in every request.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.hash
    }

    pub(super) fn spki(&self) -> &SubjectPublicKeyInfo {
        &self.spki
    }
}

fn refused(why: impl fmt::Display) -> Failure {
    Failure::new(Code::CsrInvalid, format_args!("the certificate request is refused: {why}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::pki::hostile::requests;

    fn code(der: &[u8]) -> Option<Code> {
        RequestedKey::from_csr(der).err().map(|refusal| refusal.code)
    }

    #[test]
    fn a_request_carries_the_key_and_little_else() {
        let key = PrivateKey::generate().unwrap();
        let (csr, again) = (key.csr_der().unwrap(), key.csr_der().unwrap());
        assert!(csr.len() < 400, "{}", csr.len());
        let requested = RequestedKey::from_csr(&csr).unwrap();
        assert_eq!(requested.spki_sha256(), RequestedKey::from_csr(&again).unwrap().spki_sha256());
        assert_eq!(requested.spki_sha256().as_slice(), digest::digest(&digest::SHA256, &key.spki_der()).as_ref());
        let other = PrivateKey::generate().unwrap().csr_der().unwrap();
        assert_ne!(requested.spki_sha256(), RequestedKey::from_csr(&other).unwrap().spki_sha256());
    }

    #[test]
    fn s7_keys_of_other_kinds_are_refused() {
        for (name, csr) in [
            ("RSA 1024", requests::rsa(1024)),
            ("RSA 2048", requests::rsa(2048)),
            ("RSA 16384", requests::rsa(16384)),
            ("P-384", requests::p384()),
            ("Ed25519", requests::ed25519()),
        ] {
            let refusal = RequestedKey::from_csr(&csr).unwrap_err();
            assert!(
                refusal.code == Code::CsrInvalid && refusal.detail.contains("not an uncompressed ECDSA P-256 key"),
                "{name}: {refusal}"
            );
        }
    }

    #[test]
    fn s7_a_request_must_be_signed_by_its_key_and_end_where_it_ends() {
        let key = PrivateKey::generate().unwrap();
        let csr = key.csr_der().unwrap();
        let mut forged = csr.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(code(&forged), Some(Code::CsrInvalid));
        let mut longer = csr.clone();
        longer.push(0);
        assert_eq!(code(&longer), Some(Code::CsrInvalid));
        for cut in 0..csr.len() {
            assert_eq!(code(&csr[..cut]), Some(Code::CsrInvalid), "cut at {cut}");
        }
        assert_eq!(code(&requests::with_foreign_key(&csr)), Some(Code::CsrInvalid), "another's public key");
    }

    #[test]
    fn s7_a_key_in_another_encoding_is_refused_since_it_would_count_as_another_key() {
        let mut csr = PrivateKey::generate().unwrap().csr_der().unwrap();
        let at = csr.windows(4).position(|bytes| bytes == [0x30, 0x59, 0x30, 0x13]).unwrap();
        // The algorithm's length in two bytes, and the lengths around it.
        csr.splice(at + 3..at + 4, [0x81, 0x13]);
        for length in [2, 4, at + 1] {
            csr[length] += 1;
        }
        let refusal = RequestedKey::from_csr(&csr).unwrap_err();
        assert!(refusal.detail.contains("not an uncompressed ECDSA P-256 key"), "{refusal}");
    }

    #[test]
    fn s7_a_request_has_at_most_8_kib() {
        let (fits, large) = (requests::of_size(8 * 1024 - 64), requests::of_size(9 * 1024));
        assert!(fits.len() <= MAX_CSR && large.len() > MAX_CSR, "{} {}", fits.len(), large.len());
        assert_eq!(code(&fits), None);
        assert_eq!(code(&large), Some(Code::CsrInvalid));
    }

    #[test]
    fn i1_a_key_is_not_printed() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "[private key]");
    }

    #[test]
    fn e11_a_key_is_saved_private_and_loaded_only_if_it_still_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        let key = PrivateKey::load_or_generate(&path).unwrap();
        assert_eq!(PrivateKey::load_or_generate(&path).unwrap().spki_der(), key.spki_der());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(PrivateKey::load(&path).unwrap_err().code, Code::FilePermissions);
        assert_eq!(PrivateKey::load_or_generate(&path).unwrap_err().code, Code::FilePermissions);
        let link = dir.path().join("link.key");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(PrivateKey::load(&link).unwrap_err().code, Code::FilePermissions);
    }

    #[test]
    fn a_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        for bytes in ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            files::write_private(&path, bytes.as_bytes()).unwrap();
            let failure = PrivateKey::load(&path).unwrap_err();
            assert_eq!(failure.code, Code::StateInvalid);
            assert!(failure.detail.contains("agent.key"), "{failure}");
        }
    }
}
