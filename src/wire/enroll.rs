//! The two JSON bodies of `POST /v1/enroll`. Refuses to know what a certificate is.

use serde::{Deserialize, Serialize};

/// The one route behind ALPN `underpass-enroll/1`.
pub const PATH: &str = "/v1/enroll";

/// What an agent sends. Only the public key of the request counts; the gateway decides the rest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The token's secret, base64url without padding.
    pub secret: String,
    /// The certificate signing request (PKCS #10, DER), base64 with padding.
    pub csr: String,
    /// The agent's wished name; the gateway makes one up without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What the gateway answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct EnrollResponse {
    /// `tenant/group/agent`.
    pub agent: String,
    /// Leaf, issuing CA, root, as PEM.
    pub chain: String,
    /// RFC 3339.
    pub not_after: String,
    /// Every endpoint of the gateway.
    pub endpoints: Vec<String>,
}

/// Any refusal over HTTP, here and on the admin sockets.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A name of the codes' table.
    pub code: String,
    /// On what, and why.
    pub detail: String,
    /// What the code means.
    #[serde(default)]
    pub cause: String,
    /// What to do.
    #[serde(default)]
    pub remedy: String,
}
