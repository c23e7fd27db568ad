//! Searches for programs that would rather not speak LDAP: posted as JSON over HTTP/1.1, made with a client library, answered as JSON.
//! Each has a connection to the directory of its own. It refuses to know what a client may find: the rules stand in the guard.

mod answer;
mod guard;
mod run;

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use uuid::Uuid;

use self::answer::{Account, Body, Form, Problem};
use self::run::Search;
use super::Hop;
use crate::agent::Agent;
use crate::agent::policy::Permit;
use crate::base::code::Code;
use crate::base::id::RequestId;
use crate::base::limits::{SEARCH_BODY, SEARCH_BODY_TIMEOUT, SEARCH_IDLE};
use crate::ldap::search::Query;
use crate::tunnel::metered::Metered;
use crate::tunnel::splice::Direction;
use crate::wire::hop::REQUEST_ID;
use crate::wire::open::Open;
use crate::wire::refusal::Refusal;

/// What every search of a stream needs.
struct Searches {
    agent: Arc<Agent>,
    permit: Arc<Permit>,
    open: Arc<Open>,
}

/// Serves the searches of one stream, posted by HTTP/1.1. Yields why it was cut, if it was.
pub async fn searches(hop: Hop) -> Option<Code> {
    let Hop { agent, permit, open, stream, early, ledger } = hop;
    let io = TokioIo::new(Metered::new(stream, early.freeze(), Direction::Up, ledger));
    let searches = Arc::new(Searches { agent, permit, open: Arc::new(open) });
    let service = service_fn(|request| {
        let searches = searches.clone();
        async move { Ok::<_, Infallible>(searches.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SEARCH_IDLE)
        .max_buf_size(SEARCH_BODY)
        .serve_connection(io, service)
        .await;
    served.err().map(|error| if error.is_parse() { Code::RequestInvalid } else { Code::ClientReset })
}

impl Searches {
    /// The answer to one request. What is wrong before anything was found is told by its status.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let told = request.headers().get(REQUEST_ID).and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
        let id = told.and_then(|id| RequestId::from_bytes(id.as_bytes())).unwrap_or_else(RequestId::fresh);
        let mut account = Account::begin(&self.agent.audit, &self.open, id);
        let (form, query) = match read(request, &mut account).await {
            Ok(read) => read,
            Err(problem) => return answer::failure(&problem, account),
        };
        let search = Search::begin(self.agent.clone(), self.permit.clone(), self.open.clone(), id, query);
        match form {
            Form::Document => answer::document(search, account).await,
            Form::Lines(kind) => answer::lines(search, kind, account).await,
        }
    }
}

/// What is asked, and in which form the answer is wanted.
async fn read(request: Request<Incoming>, account: &mut Account) -> Result<(Form, Query), Problem> {
    let invalid = |detail: String| Problem::Refused(Refusal::new(Code::RequestInvalid, detail));
    if request.uri().path() != "/search" || request.method() != Method::POST {
        return Err(invalid("a stream for searches takes POST /search alone".to_owned()));
    }
    let form = Form::of(request.headers());
    let body = Limited::new(request.into_body(), SEARCH_BODY).collect();
    let body = tokio::time::timeout(SEARCH_BODY_TIMEOUT, body).await;
    let body = body.map_err(|_| invalid("the body did not come in time".to_owned()))?;
    let body = body.map_err(|error| invalid(format!("a body of at most {SEARCH_BODY} bytes is taken: {error}")))?.to_bytes();
    account.up = body.len();
    let query = Query::parse(&body).map_err(|error| invalid(error.to_string()))?;
    Ok((form, query))
}

#[cfg(test)]
mod fixture;
