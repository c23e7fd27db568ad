//! A gateway with an entry point of every kind, and the callers that use them. Refuses to know what clients carry.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::Signal;
use tokio_rustls::TlsConnector;

use super::process::{Process, Program};
use super::site::{Agent, Gateway, Site};
use super::{SOON, Scratch, connect_from, eventually, free_port, loopback};
use crate::fixtures::client::{self, Io};
use crate::fixtures::vendor::{Vendor, secured};

/// Who is in by a certificate, unless a test says otherwise.
pub(crate) const CERTIFIED: &str = "ci.vendor.test";

/// A site whose clients may come in every way: a listener for each target, and an entry point of each kind.
pub(crate) struct Entries {
    pub(crate) site: Site,
    pub(crate) vendor: Vendor,
    pub(crate) connect: SocketAddr,
    pub(crate) connect_tls: SocketAddr,
    pub(crate) socks5: SocketAddr,
    pub(crate) socks5_tls: SocketAddr,
    /// A listener of kind tcp for the first target, for clients with a certificate alone.
    pub(crate) certified: SocketAddr,
    /// For clients with TLS: they show the certificate of [`CERTIFIED`], or none.
    with_certificate: TlsConnector,
    pub(crate) without_certificate: TlsConnector,
    targets: Vec<(String, u16)>,
    scratch: Scratch,
}

/// How a client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the target's own listener.
    Listener,
    Connect,
    ConnectTls,
    Socks5,
    Socks5Tls,
    /// By a certificate: the listener of kind tcp, CONNECT, SOCKS5.
    Certified,
    CertifiedConnect,
    CertifiedSocks5,
}

impl Way {
    pub(crate) fn is_certified(self) -> bool {
        matches!(self, Self::Certified | Self::CertifiedConnect | Self::CertifiedSocks5)
    }
}

/// A caller's token.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) file: PathBuf,
}

impl Entries {
    /// For targets of `acme/dc1`.
    pub(crate) async fn new(targets: &[(&str, SocketAddr)]) -> Self {
        Self::with(&Agent::targets(targets), &targets.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "").await
    }

    /// The same with agent.yaml's `targets`, their names, and more keys for each entry point, each with a comma before it.
    pub(crate) async fn with(agent_more: &str, targets: &[&str], keys: &str) -> Self {
        let targets: Vec<_> = targets.iter().map(|name| ((*name).to_owned(), free_port())).collect();
        let [connect, connect_tls, socks5, socks5_tls, certified] = [(); 5].map(|()| loopback(free_port()));
        let (gateway, vendor) = (Gateway::init().await, Vendor::new());
        let agent = Agent::blank(&gateway, "a1");
        let site = Site::of(gateway, agent, targets.clone());
        let scratch = Scratch::new();
        let (with_certificate, without_certificate) =
            (vendor.connector(Some(&vendor.client(CERTIFIED))), vendor.connector(None));
        let mut entries = Self {
            site,
            vendor,
            connect,
            connect_tls,
            socks5,
            socks5_tls,
            certified,
            with_certificate,
            without_certificate,
            targets,
            scratch,
        };
        entries.configure(&[(CERTIFIED, "acme/dc1/*")], keys);
        entries.site.gateway.start().await;
        entries.site.agent = Agent::enroll(&entries.site.gateway, "a1").await;
        entries.site.agent.configure(agent_more);
        entries.site.agent.start().await;
        entries
    }

    /// Writes gateway.yaml anew: who is in by which name of a certificate, with which grant.
    pub(crate) fn configure(&self, certified: &[(&str, &str)], keys: &str) {
        let (mut text, tls) = ("listeners:\n".to_owned(), self.vendor.tls());
        for (target, port) in &self.targets {
            let _ = writeln!(text, "  - {{listen: \"127.0.0.1:{port}\", target: acme/dc1/{target}{keys}}}");
        }
        let by_certificate = format!("{tls}, {}", self.vendor.client_ca(certified));
        let first = &self.targets[0].0;
        for (listen, kind, more) in [
            (self.connect, "kind: connect", ""),
            (self.connect_tls, "kind: connect", by_certificate.as_str()),
            (self.socks5, "kind: socks5", ""),
            (self.socks5_tls, "kind: socks5", by_certificate.as_str()),
            (self.certified, &format!("target: acme/dc1/{first}"), by_certificate.as_str()),
        ] {
            let comma = if more.is_empty() { "" } else { ", " };
            let _ = writeln!(text, "  - {{listen: \"{listen}\", {kind}{comma}{more}{keys}}}");
        }
        self.site.gateway.configure(&text);
    }

