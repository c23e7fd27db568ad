//! TLS with a target, inside a connection to it. It refuses to know what is spoken inside.

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::agent::policy::Permit;
use crate::base::endpoint::HostPort;
use crate::pki::tls::target::{TargetTls, explain};
use crate::wire::refusal::Refusal;

/// The handshake over a connection to `at`. Its time is the caller's to limit.
///
/// # Errors
/// `target_tls_failed`, `target_tls_untrusted`, `target_tls_name_mismatch`, each naming the target.
pub(super) async fn begin<Io>(permit: &Permit, at: &HostPort, tls: &TargetTls, io: Io) -> Result<TlsStream<Io>, Refusal>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let name: ServerName<'static> = tls.name(at)?;
    let connected = TlsConnector::from(tls.config()).connect(name, io).await;
    connected.map_err(|error| explain(&error, at).context(format_args!("`{}`", permit.target().name)).into())
}
