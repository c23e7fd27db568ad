//! What a long-running process has one of: its signals, its limit on open files, its word to systemd.
//! It refuses to know which role it plays.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::base::code::{Code, Exit, Failure, OrFail};
use crate::base::drain::Drained;
use crate::base::memory::PROCESS;
use crate::observe::audit::{Audit, Event};
use crate::observe::metrics;

/// How often the process's own gauges are refreshed and histograms drained.
pub const UPKEEP: Duration = Duration::from_secs(5);

/// What somebody outside asks a process to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    End,
}

/// The signals that a process listens to.
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from here on.
    ///
    /// # Errors
    /// `internal`.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).or_fail(Code::Internal, "listening to signals");
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The next wish.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            biased;
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
        }
    }

    /// Drains, unless a second signal asks to end at once.
    pub async fn drain(&mut self, drain: impl Future<Output = Drained>) -> Exit {
        tell_systemd(&[NotifyState::Stopping]);
        tokio::pin!(drain);
        loop {
            tokio::select! {
                biased;
                drained = &mut drain => return match drained {
                    Drained::Clean => Exit::Ok,
                    Drained::Cut(count) => {
                        tracing::warn!(code = %Code::DrainDeadline, tasks = count, "the drain's deadline passed: what was open is cut");
                        Exit::Cut
                    }
                },
                wish = self.next() => if wish == Wish::End {
                    tracing::warn!("a second signal: ending at once");
                    return Exit::Cut;
                },
            }
        }
    }
}

/// What of a section differs between two configurations, such as `gateway.resume_window`.
#[must_use]
pub fn changed<S: PartialEq + Serialize>(section: &str, old: &S, new: &S) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let keys = |section| match serde_json::to_value(section) {
        Ok(Value::Object(keys)) => keys,
        _ => Map::new(),
    };
    let (old, new) = (keys(old), keys(new));
    let all: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let differing: Vec<_> = all.into_iter().filter(|key| old.get(*key) != new.get(*key)).collect();
    if differing.is_empty() {
        vec![section.to_owned()]
    } else {
        differing.iter().map(|key| format!("{section}.{key}")).collect()
    }
}

/// Says in log, audit and metrics how a reload went: what is in force now and what waits for a restart, or why all stays as it was.
pub fn reloaded(result: Result<(String, Vec<String>), Failure>, path: &Path, audit: &Audit) {
    metrics::reloaded(result.is_ok());
    match result {
        Ok((what, restart)) => {
            tracing::info!(what, "reloaded {}", path.display());
            for key in restart {
                tracing::warn!("the change of `{key}` takes effect at the next start");
            }
            let _ = audit.record(&Event::Reloaded { what: &what });
        }
        Err(failure) => {
            tracing::error!(code = %failure.code, detail = %failure.detail, "not reloaded: all stays as it was");
            let _ = audit.record(&Event::ReloadRefused { detail: &failure.detail });
        }
    }
}

/// Raises the limit on open files to what the system allows: every stream takes one.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the limit on open files stays");
    }
}

/// Refreshes the process's own gauges.
pub fn measure() {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(0);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    metrics::process(open, limit, resident * rustix::param::page_size() as u64);
    metrics::buffered(PROCESS.kept());
}

/// Says something to systemd; without systemd nobody listens.
pub fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// Says that the process serves.
pub fn ready(what: &str) {
    tell_systemd(&[NotifyState::Ready, NotifyState::Status(what)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_gateway;

    #[test]
    fn what_waits_for_a_restart_is_named_by_its_keys() {
        let config = |more: &str| parse_gateway("gateway.yaml", &format!("version: 1\n{more}\n")).unwrap();
        let old = config("gateway: {endpoints: [\"wss://gw.example\"]}");
        let new = config("gateway: {endpoints: [\"wss://gw.example\"], resume_window: 5s, direct_address: \"a.example:443\"}");
        assert_eq!(changed("gateway", &old.gateway, &new.gateway), ["gateway.direct_address", "gateway.resume_window"]);
        assert_eq!(changed("gateway", &old.gateway, &old.gateway), [""; 0]);
        let new = config("gateway: {endpoints: [\"wss://gw.example\"]}\nmetrics: {listen: \"127.0.0.1:9\"}");
        assert_eq!(changed("metrics", &new.metrics, &new.metrics), [""; 0]);
        assert_eq!(changed("metrics", &old.metrics, &new.metrics), ["metrics.allow_from", "metrics.listen"]);
    }
}
