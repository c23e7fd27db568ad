//! The audit: who did what to what, with which result, one JSON object a line, in the order in which it happened.
//! Owns the events and their form. Refuses to know who decides, and what a metric or a log is for.
//!
//! A row is handed to the operating system before [`Audit::record`] returns: it outlives the process, even one that is killed
//! right after. It is not forced to the disk; a power failure may take the last seconds. Rows of requests alone, of which there are
//! thousands a second, are written together: by [`Audit::release_held`] at the latest, or before the next row of another kind.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize, Serializer};
use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast};

use super::{json, metrics};
use crate::base::code::{Code, Failure};
use crate::base::grant::Grants;
use crate::base::id::{AgentId, InstanceId, Name, RequestId, SessionId, is_plain, printable};
use crate::base::light::Serving;
use crate::base::limits;
use crate::base::scope::Scope;

mod noise;
mod trail;

use noise::Noise;
pub use noise::{Noisy, Who};
use trail::Trail;

/// Rows that an observer may be behind; it loses older ones.
const OBSERVED: usize = 1024;

/// Where audit rows go. Clones write to the same files.
#[derive(Clone)]
pub struct Audit {
    files: Option<Arc<Mutex<Files>>>,
    /// Told when rows begin to be held.
    holds: Arc<Notify>,
    observers: Option<broadcast::Sender<Arc<str>>>,
}

/// Where the audit lives and how much it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The directory; made if missing, with mode 0700.
    pub dir: PathBuf,
    /// All files together, in bytes.
    pub max_size: u64,
    /// What happens when there is no more room, here or on the disk.
    pub on_full: OnFull,
}

/// What happens when a row cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// The work that it would record is refused with `audit_full`.
    Refuse,
    /// The oldest file is deleted; a row that cannot be written even so is dropped. Both are counted.
    Drop,
}

struct Files {
    trail: Trail,
    noise: Noise,
}

impl Audit {
    /// Opens the audit, and mends what a crash has left: a row without its end is removed.
    ///
    /// # Errors
    /// `file_permissions` if others can write to the directory; `state_unwritable` if it cannot be made; `audit_full` if the
    /// active file cannot be opened or is a symbolic link.
    pub fn open(settings: &AuditSettings) -> Result<Self, Failure> {
        let now = Instant::now();
        let files = Files { trail: Trail::open(settings, now)?, noise: Noise::new(now) };
        Ok(Self { files: Some(Arc::new(Mutex::new(files))), holds: Arc::default(), observers: None })
    }

    /// An audit that keeps nothing.
    #[must_use]
    pub fn discard() -> Self {
        Self { files: None, holds: Arc::default(), observers: None }
    }

    /// The same audit, and its rows as they are written (without the line feed). Clones made before don't show theirs.
    #[must_use]
    pub fn observed(self) -> (Self, broadcast::Receiver<Arc<str>>) {
        let (sender, receiver) = broadcast::channel(OBSERVED);
        (Self { observers: Some(sender), ..self }, receiver)
    }

    /// Writes a row. Blocks for one `write`. What somebody may cause without end is kept short: see [`Audit::limited`].
    ///
    /// # Errors
    /// `audit_full` with [`OnFull::Refuse`], if the row could not be written. The caller then refuses the work.
    pub fn record(&self, event: &Event<'_>) -> Result<(), Failure> {
        if let Some(who) = event.cause() {
            self.noise(event, &who);
            return Ok(());
        }
        let Some(files) = &self.files else {
            self.show(&Self::row(event));
            return Ok(());
        };
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        self.tell_noise(&mut files, now, matches!(event, Event::Stopped { .. }));
        if let Event::Request { caller, .. } = event
            && files.trail.is_half_full()
        {
            // A caller makes as many as it likes: they stop nobody else's work, whose rows have the other half.
            files.noise.count(&Who::caller(caller));
            metrics::audit_suppressed();
            return Ok(());
        }
        if matches!(event, Event::Reauthorised { .. }) && files.trail.is_half_full() {
            // They come every minute and say that nothing has changed.
            metrics::audit_suppressed();
            return Ok(());
        }
        self.write(&mut files, event, now)
    }

