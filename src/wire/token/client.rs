//! The client token: who opens streams shows it, and finds the gateway by it. One printable string that a user name and password
//! prompt, an HTTP header and a URL take as it is. Refuses to know what it grants, who shows it to whom and how tokens are kept.

use std::fmt;

use prost::Message;
use prost::encoding::encoded_len_varint;
use zeroize::Zeroize;

use super::{CHECKSUM, Form, TokenSecret, invalid};
use crate::base::code::Failure;
use crate::base::endpoint::{Endpoint, HostPort};
use crate::base::limits;
use crate::base::secret::Secret;

const FORM: Form = Form { prefix: ClientToken::PREFIX, max: limits::MAX_CLIENT_TOKEN };

/// The bytes that base64url has room for, 6 bits a character, behind the prefix and before the checksum.
const MESSAGE: usize = (limits::MAX_CLIENT_TOKEN - ClientToken::PREFIX.len()) * 6 / 8 - CHECKSUM;

/// What `underpass client-token create` prints, and what a client gives as its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientToken {
    /// Where `underpass connect` finds the gateways. Only those are written that fit; see [`ClientToken::encode`].
    pub endpoints: Vec<Endpoint>,
    /// SHA-256 of the public key (SPKI, DER) of the root that the gateways' chains must end in.
    pub pin: [u8; 32],
    /// What makes the text one that nobody else can guess.
    pub secret: TokenSecret,
}

impl ClientToken {
    /// What every one begins with: the version of its form.
    pub const PREFIX: &str = "underpass-client-1.";

    /// The string to hand over, at most [`limits::MAX_CLIENT_TOKEN`] bytes: an endpoint that doesn't fit any more is left out, so
    /// with long names there may be none. It is the secret: print it once, keep it nowhere.
    #[must_use]
    pub fn encode(&self) -> Secret {
        let mut message = TokenMessage { endpoints: Vec::new(), pin: self.pin.to_vec(), secret: self.secret.expose().to_vec() };
        let mut room = MESSAGE - message.encoded_len();
        for Endpoint(at) in &self.endpoints {
            let text = at.to_string();
            let size = 1 + encoded_len_varint(text.len() as u64) + text.len();
            if size <= room {
                room -= size;
                message.endpoints.push(text);
            }
        }
        FORM.seal(&message)
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
}

impl fmt::Debug for TokenMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[client token]")
    }
}

