//! Many seeds, the same seed again, and one seed for whoever looks for a fault. Refuses to know what happens in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use super::*;

/// Seeds of one run of the tests; `SEEDS` says otherwise, and `FROM` with which they begin.
const SEEDS: u64 = 2000;

const THREADS: usize = 2;

/// A seed that takes longer goes round in circles: the others take a tenth of a second.
const STUCK: Duration = Duration::from_secs(120);

/// After so many bad ones it is clear.
const ENOUGH: usize = 5;

/// The seeds that are still to be run, and those that are being run.
struct Seeds {
    next: AtomicU64,
    end: u64,
    running: Mutex<BTreeSet<u64>>,
}

impl Seeds {
    fn run(&self, outcomes: &SyncSender<(u64, Outcome)>) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            self.running.lock().unwrap().insert(seed);
            let outcome = run(seed, false);
            self.running.lock().unwrap().remove(&seed);
            if outcomes.send((seed, outcome)).is_err() {
                return;
            }
        }
    }
}

fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
#[allow(clippy::print_stdout, reason = "for whoever wants to know how many there were")]
#[allow(clippy::disallowed_methods, reason = "each seed has its own thread's time and chance")]
fn streams_are_exact_or_end_with_a_code_whatever_happens() {
    let (from, count) = (told("FROM").unwrap_or(0), told("SEEDS").unwrap_or(SEEDS));
    let seeds = Arc::new(Seeds { next: AtomicU64::new(from), end: from + count, running: Mutex::default() });
    let (send, outcomes) = sync_channel(THREADS);
    let began = std::time::Instant::now();
    for _ in 0..THREADS {
        let (seeds, send) = (seeds.clone(), send.clone());
        std::thread::spawn(move || seeds.run(&send));
    }
    drop(send);
    let (mut done, mut sums, mut wrong) = (0, BTreeMap::<String, u64>::new(), Vec::new());
    while wrong.len() < ENOUGH {
        match outcomes.recv_timeout(STUCK) {
            Ok((seed, outcome)) => {
                done += 1;
                let streams = [("streams", outcome.finished.1 as u64), ("finished", outcome.finished.0 as u64)];
                let counts = outcome.rows.into_iter().chain(streams.map(|(what, count)| (what.to_owned(), count)));
                counts.for_each(|(what, count)| *sums.entry(what).or_default() += count);
                wrong.extend(outcome.wrong.map(|wrong| format!("{wrong}\n{}", replay_of(seed))));
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let running = seeds.running.lock().unwrap();
                wrong.extend(running.iter().map(|seed| format!("goes round in circles\n{}", replay_of(*seed))));
                break;
            }
        }
    }
    println!("{done} seeds, {:.1} in a second: {sums:?}", f64::from(done) / began.elapsed().as_secs_f64());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_same_seed_makes_the_same_happen() {
    for seed in 0..20 {
        let (first, again) = (run(seed, false), run(seed, false));
        assert!(first.events > 100, "{first:?}");
        assert_eq!(first, again, "{}", replay_of(seed));
    }
    assert_ne!(run(0, false).hash, run(1, false).hash);
}

/// `SEED=123 cargo test --lib sim::tests::replay -- --nocapture` prints what happens with a seed.
#[test]
#[allow(clippy::print_stdout, reason = "for whoever replays a seed")]
fn replay() {
    let Some(seed) = told("SEED") else { return };
    let outcome = run(seed, true);
    println!("{outcome:?}");
    assert_eq!(outcome.wrong, None, "{}", replay_of(seed));
}

fn replay_of(seed: u64) -> String {
    format!("replay: SEED={seed} cargo test --lib sim::tests::replay -- --nocapture")
}
