//! What travels on the streams of a simulation, at both ends: each byte follows from its stream and its offset, so each is checked for
//! its value. Refuses to know connections.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::book::{Book, Ended};
use super::chance::Chance;
use super::world::TARGET;
use crate::base::code::{Code, Failure};
use crate::base::id::RequestId;
use crate::base::limits::REPLY_DEADLINE;
use crate::base::random::mix;
use crate::tunnel::mux::Stream;
use crate::tunnel::session::{Notifier, Wired};
use crate::wire::open::{Open, Spoken};
use crate::wire::reply::Reply;

/// What the two ends of a stream do, as its first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// Which stream.
    pub(super) key: u64,
    pub(super) kind: Kind,
    /// Bytes of the client.
    pub(super) up: u64,
    /// Bytes of the agent.
    pub(super) down: u64,
    /// In a hundred chunks so many pauses.
    pub(super) pauses: u64,
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Both at once.
    Exchange,
    /// The agent's once the client has finished.
    Answer,
    /// A message, its answer, and so on.
    Chat,
    /// The client drops the stream in the middle.
    Abandon,
    /// The agent does.
    Refuse,
}

/// The dropped ones are rarer.
const KINDS: [Kind; 8] =
    [Kind::Exchange, Kind::Exchange, Kind::Answer, Kind::Answer, Kind::Chat, Kind::Chat, Kind::Abandon, Kind::Refuse];

/// Bytes of a message of a chat.
const MESSAGE: u64 = 100;

/// Bytes that say what is to be done.
const HEAD: usize = 33;

/// Pauses of one end of a stream, at most.
const PAUSES: u32 = 20;

/// A way of a stream.
#[derive(Clone, Copy)]
struct Way(u64);

/// How fast one end reads or writes.
struct Pace {
    chance: Chance,
    /// Of a hundred parts so many come after a pause.
    pauses: u64,
    /// So many pauses more at most.
    left: u32,
}

impl Task {
    pub(super) fn lot(key: u64, busy: bool, chance: &mut Chance) -> Self {
        let kind = chance.pick(&KINDS);
        let most = if kind == Kind::Chat { 2000 } else { chance.pick(&[0, 1000, 20_000, 200_000, 400_000]) };
        let most = if busy && kind != Kind::Chat { 400_000 } else { most };
        let (up, down) = (chance.within(0..=most), chance.within(0..=most));
        let down = if kind == Kind::Chat { up } else { down };
        Self { key, kind, up, down, pauses: chance.pick(&[0, 0, 5, 50]) }
    }

    fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[0] = u8::try_from(KINDS.iter().position(|kind| *kind == self.kind).unwrap_or(0)).unwrap_or(0);
        for (at, field) in [self.key, self.up, self.down, self.pauses].into_iter().enumerate() {
            head[1 + 8 * at..9 + 8 * at].copy_from_slice(&field.to_be_bytes());
        }
        head
    }

    fn read(head: &[u8; HEAD]) -> Option<Self> {
        let field = |at: usize| Some(u64::from_be_bytes(head[1 + 8 * at..9 + 8 * at].try_into().ok()?));
        let kind = *KINDS.get(usize::from(head[0]))?;
        Some(Self { key: field(0)?, kind, up: field(1)?, down: field(2)?, pauses: field(3)? })
    }

    fn upwards(&self) -> Way {
        Way(self.key << 1)
    }

    fn downwards(&self) -> Way {
        Way(self.key << 1 | 1)
    }
}

