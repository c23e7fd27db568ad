//! Clients' listeners: who may come in by them, how they ask, and what is settled for all of them. They follow the configuration while they
//! run. It refuses to know agents, and what clients say.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Gateway;
use super::callers::Caller;
use super::http;
use super::ingress::socks5::Refused;
use super::ingress::{Certified, ClientIo, Entry, Terms, Wanted, dismiss};
use super::relay::relay;
use crate::base::allow::{AllowFrom, site};
use crate::base::code::{Code, Failure};
use crate::base::drain::Drain;
use crate::base::id::printable;
use crate::observe::metrics;
use crate::pki::tls;
use crate::tunnel::listen::{self, Service, bind};
use crate::tunnel::proxy_header;

/// SHA-256 of the CAs of clients' certificates.
pub type CaHash = [u8; 32];

/// A listener as configured.
pub struct ListenerSpec {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How its clients ask.
    pub terms: Terms,
    /// Who may connect.
    pub allow_from: AllowFrom,
    /// Balancers before it: their connections begin with a PROXY header.
    pub proxy_from: AllowFrom,
    /// TLS towards clients, with the vendor's own certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who is in by which name of its certificate; the configuration of TLS says whether one must be shown.
    pub certified: HashMap<String, Arc<Caller>>,
    /// Tells other CAs of these certificates from the same.
    pub client_ca: Option<CaHash>,
}

impl ListenerSpec {
    /// The same where it really listens: clients are told of, and audited under, the address that the system chose for port 0.
    fn at(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        if let Entry::Tcp(target, Some(_)) = self.terms.entry {
            self.terms.entry = Entry::open(target, address);
        }
        self
    }

