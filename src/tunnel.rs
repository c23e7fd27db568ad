//! One session, both ends: listening and dialling, the upgrade, WebSocket's frames and heartbeats, the mux behind its seam,
//! the greeting, and the splice of two streams. It refuses to know tenants, targets, tokens and who may do what.

pub mod dial;
#[cfg(test)]
pub(crate) mod fixture;
pub mod half_close;
pub mod lane;
pub mod ledger;
pub mod listen;
pub mod metered;
pub mod mux;
pub mod proxy_header;
pub mod session;
pub mod splice;
pub mod upgrade;
mod vectored;
pub mod websocket;

use tokio::io::{AsyncRead, AsyncWrite};

/// What bytes travel over: TCP, TLS over it, or a test's own.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}
