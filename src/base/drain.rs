//! Ending well: first "begin nothing new", then a deadline, then "end now". Refuses to know who listens.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::tasks::Tasks;

/// The first of the two signals; the second is the cancellation of the [`Tasks`] that do the work.
#[derive(Clone, Debug, Default)]
pub struct Drain(CancellationToken);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything had finished by the deadline.
    Clean,
    /// This many tasks were cut.
    Cut(usize),
}

impl Drain {
    /// A signal not yet given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A signal given with this one, or by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Gives the signal.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether it was given.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Ends when it is given.
    pub async fn begins(&self) {
        self.0.cancelled().await;
    }

    /// Gives the signal, waits for the tasks up to the deadline, then cuts what is left.
    pub async fn finish(&self, tasks: &Tasks, deadline: Duration) -> Drained {
        self.begin();
        if tokio::time::timeout(deadline, tasks.join()).await.is_ok() {
            return Drained::Clean;
        }
        let cut = tasks.len();
        tasks.abort().await;
        Drained::Cut(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_its_deadline_and_counts_what_it_cut() {
        let (drain, tasks) = (Drain::new(), Tasks::new());
        let seen = drain.child();
        tasks.spawn(async move { seen.begins().await });
        assert_eq!(drain.finish(&tasks, Duration::from_secs(5)).await, Drained::Clean);

        let tasks = Tasks::new();
        tasks.spawn(std::future::pending::<()>());
        assert_eq!(drain.finish(&tasks, Duration::from_secs(5)).await, Drained::Cut(1));
        assert!(tasks.is_empty());
    }
}
