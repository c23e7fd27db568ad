//! The test vectors of the specification, both ways: what we say is what is written there, and what is written there is what
//! we understand. Refuses to know how the messages are used.

use std::fmt::Debug;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::BytesMut;

use super::codec::{self, Wire};
use super::heartbeat::Heartbeat;
use super::hello::{Hello, Kind, Offer, Welcome};
use super::notice::{Control, Notice};
use super::open::{Open, Spoken};
use super::refusal::Refusal;
use super::reply::Reply;
use super::resume::{Claim, PROOF, Resume};
use super::token::{ClientToken, EnrollmentToken};
use crate::base::code::Code;
use crate::base::id::{InstanceId, Name, RequestId, SessionId};
use crate::base::secret::Secret;

/// The value behind `NAME: ` in the page.
fn vector(name: &str) -> &'static str {
    let page = include_str!("vectors.md");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no vector `{name}`"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Sixteen bytes that count up from the one given.
fn id(first: u8) -> [u8; 16] {
    std::array::from_fn(|index| first + u8::try_from(index).unwrap())
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn holds<M: Wire + Debug>(label: &str, message: &M) {
    let mut bytes = BytesMut::new();
    codec::encode(message, &mut bytes);
    assert_eq!(hex(&bytes), vector(label), "{label}: what we send");
    let mut bytes = BytesMut::from(unhex(vector(label)).as_slice());
    let read: M = codec::decode(&mut bytes).unwrap().unwrap();
    assert_eq!(format!("{read:?}"), format!("{message:?}"), "{label}: what we read");
    assert!(bytes.is_empty(), "{label}: nothing is left");
}

#[test]
fn the_greeting_is_as_specified() {
    let hello = Hello {
        versions: 1..=1,
        agent_version: "0.1.0".to_owned(),
        instance: InstanceId::from_bytes(&id(0)).unwrap(),
        targets: vec![Offer { name: name("sales-db"), kind: Kind::Tcp }, Offer { name: name("crm"), kind: Kind::Http }],
        capacity: 1024,
        capabilities: vec!["resume".to_owned()],
    };
    holds("hello", &Control::Hello(hello));
    let welcome = Welcome {
        version: 1,
        gateway: InstanceId::from_bytes(&id(0x10)).unwrap(),
        session: SessionId::from_bytes(&id(0x20)).unwrap(),
        resume_secret: Some(Secret::new("c2VjcmV0")),
        resume_window: Duration::from_secs(60),
        direct_address: Some("gw1.vendor.example:443".parse().unwrap()),
        max_streams: 1024,
        max_lanes: 4,
    };
    holds("welcome", &Control::Welcome(welcome.clone()));
    let bare = Welcome { resume_secret: None, resume_window: Duration::ZERO, direct_address: None, max_lanes: 1, ..welcome };
    holds("welcome without resumption", &Control::Welcome(bare));
    let refusal = Refusal::new(Code::ProtocolUnsupported, "this side speaks 1 to 1, the other 2 to 3");
    holds("refused", &Control::Refused(refusal));
}

#[test]
fn the_notices_are_as_specified() {
    let notices = [
        ("drain", Notice::Drain { deadline: Duration::from_secs(30) }),
        ("renew", Notice::Renew),
        ("lanes", Notice::Lanes { count: 4 }),
        ("stream_closed", Notice::StreamClosed { lane: 0, stream: 2, code: Code::TargetReset }),
        (
            "targets_changed",
            Notice::TargetsChanged {
                added: vec![Offer { name: name("orders"), kind: Kind::Tcp }],
                removed: vec![name("sales-db")],
            },
        ),
        ("revoked", Notice::Revoked),
    ];
    for (label, notice) in notices {
        holds(label, &Control::Notice(notice));
    }
}

#[test]
fn a_stream_begins_as_specified() {
    let open = Open {
        request: RequestId::from_bytes(&id(0x30)).unwrap(),
        target: name("sales-db"),
        spoken: Spoken::Raw,
        caller: "listener 127.0.0.1:5432".to_owned(),
        source: Some("192.0.2.1:1000".parse().unwrap()),
        deadline: Duration::from_secs(15),
        trace: None,
    };
    holds("open", &open);
    let target = name("echo");
    let (caller, deadline) = ("gw1".to_owned(), Duration::from_secs(5));
    holds("open of an echo", &Open { target, spoken: Spoken::Echo, caller, source: None, deadline, ..open });
    holds("accepted", &Reply::Accepted);
    holds("reply refused", &Reply::Refused(Refusal::new(Code::TargetRefused, "nothing listens")));
}

#[test]
fn what_a_newer_peer_adds_is_passed_over() {
    let read = |label: &str| {
        let mut bytes = BytesMut::from(unhex(vector(label)).as_slice());
        codec::decode::<Control>(&mut bytes).unwrap().unwrap()
    };
    assert!(matches!(read("control of an unknown body"), Control::Unknown));
    let Control::Notice(notice) = read("drain with an unknown field") else { panic!("a notice") };
    assert_eq!(notice, Notice::Drain { deadline: Duration::from_secs(30) });
    let Control::Notice(notice) = read("stream_closed with an unknown code") else { panic!("a notice") };
    assert_eq!(notice, Notice::StreamClosed { lane: 0, stream: 2, code: Code::Internal });
}

#[test]
fn the_heartbeat_is_as_specified() {
    let beat = Heartbeat { kind: Heartbeat::PING, sequence: 2, received: 0x0102_0304_0506_0708 };
    assert_eq!(hex(&beat.to_bytes()), vector("heartbeat"));
    assert_eq!(Heartbeat::from_bytes(&unhex(vector("heartbeat"))), Some(beat));
    assert_eq!(Heartbeat::from_bytes(&[1; 16]), None, "a byte short");
    assert_eq!(Heartbeat::from_bytes(&[1; 18]), None, "a byte long");
}

#[test]
fn the_resume_header_is_as_specified() {
    let session = SessionId::from_bytes(&id(0x20)).unwrap();
    let resume = Resume { claim: Claim { session, lane: 1, generation: 2, received: 4096 }, proof: [7; PROOF] };
    assert_eq!(resume.to_string(), vector("underpass-resume"));
    assert_eq!(vector("underpass-resume").parse(), Ok(resume));
    let (secret, exporter) = (Secret::new("c2VjcmV0"), [9; 32]);
    let proved = Claim::new_lane(session, 1).prove(&secret, &exporter);
    assert_eq!(proved.to_string(), vector("underpass-resume of a new lane"));
    assert!(proved.is_proved(&secret, &exporter));
}

#[test]
fn the_token_is_as_specified() {
    let token = EnrollmentToken::parse(vector("token")).unwrap();
    assert_eq!(token.endpoints, ["wss://gw1.example:443".parse().unwrap(), "wss://[fd00::1]:8443".parse().unwrap()]);
    assert_eq!((token.pin, *token.secret.expose()), ([7; 32], [0xa5; 32]));
    assert_eq!((token.expires.unix_timestamp(), token.group.to_string()), (1_800_000_000, "acme/dc1".to_owned()));
    assert_eq!(token.encode().expose(), vector("token"));
    assert_eq!(token.secret.encode().expose(), vector("secret in the enrollment request"));
}

#[test]
fn the_client_token_is_as_specified() {
    let token = ClientToken::parse(vector("client token")).unwrap();
    assert_eq!(token.endpoints, ["wss://gw1.example:443".parse().unwrap(), "wss://[fd00::1]:8443".parse().unwrap()]);
    assert_eq!((token.pin, *token.secret.expose()), ([7; 32], [0xa5; 32]));
    assert_eq!(token.encode().expose(), vector("client token"));
    let kept = digest::digest(&digest::SHA256, token.encode().expose().as_bytes());
    assert_eq!(hex(kept.as_ref()), vector("client token, as the gateway keeps it"));
}
