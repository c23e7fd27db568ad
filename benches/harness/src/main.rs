//! Measures Underpass beside its peers. This file owns the command line; it refuses to know how anything is measured.

mod case;
mod clock;
mod figure;
mod forward;
mod lab;
mod load;
mod peer;
mod pki;
mod place;
mod process;
mod record;
mod relay;
mod report;
mod run;
mod stats;
mod wan;

use std::net::SocketAddr;
use std::path::{PathBuf, absolute};

use anyhow::Result;
use clap::{Parser, Subcommand};

use case::{CASES, Case};
use lab::Effort;
use peer::{Peer, Programs};
use run::Plan;

/// Measures Underpass beside its peers, interleaved, on this machine.
#[derive(Parser)]
#[command(name = "benches/run")]
struct Options {
    /// Measure only this case; can be given several times. --list shows them
    #[arg(long = "case", value_name = "NAME", value_parser = case_named)]
    cases: Vec<&'static Case>,
    /// Measure only this peer; can be given several times. Ratios need their baseline, too
    #[arg(long = "peer", value_name = "NAME")]
    peers: Vec<Peer>,
    /// How often each peer is measured in each case, in turn
    #[arg(long, default_value_t = 9, value_name = "N")]
    rounds: usize,
    /// The product's program
    #[arg(long, hide = true, default_value = "target/release/underpass")]
    underpass: PathBuf,
    /// Where rathole was installed
    #[arg(long, hide = true, default_value = "benches/.peers/bin/rathole")]
    rathole: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the processes that the harness starts run as.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Load,
    #[command(hide = true)]
    Relay { listen: SocketAddr, to: SocketAddr },
    #[command(hide = true)]
    Forward(wan::Line),
}

fn main() -> Result<()> {
    let options = Options::parse();
    match options.part {
        Some(Part::Load) => load::serve(),
        Some(Part::Relay { listen, to }) => relay::run(listen, to),
        Some(Part::Forward(line)) => forward::run(line),
        None => measure(options),
    }
}

fn measure(options: Options) -> Result<()> {
    let cases = if options.cases.is_empty() { CASES.iter().collect() } else { options.cases };
    let peers = if options.peers.is_empty() { Peer::all().to_vec() } else { options.peers };
    let programs = Programs { underpass: absolute(&options.underpass)?, rathole: absolute(&options.rathole)? };
    let plan = Plan { cases, peers, rounds: options.rounds, effort: Effort::Full, programs };
    let records = plan.run()?;
    println!("{}", report::tables(&records));
    for note in &records.notes {
        println!("{} · {}: {}", note.case, note.peer.name(), note.text);
    }
    Ok(())
}

fn case_named(name: &str) -> Result<&'static Case, String> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| "no such case; --list shows them".to_owned())
}
