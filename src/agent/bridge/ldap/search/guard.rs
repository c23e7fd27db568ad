//! What stands between the client library and a directory. The library recurses into whatever BER it reads and panics on much of it, so that
//! one reply could end the process; here each message is read first, and what is passed on has been written here or is known to be sound.
//! What may be asked and shown is decided by the target's rules, as for every other client. It refuses to know what is searched.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::base::code::Code;
use crate::base::limits::{LDAP_REQUEST, LDAP_RESPONSE, SEARCH_ELEMENT, SEARCH_QUEUE, SEARCH_WINDOW};
use crate::ldap::ber::{Element, Malformed, Writer, take_message, tag};
use crate::ldap::message::request::Request;
use crate::ldap::message::response::{Entry, Response};
use crate::ldap::message::{Message, Operation, answer};
use crate::wire::refusal::Refusal;

/// The control by which a directory says where its next page begins (RFC 2696).
const PAGED_RESULTS: &str = "1.2.840.113556.1.4.319";

/// One conversation of the library's with a directory.
pub(super) struct Guard {
    window: Window,
    /// The operation that has no end yet. The library has one at a time.
    asked: Mutex<Option<(u32, Operation)>>,
    /// Why the conversation was ended, if it was.
    why: OnceLock<Refusal>,
}

/// How far the directory may be ahead of whoever takes what it finds: the library itself would queue without end.
struct Window {
    room: Arc<Semaphore>,
    sent: mpsc::Sender<OwnedSemaphorePermit>,
}

/// The other end of the window: one permit for each thing that was found, in their order.
pub(super) struct Taken(mpsc::Receiver<OwnedSemaphorePermit>);

/// A message for the library.
struct Passed {
    bytes: Vec<u8>,
    /// What it weighs if it waits for its taker.
    weight: Option<usize>,
}

impl Guard {
    pub(super) fn new() -> (Self, Taken) {
        let (sent, taken) = mpsc::channel(SEARCH_QUEUE);
        let window = Window { room: Arc::new(Semaphore::new(SEARCH_WINDOW)), sent };
        (Self { window, asked: Mutex::new(None), why: OnceLock::new() }, Taken(taken))
    }

    /// Passes messages both ways until one side ends, or one is not to be passed. The library sees an end then, and `why` says more.
    pub(super) async fn relay<D: AsyncRead + AsyncWrite>(&self, library: UnixStream, directory: D) {
        let (from_library, to_library) = library.into_split();
        let (from_directory, to_directory) = tokio::io::split(directory);
        let ended = tokio::select! {
            ended = self.up(from_library, to_directory) => ended,
            ended = self.down(from_directory, to_library) => ended,
        };
        if let Err(refusal) = ended {
            let _ = self.why.set(refusal);
        }
    }

    /// Why the conversation was ended, if the library is not to blame.
    pub(super) fn why(&self) -> Option<Refusal> {
        self.why.get().cloned()
    }