    /// Makes the gateway read it, and waits until it has.
    pub(crate) async fn reload(&mut self) {
        let gateway = &mut self.site.gateway;
        let done = |gateway: &Gateway| gateway.audit().iter().filter(|row| row["event"] == "reloaded").count();
        let before = done(gateway);
        gateway.process().signal(Signal::HUP);
        eventually("the gateway has reloaded", SOON, async || (done(gateway) > before).then_some(())).await;
    }

    /// A token for a grant, and more options of the command.
    pub(crate) async fn token(&self, name: &str, grant: &str, more: &[&str]) -> Token {
        let create = ["client-token", "create", "--name", name, "--grant", grant];
        let made = self.site.gateway.admin(&create).args(more).run().await.ok();
        let file = self.scratch.write(&format!("{name}.token"), &made);
        Token { text: made.trim().to_owned(), file }
    }

    /// A client's stream to a target, or why there is none.
    pub(crate) async fn open(&self, way: Way, target: &str, token: &str) -> io::Result<Box<dyn Io>> {
        let connector = if way.is_certified() { &self.with_certificate } else { &self.without_certificate };
        self.open_from("127.0.0.1", way, target, token, connector).await
    }

    /// The same for a client on another host, which secures it so where there is TLS.
    pub(crate) async fn open_from(
        &self,
        host: &str,
        way: Way,
        target: &str,
        token: &str,
        connector: &TlsConnector,
    ) -> io::Result<Box<dyn Io>> {
        let at = match way {
            Way::Listener => self.site.at(target),
            Way::Connect => self.connect,
            Way::ConnectTls | Way::CertifiedConnect => self.connect_tls,
            Way::Socks5 => self.socks5,
            Way::Socks5Tls | Way::CertifiedSocks5 => self.socks5_tls,
            Way::Certified => self.certified,
        };
        let stream = connect_from(host, at).await?;
        stream.set_nodelay(true)?;
        let mut io: Box<dyn Io> = match way {
            Way::Listener | Way::Connect | Way::Socks5 => Box::new(stream),
            _ => Box::new(secured(connector, stream).await?),
        };
        let (target, token) = (format!("acme/dc1/{target}"), (!way.is_certified()).then_some(token));
        match way {
            Way::Connect | Way::ConnectTls | Way::CertifiedConnect => {
                let answer = client::connect(&mut io, &target, token).await?;
                if answer.starts_with("HTTP/1.1 200 ") { Ok(io) } else { Err(io::Error::other(answer)) }
            }
            Way::Socks5 | Way::Socks5Tls | Way::CertifiedSocks5 => {
                let answer = client::socks5(&mut io, &target, token).await?;
                if answer.ends_with(&client::SOCKS5_OPEN) { Ok(io) } else { Err(io::Error::other(format!("{answer:?}"))) }
            }
            Way::Listener | Way::Certified => Ok(io),
        }
    }

    /// Revokes a token.
    pub(crate) async fn revoke(&self, name: &str) {
        self.site.gateway.admin(&["client-token", "revoke", name]).run().await.ok();
    }

    /// A running `underpass connect --listen`, and where it listens.
    pub(crate) async fn connector(&self, token: &Token, target: &str) -> (Process, SocketAddr) {
        let program = Program::underpass().args(["connect", &format!("acme/dc1/{target}"), "--listen", "127.0.0.1:0"]);
        let mut process = program.arg("--token-file").arg(&token.file).start();
        let at = eventually("connect listens", SOON, async || {
            assert!(process.is_running(), "connect ended: {}", process.stderr());
            process.stdout().split_whitespace().nth(2)?.parse().ok()
        })
        .await;
        (process, at)
    }

    /// The command line of `underpass connect --stdio`, for ssh's `ProxyCommand`.
    pub(crate) fn proxy_command(&self, token: &Token, target: &str) -> String {
        let program = Program::underpass_path();
        format!("{} connect acme/dc1/{target} --stdio --token-file {}", program.display(), token.file.display())
    }

    /// Every row of an event in both ends' audits for the caller of that name.
    pub(crate) fn audits_of(&self, event: &str, caller: &str) -> [usize; 2] {
        [self.site.gateway.audit(), self.site.agent.audit()]
            .map(|rows| rows.iter().filter(|row| row["event"] == event && row["caller"] == caller).count())
    }
}
