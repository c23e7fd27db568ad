//! LDAP targets: connects to a directory and passes what the rules allow, message by message. It refuses to know the gateway.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Hop, Way};
use crate::agent::policy::Permit;
use crate::base::code::Code;
use crate::wire::refusal::Refusal;

/// A directory, TLS and all.
pub struct Directory {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Where it really went.
    pub address: std::net::SocketAddr,
}

/// Connects to the target's directory, or to the first of its alternates that answers.
///
/// # Errors
/// As [`super::tcp::connect`], and `target_tls_*`.
pub async fn connect(permit: &Permit, way: Way<'_>) -> Result<Directory, Refusal> {
    let _ = (permit, way);
    Err(Refusal::new(Code::Internal, "not yet"))
}

/// Serves one client's LDAP to its end. Yields why it was cut, if it was.
pub async fn serve(hop: Hop, directory: Directory) -> Option<Code> {
    let _ = (hop, directory);
    Some(Code::Internal)
}

/// Serves the searches of one stream, posted by HTTP/1.1. Yields why it was cut, if it was.
pub async fn searches(hop: Hop) -> Option<Code> {
    let _ = hop;
    Some(Code::Internal)
}
