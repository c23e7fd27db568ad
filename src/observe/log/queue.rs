//! Lines on their way to a reader that may be slow or gone: a bounded queue and a thread of its own that writes.
//! Refuses to know what a line says, and to wait for the reader.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::base::code::{Code, Failure, OrFail};
use crate::base::limits;
use crate::observe::metrics;

/// The near end. Clones feed the same thread, which ends with the last of them.
#[derive(Clone)]
pub(super) struct Queue {
    lines: SyncSender<Vec<u8>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Bytes that wait or are being written.
    waiting: Mutex<usize>,
    /// None wait any more.
    idle: Condvar,
    /// Lines lost since the reader was last told.
    lost: AtomicU64,
}

impl Queue {
    /// Starts the thread; `notice` makes the line that tells how many were lost.
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        notice: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (lines, received) = sync_channel(limits::LOG_LINES);
        let shared = Arc::new(Shared::default());
        let there = shared.clone();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&received, &there, sink, notice))
            .or_fail(Code::Internal, "log thread")?;
        Ok(Self { lines, shared })
    }

    /// Takes a line if there is room. Never waits.
    pub(super) fn push(&self, line: Vec<u8>) {
        let length = line.len();
        if !self.shared.reserve(length) {
            self.shared.lose();
        } else if self.lines.try_send(line).is_err() {
            self.shared.lose();
            self.shared.release(length);
        }
    }

    /// Waits until what was pushed is written, or for `LOG_FLUSH`: if nobody reads, then nobody misses the lines.
    pub(super) fn flush(&self) {
        let waiting = self.shared.waiting();
        drop(self.shared.idle.wait_timeout_while(waiting, limits::LOG_FLUSH, |bytes| *bytes > 0));
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, length: usize) -> bool {
        let mut waiting = self.waiting();
        let fits = *waiting + length <= limits::LOG_BUFFER;
        if fits {
            *waiting += length;
        }
        fits
    }

    fn release(&self, length: usize) {
        let mut waiting = self.waiting();
        *waiting -= length;
        if *waiting == 0 {
            self.idle.notify_all();
        }
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        metrics::log_dropped(1);
    }
}

fn write_lines(lines: &Receiver<Vec<u8>>, shared: &Shared, mut sink: impl Write, notice: impl Fn(u64) -> Vec<u8>) {
    for line in lines {
        if sink.write_all(&line).is_err() {
            shared.lose();
        }
        let lost = shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && sink.write_all(&notice(lost)).is_err() {
            shared.lost.fetch_add(lost, Ordering::Relaxed);
        }
        shared.release(line.len());
    }
}
