//! The load generator: a process that is a client or a target, driven over its standard input.
//! Blocking threads for bulk, so that it costs as little as it can; it refuses to know what lies between its two ends.

mod bulk;
mod client;
mod directory;
mod head;
mod http;
mod origin;
mod process;
mod protocol;
mod reactor;
mod stream;
mod target;

use std::io::{BufRead, Write};
use std::sync::Arc;

use anyhow::Result;

pub(crate) use process::Load;
pub(crate) use protocol::{Times, Way, WebEntry};

use bulk::Tally;
use client::Client;
use protocol::{Answer, Ask};
use target::Target;

/// The nice value of threads that ping and echo while others saturate the machine.
const URGENT: i32 = -10;

/// Serves asks until standard input ends.
///
/// # Errors
/// When the measuring process is gone.
pub(crate) fn serve() -> Result<()> {
    raise_descriptor_limit();
    let received = Arc::new(Tally::default());
    let (mut client, mut target) = (Client::new(received.clone()), Target::new(received));
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&mut client, &mut target, serde_json::from_str(&line?)?);
        let answer = answer.unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

fn answer(client: &mut Client, target: &mut Target, ask: Ask) -> Result<Answer> {
    match ask {
        Ask::Serve { at, service } => target.serve(at, service).map(|()| Answer::Done),
        Ask::Bulk { to, streams, way } => client.bulk(to, streams, way).map(|()| Answer::Done),
        Ask::Count => Ok(client.count()),
        Ask::Stop => client.stop().map(|()| Answer::Done),
        Ask::Ping { to, bytes, run_ms, every_us } => client::ping(to, bytes, run_ms, every_us).map(Answer::Timed),
        Ask::PingSteadily { to, bytes, run_ms, every_us } => {
            client::ping_steadily(to, bytes, run_ms, every_us).map(Answer::Timed)
        }
        Ask::Opens { to, concurrency, run_ms } => client::opens(to, concurrency, run_ms),
        Ask::FirstEcho { to, times } => client::first_echo(to, times).map(Answer::Timed),
        Ask::Hold { to, streams, bytes } => client.hold(to, streams, bytes),
        Ask::Requests { entry, connections, run_ms } => http::requests(&entry, connections, run_ms),
        Ask::Body { entry, way, bytes } => http::body(&entry, way, bytes).map(|nanos| Answer::Moved { nanos }),
        Ask::Chat { entry, run_ms } => stream::chat(&entry, run_ms).map(Answer::Timed),
        Ask::Search { to, root, run_ms } => directory::search(to, root.as_deref(), run_ms).map(Answer::Timed),
        Ask::Urgent { on } => {
            let nice = if on { URGENT } else { 0 };
            // Without the privilege the figures are only worse; the measuring process has said so.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
            target.urgent(nice);
            Ok(Answer::Done)
        }
    }
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
