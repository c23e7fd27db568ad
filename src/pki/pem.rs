//! Certificates as PEM (RFC 7468), in memory and in files. Refuses to know what they certify.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::base::code::{Code, Failure, OrFail};
use crate::base::files;

/// Reads every certificate of a PEM text, in order; other blocks are passed over.
///
/// # Errors
/// `state_invalid` if there is none or the text is damaged.
pub fn parse(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().or_fail(Code::StateInvalid, "damaged PEM")?;
    if certificates.is_empty() {
        return Err(Failure::new(Code::StateInvalid, "there is no certificate in the PEM"));
    }
    Ok(certificates)
}

/// Writes certificates as PEM, in order.
#[must_use]
pub fn encode<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = STANDARD.encode(certificate);
        for start in (0..body.len()).step_by(64) {
            text.push_str(&body[start..body.len().min(start + 64)]);
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Loads every certificate of a file that only its owner may write.
///
/// # Errors
/// As [`files::read_trusted`]; `state_invalid` if it holds no certificate.
pub fn load(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    parse(&files::read_trusted(path)?).map_err(|failure| failure.context(path.display()))
}

/// Loads a file of exactly one certificate, such as the root that an agent keeps.
///
/// # Errors
/// As [`load`]; `state_invalid` if it holds several.
pub fn load_one(path: &Path) -> Result<CertificateDer<'static>, Failure> {
    let mut certificates = load(path)?;
    match (certificates.pop(), certificates.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(Failure::new(Code::StateInvalid, format_args!("{} holds more than one certificate", path.display()))),
    }
}

/// Writes certificates to a file with mode 0600, whole or not at all.
///
/// # Errors
/// As [`files::write_private`].
pub fn save<'a>(path: &Path, certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> Result<(), Failure> {
    files::write_private(path, encode(certificates).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_round_trip_in_order() {
        let some: Vec<_> = [1usize, 47, 48, 49, 500].map(|n| CertificateDer::from(vec![n as u8; n])).into();
        assert_eq!(parse(encode(&some).as_bytes()).unwrap(), some);
    }

    #[test]
    fn a_damaged_or_empty_text_is_refused() {
        for text in
            ["", "nonsense", "-----BEGIN CERTIFICATE-----\nMII", "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n"]
        {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code, Code::StateInvalid, "{text}");
        }
    }

    #[test]
    fn a_root_file_holds_one_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.pem");
        let root = CertificateDer::from(vec![1, 2, 3]);
        save(&path, [&root]).unwrap();
        assert_eq!(load_one(&path).unwrap(), root);
        save(&path, [&root, &root]).unwrap();
        assert_eq!(load_one(&path).unwrap_err().code, Code::StateInvalid);
        assert_eq!(load_one(&dir.path().join("none")).unwrap_err().code, Code::StateMissing);
    }
}
