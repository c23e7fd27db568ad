//! `allow:` of an LDAP target as it is written: its keys, their defaults, and which mistakes are refused. Refuses to decide anything.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Referrals, Rules};
use crate::base::code::{Code, Failure};
use crate::base::id::printable;
use crate::base::limits::{
    LDAP_FILTER_DEPTH, LDAP_FILTER_DEPTH_DEFAULT, LDAP_FILTER_TERMS, LDAP_FILTER_TERMS_DEFAULT, MAX_RULE_LIST,
};
use crate::ldap::attribute::{Attribute, is_oid};
use crate::ldap::dn::Dn;
use crate::ldap::message::Operation;
use crate::ldap::message::answer::START_TLS;
use crate::ldap::message::request::Scope;
use crate::rules::said;

/// Attributes that hold secrets, or what secrets can be made of: never read and never written, whatever else is permitted.
pub const DENIED_ATTRIBUTES: &[&str] = &[
    "userPassword",
    "unicodePwd",
    "ms-Mcs-AdmPwd",
    "msLAPS-Password",
    "msLAPS-EncryptedPassword",
    "msLAPS-EncryptedPasswordHistory",
    "msLAPS-EncryptedDSRMPassword",
    "msLAPS-EncryptedDSRMPasswordHistory",
    "msDS-ManagedPassword",
    "msDS-ExecuteScriptPassword",
    "dBCSPwd",
    "lmPwdHistory",
    "ntPwdHistory",
    "supplementalCredentials",
    "unixUserPassword",
    "msSFU30Password",
    "clearTextPassword",
    "currentValue",
    "priorValue",
    "initialAuthIncoming",
    "initialAuthOutgoing",
    "trustAuthIncoming",
    "trustAuthOutgoing",
    "pekList",
    "msFVE-RecoveryPassword",
    "msFVE-KeyPackage",
    "msTPM-OwnerInformation",
    "msTPM-OwnerInformationTemp",
    "msKds-RootKeyData",
    "msPKIDPAPIMasterKeys",
    "msPKIAccountCredentials",
    "msPKI-CredentialRoamingTokens",
    "authPassword",
    "pwdHistory",
    "userPKCS12",
    "userPKCS8",
    "sambaLMPassword",
    "sambaNTPassword",
    "sambaPasswordHistory",
    "sambaClearTextPassword",
    "sambaPreviousClearTextPassword",
    "krbPrincipalKey",
    "krbMKey",
    "krb5Key",
    "ipaNTHash",
    "ipatokenOTPkey",
    "nsslapd-rootpw",
    "nsDS5ReplicaCredentials",
    "olcRootPW",
    "olcSyncrepl",
    "olcDbIDAssertBind",
    "olcDbACLBind",
];

/// Controls that pass unless the site lists others: they change how results come, not which, and what they name is looked at.
pub const HARMLESS_CONTROLS: &[&str] = &[
    // Results in pages (RFC 2696), sorted (RFC 2891), by windows.
    "1.2.840.113556.1.4.319",
    "1.2.840.113556.1.4.473",
    "2.16.840.1.113730.3.4.9",
    // Entries that refer elsewhere are treated as entries (RFC 3296); no referral is made up.
    "2.16.840.1.113730.3.4.2",
    "1.2.840.113556.1.4.1339",
    // Which parts of a security descriptor are wanted; attributes in ranges; a modify that is done already.
    "1.2.840.113556.1.4.801",
    "1.2.840.113556.1.4.1948",
    "1.2.840.113556.1.4.1413",
    // Which values are wanted (RFC 3876); a condition (RFC 4528): their filters are looked at.
    "1.2.826.0.1.3344810.2.3",
    "1.3.6.1.1.12",
    // How a bind's password stands; no copies (RFC 6171).
    "1.3.6.1.4.1.42.2.27.8.5.1",
    "1.3.6.1.1.22",
];

/// Controls that can't be permitted: their answers hold attributes, or name entries, that no rule sees.
const UNSEEN_CONTROLS: &[&str] = &["1.3.6.1.4.1.4203.666.5.16", "1.2.840.113556.1.4.1504"];

