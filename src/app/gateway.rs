//! A gateway process: `init` makes its state, `Running` is it at work, `run` is its life as a service.
//! It refuses to know how commands are written and answers printed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::net::TcpListener;

use super::memory::limit_buffers;
use super::process::{Signals, Wish, changed, raise_descriptor_limit, ready};
use super::{Place, ops, process};
use crate::base::allow::AllowFrom;
use crate::base::code::{Code, Exit, Failure};
use crate::base::drain::{Drain, Drained};
use crate::base::endpoint::{Endpoint, Host};
use crate::base::files;
use crate::base::id::{AgentId, Name};
use crate::base::tasks::Tasks;
use crate::config::{self, GatewayConfig, ListenerConfig, ListenerKind, MetricsSection};
use crate::control::agents::{Live, LiveSession};
use crate::control::api::{Api, router};
use crate::control::store::sqlite::Sqlite;
use crate::control::{Control, Parts};
use crate::gateway::callers::{Caller, Callers};
use crate::gateway::ingress::{Entry, Terms};
use crate::gateway::listener::{ListenerSpec, Listeners};
use crate::gateway::quota::Limits;
use crate::gateway::{Gateway, Settings, port};
use crate::observe::audit::{Audit, Event};
use crate::observe::{log, metrics};
use crate::pki::authority::Authority;
use crate::pki::identity::TrustDomain;
use crate::pki::pin::Pin;
use crate::pki::renew::gateway_credential;
use crate::pki::revoke::Revocations;
use crate::pki::tls::{self, ClientCa, GatewayTls};
use crate::tunnel::listen::{Caps, bind};

/// The configuration's name in the state directory.
pub const CONFIG: &str = "gateway.yaml";

/// How often the gateway looks at its certificate's age.
const RENEWAL_CHECK: Duration = Duration::from_secs(600);

/// An issuing CA that ends sooner raises the alarm: three lives of an agent's certificate.
const ISSUER_ALARM: time::Duration = time::Duration::days(90);

/// The admin socket of a gateway.
#[must_use]
pub fn admin_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// What `init` made.
#[derive(Debug)]
pub struct Initialized {
    /// The configuration file.
    pub config: PathBuf,
    /// The name of the PKI.
    pub trust_domain: TrustDomain,
    /// What enrollment tokens will carry.
    pub pin: Pin,
    /// When the issuing CA ends.
    pub issuing_not_after: OffsetDateTime,
}

/// Makes a PKI, the gateway's certificate and its configuration.
///
/// # Errors
/// `state_exists` if there is any already; nothing is overwritten.
pub fn init(
    place: &Place,
    id: &Name,
    endpoint: &Endpoint,
    listen: SocketAddr,
    trust_domain: Option<TrustDomain>,
) -> Result<Initialized, Failure> {
    tls::install_provider();
    let config = place.config(CONFIG);
    if config.symlink_metadata().is_ok() {
        return Err(Failure::new(Code::StateExists, config.display()));
    }
    let trust_domain = match trust_domain {
        Some(domain) => domain,
        None => default_trust_domain(endpoint)?,
    };
    files::create_private_dir(&place.state_dir)?;
    let now = OffsetDateTime::now_utc();
    let pki = place.state_dir.join("pki");
    let authority = Authority::init(&pki, &trust_domain, now)?;
    gateway_credential(&authority, &pki, id, std::slice::from_ref(endpoint), now)?;
    files::write_private(&config, starter(id, endpoint, listen).as_bytes())?;
    Ok(Initialized { config, trust_domain, pin: authority.pin(), issuing_not_after: authority.issuing_not_after() })
}

fn default_trust_domain(endpoint: &Endpoint) -> Result<TrustDomain, Failure> {
    match &endpoint.0.host {
        Host::Dns(name) => name.parse(),
        Host::Ip(_) => "underpass.internal".parse(),
    }
}

