//! Tests: handshakes whole and in pieces, and what hostile ones get.

use proptest::prelude::*;

use super::*;

const TOKEN: &str = "t0ken";

fn login(token: &[u8]) -> Vec<u8> {
    [&[1, 3][..], b"any", &[u8::try_from(token.len()).unwrap()], token].concat()
}

fn request(host: &[u8]) -> Vec<u8> {
    [&[5, 1, 0, 3, u8::try_from(host.len()).unwrap()][..], host, &5432_u16.to_be_bytes()].concat()
}

const HOST: &[u8] = b"sales-db.dc1.acme.underpass";

/// What a client hears, and where it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Heard {
    said: Vec<u8>,
    target: Option<String>,
    failed: Option<Failure>,
    left: Vec<u8>,
}

/// A gateway that knows one token, told what comes in pieces.
fn hear<'a>(certified: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let (mut socks, mut bytes, mut heard) = (Socks5::new(certified), BytesMut::new(), Heard::default());
    for piece in pieces {
        bytes.extend_from_slice(piece);
        loop {
            match socks.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(Step::Say(said))) => heard.said.extend_from_slice(said),
                Ok(Some(Step::Login(token))) => heard.said.extend_from_slice(socks.verdict(token.expose() == TOKEN)),
                Ok(Some(Step::Wanted(target))) => {
                    assert!(heard.target.replace(target.to_string()).is_none(), "there is one request");
                    heard.said.extend_from_slice(&reply(None));
                }
                Err(refused) => {
                    heard.said.extend_from_slice(&refused.say);
                    assert!(heard.failed.replace(refused.failure).is_none(), "there is one refusal");
                }
            }
        }
        let done = heard.target.is_some() || heard.failed.is_some() || socks.state == State::Done;
        assert!(done || bytes.len() < 513, "{} bytes are kept", bytes.len());
    }
    heard.left = bytes.to_vec();
    heard
}

fn whole(certified: bool, messages: &[&[u8]]) -> Heard {
    hear(certified, [messages.concat().as_slice()])
}

const OPEN: [u8; 10] = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

#[test]
fn a_client_logs_in_and_asks_for_a_target_by_name() {
    let heard = whole(false, &[&[5, 2, 0, 2], &login(b"t0ken"), &request(HOST), b"early"]);
    let said = [&[5, 2, 1, 0][..], &OPEN].concat();
    let target = Some("acme/dc1/sales-db".to_owned());
    assert_eq!(heard, Heard { said, target, failed: None, left: b"early".to_vec() });
}

#[test]
fn a_client_with_a_certificate_needs_no_password_but_may_show_one() {
    let heard = whole(true, &[&[5, 1, 0], &request(HOST)]);
    assert_eq!((heard.said, heard.failed), ([&[5, 0][..], &OPEN].concat(), None));
    let heard = whole(true, &[&[5, 2, 0, 2], &login(b"wrong"), &request(HOST)]);
    assert_eq!((heard.said, heard.target), (vec![5, 2, 1, 1], None), "a wrong one is refused all the same");
}

#[test]
fn i2_without_a_login_nothing_is_asked_for() {
    for methods in [&[5, 1, 0][..], &[5, 0], &[5, 2, 0, 1], &[5, 1, 0x80], &[5, 1, 0xff]] {
        let heard = whole(false, &[methods, &request(HOST)]);
        assert_eq!((heard.said, heard.target), (vec![5, 0xff], None));
        assert_eq!(heard.failed.unwrap().code, Code::LoginRequired);
    }
    let heard = whole(false, &[&[5, 1, 2], &login(b"wrong"), &request(HOST)]);
    assert_eq!((heard.said, heard.target), (vec![5, 2, 1, 1], None), "what follows a wrong token is not read");
    let heard = whole(false, &[&[5, 1, 2], &request(HOST)]);
    assert_eq!((heard.said, heard.target), (vec![5, 2, 1, 1], None), "nor is a request in a login's place");
}

#[test]
fn a_verdict_counts_after_a_login_alone() {
    let mut socks = Socks5::new(false);
    assert_eq!(socks.verdict(true), [1, 1]);
    let mut bytes = BytesMut::from(request(HOST).as_slice());
    assert!(socks.next(&mut bytes).unwrap().is_none());
}

