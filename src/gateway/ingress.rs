//! What a client's connection wants: from it, or from the listener it came in by, to tenant, group and target.
//! It refuses to know where that goes.

pub mod socks5;

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::base::id::TargetId;
use crate::wire::hello::Kind;

/// What is wanted, and by whom.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Tenant, group and target.
    pub target: TargetId,
    /// What will be spoken.
    pub kind: Kind,
    /// Who asks: the listener's address, for a listener that asks for no name.
    pub caller: String,
    /// The client's address.
    pub source: SocketAddr,
    /// Whether client bytes may go ahead of the reply.
    pub early_data: bool,
}

/// A client's connection. A stream that failed must look failed to it.
pub trait ClientIo: AsyncRead + AsyncWrite + Unpin + Send {
    /// Whether closing this connection resets it.
    fn reset_on_close(&self, reset: bool);
}

impl ClientIo for TcpStream {
    fn reset_on_close(&self, reset: bool) {
        let _ = SockRef::from(self).set_linger(reset.then_some(Duration::ZERO));
    }
}

impl ClientIo for TlsStream<TcpStream> {
    /// A TLS client also sees that no `close_notify` came.
    fn reset_on_close(&self, reset: bool) {
        self.get_ref().0.reset_on_close(reset);
    }
}
