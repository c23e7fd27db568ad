//! Where control's records are kept: keyed bytes with revisions, compare-and-set, atomic batches, and a watch. An embedded file
//! and a distributed key-value engine can both give that. Refuses to know what the bytes mean; nothing outside `store/` knows SQL.

pub mod sqlite;

use std::fmt;
use std::pin::Pin;

use tokio::sync::watch;

use crate::base::code::Failure;

/// What an operation of the store will yield.
pub type Answer<'a, T, E = Failure> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// A store of keyed records.
///
/// Whatever was committed is durable before its answer comes, and every later read sees it. Operations fail with `store_failed`
/// and then have changed nothing.
pub trait Store: Send + Sync + 'static {
    /// One record, if it is there.
    fn get(&self, key: Key) -> Answer<'_, Option<Entry>>;

    /// Every record of a kind, in the order of their ids.
    fn list(&self, kind: Kind) -> Answer<'_, Vec<Entry>>;

    /// Makes all the changes, or none if an expectation does not hold. Yields the revision that the changed records now have.
    /// A batch names each key at most once.
    fn commit(&self, batch: Vec<Write>) -> Answer<'_, Revision, CommitError>;

    /// Shows the latest revision at which a record of the kind changed. Changes that follow each other fast are seen as one.
    fn watch(&self, kind: Kind) -> watch::Receiver<Revision>;
}

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A customer organisation.
    Tenant,
    /// A group of interchangeable agents.
    Group,
    /// An enrolled agent.
    Agent,
    /// A certificate that was issued to an agent.
    Serial,
    /// An enrollment token.
    Token,
    /// A certificate that counts no more.
    Revocation,
    /// What a client logs in with.
    ClientToken,
    /// Agents that are not let in for a while.
    Disabled,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Tenant,
        Self::Group,
        Self::Agent,
        Self::Serial,
        Self::Token,
        Self::Revocation,
        Self::ClientToken,
        Self::Disabled,
    ];

    /// The name that it is stored under; never changed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Group => "group",
            Self::Agent => "agent",
            Self::Serial => "serial",
            Self::Token => "token",
            Self::Revocation => "revocation",
            Self::ClientToken => "client-token",
            Self::Disabled => "disabled",
        }
    }
}

/// Names one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Which one; never a secret.
    pub id: String,
}

impl Key {
    /// The key of a record.
    pub fn new(kind: Kind, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.id)
    }
}

/// Counts the commits of a store; each record carries the one that wrote it. Never used twice, also for a record that was
/// deleted and made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// A record as the store gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which one of its kind.
    pub id: String,
    /// The commit that wrote it.
    pub revision: Revision,
    /// Its content, at most [`crate::base::limits::MAX_RECORD`] bytes.
    pub value: Vec<u8>,
}

/// What must be true of a record for a batch to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// It is not there.
    Absent,
    /// It is there and unchanged since it was read.
    At(Revision),
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The record.
    pub key: Key,
    /// On which condition.
    pub expect: Expect,
    /// Its new content, or `None` to delete it.
    pub value: Option<Vec<u8>>,
}

/// Why nothing was committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The expectation about this record does not hold: read it again and decide anew.
    #[error("{0} was changed meanwhile")]
    Conflict(Key),
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
