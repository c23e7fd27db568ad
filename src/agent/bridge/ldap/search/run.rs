//! One search with the client library: login, then page by page until its end or a limit. It runs only while somebody asks for what it
//! finds next, so that whoever takes nothing holds it up, and it is over when it is dropped. It refuses to know how what is found is told.
//!
//! The library queues what it reads without end. So it, the guard and whoever empties that queue are one task, in which the queue is
//! emptied before anything more is read: it never holds more than a socket does.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ldap3::asn1::{PL, StructureTag};
use ldap3::controls::{Control, ControlType, PagedResults, RawControl};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, ResultEntry, SearchOptions, StdStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::super::relay::Account;
use super::super::{self as ldap, Books, Directory};
use super::answer::Problem;
use super::guard::Guard;
use crate::agent::Agent;
use crate::agent::bridge::Way;
use crate::agent::policy::{Permit, Service};
use crate::base::code::Code;
use crate::base::id::RequestId;
use crate::base::limits::{SEARCH_BATCH, SEARCH_GRACE};
use crate::ldap::message::request::Scope;
use crate::ldap::search::Query;
use crate::ldap::search::found::{Ended, Entry, Summary};
use crate::wire::open::Open;
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

type End = Result<Summary, Problem>;

impl Event {
    /// About what it takes in memory.
    fn weight(&self) -> usize {
        const PART: usize = 64;
        match self {
            Self::Entry(entry) => PART + entry.attributes.values().flatten().map(|value| PART + value.len()).sum::<usize>(),
            Self::Reference(uris) => uris.iter().map(|uri| PART + uri.len()).sum(),
            Self::End(_) => PART,
        }
    }
}

/// A search under way.
pub(super) struct Search {
    work: Option<Pin<Box<dyn Future<Output = End> + Send>>>,
    end: Option<End>,
    batches: mpsc::Receiver<Vec<Event>>,
    batch: std::vec::IntoIter<Event>,
}

impl Search {
    /// Begins it; the directory is connected when the first event is asked for. What is denied is on record by this id.
    pub(super) fn begin(agent: Arc<Agent>, permit: Arc<Permit>, open: Arc<Open>, request: RequestId, query: Query) -> Self {
        let deadline = deadline(&query);
        Self::of(move |sender| async move {
            if !matches!(&*permit.service(), Service::Ldap(_)) {
                return Err(Refusal::new(Code::TargetKindMismatch, "the target is no directory any more").into());
            }
            let way = Way { resolver: &agent.resolver, floor: &agent.settings.floor, limit: deadline - Instant::now() };
            let Directory { stream, .. } = Box::pin(ldap::connect(&permit, way)).await?;
            let books = Books::new(&agent, &permit, &open, request, None);
            over(stream, Guard::new(permit.target().name.to_string(), books), query, deadline, sender).await
        })
    }

    /// The same over a connection to the directory that is there.
    #[cfg(test)]
    pub(super) fn over<D, A>(directory: D, account: A, query: Query) -> Self
    where
        D: AsyncRead + AsyncWrite + Send + 'static,
        A: Account + Send + Sync + 'static,
    {
        let deadline = deadline(&query);
        Self::of(move |sender| over(directory, Guard::new("hr".to_owned(), account), query, deadline, sender))
    }

    fn of<F: Future<Output = End> + Send + 'static>(work: impl FnOnce(mpsc::Sender<Vec<Event>>) -> F) -> Self {
        let (sender, batches) = mpsc::channel(1);
        Self { work: Some(Box::pin(work(sender))), end: None, batches, batch: Vec::new().into_iter() }
    }

    /// What comes next. May be dropped and asked for again.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.batch.next() {
                return event;
            }
            let Some(work) = &mut self.work else { break };
            tokio::select! {
                biased;
                Some(batch) = self.batches.recv() => self.batch = batch.into_iter(),
                end = work => {
                    self.end = Some(end);
                    self.work = None;
                    // What it has handed on before it ended comes before its end.
                    self.batch = self.batches.try_recv().unwrap_or_default().into_iter();
                }
            }
        }
        Event::End(self.end.take().unwrap_or_else(|| Err(Refusal::new(Code::Internal, "the search has ended").into())))
    }
}

