//! The gateway: takes clients on one side and agents' sessions on the other, and relays between them.
//! It refuses to know the agent's side, the store, who administers it, and files of configuration.

pub mod enrollment;
pub mod ingress;
pub mod listener;
pub mod port;
pub mod quota;
pub mod registry;
pub mod relay;
pub mod router;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::base::allow::AllowFrom;
use crate::base::code::Failure;
use crate::base::drain::{Drain, Drained};
use crate::base::endpoint::Endpoint;
use crate::base::id::{AgentId, InstanceId, Name};
use crate::base::limits::HANDSHAKE_DEADLINE;
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::observe::audit::Audit;
use crate::pki::revoke::Revocations;
use crate::pki::tls::GatewayTls;
use crate::tunnel::listen::Caps;
use registry::Registry;
use router::Table;

/// What the enrollment route asks of whoever issues certificates. Control implements it; the data plane imports no control.
pub trait Issuer: Send + Sync + 'static {
    /// Redeems a token for a certificate.
    fn enroll(&self, ask: EnrollAsk) -> Pin<Box<dyn Future<Output = Result<Enrolled, Failure>> + Send + '_>>;
}

/// One enrollment, as it came in.
#[derive(Debug)]
pub struct EnrollAsk {
    /// The token's secret.
    pub secret: Secret,
    /// PKCS #10, DER, from a stranger.
    pub csr: Vec<u8>,
    /// The wished name.
    pub agent: Option<Name>,
    /// Who asks.
    pub source: IpAddr,
}

/// A certificate, and what its holder needs beside it.
#[derive(Debug)]
pub struct Enrolled {
    /// Who the agent is now.
    pub agent: AgentId,
    /// Leaf, issuing CA, root.
    pub chain_pem: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
    /// Where to dial.
    pub endpoints: Vec<Endpoint>,
}

/// What a gateway is told by whoever starts it.
pub struct Settings {
    /// Its name, as in its certificate.
    pub id: Name,
    /// Where agents dial in.
    pub listen: SocketAddr,
    /// Who may, for a tunnel.
    pub allow_from: AllowFrom,
    /// Who may, for an enrollment.
    pub enroll_from: AllowFrom,
    /// Connections per listener.
    pub caps: Caps,
    /// How long open streams may go on at the end.
    pub drain_timeout: Duration,
}

/// One gateway process.
pub struct Gateway {
    settings: Settings,
    instance: InstanceId,
    tls: Arc<GatewayTls>,
    revocations: Revocations,
    issuer: Arc<dyn Issuer>,
    registry: Registry,
    table: Table,
    audit: Audit,
    drain: Drain,
    /// Clients' connections, which a drain waits for.
    clients: Tasks,
    /// Agents' sessions, which end after the last client.
    sessions: Tasks,
}

impl Gateway {
    /// A gateway that listens nowhere yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        tls: Arc<GatewayTls>,
        revocations: Revocations,
        issuer: Arc<dyn Issuer>,
        audit: Audit,
        tasks: &Tasks,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            instance: InstanceId::fresh(),
            tls,
            revocations,
            issuer,
            registry: Registry::default(),
            table: Table::default(),
            audit,
            drain: Drain::new(),
            clients: tasks.child(),
            sessions: tasks.child(),
        })
    }

    /// This run of the process.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The live sessions.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Tenants' limits.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Ends well: nothing new, agents told, streams given their time, then sessions closed.
    pub async fn drain(&self) -> Drained {
        let drained = self.drain.finish(&self.clients, self.settings.drain_timeout).await;
        self.registry.close_all();
        if tokio::time::timeout(HANDSHAKE_DEADLINE, self.sessions.join()).await.is_err() {
            self.sessions.abort().await;
        }
        drained
    }
}
