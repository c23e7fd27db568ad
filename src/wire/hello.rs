//! The greeting that makes a connection a session: versions, identities, what is offered. Refuses to decide who may connect.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::codec::{Malformed, Wire};
use super::refusal::Refusal;
use crate::base::code::Code;
use crate::base::endpoint::HostPort;
use crate::base::id::{InstanceId, Name, SessionId, printable};
use crate::base::secret::Secret;

/// The protocol versions that this build speaks.
pub const VERSIONS: RangeInclusive<u32> = 1..=1;

/// The capability of an agent that takes up broken lanes again.
pub const RESUME: &str = "resume";

/// Targets in one message; more follow as `targets changed` (each takes at most 40 of the message's 16 KiB).
pub const OFFERS_PER_MESSAGE: usize = 300;

/// What is spoken with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes as they are.
    Tcp,
    /// HTTP requests.
    Http,
    /// LDAP messages.
    Ldap,
}

impl Kind {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Tcp => 1,
            Self::Http => 2,
            Self::Ldap => 3,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        [Self::Tcp, Self::Http, Self::Ldap].into_iter().find(|kind| kind.number() == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Ldap => "ldap",
        })
    }
}

/// A target that an agent offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub name: Name,
    /// What is spoken with it.
    pub kind: Kind,
}

/// The agent's first message on the control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions it speaks.
    pub versions: RangeInclusive<u32>,
    /// Its program version, for people.
    pub agent_version: String,
    /// This run of its process.
    pub instance: InstanceId,
    /// The first [`OFFERS_PER_MESSAGE`] targets.
    pub targets: Vec<Offer>,
    /// Streams it carries at a time, on this session.
    pub capacity: u32,
    /// Optional abilities by name; unknown ones are ignored.
    pub capabilities: Vec<String>,
}

/// The gateway's answer.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// The version spoken from here on.
    pub version: u32,
    /// This run of the gateway's process.
    pub gateway: InstanceId,
    /// The session's id, in both sides' logs.
    pub session: SessionId,
    /// Proves the right to resume; empty when the gateway doesn't resume.
    pub resume_secret: Option<Secret>,
    /// How long a broken lane may be resumed; zero when never.
    pub resume_window: Duration,
    /// Where this instance can be dialled past any balancer; a hint.
    pub direct_address: Option<HostPort>,
    /// Streams the gateway will open at most.
    pub max_streams: u32,
    /// Lanes the gateway takes at most.
    pub max_lanes: u32,
}

/// The version that both speak.
///
/// # Errors
/// `protocol_unsupported`, naming both ranges.
pub fn negotiate(ours: &RangeInclusive<u32>, theirs: &RangeInclusive<u32>) -> Result<u32, Refusal> {
    let version = *ours.end().min(theirs.end());
    if ours.contains(&version) && theirs.contains(&version) {
        return Ok(version);
    }
    Err(Refusal::new(
        Code::ProtocolUnsupported,
        format_args!("this side speaks {} to {}, the other {} to {}", ours.start(), ours.end(), theirs.start(), theirs.end()),
    ))
}

/// `message Target { string name = 1; uint32 kind = 2; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct TargetProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    kind: u32,
}

pub(super) fn offers_to_proto(offers: &[Offer]) -> Vec<TargetProto> {
    offers.iter().map(|offer| TargetProto { name: offer.name.to_string(), kind: offer.kind.number() }).collect()
}

/// A target of a kind that only the peer knows is left out: it can't be asked for anyway.
pub(super) fn offers_from_proto(targets: Vec<TargetProto>) -> Result<Vec<Offer>, Malformed> {
    let known = targets.into_iter().filter_map(|target| Some((target.name, Kind::from_number(target.kind)?)));
    known.map(|(name, kind)| Ok(Offer { name: parse_name(&name)?, kind })).collect()
}

pub(super) fn parse_name(text: &str) -> Result<Name, Malformed> {
    Name::parse(text).map_err(|error| Malformed(error.to_string()))
}

