//! The agent's answer to an [`Open`](super::open::Open). Refuses to know what comes after it.

use super::codec::{Malformed, Wire};
use super::refusal::{Refusal, RefusedProto};

/// The first message back on a stream; bytes follow it only if it is [`Reply::Accepted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The target is connected.
    Accepted,
    /// It is not, and no byte reached it.
    Refused(Refusal),
}

/// `message Reply { oneof answer { Accepted accepted = 1; Refused refused = 2; } }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReplyProto {
    #[prost(oneof = "Answer", tags = "1, 2")]
    answer: Option<Answer>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Answer {
    #[prost(message, tag = "1")]
    Accepted(AcceptedProto),
    #[prost(message, tag = "2")]
    Refused(RefusedProto),
}

#[derive(Clone, PartialEq, prost::Message)]
struct AcceptedProto {}

impl Wire for Reply {
    type Proto = ReplyProto;

    fn to_proto(&self) -> ReplyProto {
        let answer = match self {
            Self::Accepted => Answer::Accepted(AcceptedProto {}),
            Self::Refused(refusal) => Answer::Refused(refusal.to_proto()),
        };
        ReplyProto { answer: Some(answer) }
    }

    fn from_proto(proto: ReplyProto) -> Result<Self, Malformed> {
        match proto.answer {
            Some(Answer::Accepted(AcceptedProto {})) => Ok(Self::Accepted),
            Some(Answer::Refused(refused)) => Ok(Self::Refused(Refusal::from_proto(refused)?)),
            None => Err(Malformed::new("a reply without an answer")),
        }
    }
}
