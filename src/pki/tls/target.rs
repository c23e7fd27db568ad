//! TLS towards targets: the host's CAs or the site's own, TLS 1.2 and 1.3. Nothing here is ever used for the tunnel.
//! Refuses to know what is spoken inside and where targets are.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use super::explain::{is_plaintext, outside_validity, tls_error};
use super::{configured, provider, server_name};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::endpoint::{Host, HostPort};
use crate::base::files;
use crate::pki::pem;

/// What the site says about TLS with a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetTlsFiles {
    /// The CAs that are believed, PEM; none: those of the host.
    pub ca_file: Option<PathBuf>,
    /// The name that the certificate must have; none: the host that is dialled.
    pub server_name: Option<Host>,
    /// The certificate chain and its key that are shown if the target asks, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// TLS with one target. Equal if the same is believed and shown.
#[derive(Clone)]
pub struct TargetTls {
    config: Arc<ClientConfig>,
    server_name: Option<Host>,
    /// Of all that the files hold.
    hash: [u8; 32],
}

impl TargetTls {
    /// Reads the files.
    ///
    /// # Errors
    /// `config_invalid` or `config_unreadable`, naming the file; `file_permissions` if others may write to it, or read the key.
    pub fn load(files: &TargetTlsFiles) -> Result<Self, Failure> {
        let mut hash = Context::new(&SHA256);
        let roots = roots(files, &mut hash)?;
        let wrong = || files.ca_file.as_ref().map_or("the host's CAs".to_owned(), |path| path.display().to_string());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.or_fail(Code::ConfigInvalid, wrong())?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has suites of both")
            .with_webpki_verifier(verifier);
        let config = match &files.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = pem::load(certificate).map_err(configured)?;
                let pem = zeroize::Zeroizing::new(files::read_private(key).map_err(configured)?);
                let private = PrivateKeyDer::from_pem_slice(&pem).or_fail(Code::ConfigInvalid, key.display())?;
                chain.iter().for_each(|certificate| hash.update(certificate));
                hash.update(&pem);
                let pair = format_args!("{} and {}", certificate.display(), key.display()).to_string();
                builder.with_client_auth_cert(chain, private).or_fail(Code::ConfigInvalid, pair)?
            }
        };
        let hash = hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(Self { config: Arc::new(config), server_name: files.server_name.clone(), hash })
    }

    /// The same that offers these protocols (ALPN, RFC 7301), best first.
    #[must_use]
    pub fn offering(&self, protocols: &[&[u8]]) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// The configuration to connect with.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// The name that the certificate must have when this host is dialled.
    ///
    /// # Errors
    /// `config_invalid` if it cannot be in a certificate.
    pub fn name(&self, dialled: &HostPort) -> Result<ServerName<'static>, Failure> {
        let host = self.server_name.clone().unwrap_or_else(|| dialled.host.clone());
        server_name(&HostPort { host, port: dialled.port })
    }
}

/// Why TLS with a target did not come to be.
#[must_use]
pub fn explain(error: &io::Error, dialled: &HostPort) -> Failure {
    let failure = match tls_error(error) {
        Some(Error::InvalidCertificate(reason)) => of_certificate(reason),
        Some(error) if is_plaintext(error) => Failure::new(Code::TargetTlsFailed, "what answered is not TLS"),
        Some(error) => Failure::new(Code::TargetTlsFailed, error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::new(Code::TargetTlsFailed, "the target closed the connection during the handshake")
        }
        None => Failure::new(Code::TargetTlsFailed, error),
    };
    failure.context(dialled)
}

fn of_certificate(reason: &CertificateError) -> Failure {
    match reason {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Failure::new(Code::TargetTlsNameMismatch, reason)
        }
        _ => {
            let detail = outside_validity("the target's", reason).map_or_else(|| reason.to_string(), |failure| failure.detail);
            Failure::new(Code::TargetTlsUntrusted, detail)
        }
    }
}

fn roots(files: &TargetTlsFiles, hash: &mut Context) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &files.ca_file else {
        // Certificates of the host that can't be read are its own affair, as long as there are others.
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            let detail = "this host has no CA certificates; name the target's CA in `tls.ca_file`";
            return Err(Failure::new(Code::ConfigInvalid, detail));
        }
        return Ok(roots);
    };
    for certificate in pem::load(path).map_err(configured)? {
        add(&mut roots, certificate, hash).map_err(|failure| failure.context(path.display()))?;
    }
    Ok(roots)
}

fn add(roots: &mut RootCertStore, certificate: CertificateDer<'static>, hash: &mut Context) -> Result<(), Failure> {
    hash.update(&certificate);
    roots.add(certificate).or_fail(Code::ConfigInvalid, "not a CA's certificate")
}

impl PartialEq for TargetTls {
    fn eq(&self, other: &Self) -> bool {
        (self.hash, &self.server_name, &self.config.alpn_protocols)
            == (other.hash, &other.server_name, &other.config.alpn_protocols)
    }
}

impl Eq for TargetTls {}

impl fmt::Debug for TargetTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}
