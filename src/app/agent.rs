//! An agent process: `enroll` gets its identity, `Running` is it at work, `run` is its life as a service.
//! It refuses to know how commands are written and answers printed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::memory::limit_buffers;
use super::process::{Signals, Wish, changed, raise_descriptor_limit, ready};
use super::targets::policy;
use super::{Place, ops, process};
use crate::agent::enroll::{Enrollment, enroll as redeem};
use crate::agent::floor::Floor;
use crate::agent::link::CredentialFiles;
use crate::agent::status::LinkStatus;
use crate::agent::{Agent, Settings};
use crate::base::allow::AllowFrom;
use crate::base::code::{Code, Exit, Failure, OrFail};
use crate::base::drain::{Drain, Drained};
use crate::base::endpoint::Endpoint;
use crate::base::files;
use crate::base::id::{AgentId, Name};
use crate::base::light::{Light, Reach};
use crate::base::tasks::Tasks;
use crate::config::{self, AgentConfig, MetricsSection};
use crate::observe::audit::{Audit, Event};
use crate::observe::{log, metrics};
use crate::pki::renew::pending_key;
use crate::pki::request::PrivateKey;
use crate::pki::{pem, tls};
use crate::tunnel::dial::Egress;
use crate::wire::token::EnrollmentToken;

/// The configuration's name in the state directory.
pub const CONFIG: &str = "agent.yaml";

/// The path of the status on the admin socket.
pub const STATUS: &str = "/v1/status";

/// The admin socket of an agent.
#[must_use]
pub fn admin_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.sock")
}

/// Where an agent's identity lies.
#[must_use]
pub fn credential_files(state_dir: &Path) -> CredentialFiles {
    let file = |name: &str| state_dir.join(name);
    CredentialFiles { certificate: file("agent.pem"), key: file("agent.key"), root: file("root.pem") }
}

/// What enrollment made.
#[derive(Debug)]
pub struct Enrolled {
    /// Who the agent is.
    pub agent: AgentId,
    /// When its certificate ends.
    pub not_after: OffsetDateTime,
    /// The configuration file.
    pub config: PathBuf,
    /// Whether that was written now, or was there and kept.
    pub config_written: bool,
}

/// Redeems a token: key, certificate, root and a minimal configuration in the state directory. Doing it again with a fresh token
/// replaces the certificate and keeps the configuration.
///
/// # Errors
/// As [`redeem`], and what files report; the token is not used up by anything that fails on this side.
pub async fn enroll(place: &Place, token: &EnrollmentToken, name: Option<&Name>, egress: &Egress) -> Result<Enrolled, Failure> {
    tls::install_provider();
    files::create_private_dir(&place.state_dir)?;
    let files = credential_files(&place.state_dir);
    // The key is kept before it is used: should the answer be lost, the same key gets the same certificate.
    let key = PrivateKey::load_or_generate(&pending_key(&files.key))?;
    let Enrollment { credential, agent, root, endpoints } = redeem(token, key, name, egress).await?;
    pem::save(&files.root, [&root])?;
    let config = place.config(CONFIG);
    let config_written = config.symlink_metadata().is_err();
    if config_written {
        files::write_private(&config, starter(&endpoints).as_bytes())?;
    }
    // Last: with it the key is in force, and nobody could repeat what failed behind it.
    credential.save(&files.certificate, &files.key)?;
    Ok(Enrolled { agent, not_after: credential.identity().not_after, config, config_written })
}

fn starter(endpoints: &[Endpoint]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    format!(
        "# The agent. Every key is in the README; `underpass agent check` shows them with their defaults.
version: 1
gateway: {{endpoints: [{}]}}

# What the gateway may reach through this agent, by name: nothing else. SIGHUP reloads this list.
targets: {{}}
#  sales-db: {{kind: tcp, address: \"pg1.corp.example:5432\"}}
",
        endpoints.join(", ")
    )
}

/// An agent at work.
pub struct Running {
    /// The data plane.
    pub agent: Arc<Agent>,
    /// Who it is.
    pub id: AgentId,
    credential: CredentialFiles,
    audit: Audit,
    drain: Drain,
    tasks: Tasks,
    ops: Tasks,
    config: AgentConfig,
}

