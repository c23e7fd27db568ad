//! WebSocket frames (RFC 6455, 5) as a tunnel uses them: binary data as a stream of bytes, heartbeats beside it, a close.
//! Pure: bytes in, events out. It refuses to know what the bytes are; message boundaries mean nothing.
//!
//! Recorded deviation from RFC 6455, 5.3: agents set the mask bit, as the syntax demands, and use the key 0. Unpredictable keys
//! protect intermediaries that read plaintext, of which mutual TLS leaves none. Any key is taken.

use bytes::{Buf, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::base::limits::MAX_MESSAGE;

/// What an opening handshake may hold in memory.
#[must_use]
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0).max_write_buffer_size(MAX_MESSAGE)
}

/// The largest header: two bytes, eight of length, four of key.
pub const MAX_HEAD: usize = 14;

/// The largest payload of a control frame.
pub const MAX_CONTROL: usize = 125;

/// A frame's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Further bytes of a message.
    Continuation = 0,
    /// Bytes.
    Binary = 2,
    /// The connection's end.
    Close = 8,
    /// Asks for its echo.
    Ping = 9,
    /// The echo.
    Pong = 10,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Some bytes of a data message; empty only if the whole frame was.
    Data(Bytes),
    /// To be echoed.
    Ping(Bytes),
    /// An echo, or a word nobody asked for.
    Pong(Bytes),
    /// The peer says no more; what it gives as its reason, unread.
    Close(Bytes),
}

/// What no peer of ours sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reserved bit.
    #[error("WebSocket: a reserved bit is set")]
    Reserved,
    /// Text, or an opcode that does not exist.
    #[error("WebSocket: a frame with opcode {0}")]
    Opcode(u8),
    /// A continuation of nothing, or a new message within one.
    #[error("WebSocket: a frame out of its message")]
    Order,
    /// RFC 6455, 5.1: clients mask, servers don't.
    #[error("WebSocket: a frame masked on the wrong side")]
    Mask,
    /// Larger than this side takes, or written longer than need be.
    #[error("WebSocket: a frame's length is out of bounds")]
    Length,
    /// RFC 6455, 5.5: no more than 125 bytes, in one piece.
    #[error("WebSocket: a control frame of a wrong shape")]
    Control,
}

/// Which end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Masks.
    Client,
    /// Doesn't.
    Server,
}

impl Sender {
    /// Whose frames this end reads.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A frame's header, in the first bytes; the number says how many.
#[must_use]
pub fn head(sender: Sender, opcode: Opcode, payload: usize) -> ([u8; MAX_HEAD], usize) {
    let mut head = [0; MAX_HEAD];
    head[0] = 0x80 | opcode as u8;
    let mut len = match payload {
        0..=125 => {
            head[1] = u8::try_from(payload).expect("up to 125");
            2
        }
        126..=0xffff => {
            head[1] = 126;
            head[2..4].copy_from_slice(&u16::try_from(payload).expect("up to 65,535").to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    if sender == Sender::Client {
        head[1] |= 0x80;
        // The key is 0, so the payload stays as it is.
        len += 4;
    }
    (head, len)
}

/// Reads frames of one sender.
#[derive(Debug)]
pub struct Decoder {
    from: Sender,
    /// Whether a message has begun that is not finished.
    within: bool,
    /// The data frame whose payload is being read.
    payload: Option<Payload>,
}

#[derive(Debug)]
struct Payload {
    missing: usize,
    key: [u8; 4],
}

struct Head {
    len: usize,
    fin: bool,
    opcode: Opcode,
    payload: usize,
    key: [u8; 4],
}

impl Decoder {
    /// For what `from` sends.
    #[must_use]
    pub fn new(from: Sender) -> Self {
        Self { from, within: false, payload: None }
    }

    /// Whether no message has begun that is not finished. Nothing in a tunnel depends on it; who echoes messages must know.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        !self.within && self.payload.is_none()
    }

    /// The next event of what has come, which is taken from `bytes`; `None` when more must come first. Less than a header or a
    /// control frame is all that stays in `bytes` then.
    ///
    /// # Errors
    /// Everything that is not the tunnel's use of WebSocket; the connection can't be read any further.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Event>, Violation> {
        if self.payload.is_none() {
            let Some(head) = Head::parse(bytes, self.from)? else { return Ok(None) };
            if matches!(head.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) {
                return head.control(bytes);
            }
            if self.within != (head.opcode == Opcode::Continuation) {
                return Err(Violation::Order);
            }
            self.within = !head.fin;
            bytes.advance(head.len);
            if head.payload == 0 {
                return Ok(Some(Event::Data(Bytes::new())));
            }
            self.payload = Some(Payload { missing: head.payload, key: head.key });
        }
        let Some(payload) = self.payload.as_mut().filter(|_| !bytes.is_empty()) else { return Ok(None) };
        let mut part = bytes.split_to(payload.missing.min(bytes.len()));
        unmask(&mut part, &mut payload.key);
        payload.missing -= part.len();
        if payload.missing == 0 {
            self.payload = None;
        }
        Ok(Some(Event::Data(part.freeze())))
    }
}

impl Head {
    /// Reads a header without taking it; `None` when there is too little of it.
    fn parse(bytes: &[u8], from: Sender) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::Reserved);
        }
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => return Err(Violation::Opcode(other)),
        };
        let (fin, masked) = (first & 0x80 != 0, second & 0x80 != 0);
        if masked != (from == Sender::Client) {
            return Err(Violation::Mask);
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let len = 2 + extended + if masked { 4 } else { 0 };
        let Some(rest) = rest.get(..len - 2) else { return Ok(None) };
        let (length, key) = rest.split_at(extended);
        let payload = match extended {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let least = [0, 126, 0x1_0000][extended.min(3).div_ceil(2)];
        if payload < least || payload > MAX_MESSAGE as u64 {
            return Err(Violation::Length);
        }
        let head = Self {
            len,
            fin,
            opcode,
            payload: usize::try_from(payload).map_err(|_| Violation::Length)?,
            key: key.try_into().unwrap_or_default(),
        };
        let control = !matches!(opcode, Opcode::Binary | Opcode::Continuation);
        if control && (!fin || head.payload > MAX_CONTROL) {
            return Err(Violation::Control);
        }
        Ok(Some(head))
    }

    /// A control frame, once it is whole.
    fn control(mut self, bytes: &mut BytesMut) -> Result<Option<Event>, Violation> {
        if bytes.len() < self.len + self.payload {
            return Ok(None);
        }
        bytes.advance(self.len);
        let mut payload = bytes.split_to(self.payload);
        unmask(&mut payload, &mut self.key);
        // Small, and about to be kept: it must not keep the buffer that it lies in.
        let payload = Bytes::copy_from_slice(&payload);
        Ok(Some(match self.opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            _ => Event::Close(payload),
        }))
    }
}

/// Undoes the mask, and turns the key to where the next part begins.
fn unmask(bytes: &mut [u8], key: &mut [u8; 4]) {
    if *key == [0; 4] {
        return;
    }
    let word = u32::from_ne_bytes(*key);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for four in words {
        *four = (u32::from_ne_bytes(*four) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(*key) {
        *byte ^= key;
    }
    key.rotate_left(rest.len());
}

#[cfg(test)]
mod tests;