fn starter(id: &Name, endpoint: &Endpoint, listen: SocketAddr) -> String {
    format!(
        "# The gateway. Every key is in the README; `underpass gateway check` shows them with their defaults.
version: 1
gateway:
  id: {id}
  endpoints: [\"{endpoint}\"]
  listen: \"{listen}\"

# Where clients connect, and which target each listener leads to. SIGHUP reloads this list.
listeners: []
#  - listen: \"127.0.0.1:5432\"
#    target: acme/dc1/sales-db
"
    )
}

/// A gateway at work.
pub struct Running {
    /// The data plane.
    pub gateway: Arc<Gateway>,
    /// What administers it.
    pub control: Arc<Control>,
    /// Where agents dial in.
    pub port: SocketAddr,
    /// Where clients connect, in the configuration's order.
    pub listeners: Vec<SocketAddr>,
    audit: Audit,
    tasks: Tasks,
    drain: Drain,
    served: Listeners,
    authority: Arc<Authority>,
    config: GatewayConfig,
}

impl Running {
    /// Starts everything but the admin socket and the probes. `socket` is where agents dial in.
    ///
    /// # Errors
    /// Whatever keeps it from serving, with nothing left running.
    pub async fn start(
        config: GatewayConfig,
        state_dir: &Path,
        audit: Audit,
        socket: TcpListener,
        endpoints: Vec<Endpoint>,
    ) -> Result<Self, Failure> {
        let (pki, now) = (state_dir.join("pki"), OffsetDateTime::now_utc());
        let authority = Arc::new(Authority::load(&pki)?);
        let credential = gateway_credential(&authority, &pki, &config.gateway.id, &config.gateway.endpoints, now)?;
        let (revocations, callers) = (Revocations::new(), Callers::new());
        let tls = Arc::new(GatewayTls::new(authority.root(), &credential, revocations.clone())?);
        let control = Control::start(Parts {
            store: Arc::new(Sqlite::open(&state_dir.join("state.db"))?),
            authority: authority.clone(),
            revocations: revocations.clone(),
            callers: callers.clone(),
            audit: audit.clone(),
            endpoints,
            certificate_lifetime: config.enrollment.certificate_lifetime,
        })
        .await?;
        let tasks = Tasks::new();
        let gateway =
            Gateway::new(settings(&config), tls.clone(), revocations, callers.clone(), control.clone(), audit.clone(), &tasks);
        gateway.table().limit(&tenants(&config));
        let served = Listeners::default();
        let listeners = served.apply(&gateway, specs(&config.listeners, &authority)?)?;
        warn_of_clear_tokens(&config);
        let port = socket.local_addr().unwrap_or(config.gateway.listen);
        port::serve(&gateway, socket);
        let following = control.clone();
        tasks.spawn(async move { following.follow().await });
        tasks.spawn(async move { callers.expire().await });
        let tidied = gateway.clone();
        tasks.spawn(async move { tidied.tidy_streams().await });
        let sleeping = gateway.clone();
        tasks.spawn(async move { sleeping.watch_clock().await });
        tasks.spawn(keep_certificate(authority.clone(), pki, config.clone(), tls));
        let instance = gateway.instance();
        audit.record(&Event::Started { role: "gateway", version: env!("CARGO_PKG_VERSION"), instance })?;
        Ok(Self { gateway, control, port, listeners, audit, tasks, drain: Drain::new(), served, authority, config })
    }

    /// Serves the admin API.
    ///
    /// # Errors
    /// `listen_failed`.
    pub async fn serve_admin(&self, state_dir: &Path) -> Result<(), Failure> {
        let live = Arc::new(Sessions(self.gateway.clone()));
        let (gateway, instance) = (self.config.gateway.id.clone(), self.gateway.instance());
        let api = Api { control: self.control.clone(), live, gateway, instance };
        ops::serve_admin(&admin_socket(state_dir), router(api), &self.drain, &self.tasks).await
    }

    /// Takes another configuration: listeners and tenants at once; yields what needs a restart.
    ///
    /// # Errors
    /// Whatever is wrong with it; nothing has changed then.
    pub fn reload(&mut self, config: GatewayConfig) -> Result<Vec<String>, Failure> {
        let old = &self.config;
        let restart = [
            changed("gateway", &old.gateway, &config.gateway),
            changed("enrollment", &old.enrollment, &config.enrollment),
            changed("clients", &old.clients, &config.clients),
            changed("limits", &old.limits, &config.limits),
            changed("drain", &old.drain, &config.drain),
            changed("audit", &old.audit, &config.audit),
            changed("metrics", &old.metrics, &config.metrics),
            changed("log", &old.log, &config.log),
        ];
        self.listeners = self.served.apply(&self.gateway, specs(&config.listeners, &self.authority)?)?;
        warn_of_clear_tokens(&config);
        self.gateway.table().limit(&tenants(&config));
        self.config.listeners = config.listeners;
        self.config.tenants = config.tenants;
        Ok(restart.concat())
    }

    /// Ends well: see [`Gateway::drain`].
    pub async fn end(&self) -> Drained {
        let drained = self.gateway.drain().await;
        self.stop().await;
        drained
    }

    async fn stop(&self) {
        self.drain.begin();
        self.tasks.abort().await;
        let code = None;
        let _ = self.audit.record(&Event::Stopped { role: "gateway", instance: self.gateway.instance(), code });
    }
}

/// A gateway's life as a service.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(place: &Place) -> Result<Exit, Failure> {
    tls::install_provider();
    let path = place.config(CONFIG);
    let config = config::load_gateway(&path)?;
    let _log = log::init(&config.log.settings())?;
    raise_descriptor_limit();
    limit_buffers();
    let metrics = metrics::install("gateway")?;
    let mut signals = Signals::listen()?;
    let audit = Audit::open(&config.audit.settings(&place.state_dir))?;
    let socket = bind(config.gateway.listen)?;
    let endpoints = config.gateway.endpoints.clone();
    let mut running = Running::start(config.clone(), &place.state_dir, audit, socket, endpoints).await?;
    running.serve_admin(&place.state_dir).await?;
    if let Some(MetricsSection { listen, allow_from }) = &config.metrics {
        let gateway = running.gateway.clone();
        let ready: ops::Readiness = Arc::new(move || gateway.ready());
        let allow = AllowFrom::only(allow_from.clone());
        let gateway = running.gateway.clone();
        let gauges: ops::Gauges = Arc::new(move || show_sessions(&gateway));
        ops::serve_metrics(*listen, allow, (metrics.clone(), gauges), ready, &running.drain, &running.tasks)?;
    }
    let audit = running.audit.clone();
    ops::keep_up(metrics, &running.tasks, move || audit.settle());
    let audit = running.audit.clone();
    running.tasks.spawn(async move { audit.release_held().await });
    tracing::info!(
        port = %running.port,
        listeners = running.listeners.len(),
        instance = %running.gateway.instance(),
        "gateway {} is ready",
        config.gateway.id
    );
    ready("serving");
    while signals.next().await == Wish::Reload {
        reload(&mut running, &path);
    }
    tracing::info!(seconds = config.drain.timeout.as_secs(), "shutting down: open streams may finish");
    let gateway = running.gateway.clone();
    let exit = signals.drain(async move { gateway.drain().await }).await;
    running.stop().await;
    Ok(exit)
}

