//! The enrollment token: everything an agent needs to be enrolled, as one printable string that survives copy and paste.
//! Refuses to know who makes tokens, who redeems them and how they are kept.

use std::fmt;

use prost::Message;
use time::OffsetDateTime;
use zeroize::Zeroize;

use super::{Form, TokenSecret, invalid};
use crate::base::code::{Code, Failure, OrFail};
use crate::base::endpoint::Endpoint;
use crate::base::id::{GroupId, Name};
use crate::base::limits;
use crate::base::secret::Secret;

const FORM: Form = Form { prefix: EnrollmentToken::PREFIX, max: limits::MAX_TOKEN };

/// What `underpass token create` prints and `underpass agent enroll` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollmentToken {
    /// The gateways to dial: 1 to [`limits::MAX_TOKEN_ENDPOINTS`].
    pub endpoints: Vec<Endpoint>,
    /// SHA-256 of the public key (SPKI, DER) of the root that the gateways' chains must end in.
    pub pin: [u8; 32],
    /// The proof that the bearer may enroll, once.
    pub secret: TokenSecret,
    /// When the gateway stops taking it, in whole seconds.
    pub expires: OffsetDateTime,
    /// The group that the agent will belong to. Information for people: the gateway goes by its own record.
    pub group: GroupId,
}

impl EnrollmentToken {
    /// What every one begins with: the version of its form.
    pub const PREFIX: &str = "underpass-enroll-1.";

    /// The string to hand over. It holds the secret: print it once, keep it nowhere.
    #[must_use]
    pub fn encode(&self) -> Secret {
        FORM.seal(&TokenMessage {
            endpoints: self.endpoints.iter().map(Endpoint::to_string).collect(),
            pin: self.pin.to_vec(),
            secret: self.secret.expose().to_vec(),
            expires: self.expires.unix_timestamp(),
            tenant: self.group.tenant.to_string(),
            group: self.group.group.to_string(),
        })
    }

    /// Reads the string. White space around it is ignored; nothing else is.
    ///
    /// # Errors
    /// `token_invalid`, saying what is wrong without quoting the token: too long, another version, cut off or mistyped.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        FORM.read::<TokenMessage, _>(text, Self::encode)
    }
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct TokenMessage {
    #[prost(string, repeated, tag = "1")]
    endpoints: Vec<String>,
    #[prost(bytes = "vec", tag = "2")]
    pin: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    secret: Vec<u8>,
    #[prost(int64, tag = "4")]
    expires: i64,
    #[prost(string, tag = "5")]
    tenant: String,
    #[prost(string, tag = "6")]
    group: String,
}

impl fmt::Debug for TokenMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[enrollment token]")
    }
}