impl Drop for TokenMessage {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl TryFrom<TokenMessage> for ClientToken {
    type Error = Failure;
    fn try_from(message: TokenMessage) -> Result<Self, Failure> {
        let endpoint =
            |text: &String| text.parse::<HostPort>().map(Endpoint).map_err(|_| invalid("an endpoint inside is none"));
        Ok(Self {
            endpoints: message.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?,
            pin: message.pin.as_slice().try_into().map_err(|_| invalid("its pin has not 32 bytes"))?,
            secret: message.secret.as_slice().try_into()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DAMAGED, EnrollmentToken};
    use super::*;
    use crate::base::code::Code;

    fn token(endpoints: &[&str]) -> ClientToken {
        ClientToken {
            endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
            pin: [7; 32],
            secret: TokenSecret([0xa5; 32]),
        }
    }

    fn refused(text: &str) -> String {
        let failure = ClientToken::parse(text).unwrap_err();
        assert_eq!(failure.code, Code::TokenInvalid);
        failure.detail
    }

    fn written(token: &ClientToken) -> Vec<String> {
        let text = token.encode();
        assert!(text.expose().len() <= 255, "a SOCKS5 password (RFC 1929) of {} bytes", text.expose().len());
        ClientToken::parse(text.expose()).unwrap().endpoints.iter().map(Endpoint::to_string).collect()
    }

    #[test]
    fn a_token_is_one_word_that_is_read_as_it_was_written() {
        let token = token(&["wss://gw1.example:443", "wss://[fd00::1]:8443"]);
        let text = token.encode();
        assert!(text.expose().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "nothing to be escaped");
        assert_eq!(ClientToken::parse(text.expose()).unwrap(), token);
        assert_eq!(ClientToken::parse(&format!("  {}\r\n", text.expose())).unwrap(), token);
    }

    #[test]
    fn as_many_endpoints_as_fit_are_written_in_their_order() {
        let name = |end: &str| format!("wss://{}{end}:443", "a".repeat(40));
        assert_eq!(written(&token(&[])), [""; 0]);
        // 105 bytes are left for endpoints, two of them for each one's tag and length.
        let long = format!("wss://{}.{}:443", "a".repeat(49), "b".repeat(49));
        assert_eq!(long.len() - "wss://".len(), 103);
        assert_eq!(written(&token(&[&long])), [long.as_str()]);
        assert_eq!(token(&[&long]).encode().expose().len(), 255, "not a byte is wasted");
        let longer = format!("wss://{}.{}:443", "a".repeat(50), "b".repeat(49));
        assert_eq!(written(&token(&[&longer])), [""; 0]);
        let (one, two) = (name("1"), name("2"));
        assert_eq!(written(&token(&[&one, &two, "wss://gw.example"])), [one.as_str(), &two]);
        assert_eq!(written(&token(&[&longer, "wss://gw.example", &one])), ["wss://gw.example:443", &one]);
        let longest = format!("wss://{}:65535", [&*"x".repeat(63); 3].join(".") + "." + &"y".repeat(61));
        assert_eq!(written(&token(&[&longest, "wss://10.0.0.1:65535"])), ["wss://10.0.0.1:65535"]);
    }

    #[test]
    fn a_half_copied_or_mistyped_token_is_named_as_such() {
        let secret = token(&["wss://gw1.example:443"]).encode();
        let text = secret.expose();
        for end in 1..text.len() {
            assert_eq!(refused(&text[..end]), DAMAGED, "cut at {end}");
        }
        for at in ClientToken::PREFIX.len()..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(refused(std::str::from_utf8(&changed).unwrap()), DAMAGED, "changed at {at}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let enrollment = EnrollmentToken {
            endpoints: vec!["wss://gw1.example:443".parse().unwrap()],
            pin: [7; 32],
            secret: TokenSecret([0xa5; 32]),
            expires: time::OffsetDateTime::UNIX_EPOCH,
            group: crate::base::id::GroupId { tenant: "acme".parse().unwrap(), group: "dc1".parse().unwrap() },
        };
        assert!(refused(enrollment.encode().expose()).contains("does not begin with `underpass-client-1.`"));
        assert!(refused("underpass-client-12.AAAA").contains("version 12"));
        assert!(refused(&"A".repeat(limits::MAX_CLIENT_TOKEN + 1)).contains("too many"));
        assert!(refused("").contains("empty"));
    }

    #[test]
    fn a_message_with_unknown_or_wrong_parts_is_refused() {
        let sealed = |change: fn(&mut TokenMessage)| {
            let mut message =
                TokenMessage { endpoints: vec!["gw1.example:443".to_owned()], pin: vec![7; 32], secret: vec![0xa5; 32] };
            change(&mut message);
            FORM.seal(&message).expose().to_owned()
        };
        assert_eq!(sealed(|_| ()), token(&["wss://gw1.example:443"]).encode().expose());
        assert!(refused(&sealed(|m| m.endpoints[0] = "wss://a:1".into())).contains("endpoint"));
        let quotes_nothing = refused(&sealed(|m| m.endpoints[0] = "127.1:1".into()));
        assert!(quotes_nothing.contains("endpoint") && !quotes_nothing.contains("127.1"), "{quotes_nothing}");
        assert!(refused(&sealed(|m| m.pin.truncate(31))).contains("pin"));
        assert!(refused(&sealed(|m| m.secret.truncate(16))).contains("secret"));
    }

    #[test]
    fn i1_neither_debug_nor_an_error_shows_the_secret() {
        let token = token(&["wss://gw1.example:443"]);
        let (text, secret) = (token.encode(), token.secret.encode());
        let shown = format!("{token:?} {text:?}");
        assert!(!shown.contains(secret.expose()) && !shown.contains("165"), "{shown}");
        for bad in [text.expose()[..100].to_owned(), format!("{}.", text.expose()), text.expose()[1..].to_owned()] {
            let detail = refused(&bad);
            assert!(!detail.contains(&text.expose()[30..60]), "{detail}");
        }
    }
}
