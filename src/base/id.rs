//! Names and ids, parsed once and valid ever after. Refuses to know where they are stored or sent.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest name: a tenant, a group and a target joined must fit into DNS labels.
pub const MAX_NAME: usize = 32;

/// The name of a tenant, group, target or agent: `[a-z0-9]+(-[a-z0-9]+)*`, at most 32 characters.
///
/// Cloning is cheap: the text is shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// Says what a name may look like.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let well_formed = !text.is_empty()
            && text.len() <= MAX_NAME
            && text
                .split('-')
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        if well_formed { Ok(Self(text.into())) } else { Err(InvalidName(printable(text, 64))) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// A text that is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a name: lower-case letters and digits, single hyphens between them, at most 32 characters (such as `dc1-agent-2`)"
)]
pub struct InvalidName(String);

/// A group of one tenant, written `tenant/group`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId {
    /// The customer organisation.
    pub tenant: Name,
    /// The group of interchangeable agents.
    pub group: Name,
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.group)
    }
}

/// One agent of a group, written `tenant/group/agent`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AgentId {
    /// The group it belongs to.
    pub group: GroupId,
    /// Its own name, unique in the group.
    pub agent: Name,
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.agent)
    }
}

/// A target as a client names it, written `tenant/group/target`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetId {
    /// The group whose agents reach it.
    pub group: GroupId,
    /// The target's name in those agents' configurations.
    pub target: Name,
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.target)
    }
}

fn three_names(text: &str) -> Result<(GroupId, Name), InvalidPath> {
    let mut parts = text.split('/');
    let (Some(tenant), Some(group), Some(last), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(InvalidPath::Shape(printable(text, 128)));
    };
    Ok((GroupId { tenant: Name::parse(tenant)?, group: Name::parse(group)? }, Name::parse(last)?))
}

impl FromStr for TargetId {
    type Err = InvalidPath;
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        three_names(text).map(|(group, target)| Self { group, target })
    }
}

impl FromStr for AgentId {
    type Err = InvalidPath;
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        three_names(text).map(|(group, agent)| Self { group, agent })
    }
}

impl TryFrom<String> for TargetId {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<TargetId> for String {
    fn from(id: TargetId) -> Self {
        id.to_string()
    }
}

/// A text that is no `tenant/group/name`, or no part of one from its left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Not three parts.
    #[error("`{0}` is not of the form tenant/group/name (such as `acme/dc1/sales-db`)")]
    Shape(String),
    /// More than three parts, where up to three mean a tenant, a group or an agent.
    #[error("`{0}` is not a tenant, a tenant/group or a tenant/group/agent (such as `acme`, `acme/dc1` or `acme/dc1/agent-1`)")]
    Scope(String),
    /// One of the parts is no name.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id; ids made later sort later (UUIDv7, RFC 9562).
            #[must_use]
            pub fn fresh() -> Self {
                Self(super::random::uuid())
            }

            /// The 16 bytes that travel.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Reads the 16 bytes that travelled; any other length is no id.
            #[must_use]
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

uuid_id!(
    /// One client ask, from end to end, in both sides' logs and audit.
    RequestId
);
uuid_id!(
    /// One agent's authenticated tunnel to one gateway instance.
    SessionId
);
uuid_id!(
    /// One run of an agent or gateway process.
    InstanceId
);

/// Makes a stranger's text fit to print: control characters, the direction overrides and quotes of logs are escaped. The whole
/// has at most `max` characters, and one that says it was cut; what is fit to print stays as it is.
#[must_use]
pub fn printable(text: &str, max: usize) -> String {
    if text.len() <= max && is_plain(text) {
        return text.to_owned();
    }
    let (mut out, mut room) = (String::with_capacity(text.len().min(max)), max);
    for c in text.chars() {
        let escaped = unprintable(c).then(|| c.escape_unicode());
        let Some(left) = room.checked_sub(escaped.as_ref().map_or(1, ExactSizeIterator::len)) else {
            out.push('…');
            break;
        };
        room = left;
        match escaped {
            Some(escaped) => out.extend(escaped),
            None => out.push(c),
        }
    }
    out
}

/// Whether a text is ASCII that prints as it is, as nearly all are: one pass that looks at many bytes at once.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
}

/// Whether a character can move a cursor, forge a line, hide, or turn the direction of a text.
#[must_use]
pub fn unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "0", "acme", "dc1-agent-2", &"a".repeat(32)] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-", "a-", "-a", "a--b", "A", "a_b", "a.b", "ä", "a/b", "a b", &"a".repeat(33)] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_have_three_names() {
        let id: TargetId = "acme/dc1/sales-db".parse().unwrap();
        assert_eq!(id.to_string(), "acme/dc1/sales-db");
        for bad in ["", "a", "a/b", "a/b/c/d", "a//c", "A/b/c", "/a/b/c"] {
            assert!(bad.parse::<TargetId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn r2_a_strangers_text_cannot_forge_a_line_or_move_a_cursor() {
        let out = printable("a\r\nb\u{1b}[2J\0\u{202e}c", 64);
        assert!(!out.contains(['\r', '\n', '\u{1b}', '\0', '\u{202e}']), "{out}");
        assert_eq!(printable(&"x".repeat(1 << 20), 16).chars().count(), 17);
    }

    #[test]
    fn r2_a_strangers_text_does_not_grow_beyond_its_limit_and_is_escaped_once() {
        assert!(is_plain(" ~\"\\") && ["a\n", "\u{7f}", "é", "\u{200b}"].into_iter().all(|text| !is_plain(text)));
        for text in ["\u{feff}".repeat(1 << 10), "a\0".repeat(20), "x".repeat(17), "x".repeat(16), "é\n".to_owned()] {
            let once = printable(&text, 16);
            assert!(once.chars().count() <= 17, "{once}");
            assert_eq!(printable(&once, 16), once);
        }
        assert_eq!(printable("\u{feff}\u{feff}", 16), "\\u{feff}\\u{feff}");
        assert_eq!(printable("\u{feff}\u{feff}", 15), "\\u{feff}…");
    }
}
