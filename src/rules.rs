//! What a target's `allow:` says, and whether it permits a request: the grammar and its pure evaluator, for the configuration,
//! the agent and `agent check --explain`. Refuses to know sockets, files and who asks.

pub mod http;
pub mod ldap;
pub mod path;
