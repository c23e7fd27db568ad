//! The `Underpass-Resume` header of an upgrade: a further lane of a session, or a broken one taken up again; and the proof in
//! it. Refuses to know sessions, connections, and who may join what.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::codec::Malformed;
use crate::base::id::SessionId;
use crate::base::secret::Secret;

/// The header's name.
pub const HEADER: &str = "underpass-resume";

/// The header of the gateway's answer when it takes up a broken lane: the bytes of yamux that it has received on it, in decimal.
pub const RECEIVED_HEADER: &str = "underpass-received";

/// The header of a `not_here`: the gateway instance that says it, in the form of a UUID.
pub const INSTANCE_HEADER: &str = "underpass-instance";

/// Bytes of the proof: HMAC-SHA-256 under the session's resume secret over the TLS exporter and the other fields.
pub const PROOF: usize = 32;

/// The TLS exporter's label (RFC 8446, 7.5), of the kind that is for private use (RFC 5705, 4); its context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-underpass-lane";

/// The exporter of the very TLS connection on which the header is sent: what it proves counts on no other.
pub type Exporter = [u8; 32];

/// Which lane is meant, and how far it has got: what the proof is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The session to join.
    pub session: SessionId,
    /// Which of its lanes.
    pub lane: u32,
    /// 0 for a new lane, then one more on every attempt.
    pub generation: u64,
    /// yamux bytes the agent has received on the lane.
    pub received: u64,
}

/// `session, lane, generation, received, proof`: a UUID, three decimal numbers and base64url, with a comma and a space between.
#[derive(Clone, PartialEq, Eq)]
pub struct Resume {
    /// What is claimed.
    pub claim: Claim,
    /// The right to do so.
    pub proof: [u8; PROOF],
}

impl Claim {
    /// A further lane, which has not carried anything yet.
    #[must_use]
    pub fn new_lane(session: SessionId, lane: u32) -> Self {
        Self { session, lane, generation: 0, received: 0 }
    }

    /// The header that makes this claim on the connection with this exporter.
    #[must_use]
    pub fn prove(self, secret: &Secret, exporter: &Exporter) -> Resume {
        let tag = hmac::sign(&key(secret), &self.proved(exporter));
        let mut proof = [0; PROOF];
        proof.copy_from_slice(tag.as_ref());
        Resume { claim: self, proof }
    }

    /// What is signed: exporter, session, lane, generation, received; numbers big-endian.
    fn proved(&self, exporter: &Exporter) -> Vec<u8> {
        let mut bytes = exporter.to_vec();
        bytes.extend(self.session.as_bytes());
        bytes.extend(self.lane.to_be_bytes());
        bytes.extend(self.generation.to_be_bytes());
        bytes.extend(self.received.to_be_bytes());
        bytes
    }
}

impl Resume {
    /// Whether whoever sent it on the connection with this exporter knows the session's secret. Takes the same time either way.
    #[must_use]
    pub fn is_proved(&self, secret: &Secret, exporter: &Exporter) -> bool {
        hmac::verify(&key(secret), &self.claim.proved(exporter), &self.proof).is_ok()
    }
}

/// The secret's text as it stands in `Welcome`.
fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim { session, lane, generation, received } = self.claim;
        write!(f, "session {session} lane {lane} generation {generation} received {received}")
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim { session, lane, generation, received } = self.claim;
        write!(f, "{session}, {lane}, {generation}, {received}, {}", URL_SAFE_NO_PAD.encode(self.proof))
    }
}

impl FromStr for Resume {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("the resume header is not `session, lane, generation, received, proof`");
        let fields: Vec<_> = text.split(", ").collect();
        let [session, lane, generation, received, proof] = fields[..] else { return Err(malformed()) };
        let session = session.parse::<Uuid>().map_err(|_| malformed())?;
        let proof = URL_SAFE_NO_PAD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or_else(malformed)?;
        let claim = Claim {
            session: SessionId::from_bytes(session.as_bytes()).ok_or_else(malformed)?,
            lane: lane.parse().map_err(|_| malformed())?,
            generation: generation.parse().map_err(|_| malformed())?,
            received: received.parse().map_err(|_| malformed())?,
        };
        Ok(Self { claim, proof })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_round_trips_and_anything_else_is_refused() {
        let claim = Claim { session: SessionId::fresh(), lane: 1, generation: 2, received: u64::MAX };
        let resume = Resume { claim, proof: [7; PROOF] };
        assert_eq!(resume.to_string().parse(), Ok(resume.clone()));
        assert!(!format!("{resume:?}").contains("Bwc"), "the proof is not for logs");
        for text in ["", "a, b, c, d, e", &resume.to_string()[1..], &format!("{resume}, x"), &format!("{resume}AA")] {
            assert!(text.parse::<Resume>().is_err(), "{text}");
        }
    }

    #[test]
    fn s1_a_proof_counts_for_its_claim_on_its_connection_under_its_secret_alone() {
        let (secret, exporter) = (Secret::new("c2VjcmV0"), [9; 32]);
        let claim = Claim::new_lane(SessionId::fresh(), 1);
        let good = claim.prove(&secret, &exporter);
        assert!(good.is_proved(&secret, &exporter));
        assert!(!good.is_proved(&Secret::new("c2VjcmV1"), &exporter), "another session's secret");
        assert!(!good.is_proved(&secret, &[8; 32]), "replayed on another connection");
        for claim in [
            Claim { session: SessionId::fresh(), ..claim },
            Claim { lane: 2, ..claim },
            Claim { generation: 1, ..claim },
            Claim { received: 1, ..claim },
        ] {
            assert!(!Resume { claim, ..good.clone() }.is_proved(&secret, &exporter), "{claim:?}");
        }
        let mut bent = good.clone();
        bent.proof[31] ^= 1;
        assert!(!bent.is_proved(&secret, &exporter));
    }
}
