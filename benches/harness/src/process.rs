//! A child process that ends with its owner, and what the kernel has charged it for. Refuses to know what it does.

use std::io::Read;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::time::ClockId;
use nix::unistd::Pid;
use tempfile::NamedTempFile;

use crate::clock;

/// A running child; dropping it kills it.
pub(crate) struct Process {
    name: String,
    child: Child,
    errors: NamedTempFile,
}

impl Process {
    /// Starts it. What it writes to standard error is kept for the message about its end.
    pub(crate) fn start(name: &str, mut command: Command) -> Result<Self> {
        let errors = NamedTempFile::new()?;
        command.stderr(errors.reopen()?);
        let child = command.spawn().with_context(|| format!("starting {name} ({:?})", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, errors })
    }

    /// The same without standard input and output.
    pub(crate) fn start_quiet(name: &str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self::start(name, command)
    }

    /// Its pipes, once.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// # Errors
    /// When it has ended, with its last words.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let mut said = String::new();
        self.errors.reopen()?.read_to_string(&mut said)?;
        let last: Vec<_> = said.lines().rev().take(5).collect();
        bail!("{} ended ({status}): {}", self.name, last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    /// Waits until it, or anybody beside it in its network namespace, listens at a port.
    pub(crate) fn listens(&mut self, port: u16) -> Result<()> {
        clock::until(&format!("{} listens on port {port}", self.name), || {
            self.check()?;
            let pid = self.child.id();
            Ok(["tcp", "tcp6"].iter().any(|table| is_listening(&format!("/proc/{pid}/net/{table}"), port)).then_some(()))
        })
    }

    /// Its process id and those of all its descendants.
    pub(crate) fn family(&self) -> Vec<u32> {
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(&pid) = family.get(next) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its children, such as the one that sshd makes for each connection, would survive it.
        for pid in self.family().into_iter().skip(1).filter_map(|pid| rustix::process::Pid::from_raw(pid as i32)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it fails, with what it said.
pub(crate) fn run(mut command: Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("running {:?}", command.get_program()))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?} failed ({}): {}", done.status, said.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Whether a program is in the search path.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The processor time of processes so far, user and system, all threads.
pub(crate) fn cpu(pids: &[u32]) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for &pid in pids {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid as i32)).with_context(|| format!("process {pid} is gone"))?;
        sum += Duration::from(clock.now()?);
    }
    Ok(sum)
}

/// What processes hold in memory, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss: u64,
    /// Resident, with shared pages divided by those who share them.
    pub(crate) pss: u64,
    /// The most that was resident at a time.
    pub(crate) peak: u64,
}

/// The memory of processes together.
pub(crate) fn memory(pids: &[u32]) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in pids {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        sum.rss += kib(&rollup, "Rss:")?;
        sum.pss += kib(&rollup, "Pss:")?;
        sum.peak += kib(&status, "VmHWM:")?;
    }
    Ok(sum)
}

/// Makes the peak of processes start again from what they hold now.
pub(crate) fn reset_peak(pids: &[u32]) {
    for pid in pids {
        // A kernel that doesn't offer it yields the peak since the start, which is no less.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// Whether a table of sockets, as the kernel prints them, has a listener at the port.
fn is_listening(table: &str, port: u16) -> bool {
    const LISTENING: &str = "0A";
    let local = format!(":{port:04X}");
    std::fs::read_to_string(table).unwrap_or_default().lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|address| address.ends_with(&local)) && fields.get(3) == Some(&LISTENING)
    })
}

fn kib(text: &str, key: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("the kernel tells no {key}"))?;
    let number = line.split_whitespace().next().context("a number")?;
    Ok(number.parse::<u64>()? * 1024)
}