    /// Records what somebody may cause without end, a refusal or a broken lane: one row each for some of one source, caller or
    /// agent a minute, and for not many of all; what is beyond that is counted, and told in one row with the next one after the
    /// minute. Yields whether it is one of these: the log, too, is to tell of them alone. What happened stands whether or not its row
    /// can be kept; while the audit is half full none is.
    pub fn limited(&self, event: &Event<'_>) -> bool {
        match event.cause() {
            Some(who) => self.noise(event, &who),
            None => self.record(event).is_ok(),
        }
    }

    fn noise(&self, event: &Event<'_>, who: &Who) -> bool {
        let Some(files) = &self.files else {
            self.show(&Self::row(event));
            return true;
        };
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        self.tell_noise(&mut files, now, false);
        let told = files.noise.admit(who, now);
        // While rows cannot be kept, each one of a caller's tries whether there is room again: somebody waits for that.
        let tries = files.trail.ready().is_err() && matches!(who, Who::Caller(_));
        let kept = (tries || told && !files.trail.is_half_full()) && self.write(&mut files, event, now).is_ok();
        if !kept {
            files.noise.count(who);
            metrics::audit_suppressed();
        }
        told
    }

    /// Tells what was counted in a minute that is over, also if nothing else happens.
    pub fn settle(&self) {
        if let Some(files) = &self.files {
            self.tell_noise(&mut files.lock().unwrap_or_else(PoisonError::into_inner), Instant::now(), false);
        }
    }

    /// Writes what was counted in the minute before, or up to now. What can't be written is not forgotten.
    fn tell_noise(&self, files: &mut Files, now: Instant, at_once: bool) {
        let Some((count, most)) = files.noise.take(now, at_once) else { return };
        tracing::warn!(count, "more refusals and broken lanes than are told one by one; the audit says whose");
        if files.trail.is_half_full() || self.write(files, &Event::Suppressed { count, most: &most }, now).is_err() {
            files.noise.count_again(count);
        }
    }

    /// Whether work may begin that will have to be recorded: the last row could be written, or need not be. Every row tried
    /// since, that of a refusal too, finds out whether there is room again.
    ///
    /// # Errors
    /// `audit_full` with [`OnFull::Refuse`].
    pub fn ready(&self) -> Result<(), Failure> {
        match &self.files {
            Some(files) => files.lock().unwrap_or_else(PoisonError::into_inner).trail.ready(),
            None => Ok(()),
        }
    }

    /// Writes the rows of requests that are held, [`limits::AUDIT_HOLD`] after the first of them. Runs until it is dropped.
    pub async fn release_held(&self) {
        loop {
            self.holds.notified().await;
            tokio::time::sleep(limits::AUDIT_HOLD).await;
            if let Some(files) = &self.files {
                // Who asks next is told whether rows can be kept.
                let _ = files.lock().unwrap_or_else(PoisonError::into_inner).trail.release(Instant::now());
            }
        }
    }

    /// The row is made under the lock, so that times grow from row to row.
    fn write(&self, files: &mut Files, event: &Event<'_>, now: Instant) -> Result<(), Failure> {
        let row = Self::row(event);
        if matches!(event, Event::Request { .. }) {
            let held = files.trail.holds();
            files.trail.hold(&row, now)?;
            if !held && files.trail.holds() {
                self.holds.notify_one();
            }
        } else {
            files.trail.append(&row, now)?;
        }
        self.show(&row);
        Ok(())
    }

    fn row(event: &Event<'_>) -> Vec<u8> {
        json::line(&Row { time: json::rfc3339(OffsetDateTime::now_utc()), event })
    }

    fn show(&self, row: &[u8]) {
        if let Some(observers) = &self.observers {
            let text = String::from_utf8_lossy(row);
            // Nobody listening is no error.
            let _ = observers.send(text.trim_end().into());
        }
    }
}

