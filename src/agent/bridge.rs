//! From a [`Permit`](super::policy::Permit) to the target's own connection. It refuses to decide who may have one.

pub mod resolve;
pub mod tcp;