fn deadline(query: &Query) -> Instant {
    Instant::now() + Duration::from_secs(query.time_limit.into()) + SEARCH_GRACE
}

/// Searches over one connection, which is the search's own.
async fn over<D, A>(directory: D, guard: Guard<A>, query: Query, deadline: Instant, batches: mpsc::Sender<Vec<Event>>) -> End
where
    D: AsyncRead + AsyncWrite,
    A: Account,
{
    let local = |error: std::io::Error| Refusal::new(Code::OutOfDescriptors, format_args!("a pair of sockets: {error}"));
    let (ours, library) = UnixStream::pair().map_err(local)?;
    let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(library.into_std().map_err(local)?));
    // The name is not looked at: there is a stream already.
    let (connection, ldap) = LdapConnAsync::with_settings(settings, "ldapi://directory").await.map_err(unexplained)?;
    let pages = Pages { ldap, query, batches, batch: Vec::new(), weight: 0, count: 0, deadline };
    let lines = async {
        // It panics on what is no LDAP. The guard lets nothing of the kind pass; if it did, this search alone would end.
        let drive = AssertUnwindSafe(connection.drive()).catch_unwind();
        let _ = tokio::join!(drive, guard.relay(ours, directory));
        std::future::pending().await
    };
    let end = tokio::select! {
        biased;
        end = timeout_at(deadline, pages.run()) => end,
        () = lines => unreachable!("they only carry"),
    };
    match end {
        Ok(Ok(summary)) => Ok(summary),
        Err(_) => Err(Refusal::new(Code::SearchTimeout, "the directory's answer took longer than `time_limit`").into()),
        // A denial is answered as the directory would; this says that it was none of the directory's.
        Ok(Err(fault)) => Err(guard.why().map_or_else(|| fault.into(), Problem::Refused)),
    }
}

/// What ends a search otherwise than well.
enum Fault {
    /// The library could not go on.
    Library(LdapError),
    /// The directory said no.
    Directory(Ended),
}

impl From<LdapError> for Fault {
    fn from(error: LdapError) -> Self {
        Self::Library(error)
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Library(LdapError::FilterParsing) => {
                Refusal::new(Code::RequestInvalid, "`filter`: it has an attribute that can't be sent").into()
            }
            Fault::Library(error) => unexplained(error).into(),
            Fault::Directory(ended) => Self::Directory(ended),
        }
    }
}

fn unexplained(error: LdapError) -> Refusal {
    Refusal::new(Code::DirectoryInvalid, error)
}

/// A search, page by page.
struct Pages {
    ldap: Ldap,
    query: Query,
    batches: mpsc::Sender<Vec<Event>>,
    /// What is found and not handed on yet, and its bytes.
    batch: Vec<Event>,
    weight: usize,
    count: u64,
    deadline: Instant,
}

impl Pages {
    async fn run(mut self) -> Result<Summary, Fault> {
        let end = self.all().await;
        // What was found before something went wrong comes before it.
        self.hand_on().await;
        end
    }

    async fn all(&mut self) -> Result<Summary, Fault> {
        if let Some(bind) = &self.query.bind {
            let ended = ended(self.ldap.simple_bind(bind.dn.as_str(), bind.password.expose()).await?);
            if ended.code != 0 {
                return Err(Fault::Directory(ended));
            }
        }
        let mut cookie = Vec::new();
        loop {
            let Some(mut result) = self.page(cookie).await? else {
                return Ok(self.summary(Ended::new(4, String::new(), String::new()), true));
            };
            cookie = next_page(std::mem::take(&mut result.ctrls));
            let ended = ended(result);
            if !ended.is_success() {
                return Err(Fault::Directory(ended));
            }
            let (full, limit) = (self.left() == Some(0), ended.is_limit());
            if cookie.is_empty() || full || limit {
                let truncated = limit || !cookie.is_empty();
                return Ok(self.summary(ended, truncated));
            }
        }
    }