impl Running {
    /// Starts dialling.
    ///
    /// # Errors
    /// Whatever keeps it from starting, with nothing left running.
    pub fn start(config: AgentConfig, state_dir: &Path, audit: Audit) -> Result<Self, Failure> {
        let credential = credential_files(state_dir);
        let identity = credential.load()?.identity().clone();
        let id = identity.agent().cloned().ok_or_else(|| Failure::new(Code::StateInvalid, "the certificate is no agent's"))?;
        let settings = Settings {
            endpoints: config.gateway.endpoints.clone(),
            egress: egress(&config)?,
            credential: credential.clone(),
            agent: id.clone(),
            max_streams: config.limits.max_streams,
            drain_timeout: config.drain.timeout,
            floor: Floor::new(config.metrics.iter().map(|metrics| metrics.listen).collect()),
        };
        let (drain, tasks) = (Drain::new(), Tasks::new());
        let agent = Agent::new(settings, policy(&config)?, audit.clone(), drain.clone(), tasks.clone());
        let instance = agent.instance();
        audit.record(&Event::Started { role: "agent", version: env!("CARGO_PKG_VERSION"), instance })?;
        agent.start();
        Ok(Self { agent, id, credential, audit, drain, tasks, ops: Tasks::new(), config })
    }

    /// Serves the status.
    ///
    /// # Errors
    /// `listen_failed`.
    pub async fn serve_admin(&self, state_dir: &Path) -> Result<(), Failure> {
        let (agent, id, credential) = (self.agent.clone(), self.id.clone(), self.credential.clone());
        let answer = move || async move { Json(status(&agent, &id, &credential)) };
        let router = Router::new().route(STATUS, get(answer));
        ops::serve_admin(&admin_socket(state_dir), router, &Drain::new(), &self.ops).await
    }

    /// Takes another configuration: targets at once; yields what needs a restart.
    ///
    /// # Errors
    /// What the files of its targets report; all stays as it was then.
    pub fn reload(&mut self, config: AgentConfig) -> Result<Vec<String>, Failure> {
        let policy = policy(&config)?;
        let old = &self.config;
        let restart = [
            changed("gateway", &old.gateway, &config.gateway),
            changed("proxy", &old.proxy, &config.proxy),
            changed("limits", &old.limits, &config.limits),
            changed("drain", &old.drain, &config.drain),
            changed("audit", &old.audit, &config.audit),
            changed("metrics", &old.metrics, &config.metrics),
            changed("log", &old.log, &config.log),
        ];
        self.agent.reload(policy);
        self.config.targets = config.targets;
        Ok(restart.concat())
    }

    /// Ends well: gateways told, streams given their time.
    pub async fn end(&self) -> Drained {
        let drained = self.drain.finish(&self.tasks, self.config.drain.timeout).await;
        self.stop().await;
        drained
    }

    async fn stop(&self) {
        self.tasks.abort().await;
        self.ops.abort().await;
        let code = None;
        let _ = self.audit.record(&Event::Stopped { role: "agent", instance: self.agent.instance(), code });
    }
}

/// An agent's life as a service.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(place: &Place) -> Result<Exit, Failure> {
    tls::install_provider();
    let path = place.config(CONFIG);
    credential_files(&place.state_dir).load()?;
    let config = config::load_agent(&path)?;
    let _log = log::init(&config.log.settings())?;
    raise_descriptor_limit();
    limit_buffers();
    let metrics = metrics::install("agent")?;
    let mut signals = Signals::listen()?;
    let audit = Audit::open(&config.audit.settings(&place.state_dir))?;
    let mut running = Running::start(config.clone(), &place.state_dir, audit)?;
    running.serve_admin(&place.state_dir).await?;
    if let Some(MetricsSection { listen, allow_from }) = &config.metrics {
        let agent = running.agent.clone();
        let ready: ops::Readiness = Arc::new(move || is_ready(&agent));
        let allow = AllowFrom::only(allow_from.clone());
        let agent = running.agent.clone();
        let gauges: ops::Gauges = Arc::new(move || show_links(&agent));
        ops::serve_metrics(*listen, allow, (metrics.clone(), gauges), ready, &running.drain, &running.ops)?;
    }
    ops::keep_up(metrics, &running.ops, || {});
    let audit = running.audit.clone();
    running.ops.spawn(async move { audit.release_held().await });
    tracing::info!(targets = config.targets.len(), "agent {} is running", running.id);
    ready("running");
    while signals.next().await == Wish::Reload {
        reload(&mut running, &path);
    }
    tracing::info!(seconds = config.drain.timeout.as_secs(), "shutting down: open streams may finish");
    let (drain, tasks) = (running.drain.clone(), running.tasks.clone());
    let exit = signals.drain(async move { drain.finish(&tasks, config.drain.timeout).await }).await;
    running.stop().await;
    Ok(exit)
}

