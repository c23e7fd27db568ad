//! A lane's connection broke: takes the lane up again over another one, with every stream as it was, as long as its session waits, and at
//! a pace that no gateway can raise. It refuses to know streams, and what becomes of the session if it can't be done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connector::Connector;
use super::reauthorise::{Grounds, holds, reauthorise};
use super::status::Board;
use crate::base::backoff::Backoff;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::{Endpoint, HostPort};
use crate::base::id::{InstanceId, SessionId};
use crate::base::limits::{RESUME_BASE, RESUME_DEADLINE, RESUME_DIALS_AT_ONCE, RESUME_DIALS_PER_MINUTE, RESUME_MAX};
use crate::tunnel::ledger::LaneAccount;
use crate::tunnel::session::lanes::Lane;
use crate::tunnel::upgrade::Refused;
use crate::wire::resume::Claim;

/// Between two lines of the log about attempts that failed: a window has a dozen of them, for each lane.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

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
        let shown = Shown { connector: &connector, lane: lane.number(), told: None };
        shown.broken(why);
        tokio::select! {
            biased;
            _ = lane.link().ended() => return,
            resumed = take_up(shown, &lane, &elsewhere) => match resumed {
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

/// What the log and the status are told of a lane that waits. The status is about lane 0, on which the session hangs.
struct Shown<'a> {
    connector: &'a Connector,
    lane: u32,
    /// When the log was told last that nothing has come of it.
    told: Option<Instant>,
}

impl Shown<'_> {
    fn on_board(&self, tell: impl FnOnce(&Board, &Endpoint, SessionId)) {
        if self.lane == 0 {
            tell(&self.connector.agent.board, &self.connector.endpoint, self.connector.session);
        }
    }

    fn broken(&self, why: Failure) {
        self.on_board(|board, endpoint, session| board.resuming(endpoint, session, why, None));
    }

    fn tries(&self) {
        self.on_board(Board::tries);
    }

    fn resumed(&self) {
        self.on_board(Board::resumed);
    }

    /// An attempt has failed, and so long is waited for the next one.
    fn waits(&mut self, failure: Failure, wait: Duration) {
        let (session, lane, Failure { code, detail }) = (self.connector.session, self.lane, &failure);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let now = Instant::now();
        if self.is_told(now) {
            tracing::info!(%session, lane, %code, detail, wait_ms, "not resumed yet");
        } else {
            tracing::debug!(%session, lane, %code, detail, wait_ms, "not resumed yet");
        }
        self.on_board(|board, endpoint, session| board.resuming(endpoint, session, failure, Some(now + wait)));
    }

    /// Whether the log is told of another attempt: the first one, and then not too often.
    fn is_told(&mut self, now: Instant) -> bool {
        let due = self.told.is_none_or(|told| now.duration_since(told) >= TOLD_AGAIN);
        if due {
            self.told = Some(now);
        }
        due
    }
}

/// Tries one address after another, the first at once unless there were many attempts, until one attempt succeeds or it is clear
/// that none can.
async fn take_up(mut shown: Shown<'_>, lane: &Lane, elsewhere: &CancellationToken) -> Result<Resumed, Failure> {
    let connector = shown.connector;
    let mut backoff = Backoff::new(RESUME_BASE, RESUME_MAX);
    let mut turn = 0;
    loop {
        connector.pace.allows().await;
        let late =
            || Miss::Failed(Failure::new(Code::GatewayTimeout, format_args!("{}: no answer in time", connector.endpoint)));
        let attempt = tokio::time::timeout(RESUME_DEADLINE, attempt(connector, lane, turn)).await;
        let failure = match attempt.unwrap_or_else(|_| Err(late())) {
            Ok(resumed) => {
                shown.resumed();
                return Ok(resumed);
            }
            Err(Miss::Refused(failure)) => return Err(failure),
            Err(Miss::Elsewhere(failure)) => {
                elsewhere.cancel();
                failure
            }
            Err(Miss::Failed(failure)) => failure,
        };
        let wait = backoff.draw();
        shown.waits(failure, wait);
        tokio::time::sleep(wait).await;
        shown.tries();
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
    let upgraded = connector.upgrade(secured, claim).await.map_err(|refused| missed(refused, connector.instance))?;
    let paused = lane.link().attach(generation, upgraded).map_err(Miss::Refused)?;
    Ok(Resumed { generation, grounds, at, paused })
}

/// What a refused upgrade means to a session that `holder` held.
fn missed(refused: Refused, holder: InstanceId) -> Miss {
    let Refused { failure, instance } = refused;
    match failure.code {
        // The gateway is the same process: it has noticed the break sooner, and does not wait any more.
        Code::NotHere if instance == Some(holder) => Miss::Refused(Failure { code: Code::ResumeExpired, ..failure }),
        Code::NotHere | Code::LaneRefused | Code::AgentDisabled | Code::Revoked | Code::CertificateRefused => {
            Miss::Refused(failure)
        }
        _ => Miss::Failed(failure),
    }
}

#[cfg(test)]
mod tests;
