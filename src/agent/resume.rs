//! A lane's connection broke: takes the lane up again over another one, with every stream as it was, as long as its session waits, and at
//! a pace that no gateway can raise. It refuses to know streams, and what becomes of the session if it can't be done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connector::Connector;
use super::reauthorise::{Grounds, holds, reauthorise};
use crate::base::backoff::Backoff;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::HostPort;
use crate::base::limits::{RESUME_BASE, RESUME_DEADLINE, RESUME_DIALS_AT_ONCE, RESUME_DIALS_PER_MINUTE, RESUME_MAX};
use crate::tunnel::ledger::LaneAccount;
use crate::tunnel::session::lanes::Lane;
use crate::wire::resume::Claim;

/// A lane that goes on.
struct Resumed {
    generation: u64,
    grounds: Grounds,
    at: HostPort,
    paused: Duration,
}

/// Why an attempt came to nothing.
enum Miss {
    /// Another gateway answers at that address.
    Elsewhere(Failure),
    /// Another attempt may succeed.
    Failed(Failure),
    /// None can: the gateway does not have the lane as this end has it.
    Refused(Failure),
}

/// How fast a link takes up its sessions' lanes, whatever becomes of that: so many attempts at once, and more in equal steps.
pub(super) struct Pace {
    /// When there would be none left to make up for.
    even: Mutex<Instant>,
}

impl Pace {
    const STEP: Duration = Duration::from_secs(60).checked_div(RESUME_DIALS_PER_MINUTE).expect("not by zero");

    pub(super) fn new() -> Self {
        Self { even: Mutex::new(Instant::now()) }
    }

    /// Ends when the next attempt may be made; who comes first goes first.
    async fn allows(&self) {
        let at = {
            let mut even = self.even.lock().unwrap_or_else(PoisonError::into_inner);
            *even = (*even).max(Instant::now()) + Self::STEP;
            even.checked_sub(Self::STEP * RESUME_DIALS_AT_ONCE)
        };
        if let Some(at) = at {
            tokio::time::sleep_until(at).await;
        }
    }
}

/// Keeps a lane going, to its end. `elsewhere` is cancelled when its gateway can't be found where it was, but another one can.
pub(super) async fn keep(connector: Arc<Connector>, lane: Lane, elsewhere: CancellationToken) {
    let agent = &connector.agent;
    let account =
        LaneAccount { audit: &agent.audit, session: connector.session, agent: &agent.settings.agent, lane: lane.number() };
    while let Some(why) = lane.link().paused().await {
        account.broken(&why);
        agent.board.resuming(&connector.endpoint, why);
        tokio::select! {
            biased;
            _ = lane.link().ended() => return,
            resumed = take_up(&connector, &lane, &elsewhere) => match resumed {
                Ok(Resumed { generation, grounds, at, paused }) => {
                    let told = account.resumed(generation, &grounds.serial.to_string(), &at.to_string(), paused);
                    // A lane that breaks without end has no more rows of this than of that.
                    let may = if told { reauthorise(agent, connector.session, &grounds) } else { holds(agent, &grounds) };
                    if let Err(why) = may {
                        return lane.link().close_because(why);
                    }
                    if lane.number() == 0 {
                        connector.grounds.store(Arc::new(grounds));
                    }
                }
                Err(refused) => return lane.link().close_because(refused),
            },
        }
    }
}

/// Tries one address after another, the first at once unless there were many attempts, until one succeeds or it is clear that none can.
async fn take_up(connector: &Connector, lane: &Lane, elsewhere: &CancellationToken) -> Result<Resumed, Failure> {
    let mut backoff = Backoff::new(RESUME_BASE, RESUME_MAX);
    let mut turn = 0;
    loop {
        connector.pace.allows().await;
        let late =
            || Miss::Failed(Failure::new(Code::GatewayTimeout, format_args!("{}: no answer in time", connector.endpoint)));
        let attempt = tokio::time::timeout(RESUME_DEADLINE, attempt(connector, lane, turn)).await;
        let failure = match attempt.unwrap_or_else(|_| Err(late())) {
            Ok(resumed) => return Ok(resumed),
            Err(Miss::Refused(failure)) => return Err(failure),
            Err(Miss::Elsewhere(failure)) => {
                elsewhere.cancel();
                failure
            }
            Err(Miss::Failed(failure)) => failure,
        };
        let wait = backoff.draw();
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let Failure { code, detail } = failure;
        tracing::info!(session = %connector.session, lane = lane.number(), %code, detail, wait_ms, "not resumed yet");
        connector.agent.board.resuming(&connector.endpoint, Failure::new(code, detail));
        tokio::time::sleep(wait).await;
        turn += 1;
    }
}

/// Dials, and takes the lane up on what it reaches.
async fn attempt(connector: &Connector, lane: &Lane, turn: usize) -> Result<Resumed, Miss> {
    let (at, secured) = connector.reach(turn).await.map_err(|failure| match failure.code {
        Code::NotHere => Miss::Elsewhere(failure),
        _ => Miss::Failed(failure),
    })?;
    let grounds = secured.grounds.clone();
    let (generation, received) = lane.link().claim().map_err(Miss::Refused)?;
    let claim = Claim { session: connector.session, lane: lane.number(), generation, received };
    let upgraded = connector.upgrade(secured, claim).await.map_err(|failure| match failure.code {
        Code::NotHere | Code::LaneRefused | Code::AgentDisabled | Code::Revoked | Code::CertificateRefused => {
            Miss::Refused(failure)
        }
        _ => Miss::Failed(failure),
    })?;
    let paused = lane.link().attach(generation, upgraded).map_err(Miss::Refused)?;
    Ok(Resumed { generation, grounds, at, paused })
}

#[cfg(test)]
mod tests;
