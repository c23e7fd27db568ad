//! The published sets of revoked serials and of disabled agents, as every handshake and session sees them. Refuses to know who revoked
//! or disabled them and why.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::identity::Serial;
use crate::base::id::AgentId;
use crate::base::scope::Scope;

/// A handle on the set; clones see the same one. Looking up takes no lock and a constant time, so it may stand on the handshake path.
#[derive(Clone, Debug)]
pub struct Revocations {
    serials: Arc<ArcSwap<HashSet<Serial>>>,
    disabled: Arc<ArcSwap<HashSet<Scope>>>,
    changed: watch::Sender<()>,
}

impl Revocations {
    /// Nothing revoked yet.
    #[must_use]
    pub fn new() -> Self {
        Self { serials: Arc::default(), disabled: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// Whether a serial is revoked.
    #[must_use]
    pub fn contains(&self, serial: &Serial) -> bool {
        self.serials.load().contains(serial)
    }

    /// Replaces the whole set, then wakes the subscribers: whoever is woken sees the new set.
    pub fn publish(&self, serials: HashSet<Serial>) {
        self.serials.store(Arc::new(serials));
        self.changed.send_replace(());
    }

    /// Whether an agent is not let in, by its own name, its group's or its tenant's.
    #[must_use]
    pub fn disables(&self, agent: &AgentId) -> bool {
        let disabled = self.disabled.load();
        !disabled.is_empty() && Scope::all_of(agent).iter().any(|scope| disabled.contains(scope))
    }

    /// Replaces who is disabled, then wakes the subscribers.
    pub fn publish_disabled(&self, scopes: HashSet<Scope>) {
        self.disabled.store(Arc::new(scopes));
        self.changed.send_replace(());
    }

    /// Tells of every change from now on; ask [`Revocations::contains`] and [`Revocations::disables`] for what changed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_woken_sees_the_new_set() {
        let revocations = Revocations::new();
        let (gone, kept) = (Serial::random().unwrap(), Serial::random().unwrap());
        let mut changes = revocations.clone().subscribe();
        assert!(!changes.has_changed().unwrap() && !revocations.contains(&gone));
        revocations.publish(HashSet::from([gone]));
        changes.changed().await.unwrap();
        assert!(revocations.contains(&gone) && !revocations.contains(&kept));
        revocations.publish(HashSet::new());
        changes.changed().await.unwrap();
        assert!(!revocations.contains(&gone));
    }
}
