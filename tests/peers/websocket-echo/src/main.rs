//! `websocket-echo server ADDRESS` and `websocket-echo client URL --agent NAME`; see README.md. Refuses to know what a frame is.
#![allow(clippy::print_stderr, reason = "it is run by hand")]

mod client;
mod echo;
mod server;
mod upgrade;

use std::process::ExitCode;

use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["server", address] => serve(address).await,
        ["client", url, "--agent", agent] => client::run(url, agent, |line| eprintln!("{line}")).await,
        _ => {
            eprintln!("usage: websocket-echo server ADDRESS:PORT | client ws://HOST:PORT --agent NAME");
            return ExitCode::from(64);
        }
    };
    if let Err(error) = done {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn serve(address: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    eprintln!("echoing on {}", listener.local_addr()?);
    server::run(listener).await
}