#[test]
fn i2_a_request_waits_for_the_logins_verdict() {
    let mut socks = Socks5::new(false);
    let mut bytes = BytesMut::from([&[5, 1, 2][..], &login(b"t0ken"), &request(HOST)].concat().as_slice());
    assert!(matches!(socks.next(&mut bytes), Ok(Some(Step::Say(_)))));
    assert!(matches!(socks.next(&mut bytes), Ok(Some(Step::Login(_)))));
    assert!(matches!(socks.next(&mut bytes), Ok(None)));
    assert_eq!(bytes, request(HOST), "it is left where it is");
    assert_eq!(socks.verdict(true), [1, 0]);
    assert!(matches!(socks.next(&mut bytes), Ok(Some(Step::Wanted(_)))));
}

#[test]
fn i1_a_token_has_1_to_255_characters_and_no_error_shows_it() {
    let long = [b'x'; 255];
    let mut socks = Socks5::new(false);
    let mut bytes = BytesMut::from([&[5, 1, 2][..], &login(&long)].concat().as_slice());
    socks.next(&mut bytes).unwrap();
    let Ok(Some(Step::Login(token))) = socks.next(&mut bytes) else { panic!("a login") };
    assert_eq!(token.expose().as_bytes(), long);
    for bad in [&b""[..], b"hunter2 ", b"hunter2\n", b"hunter2\xff"] {
        let heard = whole(false, &[&[5, 1, 2], &login(bad)]);
        assert_eq!(heard.said, [5, 2, 1, 1]);
        assert!(!heard.failed.unwrap().detail.contains("hunter2"));
    }
}

#[test]
fn e1_an_address_or_another_command_has_its_own_reply() {
    let v6 = [&[5, 1, 0, 4][..], &[0; 18]].concat();
    for (message, said) in [
        (&[5, 1, 0, 1, 127, 0, 0, 1, 0, 80][..], 8),
        (&v6, 8),
        (&[5, 1, 0, 0], 8),
        (&[5, 2, 0, 3], 7),
        (&[5, 3, 0, 1], 7),
        (&[5, 0, 0, 3], 7),
        (&[4, 1, 0, 3], 1),
        (&[5, 1, 1, 3], 1),
        (&request(b"127.0.0.1"), 1),
        (&request(b"[::1]"), 1),
        (&request(b"localhost"), 1),
        (&request(b""), 1),
        (&request(b"sales-db.dc1.acme.underpass\0.example"), 1),
        (&request(b"sales-db.dc1.acme.underpass\xff"), 1),
        (&request(&[b'x'; 255]), 1),
    ] {
        let heard = whole(true, &[&[5, 1, 0], message]);
        assert_eq!((heard.said[3], heard.said.len()), (said, 12), "{message:?}");
        assert_eq!(heard.failed.unwrap().code, Code::RequestInvalid);
    }
}

#[test]
fn other_protocols_are_named_at_their_first_byte() {
    for (first, why, said) in [(4, "SOCKS4", 8), (0x16, "TLS", 0), (b'G', "HTTP", 0), (b'C', "HTTP", 0), (0, "no SOCKS5", 0)] {
        let heard = hear(false, [&[first][..]]);
        assert_eq!(heard.said.len(), said);
        assert!(heard.failed.unwrap().detail.contains(why), "{first}");
    }
}

#[test]
fn a_reply_tells_what_kept_a_stream_from_opening() {
    for (code, said) in [
        (None, 0),
        (Some(Code::NotGranted), 2),
        (Some(Code::AddressForbidden), 2),
        (Some(Code::TargetUnreachable), 3),
        (Some(Code::NoAgent), 4),
        (Some(Code::TargetUnknown), 4),
        (Some(Code::TargetRefused), 5),
        (Some(Code::TargetTimeout), 6),
        (Some(Code::OpenTimeout), 6),
        (Some(Code::QuotaExceeded), 1),
        (Some(Code::SessionLost), 1),
    ] {
        assert_eq!(reply(code), [5, said, 0, 1, 0, 0, 0, 0, 0, 0], "{code:?}");
    }
}

/// Messages that are right, nearly right, or bytes.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let some =
        prop::sample::select(vec![vec![5, 2, 0, 2], vec![5, 1, 0], vec![5, 1, 2], login(b"t0ken"), login(b"x"), request(HOST)]);
    let any = prop::collection::vec(any::<u8>(), 0..8);
    prop::collection::vec(prop_oneof![4 => some, 1 => any], 0..5).prop_map(|messages| messages.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_do_not_change_what_is_heard(bytes in messages(), certified in any::<bool>(), size in 1usize..40) {
        let heard = hear(certified, bytes.chunks(size));
        prop_assert_eq!(heard, hear(certified, [bytes.as_slice()]));
    }
}
