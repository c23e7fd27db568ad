//! What the operator decides and the gateway remembers: tenants, groups, tokens, agents, revocations; their store, and the API
//! that changes them. Control publishes snapshots, the data plane reads them and runs on without it.
//! It refuses to know streams, sessions and sockets.

pub mod agents;
pub mod api;
pub mod clients;
pub mod disable;
pub mod enroll;
mod op;
mod records;
pub mod store;
mod text;
pub mod tokens;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

use crate::base::code::Failure;
use crate::base::endpoint::Endpoint;
use crate::base::id::Name;
use crate::base::limits::{ENROLL_PER_MINUTE, THROTTLED_SOURCES};
use crate::base::throttle::Throttle;
use crate::gateway::callers::{Callers, PublishedToken};
use crate::observe::audit::Audit;
use crate::pki::authority::Authority;
use crate::pki::identity::Serial;
use crate::pki::revoke::Revocations;

pub use op::Caller;
use records::{Revocation, Token};
use store::{CommitError, Kind, Store};

/// How often a change is decided anew when somebody else changed the same records meanwhile. Each time somebody succeeded, so
/// only a flood of changes gets here.
const ATTEMPTS: usize = 64;

/// How long tokens are kept after they have expired: a late user learns that.
const KEPT: time::Duration = time::Duration::days(1);

/// What control works with.
pub struct Parts {
    /// Where the records are.
    pub store: Arc<dyn Store>,
    /// What issues certificates.
    pub authority: Arc<Authority>,
    /// Where revocations are published.
    pub revocations: Revocations,
    /// Where client tokens are published.
    pub callers: Callers,
    /// Where every decision is recorded.
    pub audit: Audit,
    /// The gateways that tokens and enrolled agents are told of.
    pub endpoints: Vec<Endpoint>,
    /// How long an agent's certificate lives.
    pub certificate_lifetime: Duration,
}

/// Decides about tokens, enrollments and revocations. Its operations are in the files named after them.
pub struct Control {
    parts: Parts,
    throttle: Mutex<Throttle>,
    published: tokio::sync::Mutex<HashSet<Serial>>,
    /// Who is disabled, as published.
    disabled: tokio::sync::Mutex<disable::DisabledScopes>,
    /// The client tokens that are published; held while they are changed, so that an older set never replaces a newer one.
    client_tokens: tokio::sync::Mutex<BTreeMap<Name, PublishedToken>>,
}

impl Control {
    /// Publishes the revocations and the client tokens of the store: when this returns, no revocation that was ever acknowledged
    /// is forgotten.
    ///
    /// # Errors
    /// `store_failed`: without knowing the revocations nothing may be served.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, Failure> {
        let control = Self::unpublished(parts);
        control.sweep(OffsetDateTime::now_utc()).await?;
        control.publish_revocations().await?;
        control.publish_disabled().await?;
        control.publish_client_tokens().await?;
        Ok(Arc::new(control))
    }

    fn unpublished(parts: Parts) -> Self {
        let throttle = Mutex::new(Throttle::new(ENROLL_PER_MINUTE, THROTTLED_SOURCES));
        Self {
            parts,
            throttle,
            published: tokio::sync::Mutex::default(),
            disabled: tokio::sync::Mutex::default(),
            client_tokens: tokio::sync::Mutex::default(),
        }
    }

    /// Publishes revocations and client tokens made through another gateway on the same store, and clears the store once a day.
    /// Runs until it is dropped.
    pub async fn follow(&self) {
        let mut revocations = self.store().watch(Kind::Revocation);
        let mut disabled = self.store().watch(Kind::Disabled);
        let mut client_tokens = self.store().watch(Kind::ClientToken);
        // What has changed between the start and now would be missed.
        revocations.mark_changed();
        disabled.mark_changed();
        client_tokens.mark_changed();
        let mut daily = tokio::time::interval(Duration::from_secs(24 * 60 * 60));
        daily.tick().await;
        loop {
            let due = tokio::select! {
                biased;
                changed = revocations.changed() => changed.map(|()| Due::Revocations),
                changed = disabled.changed() => changed.map(|()| Due::Disabled),
                changed = client_tokens.changed() => changed.map(|()| Due::ClientTokens),
                _ = daily.tick() => Ok(Due::Sweep),
            };
            let done = match due {
                Ok(Due::Revocations) => self.publish_revocations().await,
                Ok(Due::Disabled) => self.publish_disabled().await,
                Ok(Due::ClientTokens) => self.publish_client_tokens().await,
                Ok(Due::Sweep) => self.sweep(OffsetDateTime::now_utc()).await,
                // The store is closed: nothing changes any more.
                Err(_) => return,
            };
            if let Err(failure) = done {
                tracing::error!(code = %failure.code, "keeping up with the store: {}", failure.detail);
            }
        }
    }

    /// Publishes what the store says. Only one reads and publishes at a time: an older list never replaces a newer one.
    async fn publish_revocations(&self) -> Result<(), Failure> {
        let mut published = self.published.lock().await;
        let revoked = records::list::<Revocation>(self.store()).await?;
        *published = revoked.into_iter().map(|stored| stored.record.serial).collect();
        self.parts.revocations.publish(published.clone());
        Ok(())
    }

    /// Publishes what was just committed, without asking the store again: it cannot fail.
    async fn publish_more(&self, serials: &[Serial]) {
        let mut published = self.published.lock().await;
        published.extend(serials);
        self.parts.revocations.publish(published.clone());
    }

    /// Deletes tokens that have ended. Expired certificates go when their agent enrolls again: until then they say when it was
    /// lost. Revocations stay: a clock that once ran ahead must not make a stolen certificate good again, and there are no more of
    /// them than an operator has made.
    async fn sweep(&self, now: OffsetDateTime) -> Result<(), Failure> {
        let mut gone = self.old_client_tokens(now).await?;
        let tokens = records::list::<Token>(self.store()).await?;
        gone.extend(tokens.iter().filter(|token| token.record.expires + KEPT < now).map(records::Stored::delete));
        for batch in gone.chunks(256) {
            match self.store().commit(batch.to_vec()).await {
                Ok(_) => {}
                Err(CommitError::Failed(failure)) => return Err(failure),
                // Somebody uses one of them at this very moment; the next sweep takes the rest.
                Err(CommitError::Conflict(_)) => break,
            }
        }
        Ok(())
    }

    fn store(&self) -> &dyn Store {
        &*self.parts.store
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What following the store may have to do.
enum Due {
    Revocations,
    Disabled,
    ClientTokens,
    Sweep,
}

#[cfg(test)]
mod tests;
