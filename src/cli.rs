//! The command line: what can be typed, and what is printed. Everything else is done by `app` and asked of a running
//! process over its admin socket. It refuses to decide anything.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one room that prints")]

mod admin;
mod agent;
mod args;
mod client_token;
mod connect;
mod explain;
mod gateway;
mod lights;
mod print;
mod quickstart;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::base::code::{Code, Exit, Failure};
use args::{Cli, Command};

/// What a command ends with.
type Outcome = Result<Exit, Failure>;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let json = cli.json;
    let runtime = runtime();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(cli));
            // What is left is a resolver in the middle of a look-up: nobody waits for that.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::new(Code::Internal, format_args!("starting the runtime: {error}"))),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        print::failure(&failure, json);
        failure.code.exit()
    });
    ExitCode::from(exit as u8)
}

/// Whether these arguments (without the program's name) are a command line, without doing anything: the README's are tried so.
///
/// # Errors
/// What the user would be told.
#[doc(hidden)]
pub fn check_command_line(arguments: &[&str]) -> Result<(), String> {
    let line = std::iter::once("underpass").chain(arguments.iter().copied());
    Cli::try_parse_from(line).map(drop).map_err(|error| error.to_string())
}

/// Tasks take turns of some 100 us, so I/O is looked at every 4 of them: the usual 61 would let a keystroke wait for milliseconds. Half of the
/// processors work for the tunnel; the kernel and the programs at its ends need the others, and one thread more than there is
/// work for costs a third of the opens (`TOKIO_WORKER_THREADS` says otherwise).
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        builder.worker_threads((processors / 2).max(1));
    }
    builder.event_interval(4).enable_all().build()
}

async fn run(cli: Cli) -> Outcome {
    let json = cli.json;
    match cli.command {
        Command::Quickstart(args) => quickstart::run(args, json).await,
        Command::Gateway { command } => gateway::run(command, json).await,
        Command::Token { command } => gateway::token(command, json).await,
        Command::ClientToken { command } => client_token::run(command, json).await,
        Command::Agents { command } => gateway::agents(command, json).await,
        Command::Agent { command } => agent::run(command, json).await,
        Command::Connect(args) => connect::run(args, json).await,
        Command::Explain { code } => explain::run(code.as_deref(), json),
    }
}

/// clap says what is wrong better than a code could; help and version are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let exit = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
        _ => Exit::Usage,
    };
    ExitCode::from(exit as u8)
}
