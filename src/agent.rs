//! The agent: dials gateways, accepts their streams, decides by its own configuration, connects targets.
//! It refuses to know the gateway's side, files of configuration, and the command line.

pub mod acceptor;
pub mod bridge;
mod connector;
pub(crate) mod echo;
pub mod enroll;
#[cfg(test)]
pub(crate) mod fixture;
pub mod floor;
mod lanes;
pub mod link;
pub mod policy;
pub(crate) mod reach;
pub(crate) mod reauthorise;
mod resume;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::base::drain::Drain;
use crate::base::endpoint::Endpoint;
use crate::base::id::{AgentId, InstanceId};
use crate::base::limits::ECHOES;
use crate::base::suspend::Wakes;
use crate::base::tasks::Tasks;
use crate::observe::audit::Audit;
use crate::tunnel::dial::Egress;
use acceptor::{Acceptor, Serve};
use bridge::resolve::Resolver;
use floor::Floor;
use link::CredentialFiles;
use policy::Policy;
use reach::{Dialer, Reach};
use status::Board;

/// What an agent is told by whoever starts it.
pub struct Settings {
    /// The gateways, each dialled by a link of its own.
    pub endpoints: Vec<Endpoint>,
    /// How to leave the site.
    pub egress: Egress,
    /// Where the identity lies; read again at every dial, so that a new certificate is taken.
    pub credential: CredentialFiles,
    /// Who it says we are.
    pub agent: AgentId,
    /// Streams over all sessions.
    pub max_streams: usize,
    /// How long open streams may go on at the end.
    pub drain_timeout: Duration,
    /// Addresses that are never targets.
    pub floor: Floor,
}

/// One agent process.
pub struct Agent {
    settings: Settings,
    reach: Box<dyn Reach>,
    serve: Box<dyn Serve>,
    instance: InstanceId,
    policy: watch::Sender<Arc<Policy>>,
    slots: Arc<Semaphore>,
    /// Echoes that may be answered at this moment.
    echoes: Semaphore,
    resolver: Resolver,
    audit: Audit,
    drain: Drain,
    tasks: Tasks,
    board: Board,
    wakes: Wakes,
}

impl Agent {
    /// An agent that has not dialled yet.
    #[must_use]
    pub fn new(settings: Settings, policy: Policy, audit: Audit, drain: Drain, tasks: Tasks) -> Arc<Self> {
        let reach = Dialer { credential: settings.credential.clone(), egress: settings.egress.clone() };
        Self::with(settings, policy, audit, drain, tasks, Box::new(reach), Box::new(Acceptor))
    }

    /// The same over another network, or with something else at the end of its streams.
    pub(crate) fn with(
        settings: Settings,
        policy: Policy,
        audit: Audit,
        drain: Drain,
        tasks: Tasks,
        reach: Box<dyn Reach>,
        serve: Box<dyn Serve>,
    ) -> Arc<Self> {
        Arc::new(Self {
            reach,
            serve,
            instance: InstanceId::fresh(),
            policy: watch::Sender::new(Arc::new(policy)),
            slots: Arc::new(Semaphore::new(settings.max_streams)),
            echoes: Semaphore::new(ECHOES),
            resolver: Resolver::default(),
            board: Board::new(&settings.endpoints),
            wakes: Wakes::new(),
            settings,
            audit,
            drain,
            tasks,
        })
    }

    /// Starts a link to every endpoint; they run until the drain begins, and end when their streams have.
    pub fn start(self: &Arc<Self>) {
        let (drain, wakes, watch) = (self.drain.clone(), self.wakes.clone(), link::watch_certificate(self.clone()));
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = wakes.watch() => {}
                () = drain.begins() => {}
                () = watch => {}
            }
        });
        self.dial();
    }

    /// The links alone, without what looks at the host's clock and disk.
    pub(crate) fn dial(self: &Arc<Self>) {
        for endpoint in &self.settings.endpoints {
            self.tasks.spawn(link::keep(self.clone(), endpoint.clone()));
        }
    }

    /// Tells of sleeps.
    #[cfg(test)]
    pub(crate) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Takes other targets: streams of those that stay as they are live on, the others' are reset.
    pub fn reload(&self, policy: Policy) {
        self.policy.send_modify(|current| *current = Arc::new(policy.succeed(current)));
    }

    /// This run of the process.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// What the links are doing.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The targets as they are now.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.borrow().clone()
    }

    /// Streams open at this moment, over all sessions.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.settings.max_streams - self.slots.available_permits()
    }
}
