//! The payload of a Close frame (RFC 6455, 5.5.1): status 1000 and, as its reason, the code that a session or one of its lanes ends with.
//! Refuses to know what such a code does to whoever reads it.

use crate::base::code::Code;

/// Normal closure (RFC 6455, 7.4.1): nobody broke a rule.
const NORMAL: u16 = 1000;

/// What a gateway may give as its reason. Whatever else it said would be about the agent's own end.
pub const OF_GATEWAYS: &[Code] =
    &[Code::Stopping, Code::Revoked, Code::AgentDisabled, Code::CertificateExpired, Code::ResumeExpired];

/// What an agent may: none that would have the gateway's audit tell of a decision that nobody at the gateway has taken.
pub const OF_AGENTS: &[Code] = &[Code::Stopping, Code::SameGateway, Code::TrustChanged, Code::CertificateExpired];

/// The payload; without a reason if the code is none of the sender's.
#[must_use]
pub fn payload(code: Code, of_sender: &[Code]) -> Vec<u8> {
    let reason = if of_sender.contains(&code) { code.as_str() } else { "" };
    [&NORMAL.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// The reason in a payload; `None` for everything else that a peer may have put there.
#[must_use]
pub fn reason(payload: &[u8], of_sender: &[Code]) -> Option<Code> {
    let reason = payload.strip_prefix(&NORMAL.to_be_bytes())?;
    of_sender.iter().copied().find(|code| code.as_str().as_bytes() == reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455, 5.5: a control frame has at most 125 bytes, of which two are the status.
    const MAX_REASON: usize = 123;

    #[test]
    fn each_reason_comes_back_and_fits_into_its_frame() {
        for of_sender in [OF_GATEWAYS, OF_AGENTS] {
            for code in of_sender {
                let payload = payload(*code, of_sender);
                assert_eq!(reason(&payload, of_sender), Some(*code));
                assert!(payload.len() <= 2 + MAX_REASON);
            }
        }
        assert_eq!(payload(Code::AgentDisabled, OF_GATEWAYS), b"\x03\xe8agent_disabled");
        assert_eq!(payload(Code::Internal, OF_GATEWAYS), [0x03, 0xe8], "none of a gateway's");
    }

    #[test]
    fn t1_what_is_no_reason_of_the_senders_is_none() {
        let long = [&b"\x03\xe8"[..], &[b'a'; MAX_REASON]].concat();
        for payload in [
            &b""[..],
            b"\x03",
            b"\x03\xe8",
            b"\x03\xe8no_such_code",
            b"\x03\xe8internal",
            b"\x03\xe8agent_disabled ",
            b"\x03\xe8\xff\xfe",
            b"\x03\xe9agent_disabled",
            b"agent_disabled",
            &long,
        ] {
            assert_eq!(reason(payload, OF_GATEWAYS), None, "{payload:?}");
        }
        assert_eq!(reason(b"\x03\xe8revoked", OF_AGENTS), None, "an agent can't say what only a gateway decides");
    }
}
