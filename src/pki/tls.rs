//! TLS configurations, and nothing else in this project names one: TLS 1.3 only, one crypto provider, one protocol (ALPN) each.
//! Refuses to know sockets and what is spoken inside.

mod clients;
pub mod explain;
mod presented;
#[cfg(feature = "agent")]
pub mod target;
mod verify;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig, CommonState, ConnectionCommon, ServerConfig};

pub use self::clients::{ClientCa, client_names, client_not_after};
pub use self::explain::{explain, explain_plaintext, refusal_of};
pub use self::presented::FirstBytes;
use self::verify::{AgentVerifier, Agents, PinVerifier};
use super::identity::{Identity, Role, TrustDomain};
use super::pem;
use super::pin::Pin;
use super::renew::Credential;
use super::revoke::Revocations;
use crate::base::code::{Code, Failure, OrFail};
use crate::base::endpoint::{Host, HostPort};
use crate::base::files;

/// The tunnel: HTTP/1.1, upgraded to WebSocket; a client certificate is required.
pub const ALPN_TUNNEL: &[u8] = b"http/1.1";
/// Enrollment, without a client certificate.
pub const ALPN_ENROLL: &[u8] = b"underpass-enroll/1";
/// A client's CONNECT, without a client certificate.
pub const ALPN_CLIENT: &[u8] = b"underpass-client/1";

/// Makes our provider the process's default, so that no library has to guess one. May be called any number of times.
pub fn install_provider() {
    // The only error says that one is installed already.
    drop(CryptoProvider::install_default(provider().as_ref().clone()));
}

/// AES-128-GCM first: as strong as P-256, and the fastest on every processor of interest. Signatures of any common kind are verified
/// although our own are all P-256, so that an inspecting proxy of any kind gets far enough to be named.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// What a connection to the gateway's port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// [`ALPN_TUNNEL`].
    Tunnel,
    /// [`ALPN_ENROLL`].
    Enroll,
    /// [`ALPN_CLIENT`].
    Client,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Tunnel, Self::Enroll, Self::Client];

    /// Its name in ALPN (RFC 7301).
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Tunnel => ALPN_TUNNEL,
            Self::Enroll => ALPN_ENROLL,
            Self::Client => ALPN_CLIENT,
        }
    }
}

/// Chooses by the names that a `ClientHello` offers: exactly one of ours must be among them. Which it is decides whether a client
/// certificate is needed, so it must not be left to a preference.
///
/// # Errors
/// `protocol_violation` if there is no ALPN, none of ours, or two.
pub fn choose<'a>(offered: Option<impl Iterator<Item = &'a [u8]>>) -> Result<Protocol, Failure> {
    let refused = |why: &str| Failure::new(Code::ProtocolViolation, format_args!("TLS without a clear protocol: {why}"));
    let offered = offered.ok_or_else(|| refused("no ALPN"))?;
    let mut ours = offered.filter_map(|name| Protocol::ALL.into_iter().find(|protocol| protocol.alpn() == name));
    match (ours.next(), ours.next()) {
        (Some(protocol), None) => Ok(protocol),
        (None, _) => Err(refused("ALPN names none that is spoken here")),
        (Some(_), Some(_)) => Err(refused("ALPN names several")),
    }
}

/// The gateway's configurations on its one port. All show the same certificate, which can be replaced while they are in use.
#[derive(Clone, Debug)]
pub struct GatewayTls {
    certificate: Arc<CurrentCertificate>,
    tunnel: Arc<ServerConfig>,
    enroll: Arc<ServerConfig>,
    client: Arc<ServerConfig>,
}