/// The client's end of a stream, to its end.
pub(super) async fn ask(task: Task, stream: Stream, lane: u32, notifier: &Notifier, book: &Book, moved: &dyn Moved) {
    let id = stream.id();
    let mut pace = Pace::new(&task, Chance::new(task.key));
    let mut wired = Wired::new(stream);
    let accepted = open(&mut wired).await;
    let (mut reader, mut writer) = tokio::io::split(wired.into_parts().0);
    let (up, down) = (task.upwards(), task.downwards());
    let done = async {
        accepted?;
        writer.write_all(&task.head()).await?;
        match task.kind {
            Kind::Exchange => {
                let (mut a, mut b) = (pace.fork(), pace.fork());
                tokio::try_join!(
                    up.send(&mut writer, task.up, &mut a, moved),
                    down.receive(&mut reader, task.down, &mut b, book, moved)
                )?;
            }
            Kind::Answer | Kind::Refuse => {
                up.send(&mut writer, task.up, &mut pace, moved).await?;
                down.receive(&mut reader, task.down, &mut pace, book, moved).await?;
            }
            Kind::Chat => {
                for at in messages(task.up) {
                    up.say(&mut writer, at, &mut pace).await?;
                    down.hear(&mut reader, at, book).await?;
                }
                writer.shutdown().await?;
                down.receive(&mut reader, 0, &mut pace, book, moved).await?;
            }
            Kind::Abandon => up.say(&mut writer, (0, task.up / 2), &mut pace).await?,
        }
        Ok(())
    };
    let done = done.await;
    if task.kind == Kind::Abandon && done.is_ok() {
        notifier.closing(lane, id, Code::ClientReset);
        return book.asked(task.key, Ended::Dropped);
    }
    let ended = ended(done, lane, id, notifier).await;
    book.asked(task.key, ended);
}

/// Asks for the target, and waits for leave.
async fn open(wired: &mut Wired<Stream>) -> io::Result<()> {
    let open = Open {
        request: RequestId::fresh(),
        target: TARGET.parse().expect("a name"),
        spoken: Spoken::Raw,
        caller: "sim".to_owned(),
        source: None,
        deadline: REPLY_DEADLINE,
        trace: None,
    };
    let lost = |failure| io::Error::new(io::ErrorKind::ConnectionAborted, failure);
    wired.send(&open).await.map_err(lost)?;
    match wired.receive().await.map_err(lost)? {
        Some(Reply::Accepted) => Ok(()),
        _ => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// The agent's end.
pub(super) async fn answer(mut wired: Wired<Stream>, lane: u32, notifier: &Notifier, book: &Book) {
    if wired.send(&Reply::Accepted).await.is_err() {
        return;
    }
    // Clients say nothing else before they are accepted.
    let stream = wired.into_parts().0;
    let id = stream.id();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut head = [0; HEAD];
    // A stream that is lost before it said anything is its client's to tell.
    if reader.read_exact(&mut head).await.is_err() {
        return;
    }
    let Some(task) = Task::read(&head).filter(|task| book.begun(task)) else {
        return book.wrong(format_args!("stream {id} of lane {lane} begins with {head:?}"));
    };
    let mut pace = Pace::new(&task, Chance::new(!task.key));
    let (up, down) = (task.upwards(), task.downwards());
    let done = async {
        match task.kind {
            Kind::Exchange => {
                let (mut a, mut b) = (pace.fork(), pace.fork());
                tokio::try_join!(
                    down.send(&mut writer, task.down, &mut a, &()),
                    up.receive(&mut reader, task.up, &mut b, book, &())
                )?;
            }
            Kind::Answer => {
                up.receive(&mut reader, task.up, &mut pace, book, &()).await?;
                down.send(&mut writer, task.down, &mut pace, &()).await?;
            }
            Kind::Chat => {
                for at in messages(task.up) {
                    up.hear(&mut reader, at, book).await?;
                    down.say(&mut writer, at, &mut pace).await?;
                }
                up.receive(&mut reader, 0, &mut pace, book, &()).await?;
                writer.shutdown().await?;
            }
            Kind::Abandon => {
                up.hear(&mut reader, (0, task.up / 2), book).await?;
                up.receive(&mut reader, task.up, &mut pace, book, &()).await?;
            }
            Kind::Refuse => {
                up.hear(&mut reader, (0, task.up / 2), book).await?;
                down.say(&mut writer, (0, task.down / 2), &mut pace).await?;
            }
        }
        Ok(())
    };
    let done = done.await;
    if task.kind == Kind::Refuse && done.is_ok() {
        notifier.closing(lane, id, Code::TargetReset);
        return book.answered(task.key, Ended::Dropped);
    }
    let ended = ended(done, lane, id, notifier).await;
    book.answered(task.key, ended);
}

/// Told of bytes that a client moves.
pub(super) trait Moved: Sync {
    fn moved(&self, bytes: usize);
}

impl Moved for () {
    fn moved(&self, _: usize) {}
}

/// The messages of a chat: where each begins, and where it ends.
fn messages(all: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..all.div_ceil(MESSAGE)).map(move |at| (at * MESSAGE, all.min((at + 1) * MESSAGE)))
}

async fn ended(done: io::Result<()>, lane: u32, id: u32, notifier: &Notifier) -> Ended {
    let Err(error) = done else { return Ended::Finished };
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()).map(|failure| failure.code);
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Ended::Reset(if told.is_some() { told } else { notifier.why_reset(lane, id).await })
        }
        _ => Ended::Lost(told.unwrap_or(Code::SessionLost)),
    }
}