/// `allow:` as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    /// What may be done. Default search and compare.
    pub(super) operations: Vec<Operation>,
    /// At or below which entries. Default any.
    #[serde(skip_serializing_if = "Bases::is_empty")]
    pub(super) base: Bases,
    /// How far a search may go. Default subtree.
    pub(super) scope: Scope,
    /// The attributes that may be read and asked about. Default all that are not denied.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub(super) attributes: Option<Vec<String>>,
    /// Further attributes that may be neither read nor written, beside [`DENIED_ATTRIBUTES`]. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) deny_attributes: Vec<String>,
    /// The attributes that modify, add and modifyDN may write. Needed for these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) modify_attributes: Vec<String>,
    /// Terms of a filter. Default 1024.
    pub(super) filter_size: usize,
    /// How deep a filter may be. Default 16.
    pub(super) filter_depth: usize,
    /// Entries that a search may ask for; a search for more, or any number, is made one for so many. Default none.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub(super) size_limit: Option<u32>,
    /// How long a search may take; the same. Whole seconds. Default none.
    #[serde(with = "seconds", skip_serializing_if = "Option::is_none")]
    pub(super) time_limit: Option<u32>,
    /// OIDs of the controls that may pass. Default [`HARMLESS_CONTROLS`].
    pub(super) controls: Vec<String>,
    /// OIDs of the extended operations that may pass. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) extended: Vec<String>,
    /// Whether clients are told of other directories. Default drop.
    pub(super) referrals: Referrals,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            operations: vec![Operation::Search, Operation::Compare],
            base: Bases::default(),
            scope: Scope::Subtree,
            attributes: None,
            deny_attributes: Vec::new(),
            modify_attributes: Vec::new(),
            filter_size: LDAP_FILTER_TERMS_DEFAULT,
            filter_depth: LDAP_FILTER_DEPTH_DEFAULT,
            size_limit: None,
            time_limit: None,
            controls: HARMLESS_CONTROLS.iter().map(ToString::to_string).collect(),
            extended: Vec::new(),
            referrals: Referrals::Drop,
        }
    }
}

impl TryFrom<Raw> for Rules {
    type Error = Failure;

    fn try_from(raw: Raw) -> Result<Self, Failure> {
        raw.check()?;
        let defaults = DENIED_ATTRIBUTES.iter().map(|name| Attribute::of(name.as_bytes()).expect("each is a name"));
        let mut denied: HashSet<_> = defaults.collect();
        denied.extend(attributes("deny_attributes", &raw.deny_attributes, false)?);
        let subtypes: Vec<_> =
            Attribute::all_known().filter(|known| known.superiors().any(|superior| denied.contains(&superior))).collect();
        denied.extend(subtypes);
        let allowed = raw.attributes.as_ref().map(|names| attributes("attributes", names, true)).transpose()?;
        let writable = attributes("modify_attributes", &raw.modify_attributes, true)?;
        for (key, names) in [("attributes", allowed.as_ref()), ("modify_attributes", Some(&writable))] {
            if let Some(both) = names.into_iter().flatten().find(|name| denied.contains(name)) {
                return Err(wrong(key, format_args!("`{both}` is denied, by `deny_attributes` or because it holds secrets")));
            }
        }
        let mut rules = Self { raw, allowed, denied, revealing: HashSet::new(), writable };
        let unseen = Attribute::all_known().filter(|known| !rules.is_readable(known));
        rules.revealing = unseen.flat_map(|known| known.superiors().collect::<Vec<_>>()).collect();
        if !rules.raw.deny_attributes.is_empty() && rules.allowed.is_none() {
            // Active Directory's `anr` looks at several attributes at once.
            rules.revealing.insert(Attribute::of(b"anr").expect("it is a name"));
        }
        Ok(rules)
    }
}

impl From<Rules> for Raw {
    fn from(rules: Rules) -> Self {
        rules.raw
    }
}

impl Raw {
    fn check(&self) -> Result<(), Failure> {
        let lists = [
            ("operations", self.operations.len()),
            ("base", self.base.0.len()),
            ("attributes", self.attributes.as_ref().map_or(1, Vec::len)),
            ("deny_attributes", self.deny_attributes.len()),
            ("modify_attributes", self.modify_attributes.len()),
            ("controls", self.controls.len()),
            ("extended", self.extended.len()),
        ];
        if let Some((key, _)) = lists.into_iter().find(|(_, length)| *length > MAX_RULE_LIST) {
            return Err(wrong(key, format_args!("at most {MAX_RULE_LIST} entries")));
        }
        within("filter_size", self.filter_size, LDAP_FILTER_TERMS)?;
        within("filter_depth", self.filter_depth, LDAP_FILTER_DEPTH)?;
        if self.size_limit.is_some_and(|limit| !(1..=i32::MAX.unsigned_abs()).contains(&limit)) {
            return Err(wrong("size_limit", "at least 1"));
        }
        self.check_oids()?;
        let writes = [Operation::Modify, Operation::Add, Operation::ModifyDn];
        match self.operations.iter().find(|operation| writes.contains(operation)) {
            Some(operation) if self.modify_attributes.is_empty() => {
                Err(wrong("operations", format_args!("`{operation}` needs `modify_attributes`: what it may write")))
            }
            None if !self.modify_attributes.is_empty() => Err(wrong(
                "modify_attributes",
                "`operations` has neither modify nor add nor modify_dn, which alone would use it",
            )),
            _ => Ok(()),
        }
    }

