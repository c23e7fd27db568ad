//! Processes: from configuration files and state directories to running gateways and agents, and their end.
//! The one place where all rooms meet. It refuses to know the command line and to print.

pub mod agent;
pub mod connect;
pub mod explain;
pub mod gateway;
mod memory;
pub mod ops;
pub mod process;
pub mod quickstart;
pub mod targets;

use std::path::PathBuf;

/// Where a role's state lies, and its configuration.
#[derive(Clone, Debug)]
pub struct Place {
    /// The state directory, 0700.
    pub state_dir: PathBuf,
    /// The configuration file, if it is not the one in the state directory.
    pub config: Option<PathBuf>,
}

impl Place {
    /// The configuration file: `name` in the state directory unless said otherwise.
    #[must_use]
    pub fn config(&self, name: &str) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.state_dir.join(name))
    }
}
