//! A TCP target: resolve, check every address, connect to a checked one, say who the client is if the target wants to know.
//! It refuses to carry bytes: the splice does.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Way;
use crate::agent::floor::Checked;
use crate::agent::policy::{Permit, Service, Target};
use crate::base::code::Code;
use crate::base::endpoint::HostPort;
use crate::tunnel::dial::race;
use crate::tunnel::listen::{is_out_of_descriptors, prepare};
use crate::wire::refusal::Refusal;

/// The connection, and where it really went.
pub struct Connected {
    /// To the target.
    pub stream: TcpStream,
    /// One that the floor let pass.
    pub address: SocketAddr,
}

/// Connects to the permitted target. `source` is the client, for the PROXY protocol.
///
/// # Errors
/// One of `target_*`, `address_forbidden`, `loopback_forbidden`, `out_of_descriptors`, each naming the target.
pub async fn connect(permit: &Permit, way: Way<'_>, source: Option<SocketAddr>) -> Result<Connected, Refusal> {
    let target = permit.target();
    let at = &target.spec.address;
    within(target, at, way.limit, async {
        let mut connected = dial(permit, at, way).await?;
        if matches!(target.spec.service, Service::Tcp { send_proxy: true }) {
            let header = proxy_header(source, connected.address);
            connected.stream.write_all(&header).await.map_err(|error| failed(target, at, &error))?;
        }
        Ok(connected)
    })
    .await
}

/// Connects to one place of the permitted target.
///
/// # Errors
/// As [`connect`]. Its time is the caller's to limit: [`within`].
pub(super) async fn dial(permit: &Permit, at: &HostPort, way: Way<'_>) -> Result<Connected, Refusal> {
    let target = permit.target();
    let failed = |error| failed(target, at, &error);
    let addresses = checked_addresses(target, at, way).await?;
    let stream = race(addresses.into_iter().map(Checked::address).collect(), TcpStream::connect).await.map_err(failed)?;
    prepare(&stream);
    let address = stream.peer_addr().map_err(failed)?;
    way.floor.check_ends(stream.local_addr().map_err(failed)?, address)?;
    Ok(Connected { stream, address })
}

/// Gives connecting the target's connect timeout, and no more than `limit`. How it went is the target's light.
///
/// # Errors
/// `target_timeout`, or what the attempt says.
pub(super) async fn within<T>(
    target: &Target,
    at: &HostPort,
    limit: Duration,
    attempt: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let limit = target.spec.limits.connect_timeout.min(limit);
    let timed_out = || {
        let detail = format!("`{}` at {at} did not answer within {} ms", target.name, limit.as_millis());
        Refusal::new(Code::TargetTimeout, detail)
    };
    let outcome = tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(timed_out()));
    target.lamp().tried(outcome.as_ref().map(drop).map_err(|refusal| refusal.code));
    outcome
}

/// One bad address among several refuses all: a name that resolves to a forbidden address is an attack or a mistake.
async fn checked_addresses(target: &Target, at: &HostPort, way: Way<'_>) -> Result<Vec<Checked>, Refusal> {
    let resolved = way.resolver.resolve(at).await.map_err(|error| {
        Refusal::new(Code::TargetDnsFailed, format_args!("resolving {} for `{}`: {error}", at.host, target.name))
    })?;
    resolved.into_iter().map(|address| way.floor.check(address, target.spec.allow_loopback)).collect()
}

fn failed(target: &Target, at: &HostPort, error: &io::Error) -> Refusal {
    let code = match error.kind() {
        io::ErrorKind::ConnectionRefused => Code::TargetRefused,
        io::ErrorKind::TimedOut => Code::TargetTimeout,
        _ if is_out_of_descriptors(error) => Code::OutOfDescriptors,
        _ => Code::TargetUnreachable,
    };
    Refusal::new(code, format_args!("`{}` at {at}: {error}", target.name))
}

