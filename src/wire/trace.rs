//! W3C trace context: whether a `traceparent` is one, and a new one. Refuses to know headers and who traces.

use uuid::Uuid;

use crate::base::id::RequestId;
use crate::base::random;

/// Whether a text is a `traceparent` of version 00, the only one there is (W3C Trace Context, 3.2).
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &str, len| hex(part, len) && part.bytes().any(|b| b != b'0');
    let mut parts = text.split('-');
    let parts = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
    matches!(parts, [Some("00"), Some(trace), Some(parent), Some(flags), None] if id(trace, 32) && id(parent, 16) && hex(flags, 2))
}

/// A new trace for a request, by whose id it is found again; not sampled: whether it is recorded is for others to say.
#[must_use]
pub fn traceparent(request: RequestId) -> String {
    // Of its other half, which is random and never 0.
    let (mut trace, mut parent) = ([0; 32], [0; 32]);
    let trace = Uuid::from_bytes(*request.as_bytes()).simple().encode_lower(&mut trace);
    let parent = &random::uuid().simple().encode_lower(&mut parent)[16..];
    ["00-", trace, "-", parent, "-00"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_in_its_one_form() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b71692033311-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        let request = RequestId::fresh();
        let (one, other) = (traceparent(request), traceparent(request));
        assert!(is_traceparent(&one) && one != other && one[..36] == other[..36], "{one} {other}");
    }
}
