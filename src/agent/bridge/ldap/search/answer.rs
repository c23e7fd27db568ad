//! A search's answer: one JSON document, or a line for each entry as it comes; and what went wrong, as a problem detail (RFC 9457) that
//! tells a directory's no from Underpass's. It refuses to know how a search is made.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::stream::unfold;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio::time::Instant;

use super::run::{Event, Search};
use crate::base::code::Code;
use crate::base::id::RequestId;
use crate::base::limits::{SEARCH_ANSWER, SPLICE_BUFFER};
use crate::ldap::search::found::{Ended, Summary};
use crate::observe::audit::{self, Audit};
use crate::observe::metrics;
use crate::wire::hop::{REFUSAL, REQUEST_ID};
use crate::wire::open::Open;
use crate::wire::problem;
use crate::wire::refusal::Refusal;

/// The media types of JSON lines; who accepts one of them gets it.
const LINES: [&str; 2] = ["application/jsonl", "application/x-ndjson"];

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// In which form an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON document.
    Document,
    /// A line for each entry, as this media type.
    Lines(&'static str),
}

/// Why a search has no answer, or not all of it.
#[derive(Debug)]
pub(super) enum Problem {
    /// Underpass's no, or something that went wrong on the way.
    Refused(Refusal),
    /// The directory's own.
    Directory(Ended),
}

/// The account of one search: its row in the audit, whatever ends it.
pub(super) struct Account {
    audit: Audit,
    open: Arc<Open>,
    request: RequestId,
    status: Option<StatusCode>,
    /// As if whoever asked had gone, until it is known better.
    code: Option<Code>,
    /// Bytes of what was asked, and of the answer.
    pub(super) up: usize,
    down: usize,
    since: Instant,
}

impl Form {
    /// The form that a request's `Accept` asks for.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let mut kinds =
            accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or_default().trim());
        let kind = kinds.find_map(|kind| LINES.into_iter().find(|lines| kind.eq_ignore_ascii_case(lines)));
        kind.map_or(Self::Document, Self::Lines)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The body of a directory's own no: as a refusal's ([`Problem::body`](problem::Problem::body)), with its result instead of a code.
#[derive(Serialize)]
struct Ending<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    result: &'a Ended,
    request: RequestId,
}

impl Problem {
    /// The body: an object, and a line's end.
    fn body(&self, request: RequestId) -> String {
        match self {
            Self::Refused(Refusal { code, detail }) => {
                // Other details may name what is inside the site.
                let asked =
                    matches!(code, Code::RequestInvalid | Code::RequestDenied | Code::SearchTimeout | Code::SearchTooLarge);
                let detail = asked.then_some(detail.as_str());
                problem::Problem { code: *code, status: self.status(), detail, request: Some(request) }.body()
            }
            Self::Directory(result) => {
                let title = "The directory ended the search with an error.";
                json(&Ending { r#type: "about:blank", title, status: self.status().as_u16(), result, request })
            }
        }
    }

    /// The status that programs go by: whose fault it is.
    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => problem::status(refusal.code),
            Self::Directory(ended) => match ended.code {
                // What was asked is wrong: an attribute, a match, a value, a name.
                17 | 18 | 21 | 34 => StatusCode::BAD_REQUEST,
                32 => StatusCode::NOT_FOUND,
                // Who asks may not, or is not who they say.
                7 | 8 | 13 | 48 | 49 | 50 => StatusCode::FORBIDDEN,
                51 | 52 => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_GATEWAY,
            },
        }
    }
}

/// Tells what went wrong before anything was found.
pub(super) fn failure(why: &Problem, mut account: Account) -> Response<Body> {
    let body = why.body(account.request);
    account.failed(why);
    let mut response = account.whole(why.status(), problem::CONTENT_TYPE, body);
    if let Problem::Refused(refusal) = why {
        response.headers_mut().insert(REFUSAL, HeaderValue::from_static(refusal.code.as_str()));
    }
    response
}

/// All that a search finds, held until it has ended.
pub(super) async fn document(mut search: Search, account: Account) -> Response<Body> {
    #[derive(Serialize)]
    struct Rest {
        references: Vec<String>,
        #[serde(flatten)]
        summary: Summary,
    }
    let (mut body, mut references) = (b"{\"entries\":[".to_vec(), Vec::new());
    let mut size = 0;
    let summary = loop {
        match search.next().await {
            Event::Entry(entry) => {
                if body.last() == Some(&b'}') {
                    body.push(b',');
                }
                serde_json::to_writer(&mut body, &entry).expect("an entry has only texts");
            }
            Event::Reference(uris) => {
                size += uris.iter().map(|uri| uri.len() + 64).sum::<usize>();
                references.extend(uris);
            }
            Event::End(Ok(summary)) => break summary,
            Event::End(Err(why)) => return failure(&why, account),
        }
        if body.len() + size > SEARCH_ANSWER {
            let detail = format!("more than {SEARCH_ANSWER} bytes");
            return failure(&Refusal::new(Code::SearchTooLarge, detail).into(), account);
        }
    };
    let rest = json(&Rest { references, summary });
    body.extend_from_slice(b"],");
    // It goes on where the entries end.
    body.extend_from_slice(&rest.as_bytes()[1..]);
    let body = String::from_utf8(body).expect("JSON is UTF-8");
    account.whole(StatusCode::OK, "application/json", body)
}

