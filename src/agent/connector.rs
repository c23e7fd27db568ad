//! The connections that a session makes after its first: where to dial, and the proof that they belong to it. It refuses to know when one is
//! wanted, and what it is for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Agent;
use super::reach::Secured;
use super::reauthorise::Grounds;
use super::resume::Pace;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::{Endpoint, HostPort};
use crate::base::floor;
use crate::base::id::{InstanceId, SessionId};
use crate::base::secret::Secret;
use crate::pki::identity::Role;
use crate::tunnel::upgrade::{self, Refused, Upgraded};
use crate::wire::resume::Claim;

/// How long a name may take to resolve before it is passed over for the addresses that are known.
const RESOLVE: Duration = Duration::from_secs(1);

/// How the session's first connection came to be, and what its others need.
pub(super) struct Connector {
    /// The agent.
    pub(super) agent: Arc<Agent>,
    /// What its link dials; every connection is verified under this name.
    pub(super) endpoint: Endpoint,
    /// Where the first one got through.
    pub(super) origin: Origin,
    /// The session, and the gateway instance that holds it.
    pub(super) session: SessionId,
    pub(super) instance: InstanceId,
    /// What proves that a connection belongs to it.
    pub(super) secret: Secret,
    /// What it is granted on: a connection that takes lane 0 up may show other certificates.
    pub(super) grounds: Arc<ArcSwap<Grounds>>,
    /// The gateway's hint where it can be dialled past any balancer.
    pub(super) direct_address: Option<HostPort>,
    /// How fast lanes are taken up: those of the session before and of the next one count, too.
    pub(super) pace: Arc<Pace>,
}

/// Who answered on the first connection, and at which address.
pub(super) struct Origin {
    /// The gateway's role, from its certificate.
    pub(super) gateway: Role,
    /// None through a proxy.
    pub(super) address: Option<SocketAddr>,
}

impl Connector {
    /// The session's gateway, at the address whose turn it is.
    ///
    /// # Errors
    /// What the way there reports; `not_here` when another gateway answers.
    pub(super) async fn reach(&self, turn: usize) -> Result<(HostPort, Secured), Failure> {
        let addresses = self.addresses().await;
        let nowhere = || Failure::new(Code::GatewayDnsFailed, format_args!("{} has no address", self.endpoint));
        let address = addresses.get(turn % addresses.len().max(1)).ok_or_else(nowhere)?;
        let secured = self.agent.reach.secure(address, &self.endpoint).await?;
        if secured.gateway != self.origin.gateway {
            return Err(Failure::new(Code::NotHere, format_args!("{address} is another gateway")));
        }
        Ok((address.clone(), secured))
    }

    /// Makes a claim on a connection.
    ///
    /// # Errors
    /// The gateway's refusal, or what ended the connection.
    pub(super) async fn upgrade(&self, secured: Secured, claim: Claim) -> Result<Upgraded, Refused> {
        let resume = claim.prove(&self.secret, &secured.exporter);
        upgrade::client(secured.io, &self.endpoint, Some(&resume)).await
    }

    /// Where to dial, in this order: the direct address as far as the rules on it allow, where the first connection got through,
    /// every address of the endpoint; through a proxy, which resolves the name, the endpoint itself.
    async fn addresses(&self) -> Vec<HostPort> {
        let resolver = &self.agent.resolver;
        let resolve = async |at: &HostPort| {
            let resolved = tokio::time::timeout(RESOLVE, resolver.resolve(at)).await;
            resolved.ok().and_then(Result::ok).unwrap_or_default()
        };
        let of_endpoint = resolve(&self.endpoint.0).await;
        let direct = match &self.direct_address {
            Some(at) => resolve(at).await,
            None => Vec::new(),
        };
        let usable = direct.into_iter().filter(|direct| self.may_dial_directly(*direct, &of_endpoint));
        let mut addresses: Vec<SocketAddr> = usable.chain(self.origin.address).collect();
        let is_proxied = self.origin.address.is_none();
        if !is_proxied {
            addresses.extend(of_endpoint);
        }
        let mut addresses: Vec<HostPort> = addresses.into_iter().map(HostPort::from).collect();
        if is_proxied {
            addresses.push(self.endpoint.0.clone());
        }
        let mut seen = Vec::new();
        addresses.retain(|address| {
            !seen.contains(address) && {
                seen.push(address.clone());
                true
            }
        });
        addresses
    }

    /// The direct address comes from the gateway, which must not make the agent dial into its own site.
    fn may_dial_directly(&self, direct: SocketAddr, of_endpoint: &[SocketAddr]) -> bool {
        let settings = &self.agent.settings;
        let any = |is: fn(IpAddr) -> bool| of_endpoint.iter().any(|address| is(address.ip()));
        let loopback = any(|ip| floor::check(ip, false) == Err(Code::LoopbackForbidden));
        settings.endpoints.iter().any(|endpoint| endpoint.0.port == direct.port())
            && settings.floor.check(direct, loopback).is_ok()
            && (!floor::is_private(direct.ip()) || any(floor::is_private))
    }
}

#[cfg(test)]
pub(super) mod tests;
