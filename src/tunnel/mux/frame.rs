//! The yamux frame header: 12 bytes, big-endian, as in hashicorp's specification. Refuses to know what frames mean.

/// Bytes of a header.
pub(super) const HEADER: usize = 12;

/// A frame's header; a data frame's body of `length` bytes follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: Flags,
    /// 0 for pings and farewells.
    pub(super) stream: u32,
    /// Data: bytes that follow. Window update: credit. Ping: opaque. GoAway: the reason.
    pub(super) length: u32,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    WindowUpdate,
    Ping,
    GoAway,
}

/// What a frame does beside; unknown bits are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(pub(super) u16);

impl Flags {
    /// Opens a stream, or asks in a ping.
    pub(super) const SYN: Self = Self(1);
    /// Acknowledges a stream, or answers a ping.
    pub(super) const ACK: Self = Self(2);
    /// The sender's last frame on the stream.
    pub(super) const FIN: Self = Self(4);
    /// The stream is dropped.
    pub(super) const RST: Self = Self(8);

    pub(super) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(super) fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }
}

/// Why a header can't be read: nothing that follows it on the connection can be understood either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHeader {
    #[error("version {0} is not 0")]
    Version(u8),
    #[error("there is no frame type {0}")]
    Kind(u8),
}

impl Header {
    pub(super) fn new(kind: Kind, flags: Flags, stream: u32, length: u32) -> Self {
        Self { kind, flags, stream, length }
    }

    /// The bytes that travel.
    pub(super) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[1] = self.kind as u8;
        bytes[2..4].copy_from_slice(&self.flags.0.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads what travelled.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Result<Self, BadHeader> {
        let [version, kind, flags @ .., _, _, _, _, _, _, _, _] = bytes;
        if *version != 0 {
            return Err(BadHeader::Version(*version));
        }
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::WindowUpdate,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            other => return Err(BadHeader::Kind(*other)),
        };
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(Self { kind, flags: Flags(u16::from_be_bytes(*flags)), stream: word(4), length: word(8) })
    }

    /// How many bytes of body follow.
    pub(super) fn body(self) -> usize {
        if self.kind == Kind::Data { self.length as usize } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_twelve_bytes_in_the_specifications_order() {
        let header = Header::new(Kind::WindowUpdate, Flags::SYN.with(Flags::FIN), 0x0102_0304, 0x0506_0708);
        let bytes = [0, 1, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(&bytes), Ok(header));
    }

    #[test]
    fn versions_and_types_that_do_not_exist_are_errors() {
        assert_eq!(Header::decode(&[1; HEADER]), Err(BadHeader::Version(1)));
        assert_eq!(Header::decode(&[0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(BadHeader::Kind(4)));
    }
}
