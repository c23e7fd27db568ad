//! `gateway.yaml`: its keys, their defaults and what they may hold. Refuses to know what the gateway does with them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::common::{AuditSection, Drain, LogSection, MetricsSection, Version};
use super::listener::{IDLE_TIMEOUT_MIN, ListenerConfig};
use super::problem::{Problem, Step, problem};
use super::{Config, rebase, scalar};
use crate::base::code::Code;
use crate::base::endpoint::{Endpoint, HostPort};
use crate::base::id::Name;
use crate::base::limits;

const HOUR: Duration = Duration::from_hours(1);

/// What an agent's certificate may live for.
const CERTIFICATE_LIFETIMES: std::ops::RangeInclusive<Duration> = HOUR..=Duration::from_hours(365 * 24);

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Always 1.
    pub version: Version,
    /// Who this gateway is and where agents reach it.
    pub gateway: GatewaySection,
    /// How agents get their certificates.
    #[serde(default)]
    pub enrollment: Enrollment,
    /// Who may use `underpass connect`, on the port that agents dial.
    #[serde(default)]
    pub clients: ClientsSection,
    /// Where clients connect.
    #[serde(default)]
    pub listeners: Vec<ListenerConfig>,
    /// What each tenant may use; one that is not named has no caps of its own.
    #[serde(default)]
    pub tenants: BTreeMap<Name, Tenant>,
    /// What the whole process may use.
    #[serde(default)]
    pub limits: GatewayLimits,
    /// How the process ends.
    #[serde(default)]
    pub drain: Drain,
    /// What was done.
    #[serde(default)]
    pub audit: AuditSection,
    /// Metrics and probes; absent: none are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsSection>,
    /// What is told.
    #[serde(default)]
    pub log: LogSection,
}

/// `gateway`: who it is and where agents reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySection {
    /// Its name, in its certificate and in metrics. Default `gw1`.
    #[serde(default = "default_id")]
    pub id: Name,
    /// How agents reach it: the names of its certificate, and what enrollment tokens carry. At least one.
    pub endpoints: Vec<Endpoint>,
    /// Where it listens for agents. Default `0.0.0.0:443`.
    #[serde(default = "default_listen", deserialize_with = "scalar::listen")]
    pub listen: SocketAddr,
    /// Where agents reach this very gateway past any balancer, for further lanes; its port is one of an endpoint's. Default
    /// none: they dial the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_address: Option<HostPort>,
    /// How long a session whose connection broke waits for the agent to take it up again, with every stream as it was; 0 to 5m, 0: not
    /// at all. Default 30s.
    #[serde(
        default = "default_resume_window",
        serialize_with = "scalar::duration::serialize",
        deserialize_with = "resume_window"
    )]
    pub resume_window: Duration,
    /// Networks that agents' tunnels may come from. Default any.
    #[serde(default, with = "scalar::networks")]
    pub allow_from: Option<Vec<IpNet>>,
    /// Balancers in front: their connections begin with a PROXY header, whose source counts. Default none.
    #[serde(default, with = "scalar::balancers")]
    pub proxy_protocol_from: Vec<IpNet>,
}

fn default_id() -> Name {
    Name::parse("gw1").expect("gw1 is a name")
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 443).into()
}

/// `enrollment`: how agents get their certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enrollment {
    /// Networks that enrollments may come from. Default any.
    #[serde(with = "scalar::networks")]
    pub allow_from: Option<Vec<IpNet>>,
    /// What a certificate lives for, 1h to 365d. Default 30d.
    #[serde(with = "scalar::duration")]
    pub certificate_lifetime: Duration,
}

impl Default for Enrollment {
    fn default() -> Self {
        Self { allow_from: None, certificate_lifetime: limits::AGENT_CERTIFICATE_LIFETIME }
    }
}

/// `clients`: who may use `underpass connect`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientsSection {
    /// Networks that they may come from; each shows a client token beside. Default any.
    #[serde(with = "scalar::networks")]
    pub allow_from: Option<Vec<IpNet>>,
    /// Closes a stream without a byte for this long, at least 1s. Default none.
    #[serde(with = "scalar::optional_duration")]
    pub idle_timeout: Option<Duration>,
}

