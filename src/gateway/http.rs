//! The HTTP entry point: clients' requests, each to the target that its path or host names, over a stream of its caller's to an agent, and
//! the answers back. Who asks is settled for each request anew. Refuses to know what a target permits: that is the agent's to say.

mod account;
mod address;
mod body;
mod connection;
mod first;
mod head;
mod login;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod upgraded;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use head::exercise;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, EXPECT, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::account::Account;
use self::address::Address;
use self::body::{Download, Upload};
use self::connection::{Activity, Busy, Serving};
use self::first::First;
use self::head::Told;
use self::login::Known;
pub(in crate::gateway) use self::streams::Streams;
use self::streams::{Key, Lease};
use super::Gateway;
use super::ingress::Certified;
use super::ingress::socks5::Refused;
use crate::base::code::{Code, Failure};
use crate::base::drain::Drain;
use crate::base::id::RequestId;
use crate::base::limits::HTTP_KEEP_ALIVE;
use crate::observe::metrics;
use crate::wire::connect;
use crate::wire::hop::{self, REFUSAL};
use crate::wire::open::Spoken;

/// What is settled for all clients of a listener, and what is known of one.
pub(super) struct Client {
    pub(super) gateway: Arc<Gateway>,
    /// The domain below which hosts name targets, in small letters.
    pub(super) base: Option<Arc<str>>,
    /// Where it came in.
    pub(super) listener: SocketAddr,
    pub(super) source: SocketAddr,
    /// Who it is by its certificate.
    pub(super) certified: Result<Option<Certified>, Failure>,
    /// Whether it came by TLS.
    pub(super) secure: bool,
    /// Whether its streams are its connection's own.
    pub(super) binding: Binding,
    /// Closes the connection when no request is under way for this long, and what became of one when nothing moves.
    pub(super) idle: Option<Duration>,
}

/// Whether a client has logged in with a target by a login that belongs to its connection, as NTLM and Negotiate do: whoever came by its
/// streams later would be taken for it, so they are its connection's own since.
pub(super) struct Binding {
    /// Tells its connection from all others.
    number: u64,
    bound: AtomicBool,
}

impl Binding {
    /// Of a connection on which nobody has logged in.
    pub(super) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), bound: AtomicBool::new(false) }
    }

    /// The connection that alone may use the stream of a request with these headers, if there is one.
    fn of(&self, headers: &HeaderMap) -> Option<u64> {
        let binds = |value: &HeaderValue| {
            let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
            scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
        };
        if !self.bound.load(Ordering::Relaxed) && headers.get_all(AUTHORIZATION).iter().any(binds) {
            self.bound.store(true, Ordering::Relaxed);
        }
        self.bound.load(Ordering::Relaxed).then_some(self.number)
    }
}

/// A client that has begun to ask.
pub(super) struct Begun {
    client: Client,
    first: First,
}

impl Client {
    /// Hears the client's first words.
    ///
    /// # Errors
    /// Why it is refused, and in which words.
    pub(super) async fn hear<Io: AsyncRead + Unpin>(self, io: &mut Io) -> Result<Begun, Refused> {
        match first::read(io).await {
            Ok(first) => Ok(Begun { client: self, first }),
            Err(failure) => {
                let detail = Some(failure.detail.as_str());
                let say = match failure.code {
                    Code::ClientReset => Vec::new(),
                    code => connect::refused(&connect::Refused { code, detail, request: None }),
                };
                Err(Refused { failure, say })
            }
        }
    }
}

impl Begun {
    /// Serves its requests to the connection's end.
    pub(super) async fn serve<Io>(self, io: Io, drain: &Drain)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { client, first: First { bytes, http2 } } = self;
        let (activity, client) = (Activity::new(), Arc::new(client));
        let tasks = client.gateway.clients.clone();
        let idle = client.idle.unwrap_or(HTTP_KEEP_ALIVE);
        let serving = Serving { first: bytes, http2, idle, activity: &activity, drain, tasks: &tasks };
        let busy = activity.clone();
        connection::serve(io, serving, move |request| answer(client.clone(), busy.begin(), request)).await;
    }
}

