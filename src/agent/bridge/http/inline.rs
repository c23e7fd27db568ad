//! Futures that run within the task of their stream: what a hop drives beside its client's connection (the origin's connections,
//! the requests of HTTP/2) ends with that task, and wakes no other thread. Refuses to know what they do.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::rt::Executor;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the futures of one stream are put. Clones put them into the same place.
#[derive(Clone, Default)]
pub(super) struct Inline(Arc<Mutex<Vec<Work>>>);

impl Inline {
    /// Runs a future to its end, as long as something of the stream is run [`Inline::beside`] it.
    pub(super) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(work));
    }

    /// Runs `main`, and meanwhile what was put here, by it or by each other. Nothing may be put from outside.
    pub(super) async fn beside<T>(&self, running: &mut Running, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        poll_fn(|cx| match main.as_mut().poll(cx) {
            Poll::Ready(out) => Poll::Ready(out),
            Poll::Pending => {
                running.poll(self, cx);
                Poll::Pending
            }
        })
        .await
    }

    fn take(&self) -> Vec<Work> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Inline {
    fn execute(&self, future: F) {
        self.run(future);
    }
}

/// The futures of one stream, in its task's hands.
#[derive(Default)]
pub(super) struct Running(FuturesUnordered<Work>);

impl Running {
    /// Until nothing of it can go on and nothing new was put.
    fn poll(&mut self, new: &Inline, cx: &mut Context<'_>) {
        loop {
            self.0.extend(new.take());
            while let Poll::Ready(Some(())) = self.0.poll_next_unpin(cx) {}
            if new.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_put_runs_beside_and_ends_with_what_it_is_beside() {
        let (inline, mut running) = (Inline::default(), Running::default());
        let (said, heard) = oneshot::channel();
        let (kept, dropped) = oneshot::channel::<()>();
        let other = inline.clone();
        inline.run(async move {
            other.run(async move { said.send(7).unwrap() });
            std::future::pending::<()>().await;
            drop(kept);
        });
        assert_eq!(inline.beside(&mut running, heard).await, Ok(7));
        drop((inline, running));
        dropped.await.unwrap_err();
    }
}
