//! The vocabulary that every room shares: names, grants, codes, limits, waiting, owning tasks, keeping secrets.
//! It refuses to know sockets, TLS and messages, and of files anything but who may touch them.

pub mod allow;
pub mod backoff;
pub mod code;
pub mod drain;
pub mod endpoint;
pub mod files;
pub mod floor;
pub mod grant;
pub mod id;
pub mod light;
pub mod limits;
pub mod memory;
pub mod random;
pub mod scope;
pub mod secret;
pub mod size;
pub mod suspend;
pub mod tasks;
pub mod throttle;