    fn check_oids(&self) -> Result<(), Failure> {
        for (key, list) in [("controls", &self.controls), ("extended", &self.extended)] {
            if let Some(other) = list.iter().find(|oid| !is_oid(oid)) {
                return Err(wrong(key, format_args!("`{}` is no OID", printable(other, 64))));
            }
        }
        if let Some(oid) = self.controls.iter().find(|oid| UNSEEN_CONTROLS.contains(&oid.as_str())) {
            return Err(wrong("controls", format_args!("{oid} can't be permitted: its answers hold what no rule sees")));
        }
        if self.extended.iter().any(|oid| oid == START_TLS) {
            return Err(wrong("extended", "StartTLS can't be permitted: the agent itself speaks TLS with the directory"));
        }
        match (self.operations.contains(&Operation::Extended), self.extended.is_empty()) {
            (true, true) => Err(wrong("operations", "`extended` needs the list `extended`: the OIDs of what may pass")),
            (false, false) => Err(wrong("extended", "`operations` has no `extended`, without which none of them passes")),
            _ => Ok(()),
        }
    }
}

fn wrong(key: &str, why: impl fmt::Display) -> Failure {
    Failure::new(Code::ConfigInvalid, format_args!("`allow.{key}`: {why}"))
}

fn within(key: &str, value: usize, max: usize) -> Result<(), Failure> {
    if (1..=max).contains(&value) { Ok(()) } else { Err(wrong(key, format_args!("from 1 to {max}"))) }
}

/// The attributes of a list. An OID whose name is not known here says nothing about an attribute that is spelled by name, so it can permit
/// that spelling of it, but deny nothing.
fn attributes(key: &str, names: &[String], oids: bool) -> Result<HashSet<Attribute>, Failure> {
    let one = |name: &String| {
        let shown = printable(name, 64);
        if name.contains(';') {
            return Err(wrong(key, format_args!("`{shown}`: leave the options out, a rule is for all of them")));
        }
        let attribute = Attribute::of(name.as_bytes()).map_err(|_| wrong(key, format_args!("`{shown}` is no attribute")))?;
        if attribute.is_unknown_oid() && !oids {
            let why = format_args!("`{shown}`: the name of this OID is not known here; write the attribute's names");
            return Err(wrong(key, why));
        }
        Ok(attribute)
    };
    names.iter().map(one).collect()
}

/// One DN or several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Bases(pub(super) Vec<Dn>);

impl Bases {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Bases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Bases;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a DN or a list of DNs")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bases, E> {
                read(text).map(|dn| Bases(vec![dn]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bases, A::Error> {
                let mut bases = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    bases.push(read(&text)?);
                }
                if bases.is_empty() {
                    return Err(A::Error::custom(wrong(
                        "base",
                        "a list of no DN; leave the key out if any entry may be reached",
                    )));
                }
                Ok(Bases(bases))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

fn read<E: Error>(text: &str) -> Result<Dn, E> {
    text.parse().map_err(|why| E::custom(wrong("base", format_args!("`{}`: {why}", printable(text, 128)))))
}

/// A duration of whole seconds, or none.
mod seconds {
    use super::{Deserialize, Deserializer, Duration, Error, Serialize, Serializer, printable, wrong};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "none" {
            return Ok(None);
        }
        let duration = humantime::parse_duration(&text).ok().filter(|time| time.subsec_nanos() == 0 && *time > Duration::ZERO);
        let seconds = duration.and_then(|time| i32::try_from(time.as_secs()).ok());
        let why = format_args!("`{}` is no number of whole seconds, such as 10s or 2m", printable(&text, 64)).to_string();
        seconds.map(|seconds| Some(seconds.unsigned_abs())).ok_or_else(|| D::Error::custom(wrong("time_limit", why)))
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map_or_else(|| "none".to_owned(), |seconds| format!("{seconds}s")).serialize(serializer)
    }
}
