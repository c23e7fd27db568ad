//! Which agents are meant: one, a group's, or a tenant's. Refuses to know what becomes of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::{AgentId, InvalidPath, Name, printable};

/// `tenant`, `tenant/group` or `tenant/group/agent`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

impl Scope {
    /// The narrowest to the widest that this agent is in.
    #[must_use]
    pub fn all_of(agent: &AgentId) -> [Self; 3] {
        [Self(agent.to_string()), Self(agent.group.to_string()), Self(agent.group.tenant.to_string())]
    }

    /// Those that it is in, the widest first and itself last.
    pub fn path(&self) -> impl Iterator<Item = Self> {
        let ends = self.0.match_indices('/').map(|(at, _)| at).chain([self.0.len()]);
        ends.map(|end| Self(self.0[..end].to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many names it has: 1 for a tenant, 3 for an agent.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.split('/').count()
    }
}

impl FromStr for Scope {
    type Err = InvalidPath;
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let names = text.split('/').map(Name::parse).collect::<Result<Vec<_>, _>>()?;
        if names.len() > 3 {
            return Err(InvalidPath::Scope(printable(text, 128)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Scope {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_in_its_own_scope_its_groups_and_its_tenants_and_in_no_other() {
        let agent: AgentId = "acme/dc1/a1".parse().unwrap();
        let texts = Scope::all_of(&agent).map(String::from);
        assert_eq!(texts, ["acme/dc1/a1", "acme/dc1", "acme"]);
        for text in ["", "acme/", "/acme", "acme//a1", "acme/dc1/a1/x", "ACME", "acme/*"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
        let group: Scope = "acme/dc1".parse().unwrap();
        assert_eq!(
            (group.depth(), group.path().map(String::from).collect()),
            (2, vec!["acme".to_owned(), "acme/dc1".to_owned()])
        );
        let wrong = "acme/dc1/a1/x".parse::<Scope>().unwrap_err().to_string();
        assert!(wrong.starts_with("`acme/dc1/a1/x` is not a tenant, a tenant/group or a tenant/group/agent"), "{wrong}");
    }
}
