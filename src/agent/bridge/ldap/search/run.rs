//! One search with the client library: login, then page by page until its end or a limit. It runs only while somebody asks for what it
//! finds next, so that whoever takes nothing holds it up, and it is over when it is dropped. It refuses to know how what is found is told.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ldap3::asn1::{PL, StructureTag};
use ldap3::controls::{Control, ControlType, PagedResults, RawControl};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, ResultEntry, SearchOptions, StdStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::{self as ldap, Directory};
use super::answer::Problem;
use super::guard::{Guard, Taken};
use crate::agent::Agent;
use crate::agent::bridge::Way;
use crate::agent::policy::Permit;
use crate::base::code::Code;
use crate::base::limits::SEARCH_GRACE;
use crate::ldap::message::request::Scope;
use crate::ldap::search::found::{Ended, Entry, Summary};
use crate::ldap::search::{Bind, Query};
use crate::wire::refusal::Refusal;

/// Something that a search has come to.
#[derive(Debug)]
pub(super) enum Event {
    /// An entry.
    Entry(Entry),
    /// Where else to search.
    Reference(Vec<String>),
    /// The end; nothing comes behind it.
    End(Result<Summary, Problem>),
}

/// A search under way.
pub(super) struct Search {
    work: Option<Pin<Box<dyn Future<Output = Result<Summary, Problem>> + Send>>>,
    found: mpsc::Receiver<Event>,
}

impl Search {
    /// Begins it; the connection is made when the first event is asked for.
    pub(super) fn begin(agent: Arc<Agent>, permit: Arc<Permit>, query: Query) -> Self {
        Self::of(query.time_limit, async move |sender: mpsc::Sender<Event>| {
            let limit = Duration::from_secs(query.time_limit.into());
            let way = Way { resolver: &agent.resolver, floor: &agent.settings.floor, limit };
            let Directory { stream, .. } = Box::pin(ldap::connect(&permit, way)).await?;
            over(stream, query, sender).await
        })
    }
}
