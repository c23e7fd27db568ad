//! What stands between the client library and a directory. The library recurses into whatever BER it reads and panics on much of it, so that
//! one reply could end the process; here each message is read first, and what is passed on has been written here or is known to be sound.
//! What may be asked and shown is decided by the target's rules, as for every other client. It refuses to know what is searched.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Mutex as AsyncMutex;

use super::super::relay::{Account, LOGIN_OUTLIVED};
use crate::base::code::Code;
use crate::base::limits::{LDAP_REQUEST, LDAP_RESPONSE, SEARCH_COPIES, SEARCH_ELEMENT, SEARCH_RESPONSE};
use crate::ldap::ber::{Element, Malformed, Writer, elements, message_len, tag, take_message};
use crate::ldap::message::response::Response;
use crate::ldap::message::{Message, answer};
use crate::rules::ldap::{Conversation, Denial, Down, Up};
use crate::wire::refusal::Refusal;

/// The control by which a directory says where its next page begins (RFC 2696).
const PAGED_RESULTS: &str = "1.2.840.113556.1.4.319";

/// One conversation of the library's with a directory.
pub(super) struct Guard<A> {
    /// Whose rules they are.
    target: String,
    account: A,
    conversation: Mutex<Conversation>,
    /// Why the conversation did not go on, if it was not the library that ended it. The first that was said.
    why: OnceLock<Refusal>,
}

impl<A: Account> Guard<A> {
    /// One for a conversation with a target, under the rules that its account has.
    pub(super) fn new(target: String, account: A) -> Self {
        let conversation = Mutex::new(Conversation::new(account.rules()));
        Self { target, account, conversation, why: OnceLock::new() }
    }

    /// Passes messages both ways until one side ends, or one is not to be passed. The library sees an end then, and [`Self::why`] says more.
    pub(super) async fn relay<D: AsyncRead + AsyncWrite>(&self, library: UnixStream, directory: D) {
        let (from_library, to_library) = library.into_split();
        let (from_directory, to_directory) = tokio::io::split(directory);
        let to_library = AsyncMutex::new(to_library);
        let ended = tokio::select! {
            biased;
            ended = self.up(from_library, to_directory, &to_library) => ended,
            ended = self.down(from_directory, &to_library) => ended,
        };
        if let Err(refusal) = ended {
            let _ = self.why.set(refusal);
        }
    }

    /// Why the conversation did not go on, if the library is not to blame: a denial, or what is wrong with the directory.
    pub(super) fn why(&self) -> Option<Refusal> {
        self.why.get().cloned()
    }

    async fn up<R, W>(&self, mut library: R, mut directory: W, answers: &AsyncMutex<OwnedWriteHalf>) -> Result<(), Refusal>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(message) = take_message(&mut buffer, LDAP_REQUEST).map_err(unsent)? {
                let up = self.conversation()?.client(&message).map_err(unsent)?;
                match up {
                    Up::Pass | Up::Last => directory.write_all(&message).await.map_err(lost)?,
                    Up::Replace(bytes) => directory.write_all(&bytes).await.map_err(lost)?,
                    Up::Answer(bytes, denial) => {
                        if let Some(denial) = denial {
                            let _ = self.why.set(self.denied(&denial));
                        }
                        if answers.lock().await.write_all(&bytes).await.is_err() {
                            return Ok(());
                        }
                    }
                    Up::Drop => {}
                }
            }
            directory.flush().await.map_err(lost)?;
            if library.read_buf(&mut buffer).await.map_err(lost)? == 0 {
                return Ok(());
            }
        }
    }

    async fn down<R: AsyncRead + Unpin>(&self, mut directory: R, library: &AsyncMutex<OwnedWriteHalf>) -> Result<(), Refusal> {
        // Nobody says when what was made of a message is gone: as much as of the heaviest may be there until the end.
        let (mut buffer, mut heaviest) = (BytesMut::new(), 0);
        loop {
            while let Some(message) = next_message(&mut buffer)? {
                heaviest = heaviest.max(weight(&message).map_err(invalid)?);
                self.hold(heaviest + buffer.capacity())?;
                let Some(bytes) = self.admit(&message)? else { continue };
                // The library ends when it has what it wanted.
                if library.lock().await.write_all(&bytes).await.is_err() {
                    return Ok(());
                }
            }
            if directory.read_buf(&mut buffer).await.map_err(lost)? == 0 {
                return Err(Refusal::new(Code::TargetReset, "the directory closed the connection in the middle"));
            }
            self.hold(heaviest + buffer.capacity())?;
        }
    }

    /// What of a directory's message the library may read.
    fn admit(&self, message: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let down = self.conversation()?.directory(message).map_err(invalid)?;
        match down {
            Down::Pass => written(message).map_err(invalid),
            Down::Replace(bytes) => written(&bytes).map_err(invalid),
            Down::Drop => Ok(None),
            Down::Last => Err(Refusal::new(Code::TargetReset, "the directory took its leave in the middle")),
        }
    }

    fn denied(&self, denial: &Denial) -> Refusal {
        self.account.denied(denial);
        Refusal::new(Code::RequestDenied, format_args!("{}: {}", denial.rule.of(&self.target), denial.why))
    }

    fn hold(&self, bytes: usize) -> Result<(), Refusal> {
        if self.account.holds(bytes) {
            return Ok(());
        }
        let why =
            format_args!("the search takes {bytes} bytes, and the streams of this target hold all that they may together");
        Err(Refusal::new(Code::MemoryBudget, why))
    }

    /// The conversation under the rules of this moment.
    fn conversation(&self) -> Result<MutexGuard<'_, Conversation>, Refusal> {
        let mut conversation = self.conversation.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = conversation.heed(&self.account.rules());
        goes_on.then_some(conversation).ok_or_else(|| Refusal::new(Code::TargetRemoved, LOGIN_OUTLIVED))
    }
}