    /// Asks for one page and hands on what is in it. Yields nothing if there is more in it than is wanted.
    async fn page(&mut self, cookie: Vec<u8>) -> Result<Option<LdapResult>, Fault> {
        let left = self.left();
        let time = self.deadline.saturating_duration_since(Instant::now()).saturating_sub(SEARCH_GRACE).as_secs().max(1);
        // Some directories count all pages for it, some each by itself.
        let options = SearchOptions::new().sizelimit(number(self.query.size_limit.into())).timelimit(number(time));
        let size = u64::from(self.query.page_size).min(left.unwrap_or(u64::MAX));
        let mut controls: Vec<RawControl> = Vec::new();
        if self.query.scope != Scope::Base {
            controls.push(PagedResults { size: number(size), cookie }.into());
        }
        let Query { base, filter, attributes, .. } = &self.query;
        let (scope, filter, attributes) = (scope(self.query.scope), filter.to_string(), attributes.clone());
        let search = self.ldap.with_search_options(options).with_controls(controls);
        let mut results = search.streaming_search(base.as_str(), scope, &filter, attributes).await?;
        loop {
            // Only while there is more at once does a batch wait for more.
            let item = match results.next().now_or_never() {
                Some(item) => item?,
                None => {
                    self.hand_on().await;
                    results.next().await?
                }
            };
            let Some(item) = item else { break };
            if self.left() == Some(0) && !item.is_ref() {
                return Ok(None);
            }
            self.take(item).await;
        }
        Ok(Some(results.finish().await))
    }

    async fn take(&mut self, item: ResultEntry) {
        let event = if item.is_ref() {
            Event::Reference(texts(item.0))
        } else {
            self.count += 1;
            Event::Entry(entry(item.0))
        };
        self.weight += event.weight();
        self.batch.push(event);
        if self.weight >= SEARCH_BATCH {
            self.hand_on().await;
        }
    }

    async fn hand_on(&mut self) {
        self.weight = 0;
        if !self.batch.is_empty() {
            // Whoever takes no more has dropped all of this.
            let _ = self.batches.send(std::mem::take(&mut self.batch)).await;
        }
    }

    /// Entries that are still wanted, if their number is limited.
    fn left(&self) -> Option<u64> {
        let limit = u64::from(self.query.size_limit);
        (limit > 0).then(|| limit.saturating_sub(self.count))
    }

    fn summary(&self, result: Ended, truncated: bool) -> Summary {
        Summary { result, count: self.count, truncated }
    }
}

fn ended(result: LdapResult) -> Ended {
    Ended::new(result.rc, result.matched, result.text)
}

/// Where the next page begins; empty behind the last.
fn next_page(controls: Vec<Control>) -> Vec<u8> {
    let page = controls.into_iter().find(|control| matches!(control.0, Some(ControlType::PagedResults)));
    page.map(|Control(_, raw)| raw.parse::<PagedResults>().cookie).unwrap_or_default()
}

fn scope(scope: Scope) -> ldap3::Scope {
    match scope {
        Scope::Base => ldap3::Scope::Base,
        Scope::One => ldap3::Scope::OneLevel,
        Scope::Subtree => ldap3::Scope::Subtree,
    }
}

fn number(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The entry that the guard has let pass, so every part is in its place.
fn entry(tag: StructureTag) -> Entry {
    let mut parts = children(tag);
    let dn = parts.next().map(text).unwrap_or_default();
    let attributes = parts.next().map(children).into_iter().flatten().map(|attribute| {
        let mut parts = children(attribute);
        let description = parts.next().map(text).unwrap_or_default();
        (description, parts.next().map(children).into_iter().flatten().map(octets).collect())
    });
    Entry::new(dn, attributes)
}

fn texts(tag: StructureTag) -> Vec<String> {
    children(tag).map(text).collect()
}

fn children(tag: StructureTag) -> std::vec::IntoIter<StructureTag> {
    match tag.payload {
        PL::C(children) => children.into_iter(),
        PL::P(_) => Vec::new().into_iter(),
    }
}

fn octets(tag: StructureTag) -> Vec<u8> {
    match tag.payload {
        PL::P(octets) => octets,
        PL::C(_) => Vec::new(),
    }
}

fn text(tag: StructureTag) -> String {
    String::from_utf8_lossy(&octets(tag)).into_owned()
}

#[cfg(test)]
mod tests;
