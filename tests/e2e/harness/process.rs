//! Child processes: started with their output kept, ended with their test (also when the test is killed), shown when it fails.
//! Refuses to know what they do.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{SOON, eventually};

/// How a program will be started.
#[derive(Clone)]
pub(crate) struct Program {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    user: Option<String>,
    netns: Option<String>,
    resolver: Option<PathBuf>,
    group: Option<PathBuf>,
    stdin: Vec<u8>,
}

impl Program {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            user: None,
            netns: None,
            resolver: None,
            group: None,
            stdin: Vec::new(),
        }
    }

    /// The product, as `tests/run` built it, or else as cargo did for this test.
    pub(crate) fn underpass() -> Self {
        Self::new(Self::underpass_path())
    }

    pub(crate) fn underpass_path() -> PathBuf {
        std::env::var_os("UNDERPASS_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_underpass").into()).into()
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Runs as this user instead of root.
    pub(crate) fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Runs in this network namespace.
    pub(crate) fn netns(mut self, name: &str) -> Self {
        self.netns = Some(name.to_owned());
        self
    }

    /// Runs with this file in the place of /etc/resolv.conf.
    pub(crate) fn resolver(mut self, file: &Path) -> Self {
        self.resolver = Some(file.to_owned());
        self
    }

    /// Runs in this control group, a directory.
    pub(crate) fn group(mut self, group: &Path) -> Self {
        self.group = Some(group.to_owned());
        self
    }

    pub(crate) fn stdin(mut self, input: impl AsRef<[u8]>) -> Self {
        self.stdin = input.as_ref().to_owned();
        self
    }

    /// Starts it. Each wrapper replaces itself by the next, so the process id is the program's own.
    pub(crate) fn start(&self) -> Process {
        let mut line: Vec<OsString> = Vec::new();
        if let Some(netns) = &self.netns {
            line.extend(["ip", "netns", "exec", netns].map(OsString::from));
        }
        if let Some(file) = &self.resolver {
            let swap = r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#;
            line.extend(["unshare", "--mount", "--", "sh", "-c", swap].map(OsString::from));
            line.push(file.into());
        }
        if let Some(group) = &self.group {
            line.extend(["sh", "-c", r#"echo $$ >"$0" && exec "$@""#].map(OsString::from));
            line.push(group.join("cgroup.procs").into());
        }
        // The kernel ends the program with the thread that started it, so a killed test leaves nothing behind.
        line.extend(["setpriv", "--pdeathsig", "KILL"].map(OsString::from));
        if let Some(user) = &self.user {
            line.extend(["--reuid", user, "--regid", user, "--init-groups"].map(OsString::from));
        }
        line.push("--".into());
        line.push(self.program.clone());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(&self.args).envs(self.envs.iter().cloned());
        // What the machine's own environment says about proxies is no part of a test.
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY"] {
            if !self.envs.iter().any(|(set, _)| set == name) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = self.label();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (stdout, stderr) = (Output::keep(child.stdout.take()), Output::keep(child.stderr.take()));
        // A program that does not read its input may close it.
        let _ = child.stdin.take().expect("piped").write_all(&self.stdin);
        Process { name, child, stdout, stderr }
    }

    /// Starts it and waits for its end.
    pub(crate) async fn run(&self) -> Finished {
        self.run_within(SOON).await
    }

    pub(crate) async fn run_within(&self, within: Duration) -> Finished {
        self.start().finish(within).await
    }

    fn label(&self) -> String {
        let base = Path::new(&self.program).file_name().unwrap_or(&self.program).to_string_lossy().into_owned();
        self.args.iter().take(2).fold(base, |label, arg| format!("{label} {}", arg.to_string_lossy()))
    }
}

/// A running child; dropped, it is killed and waited for.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) async fn ends(&mut self, within: Duration) -> ExitStatus {
        let what = format!("`{}` ends", self.name);
        let child = &mut self.child;
        eventually(&what, within, async || child.try_wait().unwrap()).await
    }

    /// Waits for its end and for the last of its output.
    pub(crate) async fn finish(mut self, within: Duration) -> Finished {
        let status = self.ends(within).await;
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        Finished { name: self.name.clone(), status, stdout, stderr }
    }

    /// Its resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has a size");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The processor time that it has used, of all its threads.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // The name, in brackets, may hold anything; user and system time are the 12th and 13th of what follows, in hundredths.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// How many file descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            for (stream, text) in [("stdout", self.stdout.so_far()), ("stderr", self.stderr.so_far())] {
                let lines: Vec<_> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(40)..].join("\n");
                if !tail.is_empty() {
                    eprintln!("--- {stream} of `{}`\n{tail}", self.name);
                }
            }
        }
    }
}

/// A child that has ended.
pub(crate) struct Finished {
    name: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Its exit code; a signal's end is 128 + its number, as shells say.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).expect("it has ended")
    }

    /// Fails the test unless it ended well; yields its standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        self.exits(0).stdout
    }

    /// Fails the test unless it ended with this exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "`{}`\n--- stdout\n{}\n--- stderr\n{}", self.name, self.stdout, self.stderr);
        self
    }
}

/// What a child writes, read by a thread so that the pipe never fills.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn keep<R: Into<std::os::fd::OwnedFd>>(pipe: Option<R>) -> Self {
        let mut pipe = File::from(pipe.expect("piped").into());
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = text.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn rest(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.so_far()
    }
}
