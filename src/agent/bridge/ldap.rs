//! LDAP targets: connects to a directory and passes what the rules allow, message by message. It refuses to know the gateway.

mod relay;
mod search;
mod start_tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use self::relay::{Account, Cut, relay};
pub use self::search::searches;
use self::start_tls::start_tls;
use super::{Hop, Way, tcp, tls};
use crate::agent::Agent;
use crate::agent::policy::{LdapService, Permit, Service};
use crate::base::code::Code;
use crate::base::endpoint::HostPort;
use crate::base::id::RequestId;
use crate::base::limits::{LDAP_TARGET_MEMORY, SPLICE_BUFFER};
use crate::observe::audit::Event;
use crate::observe::metrics;
use crate::rules::ldap::{Denial, Rules};
use crate::tunnel::ledger::Ledger;
use crate::tunnel::splice::{Direction, Socket, Toll};
use crate::wire::open::Open;
use crate::wire::refusal::Refusal;

/// A directory, TLS and all.
pub struct Directory {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Where it really went.
    pub address: std::net::SocketAddr,
}

/// Connects to the target's directory, or to the first of its alternates that answers and can be believed. Each gets an equal part of the time
/// that is left, so that one that is silent leaves some to the next.
///
/// # Errors
/// As [`super::tcp::connect`], and `target_tls_*`. Of several failures that of a certificate, which does not mend itself, else the last.
pub async fn connect(permit: &Permit, way: Way<'_>) -> Result<Directory, Refusal> {
    let service = permit.service();
    let Service::Ldap(service) = &*service else {
        return Err(Refusal::new(Code::TargetKindMismatch, format_args!("`{}` is no directory", permit.target().name)));
    };
    let target = permit.target();
    let places: Vec<&HostPort> = std::iter::once(&target.spec.address).chain(&service.alternates).collect();
    let end = Instant::now() + target.spec.limits.connect_timeout.min(way.limit);
    let mut failed: Option<Refusal> = None;
    for (tried, at) in places.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now()) / u32::try_from(places.len() - tried).unwrap_or(1);
        match attempt(permit, service, at, way, left).await {
            Ok(directory) => return Ok(directory),
            Err(refusal) => {
                if places.len() > 1 {
                    tracing::warn!(target_name = %target.name, code = %refusal.code, detail = refusal.detail, "a directory cannot be used");
                }
                failed = Some(failed.filter(|before| is_distrust(before.code)).unwrap_or(refusal));
            }
        }
    }
    Err(failed.expect("there is an address"))
}

fn is_distrust(code: Code) -> bool {
    matches!(code, Code::TargetTlsUntrusted | Code::TargetTlsNameMismatch)
}

async fn attempt(
    permit: &Permit,
    service: &LdapService,
    at: &HostPort,
    way: Way<'_>,
    left: Duration,
) -> Result<Directory, Refusal> {
    let target = permit.target();
    tcp::within(target, at, left, async {
        let tcp::Connected { mut stream, address } = tcp::dial(permit, at, way).await?;
        if service.start_tls {
            let named = |failure: crate::base::code::Failure| failure.context(format_args!("`{}` at {at}", target.name));
            start_tls(&mut stream).await.map_err(named)?;
        }
        let stream = tls::begin(permit, at, &service.tls, stream).await?;
        Ok(Directory { stream, address })
    })
    .await
}

/// Serves one client's LDAP to its end. Yields why it was cut, if it was.
pub async fn serve(hop: Hop, directory: Directory) -> Option<Code> {
    let Hop { agent, permit, open, mut stream, early, ledger } = hop;
    let idle = permit.target().spec.limits.idle_timeout;
    let Directory { stream: mut far, address } = directory;
    let (request, target, caller) = (open.request, permit.target().name.as_str(), open.caller.as_str());
    let account = Books::new(&agent, &permit, &open, request, Some(&ledger));
    match relay(early.freeze(), &mut stream, &mut Socket::new(&mut far), idle, &account).await {
        Ok(()) => None,
        Err(Cut { code, why }) => {
            tracing::warn!(%request, target, caller, %address, %code, why, "ldap stream cut");
            Some(code)
        }
    }
}

/// The account of one stream of LDAP, or of one search.
struct Books<'a> {
    agent: &'a Agent,
    permit: &'a Permit,
    open: &'a Open,
    /// By which denials are on record.
    request: RequestId,
    /// Counts the stream's bytes; a search's are its HTTP's.
    ledger: Option<&'a Ledger<()>>,
    /// What of the target's memory is its own.
    held: AtomicUsize,
}

impl<'a> Books<'a> {
    fn new(agent: &'a Agent, permit: &'a Permit, open: &'a Open, request: RequestId, ledger: Option<&'a Ledger<()>>) -> Self {
        Self { agent, permit, open, request, ledger, held: AtomicUsize::new(0) }
    }
}

impl Account for Books<'_> {
    fn rules(&self) -> Arc<Rules> {
        match &*self.permit.service() {
            Service::Ldap(service) => service.rules.clone(),
            _ => unreachable!("a target that changes its kind ends its streams"),
        }
    }

    fn denied(&self, denial: &Denial) {
        let (request, target, caller) = (self.request, self.permit.target().name.as_str(), self.open.caller.as_str());
        metrics::ldap_denied(target, denial.rule.as_str());
        let detail = format!("{}: {}", denial.rule.of(target), denial.why);
        let event = Event::Refused {
            request,
            target,
            agent: Some(&self.agent.settings.agent),
            caller,
            source: self.open.source,
            code: Code::RequestDenied,
            detail: &detail,
        };
        if self.agent.audit.limited(&event) {
            tracing::info!(%request, target, caller, rule = denial.rule.as_str(), detail, "ldap request denied");
        }
    }

    fn count(&self, direction: Direction, bytes: usize) {
        self.ledger.inspect(|ledger| ledger.count(direction, bytes));
    }

    /// What every stream has on its way is counted by the number of streams.
    fn holds(&self, bytes: usize) -> bool {
        let bytes = if bytes <= 4 * SPLICE_BUFFER { 0 } else { bytes };
        let before = self.held.swap(bytes, Ordering::Relaxed);
        if bytes == before {
            return true;
        }
        let held = self.permit.target().held();
        held.fetch_sub(before, Ordering::Relaxed);
        let total = held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        total <= LDAP_TARGET_MEMORY || bytes < before
    }
}

impl Drop for Books<'_> {
    fn drop(&mut self) {
        self.permit.target().held().fetch_sub(self.held.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
