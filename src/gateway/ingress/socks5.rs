//! SOCKS5 as a server (RFC 1928, with the passwords of RFC 1929): a state machine over bytes. It takes CONNECT to a name, and
//! a client token as the password. It refuses to know sockets, whose a token is, and where a target is reached.

use std::fmt;

use bytes::BytesMut;
use zeroize::Zeroize;

use crate::base::code::{Code, Exit, Failure};
use crate::base::id::TargetId;
use crate::base::secret::Secret;
use crate::wire::{login, name};

const VERSION: u8 = 5;
/// The version of a login (RFC 1929).
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const DOMAIN: u8 = 3;

/// One client's handshake.
///
/// What comes in is taken from the front of a buffer, message by message; the longest has 513 bytes. What stays in it after
/// [`Step::Wanted`] are the client's first bytes for the target.
#[derive(Debug)]
pub struct Socks5 {
    /// The client showed a certificate that stands for a caller.
    certified: bool,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Login,
    /// Nothing is read before the login's verdict.
    Verdict,
    Request,
    Done,
}

/// What a message of the client's asks for.
#[derive(Debug)]
pub enum Step {
    /// These bytes are sent, and the next step asked for.
    Say(&'static [u8]),
    /// Somebody judges the token and tells [`Socks5::verdict`].
    Login(Secret),
    /// The target; [`reply`] answers it.
    Wanted(TargetId),
}

/// Why a client gets no further, and what is said to it before its connection is closed.
#[derive(Debug)]
pub struct Refused {
    /// `request_invalid` or `login_required`.
    pub failure: Failure,
    /// In the words of the protocol; may be empty.
    pub say: Vec<u8>,
}

impl Socks5 {
    /// A handshake of which nothing has come yet. A client that is `certified` may go without a password.
    #[must_use]
    pub fn new(certified: bool) -> Self {
        Self { certified, state: State::Greeting }
    }

    /// Takes the next message from the front of `bytes`; `None` as long as it is not whole, while a verdict is waited for, and
    /// behind the request.
    ///
    /// # Errors
    /// What is not taken. Nothing more is read from such a client.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Step>, Refused> {
        let step = match self.state {
            State::Greeting => self.greeting(bytes),
            State::Login => self.login(bytes),
            State::Request => self.request(bytes),
            State::Verdict | State::Done => Ok(None),
        };
        if step.is_err() {
            self.state = State::Done;
        }
        step
    }

