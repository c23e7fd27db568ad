//! The sections that both files have. Refuses to know the roles.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::problem::{Problem, Step, problem};
use super::scalar;
use crate::base::code::Code;
use crate::base::limits;
use crate::observe::audit::{AuditSettings, OnFull};
use crate::observe::log::{Color, Format, Level, LogSettings};

/// `version`: the form of the file, always 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version;

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "1" { Ok(Self) } else { Err(serde::de::Error::custom("this program reads `version: 1`")) }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

/// `drain`: how the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long open streams may go on after the signal to end. Default 30s.
    #[serde(with = "scalar::duration")]
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: limits::DRAIN_TIMEOUT }
    }
}

/// `audit`: what was done, as JSON lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// The directory; a relative one is relative to the state directory. Default `audit`.
    pub dir: PathBuf,
    /// All files together. Default 256MiB, at least 1MiB.
    #[serde(with = "scalar::size")]
    pub max_size: u64,
    /// What happens when there is no more room. Default `refuse`.
    pub on_full: OnFull,
}

impl Default for AuditSection {
    fn default() -> Self {
        Self { dir: "audit".into(), max_size: limits::AUDIT_SIZE, on_full: OnFull::Refuse }
    }
}

impl AuditSection {
    /// What the audit needs to know.
    #[must_use]
    pub fn settings(&self, state_dir: &Path) -> AuditSettings {
        AuditSettings { dir: state_dir.join(&self.dir), max_size: self.max_size, on_full: self.on_full }
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.max_size < limits::AUDIT_SIZE_MIN {
            return Err(problem(["audit".into(), "max_size".into()], Code::ConfigInvalid, "`audit.max_size` is at least 1MiB"));
        }
        Ok(())
    }
}

/// `metrics`: where `/metrics`, `/livez` and `/readyz` are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSection {
    /// The address.
    #[serde(deserialize_with = "scalar::listen")]
    pub listen: SocketAddr,
    /// Networks that may connect; required off loopback.
    #[serde(default, with = "scalar::networks")]
    pub allow_from: Option<Vec<IpNet>>,
}

impl MetricsSection {
    pub(super) fn check(&self) -> Result<(), Problem> {
        check_open(["metrics".into(), "listen".into()], self.listen, self.allow_from.is_some())
    }
}

/// Whoever listens off loopback says who may connect.
pub(super) fn check_open<const N: usize>(at: [Step; N], listen: SocketAddr, restricted: bool) -> Result<(), Problem> {
    if restricted || listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let detail = format_args!("`{listen}` is reachable from other hosts and has no `allow_from`");
    Err(problem(at, Code::ListenerOpen, detail))
}

/// `log`: what is written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// For people or for programs. Default `human`.
    pub format: Format,
    /// The least severe level. Default `info`.
    pub level: Level,
}

impl LogSection {
    /// What the log needs to know.
    #[must_use]
    pub fn settings(&self) -> LogSettings {
        LogSettings { format: self.format, level: self.level, color: Color::Auto }
    }
}
