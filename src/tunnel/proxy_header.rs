//! stub
use std::net::SocketAddr;
use tokio::io::AsyncRead;
use crate::base::code::Failure;
/// stub
pub async fn read(_io: &mut (impl AsyncRead + Unpin), peer: SocketAddr) -> Result<SocketAddr, Failure> { Ok(peer) }
