//! The enrolled agents: listing and revoking them. Refuses to know how live sessions are cut: it publishes what is revoked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::disable::{DisabledScope, disabled_of};
use super::op::{Caller, Op};
use super::records::{self, Agent, Record, Revocation, SerialRecord, Stored};
use super::store::{CommitError, Expect};
use super::{ATTEMPTS, Control, text};
use crate::base::code::{Code, Failure};
use crate::base::id::{AgentId, InstanceId, SessionId};
use crate::base::light::{Lights, Tunnel};
use crate::base::scope::Scope;
use crate::observe::audit::Event;
use crate::pki::identity::Serial;

/// What the gateway knows of sessions, for control's lists.
pub trait Live: Send + Sync + 'static {
    /// Every session of this instance, in any order.
    fn sessions(&self) -> Vec<LiveSession>;
}

/// One live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSession {
    /// Whose it is.
    #[serde(with = "text")]
    pub agent: AgentId,
    /// Its id.
    pub session: SessionId,
    /// Whether it stands, whether its agent answers, and which targets were reached.
    pub lights: Lights,
    /// Since when it lives.
    #[serde(with = "text::utc")]
    pub since: OffsetDateTime,
    /// The agent's address as the gateway sees it.
    pub peer: String,
    /// Connections that carry it.
    pub lanes: usize,
    /// Open streams.
    pub streams: usize,
    /// The agent's program version.
    pub version: String,
    /// The agent's process.
    pub instance: InstanceId,
    /// Whether another process holds the same identity (`duplicate_identity`).
    pub duplicate: bool,
}

/// The agents whose identity several processes hold, with how many.
#[must_use]
pub fn duplicates(sessions: &[LiveSession]) -> BTreeMap<&AgentId, usize> {
    let mut held: BTreeMap<&AgentId, BTreeSet<InstanceId>> = BTreeMap::new();
    for session in sessions.iter().filter(|session| session.duplicate) {
        held.entry(&session.agent).or_default().insert(session.instance);
    }
    held.into_iter().map(|(agent, instances)| (agent, instances.len())).collect()
}

/// One enrolled agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// `tenant/group/agent`.
    #[serde(with = "text")]
    pub agent: AgentId,
    /// Its latest certificate.
    pub serial: Serial,
    /// When that was issued.
    #[serde(with = "text::utc")]
    pub enrolled: OffsetDateTime,
    /// When that ends.
    #[serde(with = "text::utc")]
    pub not_after: OffsetDateTime,
    /// When all its certificates were revoked, if they were.
    #[serde(with = "text::optional_utc", default)]
    pub revoked: Option<OffsetDateTime>,
    /// What it is disabled by, if it is: its tenant, its group, itself, the widest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<DisabledScope>,
    /// The best that its sessions with this gateway are.
    pub tunnel: Tunnel,
    /// Its sessions with this gateway; without any it is down, here.
    pub sessions: Vec<LiveSession>,
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedAgent {
    /// Who was revoked.
    #[serde(with = "text")]
    pub agent: AgentId,
    /// The certificates that count no more.
    pub serials: Vec<Serial>,
    /// Whether the audit has it. Revoking is done even if the audit is full and otherwise refuses work.
    pub audited: bool,
}

impl Control {
    /// Every enrolled agent, in the order of their names.
    ///
    /// # Errors
    /// `store_failed`.
    pub async fn agents(&self, live: &dyn Live) -> Result<Vec<AgentInfo>, Failure> {
        let agents = records::list::<Agent>(self.store()).await?;
        let serials = records::list::<SerialRecord>(self.store()).await?;
        let serials: HashMap<_, _> = serials.into_iter().map(|stored| (stored.record.serial, stored.record)).collect();
        let mut sessions: HashMap<AgentId, Vec<LiveSession>> = HashMap::new();
        for session in live.sessions() {
            sessions.entry(session.agent.clone()).or_default().push(session);
        }
        let disabled = self.disabled.lock().await.clone();
        // An agent without its certificate's record was enrolled between the two reads; the next list has it.
        let known = agents.into_iter().filter_map(|Stored { record: Agent { id, serial, revoked, .. }, .. }| {
            let certificate = serials.get(&serial)?;
            let sessions = sessions.remove(&id).unwrap_or_default();
            Some(AgentInfo {
                disabled: disabled_of(Scope::all_of(&id).into_iter().rev(), &disabled),
                tunnel: sessions.iter().map(|session| session.lights.tunnel).min().unwrap_or(Tunnel::Down),
                sessions,
                agent: id,
                serial,
                enrolled: certificate.issued,
                not_after: certificate.not_after,
                revoked,
            })
        });
        Ok(known.collect())
    }

    /// Revokes every certificate of an agent: the published set has them when this returns. Revoking twice is no error.
    ///
    /// # Errors
    /// `agent_unknown`; `store_failed`, then nothing is revoked.
    pub async fn revoke(&self, agent: &AgentId, caller: &Caller) -> Result<RevokedAgent, Failure> {
        let op = Op { name: "agents revoke", on: agent.to_string(), caller };
        let begun = op.begin(self);
        let outcome = self.revoke_serials(agent, caller, OffsetDateTime::now_utc()).await;
        let mut audited = begun.is_ok();
        let serials = op.end(self, outcome, |serials, control| {
            let texts: Vec<_> = serials.iter().map(Serial::to_string).collect();
            tracing::info!(%agent, serials = ?texts, by = caller.by, "revoked");
            let recorded = control.parts.audit.record(&Event::Revoked { agent, serials: &texts, by: &caller.by });
            audited = audited && recorded.is_ok();
            Ok(())
        })?;
        if !audited {
            tracing::error!(%agent, by = caller.by, "revoked, but the audit has no record of it");
        }
        Ok(RevokedAgent { agent: agent.clone(), serials, audited })
    }

    async fn revoke_serials(&self, id: &AgentId, caller: &Caller, now: OffsetDateTime) -> Result<Vec<Serial>, Failure> {
        for _ in 0..ATTEMPTS {
            let agent = records::get::<Agent>(self.store(), id.to_string()).await?;
            let agent = agent.ok_or_else(|| Failure::new(Code::AgentUnknown, format_args!("`{id}`")))?;
            let serials: Vec<_> = agent.record.serials().collect();
            // The agent's record is part of the batch, so that a certificate issued at the same moment is not missed.
            let mut batch =
                vec![Agent { revoked: agent.record.revoked.or(Some(now)), ..agent.record.clone() }.put(agent.unchanged())];
            for serial in &serials {
                if records::get::<Revocation>(self.store(), serial.to_string()).await?.is_some() {
                    continue;
                }
                let Some(issued) = records::get::<SerialRecord>(self.store(), serial.to_string()).await? else { continue };
                let not_after = issued.record.not_after;
                let revocation = Revocation { serial: *serial, agent: id.clone(), at: now, by: caller.by.clone(), not_after };
                batch.push(revocation.put(Expect::Absent));
            }
            match self.store().commit(batch).await {
                Ok(_) => {
                    self.publish_more(&serials).await;
                    return Ok(serials);
                }
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Failed(failure)) => return Err(failure),
            }
        }
        Err(Failure::new(Code::StoreFailed, "too many changes at the same time"))
    }
}