    /// Tells whether the token was good. Yields what is sent; if it was not, the connection is closed after it.
    pub fn verdict(&mut self, good: bool) -> &'static [u8] {
        let good = good && self.state == State::Verdict;
        self.state = if good { State::Request } else { State::Done };
        if good { &[LOGIN_VERSION, 0] } else { &[LOGIN_VERSION, 1] }
    }

    /// Version, count, methods.
    fn greeting(&mut self, bytes: &mut BytesMut) -> Result<Option<Step>, Refused> {
        if let Some(first) = bytes.first().filter(|first| **first != VERSION) {
            return Err(other_protocol(*first));
        }
        let Some(count) = bytes.get(1) else { return Ok(None) };
        let Some(message) = take(bytes, 2 + usize::from(*count)) else { return Ok(None) };
        let offered = &message[2..];
        if offered.contains(&PASSWORD) {
            self.state = State::Login;
            return Ok(Some(Step::Say(&[VERSION, PASSWORD])));
        }
        if self.certified && offered.contains(&NO_LOGIN) {
            self.state = State::Request;
            return Ok(Some(Step::Say(&[VERSION, NO_LOGIN])));
        }
        let failure = Failure::new(Code::LoginRequired, "the client offered no user name and password (RFC 1929)");
        Err(Refused { failure, say: vec![VERSION, NO_METHOD] })
    }

    /// Version, length, user, length, password. The user means nothing.
    fn login(&mut self, bytes: &mut BytesMut) -> Result<Option<Step>, Refused> {
        if bytes.first().is_some_and(|version| *version != LOGIN_VERSION) {
            return Err(invalid("the login is not as in RFC 1929", [LOGIN_VERSION, 1]));
        }
        let len_at = |at: usize| bytes.get(at).map(|len| usize::from(*len));
        let Some(user) = len_at(1) else { return Ok(None) };
        let Some(password) = len_at(2 + user) else { return Ok(None) };
        let Some(mut message) = take(bytes, 3 + user + password) else { return Ok(None) };
        let token = login::token(&message[3 + user..]);
        message.zeroize();
        self.state = State::Verdict;
        match token {
            Ok(token) => Ok(Some(Step::Login(token))),
            Err(failure) => Err(Refused { failure, say: vec![LOGIN_VERSION, 1] }),
        }
    }

    /// Version, command, reserved, kind of address, length, name, port. The port means nothing: the agent knows it.
    fn request(&mut self, bytes: &mut BytesMut) -> Result<Option<Step>, Refused> {
        let refused = |why: &str| invalid(why, reply(Some(Code::RequestInvalid)));
        match bytes[..bytes.len().min(4)] {
            [version, ..] if version != VERSION => return Err(refused("the request is not of version 5")),
            [_, command, ..] if command != CONNECT => return Err(invalid("this listener takes CONNECT alone", answer(7))),
            [_, _, reserved, ..] if reserved != 0 => return Err(refused("the request's reserved byte is set")),
            [_, _, _, kind] if kind != DOMAIN => {
                let why = "an address was asked for, and a target has a name that the client must not resolve (`socks5h`)";
                return Err(invalid(why, answer(8)));
            }
            _ => {}
        }
        let Some(len) = bytes.get(4) else { return Ok(None) };
        let Some(message) = take(bytes, 7 + usize::from(*len)) else { return Ok(None) };
        let host = String::from_utf8_lossy(&message[5..message.len() - 2]);
        let target = name::target_of(&host).map_err(|failure| refused(&failure.detail))?;
        self.state = State::Done;
        Ok(Some(Step::Wanted(target)))
    }
}

/// The reply to a request: none for a stream that is open, else what kept it from opening (RFC 1928, 6).
#[must_use]
pub fn reply(code: Option<Code>) -> [u8; 10] {
    answer(match code {
        None => 0,
        Some(Code::TargetUnreachable) => 3,
        Some(Code::NoAgent | Code::TargetUnknown | Code::TargetDnsFailed) => 4,
        Some(Code::TargetRefused) => 5,
        Some(Code::OpenTimeout | Code::TargetTimeout) => 6,
        Some(code) if code.exit() == Exit::Denied => 2,
        Some(_) => 1,
    })
}

/// A reply with the address 0.0.0.0:0: there is none that would mean anything to the client.
fn answer(reply: u8) -> [u8; 10] {
    [VERSION, reply, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// Names what else is spoken, so that a wrong setting is found.
fn other_protocol(first: u8) -> Refused {
    match first {
        // SOCKS4's own refusal.
        4 => invalid("SOCKS4 was spoken on a listener for SOCKS5", [0, 91, 0, 0, 0, 0, 0, 0]),
        0x16 => invalid("TLS was begun on a listener without TLS", []),
        _ if first.is_ascii_alphabetic() => invalid("HTTP was spoken on a listener for SOCKS5", []),
        _ => invalid("it is no SOCKS5", []),
    }
}

/// The first bytes, if there are as many.
fn take(bytes: &mut BytesMut, len: usize) -> Option<BytesMut> {
    (bytes.len() >= len).then(|| bytes.split_to(len))
}

fn invalid(why: impl fmt::Display, say: impl Into<Vec<u8>>) -> Refused {
    Refused { failure: Failure::new(Code::RequestInvalid, why), say: say.into() }
}

#[cfg(test)]
mod tests;