/// Why a request has no answer of its agent's.
enum Unanswered {
    /// Nobody knows of it yet.
    Refused(Failure),
    /// It is in the audit already.
    Recorded(Failure),
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

/// One request and its answer.
async fn answer(client: Arc<Client>, busy: Busy, request: Request<Incoming>) -> Response<Download> {
    let (since, id) = (Instant::now(), RequestId::fresh());
    let (mut parts, body) = request.into_parts();
    // What a client says behind an upgrade that did not come about is for nobody to read (RFC 9110, 7.8: it may be of that protocol).
    let doubtful = parts.version == http::Version::HTTP_11 && parts.headers.contains_key(UPGRADE);
    let mut response = answer_to(&client, busy, &mut parts, body, id, since).await;
    if doubtful && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer_to(
    client: &Client,
    busy: Busy,
    parts: &mut Parts,
    body: Incoming,
    id: RequestId,
    since: Instant,
) -> Response<Download> {
    let failure = match forward(client, busy, parts, body, id, since).await {
        Ok(response) => return response,
        Err(Unanswered::Recorded(failure)) => failure,
        Err(Unanswered::Refused(failure)) => {
            metrics::refused(failure.code);
            let told = failure.clone().context(format_args!("listener {}", client.listener));
            client.gateway.refused(client.source, &told, "request refused");
            failure
        }
    };
    let response = head::refusal(&failure, &parts.method, id);
    metrics::http_request(Some(response.status().as_u16()), since.elapsed());
    response.map(|text| Download::Own(Some(Bytes::from(text))))
}

/// A request that is known to be for a target, and by whom.
struct Asked<'a> {
    client: &'a Client,
    parts: &'a Parts,
    id: RequestId,
    since: Instant,
    host: Option<String>,
    address: Address,
    known: Known,
    key: Key,
    upgrade: Option<HeaderValue>,
}

async fn forward(
    client: &Client,
    busy: Busy,
    parts: &mut Parts,
    body: Incoming,
    id: RequestId,
    since: Instant,
) -> Result<Response<Download>, Unanswered> {
    let on_upgrade = parts.extensions.remove::<OnUpgrade>();
    head::check(parts)?;
    let upgrade = hop::upgrade(parts)?;
    let (host, address) = (address::host(parts)?, address::address(parts, client.base.as_deref())?);
    let known = login::login(&client.gateway, &parts.headers, client.source, &client.certified)?;
    let key = Key {
        caller: known.caller.clone(),
        until: known.until,
        target: address.target.clone(),
        spoken: address.spoken,
        http2: parts.version == http::Version::HTTP_2 && address.spoken == Spoken::Http,
        connection: client.binding.of(&parts.headers),
    };
    let asked = Asked { client, parts, id, since, host, address, known, key, upgrade };
    let (response, account) = asked.exchange(busy, body).await?;
    asked.pass(response, account, on_upgrade)
}

impl Asked<'_> {
    /// Sends the request on its stream; once more on another, if nothing of it can have been done.
    async fn exchange(&self, busy: Busy, body: Incoming) -> Result<(Response<Incoming>, Account), Unanswered> {
        let (mut upload, passed) = Upload::of(body);
        let (mut busy, mut fresh) = (Some(busy), false);
        loop {
            let (lease, reused) = self.lease(fresh).await.map_err(Unanswered::Recorded)?;
            let mut account = Account {
                gateway: self.client.gateway.clone(),
                request: self.id,
                source: self.client.source,
                method: self.parts.method.clone(),
                path: self.address.path.clone(),
                since: self.since,
                upload: passed.clone(),
                busy: busy.take(),
                stream: None,
                status: None,
                code: None,
                down: 0,
            };
            let request = self.request(&lease, upload);
            let stream = account.stream.insert(lease);
            let mut error = match stream.send(request).await {
                Ok(response) => return Ok((response, account)),
                Err(error) => error,
            };
            let unsent = error.take_message();
            let again = unsent.is_some() || passed.is_none() && self.parts.method.is_idempotent();
            if reused && again && !self.known.caller.is_revoked() {
                busy = account.elsewhere();
                upload = unsent.map(Request::into_body).unwrap_or_default();
                fresh = true;
                continue;
            }
            let failure = self.failure(unsent.is_none(), &error.into_error());
            account.refused(head::refusal(&failure, &self.parts.method, self.id).status().as_u16(), failure.code);
            return Err(Unanswered::Recorded(failure));
        }
    }

