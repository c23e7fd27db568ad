//! An open stream joined with what is on this host, to the end of both. Refuses to know what either says.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;

use super::ask::Opened;
use crate::tunnel::splice::{Delay, Direction, Duplex, End, Outcome, Socket, Toll, splice};

/// Moves bytes both ways until both ends are done. A stream that failed is dropped without an end of file, so that it looks failed
/// to the gateway, too.
///
/// # Errors
/// Which end broke, and how.
pub(super) async fn carry(local: &mut impl Duplex, opened: Opened) -> Result<(), (End, io::Error)> {
    let Opened { mut stream, first } = opened;
    if !first.is_empty() {
        let mut chunks = VecDeque::from([first.freeze()]);
        poll_fn(|cx| local.poll_take(cx, &mut chunks)).await.map_err(|error| (End::Near, error))?;
    }
    match splice(local, &mut Socket::new(&mut stream), None, &Free).await {
        Outcome::Finished => Ok(()),
        Outcome::Broken(end, error) => Err((end, error)),
        Outcome::Idle => Err((End::Near, io::ErrorKind::TimedOut.into())),
    }
}

/// Neither slowed nor counted: that is the gateway's business.
struct Free;

impl Toll for Free {
    fn pace(&self, _: usize) -> Option<Delay<'_>> {
        None
    }

    fn count(&self, _: Direction, _: usize) {}
}
