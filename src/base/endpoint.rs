//! Where something listens: a host and a port, and a gateway's `wss://` endpoint. Parsed strictly, so that what was checked
//! is what is dialled. Refuses to resolve or to dial.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::code::{Code, Failure};

/// A DNS name or an address literal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name in lower case, without a final dot.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl Host {
    /// Parses a host. Forms that resolvers read as numbers (`0x7f.1`, `2130706433`, `127.1`) are refused, since what
    /// they mean depends on who reads them.
    ///
    /// # Errors
    /// `config_invalid`, saying what a host looks like.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip));
        }
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().map(|ip| Self::Ip(ip.into())).map_err(|_| not_a_host(text));
        }
        let name = text.to_ascii_lowercase();
        let labels_ok = !name.is_empty()
            && name.len() <= 253
            && name.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            });
        let last = name.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|b| b.is_ascii_digit())
            || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if labels_ok && !numeric { Ok(Self::Dns(name)) } else { Err(not_a_host(text)) }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

fn not_a_host(text: &str) -> Failure {
    Failure::new(
        Code::ConfigInvalid,
        format_args!(
            "`{}` is not a host: a DNS name in ASCII without a final dot, or an IP address",
            super::id::printable(text, 80)
        ),
    )
}

/// A host and a port, written `host:port`; IPv6 literals in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl FromStr for HostPort {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::new(Code::ConfigInvalid, format_args!("`{}`: {why}", super::id::printable(text, 80)));
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("expected host:port"))?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(wrong("an IPv6 address needs brackets, as in [fd00::1]:443"));
        }
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port =
            port.parse().ok().filter(|port| digits && *port != 0).ok_or_else(|| wrong("a port is a number from 1 to 65535"))?;
        Ok(Self { host: Host::parse(host)?, port })
    }
}

impl HostPort {
    /// Parses `host[:port]`.
    ///
    /// # Errors
    /// As [`Host::parse`], and for a port that is none.
    pub fn with_default(text: &str, port: u16) -> Result<Self, Failure> {
        let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        if has_port { text.parse() } else { Ok(Self { host: Host::parse(text)?, port }) }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: address.port() }
    }
}

impl TryFrom<String> for HostPort {
    type Error = Failure;
    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(at: HostPort) -> Self {
        at.to_string()
    }
}

/// A gateway as agents dial it, written `wss://host[:port]`; the port is 443 unless said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(pub HostPort);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wss://{}", self.0)
    }
}

impl FromStr for Endpoint {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let rest = text.strip_prefix("wss://").ok_or_else(|| {
            let shown = super::id::printable(text, 80);
            Failure::new(Code::ConfigInvalid, format_args!("`{shown}` is not an endpoint: expected wss://HOST:PORT"))
        })?;
        HostPort::with_default(rest.strip_suffix('/').unwrap_or(rest), 443).map(Self)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Failure;
    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_round_trip() {
        for text in ["db.corp.example:5432", "10.0.0.1:1", "[fd00::1]:443", "localhost:65535", "_srv.corp:80"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        assert_eq!("wss://gw.example".parse::<Endpoint>().unwrap().to_string(), "wss://gw.example:443");
        assert_eq!("wss://[fd00::1]".parse::<Endpoint>().unwrap().to_string(), "wss://[fd00::1]:443");
        assert_eq!("wss://GW.example:8443/".parse::<Endpoint>().unwrap().to_string(), "wss://gw.example:8443");
    }

    #[test]
    fn e1_forms_that_two_readers_read_differently_are_refused() {
        for text in [
            "0x7f.1:80",
            "2130706433:80",
            "127.1:80",
            "0177.0.0.1:80",
            "localhost.:80",
            "a..b:80",
            "a.b.:80",
            "１２７.0.0.1:80",
            "a。b:80",
            "user@host:80",
            "host\r\nX:80",
            "host:0",
            "host:65536",
            "host:+80",
            "host:",
            ":80",
            "host",
            "fd00::1:443",
            "[fd00::1:443",
            "[10.0.0.1]:80",
            "fe80::1%eth0:80",
            "host:80/path",
            "-a:80",
            "h st:80",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
        for text in ["ws://h:1", "https://h:1", "wss://", "wss://u@h:1", "wss://h:1/x", "h:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }
}
