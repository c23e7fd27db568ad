//! What the target of a case serves. Refuses to know who serves it and how.

use serde::{Deserialize, Serialize};

/// What is spoken with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Service {
    /// Bytes that are echoed, sent or swallowed.
    Bytes,
    /// HTTP/1.1: small answers, and large bodies both ways.
    Http,
    /// HTTP/2 by prior knowledge: one stream of messages each way, as gRPC has them.
    Stream,
    /// LDAP, with TLS and without.
    Directory,
}

impl Service {
    /// The program that serves it, unless the harness does.
    pub(crate) fn program(self) -> Option<&'static str> {
        (self == Self::Directory).then_some("slapd")
    }
}
