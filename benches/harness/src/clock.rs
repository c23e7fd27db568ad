//! Letting time pass, which a measurement does and a program should not. Refuses to know what for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take to come up.
const SOON: Duration = Duration::from_secs(20);

/// Lets time pass.
#[expect(clippy::disallowed_methods, reason = "a measurement is a stretch of time")]
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until `probe` yields something.
///
/// # Errors
/// What `probe` fails with, and when it has yielded nothing for 20 seconds.
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < SOON {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        pass(Duration::from_millis(10));
    }
    bail!("{what}: not within {SOON:?}")
}
