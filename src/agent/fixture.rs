//! For tests: an agent without links, its policy, and what a gateway asks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::bridge::resolve::Resolver;
use super::link::CredentialFiles;
use super::policy::{Policy, Service, TargetLimits, TargetSpec};
use super::{Agent, Settings};
use crate::agent::floor::Floor;
use crate::base::drain::Drain;
use crate::base::id::{Name, RequestId};
use crate::base::tasks::Tasks;
use crate::tunnel::dial::Egress;
use crate::tunnel::fixture::{Rows, audit};
use crate::wire::open::{Open, Spoken};

pub(crate) fn spec(address: &str, allow_loopback: bool) -> TargetSpec {
    TargetSpec {
        address: address.parse().unwrap(),
        allow_loopback,
        service: Service::Tcp { send_proxy: false },
        limits: TargetLimits {
            max_streams: 9,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            idle_timeout: None,
        },
    }
}

pub(crate) fn policy(targets: &[(&str, TargetSpec)]) -> Policy {
    Policy::new(targets.iter().map(|(name, spec)| (Name::parse(name).unwrap(), spec.clone())).collect())
}

pub(crate) fn open(target: &str) -> Open {
    Open {
        request: RequestId::fresh(),
        target: Name::parse(target).unwrap(),
        spoken: Spoken::Raw,
        caller: "test".to_owned(),
        source: Some("192.0.2.9:9".parse().unwrap()),
        deadline: Duration::from_secs(5),
        trace: None,
    }
}

/// An agent of which nothing is there but its policy: no identity on the disk, and nobody at its endpoint.
pub(crate) fn agent(policy: Policy, max_streams: usize) -> (Arc<Agent>, Rows, Tasks) {
    agent_with(policy, max_streams, Resolver::default())
}

/// The same, that resolves names this way.
pub(crate) fn agent_with(policy: Policy, max_streams: usize, resolver: Resolver) -> (Arc<Agent>, Rows, Tasks) {
    let settings = settings(max_streams);
    let (audit, rows) = audit();
    let tasks = Tasks::new();
    let mut agent = Agent::new(settings, policy, audit, Drain::new(), tasks.clone());
    Arc::get_mut(&mut agent).expect("nobody else has it yet").resolver = resolver;
    (agent, rows, tasks)
}

/// The settings of one that is nowhere on the disk.
pub(crate) fn settings(max_streams: usize) -> Settings {
    let nowhere = PathBuf::from("/nonexistent");
    Settings {
        endpoints: vec!["wss://gw.example".parse().unwrap()],
        egress: Egress::default(),
        credential: CredentialFiles { certificate: nowhere.join("c"), key: nowhere.join("k"), root: nowhere.join("r") },
        agent: "acme/dc1/a".parse().unwrap(),
        max_streams,
        drain_timeout: crate::base::limits::DRAIN_TIMEOUT,
        floor: Floor::default(),
    }
}
