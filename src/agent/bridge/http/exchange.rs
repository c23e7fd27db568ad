//! One request and its answer: check, decide, make anew, send, and back. The straight line of the hop. Refuses to know how a client's
//! connection is read.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::sync::oneshot;

use super::Bridge;
use super::account::Account;
use super::body::{Download, Rest, Upload};
use super::origin::{Answer, Lease, Outgoing};
use super::request::{self, Wish};
use super::response;
use crate::agent::policy::Service;
use crate::base::code::{Code, Failure};
use crate::base::limits::SPLICE_BUFFER;
use crate::rules::http::{Ask, Decision, Header, List, Rule};
use crate::rules::path::Path;

/// A request that may pass, and what its answer will need.
struct Admitted {
    outgoing: Outgoing,
    wish: Option<Wish>,
    /// Ends the request's body with its answer.
    upload: Option<oneshot::Sender<Infallible>>,
    response_headers: Option<List<Header>>,
}

/// What came of it at the origin.
enum Answered {
    /// An answer.
    Whole {
        response: Response<Incoming>,
        trailers: Option<List<Header>>,
        upload: Option<oneshot::Sender<Infallible>>,
        lease: Option<Lease>,
    },
    /// The origin's connection has become what the client wished for.
    Switched { head: Parts, far: OnUpgrade },
}

/// Answers one request. Fails never: whatever is wrong is an answer, too.
pub(super) async fn exchange(bridge: Arc<Bridge>, mut request: Request<Incoming>) -> Result<Response<Download>, Infallible> {
    let near = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let id = request::id(&parts, &bridge.caller);
    let (has_body, one_hop) = (!body.is_end_stream(), parts.version < Version::HTTP_2);
    let mut account = Account::begin(&bridge, id, parts.method.clone(), parts.uri.path());
    let answered = match admit(&bridge, parts, body, &account) {
        Ok(admitted) => send(&bridge, admitted, &account).await,
        Err(failure) => Err(failure),
    };
    // What follows a doubtful request, a body that nobody reads, or an upgrade that did not come about, is for nobody.
    let (mut response, closes) = match (answered, near) {
        (Ok(Answered::Switched { head, far }), Some(near)) => {
            account.answered(StatusCode::SWITCHING_PROTOCOLS);
            bridge.go_on(join(near, far, account));
            return Ok(Response::from_parts(head, Download::nothing()));
        }
        (Ok(Answered::Whole { response, trailers, upload, lease }), near) => {
            account.answered(response.status());
            let rest = Rest { account, upload, lease };
            (response.map(|body| Download::origin(body, trailers, rest)), near.is_some())
        }
        (Ok(Answered::Switched { .. }), None) => {
            let failure = Failure::new(Code::Internal, "nobody wished for an upgrade");
            (refused(&failure, account), true)
        }
        (Err(failure), near) => {
            let closes = near.is_some() || has_body || failure.code == Code::RequestInvalid;
            (refused(&failure, account), closes)
        }
    };
    if closes && one_hop {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Checks a request, has it decided, and makes it anew.
fn admit(bridge: &Arc<Bridge>, mut parts: request::Parts, body: Incoming, account: &Account) -> Result<Admitted, Failure> {
    bridge.agent.audit.ready()?;
    request::check(&parts)?;
    let wish = request::wish(&parts)?;
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("*"));
    let service = bridge.permit.service();
    let rule = decide(&service, &parts, &path, wish.as_ref(), &body)?;
    let expects = request::expects(&mut parts, !body.is_end_stream());
    let http2 = parts.version == Version::HTTP_2;
    request::rebuild(&mut parts.headers, account.request(), &bridge.caller, wish.as_ref(), rule.request_headers.as_ref());
    let (body, upload) = if body.is_end_stream() {
        if parts.headers.contains_key(CONTENT_LENGTH) {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        (Upload::none(account.passed().clone()), None)
    } else {
        // What frames the body on its next way is that way's own.
        parts.headers.remove(CONTENT_LENGTH);
        let (upload, over) = oneshot::channel();
        let trailers = rule.request_headers.clone();
        (Upload::new(body, account.passed().clone(), rule.max_body, trailers, over), Some(upload))
    };
    let outgoing = Outgoing { method: parts.method, path, headers: parts.headers, body, http2, expects };
    Ok(Admitted { outgoing, wish, upload, response_headers: rule.response_headers.clone() })
}

/// The rule by which a request passes.
fn decide<'s>(
    service: &'s Service,
    parts: &request::Parts,
    path: &PathAndQuery,
    wish: Option<&Wish>,
    body: &Incoming,
) -> Result<&'s Rule, Failure> {
    let Service::Http(service) = service else { return Err(Failure::new(Code::Internal, "no target of kind http")) };
    let path = Path::parse(path.as_str())?;
    let ask = Ask { method: parts.method.as_str(), path: &path, upgrade: wish.is_some(), body: body.size_hint().exact() };
    match service.rules.decide(&ask) {
        Decision::Allow { rule, .. } => Ok(rule),
        Decision::Deny(denial) => Err(denial.failure),
    }
}

/// Has the request answered by the origin, and makes the answer's head our own.
async fn send(bridge: &Bridge, admitted: Admitted, account: &Account) -> Result<Answered, Failure> {
    let Admitted { outgoing, wish, upload, response_headers: list } = admitted;
    let Answer { mut response, lease } = bridge.origin.send(outgoing, account.passed()).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(wish) = &wish else {
            return Err(Failure::new(Code::ResponseInvalid, "it switched protocols without being asked to"));
        };
        let far = hyper::upgrade::on(&mut response);
        let mut head = response.into_parts().0;
        response::switch(&mut head, wish, list.as_ref())?;
        return Ok(Answered::Switched { head: own(head), far });
    }
    let (head, body) = response.into_parts();
    let mut head = own(head);
    response::rebuild(&mut head.headers, list.as_ref());
    if body.size_hint().exact().is_none() {
        // It was chunked besides, and that is how it was read.
        head.headers.remove(CONTENT_LENGTH);
    }
    Ok(Answered::Whole { response: Response::from_parts(head, body), trailers: list, upload, lease })
}

/// A head that keeps nothing of the origin's connection.
fn own(head: Parts) -> Parts {
    let mut own = Response::new(()).into_parts().0;
    (own.status, own.headers) = (head.status, head.headers);
    own
}

fn refused(failure: &Failure, mut account: Account) -> Response<Download> {
    let response = response::refusal(failure, account.request());
    account.refused(response.status(), failure);
    response.map(|body| Download::own(body, account))
}

/// Carries what the two ends say to each other once both have switched.
async fn join(near: OnUpgrade, far: OnUpgrade, mut account: Account) {
    let (near, far) = match tokio::try_join!(near, far) {
        Ok(ends) => ends,
        Err(_) => return account.broken(Code::ClientReset),
    };
    let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
    match copy_bidirectional_with_sizes(&mut near, &mut far, SPLICE_BUFFER, SPLICE_BUFFER).await {
        Ok((up, down)) => {
            account.switched(up, down);
            account.whole();
        }
        Err(_) => account.broken(Code::StreamCut),
    }
}