    /// Who is in by the same name of the same CAs, with no fewer rights than before, stays the same caller; those who are not any more are
    /// cut.
    fn follow(&mut self, before: &Self) {
        for (name, caller) in &mut self.certified {
            let old = before.certified.get(name).filter(|_| self.client_ca == before.client_ca);
            if let Some(same) = old.filter(|old| old.becomes(caller)) {
                *caller = same.clone();
            }
        }
        let goes_on = |old: &Arc<Caller>| self.certified.values().any(|caller| Arc::ptr_eq(caller, old));
        before.certified.values().filter(|old| !goes_on(old)).for_each(|old| old.revoke());
    }
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
                // Nobody would be left to take their names away.
                listener.service.spec.load().certified.values().for_each(|caller| caller.revoke());
            }
            stays
        });
        let mut addresses = Vec::new();
        for (spec, socket) in bound {
            let address = spec.listen;
            match socket {
                None => {
                    let listener = &running[&address];
                    let mut spec = spec.at(listener.address);
                    spec.follow(&listener.service.spec.load());
                    listener.service.spec.store(Arc::new(spec));
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
        let drain = gateway.drain.child();
        let spec = ArcSwap::from_pointee(spec.at(address));
        let service = Arc::new(Clients { gateway: gateway.clone(), spec, drain: drain.clone() });
        let (caps, tasks) = (gateway.settings.caps, gateway.clients.clone());
        gateway.clients.spawn(listen::serve(socket, caps, service.clone(), drain.clone(), tasks));
        Self { address, service, drain }
    }
}

/// What one listener does with a client.
struct Clients {
    gateway: Arc<Gateway>,
    spec: ArcSwap<ListenerSpec>,
    drain: Drain,
}

/// What a client has said.
enum Heard {
    /// What its one stream is for.
    Wanted(Box<Wanted>),
    /// The beginning of its requests.
    Http(Box<http::Begun>),
}

/// A client whose asking has been heard: what it wants, or the last word to it.
enum Ready {
    Plain(TcpStream, Result<Heard, Vec<u8>>),
    Tls(Box<TlsStream<TcpStream>>, Result<Heard, Vec<u8>>),
}

impl Service<TcpStream, SocketAddr> for Clients {
    type Ready = Ready;

    fn admits(&self, peer: &SocketAddr) -> bool {
        let spec = self.spec.load();
        spec.proxy_from.admits(peer.ip()) || self.admitted(&spec, *peer).map_err(|failure| self.report(*peer, &failure)).is_ok()
    }

    async fn arrive(&self, mut io: TcpStream, peer: SocketAddr) -> Option<(TcpStream, SocketAddr)> {
        let spec = self.spec.load_full();
        if !spec.proxy_from.admits(peer.ip()) {
            return Some((io, peer));
        }
        match proxy_header::read(&mut io, peer).await {
            Ok(source) => Some((io, source)),
            Err(failure) => {
                self.report(peer, &failure);
                None
            }
        }
    }

    fn source(&self, peer: &SocketAddr) -> Option<IpAddr> {
        Some(site(peer.ip()))
    }

    async fn handshake(&self, mut io: TcpStream, source: SocketAddr) -> Option<Ready> {
        let spec = self.spec.load_full();
        let report = |failure: &Failure| self.report(source, failure);
        // Once more also for those who were admitted: a reload may have put another target behind the listener since, with others who
        // may reach it.
        self.admitted(&spec, source).map_err(|failure| report(&failure)).ok()?;
        let heard = |heard: Result<Heard, Refused>| {
            heard.map_err(|Refused { failure, say }| {
                report(&failure);
                say
            })
        };
        let Some(config) = &spec.tls else {
            let asked = self.hear(&spec, &mut io, source, Ok(None)).await;
            return Some(Ready::Plain(io, heard(asked)));
        };
        // Boxed, here and in `serve`, so that a client without TLS doesn't hold the room for one with it.
        let accepted = Box::pin(TlsAcceptor::from(config.clone()).accept(io)).await;
        let failed = |error| report(&Failure::new(Code::TlsFailed, tls::refusal_of(&error).detail));
        let mut io = Box::new(accepted.map_err(failed).ok()?);
        let certified = certified(&spec, &io);
        let asked = Box::pin(self.hear(&spec, &mut *io, source, certified)).await;
        Some(Ready::Tls(io, heard(asked)))
    }

    /// Here also the last word is said: who doesn't listen to it holds up no handshake.
    async fn serve(&self, ready: Ready) {
        match ready {
            Ready::Plain(io, Ok(Heard::Wanted(wanted))) => relay(&self.gateway, io, wanted).await,
            Ready::Tls(io, Ok(Heard::Wanted(wanted))) => Box::pin(relay(&self.gateway, *io, wanted)).await,
            Ready::Plain(io, Ok(Heard::Http(begun))) => Box::pin(begun.serve(io, &self.drain)).await,
            Ready::Tls(io, Ok(Heard::Http(begun))) => Box::pin(begun.serve(*io, &self.drain)).await,
            Ready::Plain(mut io, Err(say)) => dismiss(&mut io, &say).await,
            Ready::Tls(mut io, Err(say)) => Box::pin(dismiss(&mut *io, &say)).await,
        }
    }

    fn timed_out(&self, peer: SocketAddr) {
        self.report(peer, &Failure::new(Code::RequestInvalid, "it did not say in time what it wants"));
    }

    fn crowded(&self, peer: SocketAddr) {
        metrics::refused(Code::HandshakeLimited);
        self.gateway.crowded(peer, "client refused");
    }
}

impl Clients {
    /// Hears what a client wants; of one who speaks HTTP no more than that.
    async fn hear<Io: ClientIo>(
        &self,
        spec: &ListenerSpec,
        io: &mut Io,
        source: SocketAddr,
        certified: Result<Option<Certified>, Failure>,
    ) -> Result<Heard, Refused> {
        let Entry::Http(base) = &spec.terms.entry else {
            return spec.terms.wanted(&self.gateway, io, source, certified).await.map(|wanted| Heard::Wanted(Box::new(wanted)));
        };
        let client = http::Client {
            gateway: self.gateway.clone(),
            base: base.clone(),
            listener: spec.listen,
            source,
            certified,
            secure: spec.tls.is_some(),
            binding: http::Binding::fresh(),
            idle: spec.terms.idle,
        };
        client.hear(io).await.map(|begun| Heard::Http(Box::new(begun)))
    }

    fn admitted(&self, spec: &ListenerSpec, source: SocketAddr) -> Result<(), Failure> {
        if spec.allow_from.admits(source.ip()) {
            return Ok(());
        }
        Err(Failure::new(Code::SourceDenied, format_args!("{} is not in its `allow_from`", source.ip())))
    }

    /// Records who was let go, and where. One that said nothing at all, as balancers do who look whether somebody listens, is none.
    fn report(&self, peer: SocketAddr, failure: &Failure) {
        if failure.code != Code::ClientReset {
            metrics::refused(failure.code);
            let failure = failure.clone().context(format_args!("listener {}", self.spec.load().listen));
            self.gateway.refused(peer, &failure, "client refused");
        }
    }
}

/// Who a client is by the certificate that it has shown, if it has: exactly one of its names must be known here.
fn certified(spec: &ListenerSpec, io: &TlsStream<TcpStream>) -> Result<Option<Certified>, Failure> {
    let connection = io.get_ref().1;
    let Some(until) = tls::client_not_after(connection) else { return Ok(None) };
    let names = tls::client_names(connection);
    let mut known = names.iter().filter_map(|name| spec.certified.get(name));
    let shown = || printable(&names.join(", "), 200);
    match (known.next(), known.next()) {
        (Some(caller), None) => Ok(Some(Certified { caller: caller.clone(), until })),
        (None, _) => {
            Err(Failure::new(Code::LoginFailed, format_args!("no client is known by the certificate's names: {}", shown())))
        }
        // Which of them it is must not depend on an order.
        (Some(_), Some(_)) => {
            Err(Failure::new(Code::LoginFailed, format_args!("the certificate has the names of several clients: {}", shown())))
        }
    }
}

#[cfg(test)]
mod tests;
