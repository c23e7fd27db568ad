//! The one source of chance. In a simulation it is a seed, for the thread that asks, so that what happens can happen again.
//! Refuses to know what the bytes are for.

use uuid::Uuid;

use super::code::{Code, Failure, OrFail};

/// Fills `bytes` from the operating system's source.
///
/// # Errors
/// `internal` if it yields nothing.
pub fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    #[cfg(any(test, feature = "fuzzing"))]
    if seeded::fill(bytes) {
        return Ok(());
    }
    aws_lc_rs::rand::fill(bytes).or_fail(Code::Internal, "no randomness")
}

/// A `UUIDv7` (RFC 9562, 5.7): those made later sort later.
#[must_use]
pub(crate) fn uuid() -> Uuid {
    #[cfg(any(test, feature = "fuzzing"))]
    if let Some(uuid) = seeded::uuid() {
        return uuid;
    }
    Uuid::now_v7()
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use seeded::Reordered;
#[cfg(any(test, feature = "fuzzing"))]
pub use seeded::{Seeded, draw, mix, panicked, seed};

#[cfg(any(test, feature = "fuzzing"))]
mod seeded {
    use std::cell::Cell;
    use std::marker::PhantomData;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use uuid::{Builder, Uuid};

    thread_local! {
        static STATE: Cell<Option<State>> = const { Cell::new(None) };
        static PANICKED: Cell<bool> = const { Cell::new(false) };
    }

    #[derive(Clone, Copy)]
    struct State {
        at: u64,
        /// Stands in for the clock in ids.
        ids: u64,
        /// Of 64 turns of a task, so many go to the others first.
        yields: u64,
    }

    /// As long as it lives, this thread's chance comes from a seed.
    pub struct Seeded(PhantomData<*const ()>);

    impl Drop for Seeded {
        fn drop(&mut self) {
            STATE.set(None);
        }
    }

    /// Takes this thread's chance from a seed from here on.
    #[must_use]
    pub fn seed(seed: u64) -> Seeded {
        PANICKED.set(false);
        STATE.set(Some(State { at: seed, ids: 0, yields: [0, 2, 8, 32][(seed % 4) as usize] }));
        Seeded(PhantomData)
    }

    /// The next 64 bits of this thread's seed, if it has one.
    #[must_use]
    pub fn draw() -> Option<u64> {
        let mut state = STATE.get()?;
        let drawn = mix(&mut state.at);
        STATE.set(Some(state));
        Some(drawn)
    }

    /// The next 64 bits of a generator with this state: `SplitMix64`.
    #[must_use]
    pub fn mix(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Whether a task of this thread has panicked since.
    #[must_use]
    pub fn panicked() -> bool {
        PANICKED.get()
    }

    /// A future that by lot lets others have their turn first: whatever order tasks run in, what they do must be right.
    pub(crate) struct Reordered<F>(pub(crate) Pin<Box<F>>);

    impl<F: Future> Future for Reordered<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            if STATE.get().is_some_and(|state| draw().is_some_and(|drawn| drawn % 64 < state.yields)) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.0.as_mut().poll(cx)
        }
    }

    impl<F> Drop for Reordered<F> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                PANICKED.set(true);
            }
        }
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        for chunk in bytes.chunks_mut(8) {
            let Some(drawn) = draw() else { return false };
            chunk.copy_from_slice(&drawn.to_le_bytes()[..chunk.len()]);
        }
        STATE.get().is_some()
    }

    pub(super) fn uuid() -> Option<Uuid> {
        let mut state = STATE.get()?;
        state.ids += 1;
        STATE.set(Some(state));
        let mut random = [0; 10];
        fill(&mut random);
        Some(Builder::from_unix_timestamp_millis(state.ids, &random).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_chance_repeat_itself_until_it_is_put_down() {
        let drawn = |from: u64| {
            let _seeded = seed(from);
            let mut bytes = [0; 11];
            fill(&mut bytes).unwrap();
            let ids = [uuid(), uuid()];
            assert!(ids[0] < ids[1], "those made later sort later");
            (bytes, ids)
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        let mut free = [[0; 16]; 2];
        free.iter_mut().for_each(|bytes| fill(bytes).unwrap());
        assert_ne!(free[0], free[1]);
        assert_ne!(drawn(7).1[0], uuid());
    }
}
