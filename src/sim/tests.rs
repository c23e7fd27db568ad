//! Many seeds, the same seed again, and one seed for whoever looks for a fault. Refuses to know what happens in them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Seeds of one run of the tests; `SEEDS` says otherwise, and `FROM` with which they begin.
const SEEDS: u64 = 2000;

const THREADS: u64 = 2;

fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
#[allow(clippy::print_stdout, reason = "for whoever wants to know how many there were")]
fn streams_are_exact_or_end_with_a_code_whatever_happens() {
    let (from, seeds) = (told("FROM").unwrap_or(0), told("SEEDS").unwrap_or(SEEDS));
    let (next, events) = (AtomicU64::new(from), AtomicU64::new(0));
    let began = std::time::Instant::now();
    let work = || {
        let mut wrong = Vec::new();
        while wrong.len() < 5 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                break;
            }
            let outcome = run(seed, false);
            events.fetch_add(outcome.events, Ordering::Relaxed);
            wrong.extend(outcome.wrong.map(|wrong| format!("{wrong}\n{}", replay_of(seed))));
        }
        wrong
    };
    let wrong: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let rate = seeds as f64 / began.elapsed().as_secs_f64();
    println!("{seeds} seeds, {} events, {rate:.1} seeds/s", events.into_inner());
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
