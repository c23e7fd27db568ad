//! The rules of an LDAP target: which operations may pass, on which entries and attributes. Refuses to know connections.

use serde::{Deserialize, Serialize};

mod conversation;
mod entries;
mod grammar;
mod question;
mod requests;

use std::collections::HashSet;
use std::fmt;

pub use conversation::{Conversation, Down, Up};
use grammar::Raw;
pub use grammar::{DENIED_ATTRIBUTES, HARMLESS_CONTROLS};
pub use question::{Answer, Question};

use crate::ldap::attribute::Attribute;
use crate::ldap::dn::Dn;
use crate::ldap::message::Operation;
use crate::ldap::message::answer::ResultCode;

/// The rules of one target, as `allow:` has them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Rules {
    raw: Raw,
    /// What may be read, if not everything that is not denied.
    allowed: Option<HashSet<Attribute>>,
    /// What is never read nor written: the defaults, what the site adds, and the subtypes of all of these.
    denied: HashSet<Attribute>,
    /// Attributes that may be read, but not asked about: a directory would look at others that may not be read.
    revealing: HashSet<Attribute>,
    /// What may be written.
    writable: HashSet<Attribute>,
}

/// Whether subordinate directories are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Referrals {
    /// They are left out.
    #[default]
    Drop,
    /// They pass as they are.
    Pass,
}

/// What a request ran into: a key of `allow:`, or what holds for every target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// `operations`.
    Operations,
    /// `base`.
    Base,
    /// `scope`.
    Scope,
    /// `attributes`.
    Attributes,
    /// `deny_attributes`.
    DenyAttributes,
    /// `modify_attributes`.
    ModifyAttributes,
    /// `filter_size`.
    FilterSize,
    /// `filter_depth`.
    FilterDepth,
    /// `controls`.
    Controls,
    /// `extended`.
    Extended,
    /// No TLS begins inside the tunnel.
    StartTls,
    /// Only simple binds pass: SASL's would take the connection out of the rules' sight, or log the agent in.
    Sasl,
    /// A bind has a name and a password, or neither.
    EmptyPassword,
    /// Only LDAP version 3 is spoken.
    Version,
    /// An extensible match names its attribute.
    ExtensibleMatch,
    /// While a bind is under way, nothing else is asked.
    BindUnderWay,
    /// So many operations at a time.
    Outstanding,
}

impl Rule {
    /// The name that is printed, recorded and counted.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operations => "operations",
            Self::Base => "base",
            Self::Scope => "scope",
            Self::Attributes => "attributes",
            Self::DenyAttributes => "deny_attributes",
            Self::ModifyAttributes => "modify_attributes",
            Self::FilterSize => "filter_size",
            Self::FilterDepth => "filter_depth",
            Self::Controls => "controls",
            Self::Extended => "extended",
            Self::StartTls => "start_tls",
            Self::Sasl => "sasl",
            Self::EmptyPassword => "empty_password",
            Self::Version => "version",
            Self::ExtensibleMatch => "extensible_match",
            Self::BindUnderWay => "bind_under_way",
            Self::Outstanding => "outstanding",
        }
    }

    /// Where it stands: the key in agent.yaml, or the name of what holds for every target.
    #[must_use]
    pub fn of(self, target: &str) -> String {
        if self.is_configured() {
            format!("targets.{target}.allow.{self}")
        } else {
            format!("every target of kind ldap: {self}")
        }
    }

    /// Whether it is a key of `allow:`; the others hold for every target.
    fn is_configured(self) -> bool {
        use Rule::{BindUnderWay, EmptyPassword, ExtensibleMatch, Outstanding, Sasl, StartTls, Version};
        !matches!(self, StartTls | Sasl | EmptyPassword | Version | ExtensibleMatch | BindUnderWay | Outstanding)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request does not pass, and what its client is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What it ran into.
    pub rule: Rule,
    /// In LDAP.
    pub code: ResultCode,
    /// In words, for the client and the audit.
    pub why: String,
}

impl Denial {
    fn new(rule: Rule, code: ResultCode, why: impl Into<String>) -> Self {
        Self { rule, code, why: why.into() }
    }

    /// What the rules do not permit.
    fn of(rule: Rule, why: impl Into<String>) -> Self {
        Self::new(rule, ResultCode::InsufficientAccessRights, why)
    }
}

impl Rules {
    /// Whether this operation may be asked for at all.
    #[must_use]
    pub fn permits(&self, operation: Operation) -> bool {
        self.raw.operations.contains(&operation)
    }

    /// Whether an entry of this name may be read or changed: at a base or below it.
    ///
    /// A name that is no DN is within nothing, unless everything is permitted and nobody looks.
    fn is_within_base(&self, dn: &[u8]) -> bool {
        self.raw.base.0.is_empty() || Dn::parse(dn).is_ok_and(|dn| self.is_dn_within_base(&dn))
    }

    fn is_dn_within_base(&self, dn: &Dn) -> bool {
        self.raw.base.0.is_empty() || self.raw.base.0.iter().any(|base| dn.is_within(base))
    }

    /// Whether an attribute's values may be read. An OID that is not known here might be any attribute's.
    fn is_readable(&self, attribute: &Attribute) -> bool {
        match &self.allowed {
            Some(allowed) => allowed.contains(attribute) && !self.denied.contains(attribute),
            None => !attribute.is_unknown_oid() && !self.denied.contains(attribute),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::try_from(Raw::default()).expect("the defaults contradict nothing")
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Rules {}

#[cfg(test)]
mod tests;
