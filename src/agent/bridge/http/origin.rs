//! The origin's connections of one stream. None is ever another stream's, so that a login that belongs to a connection (NTLM, say) stays
//! with its caller. HTTP/1.1 connections carry one request at a time and are kept for the next, an HTTP/2 connection carries all.
//! Refuses to know rules, and what requests say.

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::body::{Passed, Upload};
use super::inline::Inline;
use crate::agent::Agent;
use crate::agent::bridge::{Way, tcp, tls};
use crate::agent::policy::{HttpService, Permit, Service};
use crate::base::code::{Code, Failure};
use crate::base::limits::{HTTP_BUFFER, HTTP_HEAD, HTTP2_WINDOW, ORIGIN_CONNECTIONS, ORIGIN_IDLE};

/// The protocols that are offered to an origin, inside TLS.
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// One stream's way to its target.
pub(super) struct Origin {
    agent: Arc<Agent>,
    permit: Arc<Permit>,
    inline: Inline,
    authority: Authority,
    host: HeaderValue,
    scheme: Scheme,
    /// Connections that wait for a request.
    idle: Mutex<Vec<Idle>>,
    places: Arc<Semaphore>,
    /// What it speaks with requests that came by HTTP/2.
    speaks: tokio::sync::Mutex<Speaks>,
}

struct Idle {
    sender: http1::SendRequest<Upload>,
    since: Instant,
}

enum Speaks {
    /// Nobody has asked.
    Unknown,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2.
    Http2(http2::SendRequest<Upload>),
}

/// A fresh connection.
enum Fresh {
    Http1(http1::SendRequest<Upload>),
    Http2(http2::SendRequest<Upload>),
}

/// A request as the origin is to have it.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: Upload,
    /// Whether it came by HTTP/2.
    pub(super) http2: bool,
    /// Whether the client waits for leave to send the body.
    pub(super) expects: bool,
}

/// An origin's answer.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// The connection that it comes by.
    pub(super) lease: Option<Lease>,
}

/// A connection in use.
pub(super) struct Lease {
    origin: Arc<Origin>,
    sender: http1::SendRequest<Upload>,
    _place: OwnedSemaphorePermit,
}

impl Lease {
    /// Its answer has been read to its end: the next request may have it.
    pub(super) fn give_back(self) {
        if !self.sender.is_closed() {
            let idle = Idle { sender: self.sender, since: Instant::now() };
            self.origin.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
        }
    }
}

