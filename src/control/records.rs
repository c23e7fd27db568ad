//! The records that control keeps, and how they become the store's bytes. Refuses to know who changes them and why.

use std::num::NonZeroU32;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::store::{Entry, Expect, Key, Kind, Revision, Store, Write};
use super::text;
use crate::base::code::{Code, Failure};
use crate::base::grant::Grants;
use crate::base::id::{AgentId, GroupId, Name};
use crate::base::scope::Scope;
use crate::gateway::callers::TokenHash;
use crate::pki::identity::Serial;

/// What can be kept: JSON in the store, so that support staff can read it. An unknown field is an error, since writing the
/// record again would lose it.
pub(super) trait Record: Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: Kind;

    /// Which one of its kind.
    fn id(&self) -> String;

    /// The change that keeps it.
    fn put(&self, expect: Expect) -> Write {
        let value = serde_json::to_vec(self).expect("records have text keys and times of four-digit years");
        Write { key: Key::new(Self::KIND, self.id()), expect, value: Some(value) }
    }
}

/// A record as it was read.
#[derive(Clone, Debug)]
pub(super) struct Stored<R> {
    pub(super) revision: Revision,
    pub(super) record: R,
}

impl<R: Record> Stored<R> {
    /// The change that deletes it, if nobody changes it before.
    pub(super) fn delete(&self) -> Write {
        Write { key: Key::new(R::KIND, self.record.id()), expect: Expect::At(self.revision), value: None }
    }

    /// That nobody else changes it before.
    pub(super) fn unchanged(&self) -> Expect {
        Expect::At(self.revision)
    }

    fn read(entry: &Entry) -> Result<Self, Failure> {
        let broken = |why: &dyn std::fmt::Display| {
            Failure::new(Code::StoreFailed, format_args!("the {} `{}` cannot be read: {why}", R::KIND.as_str(), entry.id))
        };
        let record: R = serde_json::from_slice(&entry.value).map_err(|error| broken(&error))?;
        if record.id() != entry.id {
            return Err(broken(&"it is filed under another's name"));
        }
        Ok(Self { revision: entry.revision, record })
    }
}

/// Reads one record.
pub(super) async fn get<R: Record>(store: &dyn Store, id: impl Into<String>) -> Result<Option<Stored<R>>, Failure> {
    store.get(Key::new(R::KIND, id)).await?.as_ref().map(Stored::read).transpose()
}

/// Reads every record of a kind.
pub(super) async fn list<R: Record>(store: &dyn Store) -> Result<Vec<Stored<R>>, Failure> {
    store.list(R::KIND).await?.iter().map(Stored::read).collect()
}

macro_rules! record {
    ($name:ident $kind:ident |$self:ident| $id:expr) => {
        impl Record for $name {
            const KIND: Kind = Kind::$kind;
            fn id(&$self) -> String {
                $id
            }
        }
    };
}

/// A customer organisation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tenant {
    pub(super) name: Name,
    #[serde(with = "text::utc")]
    pub(super) created: OffsetDateTime,
}

record!(Tenant Tenant |self| self.name.to_string());

/// A group of a tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) tenant: Name,
    pub(super) name: Name,
    #[serde(with = "text::utc")]
    pub(super) created: OffsetDateTime,
}

record!(Group Group |self| format!("{}/{}", self.tenant, self.name));

/// An enrolled agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    #[serde(with = "text")]
    pub(super) id: AgentId,
    #[serde(with = "text::utc")]
    pub(super) created: OffsetDateTime,
    /// The latest certificate.
    pub(super) serial: Serial,
    /// Earlier ones that have not expired: they still count until they are revoked.
    pub(super) superseded: Vec<Serial>,
    /// When all of them were revoked; absent after a new enrollment.
    #[serde(with = "text::optional_utc")]
    pub(super) revoked: Option<OffsetDateTime>,
}

record!(Agent Agent |self| self.id.to_string());

