//! A pair of haproxy: the near one takes plain TCP and dials the far one with mutual TLS. It runs with a thread for
//! each core, as by default: with one thread it took as much processor time. Refuses to know what is measured.

use std::path::Path;

use anyhow::Result;

use super::{Site, Tunnel, write_private};
use crate::pki::Pki;
use crate::place::{Place, free_port};
use crate::process::Process;

const CIPHER: &str = "ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256";

pub(super) fn start(site: &Site, scratch: &Path) -> Result<Tunnel> {
    let pki = Pki::make(scratch, &["near.test", "far.test"])?;
    let (entry, middle) = (Place::inside(free_port()), site.far.outside(free_port()));
    let (root, near_pem, far_pem) = (pki.root(), pki.both("near.test"), pki.both("far.test"));
    let tls = format!("ca-file {root} verify required {CIPHER}");
    let far = hop(
        &site.far,
        &scratch.join("far.cfg"),
        &format!("bind {middle} ssl crt {far_pem} {tls}"),
        &format!("server target {}", site.local_target()),
        middle.port(),
    )?;
    let near = hop(
        &site.near,
        &scratch.join("near.cfg"),
        &format!("bind {entry}"),
        &format!("server far {middle} ssl crt {near_pem} {tls} verifyhost far.test sni str(far.test)"),
        entry.port(),
    )?;
    Ok(Tunnel::plain(entry, vec![near], vec![far]))
}

fn hop(place: &Place, file: &Path, bind: &str, server: &str, port: u16) -> Result<Process> {
    let text = format!(
        "global
  maxconn 8000
defaults
  mode tcp
  maxconn 8000
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend in
  {bind}
  default_backend out
backend out
  {server}
"
    );
    write_private(file, &text)?;
    let mut command = place.program("haproxy");
    command.args(["-db", "-f"]).arg(file);
    let mut process = Process::start_quiet("haproxy", command)?;
    process.listens(port)?;
    Ok(process)
}
