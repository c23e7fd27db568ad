//! A deterministic simulation of sessions: the real gateway and the real agents from behind TLS on, over a network in memory, in virtual
//! time. What a seed makes happen happens again each time. It refuses to know TLS, sockets, targets and clients' protocols.

mod book;
mod cable;
mod chance;
mod network;
mod plan;
mod streams;
#[cfg(test)]
mod tests;
mod trace;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::code::Code;
use crate::base::random;
use crate::tunnel::mux::RETAINED_ROOM;
use crate::tunnel::session::lanes::Place;
use chance::Chance;
use plan::{Plan, trouble};
use streams::{Moved, Task};
use trace::Trace;
use watch::watch;
use world::World;

/// What a seed came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Over every event and its time: the same for the same seed.
    pub(crate) hash: u64,
    /// How many there were.
    pub(crate) events: u64,
    /// Streams that finished, of how many.
    pub(crate) finished: (usize, usize),
    /// How often each kind of row was written.
    pub(crate) rows: BTreeMap<String, u64>,
    /// What must not have happened.
    pub(crate) wrong: Option<String>,
}

/// Nothing lasts longer, once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lives through what this seed makes happen. Nothing else of this thread may run meanwhile.
pub(crate) fn run(seed: u64, prints: bool) -> Outcome {
    crate::gateway::fixture::prepare();
    let _seeded = random::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let outcome = runtime.expect("a runtime without sockets").block_on(live(seed, prints));
    Outcome { wrong: outcome.wrong.or(random::panicked().then(|| "a task has panicked".to_owned())), ..outcome }
}

async fn live(seed: u64, prints: bool) -> Outcome {
    let mut chance = Chance::new(seed);
    let plan = Plan::lot(&mut chance);
    let trace = Arc::new(Trace::new(prints));
    trace.note(format_args!("{plan:?}"));
    RETAINED_ROOM.set(Some(plan.retained));
    let world = World::new(plan, chance.fork(), trace.clone());
    world.tasks.spawn(watch(world.clone()));
    let (clients, faults) = (world.tasks.child(), chance.fork());
    for key in 1..=world.plan.streams {
        clients.spawn(client(world.clone(), Task::lot(key, world.plan.busy, &mut chance), chance.fork()));
    }
    trouble(world.clone(), faults).await;
    if tokio::time::timeout(PATIENCE, clients.join()).await.is_err() {
        trace.wrong(format_args!("streams that don't end"));
        clients.abort().await;
    }
    comes(&world, "every agent's return", World::serves_everywhere).await;
    comes(&world, "the end of every stream at the agents", |world| !world.plan.strict || world.book.is_settled()).await;
    world.end().await;
    let finished = world.book.close();
    let (hash, events, rows, wrong) = trace.sum();
    Outcome { hash, events, finished, rows, wrong }
}

/// What must be so sooner or later.
async fn comes(world: &World, what: &str, is: impl Fn(&World) -> bool) {
    let waits = async {
        while !is(world) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waits).await.is_err() {
        world.trace.wrong(format_args!("waited in vain: {what}"));
    }
}

/// A client that begins sometime, takes the session it is given, and has the patience to wait for one.
async fn client(world: Arc<World>, task: Task, mut chance: Chance) {
    tokio::time::sleep(chance.millis(0..=world.plan.span)).await;
    world.book.wants(task);
    let (live, stream, place) = loop {
        if let Some(live) = world.pick() {
            match live.lanes.open().await {
                Ok((stream, place)) => break (live, stream, place),
                Err(failure) if failure.code == Code::SessionStreams => {
                    world.trace.wrong(format_args!("no room for stream {}: {failure}", task.key));
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    let lane = place.lane().number();
    world.trace.note(format_args!("{task:?} opened on lane {lane} of {}", live.agent));
    streams::ask(task, stream, lane, &live.notifier, &world.book, &place).await;
}

impl Moved for Place {
    fn moved(&self, bytes: usize) {
        Self::moved(self, bytes);
    }
}
