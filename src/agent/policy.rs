//! What the site permits: targets by name. The only maker of [`Permit`]; pure but for counting streams.
//! It refuses to resolve, to connect, and to read files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::base::code::Code;
use crate::base::endpoint::HostPort;
use crate::base::id::Name;
use crate::base::light::{Lamp, Reach};
use crate::pki::tls::target::TargetTls;
use crate::rules;
use crate::wire::hello::{Kind, Offer};
use crate::wire::open::{Open, Spoken};
use crate::wire::refusal::Refusal;

/// A target as the site's configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// Where it is, seen from the site.
    pub address: HostPort,
    /// Whether it may be on the agent's own host.
    pub allow_loopback: bool,
    /// What is spoken with it, and what may be asked of it.
    pub service: Service,
    /// Its limits.
    pub limits: TargetLimits,
}

/// What is spoken with a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Bytes.
    Tcp {
        /// Whether the client's address is told to it (PROXY protocol v2).
        send_proxy: bool,
    },
    /// HTTP.
    Http(HttpService),
    /// LDAP.
    Ldap(LdapService),
}

/// How an http target is reached, and what may be asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpService {
    /// TLS with it; none: clear text.
    pub tls: Option<TargetTls>,
    /// Without TLS it takes HTTP/2 by prior knowledge.
    pub http2: bool,
    /// The requests that may be made.
    pub rules: Arc<rules::http::Rules>,
}

/// How an ldap target is reached, and what may be asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapService {
    /// Directories that are tried in turn after the target's address.
    pub alternates: Vec<HostPort>,
    /// TLS with all of them.
    pub tls: TargetTls,
    /// TLS begins inside, by StartTLS.
    pub start_tls: bool,
    /// What may be asked.
    pub rules: Arc<rules::ldap::Rules>,
}

/// Limits of one target on one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetLimits {
    /// Streams at a time.
    pub max_streams: usize,
    /// From the open to the connection.
    pub connect_timeout: Duration,
    /// From an HTTP request to the beginning of its answer.
    pub response_timeout: Duration,
    /// Streams in which nothing moves for this long are reset.
    pub idle_timeout: Option<Duration>,
}

/// A target in force.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: Name,
    /// Its configuration.
    pub spec: TargetSpec,
    slots: Arc<Semaphore>,
    life: Arc<Life>,
}

/// What the streams of a target have in common, over reloads that leave it where it is.
#[derive(Debug)]
struct Life {
    /// Ends them when a reload takes the target away.
    ended: CancellationToken,
    /// The service in force: what may be asked can change while streams are open.
    service: ArcSwap<Service>,
    /// Bytes that they hold of large messages.
    held: AtomicUsize,
    /// How the last attempt at it went.
    lamp: Lamp<Reach>,
}

/// The site's targets.
#[derive(Debug, Default)]
pub struct Policy {
    targets: BTreeMap<Name, Arc<Target>>,
    /// How many there were before it.
    version: u64,
}

/// Leave to connect one stream to one target. Nothing else opens a connection to a target.
#[derive(Debug)]
pub struct Permit {
    target: Arc<Target>,
    _slot: OwnedSemaphorePermit,
}

impl Policy {
    /// A policy that permits just these.
    #[must_use]
    pub fn new(specs: BTreeMap<Name, TargetSpec>) -> Self {
        let targets = specs.into_iter().map(|(name, spec)| {
            let slots = Arc::new(Semaphore::new(spec.limits.max_streams));
            let service = ArcSwap::from_pointee(spec.service.clone());
            let (ended, held) = (CancellationToken::new(), AtomicUsize::new(0));
            let life = Life { ended, service, held, lamp: Lamp::new(Reach::Unknown) };
            (name.clone(), Arc::new(Target { name, spec, slots, life: Arc::new(life) }))
        });
        Self { targets: targets.collect(), version: 0 }
    }

    /// Whether this stream may be opened.
    ///
    /// # Errors
    /// `target_unknown`, `target_kind_mismatch`, `target_streams`.
    pub fn authorize(&self, open: &Open) -> Result<Permit, Refusal> {
        let Some(target) = self.targets.get(&open.target) else {
            return Err(Refusal::new(Code::TargetUnknown, format_args!("this agent has no target `{}`", open.target)));
        };
        let kind = target.spec.service.kind();
        if !matches!((open.spoken, kind), (Spoken::Raw, _) | (Spoken::Http, Kind::Http) | (Spoken::Search, Kind::Ldap)) {
            let detail = format!("`{}` is of kind {kind}, and cannot be asked by {}", target.name, open.spoken);
            return Err(Refusal::new(Code::TargetKindMismatch, detail));
        }
        let slot = target.slots.clone().try_acquire_owned().map_err(|_| {
            let limit = target.spec.limits.max_streams;
            Refusal::new(Code::TargetStreams, format_args!("`{}` has its {limit} streams", target.name))
        })?;
        Ok(Permit { target: target.clone(), _slot: slot })
    }

