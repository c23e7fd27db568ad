//! The grammar of the command line, and its help. It refuses to know what commands do.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::app::Place;
use crate::base::endpoint::{Endpoint, HostPort};
use crate::base::grant::Grant;
use crate::base::id::{AgentId, InvalidPath, Name, TargetId};
use crate::base::scope::Scope;
use crate::base::size;
use crate::pki::identity::TrustDomain;
use crate::wire::name;

const AFTER_HELP: &str = "\
First steps:
  underpass quickstart                                  see it work, nothing to install
  underpass gateway init --endpoint wss://gw.example    on the cloud side: make the private PKI
  underpass gateway run
  underpass token create --tenant acme --group dc1      a one-time token for one agent
  underpass agent enroll --token-file token.txt         on site: get an identity
  underpass agent run
  underpass client-token create --grant 'acme/dc1/*'    what a client logs in with

Exit codes: 0 ok, 64 usage, 69 unavailable, 70 internal, 75 a drain cut streams, 77 denied, 78 configuration.
Every error has a code; `underpass explain CODE` says what it means and what to do.";

const CLIENT_TOKEN_HELP: &str = "\
Example:
  umask 077
  underpass client-token create --name ci --grant 'acme/dc1/*' --expires 30d > ci.token

Only the token goes to standard output. Whoever has it reaches what it is granted, so keep it in a
file of mode 0600 (`umask 077` makes such files). A client gives it as the password of its proxy,
with any user name, or the file to `underpass connect`. The gateway can't show it again.

