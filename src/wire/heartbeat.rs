//! The 17 bytes in every WebSocket Ping and Pong. Refuses to know when to send one, and what silence means.

/// What an end says about itself. Big-endian: kind `u8`, sequence `u64`, received offset `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// [`Heartbeat::PING`], or [`Heartbeat::ACKNOWLEDGEMENT`] in an unsolicited Pong.
    pub kind: u8,
    /// Counts this end's heartbeats from 1.
    pub sequence: u64,
    /// yamux bytes received on this lane so far.
    pub received: u64,
}

impl Heartbeat {
    /// In a Ping: a heartbeat, whose echo is a Pong with the same bytes (RFC 6455, 5.5.3).
    pub const PING: u8 = 1;
    /// In a Pong nobody asked for: an acknowledgement.
    pub const ACKNOWLEDGEMENT: u8 = 2;

    /// The bytes that travel.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[0] = self.kind;
        bytes[1..9].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[9..].copy_from_slice(&self.received.to_be_bytes());
        bytes
    }

    /// Reads what travelled; anything but 17 bytes is no heartbeat of ours.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (sequence, received) = rest.split_at_checked(8)?;
        Some(Self {
            kind: *kind,
            sequence: u64::from_be_bytes(sequence.try_into().ok()?),
            received: u64::from_be_bytes(received.try_into().ok()?),
        })
    }
}
