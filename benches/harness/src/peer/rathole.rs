//! rathole over TLS: the far end dials, the near end listens for clients. Refuses to know what is measured.

use std::path::Path;

use anyhow::Result;

use super::{Site, Tunnel, write_private};
use crate::pki::Pki;
use crate::place::{Place, free_port};
use crate::process::Process;

pub(super) fn start(site: &Site, scratch: &Path) -> Result<Tunnel> {
    let pki = Pki::make(scratch, &["near.test"])?;
    // Its TLS takes the key in this format only.
    pki.openssl("pkcs12 -export -in near.test.pem -certfile root.pem -passout pass:bench -out near.p12")?;
    let (listen, entry) = (site.near.outside(free_port()), Place::inside(free_port()));
    let (identity, root) = (scratch.join("near.p12").display().to_string(), pki.root());
    let server = format!(
        "[server]
bind_addr = \"{listen}\"
default_token = \"bench\"
[server.transport]
type = \"tls\"
[server.transport.tls]
pkcs12 = \"{identity}\"
pkcs12_password = \"bench\"
[server.services.load]
bind_addr = \"{entry}\"
"
    );
    let target = site.local_target();
    let client = format!(
        "[client]
remote_addr = \"{listen}\"
default_token = \"bench\"
[client.transport]
type = \"tls\"
[client.transport.tls]
trusted_root = \"{root}\"
hostname = \"near.test\"
[client.services.load]
local_addr = \"{target}\"
"
    );
    let mut near = end(site, &site.near, &scratch.join("server.toml"), &server, "--server")?;
    near.listens(listen.port())?;
    let far = end(site, &site.far, &scratch.join("client.toml"), &client, "--client")?;
    // It opens the clients' port only once its other end is there.
    near.listens(entry.port())?;
    Ok(Tunnel::plain(entry, vec![near], vec![far]))
}

fn end(site: &Site, place: &Place, file: &Path, text: &str, role: &str) -> Result<Process> {
    write_private(file, text)?;
    let mut command = place.program(&site.programs.rathole);
    command.arg(role).arg(file).env("RUST_LOG", "error");
    Process::start_quiet("rathole", command)
}