/// One of `tenants`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenant {
    /// What it may use.
    pub limits: Limits,
}

/// `limits` of a tenant or a client.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Streams at a time. Default none.
    #[serde(with = "scalar::optional_count")]
    pub max_streams: Option<usize>,
    /// Bytes a second, both ways together. Default none.
    #[serde(with = "scalar::optional_size")]
    pub rate: Option<u64>,
}

/// `limits` of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayLimits {
    /// Connections of one listener. Default 16384.
    #[serde(with = "scalar::count")]
    pub max_connections: usize,
    /// Connections of one listener that have not finished their handshake. Default 512.
    #[serde(with = "scalar::count")]
    pub max_handshakes: usize,
    /// Streams of one agent's session, 1 to 100000; the agent has a limit of its own. Default 1024.
    #[serde(with = "scalar::count")]
    pub max_streams: usize,
    /// Connections that may carry one agent's session, 1 to 16. Default 4.
    #[serde(with = "scalar::count")]
    pub max_lanes: usize,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            max_connections: limits::MAX_CONNECTIONS,
            max_handshakes: limits::MAX_HANDSHAKES,
            max_streams: limits::MAX_STREAMS,
            max_lanes: limits::MAX_LANES,
        }
    }
}

impl Config for GatewayConfig {
    fn check(&self) -> Result<(), Problem> {
        self.gateway.check()?;
        if !CERTIFICATE_LIFETIMES.contains(&self.enrollment.certificate_lifetime) {
            let at = ["enrollment".into(), "certificate_lifetime".into()];
            return Err(problem(at, Code::ConfigInvalid, "`certificate_lifetime` is from 1h to 365d"));
        }
        if self.clients.idle_timeout.is_some_and(|idle| idle < IDLE_TIMEOUT_MIN) {
            let at = ["clients".into(), "idle_timeout".into()];
            return Err(problem(at, Code::ConfigInvalid, "`idle_timeout` is at least 1s"));
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            listener.check(index)?;
        }
        for (name, tenant) in &self.tenants {
            let of = |key| ["tenants".into(), name.as_str().into(), "limits".into(), key];
            tenant.limits.check(of, &format!("tenant {name}"))?;
        }
        self.limits.check()?;
        self.audit.check()?;
        self.metrics.as_ref().map_or(Ok(()), MetricsSection::check)?;
        self.check_addresses()
    }

    fn rebase(&mut self, directory: &Path) {
        self.listeners.iter_mut().flat_map(ListenerConfig::files).for_each(|file| rebase(file, directory));
    }
}

impl GatewayConfig {
    /// The listeners off loopback whose clients show their tokens in plain text: no error, since a network may be trusted, but to be
    /// told of.
    pub fn in_clear(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().filter(|listener| listener.is_in_clear()).map(|listener| listener.listen)
    }

    /// No two of the addresses are the same socket, and no two listeners have the same address: it is what a reload knows them by.
    fn check_addresses(&self) -> Result<(), Problem> {
        let mut taken = vec![("`gateway.listen`".to_owned(), self.gateway.listen)];
        for (index, listener) in self.listeners.iter().enumerate() {
            let at = || ["listeners".into(), index.into(), "listen".into()];
            if listener.listen.port() == 0 && self.listeners[..index].iter().any(|other| other.listen == listener.listen) {
                let detail = format_args!("two listeners have {}: a free port is for one alone", listener.listen);
                return Err(problem(at(), Code::ConfigInvalid, detail));
            }
            let name = match &listener.target {
                Some(target) => format!("the listener of {target}"),
                None => "a listener".to_owned(),
            };
            claim(&mut taken, name, listener.listen, at)?;
        }
        if let Some(metrics) = &self.metrics {
            claim(&mut taken, "`metrics.listen`".into(), metrics.listen, || ["metrics".into(), "listen".into()])?;
        }
        Ok(())
    }
}