#[derive(Serialize)]
struct Row<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// What happened. Ids and names are written as text, times as RFC 3339 in UTC, sizes in bytes.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are named for what they hold")]
pub enum Event<'a> {
    /// The process has begun to serve.
    Started { role: &'a str, version: &'a str, instance: InstanceId },
    /// The process ends; `code` says why if not by a clean stop.
    Stopped { role: &'a str, instance: InstanceId, code: Option<Code> },
    /// An agent got its certificate; `repeated` if it was one that had been issued before.
    Enrolled {
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        serial: &'a str,
        #[serde(serialize_with = "utc")]
        not_after: OffsetDateTime,
        source: IpAddr,
        repeated: bool,
    },
    /// An enrollment was refused.
    EnrollRefused {
        code: Code,
        #[serde(serialize_with = "capped")]
        detail: &'a str,
        source: IpAddr,
    },
    /// A session was established; `peer` is the other side's address.
    Connected {
        session: SessionId,
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        serial: &'a str,
        #[serde(serialize_with = "capped")]
        peer: &'a str,
    },
    /// A session ended.
    Disconnected {
        session: SessionId,
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        code: Code,
        #[serde(serialize_with = "capped")]
        detail: &'a str,
    },
    /// What a session was granted on still holds: the certificate, until then, and what was published and configured since. `policy` counts
    /// the agent's own configurations (known there alone).
    Reauthorised {
        session: SessionId,
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        serial: &'a str,
        #[serde(serialize_with = "utc")]
        until: OffsetDateTime,
        #[serde(skip_serializing_if = "Option::is_none")]
        policy: Option<u64>,
    },
    /// The agent has stopped answering canaries, or answers them again; `code` and `detail` say why not.
    AgentLight {
        session: SessionId,
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        state: Serving,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
        #[serde(serialize_with = "optional_capped", skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    },
    /// A session got a further lane; `peer` is the other side's address.
    LaneOpened {
        session: SessionId,
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        lane: u32,
        #[serde(serialize_with = "capped")]
        peer: &'a str,
    },
    /// So many processes have held one agent's identity together for a while; the eldest session of each, the first few.
    DuplicateIdentity {
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        instances: usize,
        sessions: &'a [Holder],
    },
    /// A further lane ended; `code` is absent when it was closed in good order.
    LaneClosed {
        session: SessionId,
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        lane: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
        #[serde(serialize_with = "optional_capped", skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    },
    /// A lane's connection broke, and the lane waits for another.
    LaneBroken {
        session: SessionId,
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        lane: u32,
        code: Code,
        #[serde(serialize_with = "capped")]
        detail: &'a str,
    },
    /// A lane went on with another connection: the agent's attempt of this number, with this certificate, after so many milliseconds without one.
    LaneResumed {
        session: SessionId,
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        lane: u32,
        generation: u64,
        serial: &'a str,
        #[serde(serialize_with = "capped")]
        peer: &'a str,
        paused_ms: u64,
    },
    /// A connection did not become a session or a lane of one.
    ConnectRefused {
        source: IpAddr,
        code: Code,
        #[serde(serialize_with = "capped")]
        detail: &'a str,
    },
    /// A stream was opened; `address` is the target's as connected to (known on the agent alone).
    Opened {
        request: RequestId,
        session: SessionId,
        #[serde(serialize_with = "capped")]
        target: &'a str,
        #[serde(serialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
        agent: Option<&'a AgentId>,
        #[serde(serialize_with = "capped")]
        caller: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<SocketAddr>,
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
    },
    /// A stream was refused.
    Refused {
        request: RequestId,
        #[serde(serialize_with = "capped")]
        target: &'a str,
        #[serde(serialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
        agent: Option<&'a AgentId>,
        #[serde(serialize_with = "capped")]
        caller: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<SocketAddr>,
        code: Code,
        #[serde(serialize_with = "capped")]
        detail: &'a str,
    },
    /// A stream ended; `up` are the bytes from client to target, `code` is absent after an orderly end.
    Closed {
        request: RequestId,
        #[serde(serialize_with = "capped")]
        target: &'a str,
        up: u64,
        down: u64,
        millis: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
    },
    /// A request over a stream has its answer: its status, or `code` and `detail` if Underpass refused it or it broke off; `path` is without the
    /// query; `source` is known where the client's connection is.
    Request {
        request: RequestId,
        #[serde(skip_serializing_if = "Option::is_none")]
        stream: Option<RequestId>,
        #[serde(serialize_with = "capped")]
        target: &'a str,
        #[serde(serialize_with = "capped")]
        caller: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<SocketAddr>,
        #[serde(serialize_with = "capped")]
        method: &'a str,
        #[serde(serialize_with = "capped")]
        path: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
        #[serde(serialize_with = "optional_capped", skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
        up: u64,
        down: u64,
        millis: u64,
    },
    /// An agent's certificates were revoked.
    Revoked {
        #[serde(serialize_with = "text")]
        agent: &'a AgentId,
        serials: &'a [String],
        by: &'a str,
    },
    /// Agents are not let in any more, and their sessions have ended: one, a group's or a tenant's.
    AgentsDisabled {
        #[serde(serialize_with = "text")]
        scope: &'a Scope,
        by: &'a str,
    },
    /// They are let in again.
    AgentsEnabled {
        #[serde(serialize_with = "text")]
        scope: &'a Scope,
        by: &'a str,
    },
    /// An enrollment token was made; `token` is its public id, never the secret.
    TokenCreated {
        tenant: &'a Name,
        group: &'a Name,
        token: &'a str,
        #[serde(serialize_with = "utc")]
        expires: OffsetDateTime,
        by: &'a str,
    },
    /// A client token was made; `token` is its public id, never the text.
    ClientTokenCreated {
        token: &'a str,
        name: &'a Name,
        grants: &'a Grants,
        #[serde(serialize_with = "optional_utc", skip_serializing_if = "Option::is_none")]
        expires: Option<OffsetDateTime>,
        by: &'a str,
    },
    /// A client token was revoked.
    ClientTokenRevoked { token: &'a str, name: &'a Name, by: &'a str },
    /// An administrator asked for something; what came of it follows.
    Asked {
        op: &'a str,
        #[serde(serialize_with = "capped")]
        on: &'a str,
        by: &'a str,
    },
    /// What an administrator asked for was not done.
    Failed {
        op: &'a str,
        #[serde(serialize_with = "capped")]
        on: &'a str,
        by: &'a str,
        code: Code,
        #[serde(serialize_with = "capped")]
        detail: &'a str,
    },
    /// A new configuration is in force.
    Reloaded { what: &'a str },
    /// A new configuration was wrong; the old one stays in force.
    ReloadRefused {
        #[serde(serialize_with = "capped")]
        detail: &'a str,
    },
    /// So many rows of refusals and broken lanes were not written one by one, and the sources, callers and agents of most of them.
    Suppressed { count: u64, most: &'a [Noisy] },
}

/// A session, whose process it is, and where that is.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are named for what they hold")]
pub struct Holder {
    pub session: SessionId,
    pub instance: InstanceId,
    pub peer: SocketAddr,
}

impl Event<'_> {
    /// Who can cause it at will, if anybody can.
    fn cause(&self) -> Option<Who> {
        match self {
            Self::EnrollRefused { source, .. } | Self::ConnectRefused { source, .. } => Some(Who::source(*source)),
            Self::Refused { code: Code::SourceDenied, source: Some(source), .. } => Some(Who::source(source.ip())),
            Self::Refused { caller, .. } | Self::Request { caller, code: Some(_), .. } => Some(Who::caller(caller)),
            // Whoever can cut its connection can cause these, too.
            Self::LaneBroken { agent, .. } | Self::LaneResumed { agent, .. } => Some(Who::Agent(agent.to_string())),
            _ => None,
        }
    }
}

fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn optional_text<S: Serializer>(value: &Option<impl Display>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn utc<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&json::rfc3339(*time))
}

fn optional_utc<S: Serializer>(time: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.as_ref().map(|time| json::rfc3339(*time)).serialize(serializer)
}

fn capped<S: Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if value.len() <= limits::AUDIT_TEXT && is_plain(value) {
        return serializer.serialize_str(value);
    }
    serializer.serialize_str(&printable(value, limits::AUDIT_TEXT))
}

fn optional_capped<S: Serializer>(value: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    capped(value.unwrap_or_default(), serializer)
}

#[cfg(test)]
mod tests;