    async fn lease(&self, fresh: bool) -> Result<(Lease, bool), Failure> {
        let wanted = stream::wanted(&self.key, self.client.source);
        let (gateway, key) = (&self.client.gateway, self.key.clone());
        let leased = match self.upgrade {
            Some(_) => streams::lease_whole(gateway, self.id, wanted, key).await.map(|lease| (lease, false)),
            None => streams::lease(gateway, self.id, wanted, key, fresh).await,
        };
        leased.map_err(Failure::from)
    }

    fn request(&self, lease: &Lease, mut upload: Upload) -> Request<Upload> {
        let told = Told {
            request: self.id,
            source: self.client.source,
            host: self.host.as_deref(),
            secure: self.client.secure,
            by_authorization: self.known.by_authorization,
            upgrade: self.upgrade.as_ref(),
            http2: self.key.http2,
        };
        let mut request = head::request(self.parts, &self.address, &lease.described().authority, &told);
        if !request.headers().contains_key(EXPECT) {
            return request.map(|()| upload);
        }
        let (gives, leave) = oneshot::channel();
        upload.await_leave(leave);
        let gives = std::sync::Mutex::new(Some(gives));
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE
                && let Some(gives) = gives.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
            {
                // Who doesn't wait any more has gone on.
                let _ = gives.send(());
            }
        });
        request.map(|()| upload)
    }

    fn failure(&self, sent: bool, error: &hyper::Error) -> Failure {
        let code = match () {
            () if self.known.caller.is_revoked() => Code::CallerRevoked,
            () if error.is_user() => Code::ClientReset,
            () if sent => Code::OutcomeUnknown,
            () => Code::SessionLost,
        };
        Failure::new(code, error)
    }

    /// The agent's answer, for the client.
    fn pass(
        &self,
        response: Response<Incoming>,
        mut account: Account,
        on_upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Download>, Unanswered> {
        let (mut head, body) = response.into_parts();
        let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let refusal = head.headers.get(REFUSAL).and_then(|code| code.to_str().ok()).and_then(|code| code.parse().ok());
        if let Some(code) = refusal {
            metrics::refused(code);
        }
        account.tell_light(&self.address.target.target, refusal);
        head.version = self.parts.version;
        head::answer(&mut head.headers, self.id, self.upgrade.as_ref().filter(|_| switched));
        if !switched {
            account.answered(head.status.as_u16(), refusal);
            return Ok(Response::from_parts(head, Download::pass(body, account)));
        }
        let ends = (head.extensions.remove::<OnUpgrade>(), on_upgrade, account.ledger());
        let (Some(agent), Some(client), Some(ledger)) = ends else {
            let failure = Failure::new(Code::ProtocolViolation, "the agent switched to a protocol that was not asked for");
            account.refused(head::refusal(&failure, &self.parts.method, self.id).status().as_u16(), failure.code);
            return Err(Unanswered::Recorded(failure));
        };
        account.answered(head.status.as_u16(), None);
        let (wanted, idle) = (stream::wanted(&self.key, self.client.source), self.client.idle);
        self.client.gateway.clients.spawn(upgraded::carry(client, agent, wanted, idle, ledger, account));
        Ok(Response::from_parts(head, Download::Own(None)))
    }
}
