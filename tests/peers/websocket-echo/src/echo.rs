//! The echo: what the product's decoder tells is framed again and sent back. Messages come back as they came, in other pieces:
//! nothing waits for a message's end. Refuses to know what carries the frames.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use underpass::tunnel::websocket::{Decoder, Event, MAX_CONTROL, Opcode, Sender, Violation, head};

/// What is read at once.
const READ: usize = 64 * 1024;

/// What a peer may take to close after the last word.
const FAREWELL: Duration = Duration::from_secs(2);

const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;
const INVALID_TEXT: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// Echoes what `peer` sends until one of both closes; `inbound` is what has come already.
pub(crate) async fn echo<S>(mut io: S, peer: Sender, mut inbound: BytesMut) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = Frames::new(peer);
    loop {
        let last = frames.answer(&mut inbound);
        io.write_all(&frames.outbound).await?;
        frames.outbound.clear();
        if last {
            return farewell(io).await;
        }
        inbound.reserve(READ);
        if io.read_buf(&mut inbound).await? == 0 {
            return Ok(());
        }
    }
}

/// Closes without losing the last word: a connection that is dropped with unread bytes is reset, and may take it along.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut io: S) -> io::Result<()> {
    io.shutdown().await?;
    let _ = tokio::time::timeout(FAREWELL, tokio::io::copy(&mut io, &mut tokio::io::sink())).await;
    Ok(())
}

/// From frames to frames.
struct Frames {
    sender: Sender,
    decoder: Decoder,
    /// Whether the message that is echoed has begun.
    within: bool,
    outbound: BytesMut,
}

impl Frames {
    fn new(peer: Sender) -> Self {
        let sender = if peer == Sender::Client { Sender::Server } else { Sender::Client };
        Self { sender, decoder: Decoder::new(peer), within: false, outbound: BytesMut::new() }
    }

    /// Frames the answer to all that has come; true when it ends with the last word.
    fn answer(&mut self, inbound: &mut BytesMut) -> bool {
        loop {
            match self.decoder.next(inbound) {
                Ok(None) => return false,
                Ok(Some(Event::Data(bytes))) => self.data(&bytes),
                Ok(Some(Event::Ping(bytes))) => self.frame(Opcode::Pong, true, &bytes),
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close(reason))) => {
                    self.frame(Opcode::Close, true, &answer_to_close(&reason));
                    return true;
                }
                Err(violation) => {
                    self.frame(Opcode::Close, true, &code_of(violation).to_be_bytes());
                    return true;
                }
            }
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        let last = self.decoder.is_between_messages();
        let opcode = if self.within { Opcode::Continuation } else { Opcode::Binary };
        self.within = !last;
        self.frame(opcode, last, bytes);
    }

    fn frame(&mut self, opcode: Opcode, last: bool, payload: &[u8]) {
        debug_assert!(payload.len() <= MAX_CONTROL || matches!(opcode, Opcode::Binary | Opcode::Continuation));
        let (mut head, len) = head(self.sender, opcode, payload.len());
        if !last {
            // The product never fragments.
            head[0] &= 0x7f;
        }
        self.outbound.extend_from_slice(&head[..len]);
        self.outbound.extend_from_slice(payload);
    }
}

/// The code that came, unless it must not come (RFC 6455, 5.5.1 and 7.4). The product ends a connection whatever the code.
fn answer_to_close(reason: &Bytes) -> Vec<u8> {
    let Some((code, text)) = reason.split_first_chunk::<2>() else {
        return if reason.is_empty() { Vec::new() } else { PROTOCOL_ERROR.to_be_bytes().into() };
    };
    let valid = matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999);
    let text_valid = std::str::from_utf8(text).is_ok();
    match (valid, text_valid) {
        (true, true) => code.to_vec(),
        (true, false) => INVALID_TEXT.to_be_bytes().into(),
        (false, _) => PROTOCOL_ERROR.to_be_bytes().into(),
    }
}

fn code_of(violation: Violation) -> u16 {
    match violation {
        Violation::Opcode(1) => UNSUPPORTED_DATA,
        Violation::Length => TOO_BIG,
        _ => PROTOCOL_ERROR,
    }
}
