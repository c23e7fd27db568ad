//! What the enrollment route asks of whoever issues certificates: the data plane imports no control, so control implements this.
//! Refuses to know tokens and certificates.

use std::net::IpAddr;
use std::pin::Pin;

use time::OffsetDateTime;

use crate::base::code::Failure;
use crate::base::endpoint::Endpoint;
use crate::base::id::{AgentId, Name};
use crate::base::secret::Secret;

/// What an enrollment will yield.
pub type Enrolling<'a> = Pin<Box<dyn Future<Output = Result<Enrolled, Failure>> + Send + 'a>>;

/// Whoever issues certificates to agents.
pub trait Issuer: Send + Sync + 'static {
    /// Redeems a token. Fails with what the asker may be told: `token_refused`, `token_expired`, `csr_invalid`, `enroll_limited`,
    /// `revoked`, or `enroll_refused` for what is not its business.
    fn enroll(&self, ask: EnrollAsk) -> Enrolling<'_>;
}

/// What an agent sends, as it came.
#[derive(Clone, Debug)]
pub struct EnrollAsk {
    /// The token's secret.
    pub secret: Secret,
    /// The certificate signing request, DER.
    pub csr: Vec<u8>,
    /// The name that it wishes for.
    pub agent: Option<Name>,
    /// Where it asks from.
    pub source: IpAddr,
}

/// What an agent gets.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Who it is from now on.
    pub agent: AgentId,
    /// Leaf, issuing CA and root.
    pub chain_pem: String,
    /// When the leaf ends.
    pub not_after: OffsetDateTime,
    /// Every gateway that it may dial.
    pub endpoints: Vec<Endpoint>,
}
