//! A pair of stunnel: the near one takes plain TCP and dials the far one with mutual TLS. Refuses to know what is measured.

use std::path::Path;

use anyhow::Result;

use super::{Site, Tunnel, write_private};
use crate::pki::Pki;
use crate::place::{Place, free_port};
use crate::process::Process;

pub(super) fn start(site: &Site, scratch: &Path) -> Result<Tunnel> {
    let pki = Pki::make(scratch, &["near.test", "far.test"])?;
    let (entry, middle) = (Place::inside(free_port()), site.far.outside(free_port()));
    let far = format!("accept = {middle}\nconnect = {}\ncert = {}\n", site.local_target(), pki.both("far.test"));
    let far = hop(&site.far, &scratch.join("far.conf"), &pki, &far, middle.port())?;
    let near = format!(
        "client = yes\naccept = {entry}\nconnect = {middle}\ncert = {}\ncheckHost = far.test\nsni = far.test\n",
        pki.both("near.test")
    );
    let near = hop(&site.near, &scratch.join("near.conf"), &pki, &near, entry.port())?;
    Ok(Tunnel::plain(entry, vec![near], vec![far]))
}

fn hop(place: &Place, file: &Path, pki: &Pki, service: &str, port: u16) -> Result<Process> {
    let root = pki.root();
    let text = format!(
        "foreground = quiet
pid =
[tunnel]
{service}CAfile = {root}
verifyChain = yes
sslVersion = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
"
    );
    write_private(file, &text)?;
    let mut command = place.program("stunnel4");
    command.arg(file);
    let mut process = Process::start_quiet("stunnel", command)?;
    process.listens(port)?;
    Ok(process)
}