/// PROXY protocol v2; without a known client it says so (LOCAL).
fn proxy_header(source: Option<SocketAddr>, destination: SocketAddr) -> Vec<u8> {
    let header = match source {
        Some(source) if source.is_ipv4() == destination.is_ipv4() => {
            ProxyHeader::with_address(ProxiedAddress::stream(source, destination))
        }
        // The protocol can't mix families: both are told as IPv6.
        Some(source) => ProxyHeader::with_address(ProxiedAddress::stream(as_v6(source), as_v6(destination))),
        None => ProxyHeader::with_local(),
    };
    let mut bytes = Vec::with_capacity(64);
    // The header has no extensions, so it fits.
    let _ = header.encode_v2(&mut bytes);
    bytes
}

fn as_v6(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::bridge::resolve::Resolver;
    use crate::agent::floor::Floor;

    async fn connect_by(permit: &Permit, resolver: &Resolver, seconds: u64) -> Result<Connected, Refusal> {
        let way = Way { resolver, floor: &Floor::default(), limit: Duration::from_secs(seconds) };
        connect(permit, way, None).await
    }

    async fn refused(addresses: &[&str], allow_loopback: bool) -> Code {
        let resolver = Resolver::answering("db.corp.example", addresses.iter().map(|ip| ip.parse().unwrap()).collect());
        let permit = permit("db.corp.example:1", allow_loopback);
        let connected = connect_by(&permit, &resolver, 5).await;
        connected.err().unwrap().code
    }

    #[tokio::test]
    async fn e2_one_forbidden_address_among_good_ones_refuses_them_all() {
        assert_eq!(refused(&["169.254.169.254"], true).await, Code::AddressForbidden);
        assert_eq!(refused(&["127.0.0.1", "169.254.169.254"], true).await, Code::AddressForbidden);
        assert_eq!(refused(&["::ffff:169.254.169.254", "127.0.0.1"], true).await, Code::AddressForbidden);
        assert_eq!(refused(&["127.0.0.1"], false).await, Code::LoopbackForbidden);
        assert_eq!(refused(&["127.0.0.1", "127.0.0.2"], true).await, Code::TargetRefused, "both were dialled");
    }

    #[tokio::test]
    async fn e2_the_checked_address_is_the_one_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.3:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let resolver = Resolver::answering("db.corp.example", vec![at.ip()]);
        let permit = permit(&format!("db.corp.example:{}", at.port()), true);
        let connected = connect_by(&permit, &resolver, 5).await.ok().unwrap();
        assert_eq!(connected.address, at);
    }

    #[tokio::test(start_paused = true)]
    async fn f18_a_target_gets_its_connect_timeout_and_no_more_than_the_gateway_still_waits() {
        let resolver = Resolver::default();
        let cell = resolver.answer("db.corp.example");
        // The site's resolver says nothing.
        let silence = cell.get_or_try_init(std::future::pending::<io::Result<_>>);
        tokio::pin!(silence);
        let permit = permit("db.corp.example:1", true);
        for (left, limit) in [(60, 5), (2, 2)] {
            let before = tokio::time::Instant::now();
            let connected = tokio::select! {
                biased;
                _ = &mut silence => unreachable!(),
                connected = connect_by(&permit, &resolver, left) => connected,
            };
            assert_eq!(connected.err().unwrap().code, Code::TargetTimeout);
            assert_eq!(before.elapsed().as_secs(), limit);
        }
    }

    fn permit(address: &str, allow_loopback: bool) -> Permit {
        use crate::agent::fixture::{open, policy, spec};
        policy(&[("db", spec(address, allow_loopback))]).authorize(&open("db")).unwrap()
    }

    #[test]
    fn the_proxy_header_names_the_client_as_the_specification_says() {
        let header = proxy_header(Some("192.0.2.1:1000".parse().unwrap()), "10.0.0.1:80".parse().unwrap());
        assert_eq!(&header[..12], b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(header[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(header[16..], [192, 0, 2, 1, 10, 0, 0, 1, 0x03, 0xe8, 0, 80]);
        assert_eq!(proxy_header(None, "10.0.0.1:80".parse().unwrap())[12], 0x20);
        assert_eq!(proxy_header(Some("[2001:db8::1]:1".parse().unwrap()), "10.0.0.1:80".parse().unwrap())[13], 0x21);
    }
}
