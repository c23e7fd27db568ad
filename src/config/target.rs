//! `targets` of `agent.yaml`: what can be reached through the agent, and what may be asked of it. Refuses to know what the agent does
//! with them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::agent::check_streams;
use super::problem::{Problem, problem};
use super::scalar;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::{Host, HostPort};
use crate::base::id::{Name, printable};
use crate::base::{floor, limits};
use crate::rules;

/// One of `targets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What is spoken there.
    pub kind: Kind,
    /// Where it is: `host:port` for tcp, `https://host` or `http://host` for http, `ldaps://host` for ldap.
    pub address: TargetAddress,
    /// Of an ldap target: further directories with the same content, tried in turn when one does not answer. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternates: Vec<TargetAddress>,
    /// Of an ldap target with an address `ldap://host`: TLS begins inside, by StartTLS. Default false; clear text is never spoken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub start_tls: bool,
    /// Of an http target with an address `http://host`: it takes HTTP/2 without TLS. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
    /// How TLS with it is verified, and what is shown to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TargetTlsSection>,
    /// What may be asked of it: for http a list of requests, for ldap what operations may touch. Absent: what each kind permits then.
    #[serde(default, deserialize_with = "rules::said", skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,
    /// Whether the address may be on the agent's own host. Default false.
    #[serde(default)]
    pub allow_loopback: bool,
    /// Whether a tcp target is told the client's address. Default none.
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
    /// HTTP requests, each under the target's rules.
    Http,
    /// LDAP messages, each under the target's rules.
    Ldap,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match String::deserialize(deserializer)?.as_str() {
            "tcp" => Ok(Self::Tcp),
            "http" => Ok(Self::Http),
            "ldap" => Ok(Self::Ldap),
            other => Err(Error::custom(format_args!(
                "`{}` is no kind of target; `tcp`, `http` and `ldap` are",
                printable(other, 64)
            ))),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Ldap => "ldap",
        })
    }
}

/// Where a target is: host and port, and what its scheme says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetAddress {
    /// None: bytes.
    pub scheme: Option<Scheme>,
    /// Where.
    pub at: HostPort,
}

/// A scheme of a target's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`, port 80.
    Http,
    /// `https://`, port 443.
    Https,
    /// `ldap://`, port 389.
    Ldap,
    /// `ldaps://`, port 636.
    Ldaps,
}

impl Scheme {
    const ALL: [Self; 4] = [Self::Http, Self::Https, Self::Ldap, Self::Ldaps];

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Ldap => "ldap",
            Self::Ldaps => "ldaps",
        }
    }

    /// The port that is meant if none is written.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Ldap => 389,
            Self::Ldaps => 636,
        }
    }
}

impl FromStr for TargetAddress {
    type Err = Failure;
    /// Quotes nothing of a URL with credentials.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = |why| Err(Failure::new(Code::ConfigInvalid, why));
        let Some((name, rest)) = text.split_once("://") else { return Ok(Self { scheme: None, at: text.parse()? }) };
        let Some(scheme) = Scheme::ALL.into_iter().find(|scheme| scheme.name() == name) else {
            return wrong("an address is HOST:PORT, or begins with https://, http://, ldaps:// or ldap://");
        };
        if rest.contains('@') {
            return wrong("an address holds no credentials");
        }
        let at = rest.strip_suffix('/').unwrap_or(rest);
        if at.contains(['/', '?', '#']) {
            return wrong("an address ends with its host and port; which paths are allowed is said in `allow`");
        }
        Ok(Self { scheme: Some(scheme), at: HostPort::with_default(at, scheme.port())? })
    }
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Some(scheme) => write!(f, "{}://{}", scheme.name(), self.at),
            None => self.at.fmt(f),
        }
    }
}

impl TryFrom<String> for TargetAddress {
    type Error = Failure;
    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<TargetAddress> for String {
    fn from(address: TargetAddress) -> Self {
        address.to_string()
    }
}

/// `tls` of a target: PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetTlsSection {
    /// The CAs that may have issued its certificate. Default those of the agent's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The name that its certificate must have. Default the host of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The certificate chain that is shown to it, leaf first, with `key`. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its private key; no other user may be able to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// `allow` of a target, in the form of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Allow {
    /// A list: requests.
    Http(rules::http::Rules),
    /// A map: operations.
    Ldap(Box<rules::ldap::Rules>),
}

impl<'de> Deserialize<'de> for Allow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrMap;
        impl<'de> Visitor<'de> for ListOrMap {
            type Value = Allow;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of rules (http) or a map of them (ldap)")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Allow, A::Error> {
                rules::http::Rules::deserialize(SeqAccessDeserializer::new(list)).map(Allow::Http)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Allow, A::Error> {
                rules::ldap::Rules::deserialize(MapAccessDeserializer::new(map)).map(|rules| Allow::Ldap(Box::new(rules)))
            }
        }
        deserializer.deserialize_any(ListOrMap)
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
    /// How long an http target may take to begin its answer, at least 10ms. Default 60s.
    #[serde(with = "scalar::duration")]
    pub response_timeout: Duration,
    /// A stream without a byte for this long is closed. Default none.
    #[serde(with = "scalar::optional_duration")]
    pub idle_timeout: Option<Duration>,
}

impl Default for TargetLimits {
    fn default() -> Self {
        Self {
            max_streams: limits::TARGET_STREAMS,
            connect_timeout: limits::CONNECT_TIMEOUT,
            response_timeout: limits::RESPONSE_TIMEOUT,
            idle_timeout: None,
        }
    }
}

