//! For tests: a directory that answers as they say, and searches of it.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::relay::Account;
use super::run::{Event, Search};
use crate::base::tasks::Tasks;
use crate::ldap::ber::{Writer, tag, take_message};
use crate::ldap::message::request::Request;
use crate::ldap::message::{Message, Operation, answer};
use crate::ldap::search::Query;
use crate::rules::ldap::{Denial, Rules};
use crate::tunnel::splice::Direction;

/// The control with the place of a page.
pub(super) const PAGED: &str = "1.2.840.113556.1.4.319";

/// A request as it came.
pub(super) struct Asked {
    pub(super) id: u32,
    pub(super) operation: Option<Operation>,
    pub(super) bytes: Vec<u8>,
}

impl Asked {
    /// The search that it is: its limit of entries, the size of its page and the page's place.
    pub(super) fn page(&self) -> (u32, Option<(u32, Vec<u8>)>) {
        let message = Message::parse(&self.bytes).unwrap();
        let Request::Search(search) = Request::read(&message).unwrap() else { panic!("not a search") };
        let controls = message.controls.read().unwrap();
        let page = controls.iter().find(|control| control.oid == PAGED).map(|control| {
            let value = crate::ldap::ber::Element::only(control.value.unwrap(), "a page").unwrap();
            let mut parts = value.children();
            let size = parts.next().unwrap().unwrap().number("a size").unwrap();
            (size, parts.next().unwrap().unwrap().content.to_vec())
        });
        (search.size_limit, page)
    }
}

/// The near end of a connection to a directory that sends what `reply` yields for each request, and closes the connection when
/// that is nothing.
pub(super) fn directory(mut reply: impl FnMut(&Asked) -> Vec<u8> + Send + 'static) -> DuplexStream {
    let (near, mut far) = duplex(64 * 1024);
    Tasks::new().spawn(async move {
        let mut buffer = BytesMut::new();
        while far.read_buf(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {
            while let Some(bytes) = take_message(&mut buffer, 1 << 20).unwrap() {
                let message = Message::parse(&bytes).unwrap();
                let operation = Request::read(&message).unwrap().operation();
                let answer = reply(&Asked { id: message.id, operation, bytes: bytes.to_vec() });
                if answer.is_empty() || far.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    });
    near
}

/// The rules in force, what may be held, and what was denied.
pub(super) struct Site {
    rules: Mutex<Arc<Rules>>,
    memory: usize,
    pub(super) denied: Mutex<Vec<String>>,
}

impl Site {
    pub(super) fn new(rules: &str, memory: usize) -> Arc<Self> {
        Arc::new(Self { rules: Mutex::new(Arc::new(serde_json::from_str(rules).unwrap())), memory, denied: Mutex::default() })
    }

    pub(super) fn reload(&self, rules: &str) {
        *self.rules.lock().unwrap() = Arc::new(serde_json::from_str(rules).unwrap());
    }
}

impl Account for Arc<Site> {
    fn rules(&self) -> Arc<Rules> {
        self.rules.lock().unwrap().clone()
    }

    fn denied(&self, denial: &Denial) {
        self.denied.lock().unwrap().push(denial.rule.to_string());
    }

    fn count(&self, _: Direction, _: usize) {}

    fn holds(&self, bytes: usize) -> bool {
        bytes <= self.memory
    }
}

/// A search under rules (YAML would say the same), over a directory.
pub(super) fn search(query: &str, rules: &str, directory: DuplexStream) -> Search {
    search_at(&Site::new(rules, usize::MAX), query, directory)
}

/// A search of a site's.
pub(super) fn search_at(site: &Arc<Site>, query: &str, directory: DuplexStream) -> Search {
    Search::over(directory, site.clone(), Query::parse(query.as_bytes()).unwrap())
}

/// Everything to its end.
pub(super) async fn all(mut search: Search) -> (Vec<Event>, Event) {
    let mut events = Vec::new();
    loop {
        match search.next().await {
            end @ Event::End(_) => return (events, end),
            event => events.push(event),
        }
    }
}

/// An entry of one value in each of these attributes.
pub(super) fn entry(id: u32, dn: &str, attributes: &[(&str, &[u8])]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let mut name = Writer::default();
    name.octets(tag::OCTETS, dn.as_bytes());
    answer::entry(id, &name.into_bytes(), &parts, &[])
}

fn attribute(name: &str, value: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.constructed(tag::SEQUENCE, |writer| {
        writer.octets(tag::OCTETS, name.as_bytes());
        writer.constructed(tag::SET, |writer| writer.octets(tag::OCTETS, value));
    });
    writer.into_bytes()
}

/// The end of a search, with the place of the next page.
pub(super) fn done(id: u32, code: u32, cookie: &[u8]) -> Vec<u8> {
    let mut value = Writer::default();
    value.constructed(tag::SEQUENCE, |value| {
        value.number(tag::INTEGER, 0);
        value.octets(tag::OCTETS, cookie);
    });
    let mut controls = Writer::default();
    controls.constructed(tag::context_constructed(0), |controls| {
        controls.constructed(tag::SEQUENCE, |control| {
            control.octets(tag::OCTETS, PAGED.as_bytes());
            control.octets(tag::OCTETS, &value.into_bytes());
        });
    });
    answer::done_as(id, Operation::Search, code, "", "", &controls.into_bytes())
}
