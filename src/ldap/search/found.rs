//! What a search has found, in JSON: entries, where else to search, and how it ended. Refuses to know how it is carried.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub dn: String,
    /// The values of each attribute, by the description that the directory gave it.
    pub attributes: BTreeMap<String, Vec<Value>>,
}

/// One value: text, or `{"base64": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text that can be read.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

/// How a directory ended a search (RFC 4511, 4.1.9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Its code (RFC 4511, appendix A).
    pub code: u32,
    /// Its name.
    pub name: &'static str,
    /// The name that was found nearest to a base that wasn't.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub matched: String,
    /// The directory's own words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The end of a search: an object by itself where the entries come as lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How the directory ended it.
    pub result: Ended,
    /// Entries that were found.
    pub count: u64,
    /// Whether there may be more that a limit has cut off.
    pub truncated: bool,
}

/// Attributes whose values are no text, even those that happen to be UTF-8.
const BINARY: &[&str] = &[
    "audio",
    "authorityrevocationlist",
    "cacertificate",
    "certificaterevocationlist",
    "crosscertificatepair",
    "deltarevocationlist",
    "jpegphoto",
    "logonhours",
    "ms-ds-consistencyguid",
    "msds-generationid",
    "msexchmailboxguid",
    "ntsecuritydescriptor",
    "objectguid",
    "objectsid",
    "photo",
    "schemaidguid",
    "securityidentifier",
    "sidhistory",
    "thumbnaillogo",
    "thumbnailphoto",
    "tokengroups",
    "tokengroupsglobalanduniversal",
    "tokengroupsnogcacceptable",
    "usercertificate",
    "userpkcs12",
    "usersmimecertificate",
    "x500uniqueidentifier",
];

impl Entry {
    /// An entry of these attributes. A description that is there twice has the values of both.
    #[must_use]
    pub fn new(dn: String, attributes: impl IntoIterator<Item = (String, Vec<Vec<u8>>)>) -> Self {
        let mut entry = Self { dn, attributes: BTreeMap::new() };
        for (description, values) in attributes {
            let binary = is_binary(&description);
            let values = values.into_iter().map(|value| Value::of(value, binary));
            entry.attributes.entry(description).or_default().extend(values);
        }
        entry
    }
}

impl Value {
    /// Its bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    fn of(bytes: Vec<u8>, binary: bool) -> Self {
        if binary {
            return Self::Bytes(bytes);
        }
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) => Self::Text(text),
            Ok(text) => Self::Bytes(text.into_bytes()),
            Err(error) => Self::Bytes(error.into_bytes()),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Encoded {
            base64: String,
        }
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => Encoded { base64: STANDARD.encode(bytes) }.serialize(serializer),
        }
    }
}

impl Ended {
    /// An end by its code.
    #[must_use]
    pub fn new(code: u32, matched: String, message: String) -> Self {
        Self { code, name: result_name(code), matched, message }
    }

    /// Whether what was found is right, as far as it goes: the end, or a limit of the directory's or the search's.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == 0 || self.is_limit()
    }

    /// Whether a limit of time, of entries or of the directory's own ended it.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(self.code, 3 | 4 | 11)
    }
}

/// `;binary` says so (RFC 4522), and some attributes are never anything else.
fn is_binary(description: &str) -> bool {
    let mut parts = description.split(';');
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    BINARY.binary_search(&name.as_str()).is_ok() || parts.any(|option| option.eq_ignore_ascii_case("binary"))
}

/// The name of a result's code (RFC 4511, appendix A).
fn result_name(code: u32) -> &'static str {
    match code {
        0 => "success",
        1 => "operationsError",
        2 => "protocolError",
        3 => "timeLimitExceeded",
        4 => "sizeLimitExceeded",
        5 => "compareFalse",
        6 => "compareTrue",
        7 => "authMethodNotSupported",
        8 => "strongerAuthRequired",
        10 => "referral",
        11 => "adminLimitExceeded",
        12 => "unavailableCriticalExtension",
        13 => "confidentialityRequired",
        14 => "saslBindInProgress",
        16 => "noSuchAttribute",
        17 => "undefinedAttributeType",
        18 => "inappropriateMatching",
        19 => "constraintViolation",
        20 => "attributeOrValueExists",
        21 => "invalidAttributeSyntax",
        32 => "noSuchObject",
        33 => "aliasProblem",
        34 => "invalidDNSyntax",
        36 => "aliasDereferencingProblem",
        48 => "inappropriateAuthentication",
        49 => "invalidCredentials",
        50 => "insufficientAccessRights",
        51 => "busy",
        52 => "unavailable",
        53 => "unwillingToPerform",
        54 => "loopDetect",
        64 => "namingViolation",
        65 => "objectClassViolation",
        66 => "notAllowedOnNonLeaf",
        67 => "notAllowedOnRDN",
        68 => "entryAlreadyExists",
        69 => "objectClassModsProhibited",
        71 => "affectsMultipleDSAs",
        80 => "other",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(attributes: &[(&str, &[u8])]) -> String {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), vec![value.to_vec()]));
        serde_json::to_string(&Entry::new("cn=x".to_owned(), attributes).attributes).unwrap()
    }

    #[test]
    fn a_value_is_text_if_it_can_be_read_and_base64_if_not() {
        assert_eq!(json(&[("cn", "Łukasz\n".as_bytes())]), r#"{"cn":["Łukasz\n"]}"#);
        assert_eq!(json(&[("cn", b"\xff")]), r#"{"cn":[{"base64":"/w=="}]}"#);
        assert_eq!(json(&[("cn", b"a\0b")]), r#"{"cn":[{"base64":"YQBi"}]}"#);
        // A SID of Everyone, all of it UTF-8; a GUID of letters.
        assert_eq!(json(&[("objectSid", b"abc")]), r#"{"objectSid":[{"base64":"YWJj"}]}"#);
        assert_eq!(json(&[("OBJECTGUID", b"abc")]), r#"{"OBJECTGUID":[{"base64":"YWJj"}]}"#);
        assert_eq!(json(&[("cn;lang-de;Binary", b"abc")]), r#"{"cn;lang-de;Binary":[{"base64":"YWJj"}]}"#);
        assert_eq!(json(&[("member;range=0-1499", b"cn=x")]), r#"{"member;range=0-1499":["cn=x"]}"#);
        assert!(BINARY.is_sorted());
    }

    #[test]
    fn a_description_that_is_there_twice_has_all_values() {
        assert_eq!(json(&[("cn", b"a"), ("sn", b"s"), ("cn", b"b")]), r#"{"cn":["a","b"],"sn":["s"]}"#);
    }

    #[test]
    fn a_limit_is_no_error() {
        let ended = |code| Ended::new(code, String::new(), String::new());
        assert!(ended(4).is_success() && ended(0).is_success() && !ended(32).is_success());
        assert_eq!(serde_json::to_string(&ended(32)).unwrap(), r#"{"code":32,"name":"noSuchObject"}"#);
    }
}
