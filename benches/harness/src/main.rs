//! Measures Underpass beside its peers. This file owns the command line; it refuses to know how anything is measured.

mod case;
mod clock;
mod directory;
mod figure;
mod forward;
mod goals;
mod lab;
mod load;
mod machine;
mod peer;
mod pki;
mod place;
mod process;
mod record;
mod relay;
mod report;
mod run;
mod service;
mod stats;
mod wan;

use std::net::SocketAddr;
use std::path::{PathBuf, absolute};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use case::{CASES, Case};
use lab::Effort;
use machine::Machine;
use peer::{Peer, Programs};
use run::Plan;

const AFTER_HELP: &str = "\
Examples:
  benches/run                                        everything, 40 minutes; writes benches/RESULTS.md and its charts
  benches/run --case latency-under-load --peer haproxy --peer underpass
  benches/run --case throughput-1-down --rounds 3    all peers, printed, nothing written
  benches/run --smoke                                does every part work? a minute, builds and installs no peers
  benches/run --render                               write the report anew after a change of benches/reasons.toml

Without --case and --peer the report is written to benches/; with one of them it is only printed, unless --out says where to.
How to read the figures, and what the machine must be like: benches/README.md.";

/// Measures Underpass beside its peers, interleaved, on this machine.
#[derive(Parser)]
#[command(name = "benches/run", after_help = AFTER_HELP)]
struct Options {
    /// Measure only this case; can be given several times. --list shows them
    #[arg(long = "case", value_name = "NAME", value_parser = case_named)]
    cases: Vec<&'static Case>,
    /// Measure only this peer; can be given several times. A ratio needs its baseline measured, too
    #[arg(long = "peer", value_name = "NAME")]
    peers: Vec<Peer>,
    /// How often each peer is measured in each case, in turn
    #[arg(long, default_value_t = 9, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// One round of moments, with Underpass and what it is compared with on HTTP and LDAP: tells whether everything works, measures
    /// nothing, and leaves out what needs a program that is not installed
    #[arg(long)]
    smoke: bool,
    /// Print every single value as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Write RESULTS.md, results.json and charts/ into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Show the cases and peers
    #[arg(long)]
    list: bool,
    /// Write the report anew from the values of the last run, without measuring
    #[arg(long)]
    render: bool,
    /// Leave out what needs slow lines
    #[arg(long, hide = true)]
    no_lines: bool,
    /// The repository
    #[arg(long, hide = true, default_value = ".")]
    root: PathBuf,
    /// Where the product's program and rathole are
    #[arg(long, hide = true, default_value = "target/release")]
    programs: PathBuf,
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
        None if options.list => list(),
        None if options.render => render(&options),
        None => measure(&options),
    }
}

fn list() -> Result<()> {
    println!("cases");
    CASES.iter().for_each(|case| println!("  {:<18} {}", case.name, case.about));
    println!("peers");
    for peer in Peer::all() {
        let about = clap::ValueEnum::to_possible_value(peer).and_then(|value| value.get_help().map(ToString::to_string));
        println!("  {:<18} {}", peer.name(), about.unwrap_or_default());
    }
    Ok(())
}

fn render(options: &Options) -> Result<()> {
    let benches = options.root.join("benches");
    let file = benches.join("results.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}: measure first", file.display()))?;
    let records = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let reasons = report::reasons(&benches.join("reasons.toml"))?;
    report::write(&records, &reasons, options.out.as_ref().unwrap_or(&benches))
}

fn measure(options: &Options) -> Result<()> {
    let (root, programs) = (absolute(&options.root)?, absolute(&options.programs)?);
    let (benches, whole) = (root.join("benches"), options.cases.is_empty() && options.peers.is_empty() && !options.smoke);
    let programs = Programs { underpass: programs.join("underpass"), rathole: programs.join("rathole") };
    let (rounds, effort) = if options.smoke { (1, Effort::Smoke) } else { (options.rounds as usize, Effort::Full) };
    let plan = Plan { cases: cases(options), peers: peers(options), rounds, effort, programs };
    let reasons = report::reasons(&benches.join("reasons.toml"))?;
    let records = plan.run(Machine::look(&root, &plan.peers))?;
    if options.json {
        print!("{}", records.to_json()?);
    } else if options.smoke {
        print!("{}", report::smoke(&records));
    } else {
        print!("{}", report::text(&records, &reasons));
    }
    let out = options.out.as_ref().or(whole.then_some(&benches));
    out.map_or(Ok(()), |dir| report::write(&records, &reasons, dir))?;
    let failed = records.notes.iter().filter(|note| note.failed).count();
    ensure!(failed == 0, "{failed} measurements failed; the notes say why");
    Ok(())
}

fn cases(options: &Options) -> Vec<&'static Case> {
    let chosen = if options.cases.is_empty() { CASES.iter().collect() } else { options.cases.clone() };
    let possible =
        |case: &&Case| !(options.no_lines && case.line.is_some()) && is_possible(options, case.name, case.service.program());
    chosen.into_iter().filter(|case| possible(case)).collect()
}

fn peers(options: &Options) -> Vec<Peer> {
    match &options.peers[..] {
        [] if options.smoke => {
            let peers = [Peer::Relay, Peer::Underpass, Peer::UnderpassTcp, Peer::Nginx];
            peers.into_iter().filter(|peer| is_possible(options, peer.name(), peer.program())).collect()
        }
        [] => Peer::all().to_vec(),
        chosen => chosen.to_vec(),
    }
}

/// A smoke run installs nothing, and makes do with what there is.
fn is_possible(options: &Options, what: &str, program: Option<&str>) -> bool {
    let missing = program.filter(|program| options.smoke && !process::is_installed(program));
    if let Some(program) = missing {
        eprintln!("left out: {what}, because {program} is not installed");
    }
    missing.is_none()
}

fn case_named(name: &str) -> Result<&'static Case, String> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| "no such case; --list shows them".to_owned())
}
