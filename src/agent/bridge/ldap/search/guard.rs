//! What stands between the client library and a directory. The library recurses into whatever BER it reads and panics on much of it, so that
//! one reply could end the process; here each message is read first, and what is passed on has been written here or is known to be sound.
//! What may be asked and shown is decided by the target's rules, as for every other client. It refuses to know what is searched.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Mutex as AsyncMutex;

use crate::base::code::Code;
use crate::base::limits::{LDAP_REQUEST, LDAP_RESPONSE};
use crate::ldap::ber::{Element, Malformed, Writer, tag, take_message};
use crate::ldap::message::response::Response;
use crate::ldap::message::{Message, answer};
use crate::observe::metrics;
use crate::rules::ldap::{Conversation, Denial, Down, Rules, Up};
use crate::wire::refusal::Refusal;

/// The control by which a directory says where its next page begins (RFC 2696).
const PAGED_RESULTS: &str = "1.2.840.113556.1.4.319";

/// One conversation of the library's with a directory.
pub(super) struct Guard {
    /// Whose rules they are.
    target: String,
    conversation: Mutex<Conversation>,
    /// Why the conversation did not go on, if it was not the library that ended it. The first that was said.
    why: OnceLock<Refusal>,
}

impl Guard {
    /// One for a conversation under these rules of a target.
    pub(super) fn new(target: String, rules: Arc<Rules>) -> Self {
        Self { target, conversation: Mutex::new(Conversation::new(rules)), why: OnceLock::new() }
    }

    /// Passes messages both ways until one side ends, or one is not to be passed. The library sees an end then, and [`Self::why`] says more.
    pub(super) async fn relay<D: AsyncRead + AsyncWrite>(&self, library: UnixStream, directory: D) {
        let (from_library, to_library) = library.into_split();
        let (from_directory, to_directory) = tokio::io::split(directory);
        let to_library = AsyncMutex::new(to_library);
        let ended = tokio::select! {
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
                let up = self.conversation().client(&message).map_err(unsent)?;
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
        let mut buffer = BytesMut::new();
        loop {
            while let Some(message) = take_message(&mut buffer, LDAP_RESPONSE).map_err(invalid)? {
                let Some(bytes) = self.admit(&message)? else { continue };
                // The library ends when it has what it wanted.
                if library.lock().await.write_all(&bytes).await.is_err() {
                    return Ok(());
                }
            }
            if directory.read_buf(&mut buffer).await.map_err(lost)? == 0 {
                return Err(Refusal::new(Code::TargetReset, "the directory closed the connection in the middle"));
            }
        }
    }

    /// What of a directory's message the library may read.
    fn admit(&self, message: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let down = self.conversation().directory(message).map_err(invalid)?;
        match down {
            Down::Pass => written(message).map_err(invalid),
            Down::Replace(bytes) => written(&bytes).map_err(invalid),
            Down::Drop => Ok(None),
            Down::Last => Err(Refusal::new(Code::TargetReset, "the directory took its leave in the middle")),
        }
    }

    fn denied(&self, denial: &Denial) -> Refusal {
        metrics::ldap_denied(&self.target, denial.rule.as_str());
        Refusal::new(Code::RequestDenied, format_args!("{}: {}", denial.rule.of(&self.target), denial.why))
    }

    fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
