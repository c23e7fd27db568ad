//! The headers of the yamux frames that pass by, for what they mean to streams. It refuses to judge and to change them.

/// A frame's header: version, type, flags (2), stream id (4), length (4), big-endian.
pub(super) const HEADER: usize = 12;

const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const PING: u8 = 2;
const FIN: u8 = 4;
const RST: u8 = 8;

/// The longest body that the crate takes.
const MAX_BODY: u32 = 1024 * 1024;

/// Follows a stream of frames, however it is cut.
#[derive(Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    filled: usize,
    body_left: usize,
    /// What the frame says once its body is complete.
    pending: Option<Seen>,
}

/// What a header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The peer has sent this stream's last byte, and all of it has come.
    Finished(u32),
    /// The peer reset this stream.
    Reset(u32),
    /// The connection is over: GoAway, or no frame that the crate takes.
    End,
}

impl Frames {
    /// Takes the next bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let skipped = self.body_left.min(bytes.len());
                self.body_left -= skipped;
                bytes = &bytes[skipped..];
                if self.body_left == 0
                    && let Some(said) = self.pending.take()
                {
                    seen(said);
                }
                continue;
            }
            let taken = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..][..taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                self.filled = 0;
                if let Some(said) = self.judge() {
                    seen(said);
                }
            }
        }
    }

    fn judge(&mut self) -> Option<Seen> {
        let [version, kind, _, flags, a, b, c, d, length @ ..] = self.header;
        let length = u32::from_be_bytes(length);
        match kind {
            _ if version != 0 => return Some(Seen::End),
            DATA if length > MAX_BODY => return Some(Seen::End),
            DATA => self.body_left = length as usize,
            WINDOW_UPDATE | PING => {}
            _ => return Some(Seen::End),
        }
        let stream = u32::from_be_bytes([a, b, c, d]);
        if kind == PING {
            None
        } else if flags & RST != 0 {
            Some(Seen::Reset(stream))
        } else if flags & FIN != 0 && self.body_left > 0 {
            self.pending = Some(Seen::Finished(stream));
            None
        } else {
            (flags & FIN != 0).then_some(Seen::Finished(stream))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_seen_however_the_bytes_are_cut_and_bodies_are_not_read() {
        let mut bytes = vec![0, DATA, 0, 1, 0, 0, 0, 1, 0, 0, 0, 13];
        // A body that looks like a GoAway.
        bytes.extend([0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0, WINDOW_UPDATE, 0, RST | 1, 1, 2, 3, 4, 0, 0, 0, 9]);
        bytes.extend([0, PING, 0, RST, 0, 0, 0, 0, 0, 0, 0, 9]);
        bytes.extend([0, DATA, 0, FIN, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0]);
        bytes.extend([0, WINDOW_UPDATE, 0, FIN, 0, 0, 0, 9, 0, 0, 0, 0]);
        bytes.extend([0, DATA, 0, RST, 0, 0, 0, 5, 0, 0, 0, 0]);
        bytes.extend([0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for size in 1..=bytes.len() {
            let (mut frames, mut all) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.read(piece, |seen| all.push(seen));
            }
            let expected = [Seen::Reset(0x0102_0304), Seen::Finished(7), Seen::Finished(9), Seen::Reset(5), Seen::End];
            assert_eq!(all, expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_last_frame_whose_body_is_missing_finishes_nothing() {
        let mut all = Vec::new();
        Frames::default().read(&[0, DATA, 0, FIN, 0, 0, 0, 7, 0, 0, 0, 2, 0], |seen| all.push(seen));
        assert_eq!(all, []);
    }

    #[test]
    fn what_is_no_frame_is_the_end() {
        let too_long = [0, DATA, 0, 0, 0, 0, 0, 1, 0, 16, 0, 1];
        for header in [[1, DATA, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], [0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], too_long] {
            let mut all = Vec::new();
            Frames::default().read(&header, |seen| all.push(seen));
            assert_eq!(all, [Seen::End]);
        }
    }
}
