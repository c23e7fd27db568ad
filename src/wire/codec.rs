//! Messages to bytes and back: each is Protobuf behind its length as a varint. Refuses to know what the messages mean,
//! and where the bytes come from.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use crate::base::limits::MAX_CONTROL_MESSAGE;

/// A message with its Protobuf shape. The typed side holds only what passed [`Wire::from_proto`].
pub trait Wire: Sized {
    /// The Protobuf shape.
    type Proto: Message + Default;

    /// The shape to send.
    fn to_proto(&self) -> Self::Proto;

    /// Checks what came.
    ///
    /// # Errors
    /// [`Malformed`], naming the field.
    fn from_proto(proto: Self::Proto) -> Result<Self, Malformed>;
}

/// Bytes that are no message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Appends a message with its length.
pub fn encode<M: Wire>(message: &M, out: &mut BytesMut) {
    let proto = message.to_proto();
    out.reserve(proto.encoded_len() + 3);
    proto.encode_length_delimited(out).expect("a BytesMut grows");
}

/// Takes one message off the front of `buffer`, or nothing while it is incomplete. What follows it stays in `buffer`.
///
/// # Errors
/// [`Malformed`] for a length over [`MAX_CONTROL_MESSAGE`] and for content that is no such message.
pub fn decode<M: Wire>(buffer: &mut BytesMut) -> Result<Option<M>, Malformed> {
    let Some(body) = take_frame(buffer)? else { return Ok(None) };
    let proto = M::Proto::decode(body).map_err(|error| Malformed::new(format!("not a message: {error}")))?;
    M::from_proto(proto).map(Some)
}

/// Three bytes of varint reach 2 MiB, so a longer length is over the limit whatever follows.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let mut length = 0usize;
    for index in 0..3 {
        let Some(&byte) = buffer.get(index) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            if length > MAX_CONTROL_MESSAGE {
                break;
            }
            let header = index + 1;
            if buffer.len() < header + length {
                return Ok(None);
            }
            buffer.advance(header);
            return Ok(Some(buffer.split_to(length).freeze()));
        }
    }
    Err(Malformed::new(format!("a message of over {MAX_CONTROL_MESSAGE} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::refusal::Refusal;
    use crate::{base::code::Code, wire::reply::Reply};

    #[test]
    fn a_message_cut_anywhere_is_incomplete_and_what_follows_it_stays() {
        let message = Reply::Refused(Refusal::new(Code::TargetRefused, "10.0.0.1:5432"));
        let mut whole = BytesMut::new();
        encode(&message, &mut whole);
        for cut in 0..whole.len() {
            assert_eq!(decode::<Reply>(&mut BytesMut::from(&whole[..cut])), Ok(None));
        }
        whole.extend_from_slice(b"early");
        assert_eq!(decode(&mut whole), Ok(Some(message)));
        assert_eq!(&whole[..], b"early");
    }

    #[test]
    fn d2_a_length_over_the_limit_is_refused_before_anything_is_kept() {
        for bytes in [&[0xff, 0xff, 0xff][..], &[0x81, 0x80, 0x01], &[0xff, 0xff, 0x7f], &[0x80, 0x80, 0x80, 0x80]] {
            assert!(decode::<Reply>(&mut BytesMut::from(bytes)).is_err(), "{bytes:x?}");
        }
    }
}
