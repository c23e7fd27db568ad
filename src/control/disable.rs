//! Disabling agents, groups and tenants for a while: no certificate is lost by it. Refuses to know how live sessions are cut: it publishes
//! who is disabled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::op::{Caller, Op};
use super::records::{self, Agent, Disabled, Group, Record, Stored, Tenant};
use super::store::{CommitError, Expect};
use super::{ATTEMPTS, Control, text};
use crate::base::code::{Code, Failure};
use crate::base::scope::Scope;
use crate::observe::audit::Event;

/// Who is disabled, and since when.
pub(super) type DisabledScopes = BTreeMap<Scope, OffsetDateTime>;

/// One that is disabled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisabledScope {
    /// The agent, group or tenant.
    pub scope: Scope,
    /// Since when.
    #[serde(with = "text::utc")]
    pub since: OffsetDateTime,
}

/// What disabling or enabling did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which agents.
    pub scope: Scope,
    /// Since when that scope is disabled; absent: it is not.
    #[serde(with = "text::optional_utc", default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<OffsetDateTime>,
    /// What it is in and is disabled as well, the widest first: while there is any, its agents stay out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<DisabledScope>,
    /// Whether anything has changed: it was not so before.
    pub changed: bool,
    /// Whether the audit has it. Disabling is done even if the audit is full and otherwise refuses work.
    pub audited: bool,
}

impl Control {
    /// Disables an agent, a group or a tenant: the published set has it when this returns. Disabling twice is no error.
    ///
    /// # Errors
    /// `agent_unknown`; `store_failed`, then nothing is disabled.
    pub async fn disable(&self, scope: &Scope, caller: &Caller) -> Result<Standing, Failure> {
        let op = Op { name: "agents disable", on: scope.to_string(), caller };
        let begun = op.begin(self);
        let outcome = self.set_disabled(scope, Some(caller)).await;
        let mut audited = begun.is_ok();
        let standing = op.end(self, outcome, |standing, control| {
            if standing.changed {
                tracing::info!(%scope, by = caller.by, "disabled");
                audited &= control.parts.audit.record(&Event::AgentsDisabled { scope, by: &caller.by }).is_ok();
            }
            Ok(())
        })?;
        Ok(Standing { audited, ..standing })
    }

    /// Lets them in again, unless something that they are in is disabled as well. What is not disabled stays that.
    ///
    /// # Errors
    /// `agent_unknown`, `store_failed`, `audit_full`.
    pub async fn enable(&self, scope: &Scope, caller: &Caller) -> Result<Standing, Failure> {
        let op = Op { name: "agents enable", on: scope.to_string(), caller };
        op.begin(self)?;
        let outcome = self.set_disabled(scope, None).await;
        op.end(self, outcome, |standing, control| {
            if !standing.changed {
                return Ok(());
            }
            tracing::info!(%scope, by = caller.by, "enabled");
            control.parts.audit.record(&Event::AgentsEnabled { scope, by: &caller.by })
        })
    }

    /// Publishes what the store says.
    pub(super) async fn publish_disabled(&self) -> Result<(), Failure> {
        let mut published = self.disabled.lock().await;
        let disabled = records::list::<Disabled>(self.store()).await?;
        *published = disabled.into_iter().map(|stored| (stored.record.scope, stored.record.at)).collect();
        self.parts.revocations.publish_disabled(published.keys().cloned().collect());
        Ok(())
    }

    async fn set_disabled(&self, scope: &Scope, by: Option<&Caller>) -> Result<Standing, Failure> {
        self.exists(scope).await?;
        // Until it is published: changes are in the order in which they were committed.
        let mut published = self.disabled.lock().await;
        for _ in 0..ATTEMPTS {
            let stored = records::get::<Disabled>(self.store(), scope.as_str()).await?;
            let at = text::seconds(OffsetDateTime::now_utc());
            let (write, at) = match (by, &stored) {
                (Some(_), Some(stored)) => return Ok(standing(scope, Some(stored.record.at), false, &published)),
                (None, None) => return Ok(standing(scope, None, false, &published)),
                (Some(caller), None) => {
                    (Disabled { scope: scope.clone(), at, by: caller.by.clone() }.put(Expect::Absent), Some(at))
                }
                (None, Some(stored)) => (Stored::delete(stored), None),
            };
            match self.store().commit(vec![write]).await {
                Ok(_) => {
                    // Without asking the store again: it cannot fail.
                    match at {
                        Some(at) => drop(published.insert(scope.clone(), at)),
                        None => drop(published.remove(scope)),
                    }
                    self.parts.revocations.publish_disabled(published.keys().cloned().collect());
                    return Ok(standing(scope, at, true, &published));
                }
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Failed(failure)) => return Err(failure),
            }
        }
        Err(Failure::new(Code::StoreFailed, "too many changes at the same time"))
    }

    /// What is mistyped is to be told, and not to be disabled in vain.
    async fn exists(&self, scope: &Scope) -> Result<(), Failure> {
        for part in scope.path() {
            let (store, id) = (self.store(), part.as_str());
            let (what, known) = match part.depth() {
                1 => ("tenant", records::get::<Tenant>(store, id).await?.is_some()),
                2 => ("group", records::get::<Group>(store, id).await?.is_some()),
                _ => ("agent", records::get::<Agent>(store, id).await?.is_some()),
            };
            if !known {
                return Err(Failure::new(Code::AgentUnknown, format_args!("there is no {what} `{part}`")));
            }
        }
        Ok(())
    }
}

/// The scopes of a path that are disabled, in its order.
pub(super) fn disabled_of(path: impl Iterator<Item = Scope>, disabled: &DisabledScopes) -> Vec<DisabledScope> {
    let since = |scope: Scope| disabled.get(&scope).map(|since| DisabledScope { since: *since, scope });
    path.filter_map(since).collect()
}

fn standing(scope: &Scope, disabled: Option<OffsetDateTime>, changed: bool, all: &DisabledScopes) -> Standing {
    let within = disabled_of(scope.path().filter(|wider| wider != scope), all);
    Standing { scope: scope.clone(), disabled, within, changed, audited: true }
}
