//! The client of a directory: searches one after another on one connection, with TLS or without. Refuses to know through what
//! it connects; of LDAP (RFC 4511) it knows one search and its answer.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::connect;
use super::protocol::Times;
use crate::directory::{ENTRIES, HOST, SUFFIX};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const EQUALITY: u8 = 0xa3;
const WHOLE_SUBTREE: u8 = 2;

/// One read of an answer; answers are smaller.
const CHUNK: usize = 16 * 1024;

/// Searches for one entry after another by its `uid` for a time. With the root's file over TLS, else without.
pub(crate) fn search(to: SocketAddr, root: Option<&Path>, run_ms: u64) -> Result<Times> {
    let socket = connect(to)?;
    match root {
        None => search_on(socket, run_ms),
        Some(root) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(root)? {
                roots.add(certificate?)?;
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            let config = config.with_root_certificates(roots).with_no_client_auth();
            let session = ClientConnection::new(Arc::new(config), ServerName::try_from(HOST)?)?;
            search_on(StreamOwned::new(session, socket), run_ms)
        }
    }
}

fn search_on(mut stream: impl Read + Write, run_ms: u64) -> Result<Times> {
    let (run, mut nanos, mut buffer) = (Duration::from_millis(run_ms), Vec::new(), vec![0; CHUNK]);
    // The first search includes the opening of the connection, which other figures are about.
    search_once(&mut stream, &mut buffer, 1)?;
    let start = Instant::now();
    for id in 2.. {
        if start.elapsed() >= run {
            break;
        }
        let sent = Instant::now();
        search_once(&mut stream, &mut buffer, id)?;
        nanos.push(sent.elapsed().as_nanos() as u64);
    }
    Times::of(nanos).context("no search was answered")
}

fn search_once(stream: &mut (impl Read + Write), buffer: &mut [u8], id: u32) -> Result<()> {
    stream.write_all(&request(id)).context("sending a search")?;
    let (mut filled, mut read, mut entries) = (0, 0, 0);
    loop {
        while let Some((operation, end)) = message(&buffer[read..filled], id)? {
            read += end;
            match operation {
                [SEARCH_ENTRY, ..] => entries += 1,
                [SEARCH_DONE, _, ENUMERATED, 1, code, ..] => {
                    ensure!(*code == 0 && entries == 1 && read == filled, "result code {code} and {entries} entries");
                    return Ok(());
                }
                other => anyhow::bail!("an unexpected answer: {other:02x?}"),
            }
        }
        let bytes = stream.read(&mut buffer[filled..]).context("reading an answer")?;
        ensure!(bytes > 0, "the connection ended instead of an answer");
        filled += bytes;
    }
}

/// The operation in the message at the start of a buffer, and where the message ends; none until it is whole.
fn message(buffer: &[u8], id: u32) -> Result<Option<(&[u8], usize)>> {
    let Some((content, end)) = element(buffer, SEQUENCE)? else { return Ok(None) };
    let (number, start) = element(content, INTEGER)?.context("a message without an id")?;
    ensure!(number == integer(id), "an answer to another request: {number:02x?}");
    Ok(Some((&content[start..], end)))
}

/// The content of the element at the start of a buffer, and where the element ends; none until it is whole.
fn element(buffer: &[u8], tag: u8) -> Result<Option<(&[u8], usize)>> {
    let [first, length, ..] = *buffer else { return Ok(None) };
    ensure!(first == tag, "an element {first:#04x} instead of {tag:#04x}");
    // Lengths above 127 come with the number of their bytes in front.
    let more = if length < 0x80 { 0 } else { usize::from(length & 0x7f) };
    ensure!(more <= 4, "a length of {more} bytes");
    let Some(bytes) = buffer.get(2..2 + more) else { return Ok(None) };
    let length = if more == 0 { usize::from(length) } else { bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) };
    let end = 2 + more + length;
    Ok(buffer.get(2 + more..end).map(|content| (content, end)))
}

/// A search for the entry whose turn it is.
fn request(id: u32) -> Vec<u8> {
    // A step that reaches every entry, and not its neighbour.
    let uid = format!("u{}", u64::from(id) * 7_919 % ENTRIES as u64);
    let filter = encode(EQUALITY, &[encode(OCTET_STRING, &[b"uid".to_vec()]), encode(OCTET_STRING, &[uid.into_bytes()])]);
    let attributes = ["cn", "mail"].map(|name| encode(OCTET_STRING, &[name.into()]));
    let search = [
        encode(OCTET_STRING, &[SUFFIX.into()]),
        encode(ENUMERATED, &[vec![WHOLE_SUBTREE]]),
        // Aliases are not followed, and there is no limit of size or time.
        encode(ENUMERATED, &[vec![0]]),
        encode(INTEGER, &[vec![0]]),
        encode(INTEGER, &[vec![0]]),
        // Values, too, and not types only.
        encode(BOOLEAN, &[vec![0]]),
        filter,
        encode(SEQUENCE, &attributes),
    ];
    encode(SEQUENCE, &[encode(INTEGER, &[integer(id)]), encode(SEARCH_REQUEST, &search)])
}

/// A number as it is encoded: no more bytes than needed, and the first bit is the sign.
fn integer(number: u32) -> Vec<u8> {
    let bytes = u64::from(number).to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
    bytes[if bytes[first] < 0x80 { first } else { first - 1 }..].to_vec()
}

/// An element of less than 128 bytes.
fn encode(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let content = parts.concat();
    debug_assert!(content.len() < 0x80, "the length takes one byte");
    [&[tag, content.len() as u8], &content[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_no_more_bytes_than_needed() {
        assert_eq!([0, 127, 128, 256].map(integer), [vec![0], vec![127], vec![0, 128], vec![1, 0]]);
    }

    #[test]
    fn a_message_is_read_once_it_is_whole() {
        let request = request(300);
        let (operation, end) = message(&request, 300).expect("a message").expect("a whole one");
        assert_eq!((operation[0], end), (SEARCH_REQUEST, request.len()));
        assert!(message(&request[..request.len() - 1], 300).expect("the start of one").is_none());
        assert!(message(&request, 299).is_err());
    }

    #[test]
    fn long_lengths_are_read() {
        let long = [&[OCTET_STRING, 0x82, 0x01, 0x00], &[7; 256][..], &[9]].concat();
        let (content, end) = element(&long, OCTET_STRING).expect("an element").expect("a whole one");
        assert_eq!((content.len(), end), (256, 260));
    }
}
