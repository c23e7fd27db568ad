//! What a target's `allow:` says, and whether it permits a request: the grammar and its pure evaluator, for the configuration,
//! the agent and `agent check --explain`. Refuses to know sockets, files and who asks.

pub mod http;
pub mod ldap;
pub mod path;

use serde::{Deserialize, Deserializer};

/// A key that is there says something: one with nothing behind it (`allow:` and no more, or `null`) is a mistake, and not the same as
/// leaving it out, which permits more.
///
/// # Errors
/// What the value's own form says.
pub(crate) fn said<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
