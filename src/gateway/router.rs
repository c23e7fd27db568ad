//! Where a stream is to go, and under whose limits. Pure: a table and what is wanted, to a route or a refusal.
//! It refuses to know sessions.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::ingress::Wanted;
use super::quota::{Limits, Quota};
use crate::base::id::{GroupId, Name};

/// Tenants that are remembered before those that use nothing are forgotten.
const MAX_TENANTS: usize = 1024;

/// Tenants' limits as configured, and their use.
#[derive(Default)]
pub struct Table(RwLock<HashMap<Name, Arc<Quota>>>);

/// Where a stream goes.
pub struct Route {
    /// Whose agents may serve it.
    pub group: GroupId,
    /// Which of their targets.
    pub target: Name,
    /// Whose limits it counts against.
    pub tenant: Arc<Quota>,
}

impl Table {
    /// Puts limits into force; tenants that are not named have none.
    pub fn limit(&self, limits: &HashMap<Name, Limits>) {
        let mut tenants = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for name in limits.keys() {
            tenants.entry(name.clone()).or_insert_with(tenant);
        }
        for (name, tenant) in tenants.iter() {
            tenant.limit(limits.get(name).copied().unwrap_or_default());
        }
    }

    /// The route of what is wanted.
    #[must_use]
    pub fn route(&self, wanted: &Wanted) -> Route {
        let target = &wanted.target;
        let tenant = self.tenant(&target.group.tenant);
        Route { group: target.group.clone(), target: target.target.clone(), tenant }
    }

    fn tenant(&self, name: &Name) -> Arc<Quota> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return known.clone();
        }
        let mut tenants = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= MAX_TENANTS {
            // A caller may ask for names that don't exist. Nothing is lost with a tenant that has neither limits nor streams.
            tenants.retain(|_, tenant| tenant.limits() != Limits::default() || Arc::strong_count(tenant) > 1);
        }
        tenants.entry(name.clone()).or_insert_with(tenant).clone()
    }
}

fn tenant() -> Arc<Quota> {
    Quota::new("the tenant")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixture::wanted;

    #[test]
    fn names_that_do_not_exist_cost_no_memory() {
        let table = Table::default();
        let name = |text: &str| Name::parse(text).unwrap();
        table.limit(&HashMap::from([(name("acme"), Limits { max_streams: Some(1), rate: None })]));
        let held = table.route(&Wanted { target: "busy/dc1/x".parse().unwrap(), ..wanted("x") });
        for n in 0..3 * MAX_TENANTS {
            let _ = table.route(&Wanted { target: format!("t{n}/dc1/x").parse().unwrap(), ..wanted("x") });
        }
        let tenants = table.0.read().unwrap();
        assert!(tenants.len() <= MAX_TENANTS, "{}", tenants.len());
        assert!(tenants[&name("acme")].admit().is_ok() && Arc::ptr_eq(&tenants[&name("busy")], &held.tenant));
    }
}
