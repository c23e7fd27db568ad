//! One direction of a stream whose every byte is known: what was sent, what arrived, and how long nothing did.
//! Refuses to know what streams are for.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// The bytes of a tag: words of 8 bytes, each with the tag and its own index, so that a word tells where it belongs.
pub(crate) struct Flow {
    tag: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sent: u64,
    /// Nothing more is sent.
    ended: bool,
    arrived: u64,
    /// The end has arrived, too.
    done: bool,
    arrivals: u64,
    last: Option<Instant>,
    gap: Duration,
    told: Told,
}

impl State {
    fn is_done(&self) -> bool {
        self.done || (self.arrived == self.sent && (self.ended || self.sent == 0))
    }
}

/// Bytes that came otherwise than they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) changed: u64,
}

impl Told {
    pub(crate) fn is_right(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.changed += other.changed;
    }
}

impl Flow {
    /// The tag has 24 bits.
    pub(crate) fn new(tag: u32) -> Self {
        Self { tag, state: Mutex::default() }
    }

    /// Sends that many of its next bytes.
    pub(crate) async fn send(&self, to: &mut (impl AsyncWrite + Unpin), len: usize) -> io::Result<()> {
        let at = {
            let mut state = self.state.lock().unwrap();
            state.sent += len as u64;
            state.last.get_or_insert_with(Instant::now);
            state.sent - len as u64
        };
        to.write_all(&bytes_of(self.tag, at, len)).await
    }

    /// Says that nothing more is sent.
    pub(crate) fn ends(&self) {
        self.state.lock().unwrap().ended = true;
    }

    /// Takes what comes until the end of file.
    pub(crate) async fn receive(&self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer).await? {
                0 => {
                    self.state.lock().unwrap().done = true;
                    return Ok(());
                }
                count => self.check(&buffer[..count])?,
            }
        }
    }

    /// Takes exactly so many bytes, or else the end of file.
    pub(crate) async fn receive_some(&self, from: &mut (impl AsyncRead + Unpin), len: usize) -> io::Result<bool> {
        let (mut buffer, mut filled) = (vec![0; len], 0);
        while filled < len {
            match from.read(&mut buffer[filled..]).await? {
                0 if filled == 0 => {
                    self.state.lock().unwrap().done = true;
                    return Ok(false);
                }
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => {
                    self.check(&buffer[filled..filled + count])?;
                    filled += count;
                }
            }
        }
        Ok(true)
    }

    /// Compares the next bytes that have come with what was sent.
    fn check(&self, came: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let now = Instant::now();
        let since = state.last.replace(now).unwrap_or(now);
        state.gap = state.gap.max(now - since);
        state.arrivals += 1;
        if came == bytes_of(self.tag, state.arrived, came.len()) && state.arrived + came.len() as u64 <= state.sent {
            state.arrived += came.len() as u64;
            return Ok(());
        }
        let told = told(self.tag, state.arrived, came);
        state.told.add(told);
        Err(io::Error::other(format!("after {} bytes of flow {}: {told:?}", state.arrived, self.tag)))
    }

    /// The longest time without an arrival since this was last asked.
    pub(crate) fn gap(&self) -> Duration {
        let mut state = self.state.lock().unwrap();
        let open = match state.last {
            Some(last) if !state.is_done() => last.elapsed(),
            _ => Duration::ZERO,
        };
        std::mem::take(&mut state.gap).max(open)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.state.lock().unwrap().sent
    }

    pub(crate) fn arrived(&self) -> u64 {
        self.state.lock().unwrap().arrived
    }

    /// How often something has arrived.
    pub(crate) fn arrivals(&self) -> u64 {
        self.state.lock().unwrap().arrivals
    }

    /// Nothing more is to come: it was ended, or never begun.
    pub(crate) fn is_done(&self) -> bool {
        self.state.lock().unwrap().is_done()
    }

    /// Every byte that was sent has arrived.
    pub(crate) fn is_whole(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.arrived == state.sent && state.told.is_right()
    }

    pub(crate) fn told(&self) -> Told {
        self.state.lock().unwrap().told
    }
}

/// The bytes of a tag from an offset on.
fn bytes_of(tag: u32, at: u64, len: usize) -> Vec<u8> {
    let (first, skip) = (at / 8, (at % 8) as usize);
    let mut bytes = Vec::with_capacity(len + 16);
    let tag = u64::from(tag) << 40;
    for index in first..=first + (skip + len) as u64 / 8 {
        bytes.extend_from_slice(&(tag | (index & 0xff_ffff_ffff)).to_be_bytes());
    }
    bytes.drain(..skip);
    bytes.truncate(len);
    bytes
}

/// What is wrong with bytes that are not those of the offset `at`: a word among them tells where it belongs.
fn told(tag: u32, at: u64, came: &[u8]) -> Told {
    let right = bytes_of(tag, at, came.len()).iter().zip(came).take_while(|(one, other)| one == other).count();
    let (at, came) = (at + right as u64, &came[right..]);
    let found = (0..came.len().min(8)).find_map(|shift| {
        let words: [u8; 16] = came.get(shift..shift + 16)?.try_into().ok()?;
        let word = u64::from_be_bytes(words[..8].try_into().ok()?);
        let index = word & 0xff_ffff_ffff;
        (bytes_of(tag, index * 8, 16) == words).then(|| (index * 8).wrapping_sub(shift as u64))
    });
    match found {
        Some(found) if found > at => Told { lost: found - at, ..Told::default() },
        Some(found) if found < at => Told { doubled: at - found, ..Told::default() },
        _ => Told { changed: came.len() as u64, ..Told::default() },
    }
}

#[test]
fn fixture_the_checker_tells_lost_from_doubled_from_changed() {
    let sent = bytes_of(7, 0, 4000);
    for at in [0, 1, 8, 1003] {
        let flow = |arrived: usize| {
            let flow = Flow::new(7);
            *flow.state.lock().unwrap() = State { sent: 4000, arrived: arrived as u64, ..State::default() };
            flow
        };
        assert!(flow(at).check(&sent[at..at + 500]).is_ok());
        let lost = flow(at);
        lost.check(&[&sent[at..at + 100], &sent[at + 105..at + 500]].concat()).unwrap_err();
        assert_eq!(lost.told(), Told { lost: 5, ..Told::default() });
        let doubled = flow(at + 200);
        doubled.check(&sent[at + 187..at + 500]).unwrap_err();
        assert_eq!(doubled.told(), Told { doubled: 13, ..Told::default() });
        let changed = flow(at);
        changed.check(&[0xee; 64]).unwrap_err();
        assert_eq!(changed.told(), Told { changed: 64, ..Told::default() });
    }
    assert!(Flow::new(7).check(&sent[..8]).is_err(), "bytes that nobody has sent");
}