A grant is tenant/group/target, each a name or * for any: acme/dc1/* is every target of one group.
Quote it, or the shell may take the * for files.";

/// Reach systems inside a network that accepts no inbound connections: an agent on site dials out to a gateway, over one
/// TLS connection that both sides authenticate with a private CA.
#[derive(Parser)]
#[command(name = "underpass", version, after_help = AFTER_HELP, disable_help_subcommand = false, propagate_version = true)]
pub(super) struct Cli {
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run gateway and agent in one process with throwaway state: see it work
    Quickstart(QuickstartArgs),
    /// The cloud side: make its state, run it, check its configuration
    Gateway {
        #[command(subcommand)]
        command: GatewayCommand,
    },
    /// Enrollment tokens (asks the running gateway)
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Tokens with which clients reach targets (asks the running gateway)
    ClientToken {
        #[command(subcommand)]
        command: ClientTokenCommand,
    },
    /// The enrolled agents (asks the running gateway)
    Agents {
        #[command(subcommand)]
        command: AgentsCommand,
    },
    /// The site's side: enroll, run, check its configuration, ask how it is
    Agent {
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// The client's side: reach one target through the gateway, from a program on this host
    Connect(ConnectArgs),
    /// Say what an error's code means and what to do; without a code, list them all
    Explain {
        /// Such as `target_refused`
        code: Option<String>,
    },
}

#[derive(Args)]
pub(super) struct QuickstartArgs {
    /// A target of your own, such as tcp://127.0.0.1:5432; without it a sample HTTP server is the target
    #[arg(long, value_parser = tcp_url, value_name = "URL")]
    pub(super) target: Option<HostPort>,
    /// Where clients connect; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub(super) listen: SocketAddr,
}

// A paragraph is a line: clap breaks it where the terminal ends.
const CONNECT_HELP: &str = "\
Examples:
  ssh -o ProxyCommand='underpass connect acme/dc1/ssh --stdio' user@host
  underpass connect acme/dc1/sales-db --listen 127.0.0.1:15432
  psql -h 127.0.0.1 -p 15432

Each connection is one stream: TLS to the gateway, whose root the token pins, and there the token says who calls. A gateway \
that is not there (it restarts, the network is away) is tried again for 15 s, each of its endpoints in turn; a refusal ends it \
at once. HTTPS_PROXY and NO_PROXY are honoured.

With --stdio nothing but the stream's bytes is written to standard output; errors go to standard error. The end of standard \
input is passed on, and the target may still answer. The target's end closes standard output; standard input may go on then, \
until it ends or has been silent for 5 s (a terminal: at once).

With --listen a connection whose stream can't be opened, or is cut, is reset, and standard error says why. SIGTERM or Ctrl-C \
ends it: open streams may finish for 30 s, and a second signal cuts them.

Exit codes: 0 the stream ended well, 69 it could not be opened or was cut, 77 it was denied.";

fn target(text: &str) -> Result<TargetId, String> {
    text.parse().or_else(|error: InvalidPath| name::target_of(text).map_err(|_| error.to_string()))
}

#[derive(Args)]
#[command(after_help = CONNECT_HELP)]
pub(super) struct ConnectArgs {
    /// As in the agent's groups and configuration; its host name (target.group.tenant.underpass) is taken, too
    #[arg(value_name = "TENANT/GROUP/TARGET", value_parser = target)]
    pub(super) target: TargetId,
    /// Carry one stream on standard input and output, as ssh's ProxyCommand wants it
    #[arg(long, conflicts_with = "listen")]
    pub(super) stdio: bool,
    /// Listen on this host, and carry a stream for each connection; port 0 lets the system choose
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<SocketAddr>,
    /// Who may connect to --listen; needed off loopback, may be repeated
    #[arg(long, requires = "listen", value_name = "NETWORK")]
    pub(super) allow_from: Vec<ipnet::IpNet>,
    /// The file with the client token that `underpass client-token create` printed; nobody else may read it (mode 0600)
    #[arg(long, env = "UNDERPASS_CLIENT_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: PathBuf,
    /// Where the gateway is, instead of where the token says; may be repeated
    #[arg(long, value_name = "wss://HOST:PORT")]
    pub(super) endpoint: Vec<Endpoint>,
}

fn tcp_url(text: &str) -> Result<HostPort, String> {
    let rest = text.strip_prefix("tcp://").ok_or("expected tcp://HOST:PORT")?;
    rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|failure: crate::base::code::Failure| failure.detail)
}

/// Asked for here and not by the grammar, whose usage would show as given what nobody has typed.
fn from_environment(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Where a gateway's state is.
#[derive(Args)]
pub(super) struct GatewayPlace {
    /// The state directory [env: UNDERPASS_GATEWAY_DIR] [default: /var/lib/underpass/gateway]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Where a gateway's state and configuration are.
#[derive(Args)]
pub(super) struct GatewayPlaces {
    #[command(flatten)]
    place: GatewayPlace,
    /// The configuration file [env: UNDERPASS_GATEWAY_CONFIG] [default: gateway.yaml in the state directory]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where an agent's state is.
#[derive(Args)]
pub(super) struct AgentPlace {
    /// The state directory [env: UNDERPASS_AGENT_DIR] [default: /var/lib/underpass/agent]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Where an agent's state and configuration are.
#[derive(Args)]
pub(super) struct AgentPlaces {
    #[command(flatten)]
    place: AgentPlace,
    /// The configuration file [env: UNDERPASS_AGENT_CONFIG] [default: agent.yaml in the state directory]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl GatewayPlace {
    pub(super) fn state_dir(self) -> PathBuf {
        self.state_dir
            .or_else(|| from_environment("UNDERPASS_GATEWAY_DIR"))
            .unwrap_or_else(|| "/var/lib/underpass/gateway".into())
    }
}

impl AgentPlace {
    pub(super) fn state_dir(self) -> PathBuf {
        self.state_dir.or_else(|| from_environment("UNDERPASS_AGENT_DIR")).unwrap_or_else(|| "/var/lib/underpass/agent".into())
    }
}

impl From<GatewayPlaces> for Place {
    fn from(places: GatewayPlaces) -> Self {
        let config = places.config.or_else(|| from_environment("UNDERPASS_GATEWAY_CONFIG"));
        Self { state_dir: places.place.state_dir(), config }
    }
}

impl From<AgentPlaces> for Place {
    fn from(places: AgentPlaces) -> Self {
        let config = places.config.or_else(|| from_environment("UNDERPASS_AGENT_CONFIG"));
        Self { state_dir: places.place.state_dir(), config }
    }
}

#[derive(Subcommand)]
pub(super) enum GatewayCommand {
    /// Make the private PKI, the gateway's certificate and gateway.yaml; never overwrites
    Init {
        #[command(flatten)]
        places: GatewayPlaces,
        /// How agents will reach this gateway
        #[arg(long, value_name = "wss://HOST:PORT")]
        endpoint: Endpoint,
        /// The name of the PKI, in every certificate [default: the endpoint's host]
        #[arg(long, value_name = "DOMAIN")]
        trust_domain: Option<TrustDomain>,
        /// This gateway's name
        #[arg(long, default_value = "gw1")]
        id: Name,
        /// Where it listens for agents [default: all addresses, the endpoint's port]
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
    },
    /// Run it until SIGTERM; SIGHUP reloads listeners and tenants
    Run(GatewayPlaces),
    /// Check the configuration and print it with every default
    Check(GatewayPlaces),
    /// Ask a running gateway how it is
    Status(GatewayPlace),
}

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a one-time token with which one agent enrolls; printed once, on standard output
    Create {
        #[command(flatten)]
        place: GatewayPlace,
        /// The customer; made if unknown
        #[arg(long)]
        tenant: Name,
        /// Its group of interchangeable agents; made if unknown
        #[arg(long)]
        group: Name,
        /// How long it can be used, at most 7d
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
}

#[derive(Subcommand)]
pub(super) enum ClientTokenCommand {
    /// Make a token for one caller, with what it may reach; printed once, on standard output
    #[command(after_help = CLIENT_TOKEN_HELP)]
    Create {
        #[command(flatten)]
        place: GatewayPlace,
        /// What it may reach, such as 'acme/dc1/*'; may be given up to 64 times
        #[arg(long = "grant", required = true, value_name = "TENANT/GROUP/TARGET")]
        grants: Vec<Grant>,
        /// Its name, in both audits and to revoke it by [default: one is made up]
        #[arg(long)]
        name: Option<Name>,
        /// When it ends: after 1m to 3650d, or never
        #[arg(long, default_value = "365d", value_parser = expiry, value_name = "DURATION|never")]
        expires: Expiry,
        /// Streams that it may have at a time [default: no limit]
        #[arg(long, value_name = "N")]
        max_streams: Option<usize>,
        /// Bytes per second, both ways together, such as 10MiB [default: no limit]
        #[arg(long, value_parser = rate, value_name = "SIZE")]
        rate: Option<NonZeroU32>,
    },
    /// List them, with those that have ended in the last 30 days
    List(GatewayPlace),
    /// Revoke one: its streams are cut at once, and nobody logs in with it any more
    Revoke {
        #[command(flatten)]
        place: GatewayPlace,
        /// Its name, or its id
        // Not parsed here: what is mistyped is quoted, and somebody may give the token itself.
        #[arg(value_name = "NAME")]
        token: String,
    },
}

/// When a token ends.
#[derive(Clone, Copy)]
pub(super) enum Expiry {
    After(Duration),
    Never,
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    humantime::parse_duration(text).map(Expiry::After).map_err(|_| "expected a duration, such as 30d, or never".to_owned())
}

fn rate(text: &str) -> Result<NonZeroU32, String> {
    let bytes = u32::try_from(size::parse(text)?).ok().and_then(NonZeroU32::new);
    bytes.ok_or_else(|| "a rate is at least 1B and less than 4GiB".to_owned())
}

#[derive(Subcommand)]
pub(super) enum AgentsCommand {
    /// List them, connected or not
    List(GatewayPlace),
    /// Revoke every certificate of one: its session is cut within seconds and it can't come back without a fresh token
    Revoke {
        #[command(flatten)]
        place: GatewayPlace,
        /// tenant/group/agent
        agent: AgentId,
    },
    /// Let one, a group's or a tenant's in no more until `enable`: their sessions and open streams are cut at once, and no
    /// certificate is lost
    Disable(Scoped),
    /// Let them in again: they go on trying all the while, up to 30 s apart, so it can take that long until they are back
    Enable(Scoped),
}

/// Which agents, of which gateway.
#[derive(Args)]
pub(super) struct Scoped {
    #[command(flatten)]
    pub(super) place: GatewayPlace,
    /// tenant, tenant/group or tenant/group/agent
    #[arg(value_name = "NAME")]
    pub(super) scope: Scope,
}

#[derive(Subcommand)]
pub(super) enum AgentCommand {
    /// Redeem a token: make a key (it never leaves this host), get a certificate, write agent.yaml
    #[command(alias = "activate")]
    Enroll {
        #[command(flatten)]
        places: AgentPlaces,
        /// The file with the token, or - for standard input
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
        /// This agent's name in its group [default: one is made up]; an enrolled agent's name replaces its certificate
        #[arg(long)]
        name: Option<Name>,
        /// The HTTP proxy to leave the site by [default: as an agent.yaml that is there says, else HTTPS_PROXY and NO_PROXY]
        #[arg(long, value_name = "http://HOST:PORT")]
        proxy: Option<String>,
        /// The proxy's user
        #[arg(long, requires = "proxy", requires = "proxy_password_file", value_name = "USER")]
        proxy_username: Option<String>,
        /// The file with the proxy's password
        #[arg(long, requires = "proxy_username", value_name = "FILE")]
        proxy_password_file: Option<PathBuf>,
    },
    /// Run it until SIGTERM; SIGHUP reloads targets
    Run(AgentPlaces),
    /// Check the configuration and print it with every default
    Check {
        #[command(flatten)]
        places: AgentPlaces,
        /// Say instead whether this request would pass, and by which rule: `METHOD TARGET PATH [upgrade] [body=SIZE]`, or
        /// `ldap TARGET search base=DN scope=subtree filter=(uid=x) attributes=cn,mail`
        #[arg(long, value_name = "REQUEST")]
        explain: Option<String>,
    },
    /// Ask a running agent how it is
    Status(AgentPlace),
}
