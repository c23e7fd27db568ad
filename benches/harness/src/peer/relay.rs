//! The plain relay as a peer: two processes of this program. Refuses to know how it copies.

use anyhow::Result;

use super::{Site, Tunnel};
use crate::place::{Place, free_port};
use crate::process::Process;

pub(super) fn start(site: &Site) -> Result<Tunnel> {
    let (entry, middle) = (free_port(), free_port());
    let far = hop(&site.far, site.far.outside(middle), site.local_target())?;
    let near = hop(&site.near, Place::inside(entry), site.far.outside(middle))?;
    Ok(Tunnel::plain(Place::inside(entry), vec![near], vec![far]))
}

fn hop(place: &Place, listen: std::net::SocketAddr, to: std::net::SocketAddr) -> Result<Process> {
    let command = place.own_program(&["relay", &listen.to_string(), &to.to_string()])?;
    let mut process = Process::start_quiet("relay", command)?;
    process.listens(listen.port())?;
    Ok(process)
}
