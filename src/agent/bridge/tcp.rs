//! A TCP target: resolve, check every address, connect to a checked one, say who the client is if the target wants to know.
//! It refuses to carry bytes: the splice does.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::resolve::Resolver;
use crate::agent::floor::{Checked, Floor};
use crate::agent::policy::{Permit, Target};
use crate::base::code::Code;
use crate::tunnel::dial::race;
use crate::tunnel::listen::prepare;
use crate::wire::refusal::Refusal;

/// The connection, and where it really went.
pub struct Connected {
    /// To the target.
    pub stream: TcpStream,
    /// One that the floor let pass.
    pub address: SocketAddr,
}

/// Connects to the permitted target. `source` is the client, for the PROXY protocol; `deadline` is what the gateway still waits.
///
/// # Errors
/// One of `target_*`, `address_forbidden`, `loopback_forbidden`, `agent_descriptors`, each naming the target.
pub async fn connect(
    permit: &Permit,
    resolver: &Resolver,
    floor: &Floor,
    source: Option<SocketAddr>,
    deadline: Duration,
) -> Result<Connected, Refusal> {
    let target = permit.target();
    let limit = target.spec.limits.connect_timeout.min(deadline);
    let attempt = async {
        let addresses = checked_addresses(target, resolver, floor).await?;
        let stream = race(addresses.into_iter().map(Checked::address).collect(), TcpStream::connect).await;
        let mut stream = stream.map_err(|error| failed(target, &error))?;
        prepare(&stream);
        let address = stream.peer_addr().map_err(|error| failed(target, &error))?;
        floor.check_ends(stream.local_addr().map_err(|error| failed(target, &error))?, address)?;
        if target.spec.send_proxy {
            stream.write_all(&proxy_header(source, address)).await.map_err(|error| failed(target, &error))?;
        }
        Ok(Connected { stream, address })
    };
    let timed_out = || {
        let detail = format!("`{}` at {} did not answer within {} ms", target.name, target.spec.address, limit.as_millis());
        Refusal::new(Code::TargetTimeout, detail)
    };
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(timed_out()))
}

/// One bad address among several refuses all: a name that resolves to a forbidden address is an attack or a mistake.
async fn checked_addresses(target: &Target, resolver: &Resolver, floor: &Floor) -> Result<Vec<Checked>, Refusal> {
    let resolved = resolver.resolve(&target.spec.address).await.map_err(|error| {
        Refusal::new(
            Code::TargetDnsFailed,
            format_args!("resolving {} for `{}`: {error}", target.spec.address.host, target.name),
        )
    })?;
    resolved.into_iter().map(|address| floor.check(address, target.spec.allow_loopback)).collect()
}

fn failed(target: &Target, error: &io::Error) -> Refusal {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    let code = match error.kind() {
        io::ErrorKind::ConnectionRefused => Code::TargetRefused,
        io::ErrorKind::TimedOut => Code::TargetTimeout,
        _ if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) => Code::AgentDescriptors,
        _ => Code::TargetUnreachable,
    };
    Refusal::new(code, format_args!("`{}` at {}: {error}", target.name, target.spec.address))
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
