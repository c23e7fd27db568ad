//! `agent.yaml`: its keys, their defaults and what they may hold. Refuses to know what the agent does with them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::common::{AuditSection, Drain, LogSection, MetricsSection, Version};
use super::gateway::check_endpoints;
use super::problem::{Problem, Step, problem};
use super::secret::SecretRef;
use super::target::Target;
use super::{Config, rebase, scalar};
use crate::base::code::{Code, Failure};
use crate::base::endpoint::{Endpoint, HostPort};
use crate::base::id::Name;
use crate::base::limits;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Always 1.
    pub version: Version,
    /// Where the gateways are.
    pub gateway: AgentGateway,
    /// How the gateways are reached; absent: as `HTTPS_PROXY` says, or directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// What can be reached through this agent, and nothing else.
    #[serde(default)]
    pub targets: BTreeMap<Name, Target>,
    /// What the whole process may use.
    #[serde(default)]
    pub limits: AgentLimits,
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

/// `gateway`: where the gateways are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentGateway {
    /// At least one; the agent holds one session to each distinct gateway behind them.
    pub endpoints: Vec<Endpoint>,
}

/// `proxy`: the HTTP proxy on the way to the gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// `http://host:port`.
    pub url: ProxyUrl,
    /// For Basic authentication, with `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Where the password is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// Gateways that are reached directly: names (`gw.example`), domains (`.example`), addresses and networks.
    #[serde(default)]
    pub no_proxy: Vec<String>,
}

/// A proxy's URL: `http://host:port`, without credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProxyUrl(pub HostPort);

impl FromStr for ProxyUrl {
    type Err = Failure;
    /// Quotes nothing: a URL may carry a password.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = |why| Failure::new(Code::ConfigInvalid, why);
        let rest = text.strip_prefix("http://").ok_or_else(|| wrong("a proxy is written http://HOST:PORT"))?;
        if rest.contains('@') {
            return Err(wrong("a proxy's URL holds no credentials; use `proxy.username` and `proxy.password`"));
        }
        let at = rest.strip_suffix('/').unwrap_or(rest);
        at.parse().map(Self).map_err(|_| wrong("a proxy is written http://HOST:PORT"))
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl TryFrom<String> for ProxyUrl {
    type Error = Failure;
    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<ProxyUrl> for String {
    fn from(url: ProxyUrl) -> Self {
        url.to_string()
    }
}

/// `limits` of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentLimits {
    /// Streams of all targets together. Default 1024.
    #[serde(with = "scalar::count")]
    pub max_streams: usize,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self { max_streams: limits::MAX_STREAMS }
    }
}

impl Config for AgentConfig {
    fn check(&self) -> Result<(), Problem> {
        check_endpoints(&self.gateway.endpoints)?;
        self.proxy.as_ref().map_or(Ok(()), Proxy::check)?;
        for (name, target) in &self.targets {
            target.check(name)?;
        }
        check_streams(["limits".into(), "max_streams".into()], self.limits.max_streams)?;
        self.audit.check()?;
        self.metrics.as_ref().map_or(Ok(()), MetricsSection::check)
    }

    fn rebase(&mut self, directory: &Path) {
        if let Some(password) = self.proxy.as_mut().and_then(|proxy| proxy.password.as_mut()) {
            password.rebase(directory);
        }
        self.targets.values_mut().flat_map(Target::files).for_each(|path| rebase(path, directory));
    }
}

impl Proxy {
    fn check(&self) -> Result<(), Problem> {
        if self.username.is_some() != self.password.is_some() {
            return Err(problem(
                ["proxy".into()],
                Code::ConfigInvalid,
                "`proxy.username` and `proxy.password` need each other",
            ));
        }
        if self.username.as_ref().is_some_and(|name| name.is_empty() || name.contains([':', '\r', '\n'])) {
            let at = ["proxy".into(), "username".into()];
            return Err(problem(
                at,
                Code::ConfigInvalid,
                "`proxy.username` is empty or has a character that Basic cannot carry",
            ));
        }
        Ok(())
    }
}

pub(super) fn check_streams<const N: usize>(at: [Step; N], streams: usize) -> Result<(), Problem> {
    if (1..=limits::MAX_STREAMS_CONFIGURED).contains(&streams) {
        return Ok(());
    }
    Err(problem(at, Code::ConfigInvalid, "`max_streams` is from 1 to 100000"))
}
