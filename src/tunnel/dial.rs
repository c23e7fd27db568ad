//! Out to a host: every address of a name, through a proxy when one is set, TLS on top. It refuses to know what is said then,
//! and which hosts may be dialled.

mod names;

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::names::{Found, Led};
use super::listen::{is_out_of_descriptors, prepare, prepare_tunnel};
use crate::base::code::{Code, Failure};
use crate::base::endpoint::{Host, HostPort};
use crate::base::limits::{HAPPY_EYEBALLS_DELAY, MAX_ADDRESSES, MAX_HTTP_REQUEST, SOCKET_BUFFER};
use crate::base::secret::Secret;
use crate::pki::tls::{self, FirstBytes};

/// A TLS stream to a gateway. The buffer under TLS spares four of five reads of a record.
pub type Secured = TlsStream<BufReader<FirstBytes<TcpStream>>>;

/// How to leave the site.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    matcher: Option<Arc<Matcher>>,
    authorization: Option<Secret>,
}

/// A proxy for one destination.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Where it listens.
    pub at: HostPort,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Secret>,
}

impl Egress {
    /// As HTTPS_PROXY, ALL_PROXY and NO_PROXY say.
    #[must_use]
    pub fn from_environment() -> Self {
        Self { matcher: Some(Arc::new(Matcher::from_env())), authorization: None }
    }

    /// Through one proxy, but for the hosts of `no_proxy` (names, domains with a leading dot, addresses, CIDR; `*` for all).
    #[must_use]
    pub fn through(proxy: &HostPort, no_proxy: &[String], login: Option<(&str, &Secret)>) -> Self {
        let matcher = Matcher::builder().all(format!("http://{proxy}")).no(no_proxy.join(",")).build();
        let authorization = login.map(|(user, password)| {
            let credentials = zeroize::Zeroizing::new(format!("{user}:{}", password.expose()));
            Secret::new(&format!("Basic {}", STANDARD.encode(credentials.as_bytes())))
        });
        Self { matcher: Some(Arc::new(matcher)), authorization }
    }

    /// The proxy for a destination, if one is to be used.
    ///
    /// # Errors
    /// `proxy_protocol` for a proxy that is not spoken (`https://`, `socks5://`).
    pub fn proxy_for(&self, to: &HostPort) -> Result<Option<Proxy>, Failure> {
        let uri: Uri = format!("https://{to}").parse().map_err(|error| Failure::new(Code::Internal, error))?;
        let Some(intercept) = self.matcher.as_ref().and_then(|matcher| matcher.intercept(&uri)) else { return Ok(None) };
        let proxy = intercept.uri();
        let host = proxy.host().unwrap_or_default();
        if proxy.scheme_str() != Some("http") {
            let detail = format!("`{}://{host}`: only http:// proxies are spoken", proxy.scheme_str().unwrap_or_default());
            return Err(Failure::new(Code::ProxyProtocol, detail));
        }
        let at = HostPort { host: Host::parse(host)?, port: proxy.port_u16().unwrap_or(80) };
        let from_url = intercept.basic_auth().and_then(|value| value.to_str().ok()).map(Secret::new);
        Ok(Some(Proxy { at, authorization: self.authorization.clone().or(from_url) }))
    }
}

/// Connects to a gateway and finishes the TLS handshake under the endpoint's name.
///
/// # Errors
/// One of the codes `gateway_*`, `proxy_*`, `tls_*`, `certificate_*`, each naming what was dialled.
pub async fn secure(to: &HostPort, proxy: Option<&Proxy>, config: Arc<ClientConfig>) -> Result<Secured, Failure> {
    secure_at(to, to, proxy, config).await
}

/// The same at another place than the endpoint's name says, still under that name.
///
/// # Errors
/// As [`secure`].
pub async fn secure_at(
    at: &HostPort,
    to: &HostPort,
    proxy: Option<&Proxy>,
    config: Arc<ClientConfig>,
) -> Result<Secured, Failure> {
    let (stream, led) = reach(at, proxy).await?;
    prepare_tunnel(&stream);
    let secured = shake_hands(stream, to, config).await?;
    led.there();
    Ok(secured)
}

/// As [`secure`], for a connection that is one client's stream. It has not what a tunnel has beside: its reader may rest for as
/// long as it likes, which looks like acknowledging nothing.
///
/// # Errors
/// As [`secure`].
pub async fn secure_stream(to: &HostPort, proxy: Option<&Proxy>, config: Arc<ClientConfig>) -> Result<Secured, Failure> {
    let (stream, _) = reach(to, proxy).await?;
    shake_hands(stream, to, config).await
}

async fn reach(at: &HostPort, proxy: Option<&Proxy>) -> Result<(TcpStream, Led), Failure> {
    let (stream, led) = match proxy {
        Some(proxy) => through_proxy(proxy, at).await?,
        None => resolve_and_race(at, &Wording::GATEWAY).await?,
    };
    prepare(&stream);
    Ok((stream, led))
}

async fn shake_hands(stream: TcpStream, to: &HostPort, config: Arc<ClientConfig>) -> Result<Secured, Failure> {
    let stream = BufReader::with_capacity(SOCKET_BUFFER, FirstBytes::new(stream));
    let handshake = TlsConnector::from(config).connect(tls::server_name(to)?, stream).into_fallible();
    handshake.await.map_err(|(error, stream)| tls::explain_plaintext(&error, stream.get_ref().first_bytes(), to))
}

