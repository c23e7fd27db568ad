//! Where a process runs: a network namespace with an address, or simply loopback. Refuses to know what runs there.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// One end of the path.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The address under which the other end reaches this one.
    pub(crate) ip: IpAddr,
    netns: Option<&'static str>,
}

impl Place {
    /// Both ends on loopback.
    pub(crate) fn loopback() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST.into(), netns: None }
    }

    /// An end in a namespace that the sandbox knows by this name.
    pub(crate) fn in_netns(netns: &'static str, ip: Ipv4Addr) -> Self {
        Self { ip: ip.into(), netns: Some(netns) }
    }

    /// A command that will run here.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(netns) = self.netns else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns]).arg(program);
        command
    }

    /// This program again, with other arguments.
    pub(crate) fn own_program(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.program(std::env::current_exe().context("finding this program's file")?);
        command.args(arguments);
        Ok(command)
    }

    /// A port here, as the other end reaches it.
    pub(crate) fn outside(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// A port that only this end reaches.
    pub(crate) fn inside(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }
}

/// A port that nobody listens on, another at each call. They are below those that connections leave from.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 2_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 8_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
