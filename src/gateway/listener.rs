//! Clients' listeners: each leads to one target. They follow the configuration while they run.
//! It refuses to know agents.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Gateway;
use super::ingress::Wanted;
use super::relay::relay;
use crate::base::allow::AllowFrom;
use crate::base::code::{Code, Failure};
use crate::base::drain::Drain;
use crate::base::id::TargetId;
use crate::observe::metrics;
use crate::tunnel::listen::{self, Service, bind};
use crate::wire::hello::Kind;

/// A listener as configured.
pub struct ListenerSpec {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it leads.
    pub target: TargetId,
    /// Who may connect.
    pub allow_from: AllowFrom,
    /// TLS towards clients, with the vendor's own certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether client bytes may go ahead of the reply.
    pub early_data: bool,
}

/// The listeners in force.
#[derive(Default)]
pub struct Listeners(Mutex<HashMap<SocketAddr, Running>>);

struct Running {
    /// Where it really listens.
    address: SocketAddr,
    service: Arc<Clients>,
    drain: Drain,
}

impl Listeners {
    /// Puts a configuration into force: new addresses are opened first, so that one which can't be leaves all as it was;
    /// known ones take their new settings for the next connection; the others stop accepting. Open connections live on.
    /// Yields the addresses listened on, in the order given; port 0 becomes the one that the system chose.
    ///
    /// # Errors
    /// `listen_failed`, naming the address.
    pub fn apply(&self, gateway: &Arc<Gateway>, specs: Vec<ListenerSpec>) -> Result<Vec<SocketAddr>, Failure> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bound: Vec<(ListenerSpec, Option<TcpListener>)> = specs
            .into_iter()
            .map(|spec| {
                let socket = if running.contains_key(&spec.listen) { None } else { Some(bind(spec.listen)?) };
                Ok((spec, socket))
            })
            .collect::<Result<_, Failure>>()?;
        let kept: Vec<_> = bound.iter().map(|(spec, _)| spec.listen).collect();
        running.retain(|address, listener| {
            let stays = kept.contains(address);
            if !stays {
                listener.drain.begin();
            }
            stays
        });
        let mut addresses = Vec::new();
        for (spec, socket) in bound {
            let address = spec.listen;
            match socket {
                None => {
                    let listener = &running[&address];
                    listener.service.spec.store(Arc::new(ListenerSpec { listen: listener.address, ..spec }));
                }
                Some(socket) => {
                    running.insert(address, Running::start(gateway, spec, socket));
                }
            }
            addresses.push(running[&address].address);
        }
        Ok(addresses)
    }
}

impl Running {
    fn start(gateway: &Arc<Gateway>, spec: ListenerSpec, socket: TcpListener) -> Self {
        let address = socket.local_addr().unwrap_or(spec.listen);
        // Clients are told of, and audited under, the address that the system chose for port 0.
        let spec = ListenerSpec { listen: address, ..spec };
        let service = Arc::new(Clients { gateway: gateway.clone(), spec: ArcSwap::from_pointee(spec) });
        let drain = gateway.drain.child();
        let (caps, tasks) = (gateway.settings.caps, gateway.clients.clone());
        gateway.clients.spawn(listen::serve(socket, caps, service.clone(), drain.clone(), tasks));
        Self { address, service, drain }
    }
}

/// What one listener does with a client.
struct Clients {
    gateway: Arc<Gateway>,
    spec: ArcSwap<ListenerSpec>,
}

/// A client after TLS, if there is any.
enum Ready {
    Plain(TcpStream, Wanted),
    Tls(Box<TlsStream<TcpStream>>, Wanted),
}

impl Service<TcpStream, SocketAddr> for Clients {
    type Ready = Ready;

    fn admits(&self, peer: &SocketAddr) -> bool {
        self.admits_by(&self.spec.load(), *peer)
    }

    async fn handshake(&self, io: TcpStream, peer: SocketAddr) -> Option<Ready> {
        let spec = self.spec.load_full();
        // Once more: a reload may have put another target behind the listener since, with others who may reach it.
        if !self.admits_by(&spec, peer) {
            return None;
        }
        let wanted = Wanted {
            target: spec.target.clone(),
            kind: Kind::Tcp,
            caller: format!("listener {}", spec.listen),
            source: peer,
            early_data: spec.early_data,
        };
        let Some(tls) = &spec.tls else { return Some(Ready::Plain(io, wanted)) };
        // Boxed, here and below, so that a client without TLS doesn't hold the room for one with it.
        match Box::pin(TlsAcceptor::from(tls.clone()).accept(io)).await {
            Ok(stream) => Some(Ready::Tls(Box::new(stream), wanted)),
            Err(error) => {
                self.report(peer, &Failure::new(Code::TlsFailed, format_args!("a client of {}: {error}", spec.listen)));
                None
            }
        }
    }

    async fn serve(&self, ready: Ready) {
        match ready {
            Ready::Plain(io, wanted) => relay(&self.gateway, io, &wanted).await,
            Ready::Tls(io, wanted) => Box::pin(relay(&self.gateway, *io, &wanted)).await,
        }
    }

    fn timed_out(&self, peer: SocketAddr) {
        let detail = format!("a client of {} did not finish its TLS handshake", self.spec.load().listen);
        self.report(peer, &Failure::new(Code::TlsFailed, detail));
    }
}

impl Clients {
    fn admits_by(&self, spec: &ListenerSpec, peer: SocketAddr) -> bool {
        let admitted = spec.allow_from.admits(peer.ip());
        if !admitted {
            let detail = format!("{} is not allowed on {}", peer.ip(), spec.listen);
            self.report(peer, &Failure::new(Code::SourceDenied, detail));
        }
        admitted
    }

    fn report(&self, peer: SocketAddr, failure: &Failure) {
        metrics::refused(failure.code);
        self.gateway.refused(peer, failure, "client refused");
    }
}

#[cfg(test)]
mod tests;