/// What a secured stream is connected to: the gateway, or the proxy before it.
#[must_use]
pub fn peer_address(stream: &Secured) -> Option<SocketAddr> {
    stream.get_ref().0.get_ref().get_ref().peer_addr().ok()
}

/// Connects to the first of several addresses that answers, a further one every 250 ms (RFC 8305). IPv6 and IPv4 alternate.
///
/// # Errors
/// The last address's error.
pub async fn race<F, T>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let mut waiting = interleave(addresses).into_iter();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    loop {
        let next = waiting.next();
        if next.is_none() && attempts.is_empty() {
            return Err(last);
        }
        let more = next.is_some();
        if let Some(address) = next {
            attempts.spawn(connect(address));
        }
        let stagger =
            async { if more { tokio::time::sleep(HAPPY_EYEBALLS_DELAY).await } else { std::future::pending().await } };
        tokio::select! {
            biased;
            Some(joined) = attempts.join_next() => match joined {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(error) => last = io::Error::other(error),
            },
            () = stagger => {}
        }
    }
}

fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = (v6.next(), v4.next());
        if pair == (None, None) || mixed.len() >= MAX_ADDRESSES {
            mixed.truncate(MAX_ADDRESSES);
            return mixed;
        }
        mixed.extend([pair.0, pair.1].into_iter().flatten());
    }
}

/// The codes for one kind of destination.
struct Wording {
    what: &'static str,
    dns: Code,
    refused: Code,
    unreachable: Code,
    timeout: Code,
}

impl Wording {
    const GATEWAY: Self = Self {
        what: "gateway",
        dns: Code::GatewayDnsFailed,
        refused: Code::GatewayRefused,
        unreachable: Code::GatewayUnreachable,
        timeout: Code::GatewayTimeout,
    };
    const PROXY: Self = Self {
        what: "proxy",
        dns: Code::ProxyUnreachable,
        refused: Code::ProxyUnreachable,
        unreachable: Code::ProxyUnreachable,
        timeout: Code::ProxyUnreachable,
    };
}

async fn resolve_and_race(to: &HostPort, wording: &Wording) -> Result<(TcpStream, Led), Failure> {
    let unresolved =
        |why: &dyn Display| Failure::new(wording.dns, format_args!("resolving the {} {}: {why}", wording.what, to.host));
    let found = match &to.host {
        Host::Ip(ip) => Found::literal(*ip),
        Host::Dns(name) => names::resolve(name.as_str()).await.map_err(|error| unresolved(&error))?,
    };
    let addresses = found.addresses.iter().map(|ip| SocketAddr::new(*ip, to.port)).collect();
    let error = match race(addresses, TcpStream::connect).await {
        Ok(stream) => return Ok((stream, found.led())),
        Err(error) => error,
    };
    if let Some(unanswered) = found.unanswered {
        return Err(unresolved(&format_args!("{unanswered}; where it led last: {error}")));
    }
    let code = match error.kind() {
        io::ErrorKind::ConnectionRefused => wording.refused,
        io::ErrorKind::TimedOut => wording.timeout,
        io::ErrorKind::AddrNotAvailable => wording.dns,
        _ if is_out_of_descriptors(&error) => Code::OutOfDescriptors,
        _ => wording.unreachable,
    };
    Err(Failure::new(code, format_args!("connecting to the {} {to}: {error}", wording.what)))
}

/// CONNECT (RFC 9110, 9.3.6). The proxy resolves the name.
async fn through_proxy(proxy: &Proxy, to: &HostPort) -> Result<(TcpStream, Led), Failure> {
    let (stream, led) = resolve_and_race(&proxy.at, &Wording::PROXY).await?;
    let broken =
        |error: hyper::Error| Failure::new(Code::ProxyProtocol, format_args!("CONNECT {to} through {}: {error}", proxy.at));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HTTP_REQUEST)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let mut request = http::Request::connect(to.to_string())
        .header("Host", to.to_string())
        .body(Empty::new())
        .map_err(|error| Failure::new(Code::Internal, error))?;
    if let Some(authorization) = &proxy.authorization {
        let mut value =
            HeaderValue::from_str(authorization.expose()).map_err(|error| Failure::new(Code::ConfigInvalid, error))?;
        value.set_sensitive(true);
        request.headers_mut().insert("proxy-authorization", value);
    }
    let connection = async { connection.with_upgrades().await.map_err(broken) };
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        judge(response.status(), proxy, to)?;
        hyper::upgrade::on(response).await.map_err(broken)
    };
    let upgraded = beside(connection, exchange).await?;
    let parts =
        upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| Failure::new(Code::Internal, "another stream came back"))?;
    if !parts.read_buf.is_empty() {
        return Err(Failure::new(Code::ProxyProtocol, format_args!("{} sent bytes before TLS began", proxy.at)));
    }
    Ok((parts.io.into_inner(), led))
}

/// Runs an HTTP connection for as long as an exchange over it takes. A connection that ends first leaves the exchange to say how.
pub async fn beside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

fn judge(status: StatusCode, proxy: &Proxy, to: &HostPort) -> Result<(), Failure> {
    let code = match status.as_u16() {
        200..=299 => return Ok(()),
        407 => Code::ProxyAuthRequired,
        403 => Code::ProxyDenied,
        502..=504 => Code::ProxyBadGateway,
        _ => Code::ProxyProtocol,
    };
    Err(Failure::new(code, format_args!("the proxy {} answered {status} to CONNECT {to}", proxy.at)))
}

#[cfg(test)]
mod tests;
