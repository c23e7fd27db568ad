//! Turns the TLS library's errors into ours: what happened, with which certificate, and whose clock said so. Refuses to decide
//! anything: the handshake has failed already.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::base::code::{Code, Failure};
use crate::base::endpoint::HostPort;
use crate::base::id::printable;

/// Says why a connection that was dialled did not come to be, or ended on its first read: the dialer's view.
#[must_use]
pub fn explain(error: &io::Error, dialled: &HostPort) -> Failure {
    let failure = match tls_error(error) {
        Some(Error::InvalidCertificate(reason)) => of_servers_certificate(reason),
        Some(Error::AlertReceived(alert)) => of_received_alert(*alert),
        Some(error) if is_plaintext(error) => Failure::new(Code::TlsPlaintext, "what answered is not TLS"),
        Some(Error::PeerIncompatible(why)) => incompatible(why),
        Some(Error::NoApplicationProtocol) => Failure::new(Code::TlsFailed, "the other side does not know our protocol"),
        Some(error) => Failure::new(Code::TlsFailed, error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::new(Code::TlsFailed, "the connection was closed during the handshake, as firewalls do that filter by name")
        }
        None => Failure::new(Code::TlsFailed, error),
    };
    failure.context(dialled)
}

/// As [`explain`], with the first bytes that were read from the connection: they tell what answers instead of TLS.
#[must_use]
pub fn explain_plaintext(error: &io::Error, first: &[u8], dialled: &HostPort) -> Failure {
    let failure = explain(error, dialled);
    if failure.code != Code::TlsPlaintext || first.is_empty() {
        return failure;
    }
    let line = first.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let line = printable(&String::from_utf8_lossy(line), 64);
    let what = if first.starts_with(b"HTTP/") { "HTTP" } else { "something else" };
    Failure::new(Code::TlsPlaintext, format_args!("{dialled}: {what} answered instead of TLS: `{line}`"))
}

/// Says why a connection that was accepted was refused: the gateway's view, for its log and audit.
#[must_use]
pub fn refusal_of(error: &io::Error) -> Failure {
    match tls_error(error) {
        Some(Error::InvalidCertificate(reason)) => of_clients_certificate(reason),
        Some(Error::NoCertificatesPresented) => Failure::new(Code::CertificateRefused, "no client certificate was shown"),
        Some(Error::AlertReceived(alert)) => Failure::new(Code::TlsFailed, format_args!("the client refused: {alert:?}")),
        Some(error) if is_plaintext(error) => Failure::new(Code::TlsPlaintext, "the client does not speak TLS"),
        Some(Error::PeerIncompatible(why)) => incompatible(why),
        Some(error) => Failure::new(Code::TlsFailed, error),
        None => Failure::new(Code::TlsFailed, error),
    }
}

pub(super) fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The reason that our own verifiers put into the error.
fn carried(reason: &CertificateError) -> Option<Failure> {
    match reason {
        CertificateError::Other(other) => other.0.downcast_ref::<Failure>().cloned(),
        _ => None,
    }
}

/// The certificate comes from our root (the verifier has called it `tls_intercepted` otherwise), and yet is not good.
fn of_servers_certificate(reason: &CertificateError) -> Failure {
    if let Some(failure) = carried(reason).or_else(|| outside_validity("the gateway's", reason)) {
        return failure;
    }
    match reason {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Failure::new(Code::GatewayName, reason)
        }
        _ => Failure::new(Code::GatewayIdentity, reason),
    }
}

fn of_clients_certificate(reason: &CertificateError) -> Failure {
    carried(reason)
        .or_else(|| outside_validity("the client's", reason))
        .unwrap_or_else(|| Failure::new(Code::CertificateRefused, reason))
}

pub(super) fn outside_validity(whose: &str, reason: &CertificateError) -> Option<Failure> {
    let (bound, at, time) = match reason {
        CertificateError::ExpiredContext { time, not_after } => ("ended", *not_after, *time),
        CertificateError::NotValidYetContext { time, not_before } => ("begins", *not_before, *time),
        CertificateError::Expired | CertificateError::NotValidYet => {
            return Some(Failure::new(Code::CertificateExpired, format_args!("{whose} certificate: {reason}")));
        }
        _ => return None,
    };
    let detail = format_args!("{whose} certificate's validity {bound} {}; this host's clock says {}", utc(at), utc(time));
    Some(Failure::new(Code::CertificateExpired, detail))
}

/// The gateway's verdict on our certificate. It says no more than the alert: its log has the reason.
fn of_received_alert(alert: AlertDescription) -> Failure {
    use AlertDescription as Alert;
    let refused = |why: &str| Failure::new(Code::CertificateRefused, format_args!("the gateway answered {alert:?}: {why}"));
    match alert {
        Alert::CertificateExpired => {
            let now = utc(UnixTime::now());
            let why = format_args!(
                "the gateway says that this agent's certificate is outside its validity; this host's clock says {now}"
            );
            Failure::new(Code::CertificateExpired, why)
        }
        Alert::CertificateUnknown => refused("revoked, or no agent of its trust domain"),
        Alert::CertificateRevoked => refused("revoked"),
        Alert::UnknownCA | Alert::DecryptError => refused("this agent's certificate is of another PKI"),
        Alert::CertificateRequired | Alert::NoCertificate => refused("it wants a client certificate"),
        Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::AccessDenied => refused("not one it takes"),
        Alert::NoApplicationProtocol => Failure::new(Code::TlsFailed, "the other side does not know our protocol"),
        Alert::ProtocolVersion => Failure::new(Code::TlsFailed, "the other side does not speak TLS 1.3"),
        Alert::UnrecognisedName => Failure::new(Code::TlsFailed, "the other side does not know the name that was dialled"),
        _ => Failure::new(Code::TlsFailed, format_args!("the other side answered {alert:?}")),
    }
}

fn incompatible(why: &PeerIncompatible) -> Failure {
    Failure::new(Code::TlsFailed, format_args!("the other side's TLS does not fit ours (1.3 only): {why:?}"))
}

/// What does not begin like a TLS record.
pub(super) fn is_plaintext(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion | InvalidMessage::MessageTooLarge
        )
    )
}

fn utc(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "a time beyond the calendar".to_owned())
}
