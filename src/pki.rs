//! The private certificate authority and mutual authentication: who may be a gateway or an agent, and how each proves it.
//! Refuses to know the network, the store of agents and the enrollment protocol: it takes and gives certificates, keys and
//! [`rustls`] configurations.
//!
//! A root (20 years) signs an issuing CA (5 years), which signs gateways (90 days) and agents (as long as the caller says). A
//! leaf's role is its one URI; the gateway's verifier wants an agent's, the agent's verifier a gateway's, both of their own trust
//! domain and under the one root that they hold. Names are not looked up, and no other root is ever asked.

pub mod authority;
pub mod identity;
pub mod pem;
pub mod pin;
pub mod renew;
pub mod request;
pub mod revoke;
pub mod tls;

#[cfg(test)]
#[path = "../certs/hostile.rs"]
pub(crate) mod hostile;
