//! What travels on the control stream: the greeting, then notices in either direction. Refuses to act on any of it.

use std::time::Duration;

use super::codec::{Malformed, Wire};
use super::hello::{
    Hello, HelloProto, Offer, TargetProto, Welcome, WelcomeProto, offers_from_proto, offers_to_proto, parse_name,
};
use super::refusal::{Refusal, RefusedProto};
use crate::base::code::Code;
use crate::base::id::Name;

/// One message of the control stream.
#[derive(Clone, Debug)]
pub enum Control {
    /// The agent's greeting.
    Hello(Hello),
    /// The gateway takes the session.
    Welcome(Welcome),
    /// The gateway does not.
    Refused(Refusal),
    /// Anything after the greeting.
    Notice(Notice),
    /// A message of a newer version: ignored.
    Unknown,
}

/// One side tells the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The agent takes no new streams; the gateway wants another session in the place of this one.
    Drain {
        /// Until open streams are cut.
        deadline: Duration,
    },
    /// The agent should renew its certificate.
    Renew,
    /// The agent should dial lanes until it has this many.
    Lanes {
        /// Including lane 0.
        count: u32,
    },
    /// Why a stream was reset.
    StreamClosed {
        /// The lane it lived on.
        lane: u32,
        /// Its yamux id.
        stream: u32,
        /// Why.
        code: Code,
    },
    /// The agent offers other targets than before.
    TargetsChanged {
        /// Also when only the kind changed.
        added: Vec<Offer>,
        /// No longer offered.
        removed: Vec<Name>,
    },
    /// The session is over because its certificate was revoked.
    Revoked,
}

/// `message Control { oneof body { Hello hello = 1; Welcome welcome = 2; Refused refused = 3; Drain drain = 16; Renew renew = 17;
/// Lanes lanes = 18; StreamClosed stream_closed = 19; TargetsChanged targets_changed = 20; Revoked revoked = 21; } }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct ControlProto {
    #[prost(oneof = "Body", tags = "1, 2, 3, 16, 17, 18, 19, 20, 21")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "1")]
    Hello(HelloProto),
    #[prost(message, tag = "2")]
    Welcome(WelcomeProto),
    #[prost(message, tag = "3")]
    Refused(RefusedProto),
    #[prost(message, tag = "16")]
    Drain(DrainProto),
    #[prost(message, tag = "17")]
    Renew(Empty),
    #[prost(message, tag = "18")]
    Lanes(LanesProto),
    #[prost(message, tag = "19")]
    StreamClosed(StreamClosedProto),
    #[prost(message, tag = "20")]
    TargetsChanged(TargetsChangedProto),
    #[prost(message, tag = "21")]
    Revoked(Empty),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct DrainProto {
    #[prost(uint32, tag = "1")]
    deadline_ms: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LanesProto {
    #[prost(uint32, tag = "1")]
    count: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StreamClosedProto {
    #[prost(uint32, tag = "1")]
    lane: u32,
    #[prost(uint32, tag = "2")]
    stream: u32,
    #[prost(string, tag = "3")]
    code: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TargetsChangedProto {
    #[prost(message, repeated, tag = "1")]
    added: Vec<TargetProto>,
    #[prost(string, repeated, tag = "2")]
    removed: Vec<String>,
}

impl Wire for Control {
    type Proto = ControlProto;

    fn to_proto(&self) -> ControlProto {
        let body = match self {
            Self::Hello(hello) => Some(Body::Hello(hello.to_proto())),
            Self::Welcome(welcome) => Some(Body::Welcome(welcome.to_proto())),
            Self::Refused(refusal) => Some(Body::Refused(refusal.to_proto())),
            Self::Notice(notice) => Some(notice_to_proto(notice)),
            Self::Unknown => None,
        };
        ControlProto { body }
    }

    fn from_proto(proto: ControlProto) -> Result<Self, Malformed> {
        Ok(match proto.body {
            None => Self::Unknown,
            Some(Body::Hello(hello)) => Self::Hello(Hello::from_proto(hello)?),
            Some(Body::Welcome(welcome)) => Self::Welcome(Welcome::from_proto(welcome)?),
            Some(Body::Refused(refused)) => Self::Refused(Refusal::from_proto(refused)?),
            Some(notice) => Self::Notice(notice_from_proto(notice)?),
        })
    }
}

fn notice_to_proto(notice: &Notice) -> Body {
    match notice {
        Notice::Drain { deadline } => {
            Body::Drain(DrainProto { deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX) })
        }
        Notice::Renew => Body::Renew(Empty {}),
        Notice::Lanes { count } => Body::Lanes(LanesProto { count: *count }),
        Notice::StreamClosed { lane, stream, code } => {
            Body::StreamClosed(StreamClosedProto { lane: *lane, stream: *stream, code: code.as_str().to_owned() })
        }
        Notice::TargetsChanged { added, removed } => Body::TargetsChanged(TargetsChangedProto {
            added: offers_to_proto(added),
            removed: removed.iter().map(ToString::to_string).collect(),
        }),
        Notice::Revoked => Body::Revoked(Empty {}),
    }
}

fn notice_from_proto(body: Body) -> Result<Notice, Malformed> {
    Ok(match body {
        Body::Hello(_) | Body::Welcome(_) | Body::Refused(_) => return Err(Malformed::new("a greeting is no notice")),
        Body::Drain(drain) => Notice::Drain { deadline: Duration::from_millis(drain.deadline_ms.into()) },
        Body::Renew(Empty {}) => Notice::Renew,
        Body::Lanes(lanes) => Notice::Lanes { count: lanes.count },
        Body::StreamClosed(closed) => Notice::StreamClosed {
            lane: closed.lane,
            stream: closed.stream,
            code: closed.code.parse().unwrap_or(Code::Internal),
        },
        Body::TargetsChanged(changed) => Notice::TargetsChanged {
            added: offers_from_proto(changed.added)?,
            removed: changed.removed.iter().map(|name| parse_name(name)).collect::<Result<_, _>>()?,
        },
        Body::Revoked(Empty {}) => Notice::Revoked,
    })
}
