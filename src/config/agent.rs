//! `agent.yaml`: its keys, their defaults and what they may hold. Refuses to know what the agent does with them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::common::{AuditSection, Drain, LogSection, MetricsSection, Version};
use super::gateway::check_endpoints;
use super::problem::{Problem, Step, problem};
use super::secret::SecretRef;
use super::{Config, scalar};
use crate::base::code::{Code, Failure};
use crate::base::endpoint::{Endpoint, Host, HostPort};
use crate::base::id::{Name, printable};
use crate::base::{floor, limits};

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

/// One of `targets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What is spoken there.
    pub kind: Kind,
    /// Where it is: `host:port`.
    pub address: HostPort,
    /// Whether the address may be on the agent's own host. Default false.
    #[serde(default)]
    pub allow_loopback: bool,
    /// Whether the target is told the client's address. Default none.
    #[serde(default)]
    pub send_proxy: SendProxy,
    /// What its streams may use.
    #[serde(default)]
    pub limits: TargetLimits,
}

/// `kind` of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Raw bytes.
    Tcp,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match String::deserialize(deserializer)?.as_str() {
            "tcp" => Ok(Self::Tcp),
            known @ ("http" | "ldap") => {
                Err(Error::custom(format_args!("the kind `{known}` is not supported by this version; `tcp` is")))
            }
            other => Err(Error::custom(format_args!("`{}` is no kind of target; `tcp` is", printable(other, 64)))),
        }
    }
}

/// `send_proxy` of a target: the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SendProxy {
    /// Not sent.
    #[default]
    None,
    /// Version 2, binary.
    V2,
}

/// `limits` of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetLimits {
    /// Streams at a time. Default 200.
    #[serde(with = "scalar::count")]
    pub max_streams: usize,
    /// How long connecting may take, 10ms to 15s. Default 5s.
    #[serde(with = "scalar::duration")]
    pub connect_timeout: Duration,
    /// A stream without a byte for this long is closed. Default none.
    #[serde(with = "scalar::optional_duration")]
    pub idle_timeout: Option<Duration>,
}

impl Default for TargetLimits {
    fn default() -> Self {
        Self { max_streams: limits::TARGET_STREAMS, connect_timeout: limits::CONNECT_TIMEOUT, idle_timeout: None }
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

impl Target {
    fn check(&self, name: &Name) -> Result<(), Problem> {
        let at = |key: &'static str| ["targets".into(), name.as_str().into(), key.into()];
        let at_limit = |key: &'static str| ["targets".into(), name.as_str().into(), "limits".into(), key.into()];
        self.check_address().map_err(|failure| problem(at("address"), failure.code, failure.detail))?;
        check_streams(at_limit("max_streams"), self.limits.max_streams)?;
        if !(Duration::from_millis(10)..=limits::REPLY_DEADLINE).contains(&self.limits.connect_timeout) {
            let detail = "`connect_timeout` is from 10ms to 15s: the client is answered within 15s";
            return Err(problem(at_limit("connect_timeout"), Code::ConfigInvalid, detail));
        }
        if self.limits.idle_timeout.is_some_and(|idle| idle < Duration::from_secs(1)) {
            return Err(problem(at_limit("idle_timeout"), Code::ConfigInvalid, "`idle_timeout` is at least 1s, or none"));
        }
        Ok(())
    }

    /// A literal address that would never be dialled is a mistake now; names are checked at every dial.
    fn check_address(&self) -> Result<(), Failure> {
        match self.address.host {
            Host::Ip(ip) => floor::check(ip, self.allow_loopback)
                .map_err(|code| Failure::new(code, format_args!("{}: {}", self.address, code.cause()))),
            Host::Dns(_) => Ok(()),
        }
    }
}

fn check_streams<const N: usize>(at: [Step; N], streams: usize) -> Result<(), Problem> {
    if (1..=limits::MAX_STREAMS_CONFIGURED).contains(&streams) {
        return Ok(());
    }
    Err(problem(at, Code::ConfigInvalid, "`max_streams` is from 1 to 100000"))
}