    async fn up(&self, mut library: impl AsyncRead + Unpin, mut directory: impl AsyncWrite + Unpin) -> Result<(), Refusal> {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(message) = take_message(&mut buffer, LDAP_REQUEST).map_err(unsent)? {
                self.note(&message).map_err(unsent)?;
                directory.write_all(&message).await.map_err(lost)?;
            }
            directory.flush().await.map_err(lost)?;
            if library.read_buf(&mut buffer).await.map_err(lost)? == 0 {
                return Ok(());
            }
        }
    }

    async fn down(&self, mut directory: impl AsyncRead + Unpin, mut library: impl AsyncWrite + Unpin) -> Result<(), Refusal> {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(message) = take_message(&mut buffer, LDAP_RESPONSE).map_err(invalid)? {
                let Some(Passed { bytes, weight }) = self.admit(&message)? else { continue };
                if let Some(weight) = weight {
                    self.window.pass(weight).await;
                }
                // The library ends when it has what it wanted.
                if library.write_all(&bytes).await.is_err() {
                    return Ok(());
                }
            }
            if directory.read_buf(&mut buffer).await.map_err(lost)? == 0 {
                return Err(Refusal::new(Code::TargetReset, "the directory closed the connection in the middle"));
            }
        }
    }

    /// Keeps in mind what the directory is asked.
    fn note(&self, message: &Bytes) -> Result<(), Malformed> {
        let message = Message::parse(message)?;
        if let Some(operation) = Request::read(&message)?.operation() {
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some((message.id, operation));
        }
        Ok(())
    }

    /// What of a directory's message the library may read, written so that it can.
    fn admit(&self, message: &Bytes) -> Result<Option<Passed>, Refusal> {
        let message = Message::parse(message).map_err(invalid)?;
        let response = Response::read(&message).map_err(invalid)?;
        if message.id == 0 {
            return Err(unasked(&response));
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = asked.filter(|(id, _)| *id == message.id).map(|(_, operation)| operation);
        match (response, operation) {
            (Response::Entry(entry), Some(Operation::Search)) => passed_entry(message.id, entry).map(Some).map_err(invalid),
            (Response::Reference, Some(Operation::Search)) => Ok(Some(passed_reference(&message))),
            (Response::Intermediate, Some(_)) => Ok(None),
            (Response::Done(operation, done), Some(expected)) if operation == expected => {
                let page = page(&message).map_err(invalid)?;
                *asked = None;
                let (matched, diagnostic) = (done.matched, done.diagnostic);
                let bytes = answer::done_as(message.id, operation, done.code, matched, diagnostic, &page);
                Ok(Some(Passed { bytes, weight: None }))
            }
            _ => Err(Refusal::new(Code::DirectoryInvalid, format_args!("an answer to nothing that was asked, with id {}", message.id))),
        }
    }
}

impl Window {
    /// Waits for room for one more message.
    async fn pass(&self, weight: usize) {
        let weight = u32::try_from(weight.min(SEARCH_WINDOW)).expect("a window of some MiB");
        let permit = self.room.clone().acquire_many_owned(weight).await.expect("nobody closes it");
        // When nobody takes any more, nobody searches any more.
        let _ = self.sent.send(permit).await;
    }
}

impl Taken {
    /// The room of the next thing found, which is free again when this is dropped.
    pub(super) async fn next(&mut self) -> Option<OwnedSemaphorePermit> {
        self.0.recv().await
    }
}

/// An entry without what extends it.
fn passed_entry(id: u32, mut entry: Entry<'_>) -> Result<Passed, Malformed> {
    let (mut attributes, mut elements) = (Vec::new(), 3);
    while let Some(attribute) = entry.next_attribute()? {
        elements += 3 + values(attribute.whole)?;
        attributes.push(attribute.whole);
    }
    let bytes = answer::entry(id, entry.name, &attributes, &[]);
    let weight = Some(bytes.len() + elements * SEARCH_ELEMENT);
    Ok(Passed { bytes, weight })
}

/// How many values an attribute has.
fn values(attribute: &[u8]) -> Result<usize, Malformed> {
    let mut parts = Element::only(attribute, "an attribute")?.children();
    parts.expect(tag::OCTETS, "an attribute's name")?;
    let mut values = parts.expect(tag::SET, "an attribute's values")?.children();
    let mut count = 0;
    while values.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

fn passed_reference(message: &Message<'_>) -> Passed {
    let bytes = answer::message(message.id, &[], |writer| writer.whole(message.op.whole));
    // A URI has two bytes at least.
    let weight = bytes.len() + bytes.len() / 2 * SEARCH_ELEMENT;
    Passed { bytes, weight: Some(weight) }
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

/// A directory that speaks unasked takes its leave (RFC 4511, 4.4.1).
fn unasked(response: &Response<'_>) -> Refusal {
    match response {
        Response::Done(Operation::Extended, done) if done.oid.is_none_or(|oid| oid == answer::NOTICE_OF_DISCONNECTION) => {
            Refusal::new(Code::TargetReset, format_args!("the directory closes the connection: {}", done.diagnostic))
        }
        _ => Refusal::new(Code::DirectoryInvalid, "an answer with the id 0"),
    }
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

#[cfg(test)]
mod tests;