impl Way {
    /// Its bytes from one offset to another.
    fn bytes(self, (from, to): (u64, u64)) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in (from / 8)..to.div_ceil(8) {
            bytes.extend_from_slice(&mix(&mut (self.0 ^ word << 32)).to_le_bytes());
        }
        bytes.truncate(usize::try_from(to - from / 8 * 8).unwrap_or(0));
        bytes.drain(..usize::try_from(from % 8).unwrap_or(0));
        bytes
    }

    async fn say(self, writer: &mut WriteHalf<Stream>, at: (u64, u64), pace: &mut Pace) -> io::Result<()> {
        pace.pause().await;
        writer.write_all(&self.bytes(at)).await
    }

    /// All its bytes, then the end of file.
    async fn send(self, writer: &mut WriteHalf<Stream>, all: u64, pace: &mut Pace, moved: &dyn Moved) -> io::Result<()> {
        let mut at = 0;
        while at < all {
            let next = all.min(at + 1 + pace.chance.any_size(20_000));
            self.say(writer, (at, next), pace).await?;
            moved.moved(usize::try_from(next - at).unwrap_or(0));
            at = next;
        }
        writer.shutdown().await
    }

    /// Reads so far.
    async fn hear(self, reader: &mut ReadHalf<Stream>, (from, to): (u64, u64), book: &Book) -> io::Result<()> {
        let mut heard = vec![0; usize::try_from(to - from).unwrap_or(0)];
        match reader.read_exact(&mut heard).await {
            Ok(_) => self.check(&heard, from, book),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                book.wrong(format_args!("way {:x} ended before {to}", self.0));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads to the end of file, which is after so many bytes.
    async fn receive(
        self,
        reader: &mut ReadHalf<Stream>,
        all: u64,
        pace: &mut Pace,
        book: &Book,
        moved: &dyn Moved,
    ) -> io::Result<()> {
        // What was heard before is not counted again.
        let mut at = 0;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            pace.pause().await;
            let read = reader.read(&mut buffer).await?;
            if read == 0 {
                if at != all {
                    book.wrong(format_args!("way {:x} ended after {at} of {all} bytes", self.0));
                }
                return Ok(());
            }
            moved.moved(read);
            self.check(&buffer[..read], at, book)?;
            at += read as u64;
        }
    }

    fn check(self, heard: &[u8], from: u64, book: &Book) -> io::Result<()> {
        let meant = self.bytes((from, from + heard.len() as u64));
        if heard != meant {
            let at = heard.iter().zip(&meant).position(|(a, b)| a != b).unwrap_or(0);
            book.wrong(format_args!("way {:x}: a wrong byte at {}", self.0, from + at as u64));
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }
}

impl Pace {
    fn new(task: &Task, chance: Chance) -> Self {
        Self { chance, pauses: task.pauses, left: PAUSES }
    }

    fn fork(&mut self) -> Self {
        Self { chance: self.chance.fork(), ..*self }
    }

    async fn pause(&mut self) {
        if self.left > 0 && self.chance.percent(self.pauses) {
            self.left -= 1;
            tokio::time::sleep(Duration::from_millis(self.chance.any_size(3000))).await;
        }
    }
}
