//! Re-authorisation, the agent's end: what a session was begun on must still hold, looked at every minute, and when a lane is resumed.
//! Refuses to know how a session ends.

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::Agent;
use super::link::CredentialFiles;
use crate::base::code::{Code, Failure};
use crate::base::id::SessionId;
use crate::observe::audit::Event;
use crate::pki::identity::{Identity, Serial};
use crate::pki::pem;

/// What a session was begun or last resumed on.
#[derive(Clone, Debug)]
pub(crate) struct Grounds {
    /// Of the certificate that this end has shown.
    pub(crate) serial: Serial,
    /// When that ends.
    pub(crate) not_after: OffsetDateTime,
    /// When the gateway's ends.
    pub(crate) gateway_not_after: OffsetDateTime,
    /// The root that the gateway's was believed by.
    pub(crate) root: CertificateDer<'static>,
}

impl Grounds {
    /// Those of a connection on which this end has shown `own`, and the gateway `gateway`.
    ///
    /// # Errors
    /// What reading the root's file reports.
    pub(super) fn of(own: &Identity, gateway: &Identity, files: &CredentialFiles) -> Result<Self, Failure> {
        let root = pem::load_one(&files.root)?;
        Ok(Self { serial: own.serial, not_after: own.not_after, gateway_not_after: gateway.not_after, root })
    }

    /// When the first of both certificates ends.
    pub(super) fn until(&self) -> OffsetDateTime {
        self.not_after.min(self.gateway_not_after)
    }

    /// Whether the gateway's certificate has ended: a new session would show a new one.
    pub(super) fn is_outlived(&self) -> bool {
        self.gateway_not_after < OffsetDateTime::now_utc()
    }
}

/// Whether the session may go on; that it may is on record.
///
/// # Errors
/// As [`holds`]; the session is to end with it.
pub(super) fn reauthorise(agent: &Agent, session: SessionId, grounds: &Grounds) -> Result<(), Failure> {
    holds(agent, grounds)?;
    let (id, serial, until) = (&agent.settings.agent, grounds.serial.to_string(), grounds.until());
    let policy = Some(agent.policy().version());
    // A row that can't be kept refuses the streams, not the session.
    let _ = agent.audit.record(&Event::Reauthorised { session, agent: id, serial: &serial, until, policy });
    Ok(())
}

/// Whether the clock, and the root on the disk, still allow what was begun on these grounds.
///
/// # Errors
/// `certificate_expired` once the streams have had the time of a drain, and `trust_changed`.
pub(super) fn holds(agent: &Agent, grounds: &Grounds) -> Result<(), Failure> {
    let grace = OffsetDateTime::now_utc() - agent.settings.drain_timeout;
    if grounds.not_after < grace {
        return Err(Failure::new(Code::CertificateExpired, format_args!("certificate {}", grounds.serial)));
    }
    if grounds.gateway_not_after < grace {
        return Err(Failure::new(Code::CertificateExpired, "the certificate that the gateway has shown"));
    }
    match pem::load_one(&agent.settings.credential.root) {
        Ok(root) if root == grounds.root => {}
        Ok(_) => {
            let path = agent.settings.credential.root.display();
            return Err(Failure::new(Code::TrustChanged, format_args!("{path} holds another root")));
        }
        // A disk that can't be read says nothing of whom to trust.
        Err(failure) => tracing::error!(code = %failure.code, detail = failure.detail, "the root cannot be read again"),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
