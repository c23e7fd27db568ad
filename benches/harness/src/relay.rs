//! The plain TCP relay, the limit of what two processes in the middle can do: no encryption, no multiplexing, nothing checked.
//! It refuses to know that it is measured.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

/// One direction's buffer.
const BUFFER: usize = 64 * 1024;

/// Accepts connections and joins each to one of its own, for ever.
///
/// # Errors
/// When it can't listen.
#[expect(clippy::disallowed_methods, reason = "the process's end is its tasks' end")]
pub(crate) fn run(listen: SocketAddr, to: SocketAddr) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            if let Ok((near, _)) = listener.accept().await {
                tokio::spawn(join(near, to));
            }
        }
    })
}

async fn join(mut near: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await?;
    Ok(())
}