impl Target {
    pub(super) fn check(&self, name: &Name) -> Result<(), Problem> {
        let at = |key: &'static str| ["targets".into(), name.as_str().into(), key.into()];
        let at_limit = |key: &'static str| ["targets".into(), name.as_str().into(), "limits".into(), key.into()];
        for (key, address) in self.addresses() {
            self.check_address(address).map_err(|failure| problem(at(key), failure.code, failure.detail))?;
        }
        self.check_keys().map_err(|(key, detail)| problem(at(key), Code::ConfigInvalid, detail))?;
        check_streams(at_limit("max_streams"), self.limits.max_streams)?;
        let shortest = Duration::from_millis(10);
        if !(shortest..=limits::REPLY_DEADLINE).contains(&self.limits.connect_timeout) {
            let detail = "`connect_timeout` is from 10ms to 15s: the client is answered within 15s";
            return Err(problem(at_limit("connect_timeout"), Code::ConfigInvalid, detail));
        }
        if self.limits.response_timeout < shortest {
            return Err(problem(at_limit("response_timeout"), Code::ConfigInvalid, "`response_timeout` is at least 10ms"));
        }
        if self.limits.idle_timeout.is_some_and(|idle| idle < Duration::from_secs(1)) {
            return Err(problem(at_limit("idle_timeout"), Code::ConfigInvalid, "`idle_timeout` is at least 1s, or none"));
        }
        Ok(())
    }

    fn addresses(&self) -> impl Iterator<Item = (&'static str, &TargetAddress)> {
        std::iter::once(("address", &self.address)).chain(self.alternates.iter().map(|address| ("alternates", address)))
    }

    fn check_address(&self, address: &TargetAddress) -> Result<(), Failure> {
        let wrong = |why: &str| Err(Failure::new(Code::ConfigInvalid, format_args!("{address}: {why}")));
        match (self.kind, address.scheme) {
            (Kind::Tcp, None) | (Kind::Http, Some(Scheme::Http | Scheme::Https)) | (Kind::Ldap, Some(Scheme::Ldaps)) => {}
            (Kind::Ldap, Some(Scheme::Ldap)) if self.start_tls => {}
            (Kind::Ldap, Some(Scheme::Ldap)) => {
                return wrong(
                    "LDAP in clear text is not spoken; write ldaps://, or `start_tls: true` if the directory has StartTLS",
                );
            }
            (Kind::Tcp, _) => return wrong("a target of kind tcp is HOST:PORT"),
            (Kind::Http, _) => return wrong("a target of kind http is https://HOST or http://HOST, with :PORT if need be"),
            (Kind::Ldap, _) => return wrong("a target of kind ldap is ldaps://HOST, with :PORT if need be"),
        }
        match address.at.host {
            // A literal address that would never be dialled is a mistake now; names are checked at every dial.
            Host::Ip(ip) => floor::check(ip, self.allow_loopback)
                .map_err(|code| Failure::new(code, format_args!("{address}: {}", code.cause()))),
            Host::Dns(_) => Ok(()),
        }
    }

    /// Keys that say nothing about a target of this kind are mistakes.
    fn check_keys(&self) -> Result<(), (&'static str, String)> {
        let only = |key, is: bool, kind| {
            if is && self.kind != kind { Err((key, format!("`{key}` is for targets of kind {kind}"))) } else { Ok(()) }
        };
        only("alternates", !self.alternates.is_empty(), Kind::Ldap)?;
        only("start_tls", self.start_tls, Kind::Ldap)?;
        only("http2", self.http2, Kind::Http)?;
        only("send_proxy", self.send_proxy != SendProxy::None, Kind::Tcp)?;
        match (self.kind, &self.allow) {
            (Kind::Http, Some(Allow::Ldap(_))) => {
                return Err(("allow", "of a target of kind http, `allow` is a list of rules".to_owned()));
            }
            (Kind::Ldap, Some(Allow::Http(_))) => {
                return Err(("allow", "of a target of kind ldap, `allow` is a map".to_owned()));
            }
            (Kind::Tcp, Some(_)) => {
                return Err(("allow", "nothing is known of what passes through a target of kind tcp".to_owned()));
            }
            _ => {}
        }
        if self.alternates.len() > limits::MAX_ALTERNATES {
            return Err(("alternates", format!("at most {} alternates", limits::MAX_ALTERNATES)));
        }
        if self.start_tls && self.addresses().any(|(_, address)| address.scheme != Some(Scheme::Ldap)) {
            return Err((
                "start_tls",
                "StartTLS begins on addresses ldap://HOST; ldaps:// has TLS from its first byte".to_owned(),
            ));
        }
        if self.http2 && self.address.scheme == Some(Scheme::Https) {
            return Err((
                "http2",
                "inside TLS the target itself says whether it takes HTTP/2; `http2` is for http://HOST".to_owned(),
            ));
        }
        let Some(tls) = &self.tls else { return Ok(()) };
        if matches!(self.address.scheme, None | Some(Scheme::Http)) {
            return Err(("tls", format!("there is no TLS with {}", self.address)));
        }
        if tls.cert.is_some() != tls.key.is_some() {
            return Err(("tls", "`tls.cert` and `tls.key` need each other".to_owned()));
        }
        if let Some(Err(failure)) = tls.server_name.as_deref().map(Host::parse) {
            return Err(("tls", failure.detail));
        }
        Ok(())
    }

    /// Every file that it names.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.tls.iter_mut().flat_map(|tls| [&mut tls.ca_file, &mut tls.cert, &mut tls.key].into_iter().flatten())
    }
}
