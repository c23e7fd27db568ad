//! The bytes of a lane, whichever connection they travel on: how many have come, what has gone out and may have to go again, and the
//! framing of both. Refuses to know sockets and tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::batch::Batch;
use super::retained::Retained;
use super::{Shared, Side};
use crate::base::code::{Code, Failure};
use crate::base::limits::{ACKNOWLEDGE_BYTES, EMPTY_FRAMES_PER_SECOND, SENT_MESSAGE};
use crate::tunnel::lane::Heart;
use crate::tunnel::websocket::{Decoder, Event, MAX_HEAD, Opcode, Sender, head};
use crate::wire::farewell;
use crate::wire::heartbeat::Heartbeat;

/// Echoes that wait to be sent; an honest peer asks for one in two seconds.
const ECHOES: usize = 64;

/// The two directions of a lane.
pub(super) struct Flow {
    shared: Arc<Shared>,
    sender: Sender,
    retained: Retained,
    /// Bytes of streams that have come since the lane began, and how many of them the peer has been told of.
    received: u64,
    told: u64,
    /// Whether the peer keeps what it has sent until it is told.
    acknowledges: bool,
    /// What the peer must have before it knows of the lane.
    introduction: u64,
}

/// What one connection has to say beside the lane's bytes.
pub(super) struct Aside {
    pub(super) heart: Heart,
    pub(super) echoes: VecDeque<Bytes>,
    /// Whether an acknowledgement is due.
    pub(super) acknowledge: bool,
    empties: Empties,
}

/// Why a connection can't go on.
pub(super) enum Break {
    /// It is gone, and another one may go on.
    Broken(Failure),
    /// The peer has said farewell, or breaks the rules.
    Over(Failure),
}

impl Aside {
    pub(super) fn new(heart: Heart, echo: Option<Bytes>) -> Self {
        Self { heart, echoes: echo.into_iter().collect(), acknowledge: false, empties: Empties::default() }
    }
}

impl Flow {
    pub(super) fn new(shared: Arc<Shared>, side: Side) -> Self {
        let sender = match side {
            Side::Agent => Sender::Client,
            Side::Gateway => Sender::Server,
        };
        Self { shared, sender, retained: Retained::default(), received: 0, told: 0, acknowledges: false, introduction: 0 }
    }

    /// Reads what the peer's end of a connection sends.
    pub(super) fn decoder(&self) -> Decoder {
        Decoder::new(self.sender.other())
    }

    #[cfg(test)]
    pub(super) fn retains_within(&mut self, budget: &'static crate::base::memory::Budget) {
        self.retained.memory = budget.account();
    }

    #[cfg(test)]
    pub(super) fn retained_cost(&self) -> usize {
        self.retained.cost()
    }

    /// Bytes of streams that have come since the lane began.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the lane can go on after a break.
    pub(super) fn resumable(&mut self, resumable: bool) {
        self.acknowledges = resumable;
        if !resumable {
            self.retained.forget();
        }
    }

    /// The peer does not know of the lane unless it has all that was sent so far.
    pub(super) fn introduces(&mut self) {
        self.introduction = self.retained.sent();
    }

    /// Whether the peer knows of the lane, so that it may come back to it.
    pub(super) fn is_known(&self) -> bool {
        self.retained.acknowledged() >= self.introduction
    }

    /// The peer says how far it has got, so that another connection can go on from there.
    pub(super) fn has_got(&mut self, offset: u64) -> Result<(), Failure> {
        let got = self.retained.check(offset).and_then(|()| self.retained.acknowledge(offset));
        got.map(drop).map_err(|error| Failure::new(Code::LaneRefused, error))
    }

    /// A new connection goes on from there.
    pub(super) fn rewind(&mut self, offset: u64) -> Result<(), Failure> {
        self.told = self.received;
        self.retained.rewind(offset).map_err(|error| Failure::new(Code::LaneRefused, error))
    }

    /// What is to be done each heartbeat, also without a connection; an error ends the lane.
    pub(super) fn tick(&mut self) -> Result<(), Failure> {
        self.shared.drive(|engine| engine.tick(Instant::now()));
        if self.retained.gives_way() {
            let detail = "memory is tight, and the other end has not acknowledged what is kept for it";
            return Err(Failure::new(Code::MemoryBudget, detail));
        }
        Ok(())
    }

    /// There will be no other connection.
    pub(super) fn last(&mut self) {
        self.retained.forget();
    }

    /// Nothing goes out any more.
    pub(super) fn clear(&mut self) {
        self.retained.clear();
    }

    /// Whether the peer is to be told of bytes that came.
    pub(super) fn owes(&self) -> bool {
        self.acknowledges && self.received > self.told
    }

