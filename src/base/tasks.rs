//! Owning tasks: whatever runs in the background was spawned by a [`Tasks`] that can cancel and join it.
//! Refuses to know what the tasks do.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An owner of tasks. Cancelling it drops every future it runs; a child is cancelled with its parent.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An owner without a parent.
    #[must_use]
    pub fn new() -> Self {
        Self { tracker: TaskTracker::new(), cancel: CancellationToken::new() }
    }

    /// An owner whose tasks end with this one's, counted and joined by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), cancel: self.cancel.child_token() }
    }

    /// Runs a future to its end or to the owner's cancellation; yields `None` in the second case.
    #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let cancel = self.cancel.clone();
        // Boxed, since a future that is moved into another's `select!` has its place there twice.
        let future = Box::pin(future);
        #[cfg(any(test, feature = "fuzzing"))]
        let future = super::random::Reordered(future);
        tokio::spawn(self.tracker.track_future(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                output = future => Some(output),
            }
        }))
    }

    /// How many tasks run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether none runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Drops every future at its next wake-up.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Ends when [`Tasks::cancel`] was called here or on an ancestor.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Ends when every task has ended. New tasks may still be spawned meanwhile; those are waited for too.
    pub async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Cancels, then joins.
    pub async fn abort(&self) {
        self.cancel();
        self.join().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cancelling_a_parent_ends_and_joins_the_childs_tasks() {
        let parent = Tasks::new();
        let child = parent.child();
        let task = child.spawn(std::future::pending::<()>());
        assert_eq!(child.len(), 1);
        parent.cancel();
        child.join().await;
        assert!(task.await.unwrap().is_none());
    }
}
