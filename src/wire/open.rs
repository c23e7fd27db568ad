//! What a gateway asks when it opens a stream: a target by name, never an address. Refuses to know who may ask.

use std::net::SocketAddr;
use std::time::Duration;

use super::codec::{Malformed, Wire};
use super::hello::Kind;
use crate::base::id::{Name, RequestId, printable};

/// The longest caller name and trace context that travel.
const MAX_TEXT: usize = 256;

/// The first message on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The client ask that this stream serves.
    pub request: RequestId,
    /// The target's name in the agent's configuration.
    pub target: Name,
    /// What the gateway will speak; the agent refuses a target of another kind.
    pub kind: Kind,
    /// Who asks, as the gateway knows them; printable.
    pub caller: String,
    /// The client's address, for the audit and the PROXY protocol.
    pub source: Option<SocketAddr>,
    /// How long the gateway still waits for the reply.
    pub deadline: Duration,
    /// W3C `traceparent`, passed on unread.
    pub trace: Option<String>,
}

/// `message Open { bytes request = 1; string target = 2; uint32 kind = 3; string caller = 4; string source = 5;
/// uint32 deadline_ms = 6; string traceparent = 7; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenProto {
    #[prost(bytes = "vec", tag = "1")]
    request: Vec<u8>,
    #[prost(string, tag = "2")]
    target: String,
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(string, tag = "4")]
    caller: String,
    #[prost(string, tag = "5")]
    source: String,
    #[prost(uint32, tag = "6")]
    deadline_ms: u32,
    #[prost(string, tag = "7")]
    traceparent: String,
}

impl Wire for Open {
    type Proto = OpenProto;

    fn to_proto(&self) -> OpenProto {
        OpenProto {
            request: self.request.as_bytes().to_vec(),
            target: self.target.as_str().to_owned(),
            kind: self.kind.number(),
            caller: self.caller.clone(),
            source: self.source.map(|source| source.to_string()).unwrap_or_default(),
            deadline_ms: u32::try_from(self.deadline.as_millis()).unwrap_or(u32::MAX),
            traceparent: self.trace.clone().unwrap_or_default(),
        }
    }

    fn from_proto(proto: OpenProto) -> Result<Self, Malformed> {
        Ok(Self {
            request: RequestId::from_bytes(&proto.request).ok_or_else(|| Malformed::new("a request id is 16 bytes"))?,
            target: Name::parse(&proto.target).map_err(|error| Malformed(error.to_string()))?,
            kind: Kind::from_number(proto.kind).ok_or_else(|| Malformed::new(format!("unknown kind {}", proto.kind)))?,
            caller: printable(&proto.caller, MAX_TEXT),
            source: match proto.source.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|_| Malformed::new("the source is no address"))?),
            },
            deadline: Duration::from_millis(proto.deadline_ms.into()),
            trace: match proto.traceparent.as_str() {
                "" => None,
                text => Some(printable(text, MAX_TEXT)),
            },
        })
    }
}
