//! Re-authorisation: what a session was granted on must still hold, looked at every minute, when a set is published, and when a lane is
//! resumed. Owns what its lanes have shown. Refuses to know how a session ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::Gateway;
use super::registry::Live;
use crate::base::code::{Code, Failure};
use crate::base::id::AgentId;
use crate::observe::audit::Event;
use crate::pki::identity::{Identity, Serial};

/// What counts of a certificate once it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its serial, by which it is revoked.
    pub serial: Serial,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

impl From<&Identity> for Certificate {
    fn from(identity: &Identity) -> Self {
        Self { serial: identity.serial, not_after: identity.not_after }
    }
}

/// The certificates that a session's lanes have shown, by lane: they may differ, since an agent renews its own.
#[derive(Debug)]
pub struct Certificates(Mutex<BTreeMap<u32, Certificate>>);

impl Certificates {
    /// Those of a session that has its first lane.
    #[must_use]
    pub fn of_first(certificate: Certificate) -> Self {
        Self(Mutex::new(BTreeMap::from([(0, certificate)])))
    }

    /// The lane has shown this one, at its beginning or when it was resumed.
    pub fn shown(&self, lane: u32, certificate: Certificate) {
        self.lock().insert(lane, certificate);
    }

    /// The lane is gone.
    pub fn forget(&self, lane: u32) {
        self.lock().remove(&lane);
    }

    /// The first lane's.
    #[must_use]
    pub fn first(&self) -> Certificate {
        self.lock().values().next().copied().expect("lane 0 has one as long as the session lives")
    }

    /// When the first of them ends.
    #[must_use]
    pub fn until(&self) -> OffsetDateTime {
        self.lock()
            .values()
            .map(|certificate| certificate.not_after)
            .min()
            .expect("lane 0 has one as long as the session lives")
    }

    /// The first of them of which this holds.
    fn find(&self, wanted: impl Fn(&Certificate) -> bool) -> Option<Certificate> {
        self.lock().values().copied().find(wanted)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Certificate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the session may go on; that it may is on record.
///
/// # Errors
/// As [`holds`]; the session is to end with it.
pub(super) fn reauthorise(gateway: &Gateway, live: &Live) -> Result<(), Failure> {
    holds(gateway, live)?;
    let (session, agent, serial, until) =
        (live.session, &live.agent, live.certificates().first().serial.to_string(), live.certificates().until());
    // A row that can't be kept refuses the streams, not the session.
    let _ = gateway.audit.record(&Event::Reauthorised { session, agent, serial: &serial, until, policy: None });
    Ok(())
}

/// Whether what control publishes, and the clock, still allow the session.
///
/// # Errors
/// `revoked`, `agent_disabled`, and `certificate_expired` once the streams have had the time of a drain.
pub(super) fn holds(gateway: &Gateway, live: &Live) -> Result<(), Failure> {
    let refused = |code, Certificate { serial, .. }: Certificate| Err(Failure::new(code, format_args!("certificate {serial}")));
    if let Some(certificate) = live.certificates().find(|certificate| gateway.revocations.contains(&certificate.serial)) {
        return refused(Code::Revoked, certificate);
    }
    if gateway.revocations.disables(&live.agent) {
        return Err(disabled(&live.agent));
    }
    let ended = OffsetDateTime::now_utc() - gateway.settings.drain_timeout;
    match live.certificates().find(|certificate| certificate.not_after < ended) {
        Some(certificate) => refused(Code::CertificateExpired, certificate),
        None => Ok(()),
    }
}

/// Why a disabled agent is not let in, or let go.
pub(super) fn disabled(agent: &AgentId) -> Failure {
    Failure::new(Code::AgentDisabled, agent)
}

#[cfg(test)]
mod tests;
