//! The vocabulary that every room shares: names, codes, limits, waiting, owning tasks, keeping secrets.
//! It refuses to know sockets, files, TLS and messages.

pub mod backoff;
pub mod code;
pub mod drain;
pub mod endpoint;
pub mod id;
pub mod limits;
pub mod secret;
pub mod tasks;