/// What the links and the targets' lights show, for the metrics.
fn show_links(agent: &Agent) {
    for (endpoint, age) in agent.board().ages() {
        metrics::last_frame_age(&endpoint.to_string(), age);
    }
    metrics::lights("tunnel", &agent.board().links().iter().map(|link| link.tunnel).collect::<Vec<_>>());
    metrics::lights("target", &agent.policy().targets().map(|target| target.lamp().light().state).collect::<Vec<_>>());
}

fn is_ready(agent: &Agent) -> Result<(), Failure> {
    if agent.board().connected() {
        return Ok(());
    }
    let why = agent.board().links().into_iter().find_map(|link| link.last_error);
    Err(match why {
        Some(error) => Failure::new(error.code.parse().unwrap_or(Code::Internal), error.detail),
        None => Failure::new(Code::SessionLost, "no session yet"),
    })
}

fn reload(running: &mut Running, path: &Path) {
    let result = config::load_agent(path).and_then(|config| {
        let restart = running.reload(config)?;
        Ok((format!("targets: {}", running.agent.policy().targets().count()), restart))
    });
    process::reloaded(result, path, &running.audit);
}

/// How the agent leaves its site: as `proxy` says, else as the environment does.
///
/// # Errors
/// What resolving the password reports.
pub fn egress(config: &AgentConfig) -> Result<Egress, Failure> {
    let Some(proxy) = &config.proxy else { return Ok(Egress::from_environment()) };
    let password = proxy.password.as_ref().map(|reference| reference.resolve()).transpose()?;
    let login = proxy.username.as_deref().zip(password.as_ref());
    Ok(Egress::through(&proxy.url.0, &proxy.no_proxy, login))
}

/// What `underpass agent status` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    /// `tenant/group/agent`.
    pub agent: String,
    /// The program's version.
    pub version: String,
    /// Its certificate.
    pub certificate: CertificateStatus,
    /// One for each endpoint.
    pub sessions: Vec<LinkStatus>,
    /// Open streams, over all sessions.
    pub streams: usize,
    /// What the configuration permits.
    pub targets: Vec<TargetStatus>,
}

/// The agent's certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Its serial.
    pub serial: String,
    /// When it ends.
    pub not_after: String,
    /// `certificate_expiring` in its last third, `certificate_expired` after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// One target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// What is spoken with it.
    pub kind: String,
    /// Where it is.
    pub address: String,
    /// Open streams.
    pub streams: usize,
    /// How many there may be.
    pub max_streams: usize,
    /// How the last attempt at it went, over all sessions.
    pub light: Light<Reach>,
}

fn status(agent: &Agent, id: &AgentId, credential: &CredentialFiles) -> AgentStatus {
    let targets = agent.policy();
    let targets = targets.targets().map(|target| TargetStatus {
        name: target.name.to_string(),
        kind: target.spec.service.kind().to_string(),
        address: target.spec.address.to_string(),
        streams: target.streams(),
        max_streams: target.spec.limits.max_streams,
        light: target.lamp().light(),
    });
    AgentStatus {
        agent: id.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        certificate: certificate(credential).unwrap_or_else(|failure| CertificateStatus {
            serial: String::new(),
            not_after: String::new(),
            warning: Some(failure.to_string()),
        }),
        sessions: agent.board().links(),
        streams: agent.streams(),
        targets: targets.collect(),
    }
}

fn certificate(files: &CredentialFiles) -> Result<CertificateStatus, Failure> {
    let credential = files.load()?;
    let (identity, now) = (credential.identity(), OffsetDateTime::now_utc());
    let warning = if identity.not_after < now {
        Some(Code::CertificateExpired)
    } else {
        Some(Code::CertificateExpiring).filter(|_| credential.in_last_third(now))
    };
    Ok(CertificateStatus {
        serial: identity.serial.to_string(),
        not_after: identity.not_after.format(&Rfc3339).or_fail(Code::Internal, "writing a time")?,
        warning: warning.map(|code| code.to_string()),
    })
}
