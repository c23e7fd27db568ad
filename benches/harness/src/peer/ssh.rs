//! OpenSSH with a reverse forwarding (`ssh -R`): the far end dials a server of its own at the near end, with throwaway keys.
//! Refuses to know what is measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Site, Tunnel, write_private};
use crate::place::{Place, free_port};
use crate::process::{Process, run};

pub(super) fn start(site: &Site, scratch: &Path) -> Result<Tunnel> {
    let (host_key, user_key) = (key(scratch, "host")?, key(scratch, "user")?);
    let (listen, entry) = (site.near.outside(free_port()), Place::inside(free_port()));
    let public = std::fs::read_to_string(user_key.with_extension("pub"))?;
    write_private(&scratch.join("authorized"), &public)?;
    let (host_key, authorized) = (host_key.display(), scratch.join("authorized").display().to_string());
    let text = format!(
        "ListenAddress {listen}
HostKey {host_key}
AuthorizedKeysFile {authorized}
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
AllowTcpForwarding remote
"
    );
    let config = scratch.join("sshd_config");
    write_private(&config, &text)?;
    let mut command = site.near.program("/usr/sbin/sshd");
    command.args(["-D", "-f"]).arg(&config);
    let mut server = Process::start_quiet("sshd", command)?;
    server.listens(listen.port())?;
    let mut command = site.far.program("ssh");
    command.args(["-F", "none", "-N", "-T", "-p", &listen.port().to_string(), "-i"]).arg(&user_key);
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ExitOnForwardFailure=yes",
        "Ciphers=aes128-gcm@openssh.com",
    ] {
        command.args(["-o", option]);
    }
    command.arg("-R").arg(format!("{entry}:{}", site.local_target())).arg(listen.ip().to_string());
    let mut client = Process::start_quiet("ssh", command)?;
    // The listener belongs to the server, which the client tells to open it.
    client.check()?;
    server.listens(entry.port())?;
    client.check()?;
    Ok(Tunnel::plain(entry, vec![server], vec![client]))
}

fn key(scratch: &Path, name: &str) -> Result<PathBuf> {
    let file = scratch.join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file);
    run(command)?;
    Ok(file)
}
