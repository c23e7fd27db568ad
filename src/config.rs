//! The configuration files: YAML, strict, one per role. Owns their keys, defaults and limits, and how a mistake is told: with
//! file, line and column, and never with a neighbouring line, which may hold a secret. Refuses to know who acts on a setting.
//! The YAML crate is named in `problem` and here alone.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::code::{Code, Failure, OrFail};
use crate::base::files;

mod agent;
mod common;
mod gateway;
mod listener;
mod problem;
mod scalar;
mod secret;
mod target;
mod yaml;

pub use agent::{AgentConfig, AgentGateway, AgentLimits, Proxy, ProxyUrl};
pub use common::{AuditSection, Drain, LogSection, MetricsSection, Version};
pub use gateway::{ClientsSection, Enrollment, GatewayConfig, GatewayLimits, GatewaySection, Limits, Tenant};
pub use listener::{CertifiedClient, ClientCaSection, ListenerConfig, ListenerKind, TlsFiles};
pub use secret::SecretRef;
pub use target::{Allow, Kind, Scheme, SendProxy, Target, TargetAddress, TargetLimits, TargetTlsSection};

use problem::Problem;

/// Reads the gateway's configuration. Relative paths in it are relative to the file, except `audit.dir`.
///
/// # Errors
/// `config_unreadable`, `file_permissions` if another user could have changed the file, `config_invalid` or `listener_open`
/// naming file, line and column.
pub fn load_gateway(path: &Path) -> Result<GatewayConfig, Failure> {
    load(path)
}

/// Reads the agent's configuration. Relative paths in it are relative to the file, except `audit.dir`.
///
/// # Errors
/// As [`load_gateway`].
pub fn load_agent(path: &Path) -> Result<AgentConfig, Failure> {
    load(path)
}

/// Parses a gateway's configuration; `name` stands for the file in errors, and relative paths stay as they are.
///
/// # Errors
/// `config_invalid` or `listener_open`, naming line and column.
pub fn parse_gateway(name: &str, text: &str) -> Result<GatewayConfig, Failure> {
    parse(name, text)
}

/// Parses an agent's configuration; `name` stands for the file in errors, and relative paths stay as they are.
///
/// # Errors
/// As [`parse_gateway`].
pub fn parse_agent(name: &str, text: &str) -> Result<AgentConfig, Failure> {
    parse(name, text)
}

/// The configuration in force, as YAML with every default filled in. It can be loaded again, and shows of a secret only where
/// it comes from. (For JSON: the types are [`Serialize`].)
#[must_use]
pub fn effective(config: &impl Serialize) -> String {
    yaml::to_yaml(config)
}

/// What the two files have in common.
trait Config: DeserializeOwned {
    /// Checks what no single value shows.
    fn check(&self) -> Result<(), Problem>;

    /// Makes relative paths absolute.
    fn rebase(&mut self, directory: &Path);
}

fn load<C: Config>(path: &Path) -> Result<C, Failure> {
    let name = path.display().to_string();
    let bytes = files::read_trusted(path).map_err(|failure| match failure.code {
        Code::StateMissing => Failure { code: Code::ConfigUnreadable, ..failure },
        _ => failure,
    })?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::new(Code::ConfigInvalid, format_args!("{name}: not UTF-8")))?;
    let mut config: C = parse(&name, &text)?;
    let absolute = std::path::absolute(path).or_fail(Code::ConfigUnreadable, &name)?;
    config.rebase(absolute.parent().unwrap_or(Path::new("/")));
    Ok(config)
}

fn parse<C: Config>(name: &str, text: &str) -> Result<C, Failure> {
    let config: C = problem::read(name, text)?;
    config.check().map_err(|problem| problem.located(name, text))?;
    Ok(config)
}

fn rebase(path: &mut std::path::PathBuf, directory: &Path) {
    // `join` leaves an absolute path as it is.
    *path = directory.join(&*path);
}

#[cfg(test)]
mod tests;
