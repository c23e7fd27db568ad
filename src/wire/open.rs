//! What a gateway asks when it opens a stream: a target by name, never an address. Refuses to know who may ask.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::codec::{Malformed, Wire};
use crate::base::id::{Name, RequestId, printable};

/// The longest caller name and trace context that travel.
const MAX_TEXT: usize = 256;

/// What is spoken on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// A client's bytes as they are. The agent reads them itself when the target is of kind `http` or `ldap`.
    Raw,
    /// HTTP/1.1, or HTTP/2 by prior knowledge, which its preface tells; for targets of kind `http`.
    Http,
    /// Searches, posted by HTTP/1.1; for targets of kind `ldap`.
    Search,
    /// Nothing: the agent itself sends back what comes, [`ECHO`] bytes at most, and reaches no target. For the gateway's canary.
    Echo,
}

/// The capability of an agent that answers [`Spoken::Echo`].
pub const CAPABILITY_ECHO: &str = "echo";

/// Bytes that an echo sends back at most.
pub const ECHO: usize = 64;

impl Spoken {
    fn number(self) -> u32 {
        match self {
            Self::Raw => 1,
            Self::Http => 2,
            Self::Search => 4,
            Self::Echo => 8,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Self::Raw, Self::Http, Self::Search, Self::Echo].into_iter().find(|spoken| spoken.number() == number)
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw",
            Self::Http => "http",
            Self::Search => "search",
            Self::Echo => "echo",
        })
    }
}

/// The first message on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The client ask that this stream serves.
    pub request: RequestId,
    /// The target's name in the agent's configuration.
    pub target: Name,
    /// What will be spoken on the stream; the agent refuses what its target is not for.
    pub spoken: Spoken,
    /// Who asks, as the gateway knows them; printable.
    pub caller: String,
    /// The client's address, for the audit and the PROXY protocol.
    pub source: Option<SocketAddr>,
    /// How long the gateway still waits for the reply.
    pub deadline: Duration,
    /// W3C `traceparent`, passed on unread.
    pub trace: Option<String>,
}

/// `message Open { bytes request = 1; string target = 2; uint32 spoken = 3; string caller = 4; string source = 5;
/// uint32 deadline_ms = 6; string traceparent = 7; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenProto {
    #[prost(bytes = "vec", tag = "1")]
    request: Vec<u8>,
    #[prost(string, tag = "2")]
    target: String,
    #[prost(uint32, tag = "3")]
    spoken: u32,
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
            spoken: self.spoken.number(),
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
            spoken: Spoken::from_number(proto.spoken)
                .ok_or_else(|| Malformed::new(format!("nothing is known of how {} is spoken", proto.spoken)))?,
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