/// A directory's next message, once it is whole; one that is too large as soon as it says so.
fn next_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, Refusal> {
    match message_len(buffer, LDAP_RESPONSE).map_err(invalid)? {
        Some(length) if length > SEARCH_RESPONSE => {
            let why =
                format_args!("one entry of {length} bytes; ask for fewer attributes: at most {SEARCH_RESPONSE} are taken");
            Err(Refusal::new(Code::SearchTooLarge, why))
        }
        _ => take_message(buffer, SEARCH_RESPONSE).map_err(invalid),
    }
}

/// What a message and all that is made of it take in memory.
fn weight(message: &[u8]) -> Result<usize, Malformed> {
    Ok(SEARCH_COPIES * message.len() + SEARCH_ELEMENT * elements(message)?)
}

/// A message that may be shown, written so that the library can read it: what it would stumble over is left out.
fn written(message: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let message = Message::parse(message)?;
    Ok(match Response::read(&message)? {
        Response::Entry(mut entry) => {
            let mut attributes = Vec::new();
            while let Some(attribute) = entry.next_attribute()? {
                attributes.push(attribute.whole);
            }
            Some(answer::entry(message.id, entry.name, &attributes, &[]))
        }
        Response::Reference => Some(answer::message(message.id, &[], |writer| writer.whole(message.op.whole))),
        Response::Intermediate => None,
        Response::Done(operation, done) => {
            let page = page(&message)?;
            Some(answer::done_as(message.id, operation, done.code, done.matched, done.diagnostic, &page))
        }
    })
}

/// The element of controls that says where the next page begins, if there is one.
fn page(message: &Message<'_>) -> Result<Vec<u8>, Malformed> {
    let controls = message.controls.read()?;
    let Some(value) = controls.iter().find(|control| control.oid == PAGED_RESULTS).and_then(|control| control.value) else {
        return Ok(Vec::new());
    };
    let what = "a page's control";
    let mut parts = Element::only(value, what)?.children();
    parts.expect(tag::INTEGER, what)?;
    let cookie = parts.expect(tag::OCTETS, what)?.content;
    parts.end(what)?;
    let mut writer = Writer::default();
    writer.constructed(tag::SEQUENCE, |writer| {
        writer.number(tag::INTEGER, 0);
        writer.octets(tag::OCTETS, cookie);
    });
    let value = writer.into_bytes();
    let mut writer = Writer::default();
    writer.constructed(tag::context_constructed(0), |writer| {
        writer.constructed(tag::SEQUENCE, |writer| {
            writer.octets(tag::OCTETS, PAGED_RESULTS.as_bytes());
            writer.octets(tag::OCTETS, &value);
        });
    });
    Ok(writer.into_bytes())
}

fn invalid(malformed: Malformed) -> Refusal {
    Refusal::new(Code::DirectoryInvalid, malformed)
}

fn unsent(malformed: Malformed) -> Refusal {
    Refusal::new(Code::RequestInvalid, format_args!("the search can't be sent: {malformed}"))
}

fn lost(error: std::io::Error) -> Refusal {
    Refusal::new(Code::TargetReset, error)
}
