//! `listeners` of `gateway.yaml`: where clients connect, how they ask and log in. Refuses to know what the gateway does with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::common::check_open;
use super::gateway::Limits;
use super::problem::{Problem, problem};
use super::scalar;
use crate::base::code::Code;
use crate::base::endpoint::Host;
use crate::base::grant::Grants;
use crate::base::id::{TargetId, printable};

/// What a stream may be silent for at least.
pub(super) const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// One of `listeners`: an address where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// The address. Off loopback a listener of kind `tcp` needs `allow_from` or `client_ca`.
    #[serde(deserialize_with = "scalar::listen")]
    pub listen: SocketAddr,
    /// How clients ask. Default `tcp`.
    #[serde(default)]
    pub kind: ListenerKind,
    /// Where streams of a `tcp` listener go: `tenant/group/target`. The others' clients name it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetId>,
    /// The domain of a listener of kind `http` below which a host names a target: `target--group--tenant.DOMAIN`. Default none: targets
    /// are named by path alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_domain: Option<Domain>,
    /// Networks that clients may come from. Default any: on loopback, and where clients log in.
    #[serde(default, with = "scalar::networks")]
    pub allow_from: Option<Vec<IpNet>>,
    /// Balancers in front: their connections begin with a PROXY header, whose source counts. Default none.
    #[serde(default, with = "scalar::balancers")]
    pub proxy_protocol_from: Vec<IpNet>,
    /// The certificate that clients see; absent: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Who may log in by a certificate, needs `tls`. Clients of a `tcp` listener must then, the others' may show a token instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<ClientCaSection>,
    /// Whether client bytes may travel before the agent's reply. Default true.
    #[serde(default = "default_early_data")]
    pub early_data: bool,
    /// Closes a stream without a byte for this long, at least 1s; of kind `http` a client's connection without a request, too. Default
    /// none, and 75s for such a connection.
    #[serde(default, with = "scalar::optional_duration")]
    pub idle_timeout: Option<Duration>,
}

/// `kind` of a listener: how its clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerKind {
    /// Not at all: every connection goes to the one target.
    #[default]
    Tcp,
    /// HTTP CONNECT, as to a web proxy.
    Connect,
    /// SOCKS5 (RFC 1928, 1929).
    Socks5,
    /// HTTP requests, each to the target that its path or host names.
    Http,
}

/// A DNS name of at least one label, in small letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

impl Domain {
    /// The name, without a final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Domain {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match Host::parse(&text) {
            Ok(Host::Dns(name)) => Ok(Self(name)),
            _ => Err(format!("`{}` is no domain, such as tunnel.vendor.example", printable(&text, 128))),
        }
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0
    }
}

/// `client_ca` of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCaSection {
    /// The CAs that issue clients' certificates, PEM; never the private PKI.
    pub file: PathBuf,
    /// Who is in by which name: a DNS name, URI or e-mail address of the certificate.
    pub names: BTreeMap<String, CertifiedClient>,
}

/// One of `client_ca.names`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedClient {
    /// The targets that it may reach: `tenant/group/target`, each a name or `*`.
    pub grants: Grants,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
}

fn default_early_data() -> bool {
    true
}

/// `tls` of a listener: PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key; no other user may be able to read it.
    pub key: PathBuf,
}

impl ListenerConfig {
    pub(super) fn check(&self, index: usize) -> Result<(), Problem> {
        let at = |key: &'static str| ["listeners".into(), index.into(), key.into()];
        let wrong = |key, what: &str| Err(problem(at(key), Code::ConfigInvalid, what));
        match (self.kind, &self.target) {
            (ListenerKind::Tcp, None) => return wrong("listen", "a listener of kind tcp needs its `target`"),
            (ListenerKind::Connect | ListenerKind::Socks5 | ListenerKind::Http, Some(_)) => {
                return wrong("target", "clients of this kind of listener name the target themselves");
            }
            _ => {}
        }
        if self.base_domain.is_some() && self.kind != ListenerKind::Http {
            return wrong("base_domain", "`base_domain` is for listeners of kind http");
        }
        if self.idle_timeout.is_some_and(|idle| idle < IDLE_TIMEOUT_MIN) {
            return wrong("idle_timeout", "`idle_timeout` is at least 1s");
        }
        if let Some(clients) = &self.client_ca {
            if self.tls.is_none() {
                return wrong("client_ca", "certificates are shown inside TLS: `client_ca` needs `tls`");
            }
            if clients.names.is_empty() {
                return wrong("client_ca", "`client_ca.names` says who may log in; it is empty");
            }
            for (name, client) in &clients.names {
                let of = |key| {
                    let path = ["client_ca".into(), "names".into(), name.as_str().into(), "limits".into()];
                    let [ca, names, own, limits] = path;
                    ["listeners".into(), index.into(), ca, names, own, limits, key]
                };
                client.limits.check(of, &printable(name, 128))?;
            }
        }
        let logs_in = self.kind != ListenerKind::Tcp || self.client_ca.is_some();
        check_open(at("listen"), self.listen, logs_in || self.allow_from.is_some())
    }

    /// Whether clients would show their tokens in plain text to whoever is between them and this host.
    pub(super) fn is_in_clear(&self) -> bool {
        self.kind != ListenerKind::Tcp && self.tls.is_none() && !self.listen.ip().to_canonical().is_loopback()
    }

    /// Every file that it names.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let tls = self.tls.iter_mut().flat_map(|tls| [&mut tls.cert, &mut tls.key]);
        tls.chain(self.client_ca.iter_mut().map(|ca| &mut ca.file))
    }
}