fn claim<const N: usize>(
    taken: &mut Vec<(String, SocketAddr)>,
    name: String,
    address: SocketAddr,
    at: impl FnOnce() -> [Step; N],
) -> Result<(), Problem> {
    if let Some((other, there)) = taken.iter().find(|(_, there)| same_socket(*there, address)) {
        let detail = format_args!("{name} and {other} both listen on {address}{}", Also(*there, address));
        return Err(problem(at(), Code::ConfigInvalid, detail));
    }
    taken.push((name, address));
    Ok(())
}

/// Says the other address if it is written differently.
struct Also(SocketAddr, SocketAddr);

impl std::fmt::Display for Also {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == self.1 { Ok(()) } else { write!(f, " ({} includes it)", self.0) }
    }
}

/// Port 0 is a free one each time; the unspecified address includes all others of its family.
fn same_socket(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let any = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_family && (a.ip() == b.ip() || any(a.ip()) || any(b.ip()))
}

fn default_resume_window() -> Duration {
    limits::RESUME_WINDOW
}

/// As every duration; whoever looks for a word that switches it off is told of it.
fn resume_window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let why = |why| de::Error::custom(format_args!("{why}; `0` switches resumption off"));
    scalar::read_duration(&String::deserialize(deserializer)?).map_err(why)
}

impl GatewaySection {
    fn check(&self) -> Result<(), Problem> {
        check_endpoints(&self.endpoints)?;
        if self.resume_window > limits::MAX_RESUME_WINDOW {
            let at = ["gateway".into(), "resume_window".into()];
            let shown = scalar::show_duration(&self.resume_window);
            return Err(problem(at, Code::ConfigInvalid, format_args!("`gateway.resume_window` is {shown}: it is at most 5m")));
        }
        match &self.direct_address {
            Some(direct) if !self.endpoints.iter().any(|endpoint| endpoint.0.port == direct.port) => Err(problem(
                ["gateway".into(), "direct_address".into()],
                Code::ConfigInvalid,
                "the port of `gateway.direct_address` is none of an endpoint's: agents would not dial it",
            )),
            _ => Ok(()),
        }
    }
}

/// At least one endpoint, none twice.
pub(super) fn check_endpoints(endpoints: &[Endpoint]) -> Result<(), Problem> {
    if endpoints.is_empty() {
        return Err(problem(
            ["gateway".into(), "endpoints".into()],
            Code::ConfigInvalid,
            "`gateway.endpoints` needs at least one",
        ));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        if endpoints[..index].contains(endpoint) {
            let at = ["gateway".into(), "endpoints".into(), index.into()];
            return Err(problem(at, Code::ConfigInvalid, format_args!("{endpoint} is there twice")));
        }
    }
    Ok(())
}

impl Limits {
    /// `of` is where they stand, `whose` they are in words.
    pub(super) fn check<const N: usize>(&self, of: impl Fn(Step) -> [Step; N], whose: &str) -> Result<(), Problem> {
        let wrong = |key: &'static str| {
            let why = format_args!("`{key}` of {whose} is at least 1; leave it out for no limit");
            problem(of(key.into()), Code::ConfigInvalid, why)
        };
        match (self.max_streams, self.rate) {
            (Some(0), _) => Err(wrong("max_streams")),
            (_, Some(0)) => Err(wrong("rate")),
            _ => Ok(()),
        }
    }
}

impl GatewayLimits {
    fn check(&self) -> Result<(), Problem> {
        let wrong = |key: &'static str, what: &str| problem(["limits".into(), key.into()], Code::ConfigInvalid, what);
        if !(1..=limits::MAX_CONNECTIONS_CONFIGURED).contains(&self.max_connections) {
            return Err(wrong("max_connections", "`limits.max_connections` is from 1 to 1000000"));
        }
        if !(1..=self.max_connections).contains(&self.max_handshakes) {
            return Err(wrong("max_handshakes", "`limits.max_handshakes` is from 1 to `limits.max_connections`"));
        }
        if !(1..=limits::MAX_STREAMS_CONFIGURED).contains(&self.max_streams) {
            return Err(wrong("max_streams", "`limits.max_streams` is from 1 to 100000"));
        }
        if !(1..=limits::MAX_LANES_CONFIGURED).contains(&self.max_lanes) {
            return Err(wrong("max_lanes", "`limits.max_lanes` is from 1 to 16"));
        }
        Ok(())
    }
}
