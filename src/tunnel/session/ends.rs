//! Why the peer ended streams: its notices take another way than the ends themselves, and come before or after them. It refuses to
//! know what ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::base::code::Code;
use crate::base::limits::REASON_DEADLINE;

/// A lane and a stream on it.
type Key = (u32, u32);

/// What was said, and who waits to hear it; clones share it.
#[derive(Clone)]
pub(super) struct Ends {
    ends: Arc<Mutex<HashMap<Key, End>>>,
    most: usize,
}

enum End {
    Said(Code),
    Awaited(oneshot::Sender<Code>),
}

impl Ends {
    /// For a session of so many streams.
    pub(super) fn new(streams: usize) -> Self {
        Self { ends: Arc::default(), most: streams }
    }

    /// Keeps what the peer said for whoever asks.
    pub(super) fn note(&self, key: Key, code: Code) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(End::Awaited(waits)) = ends.remove(&key) {
            // Nobody waits any more: then nobody wants to know.
            let _ = waits.send(code);
            return;
        }
        // Nobody asks for most of them; a peer can't make the table grow beyond the streams it may have.
        if ends.len() >= self.most {
            ends.retain(|_, end| matches!(end, End::Awaited(_)));
        }
        ends.insert(key, End::Said(code));
    }

    /// Takes what it said, if it came.
    pub(super) fn take(&self, key: Key) -> Option<Code> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        match ends.remove(&key) {
            Some(End::Said(code)) => Some(code),
            _ => None,
        }
    }

    /// The same for a stream that the peer has just reset, whose reason may be under way.
    pub(super) async fn awaited(&self, key: Key) -> Option<Code> {
        let comes = {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(End::Said(code)) = ends.remove(&key) {
                return Some(code);
            }
            let (waits, comes) = oneshot::channel();
            ends.insert(key, End::Awaited(waits));
            comes
        };
        let said = tokio::time::timeout(REASON_DEADLINE, comes).await.ok().and_then(Result::ok);
        if said.is_none() {
            self.take(key);
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tasks::Tasks;

    fn kept(ends: &Ends) -> usize {
        ends.ends.lock().unwrap().len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_heard_whether_it_comes_before_the_question_or_after() {
        let (ends, tasks) = (Ends::new(9), Tasks::new());
        ends.note((0, 2), Code::TargetReset);
        assert_eq!(ends.awaited((0, 2)).await, Some(Code::TargetReset));
        let waits = ends.clone();
        let asked = tasks.spawn(async move { waits.awaited((0, 4)).await });
        while kept(&ends) == 0 {
            tokio::task::yield_now().await;
        }
        ends.note((1, 4), Code::IdleTimeout);
        ends.note((0, 4), Code::CallerRevoked);
        assert_eq!(asked.await.unwrap().unwrap(), Some(Code::CallerRevoked));
        assert_eq!(ends.awaited((0, 6)).await, None, "a peer that says nothing is not waited for without end");
        assert_eq!(kept(&ends), 1, "nothing is left but what nobody asked for");
    }

    #[test]
    fn what_was_said_of_streams_that_nobody_asks_about_is_bounded() {
        let ends = Ends::new(100);
        (0..1000).for_each(|stream| ends.note((0, stream), Code::Internal));
        assert!(kept(&ends) <= 100);
    }
}
