//! The `Underpass-Resume` header of an upgrade: a further lane of a session, or a broken one taken up again.
//! Refuses to know sessions and to check the proof.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::codec::Malformed;
use crate::base::id::SessionId;

/// The header's name.
pub const HEADER: &str = "underpass-resume";

/// Bytes of the proof: HMAC-SHA-256 under the session's resume secret over the TLS exporter and the other fields.
pub const PROOF: usize = 32;

/// `session, lane, generation, received, proof`: a UUID, three decimal numbers and base64url, with a comma and a space between.
#[derive(Clone, PartialEq, Eq)]
pub struct Resume {
    /// The session to join.
    pub session: SessionId,
    /// Which of its lanes.
    pub lane: u32,
    /// 0 for a new lane, then one more on every attempt.
    pub generation: u64,
    /// yamux bytes the agent has received on the lane.
    pub received: u64,
    /// The right to do so.
    pub proof: [u8; PROOF],
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} lane {} generation {} received {}", self.session, self.lane, self.generation, self.received)
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = URL_SAFE_NO_PAD.encode(self.proof);
        write!(f, "{}, {}, {}, {}, {proof}", self.session, self.lane, self.generation, self.received)
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
        Ok(Self {
            session: SessionId::from_bytes(session.as_bytes()).ok_or_else(malformed)?,
            lane: lane.parse().map_err(|_| malformed())?,
            generation: generation.parse().map_err(|_| malformed())?,
            received: received.parse().map_err(|_| malformed())?,
            proof,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_round_trips_and_anything_else_is_refused() {
        let resume = Resume { session: SessionId::fresh(), lane: 1, generation: 2, received: u64::MAX, proof: [7; PROOF] };
        assert_eq!(resume.to_string().parse(), Ok(resume.clone()));
        assert!(!format!("{resume:?}").contains("Bwc"), "the proof is not for logs");
        for text in ["", "a, b, c, d, e", &resume.to_string()[1..], &format!("{resume}, x"), &format!("{resume}AA")] {
            assert!(text.parse::<Resume>().is_err(), "{text}");
        }
    }
}