    /// This policy in the place of `before`: targets that are still the same keep their streams, the others' end.
    #[must_use]
    pub fn succeed(mut self, before: &Self) -> Self {
        self.version = before.version + 1;
        for (name, old) in &before.targets {
            match self.targets.get_mut(name) {
                Some(new) if new.spec == old.spec => *new = old.clone(),
                Some(new) if new.spec.same_place(&old.spec) => {
                    let slots = new.slots.clone();
                    old.life.service.store(Arc::new(new.spec.service.clone()));
                    *new = Arc::new(Target { name: name.clone(), spec: new.spec.clone(), slots, life: old.life.clone() });
                }
                _ => old.life.ended.cancel(),
            }
        }
        self
    }

    /// Counts the configurations of this process: 0, and one more with each that is taken.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the agent tells gateways.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        self.targets.values().map(|target| Offer { name: target.name.clone(), kind: target.spec.service.kind() }).collect()
    }

    /// All targets, in the order of their names.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.values().map(AsRef::as_ref)
    }
}

impl TargetSpec {
    /// Whether only limits and what may be asked differ, which open streams outlive.
    fn same_place(&self, other: &Self) -> bool {
        Self { limits: other.limits.clone(), service: self.service.with_rules_of(&other.service), ..self.clone() } == *other
    }
}

impl Service {
    /// Its kind, as gateways are told.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Tcp { .. } => Kind::Tcp,
            Self::Http(_) => Kind::Http,
            Self::Ldap(_) => Kind::Ldap,
        }
    }

    fn with_rules_of(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Http(service), Self::Http(other)) => {
                Self::Http(HttpService { rules: other.rules.clone(), ..service.clone() })
            }
            (Self::Ldap(service), Self::Ldap(other)) => {
                Self::Ldap(LdapService { rules: other.rules.clone(), ..service.clone() })
            }
            _ => self.clone(),
        }
    }
}

impl Target {
    /// Streams open at this moment.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.spec.limits.max_streams - self.slots.available_permits()
    }

    /// How the last attempt at it went.
    #[must_use]
    pub fn lamp(&self) -> &Lamp<Reach> {
        &self.life.lamp
    }

    /// Bytes that its streams hold of large messages, all together.
    #[must_use]
    pub fn held(&self) -> &AtomicUsize {
        &self.life.held
    }
}

impl Permit {
    /// The target it is for.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What is spoken with the target, and what may be asked of it at this moment.
    #[must_use]
    pub fn service(&self) -> Arc<Service> {
        self.target.life.service.load_full()
    }

    /// Ends when a reload takes the target away.
    pub async fn withdrawn(&self) {
        self.target.life.ended.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::RequestId;

    fn spec(port: u16, max_streams: usize) -> TargetSpec {
        TargetSpec {
            address: format!("db.corp.example:{port}").parse().unwrap(),
            allow_loopback: false,
            service: Service::Tcp { send_proxy: false },
            limits: TargetLimits { max_streams, ..crate::agent::fixture::spec("x:1", false).limits },
        }
    }

    fn policy(targets: &[(&str, TargetSpec)]) -> Policy {
        Policy::new(targets.iter().map(|(name, spec)| (Name::parse(name).unwrap(), spec.clone())).collect())
    }

    fn open(target: &str, spoken: Spoken) -> Open {
        let target = Name::parse(target).unwrap();
        let deadline = Duration::from_secs(5);
        Open { request: RequestId::fresh(), target, spoken, caller: String::new(), source: None, deadline, trace: None }
    }

    #[test]
    fn only_named_targets_of_the_right_kind_within_their_limit_are_permitted() {
        let policy = policy(&[("db", spec(5432, 1))]);
        let code = |name, spoken| policy.authorize(&open(name, spoken)).map(drop).map_err(|refusal| refusal.code);
        assert_eq!(code("other", Spoken::Raw), Err(Code::TargetUnknown));
        assert_eq!(code("db", Spoken::Http), Err(Code::TargetKindMismatch));
        let held = policy.authorize(&open("db", Spoken::Raw)).unwrap();
        assert_eq!(code("db", Spoken::Raw), Err(Code::TargetStreams));
        drop(held);
        assert_eq!(code("db", Spoken::Raw), Ok(()));
    }

    #[test]
    fn a_reload_ends_streams_of_changed_targets_alone() {
        let before = policy(&[("same", spec(1, 9)), ("moved", spec(2, 9)), ("gone", spec(3, 9)), ("tuned", spec(4, 9))]);
        let permits: Vec<_> =
            ["same", "moved", "gone", "tuned"].iter().map(|name| before.authorize(&open(name, Spoken::Raw)).unwrap()).collect();
        let after = policy(&[("same", spec(1, 9)), ("moved", spec(22, 9)), ("tuned", spec(4, 1))]).succeed(&before);
        let ended: Vec<_> = permits.iter().map(|permit| permit.target.life.ended.is_cancelled()).collect();
        assert_eq!(ended, [false, true, true, false]);
        assert_eq!(after.targets().find(|target| target.name.as_str() == "same").unwrap().streams(), 1);
    }
}