/// `message Hello { uint32 version_min = 1; uint32 version_max = 2; string agent_version = 3; bytes instance = 4;
/// repeated Target targets = 5; uint32 capacity = 6; repeated string capabilities = 7; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloProto {
    #[prost(uint32, tag = "1")]
    version_min: u32,
    #[prost(uint32, tag = "2")]
    version_max: u32,
    #[prost(string, tag = "3")]
    agent_version: String,
    #[prost(bytes = "vec", tag = "4")]
    instance: Vec<u8>,
    #[prost(message, repeated, tag = "5")]
    targets: Vec<TargetProto>,
    #[prost(uint32, tag = "6")]
    capacity: u32,
    #[prost(string, repeated, tag = "7")]
    capabilities: Vec<String>,
}

impl Wire for Hello {
    type Proto = HelloProto;

    fn to_proto(&self) -> HelloProto {
        HelloProto {
            version_min: *self.versions.start(),
            version_max: *self.versions.end(),
            agent_version: self.agent_version.clone(),
            instance: self.instance.as_bytes().to_vec(),
            targets: offers_to_proto(&self.targets),
            capacity: self.capacity,
            capabilities: self.capabilities.clone(),
        }
    }

    fn from_proto(proto: HelloProto) -> Result<Self, Malformed> {
        Ok(Self {
            versions: proto.version_min..=proto.version_max,
            agent_version: printable(&proto.agent_version, 64),
            instance: InstanceId::from_bytes(&proto.instance).ok_or_else(|| Malformed::new("an instance id is 16 bytes"))?,
            targets: offers_from_proto(proto.targets)?,
            capacity: proto.capacity,
            capabilities: proto.capabilities.iter().map(|text| printable(text, 64)).collect(),
        })
    }
}

/// `message Welcome { uint32 version = 1; bytes gateway = 2; bytes session = 3; string resume_secret = 4;
/// uint32 resume_window_ms = 5; string direct_address = 6; uint32 max_streams = 7; uint32 max_lanes = 8; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct WelcomeProto {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    gateway: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    session: Vec<u8>,
    #[prost(string, tag = "4")]
    resume_secret: String,
    #[prost(uint32, tag = "5")]
    resume_window_ms: u32,
    #[prost(string, tag = "6")]
    direct_address: String,
    #[prost(uint32, tag = "7")]
    max_streams: u32,
    #[prost(uint32, tag = "8")]
    max_lanes: u32,
}

impl Wire for Welcome {
    type Proto = WelcomeProto;

    fn to_proto(&self) -> WelcomeProto {
        WelcomeProto {
            version: self.version,
            gateway: self.gateway.as_bytes().to_vec(),
            session: self.session.as_bytes().to_vec(),
            resume_secret: self.resume_secret.as_ref().map(|secret| secret.expose().to_owned()).unwrap_or_default(),
            resume_window_ms: u32::try_from(self.resume_window.as_millis()).unwrap_or(u32::MAX),
            direct_address: self.direct_address.as_ref().map(ToString::to_string).unwrap_or_default(),
            max_streams: self.max_streams,
            max_lanes: self.max_lanes,
        }
    }

    /// An unusable direct address is no address: it is a hint.
    fn from_proto(proto: WelcomeProto) -> Result<Self, Malformed> {
        Ok(Self {
            version: proto.version,
            gateway: InstanceId::from_bytes(&proto.gateway).ok_or_else(|| Malformed::new("an instance id is 16 bytes"))?,
            session: SessionId::from_bytes(&proto.session).ok_or_else(|| Malformed::new("a session id is 16 bytes"))?,
            resume_secret: Some(proto.resume_secret).filter(|secret| !secret.is_empty()).map(|secret| Secret::new(&secret)),
            resume_window: Duration::from_millis(proto.resume_window_ms.into()),
            direct_address: proto.direct_address.parse().ok(),
            max_streams: proto.max_streams,
            max_lanes: proto.max_lanes.max(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_spoken_and_none_is_a_named_refusal() {
        assert_eq!(negotiate(&(1..=3), &(2..=5)), Ok(3));
        assert_eq!(negotiate(&(1..=1), &(1..=9)), Ok(1));
        for theirs in [2..=5, 0..=0] {
            assert_eq!(negotiate(&(1..=1), &theirs).unwrap_err().code, Code::ProtocolUnsupported);
        }
        #[allow(clippy::reversed_empty_ranges, reason = "a hostile peer's range")]
        let reversed = 5..=1;
        assert!(negotiate(&(1..=9), &reversed).is_err());
    }
}
