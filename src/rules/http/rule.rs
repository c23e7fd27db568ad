//! One rule of an HTTP target as it is written: its keys, their forms and what they default to. Refuses to know other rules.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Ask;
use crate::base::code::Code;
use crate::base::id::printable;
use crate::base::limits::MAX_RULE_LIST;
use crate::base::size;
use crate::rules::path::Pattern;
use crate::rules::said;

/// Methods that no rule can permit, in whatever case: CONNECT makes a tunnel through the origin, TRACE (and TRACK, its other name) sends
/// back what was to stay hidden.
const NEVER: [&str; 3] = ["CONNECT", "TRACE", "TRACK"];

/// Headers that belong to one connection, or that each hop writes for itself: a list of what may pass cannot name them.
const OWN: [&str; 14] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers by whose prefix the same is said.
const OWN_PREFIX: &str = "underpass-";

/// One of `allow:`. What is left out permits everything of its sort, but for `upgrade`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The methods; absent: any but CONNECT and TRACE, which no rule permits.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub methods: Option<List<Method>>,
    /// The paths.
    pub path: Pattern,
    /// The keys that a query may have, as they are written in it; absent: any. An empty list permits no query with keys.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub query: Option<List<QueryKey>>,
    /// The headers that reach the origin; others are taken away. Absent: any.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<List<Header>>,
    /// The headers that come back; others are taken away. Absent: any.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<List<Header>>,
    /// The largest body of a request, in bytes; absent or `none`: any.
    #[serde(default, with = "body", skip_serializing_if = "Option::is_none")]
    pub max_body: Option<u64>,
    /// Whether the connection may become another protocol's (WebSocket). Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upgrade: bool,
}

/// What of a request a rule does not permit, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw<'a> {
    /// The rule's methods are others.
    Method,
    /// This key is not listed.
    Query(&'a str),
    /// No upgrades.
    Upgrade,
    /// The body is said to be larger than this.
    Body(u64),
}

impl fmt::Display for Flaw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("the method is not listed"),
            Self::Query(key) => write!(f, "the query key `{}` is not listed", printable(key, 64)),
            Self::Upgrade => f.write_str("`upgrade` is not true"),
            Self::Body(max) => write!(f, "the body is larger than {}", size::show(max)),
        }
    }
}

impl Flaw<'_> {
    /// How far a request got.
    pub(super) fn step(self) -> u8 {
        match self {
            Self::Method => 0,
            Self::Query(_) => 1,
            Self::Upgrade => 2,
            Self::Body(_) => 3,
        }
    }

    /// The code of a request that is denied by it.
    pub(super) fn code(self) -> Code {
        match self {
            Self::Method | Self::Query(_) => Code::RequestDenied,
            Self::Upgrade => Code::UpgradeDenied,
            Self::Body(_) => Code::BodyTooLarge,
        }
    }
}

impl Rule {
    /// Any request on these paths, but no upgrade.
    #[must_use]
    pub fn on(path: Pattern) -> Self {
        Self { methods: None, path, query: None, request_headers: None, response_headers: None, max_body: None, upgrade: false }
    }

    /// Whether it alone permits a request.
    #[must_use]
    pub fn permits(&self, ask: &Ask<'_>) -> bool {
        self.path.matches(ask.path) && self.flaw(ask).is_none()
    }

    /// What is against a request on a path that the rule is for.
    pub(super) fn flaw<'a>(&self, ask: &Ask<'a>) -> Option<Flaw<'a>> {
        if self.methods.as_ref().is_some_and(|methods| !methods.contains(ask.method)) {
            return Some(Flaw::Method);
        }
        let unlisted = |keys: &List<QueryKey>| ask.path.query_keys().find(|key| !keys.contains(key));
        if let Some(key) = self.query.as_ref().and_then(unlisted) {
            return Some(Flaw::Query(key));
        }
        if ask.upgrade && !self.upgrade {
            return Some(Flaw::Upgrade);
        }
        self.max_body.filter(|max| ask.body.is_some_and(|body| body > *max)).map(Flaw::Body)
    }
}

/// A method that no rule permits.
pub(super) fn never(method: &str) -> bool {
    NEVER.iter().any(|never| never.eq_ignore_ascii_case(method))
}

/// A sorted list without repetitions, of which one entry is found without looking at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct List<T: Ord>(BTreeSet<T>);

impl<T: Ord + std::borrow::Borrow<str>> List<T> {
    /// Whether it has an entry, as it is written.
    #[must_use]
    pub fn contains(&self, entry: &str) -> bool {
        self.0.contains(entry)
    }

    /// Its entries in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<'de, T: Ord + Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::<T>::deserialize(deserializer)?;
        if entries.len() > MAX_RULE_LIST {
            return Err(serde::de::Error::custom("a list of a rule has at most 256 entries"));
        }
        Ok(Self(entries.into_iter().collect()))
    }
}

/// Makes a checked text that is an entry of a list.
macro_rules! entry {
    ($(#[$doc:meta])* $name:ident, $parse:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// As it is compared.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                $parse(&text).map(|text| Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(entry: $name) -> Self {
                entry.0.into()
            }
        }
    };
}

entry! {
    /// A method, which has no small letters.
    Method, method
}

entry! {
    /// A key of a query, byte for byte as it is sent.
    QueryKey, query_key
}

entry! {
    /// A header's name in small letters.
    Header, header
}

/// A token of RFC 9110 (5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn method(text: &str) -> Result<String, String> {
    let shown = printable(text, 64);
    if !is_token(text) {
        return Err(format!("`{shown}` is no method"));
    }
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(format!("`{shown}` is no method: they are written in capitals, `{}`", shown.to_ascii_uppercase()));
    }
    if never(text) {
        return Err(format!("`{shown}` is a method that no rule permits"));
    }
    Ok(text.to_owned())
}

fn query_key(text: &str) -> Result<String, String> {
    let sent = |b: u8| matches!(b, 0x21..=0x7e) && !b"#&;=".contains(&b);
    if text.is_empty() || !text.bytes().all(sent) {
        return Err(format!(
            "`{}` is no key of a query as it is sent: percent-encode what is special in it",
            printable(text, 64)
        ));
    }
    Ok(text.to_owned())
}

fn header(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let shown = printable(text, 64);
    if !is_token(text) {
        return Err(format!("`{shown}` is no name of a header"));
    }
    if OWN.contains(&name.as_str()) || name.starts_with(OWN_PREFIX) {
        return Err(format!("`{shown}` cannot be listed: it belongs to one connection, and each hop writes its own"));
    }
    Ok(name)
}

/// `max_body`: a size or `none`.
mod body {
    use super::*;

    const NONE: &str = "none";

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == NONE { Ok(None) } else { size::parse(&text).map(Some).map_err(serde::de::Error::custom) }
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map_or_else(|| NONE.to_owned(), size::show).serialize(serializer)
    }
}

/// On one line, as YAML takes it, too.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}