impl Origin {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// `internal` for an address that can't be in a URI, which a configuration has no way to say.
    pub(super) fn new(agent: Arc<Agent>, permit: Arc<Permit>, inline: Inline) -> Result<Self, Failure> {
        let at = &permit.target().spec.address;
        let tls = matches!(&*permit.service(), Service::Http(HttpService { tls: Some(_), .. }));
        let (scheme, port, plain) = if tls { (Scheme::HTTPS, 443, ":443") } else { (Scheme::HTTP, 80, ":80") };
        let text = at.to_string();
        let text = if at.port == port { text.trim_end_matches(plain) } else { &text };
        let internal = |_| Failure::new(Code::Internal, format_args!("{at} is no authority"));
        let authority: Authority = text.parse().map_err(internal)?;
        let host = HeaderValue::from_str(text).map_err(|_| Failure::new(Code::Internal, format_args!("{at} is no host")))?;
        Ok(Self {
            agent,
            permit,
            inline,
            authority,
            host,
            scheme,
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(ORIGIN_CONNECTIONS)),
            speaks: tokio::sync::Mutex::new(Speaks::Unknown),
        })
    }

    /// Sends a request, and yields the beginning of its answer.
    ///
    /// # Errors
    /// What [`tcp::connect`] says; `target_tls_*`; `target_reset`, `response_invalid`, `response_timeout`, `target_busy`; `body_too_large`
    /// and `client_reset` if the request's own body was cut.
    pub(super) async fn send(self: &Arc<Self>, outgoing: Outgoing, passed: &Arc<Passed>) -> Result<Answer, Failure> {
        if outgoing.http2
            && let Some(sender) = self.http2().await?
        {
            return self.send_http2(sender, outgoing, passed).await;
        }
        self.send_http1(outgoing, passed).await
    }

    async fn send_http1(self: &Arc<Self>, outgoing: Outgoing, passed: &Arc<Passed>) -> Result<Answer, Failure> {
        let limit = self.permit.target().spec.limits.response_timeout;
        let place = timeout(limit, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(self.failure(Code::TargetBusy, "all its connections are in use")) };
        let (mut sender, reused) = match self.reuse().await {
            Some(sender) => (sender, true),
            None => (self.connect_http1().await?, false),
        };
        let request = self.request_http1(outgoing);
        let again = (reused && is_repeatable(&request)).then(|| copy(&request, passed));
        let sent = self.in_time(sender.try_send_request(request), passed).await?;
        let response = match sent {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().filter(|_| reused);
                let Some(request) = unsent.or(again) else { return Err(self.explain(error.error(), passed)) };
                // The connection was closed while it was idle: nothing was done, or nothing that can't be done twice.
                sender = self.connect_http1().await?;
                self.in_time(sender.send_request(request), passed).await?.map_err(|error| self.explain(&error, passed))?
            }
        };
        Ok(Answer { response, lease: Some(Lease { origin: self.clone(), sender, _place: place }) })
    }

    async fn send_http2(
        &self,
        mut sender: http2::SendRequest<Upload>,
        outgoing: Outgoing,
        passed: &Arc<Passed>,
    ) -> Result<Answer, Failure> {
        let request = self.request_http2(outgoing)?;
        let again = is_repeatable(&request).then(|| copy(&request, passed));
        let response = match self.in_time(sender.try_send_request(request), passed).await? {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().or(again.filter(|_| sender.is_closed()));
                let (Some(request), Some(mut sender)) = (unsent, self.http2().await?) else {
                    return Err(self.explain(error.error(), passed));
                };
                self.in_time(sender.send_request(request), passed).await?.map_err(|error| self.explain(&error, passed))?
            }
        };
        Ok(Answer { response, lease: None })
    }

    /// A connection that waits and is still open. Who has waited long is likely to be closed just now.
    async fn reuse(&self) -> Option<http1::SendRequest<Upload>> {
        loop {
            let Idle { mut sender, since } = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() < ORIGIN_IDLE && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    async fn connect_http1(&self) -> Result<http1::SendRequest<Upload>, Failure> {
        match self.connect(false).await? {
            Fresh::Http1(sender) => Ok(sender),
            Fresh::Http2(_) => Err(self.failure(Code::Internal, "HTTP/2 without an offer")),
        }
    }

    /// The connection of HTTP/2, if the origin speaks that. Requests that come meanwhile wait for the first to find out.
    async fn http2(&self) -> Result<Option<http2::SendRequest<Upload>>, Failure> {
        let limit = self.permit.target().spec.limits.connect_timeout;
        let Ok(mut speaks) = timeout(limit, self.speaks.lock()).await else {
            return Err(self.failure(Code::TargetTimeout, "another request tries to connect, in vain so far"));
        };
        match &*speaks {
            Speaks::Http1 => return Ok(None),
            Speaks::Http2(sender) if !sender.is_closed() => return Ok(Some(sender.clone())),
            Speaks::Http2(_) | Speaks::Unknown => {}
        }
        match self.connect(true).await? {
            Fresh::Http2(sender) => {
                *speaks = Speaks::Http2(sender.clone());
                Ok(Some(sender))
            }
            Fresh::Http1(sender) => {
                *speaks = Speaks::Http1;
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(Idle { sender, since: Instant::now() });
                Ok(None)
            }
        }
    }

    /// Connects to a checked address of the target, with TLS if it has that.
    async fn connect(&self, http2: bool) -> Result<Fresh, Failure> {
        let target = self.permit.target();
        let (at, limit) = (&target.spec.address, target.spec.limits.connect_timeout);
        let way = Way { resolver: &self.agent.resolver, floor: &self.agent.settings.floor, limit };
        let fresh = tcp::within(target, at, limit, async {
            let connected = tcp::dial(&self.permit, at, way).await?;
            Ok(self.speak(connected.stream, http2).await?)
        });
        Ok(fresh.await?)
    }

    async fn speak(&self, stream: TcpStream, http2: bool) -> Result<Fresh, Failure> {
        let service = self.permit.service();
        let Service::Http(service) = &*service else { return Err(self.failure(Code::Internal, "no target of kind http")) };
        let Some(tls) = &service.tls else { return self.handshake(stream, http2 && service.http2).await };
        let offered: &[&[u8]] = if http2 { &[HTTP2, HTTP1] } else { &[HTTP1] };
        let at = &self.permit.target().spec.address;
        let stream = tls::begin(&self.permit, at, &tls.offering(offered), stream).await?;
        let chosen = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        self.handshake(stream, chosen).await
    }

    async fn handshake<Io>(&self, io: Io, http2: bool) -> Result<Fresh, Failure>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |error: hyper::Error| self.failure(Code::ResponseInvalid, error);
        if http2 {
            let mut builder = http2::Builder::new(self.inline.clone());
            builder.initial_stream_window_size(HTTP2_WINDOW).initial_connection_window_size(HTTP2_WINDOW);
            builder.max_header_list_size(u32::try_from(HTTP_HEAD).unwrap_or(u32::MAX));
            let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(failed)?;
            self.inline.run(async move {
                // Whoever has a request on it is told.
                let _ = connection.await;
            });
            return Ok(Fresh::Http2(sender));
        }
        let mut builder = http1::Builder::new();
        builder.max_header_size(HTTP_HEAD).max_buf_size(HTTP_BUFFER);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(failed)?;
        self.inline.run(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(Fresh::Http1(sender))
    }

    fn request_http1(&self, outgoing: Outgoing) -> Request<Upload> {
        let Outgoing { method, path, mut headers, mut body, expects, .. } = outgoing;
        headers.insert(header::HOST, self.host.clone());
        if !body.is_none() && body.size_hint().exact().is_none() {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let leave = expects.then(oneshot::channel::<()>).map(|(leave, given)| {
            body.await_leave(given);
            Mutex::new(Some(leave))
        });
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(path);
        *request.headers_mut() = headers;
        if let Some(leave) = leave {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE
                    && let Some(leave) = leave.lock().unwrap_or_else(PoisonError::into_inner).take()
                {
                    // A body that nobody sends any more needs no leave.
                    let _ = leave.send(());
                }
            });
        }
        request
    }

    /// Leave to send is not waited for: of HTTP/2's intermediate answers nothing is heard.
    fn request_http2(&self, outgoing: Outgoing) -> Result<Request<Upload>, Failure> {
        let Outgoing { method, path, mut headers, body, .. } = outgoing;
        headers.remove(header::EXPECT);
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path).build();
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.map_err(|error| self.failure(Code::Internal, error))?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Gives an answer its time, which begins anew with each part of the request's body that is taken.
    async fn in_time<T>(&self, answer: impl Future<Output = T>, passed: &Passed) -> Result<T, Failure> {
        let limit = self.permit.target().spec.limits.response_timeout;
        let mut answer = std::pin::pin!(answer);
        let mut since = Instant::now();
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(answer),
                () = sleep_until(since + limit) => {}
            }
            let last = passed.last();
            if last <= since {
                let detail = format!("no answer within {} ms", limit.as_millis());
                return Err(self.failure(Code::ResponseTimeout, detail));
            }
            since = last;
        }
    }

    fn explain(&self, error: &hyper::Error, passed: &Passed) -> Failure {
        let code = if passed.is_too_large() {
            Code::BodyTooLarge
        } else if error.is_user() {
            Code::ClientReset
        } else if error.is_parse() {
            Code::ResponseInvalid
        } else {
            Code::TargetReset
        };
        match error.source() {
            Some(source) => self.failure(code, format_args!("{error}: {source}")),
            None => self.failure(code, error),
        }
    }

    fn failure(&self, code: Code, why: impl std::fmt::Display) -> Failure {
        let target = self.permit.target();
        Failure::new(code, format_args!("`{}` at {}: {why}", target.name, target.spec.address))
    }
}

/// Whether a request can be made again if nothing came back.
fn is_repeatable(request: &Request<Upload>) -> bool {
    request.body().is_none() && request.method().is_idempotent()
}

/// A second one of a request without a body.
fn copy(request: &Request<Upload>, passed: &Arc<Passed>) -> Request<Upload> {
    let mut copy = Request::new(Upload::none(passed.clone()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}