impl Agent {
    /// Every certificate that may still be valid.
    pub(super) fn serials(&self) -> impl Iterator<Item = Serial> + '_ {
        self.superseded.iter().chain([&self.serial]).copied()
    }
}

/// An issued certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SerialRecord {
    pub(super) serial: Serial,
    #[serde(with = "text")]
    pub(super) agent: AgentId,
    /// SHA-256 of its public key (SPKI, DER), in hexadecimal.
    pub(super) spki_sha256: String,
    #[serde(with = "text::utc")]
    pub(super) issued: OffsetDateTime,
    #[serde(with = "text::utc")]
    pub(super) not_after: OffsetDateTime,
}

record!(SerialRecord Serial |self| self.serial.to_string());

/// An enrollment token. What is kept doesn't help to guess the secret: it has 256 random bits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    /// The first 16 digits of `secret_sha256`: names the token in audit and log.
    pub(super) id: String,
    /// SHA-256 of the secret, in hexadecimal.
    pub(super) secret_sha256: String,
    pub(super) tenant: Name,
    pub(super) group: Name,
    #[serde(with = "text::utc")]
    pub(super) created: OffsetDateTime,
    #[serde(with = "text::utc")]
    pub(super) expires: OffsetDateTime,
    /// Who made it.
    pub(super) by: String,
    pub(super) used: Option<Redemption>,
}

record!(Token Token |self| self.id.clone());

impl Token {
    /// The group that it enrolls into.
    pub(super) fn group(&self) -> GroupId {
        GroupId { tenant: self.tenant.clone(), group: self.group.clone() }
    }
}

/// What a token was used for: enough to give the same answer again when the first was lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Redemption {
    /// SHA-256 of the public key that it was used with, in hexadecimal.
    pub(super) spki_sha256: String,
    #[serde(with = "text")]
    pub(super) agent: AgentId,
    pub(super) serial: Serial,
    /// Leaf, issuing CA, root.
    pub(super) chain_pem: String,
    #[serde(with = "text::utc")]
    pub(super) not_after: OffsetDateTime,
}

/// A certificate that counts no more.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    pub(super) serial: Serial,
    #[serde(with = "text")]
    pub(super) agent: AgentId,
    #[serde(with = "text::utc")]
    pub(super) at: OffsetDateTime,
    /// Who revoked it.
    pub(super) by: String,
    /// When the certificate ends by itself.
    #[serde(with = "text::utc")]
    pub(super) not_after: OffsetDateTime,
}

record!(Revocation Revocation |self| self.serial.to_string());

/// A client token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientToken {
    /// Its caller's.
    pub(super) name: Name,
    /// The hash of its text.
    #[serde(with = "text::hex_bytes")]
    pub(super) sha256: TokenHash,
    pub(super) grants: Grants,
    /// Streams at a time.
    pub(super) max_streams: Option<usize>,
    /// Bytes per second.
    pub(super) rate: Option<NonZeroU32>,
    #[serde(with = "text::utc")]
    pub(super) created: OffsetDateTime,
    #[serde(with = "text::optional_utc")]
    pub(super) expires: Option<OffsetDateTime>,
    /// Who made it.
    pub(super) by: String,
    #[serde(with = "text::optional_utc")]
    pub(super) revoked: Option<OffsetDateTime>,
}

record!(ClientToken ClientToken |self| self.name.to_string());

impl ClientToken {
    /// The first 16 digits of its hash: names the token in audit and lists.
    pub(super) fn public_id(&self) -> String {
        text::hex(&self.sha256[..8])
    }

    /// Since when it counts no more, if it doesn't.
    pub(super) fn ended(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let expired = self.expires.filter(|expires| *expires <= now);
        [self.revoked, expired].into_iter().flatten().min()
    }
}

/// Agents that are not let in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disabled {
    pub(super) scope: Scope,
    #[serde(with = "text::utc")]
    pub(super) at: OffsetDateTime,
    /// Who disabled them.
    pub(super) by: String,
}

record!(Disabled Disabled |self| self.scope.to_string());
