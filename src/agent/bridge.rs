//! From a stream to its target: what is spoken decides which of these joins them. It refuses to decide who may.

pub mod http;
pub mod ldap;
pub mod resolve;
pub mod tcp;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use self::resolve::Resolver;
use super::Agent;
use super::floor::Floor;
use super::policy::Permit;
use crate::tunnel::ledger::Ledger;
use crate::tunnel::mux::Stream;
use crate::wire::open::Open;

/// What connecting needs beside a permit.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// Names to addresses.
    pub resolver: &'a Resolver,
    /// Addresses to those that may be dialled.
    pub floor: &'a Floor,
    /// How long all of it may take.
    pub limit: Duration,
}

/// An accepted stream whose bytes the agent reads itself.
pub struct Hop {
    /// The agent.
    pub agent: Arc<Agent>,
    /// The leave to reach its target; what may be asked is [`Permit::service`], at each request anew.
    pub permit: Arc<Permit>,
    /// What the gateway asked.
    pub open: Open,
    /// The stream, and what was read of it already.
    pub stream: Stream,
    /// See `stream`.
    pub early: BytesMut,
    /// Counts the stream's bytes.
    pub ledger: Arc<Ledger<()>>,
}
