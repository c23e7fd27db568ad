//! What a process keeps of others' bytes, over all its connections, and the most that it may: near it nothing new is begun, beyond it what
//! keeps most gives way, before the system ends the process. Refuses to know where the bytes lie and how much memory the host has.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::code::{Code, Failure};
use super::limits::MEMORY_STEP;

/// The budget of this process; without limit until somebody sets one.
pub static PROCESS: Budget = Budget::new(usize::MAX);

/// So much memory, and how much of it is in use.
#[derive(Debug)]
pub struct Budget {
    kept: AtomicUsize,
    limit: AtomicUsize,
}

/// One keeper's part of a budget; given back when dropped.
#[derive(Debug)]
pub struct Account {
    budget: &'static Budget,
    counted: usize,
}

impl Budget {
    /// So many bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { kept: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }
    }

    /// From here on so many bytes.
    pub fn limit_to(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes in use, as far as they were told.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Whether more is in use than there should be.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.kept() > self.limit.load(Ordering::Relaxed)
    }

    /// Whether so much is in use that nothing new may begin, and that what only waits gives way.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.kept() > self.limit.load(Ordering::Relaxed) / 4 * 3
    }

    /// Whether something new may begin: below three quarters of the limit. What is there keeps at most the limit, and new things that
    /// came as others gave way would each cost more than what is counted.
    ///
    /// # Errors
    /// `memory_short`.
    pub fn ready(&self) -> Result<(), Failure> {
        if self.is_tight() {
            let (kept, limit) = (self.kept(), self.limit.load(Ordering::Relaxed));
            let detail = format_args!("{} MiB wait for their readers, of at most {} MiB", kept >> 20, limit >> 20);
            return Err(Failure::new(Code::MemoryShort, detail));
        }
        Ok(())
    }

    /// A part of it, with nothing in it.
    #[must_use]
    pub fn account(&'static self) -> Account {
        Account { budget: self, counted: 0 }
    }
}

impl Account {
    /// So much is kept now. Told in steps of [`MEMORY_STEP`], and when it is nothing, so that most changes touch nothing that is shared.
    pub fn keeps(&mut self, bytes: usize) {
        if bytes.abs_diff(self.counted) < MEMORY_STEP && bytes != 0 {
            return;
        }
        match bytes.checked_sub(self.counted) {
            Some(0) => return,
            Some(more) => self.budget.kept.fetch_add(more, Ordering::Relaxed),
            None => self.budget.kept.fetch_sub(self.counted - bytes, Ordering::Relaxed),
        };
        self.counted = bytes;
    }

    /// What it was told last.
    #[cfg(test)]
    pub(crate) fn counted(&self) -> usize {
        self.counted
    }

    /// Whether nothing new may begin.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.budget.is_tight()
    }

    /// Whether the budget is used up.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.budget.is_short()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.keeps(0);
    }
}

/// What was in the box, whose memory is given back at once: `*boxed` alone keeps it to the end of the scope, which may be a stream's.
#[must_use]
#[expect(clippy::boxed_local, reason = "the box is what is given back")]
pub fn unboxed<T>(boxed: Box<T>) -> T {
    *boxed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: usize) -> &'static Budget {
        Box::leak(Box::new(Budget::new(limit)))
    }

    #[test]
    fn f31_what_all_keep_is_counted_and_given_back() {
        let budget = budget(12 * MEMORY_STEP);
        let (mut one, mut other) = (budget.account(), budget.account());
        one.keeps(7 * MEMORY_STEP);
        other.keeps(2 * MEMORY_STEP);
        assert!(!one.is_short() && budget.ready().is_ok());
        other.keeps(3 * MEMORY_STEP);
        assert_eq!(budget.ready().unwrap_err().code, Code::MemoryShort, "nothing new");
        assert!(!one.is_short(), "and nobody gives way");
        other.keeps(6 * MEMORY_STEP);
        assert!(one.is_short());
        one.keeps(3 * MEMORY_STEP);
        assert!(!one.is_short() && budget.ready().is_ok());
        drop((one, other));
        assert_eq!(budget.kept(), 0);
    }

    #[test]
    fn small_changes_are_told_later_and_an_end_at_once() {
        let budget = budget(usize::MAX);
        let mut account = budget.account();
        account.keeps(MEMORY_STEP - 1);
        assert_eq!(budget.kept(), 0);
        account.keeps(MEMORY_STEP);
        account.keeps(2 * MEMORY_STEP - 1);
        assert_eq!(budget.kept(), MEMORY_STEP);
        account.keeps(0);
        assert_eq!(budget.kept(), 0);
    }
}
