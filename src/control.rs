//! What the operator decides and the gateway remembers: tenants, groups, tokens, agents, revocations; their store, and the API
//! that changes them. Control publishes snapshots, the data plane reads them and runs on without it.
//! It refuses to know streams, sessions and sockets.

pub mod records;
pub mod store;
