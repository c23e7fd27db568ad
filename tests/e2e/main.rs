//! End-to-end and attack tests: real `underpass` processes between real servers and clients. A test of an attack, fault or
//! pain carries its row in its name (`s4_…`, `t1_…`, `c11_…`).
//!
//! `tests/run` installs the servers and runs this in a sandbox; a test whose server is missing fails.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise, with its place")]
#![allow(clippy::print_stderr, reason = "a failed test shows what its processes said")]

mod fixtures;
mod harness;

mod attacks;
mod cli;
mod clients;
mod connect;
mod enrollment;
mod floods;
mod groups;
mod host;
mod hostile;
mod http;
mod identity;
mod lanes;
mod ldap;
mod lights;
mod limits;
mod network;
mod operate;
mod precedents;
mod proxy;
mod reach;
mod recovery;
mod resume;
mod search;
mod secrets;
mod storm;
mod tokens;
mod traffic;
mod wire;