fn reload(running: &mut Running, path: &Path) {
    let result = config::load_gateway(path).and_then(|config| {
        let restart = running.reload(config)?;
        Ok((format!("listeners: {}", running.listeners.len()), restart))
    });
    process::reloaded(result, path, &running.audit);
}

fn warn_of_clear_tokens(config: &GatewayConfig) {
    for listen in config.in_clear() {
        tracing::warn!(%listen, "this listener has no `tls`: clients show it their tokens in plain text");
    }
}

/// Renews the gateway's certificate in its last third and shows it from the next handshake on; raises the alarm before the
/// issuing CA ends.
async fn keep_certificate(authority: Arc<Authority>, pki: PathBuf, config: GatewayConfig, tls: Arc<GatewayTls>) {
    let mut tick = tokio::time::interval(RENEWAL_CHECK);
    let mut shown = None;
    loop {
        tick.tick().await;
        let now = OffsetDateTime::now_utc();
        let (id, endpoints) = (&config.gateway.id, &config.gateway.endpoints);
        let current = gateway_credential(&authority, &pki, id, endpoints, now)
            .and_then(|credential| tls.replace(&credential).map(|()| credential.identity().clone()));
        match current {
            Ok(identity) => {
                metrics::certificate_not_after("gateway", identity.not_after.unix_timestamp());
                if shown.replace(identity.serial).is_some_and(|before| before != identity.serial) {
                    tracing::info!(serial = %identity.serial, not_after = %identity.not_after, "the gateway's certificate was renewed");
                }
            }
            Err(failure) => tracing::error!(code = %failure.code, detail = %failure.detail, "the gateway's certificate"),
        }
        let issuing = authority.issuing_not_after();
        metrics::certificate_not_after("issuing", issuing.unix_timestamp());
        if issuing - now < ISSUER_ALARM {
            tracing::error!(code = %Code::IssuerExpiring, not_after = %issuing, "the issuing CA ends soon");
        }
    }
}

fn settings(config: &GatewayConfig) -> Settings {
    Settings {
        id: config.gateway.id.clone(),
        allow_from: AllowFrom::only(config.gateway.allow_from.clone()),
        enroll_from: AllowFrom::only(config.enrollment.allow_from.clone()),
        clients_from: AllowFrom::only(config.clients.allow_from.clone()),
        client_terms: Terms { entry: Entry::Connect, early_data: true, idle: config.clients.idle_timeout },
        proxy_from: AllowFrom::only(Some(config.gateway.proxy_protocol_from.clone())),
        caps: Caps { connections: config.limits.max_connections, handshakes: config.limits.max_handshakes },
        max_streams: config.limits.max_streams,
        max_lanes: config.limits.max_lanes,
        direct_address: config.gateway.direct_address.clone(),
        resume_window: config.gateway.resume_window,
        drain_timeout: config.drain.timeout,
    }
}

