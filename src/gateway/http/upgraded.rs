//! A request that has made another protocol of its connection, such as WebSocket: from then on bytes, both ways. Refuses to know what
//! they say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::account::Account;
use crate::base::code::Code;
use crate::gateway::ingress::Wanted;
use crate::gateway::relay::Held;
use crate::tunnel::ledger::Ledger;
use crate::tunnel::splice::{Delay, Direction, End, Outcome, Socket, Toll, splice};

/// Carries it to its end, or to that of its caller's rights.
pub(super) async fn carry(
    client: OnUpgrade,
    agent: OnUpgrade,
    wanted: Wanted,
    idle: Option<Duration>,
    ledger: Arc<Ledger<Held>>,
    mut account: Account,
) {
    let moved = Moved::default();
    let both = async {
        let Ok((client, agent)) = futures_util::future::try_join(client, agent).await else { return Some(Code::ClientReset) };
        let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
        code_of(&splice(&mut Socket::new(&mut client), &mut Socket::new(&mut agent), idle, &moved).await)
    };
    let code = tokio::select! {
        biased;
        () = wanted.ends() => Some(Code::CallerRevoked),
        code = both => code,
    };
    ledger.ends(code);
    let Moved { up, down } = moved;
    account.moved(up.into_inner(), down.into_inner());
    match code {
        None => account.whole(),
        Some(code) => account.broken(code),
    }
}

fn code_of(outcome: &Outcome) -> Option<Code> {
    match outcome {
        Outcome::Finished => None,
        Outcome::Idle => Some(Code::IdleTimeout),
        Outcome::Broken(End::Near, _) => Some(Code::ClientReset),
        Outcome::Broken(End::Far, _) => Some(Code::StreamCut),
    }
}

/// What has passed. Its rate is the stream's.
#[derive(Default)]
struct Moved {
    up: AtomicU64,
    down: AtomicU64,
}

impl Toll for Moved {
    fn pace(&self, _: usize) -> Option<Delay<'_>> {
        None
    }

    fn count(&self, direction: Direction, bytes: usize) {
        let sum = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        sum.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
