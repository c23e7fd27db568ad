//! The mux among others: two independent implementations of yamux, and itself. Both roles, pipes that cut bytes anywhere, a gigabyte
//! each way. `tests/run` installs Go and its library; without the feature `yamux-crate` none of this is compiled.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise, with its place")]

mod bulk;
mod end;
mod go;
mod programs;
mod reference;
