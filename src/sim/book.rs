//! What became of each stream of a simulation at either end, and which of that must not be. Refuses to know how streams travel.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::streams::{Kind, Task};
use super::trace::Trace;
use crate::base::code::Code;

/// How a stream ended at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All its bytes, both ways, and both ends of file.
    Finished,
    /// Dropped by this end.
    Dropped,
    /// Dropped by the other, for this reason if it said any.
    Reset(Option<Code>),
    /// With its session.
    Lost(Code),
}

/// The streams that clients asked for.
pub(super) struct Book {
    trace: Arc<Trace>,
    /// Nothing that happens is to be noticed by a stream.
    strict: bool,
    entries: Mutex<BTreeMap<u64, Entry>>,
}

struct Entry {
    task: Task,
    begun: bool,
    asked: Option<Ended>,
    answered: Option<Ended>,
}

impl Book {
    pub(super) fn new(trace: Arc<Trace>, strict: bool) -> Self {
        Self { trace, strict, entries: Mutex::default() }
    }

    /// A client wants a stream.
    pub(super) fn wants(&self, task: Task) {
        self.entries().insert(task.key, Entry { task, begun: false, asked: None, answered: None });
    }

    /// An agent has read what it is to do; whether that was asked, and once.
    pub(super) fn begun(&self, task: &Task) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&task.key).filter(|entry| entry.task == *task && !entry.begun) else { return false };
        entry.begun = true;
        true
    }

    /// The client's end is over.
    pub(super) fn asked(&self, key: u64, ended: Ended) {
        self.ends(key, "client", ended, |entry| &mut entry.asked);
    }

    /// The agent's end is over.
    pub(super) fn answered(&self, key: u64, ended: Ended) {
        self.ends(key, "agent", ended, |entry| &mut entry.answered);
    }

    pub(super) fn wrong(&self, what: fmt::Arguments<'_>) {
        self.trace.wrong(what);
    }

    fn ends(&self, key: u64, who: &str, ended: Ended, of: impl FnOnce(&mut Entry) -> &mut Option<Ended>) {
        self.trace.note(format_args!("stream {key} {who} {ended:?}"));
        let twice = self.entries().get_mut(&key).is_some_and(|entry| of(entry).replace(ended).is_some());
        if twice {
            self.wrong(format_args!("stream {key} has ended twice at its {who}"));
        }
    }

    /// Whether every stream that an agent has begun is over there, too.
    pub(super) fn is_settled(&self) -> bool {
        self.entries().values().all(|entry| !entry.begun || entry.answered.is_some())
    }

    /// Looks at every stream, once nothing runs any more. How many finished, of how many.
    pub(super) fn close(&self) -> (usize, usize) {
        let entries = self.entries();
        for Entry { task, begun, asked, answered } in entries.values() {
            let what = format!("{task:?}: asked {asked:?}, answered {answered:?}");
            let drops = matches!(task.kind, Kind::Abandon | Kind::Refuse);
            if asked.is_none() {
                self.wrong(format_args!("never ended: {what}"));
            }
            if drops && (*asked == Some(Ended::Finished) || *answered == Some(Ended::Finished)) {
                self.wrong(format_args!("dropped and finished: {what}"));
            }
            let half = *answered == Some(Ended::Dropped) || !*begun;
            if *asked == Some(Ended::Finished) && half {
                self.wrong(format_args!("finished on one side: {what}"));
            }
            let meant = match task.kind {
                Kind::Abandon => (Some(Ended::Dropped), !matches!(answered, Some(Ended::Lost(_)))),
                Kind::Refuse => (*asked, matches!(asked, Some(Ended::Reset(None | Some(Code::TargetReset))))),
                _ => (Some(Ended::Finished), *answered == Some(Ended::Finished)),
            };
            if self.strict && (*asked != meant.0 || !meant.1) {
                self.wrong(format_args!("a stream has noticed: {what}"));
            }
        }
        let finished = entries.values().filter(|entry| entry.asked == Some(Ended::Finished)).count();
        (finished, entries.len())
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
