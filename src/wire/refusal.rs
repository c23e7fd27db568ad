//! Why a stream was not opened, or how it ended: a code and a detail, as they travel. Refuses to decide anything.

use std::fmt;

use super::codec::{Malformed, Wire};
use crate::base::code::{Code, Failure};
use crate::base::id::printable;
use crate::base::limits::MAX_DETAIL;

/// The answer "no" of any step of the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub code: Code,
    /// On what, and why. Printable.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its detail.
    pub fn new(code: Code, detail: impl fmt::Display) -> Self {
        Self { code, detail: printable(&detail.to_string(), MAX_DETAIL) }
    }

    /// Whether another agent of the group may be tried.
    #[must_use]
    pub fn elsewhere(&self) -> bool {
        self.code.elsewhere()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code, failure.detail)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.detail)
    }
}

/// `message Refused { string code = 1; string detail = 2; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct RefusedProto {
    /// A name of the codes' table.
    #[prost(string, tag = "1")]
    pub code: String,
    /// At most 512 characters.
    #[prost(string, tag = "2")]
    pub detail: String,
}

impl Wire for Refusal {
    type Proto = RefusedProto;

    fn to_proto(&self) -> RefusedProto {
        RefusedProto { code: self.code.as_str().to_owned(), detail: self.detail.clone() }
    }

    /// A code that a newer peer has and we don't becomes `internal`, its name kept in the detail: nothing is retried on it.
    fn from_proto(proto: RefusedProto) -> Result<Self, Malformed> {
        Ok(match proto.code.parse() {
            Ok(code) => Self::new(code, proto.detail),
            Err(_) => Self::new(Code::Internal, format_args!("{}: {}", printable(&proto.code, 64), proto.detail)),
        })
    }
}
