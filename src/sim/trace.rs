//! What happened, as a hash over virtual times and events, and as lines for whoever replays a seed. Refuses to know what events mean.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::base::random::mix;

/// The record of one run.
pub(super) struct Trace {
    start: Instant,
    /// Whether events are printed as they come.
    prints: bool,
    kept: Mutex<Kept>,
}

struct Kept {
    hash: u64,
    events: u64,
    wrong: Option<String>,
}

impl Trace {
    pub(super) fn new(prints: bool) -> Self {
        let kept = Kept { hash: 0, events: 0, wrong: None };
        Self { start: Instant::now(), prints, kept: Mutex::new(kept) }
    }

    /// Something happened.
    pub(super) fn note(&self, event: fmt::Arguments<'_>) {
        let text = event.to_string();
        self.count(text.bytes().fold(0, |sum, byte| mix(&mut (sum ^ u64::from(byte)))));
        self.print(&text);
    }

    /// Bytes moved: too often to be told in words.
    pub(super) fn moved(&self, by: u64, bytes: usize) {
        self.count(by << 32 ^ bytes as u64);
    }

    /// What must not happen has happened; the first such event is what a run ends with.
    pub(super) fn wrong(&self, what: fmt::Arguments<'_>) {
        let text = what.to_string();
        self.print(&format!("WRONG: {text}"));
        let at = self.start.elapsed();
        self.kept().wrong.get_or_insert_with(|| format!("{at:?}: {text}"));
    }

    /// The hash, how many events it is of, and the first that must not have happened.
    pub(super) fn sum(&self) -> (u64, u64, Option<String>) {
        let kept = self.kept();
        (kept.hash, kept.events, kept.wrong.clone())
    }

    fn count(&self, what: u64) {
        let at = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut kept = self.kept();
        kept.events += 1;
        kept.hash = mix(&mut (kept.hash ^ at));
        kept.hash = mix(&mut (kept.hash ^ what));
    }

    #[allow(clippy::print_stdout, reason = "for whoever replays a seed")]
    fn print(&self, text: &str) {
        if self.prints {
            println!("{:>10.3} {text}", self.start.elapsed().as_secs_f64());
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
