//! For tests: both ends of a tunnel in one process, over an in-memory pipe, and a peer that keeps to no rule.

#[cfg(any(feature = "agent", feature = "gateway"))]
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
#[cfg(any(feature = "agent", feature = "gateway"))]
use serde_json::Value;
use tokio::io::DuplexStream;
#[cfg(any(feature = "agent", feature = "gateway"))]
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Io;
use super::mux::{self, Incoming, Link, Opener, Side};
use super::session::{Session, greet, welcome};
use super::upgrade::Upgraded;
use crate::base::id::{InstanceId, Name, SessionId};
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
#[cfg(any(feature = "agent", feature = "gateway"))]
use crate::observe::audit::Audit;
use crate::wire::hello::{Hello, Kind, Offer, VERSIONS, Welcome};
use crate::wire::refusal::Refusal;

/// One end of a mux.
pub(crate) struct Half {
    pub(crate) opener: Opener,
    pub(crate) incoming: Incoming,
    pub(crate) link: Link,
    pub(crate) tasks: Tasks,
}

/// A WebSocket without rules.
pub(crate) type Raw = WebSocketStream<DuplexStream>;

/// Bytes between the two ends that the "network" holds.
const NETWORK: usize = 64 * 1024;

/// The two ends of an upgraded connection; the agent's first.
pub(crate) fn pipes() -> (Upgraded, Upgraded) {
    let (agent, gateway) = tokio::io::duplex(NETWORK);
    (upgraded(agent, Side::Agent), upgraded(gateway, Side::Gateway))
}

/// An end of a connection, as the upgrade leaves it.
pub(crate) fn upgraded(io: impl Io + 'static, side: Side) -> Upgraded {
    Upgraded { io: Box::new(io), beats: u64::from(side == Side::Agent), echo: None, received: None }
}

pub(crate) fn half(upgraded: Upgraded, side: Side) -> Half {
    let tasks = Tasks::new();
    let (opener, incoming, link) = mux::start(upgraded, side, &tasks);
    Half { opener, incoming, link, tasks }
}

/// Two muxes joined; the agent's first.
pub(crate) async fn muxes() -> (Half, Half) {
    let (agent, gateway) = pipes();
    (half(agent, Side::Agent), half(gateway, Side::Gateway))
}

/// An upgraded connection, and what stands in for the agent at its other end.
pub(crate) async fn raw() -> (Raw, Upgraded) {
    let (agent, gateway) = tokio::io::duplex(NETWORK);
    (WebSocketStream::from_raw_socket(agent, Role::Client, None).await, upgraded(gateway, Side::Gateway))
}

/// A gateway's mux and what stands in for its agent.
pub(crate) async fn hostile() -> (Raw, Half) {
    let (raw, gateway) = raw().await;
    (raw, half(gateway, Side::Gateway))
}

pub(crate) fn hello(targets: &[&str]) -> Hello {
    let offer = |name: &&str| Offer { name: Name::parse(name).unwrap(), kind: Kind::Tcp };
    Hello {
        versions: VERSIONS,
        agent_version: "test".to_owned(),
        instance: InstanceId::fresh(),
        targets: targets.iter().map(offer).collect(),
        capacity: 100,
        capabilities: Vec::new(),
    }
}

pub(crate) fn welcomed(_: &Hello, version: u32) -> Result<Welcome, Refusal> {
    Ok(Welcome {
        version,
        gateway: InstanceId::fresh(),
        session: SessionId::fresh(),
        resume_secret: Some(Secret::new("c2VjcmV0")),
        resume_window: Duration::ZERO,
        direct_address: None,
        max_streams: 1024,
        max_lanes: 4,
    })
}

/// Two ends of a greeted session, the agent's first, and who owns their tasks.
pub(crate) async fn sessions(targets: &[&str]) -> (Session, Session, Tasks) {
    let (agent, gateway) = pipes();
    let tasks = Tasks::new();
    let (theirs, ours) = tokio::join!(greet(agent, hello(targets), &tasks), welcome(gateway, welcomed, &tasks));
    (theirs.unwrap().1, ours.unwrap().2, tasks)
}

/// A yamux frame; `length` is told, whatever the body.
pub(crate) fn frame(version: u8, kind: u8, flags: u16, stream: u32, length: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![version, kind];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

pub(crate) async fn send(raw: &mut Raw, bytes: Vec<u8>) {
    // The other end may have had enough of us already.
    let _ = raw.send(Message::Binary(bytes.into())).await;
}

/// Reads what comes until the connection ends.
pub(crate) async fn swallow(raw: &mut Raw) {
    while let Some(Ok(_)) = raw.next().await {}
}

#[cfg(any(feature = "agent", feature = "gateway"))]
/// The rows that were written, as they come.
pub(crate) struct Rows(broadcast::Receiver<Arc<str>>);

#[cfg(any(feature = "agent", feature = "gateway"))]
impl Rows {
    /// What is there now: each row's event, and its code if it has one.
    pub(crate) fn take(&mut self) -> Vec<String> {
        let mut rows = Vec::new();
        while let Ok(row) = self.0.try_recv() {
            let row: Value = serde_json::from_str(&row).unwrap();
            let part = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            rows.push(format!("{} {}", part("event"), part("code")).trim_end().to_owned());
        }
        rows
    }

    /// The next row, with all that it says.
    #[cfg(feature = "agent")]
    pub(crate) async fn next(&mut self) -> Value {
        serde_json::from_str(&self.0.recv().await.unwrap()).unwrap()
    }
}

#[cfg(any(feature = "agent", feature = "gateway"))]
/// An audit that keeps nothing but shows its rows.
pub(crate) fn audit() -> (Audit, Rows) {
    let (audit, rows) = Audit::discard().observed();
    (audit, Rows(rows))
}
