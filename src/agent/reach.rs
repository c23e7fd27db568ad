//! From an endpoint to a connection that is secured by TLS, or an address that stands for the endpoint: the seam below which a
//! simulation has its own network. It refuses to know what is said then, and when to dial.

use std::net::SocketAddr;
use std::pin::Pin;

use super::link::CredentialFiles;
use super::reauthorise::Grounds;
use crate::base::code::Failure;
use crate::base::endpoint::{Endpoint, HostPort};
use crate::pki::identity::Role;
use crate::pki::tls;
use crate::tunnel::Io;
use crate::tunnel::dial::{self, Egress};
use crate::wire::resume::{EXPORTER_LABEL, Exporter};

/// A connection to a gateway whose certificate has been verified.
pub(crate) struct Secured {
    /// What is said from here on is confidential.
    pub(crate) io: Box<dyn Io>,
    /// The role in the gateway's certificate.
    pub(crate) gateway: Role,
    /// What this connection alone has.
    pub(crate) exporter: Exporter,
    /// Where the gateway is; none through a proxy.
    pub(crate) address: Option<SocketAddr>,
    /// What a session on it is granted on.
    pub(crate) grounds: Grounds,
}

/// A [`Secured`] to come.
pub(crate) type Reaching<'a> = Pin<Box<dyn Future<Output = Result<Secured, Failure>> + Send + 'a>>;

/// Reaches gateways.
pub(crate) trait Reach: Send + Sync {
    /// The proxy on the way to an endpoint, without credentials.
    ///
    /// # Errors
    /// `proxy_protocol`.
    fn proxy(&self, endpoint: &Endpoint) -> Result<Option<HostPort>, Failure>;

    /// Connects to `at`, which is the endpoint's own name or an address that is to answer under it.
    fn secure<'a>(&'a self, at: &'a HostPort, endpoint: &'a Endpoint) -> Reaching<'a>;
}

/// By TCP, perhaps through a proxy, and mutual TLS with the certificate as it lies on the disk at that moment.
pub(super) struct Dialer {
    pub(super) credential: CredentialFiles,
    pub(super) egress: Egress,
}

impl Reach for Dialer {
    fn proxy(&self, endpoint: &Endpoint) -> Result<Option<HostPort>, Failure> {
        Ok(self.egress.proxy_for(&endpoint.0)?.map(|proxy| proxy.at))
    }

    fn secure<'a>(&'a self, at: &'a HostPort, endpoint: &'a Endpoint) -> Reaching<'a> {
        Box::pin(async move {
            let (credential, tls) = self.credential.tls()?;
            let proxy = self.egress.proxy_for(&endpoint.0)?;
            let stream = dial::secure_at(at, &endpoint.0, proxy.as_ref(), tls.client_config()).await?;
            let gateway = tls::peer_identity(stream.get_ref().1)?;
            let grounds = Grounds::of(credential.identity(), &gateway, &self.credential)?;
            let exporter = tls::exporter(stream.get_ref().1, EXPORTER_LABEL)?;
            let address = if proxy.is_some() { None } else { dial::peer_address(&stream) };
            Ok(Secured { io: Box::new(stream), gateway: gateway.role, exporter, address, grounds })
        })
    }
}