/// Loads what the listeners' files hold, as a start and a reload do. Without a PKI in the state directory nothing is said of `client_ca`.
///
/// # Errors
/// Whatever is wrong with them.
pub fn check_files(config: &GatewayConfig, state_dir: &Path) -> Result<(), Failure> {
    tls::install_provider();
    match Authority::load(&state_dir.join("pki")) {
        Ok(authority) => specs(&config.listeners, &authority).map(drop),
        Err(_) => config
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
            .try_for_each(|files| tls::listener_config(&files.cert, &files.key, None, &[]).map(drop)),
    }
}

fn specs(listeners: &[ListenerConfig], private: &Authority) -> Result<Vec<ListenerSpec>, Failure> {
    listeners.iter().map(|listener| spec(listener, private)).collect()
}

fn spec(listener: &ListenerConfig, private: &Authority) -> Result<ListenerSpec, Failure> {
    let clients = listener.client_ca.as_ref();
    // A listener that leads to one target asks for nothing else.
    let required = listener.kind == ListenerKind::Tcp;
    let client_ca = clients.map(|clients| ClientCa { file: &clients.file, required, private });
    let tls = listener.tls.as_ref();
    let protocols = if listener.kind == ListenerKind::Http { tls::ALPN_HTTP } else { &[] };
    let tls = tls.map(|files| tls::listener_config(&files.cert, &files.key, client_ca.as_ref(), protocols)).transpose()?;
    let entry = match (listener.kind, &listener.target) {
        (ListenerKind::Http, _) => Entry::Http(listener.base_domain.as_ref().map(|domain| domain.as_str().into())),
        (ListenerKind::Connect, _) => Entry::Connect,
        (ListenerKind::Socks5, _) => Entry::Socks5,
        (ListenerKind::Tcp, Some(target)) if clients.is_some() => Entry::Tcp(target.clone(), None),
        (ListenerKind::Tcp, Some(target)) => Entry::open(target.clone(), listener.listen),
        (ListenerKind::Tcp, None) => return Err(Failure::new(Code::ConfigInvalid, "a listener of kind tcp without a target")),
    };
    let certified = clients.iter().flat_map(|clients| &clients.names).map(|(name, client)| {
        let caller = Caller::new(format!("certificate {name}"), client.grants.clone(), limits(&client.limits));
        (name.clone(), Arc::new(caller))
    });
    Ok(ListenerSpec {
        listen: listener.listen,
        terms: Terms { entry, early_data: listener.early_data, idle: listener.idle_timeout },
        allow_from: AllowFrom::only(listener.allow_from.clone()),
        proxy_from: AllowFrom::only(Some(listener.proxy_protocol_from.clone())),
        tls,
        certified: certified.collect(),
        client_ca: client_ca.map(|clients| clients.hash()).transpose()?,
    })
}

/// A rate beyond 4 GiB/s is no limit that this process could reach.
fn limits(configured: &config::Limits) -> Limits {
    let rate = configured.rate.map(|rate| u32::try_from(rate).unwrap_or(u32::MAX)).and_then(NonZeroU32::new);
    Limits { max_streams: configured.max_streams, rate }
}

fn tenants(config: &GatewayConfig) -> HashMap<Name, Limits> {
    config.tenants.iter().map(|(name, tenant)| (name.clone(), limits(&tenant.limits))).collect()
}

/// What the sessions' lights show and whose identities several hold, for the metrics.
fn show_sessions(gateway: &Gateway) {
    metrics::duplicate_identities(gateway.registry().duplicates().len());
    let lights: Vec<_> = gateway.registry().sessions().iter().map(|live| live.lights()).collect();
    metrics::lights("tunnel", &lights.iter().map(|lights| lights.tunnel).collect::<Vec<_>>());
    metrics::lights("agent", &lights.iter().map(|lights| lights.agent.state).collect::<Vec<_>>());
    let targets = lights.iter().flat_map(|lights| lights.targets.values());
    metrics::lights("target", &targets.map(|light| light.state).collect::<Vec<_>>());
}

/// What control's lists show of sessions.
struct Sessions(Arc<Gateway>);

impl Live for Sessions {
    fn sessions(&self) -> Vec<LiveSession> {
        let (sessions, duplicates) = (self.0.registry().sessions(), self.0.registry().duplicates());
        let holders = |agent: &AgentId| duplicates.get(agent).into_iter().flatten();
        let shown = sessions.iter().map(|live| LiveSession {
            agent: live.agent.clone(),
            session: live.session,
            lights: live.lights(),
            since: live.since,
            peer: live.peer.to_string(),
            lanes: live.lanes.count(),
            streams: live.streams(),
            version: live.version.clone(),
            instance: live.instance,
            duplicate: holders(&live.agent).any(|holder| holder.instance == live.instance),
        });
        shown.collect()
    }
}
