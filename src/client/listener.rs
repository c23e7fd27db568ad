//! A listener on this host: each connection to it is one stream of the target's. Refuses to know who listens for the result.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};

use super::carry::carry;
use super::{Client, Event};
use crate::base::allow::AllowFrom;
use crate::base::code::{Code, Failure};
use crate::base::drain::Drain;
use crate::base::tasks::Tasks;
use crate::tunnel::listen::{self, Caps, Service, reset_on_close};
use crate::tunnel::splice::{End, Socket};

/// Opens the listening socket. Without networks to allow it must be on loopback.
///
/// # Errors
/// `listener_open`, `listen_failed`.
pub fn bind(at: SocketAddr, allow_from: &[IpNet]) -> Result<TcpListener, Failure> {
    if !at.ip().to_canonical().is_loopback() && allow_from.is_empty() {
        let detail = format_args!(
            "{at} is off loopback, and whoever connects there has what the token grants: say who may, with --allow-from NET"
        );
        return Err(Failure::new(Code::ListenerOpen, detail));
    }
    listen::bind(at)
}

/// Serves connections until the drain begins; they are tasks of `tasks` and live on.
pub async fn serve(client: Arc<Client>, socket: TcpListener, allow_from: Vec<IpNet>, drain: Drain, tasks: Tasks) {
    let allow_from = AllowFrom::only(Some(allow_from).filter(|networks| !networks.is_empty()));
    listen::serve(socket, Caps::default(), Arc::new(Local { client, allow_from }), drain, tasks).await;
}

struct Local {
    client: Arc<Client>,
    allow_from: AllowFrom,
}

impl Service<TcpStream, SocketAddr> for Local {
    type Ready = (TcpStream, SocketAddr);

    fn admits(&self, peer: &SocketAddr) -> bool {
        let admitted = self.allow_from.admits(peer.ip());
        if !admitted {
            self.tell(*peer, &Failure::new(Code::SourceDenied, format_args!("{} is not in --allow-from", peer.ip())));
        }
        admitted
    }

    fn source(&self, _: &SocketAddr) -> Option<IpAddr> {
        None
    }

    /// There is none: the gateway is asked while the connection is served, since it may take longer to come back.
    async fn handshake(&self, io: TcpStream, peer: SocketAddr) -> Option<Self::Ready> {
        Some((io, peer))
    }

    async fn serve(&self, (mut local, peer): Self::Ready) {
        // Also if this task or the whole process is cut: only a finished stream may look finished.
        reset_on_close(&local, true);
        // Boxed, so that a connection doesn't hold the room for a handshake all its life.
        match Box::pin(self.client.open()).await {
            Err(failure) => self.tell(peer, &failure),
            Ok(opened) => match carry(&mut Socket::new(&mut local), opened).await {
                Ok(()) => reset_on_close(&local, false),
                Err((End::Far, error)) => self.tell(peer, &self.client.cut(&error)),
                // What the local program breaks off is its own business.
                Err((End::Near, _)) => {}
            },
        }
    }

    fn timed_out(&self, _: SocketAddr) {}

    fn crowded(&self, _: SocketAddr) {}
}

impl Local {
    fn tell(&self, client: SocketAddr, failure: &Failure) {
        (self.client.observer)(Event::Failed { client, failure });
    }
}