impl GatewayTls {
    /// Configurations that show `credential` and, for the tunnel, accept agents of its trust domain under `root` whose certificates are
    /// not among `revocations`.
    ///
    /// # Errors
    /// `state_invalid` if the credential is no gateway's or the root no certificate.
    pub fn new(root: &CertificateDer<'static>, credential: &Credential, revocations: Revocations) -> Result<Self, Failure> {
        let Role::Gateway { trust_domain, .. } = &credential.identity().role else {
            return Err(Failure::new(Code::StateInvalid, "the gateway's certificate is not a gateway's"));
        };
        let verifier = Agents::verifier(root, trust_domain.clone(), revocations, &provider())?;
        let certificate = Arc::new(CurrentCertificate(ArcSwap::from_pointee(certified(credential)?)));
        let server = |protocol: Protocol, verifier: Arc<dyn ClientCertVerifier>| {
            let mut config = server_builder(verifier).with_cert_resolver(certificate.clone());
            config.alpn_protocols = vec![protocol.alpn().to_vec()];
            Arc::new(without_resumption(config))
        };
        Ok(Self {
            tunnel: server(Protocol::Tunnel, Arc::new(verifier)),
            enroll: server(Protocol::Enroll, Arc::new(NoClientAuth)),
            client: server(Protocol::Client, Arc::new(NoClientAuth)),
            certificate,
        })
    }

    /// Shows another certificate from the next handshake on.
    ///
    /// # Errors
    /// `state_invalid` if the key is not one the TLS library takes.
    pub fn replace(&self, credential: &Credential) -> Result<(), Failure> {
        self.certificate.0.store(Arc::new(certified(credential)?));
        Ok(())
    }

    /// The configuration of a protocol.
    #[must_use]
    pub fn config(&self, protocol: Protocol) -> Arc<ServerConfig> {
        match protocol {
            Protocol::Tunnel => self.tunnel(),
            Protocol::Enroll => self.enroll(),
            Protocol::Client => self.client(),
        }
    }

    /// For agents: a client certificate is required.
    #[must_use]
    pub fn tunnel(&self) -> Arc<ServerConfig> {
        self.tunnel.clone()
    }

    /// For those who have no certificate yet.
    #[must_use]
    pub fn enroll(&self) -> Arc<ServerConfig> {
        self.enroll.clone()
    }

    /// For clients, who show a token inside.
    #[must_use]
    pub fn client(&self) -> Arc<ServerConfig> {
        self.client.clone()
    }
}

/// An agent's configuration for the tunnel.
#[derive(Clone, Debug)]
pub struct AgentTls {
    config: Arc<ClientConfig>,
}

impl AgentTls {
    /// Shows `credential`, and accepts gateways of its trust domain under `root` alone.
    ///
    /// # Errors
    /// `state_invalid` if the credential is no agent's or the root no certificate.
    pub fn new(credential: &Credential, root: &CertificateDer<'static>) -> Result<Self, Failure> {
        let Role::Agent { trust_domain, .. } = &credential.identity().role else {
            return Err(Failure::new(Code::StateInvalid, "the agent's certificate is not an agent's"));
        };
        let verifier = AgentVerifier::new(root, Some(trust_domain.clone()), &provider())?;
        let config = client_builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(credential.chain().to_vec(), private_key(credential))
            .or_fail(Code::StateInvalid, "the agent's certificate and key")?;
        Ok(Self { config: finished_client(config, Protocol::Tunnel) })
    }

    /// For the tunnel. The handshake's end is not yet acceptance: in TLS 1.3 a refused client certificate is reported on the first
    /// read.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }
}

/// The configuration to enroll with, trusting nothing but the root with this pin, and what that root was.
#[must_use]
pub fn enroll_client(pin: Pin) -> (Arc<ClientConfig>, PinnedRoot) {
    (pinned_client(pin, Protocol::Enroll), PinnedRoot(pin))
}

/// The configuration with which a client asks for a target: it trusts nothing but the root with this pin, and shows no certificate.
#[must_use]
pub fn connect_client(pin: Pin) -> Arc<ClientConfig> {
    pinned_client(pin, Protocol::Client)
}

/// The root that a gateway showed at enrollment.
#[derive(Clone, Copy, Debug)]
pub struct PinnedRoot(Pin);

impl PinnedRoot {
    /// The root and the trust domain of the gateway, after the handshake has ended.
    ///
    /// # Errors
    /// `gateway_identity` if the handshake has not ended or was of another configuration.
    pub fn of(&self, connection: &CommonState) -> Result<(CertificateDer<'static>, TrustDomain), Failure> {
        let wrong = |failure: Failure| Failure::new(Code::GatewayIdentity, failure.detail);
        let identity = peer_identity(connection).map_err(wrong)?;
        let chain = connection.peer_certificates().unwrap_or_default();
        let root = verify::root_with(self.0, chain).map_err(wrong)?;
        Ok((root.clone().into_owned(), identity.role.trust_domain().clone()))
    }
}

