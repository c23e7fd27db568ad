//! Grants: which targets a caller may reach, as patterns of three parts. Refuses to know who has them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{InvalidName, Name, TargetId, printable};

/// The grants of one caller: enough for a list of systems, few enough to look through at every open.
pub const MAX_GRANTS: usize = 64;

/// What stands for any name.
const ANY: &str = "*";

/// A pattern of targets, written `tenant/group/target`, each part a name or `*`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Grant {
    tenant: Part,
    group: Part,
    target: Part,
}

/// A name, or none for any.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Part(Option<Name>);

impl Grant {
    /// This target alone.
    #[must_use]
    pub fn exactly(target: &TargetId) -> Self {
        let part = |name: &Name| Part(Some(name.clone()));
        Self { tenant: part(&target.group.tenant), group: part(&target.group.group), target: part(&target.target) }
    }

    /// The tenant that it names, unless it is for any.
    #[must_use]
    pub fn tenant(&self) -> Option<&Name> {
        self.tenant.0.as_ref()
    }

    /// The group that it names, unless it is for any.
    #[must_use]
    pub fn group(&self) -> Option<&Name> {
        self.group.0.as_ref()
    }

    /// Whether it covers a target.
    #[must_use]
    pub fn covers(&self, target: &TargetId) -> bool {
        self.tenant.covers(&target.group.tenant) && self.group.covers(&target.group.group) && self.target.covers(&target.target)
    }
}

impl Part {
    fn covers(&self, name: &Name) -> bool {
        self.0.as_ref().is_none_or(|own| own == name)
    }

    fn parse(text: &str) -> Result<Self, InvalidName> {
        if text == ANY { Ok(Self(None)) } else { Name::parse(text).map(|name| Self(Some(name))) }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or(ANY, Name::as_str))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.group, self.target)
    }
}

/// A text that is no [`Grant`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrant {
    /// Not three parts.
    #[error("`{0}` is no grant: write tenant/group/target, each a name or `*` (such as `acme/dc1/*`)")]
    Shape(String),
    /// One of the parts is neither a name nor `*`.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl FromStr for Grant {
    type Err = InvalidGrant;
    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let mut parts = text.split('/');
        let (Some(tenant), Some(group), Some(target), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidGrant::Shape(printable(text, 128)));
        };
        Ok(Self { tenant: Part::parse(tenant)?, group: Part::parse(group)?, target: Part::parse(target)? })
    }
}

impl TryFrom<String> for Grant {
    type Error = InvalidGrant;
    fn try_from(text: String) -> Result<Self, InvalidGrant> {
        text.parse()
    }
}

impl From<Grant> for String {
    fn from(grant: Grant) -> Self {
        grant.to_string()
    }
}

/// What one caller may reach: whatever one of its grants covers. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<Grant>", into = "Vec<Grant>")]
pub struct Grants(Arc<[Grant]>);

impl Grants {
    /// These.
    ///
    /// # Errors
    /// When there are none, or more than [`MAX_GRANTS`].
    pub fn new(grants: Vec<Grant>) -> Result<Self, InvalidGrants> {
        match grants.len() {
            1..=MAX_GRANTS => Ok(Self(grants.into())),
            count => Err(InvalidGrants(count)),
        }
    }

    /// One target alone.
    #[must_use]
    pub fn only(target: &TargetId) -> Self {
        Self([Grant::exactly(target)].into())
    }

    /// Whether a target may be reached.
    #[must_use]
    pub fn cover(&self, target: &TargetId) -> bool {
        self.0.iter().any(|grant| grant.covers(target))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter()
    }
}

/// One after the other, with a space between.
impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, grant) in self.iter().enumerate() {
            write!(f, "{}{grant}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// Too few grants, or too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} grants: a caller has 1 to {MAX_GRANTS}")]
pub struct InvalidGrants(usize);

impl TryFrom<Vec<Grant>> for Grants {
    type Error = InvalidGrants;
    fn try_from(grants: Vec<Grant>) -> Result<Self, InvalidGrants> {
        Self::new(grants)
    }
}

impl From<Grants> for Vec<Grant> {
    fn from(grants: Grants) -> Self {
        grants.0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(texts: &[&str]) -> Grants {
        Grants::new(texts.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
    }

    #[test]
    fn i2_a_grant_covers_what_it_names_and_nothing_else() {
        let granted = grants(&["acme/dc1/*", "acme/*/erp", "other/dc1/db"]);
        for (target, covered) in [
            ("acme/dc1/db", true),
            ("acme/dc1/erp", true),
            ("acme/dc2/erp", true),
            ("acme/dc2/db", false),
            ("acme/dc11/db", false),
            ("other/dc1/db", true),
            ("other/dc1/erp", false),
            ("acm/dc1/db", false),
        ] {
            assert_eq!(granted.cover(&target.parse().unwrap()), covered, "{target}");
        }
        let target = "acme/dc1/db".parse().unwrap();
        assert!(Grants::only(&target).cover(&target) && !Grants::only(&target).cover(&"acme/dc1/erp".parse().unwrap()));
        assert!(grants(&["*/*/*"]).cover(&target));
    }

    #[test]
    fn a_grant_is_written_as_it_is_read_and_nothing_else_is_one() {
        for text in ["acme/dc1/*", "*/*/*", "acme/dc1/sales-db"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for bad in
            ["", "*", "acme/*", "acme/dc1/*/x", "acme//db", "acme/dc*/db", "Acme/dc1/db", "acme/dc1/**", "acme/dc1/\u{1b}"]
        {
            assert!(bad.parse::<Grant>().is_err(), "{bad:?}");
        }
        assert!(Grants::new(vec![]).is_err());
        assert!(Grants::new(vec!["*/*/*".parse().unwrap(); MAX_GRANTS + 1]).is_err());
    }
}
