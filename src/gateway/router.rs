//! Where a stream is to go, and under whose limits. Pure: a table and what is wanted, to a route or a refusal.
//! It refuses to know sessions.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::ingress::Wanted;
use super::quota::{Tenant, TenantLimits};
use crate::base::id::{GroupId, Name};
use crate::wire::hello::Kind;

/// Tenants' limits as configured, and their use.
#[derive(Default)]
pub struct Table(RwLock<HashMap<Name, Arc<Tenant>>>);

/// Where a stream goes.
pub struct Route {
    /// Whose agents may serve it.
    pub group: GroupId,
    /// Which of their targets.
    pub target: Name,
    /// What is spoken with it.
    pub kind: Kind,
    /// Whose limits it counts against.
    pub tenant: Arc<Tenant>,
}

impl Table {
    /// Puts limits into force; tenants that are not named have none.
    pub fn limit(&self, limits: &HashMap<Name, TenantLimits>) {
        let mut tenants = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for name in limits.keys() {
            tenants.entry(name.clone()).or_default();
        }
        for (name, tenant) in tenants.iter() {
            tenant.limit(limits.get(name).copied().unwrap_or_default());
        }
    }

    /// The route of what is wanted. Only configured listeners name tenants, so the table can't be made to grow from outside.
    #[must_use]
    pub fn route(&self, wanted: &Wanted) -> Route {
        let Wanted { target, kind, .. } = wanted;
        let name = &target.group.tenant;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let tenant = known
            .unwrap_or_else(|| self.0.write().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().clone());
        Route { group: target.group.clone(), target: target.target.clone(), kind: *kind, tenant }
    }
}