impl Drop for TokenMessage {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl TryFrom<TokenMessage> for EnrollmentToken {
    type Error = Failure;
    fn try_from(message: TokenMessage) -> Result<Self, Failure> {
        if message.endpoints.is_empty() || message.endpoints.len() > limits::MAX_TOKEN_ENDPOINTS {
            return Err(invalid(format_args!("{} endpoints inside", message.endpoints.len())));
        }
        let endpoints = message.endpoints.iter().map(|text| text.parse().map_err(|_| invalid("an endpoint inside is none")));
        let name = |text: &str| Name::parse(text).map_err(|_| invalid("its tenant or group is no name"));
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            pin: message.pin.as_slice().try_into().map_err(|_| invalid("its pin has not 32 bytes"))?,
            secret: message.secret.as_slice().try_into()?,
            expires: OffsetDateTime::from_unix_timestamp(message.expires).or_fail(Code::TokenInvalid, "its expiry")?,
            group: GroupId { tenant: name(&message.tenant)?, group: name(&message.group)? },
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::super::{CHECKSUM, DAMAGED};
    use super::*;

    fn token() -> EnrollmentToken {
        EnrollmentToken {
            endpoints: vec!["wss://gw1.example:443".parse().unwrap(), "wss://[fd00::1]:8443".parse().unwrap()],
            pin: [7; 32],
            secret: TokenSecret([0xa5; 32]),
            expires: OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap(),
            group: GroupId { tenant: Name::parse("acme").unwrap(), group: Name::parse("dc1").unwrap() },
        }
    }

    fn refused(text: &str) -> String {
        let failure = EnrollmentToken::parse(text).unwrap_err();
        assert_eq!(failure.code, Code::TokenInvalid);
        failure.detail
    }

    /// A token around any bytes, with a right checksum.
    fn wrap(message: &[u8]) -> String {
        format!("{}{}", EnrollmentToken::PREFIX, URL_SAFE_NO_PAD.encode([message, &FORM.checksum(message)].concat()))
    }

    #[test]
    fn a_token_survives_the_way_over_paper() {
        let text = token().encode();
        assert!(text.expose().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "one printable word");
        assert_eq!(EnrollmentToken::parse(text.expose()).unwrap(), token());
        assert_eq!(EnrollmentToken::parse(&format!("  {}\r\n", text.expose())).unwrap(), token());
    }

    #[test]
    fn the_form_is_stable() {
        let expected = "underpass-enroll-1.ChV3c3M6Ly9ndzEuZXhhbXBsZTo0NDMKFHdzczovL1tmZDAwOjoxXTo4NDQzEiAHBwcHBwcHBwcHBwcHB\
                        wcHBwcHBwcHBwcHBwcHBwcHBxogpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaUggKSn2gYqBGFjbWUyA2RjMX5YqWM\
                        ";
        assert_eq!(token().encode().expose(), expected);
    }

    #[test]
    fn a_half_copied_or_mistyped_token_is_named_as_such() {
        let secret = token().encode();
        let text = secret.expose();
        for end in 1..text.len() {
            assert_eq!(refused(&text[..end]), DAMAGED, "cut at {end}");
        }
        for at in EnrollmentToken::PREFIX.len()..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(refused(std::str::from_utf8(&changed).unwrap()), DAMAGED, "changed at {at}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let secret = token().encode();
        let text = secret.expose();
        assert!(refused("").contains("empty"));
        assert!(refused("hello").contains("does not begin"));
        assert!(refused(&text.replacen("-1.", "-2.", 1)).contains("version 2"));
        assert!(refused(&text.replacen("-1.", "-\u{1b}[2J.", 1)).contains("does not begin"));
        for garbage in ["=", "A", "AAAA", "==", ".", "\0", "é"] {
            assert_eq!(refused(&format!("{text}{garbage}")), DAMAGED);
        }
        assert!(refused(&format!("{} {}", &text[..40], &text[40..])).contains("white space"));
        assert!(refused(&format!("{text}{}", "A".repeat(limits::MAX_TOKEN))).contains("too many"));
        assert!(refused(&format!("{text}\n{text}")).contains("white space"));
    }

    #[test]
    fn a_message_with_unknown_or_wrong_parts_is_refused() {
        let bytes = |change: fn(&mut TokenMessage)| {
            let secret = token().encode();
            let raw = URL_SAFE_NO_PAD.decode(&secret.expose()[EnrollmentToken::PREFIX.len()..]).unwrap();
            let mut message = TokenMessage::decode(&raw[..raw.len() - CHECKSUM]).unwrap();
            change(&mut message);
            message.encode_to_vec()
        };
        assert!(EnrollmentToken::parse(&wrap(&bytes(|_| ()))).is_ok());
        assert!(refused(&wrap(&[bytes(|_| ()), vec![0x38, 1]].concat())).contains("doesn't know"));
        assert!(refused(&wrap(&[bytes(|_| ()), vec![0x20, 0]].concat())).contains("doesn't know"), "a field twice");
        assert!(refused(&wrap(&bytes(|m| m.endpoints.clear()))).contains("endpoints"));
        assert!(refused(&wrap(&bytes(|m| m.endpoints = vec!["wss://a:1".into(); 17]))).contains("17 endpoints"));
        let quotes_nothing = refused(&wrap(&bytes(|m| m.endpoints[0] = "ws://secret:1".into())));
        assert!(quotes_nothing.contains("endpoint") && !quotes_nothing.contains("secret"), "{quotes_nothing}");
        assert!(refused(&wrap(&bytes(|m| m.pin.truncate(31)))).contains("pin"));
        assert!(refused(&wrap(&bytes(|m| m.secret.truncate(16)))).contains("secret"));
        assert!(refused(&wrap(&bytes(|m| m.expires = i64::MAX))).contains("expiry"));
        let quotes_nothing = refused(&wrap(&bytes(|m| m.tenant = "../secret".into())));
        assert!(quotes_nothing.contains("tenant") && !quotes_nothing.contains("secret"), "{quotes_nothing}");
        assert!(refused(&wrap(b"\xff\xff\xff")).contains("message"));
        for other in ["wss://gw1.example:0443", "wss://gw1.example", "wss://GW1.example:443", "wss://gw1.example:443/"] {
            let mut message = TokenMessage::decode(&bytes(|_| ())[..]).unwrap();
            message.endpoints[0] = other.into();
            assert!(refused(&wrap(&message.encode_to_vec())).contains("another way"), "{other}");
        }
    }

    #[test]
    fn i1_neither_debug_nor_an_error_shows_the_secret() {
        let token = token();
        let text = token.encode();
        let secret = token.secret.encode();
        assert!(!format!("{token:?} {text:?}").contains(secret.expose()));
        let shown = format!("{token:?}");
        assert!(shown.contains("[secret]") && !shown.contains("165"), "{shown}");
        for bad in [text.expose()[..100].to_owned(), format!("{}.", text.expose()), text.expose()[1..].to_owned()] {
            let detail = refused(&bad);
            assert!(!detail.contains(&text.expose()[30..60]), "{detail}");
        }
    }
}