/// The configuration of a listener for clients with the vendor's own certificate: TLS 1.3; client certificates of `clients`,
/// or none.
///
/// # Errors
/// As [`files::read_trusted`] for the certificates and [`files::read_private`] for the key; `config_invalid` if they hold none,
/// don't belong together, or `clients` is no CA for clients.
pub fn listener_config(certificate: &Path, key: &Path, clients: Option<&ClientCa<'_>>) -> Result<Arc<ServerConfig>, Failure> {
    let chain = pem::load(certificate).map_err(configured)?;
    let pem = zeroize::Zeroizing::new(files::read_private(key).map_err(configured)?);
    let private = PrivateKeyDer::from_pem_slice(&pem).or_fail(Code::ConfigInvalid, key.display())?;
    let verifier = match clients {
        Some(clients) => clients::verifier(clients, provider())?,
        None => Arc::new(NoClientAuth),
    };
    let pair = format_args!("{} and {}", certificate.display(), key.display()).to_string();
    let config = server_builder(verifier).with_single_cert(chain, private).or_fail(Code::ConfigInvalid, pair)?;
    Ok(Arc::new(without_resumption(config)))
}

/// An error of a file that the configuration names: such files are no part of our own state.
fn configured(failure: Failure) -> Failure {
    match failure.code {
        Code::StateInvalid => Failure::new(Code::ConfigInvalid, failure.detail),
        Code::StateMissing => Failure::new(Code::ConfigUnreadable, failure.detail),
        _ => failure,
    }
}

/// Who the other side of this connection is, from the chain that this connection's handshake verified.
///
/// # Errors
/// `certificate_refused` if it showed none, or the handshake has not ended.
pub fn peer_identity(connection: &CommonState) -> Result<Identity, Failure> {
    let leaf = peer_leaf(connection);
    Identity::of_leaf(leaf.ok_or_else(|| Failure::new(Code::CertificateRefused, "no certificate was shown"))?)
}

/// The leaf that the other side showed and this connection's handshake verified; none before the handshake has ended.
fn peer_leaf(connection: &CommonState) -> Option<&CertificateDer<'static>> {
    let shown = if connection.is_handshaking() { None } else { connection.peer_certificates() };
    shown?.first()
}

/// What both ends of this connection can compute and no other connection has (RFC 8446, 7.5): binds what is said inside to it.
///
/// # Errors
/// `internal` before the handshake has ended.
pub fn exporter<Data>(connection: &ConnectionCommon<Data>, label: &[u8]) -> Result<[u8; 32], Failure> {
    connection.export_keying_material([0; 32], label, None).or_fail(Code::Internal, "the TLS exporter")
}

/// The name that a dialled host is verified under.
///
/// # Errors
/// `config_invalid` if it cannot be in a certificate.
pub fn server_name(dialled: &HostPort) -> Result<ServerName<'static>, Failure> {
    match &dialled.host {
        Host::Ip(address) => Ok(ServerName::IpAddress(IpAddr::from(*address))),
        Host::Dns(name) => ServerName::try_from(name.clone()).or_fail(Code::ConfigInvalid, name),
    }
}

fn server_builder(
    verifier: Arc<dyn ClientCertVerifier>,
) -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier)
}

/// A resumed session would skip the verifier, and with it the revocations.
fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

fn client_builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).expect("the provider has TLS 1.3 suites")
}

fn pinned_client(pin: Pin, protocol: Protocol) -> Arc<ClientConfig> {
    let verifier = PinVerifier::new(pin, provider());
    let config = client_builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    finished_client(config, protocol)
}

fn finished_client(mut config: ClientConfig, protocol: Protocol) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Arc::new(config)
}

fn certified(credential: &Credential) -> Result<CertifiedKey, Failure> {
    CertifiedKey::from_der(credential.chain().to_vec(), private_key(credential), &provider())
        .or_fail(Code::StateInvalid, "the certificate and its key")
}

fn private_key(credential: &Credential) -> PrivateKeyDer<'static> {
    credential.key().pkcs8_der().into()
}

struct CurrentCertificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for CurrentCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentCertificate")
    }
}

#[cfg(test)]
mod tests;