    /// Takes what came on a connection.
    pub(super) fn receive(
        &mut self,
        decoder: &mut Decoder,
        inbound: &mut BytesMut,
        aside: &mut Aside,
        now: Instant,
    ) -> Result<(), Break> {
        let Self { shared, sender, received, retained, .. } = self;
        let (shared, peers, mut moved) = (shared.clone(), sender.other(), false);
        let decoded = shared.drive(|engine| {
            while let Some(event) = decoder.next(inbound).map_err(violation)? {
                match event {
                    Event::Data(bytes) if bytes.is_empty() => aside.empties.count(now)?,
                    Event::Data(bytes) => {
                        *received += bytes.len() as u64;
                        engine.receive(bytes, now).map_err(violation)?;
                    }
                    Event::Ping(bytes) => {
                        if let Some(beat) = Heartbeat::from_bytes(&bytes).filter(|beat| beat.kind == Heartbeat::PING) {
                            let news = retained.acknowledge(beat.received).map_err(violation)?;
                            moved |= news;
                            if !news {
                                aside.heart.without_news();
                            }
                        }
                        if aside.echoes.len() < ECHOES {
                            aside.echoes.push_back(bytes);
                        } else {
                            // Who asks so often can't want each answered.
                            aside.empties.count(now)?;
                        }
                    }
                    Event::Pong(bytes) => match Heartbeat::from_bytes(&bytes) {
                        Some(word) if word.kind == Heartbeat::ACKNOWLEDGEMENT => {
                            moved |= retained.acknowledge(word.received).map_err(violation)?;
                        }
                        Some(echo) if echo.kind == Heartbeat::PING => {
                            if let Some(echo) = aside.heart.echoed(echo, now) {
                                engine.round_trip = echo.round_trip;
                                retained.acknowledge(echo.offset).map_err(violation)?;
                                moved = true;
                            }
                        }
                        _ => {}
                    },
                    Event::Close(payload) => return Err(farewell_of(peers, &payload)),
                }
            }
            Ok(())
        });
        if moved {
            aside.heart.moved(self.retained.outstanding(), now);
        }
        // It asks, and what it is answered goes out beyond the room; who takes all of that and acknowledges nothing is no peer.
        if self.retained.is_overfull() {
            return Err(violation("the peer asks on and acknowledges nothing"));
        }
        if self.acknowledges && self.received - self.told >= ACKNOWLEDGE_BYTES {
            aside.acknowledge = true;
        }
        decoded
    }

    /// Frames what is to go out next: heartbeats and echoes, one message, an acknowledgement.
    pub(super) fn fill(&mut self, aside: &mut Aside, outbound: &mut VecDeque<Bytes>) {
        if let Some(beat) = aside.heart.take_due(self.received, self.retained.gone_out()) {
            self.told = self.received;
            outbound.push_back(self.control(Opcode::Ping, &beat));
        }
        while let Some(echo) = aside.echoes.pop_front() {
            outbound.push_back(self.control(Opcode::Pong, &echo));
        }
        if self.message(outbound) {
            aside.heart.waits();
        }
        // Beside something else it costs next to nothing, so it need not be due.
        let rides = !outbound.is_empty() && self.received - self.told >= ACKNOWLEDGE_BYTES / 16;
        if (std::mem::take(&mut aside.acknowledge) || rides) && self.owes() {
            self.told = self.received;
            let word = Heartbeat { kind: Heartbeat::ACKNOWLEDGEMENT, sequence: 0, received: self.received };
            outbound.push_back(self.control(Opcode::Pong, &word.to_bytes()));
        }
    }

    /// One message of what goes out again, else of what is new; `false` when there is nothing.
    fn message(&mut self, outbound: &mut VecDeque<Bytes>) -> bool {
        if let Some((parts, length)) = self.retained.take_again() {
            let (head, len) = head(self.sender, Opcode::Binary, length);
            outbound.push_back(Bytes::copy_from_slice(&head[..len]));
            outbound.extend(parts);
            return true;
        }
        let mut batch = Batch::new(MAX_HEAD, SENT_MESSAGE);
        let has_room = self.retained.has_room();
        self.shared.drive(|engine| if has_room { engine.gather(&mut batch) } else { engine.gather_answers(&mut batch) });
        if batch.is_empty() {
            return false;
        }
        let (head, len) = head(self.sender, Opcode::Binary, batch.len());
        batch.finish(&head[..len], outbound, |part| self.retained.send(part.clone()));
        true
    }

    /// The last frame of all, with what the lane ends with.
    pub(super) fn close(&self, code: Code) -> Bytes {
        self.control(Opcode::Close, &farewell::payload(code, reasons(self.sender)))
    }

    /// A control frame.
    fn control(&self, opcode: Opcode, payload: &[u8]) -> Bytes {
        let (head, len) = head(self.sender, opcode, payload.len());
        [&head[..len], payload].concat().into()
    }
}

/// Frames that ask for work and bring nothing, in this second.
#[derive(Default)]
struct Empties {
    count: u32,
    since: Option<Instant>,
}

impl Empties {
    fn count(&mut self, now: Instant) -> Result<(), Break> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since).as_secs() >= 1) {
            *self = Self { count: 0, since: Some(now) };
        }
        self.count += 1;
        if self.count > EMPTY_FRAMES_PER_SECOND {
            return Err(violation("more than 1,000 empty frames in a second"));
        }
        Ok(())
    }
}

/// What one end may give as its reason to close.
fn reasons(of: Sender) -> &'static [Code] {
    match of {
        Sender::Client => farewell::OF_AGENTS,
        Sender::Server => farewell::OF_GATEWAYS,
    }
}

fn farewell_of(peer: Sender, payload: &[u8]) -> Break {
    let code = farewell::reason(payload, reasons(peer)).unwrap_or(Code::LinkClosed);
    Break::Over(Failure::new(code, "closed by the peer"))
}

fn violation(what: impl std::fmt::Display) -> Break {
    Break::Over(Failure::new(Code::ProtocolViolation, what))
}
