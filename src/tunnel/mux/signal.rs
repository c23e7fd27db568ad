//! What a stream must learn past the crate: that its connection is over, that the peer reset it, that the peer reads no more.
//! It refuses to know frames and why connections end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// The signals of a connection's streams, by their ids.
#[derive(Default)]
pub(super) struct Signals(Mutex<HashMap<u32, Arc<Signal>>>);

/// The signals of one stream.
#[derive(Default)]
pub(super) struct Signal {
    finished: AtomicBool,
    reset: AtomicBool,
    abandoned: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Signals {
    pub(super) fn add(&self, stream: u32) -> Arc<Signal> {
        let signal = Arc::new(Signal::default());
        self.table().insert(stream, signal.clone());
        signal
    }

    pub(super) fn remove(&self, stream: u32) {
        self.table().remove(&stream);
    }

    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    /// The end of file came; the crate wakes the stream.
    pub(super) fn finished(&self, stream: u32) {
        if let Some(signal) = self.table().get(&stream) {
            signal.finished.store(true, Ordering::Release);
        }
    }

    /// A reset came; the crate wakes the stream.
    pub(super) fn reset(&self, stream: u32) {
        if let Some(signal) = self.table().get(&stream) {
            signal.reset.store(true, Ordering::Release);
        }
    }

    pub(super) fn abandoned(&self, stream: u32) {
        if let Some(signal) = self.table().get(&stream) {
            signal.abandoned.store(true, Ordering::Release);
            signal.writer.wake();
        }
    }

    pub(super) fn wake_all(&self) {
        for signal in self.table().values() {
            signal.reader.wake();
            signal.writer.wake();
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Signal>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signal {
    /// Wakes this task from here on when reading is over. Look at the reasons after it, not before.
    pub(super) fn reads(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }

    /// The same for writing.
    pub(super) fn writes(&self, cx: &Context<'_>) {
        self.writer.register(cx.waker());
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }
}
