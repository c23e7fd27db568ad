//! Control on a real store, a real authority and a real audit, each in a directory of its own.

mod agents;
mod clients;
mod disable;
mod enroll;
mod records_kept;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::*;
use crate::base::code::Code;
use crate::base::id::{AgentId, GroupId, Name};
use crate::base::secret::Secret;
use crate::gateway::issuer::{EnrollAsk, Enrolled};
use crate::observe::audit::{AuditSettings, OnFull};
use crate::pki::identity::Identity;
use crate::pki::pem;
use crate::pki::request::PrivateKey;
use crate::wire::token::EnrollmentToken;
use store::sqlite::Sqlite;

pub(super) const AUDIT_SIZE: u64 = 1 << 20;

/// A gateway's state directory and the control that works in it.
pub(super) struct Gateway {
    pub(super) dir: tempfile::TempDir,
    pub(super) control: Arc<Control>,
}

impl Gateway {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Authority::init(&dir.path().join("pki"), &"test.example".parse().unwrap(), OffsetDateTime::now_utc()).unwrap();
        Self { control: start(dir.path(), AUDIT_SIZE).await, dir }
    }

    /// Ends it, as a process ends, and starts it anew on what it left.
    pub(super) async fn restart(self, audit_size: u64) -> Self {
        let Self { dir, control } = self;
        drop(control);
        Self { control: start(dir.path(), audit_size).await, dir }
    }

    pub(super) async fn token(&self, text: &str) -> EnrollmentToken {
        let made = self.control.create_token(&group(text), None, &admin()).await.unwrap();
        EnrollmentToken::parse(made.token.expose()).unwrap()
    }

    /// Enrolls with a fresh token and a fresh key.
    pub(super) async fn enroll(&self, text: &str) -> Enrolled {
        let agent: AgentId = text.parse().unwrap();
        let token = self.token(&agent.group.to_string()).await;
        self.try_enroll(ask(&token, Some(agent.agent.as_str()))).await.unwrap()
    }

    /// A try that no other has slowed down.
    pub(super) async fn try_enroll(&self, ask: EnrollAsk) -> Result<Enrolled, Failure> {
        *self.control.throttle() = Throttle::new(crate::base::limits::ENROLL_PER_MINUTE, 100);
        self.control.enroll_at(ask, std::time::Instant::now(), OffsetDateTime::now_utc()).await
    }

    pub(super) async fn count<R: records::Record>(&self) -> usize {
        records::list::<R>(self.control.store()).await.unwrap().len()
    }

    pub(super) fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.dir.path().join("audit/audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(super) fn is_revoked(&self, serial: Serial) -> bool {
        self.control.parts.revocations.contains(&serial)
    }
}

async fn start(dir: &Path, audit_size: u64) -> Arc<Control> {
    let audit = AuditSettings { dir: dir.join("audit"), max_size: audit_size, on_full: OnFull::Refuse };
    let parts = Parts {
        store: Arc::new(Sqlite::open(&store_file(dir)).unwrap()),
        authority: Arc::new(Authority::load(&dir.join("pki")).unwrap()),
        revocations: Revocations::new(),
        callers: Callers::new(),
        audit: Audit::open(&audit).unwrap(),
        endpoints: vec!["wss://gw1.example:443".parse().unwrap()],
        certificate_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
    };
    Control::start(parts).await.unwrap()
}

pub(super) fn store_file(dir: &Path) -> PathBuf {
    dir.join("store.sqlite")
}

pub(super) fn admin() -> Caller {
    Caller::uid(1000)
}

pub(super) fn group(text: &str) -> GroupId {
    let (tenant, group) = text.split_once('/').unwrap();
    GroupId { tenant: Name::parse(tenant).unwrap(), group: Name::parse(group).unwrap() }
}

/// An ask with a fresh key.
pub(super) fn ask(token: &EnrollmentToken, wished: Option<&str>) -> EnrollAsk {
    ask_with(token, &PrivateKey::generate().unwrap(), wished)
}

pub(super) fn ask_with(token: &EnrollmentToken, key: &PrivateKey, wished: Option<&str>) -> EnrollAsk {
    EnrollAsk {
        secret: token.secret.encode(),
        csr: key.csr_der().unwrap(),
        agent: wished.map(|name| Name::parse(name).unwrap()),
        source: "192.0.2.1".parse().unwrap(),
    }
}

pub(super) fn identity(enrolled: &Enrolled) -> Identity {
    Identity::of_leaf(&pem::parse(enrolled.chain_pem.as_bytes()).unwrap()[0]).unwrap()
}

pub(super) fn code<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> Code {
    outcome.unwrap_err().code
}

pub(super) fn source(n: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, n])
}

pub(super) fn secret(text: &str) -> Secret {
    Secret::new(text)
}

/// What one operation logs; its store's thread excepted, which logs nothing.
pub(super) fn captured_log() -> (tracing::subscriber::DefaultGuard, Arc<Mutex<Vec<u8>>>) {
    #[derive(Clone)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // With one subscriber alone, `tracing` remembers for all threads that a line is of no interest when another test's thread,
    // which has none, comes by it first. A second one, kept for good, makes it ask every time.
    static SECOND: std::sync::OnceLock<tracing::Dispatch> = std::sync::OnceLock::new();
    SECOND.get_or_init(|| {
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::sink).finish().into()
    });
    let buffer = Arc::new(Mutex::new(Vec::new()));
    let writer = Buffer(Arc::clone(&buffer));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (tracing::subscriber::set_default(subscriber), buffer)
}