/// What a search finds, told as it comes.
pub(super) async fn lines(mut search: Search, kind: &'static str, mut account: Account) -> Response<Body> {
    let first = match search.next().await {
        Event::End(Err(why)) => return failure(&why, account),
        first => first,
    };
    let mut response = account.answer(StatusCode::OK, kind);
    let lines = Lines { search, first: Some(first), ended: false, account };
    let chunks = unfold(lines, |mut lines| async {
        let chunk = lines.chunk().await?;
        Some((Ok(Frame::data(chunk)), lines))
    });
    *response.body_mut() = StreamBody::new(chunks).boxed_unsync();
    response
}

struct Lines {
    search: Search,
    first: Option<Event>,
    ended: bool,
    account: Account,
}

impl Lines {
    /// Some lines: those that are there, up to a buffer full. Nothing behind the last.
    async fn chunk(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut chunk = BytesMut::new();
        let mut event = match self.first.take() {
            Some(first) => first,
            None => self.search.next().await,
        };
        loop {
            self.write(&event, &mut chunk);
            if self.ended || chunk.len() >= SPLICE_BUFFER {
                break;
            }
            match self.search.next().now_or_never() {
                Some(next) => event = next,
                None => break,
            }
        }
        self.account.down += chunk.len();
        Some(chunk.freeze())
    }

    fn write(&mut self, event: &Event, chunk: &mut BytesMut) {
        #[derive(Serialize)]
        struct References<'a> {
            references: &'a [String],
        }
        match event {
            Event::Entry(entry) => put(chunk, entry),
            Event::Reference(references) => put(chunk, &References { references }),
            Event::End(Ok(summary)) => {
                put(chunk, summary);
                self.account.code = None;
                self.ended = true;
            }
            Event::End(Err(why)) => {
                let error = why.body(self.account.request);
                chunk.extend_from_slice(format!("{{\"error\":{}}}\n", error.trim_end()).as_bytes());
                self.account.failed(why);
                self.ended = true;
            }
        }
    }
}

fn put(chunk: &mut BytesMut, value: &impl Serialize) {
    serde_json::to_writer(chunk.writer(), value).expect("an answer has only texts and numbers");
    chunk.put_u8(b'\n');
}

/// A value with a line's end, for people with a shell.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("an answer has only texts and numbers") + "\n"
}

impl Account {
    pub(super) fn begin(audit: &Audit, open: &Arc<Open>, request: RequestId) -> Self {
        let (audit, open, code, since) = (audit.clone(), open.clone(), Some(Code::ClientReset), Instant::now());
        Self { audit, open, request, status: None, code, up: 0, down: 0, since }
    }

    fn failed(&mut self, problem: &Problem) {
        match problem {
            Problem::Refused(Refusal { code, detail }) => {
                tracing::debug!(request = %self.request, %code, detail, "search refused");
                metrics::refused(*code);
                self.code = Some(*code);
            }
            Problem::Directory(ended) => {
                tracing::debug!(request = %self.request, result = ended.name, "search failed");
                self.code = None;
            }
        }
    }

    /// An answer that is there whole.
    fn whole(mut self, status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
        self.down = body.len();
        if self.code == Some(Code::ClientReset) {
            self.code = None;
        }
        let mut response = self.answer(status, kind);
        *response.body_mut() = Full::from(body).boxed_unsync();
        response
    }

    fn answer(&mut self, status: StatusCode, kind: &'static str) -> Response<Body> {
        self.status = Some(status);
        let mut response = Response::new(Body::default());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let id = HeaderValue::from_str(&self.request.to_string()).expect("an id is plain text");
        headers.insert(REQUEST_ID, id);
        response
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let (took, status) = (self.since.elapsed(), self.status.map(|status| status.as_u16()));
        metrics::http_request(status, took);
        // A row that can't be kept refuses the next stream, not the end of this search.
        let _ = self.audit.record(&audit::Event::Request {
            request: self.request,
            stream: Some(self.open.request),
            target: self.open.target.as_str(),
            caller: &self.open.caller,
            source: None,
            method: "POST",
            path: "/search",
            status,
            code: self.code,
            detail: None,
            up: self.up as u64,
            down: self.down as u64,
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
    }
}

#[cfg(test)]
mod tests;
