//! What the links are doing, for `underpass agent status`. It refuses to decide anything from it but one thing: which link
//! holds the session with a gateway instance.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::base::code::Failure;
use crate::base::endpoint::Endpoint;
use crate::base::id::{InstanceId, SessionId};
use crate::base::light::Tunnel;
use crate::tunnel::lane::Pulse;

/// One row for each endpoint.
pub struct Board(Mutex<BTreeMap<Endpoint, Row>>);

#[derive(Default)]
struct Row {
    proxy: Option<String>,
    session: Option<Connected>,
    last_error: Option<Failure>,
    next_attempt: Option<Instant>,
}

/// A session that a link holds.
#[derive(Clone)]
pub struct Connected {
    /// The gateway instance at its other end.
    pub gateway: InstanceId,
    /// Its id.
    pub session: SessionId,
    /// Its signs of life.
    pub pulse: Pulse,
    /// How many lanes it has.
    pub lanes: Arc<AtomicUsize>,
    /// Since when.
    pub since: Instant,
}

/// One endpoint, as printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkStatus {
    /// What is dialled.
    pub endpoint: String,
    /// Whether a session stands. One that is down is dialled now, or at the next attempt.
    pub tunnel: Tunnel,
    /// The proxy on the way, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The gateway instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<InstanceId>,
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Connections that carry the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<usize>,
    /// Seconds since the greeting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_s: Option<u64>,
    /// Milliseconds since the last frame came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_frame_age_ms: Option<u64>,
    /// The last heartbeat's round trip in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// Milliseconds until the next attempt, at a session or at the broken connection of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_ms: Option<u64>,
    /// Why there is no session, or no connection that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ErrorStatus>,
}

/// An error, as printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorStatus {
    /// A name of the codes' table.
    pub code: String,
    /// On what, and why.
    pub detail: String,
}

impl Board {
    pub(super) fn new(endpoints: &[Endpoint]) -> Self {
        Self(Mutex::new(endpoints.iter().map(|endpoint| (endpoint.clone(), Row::default())).collect()))
    }

    pub(super) fn connecting(&self, endpoint: &Endpoint) {
        self.change(endpoint, |row| {
            row.next_attempt = None;
        });
    }

    pub(super) fn via(&self, endpoint: &Endpoint, proxy: Option<String>) {
        self.change(endpoint, |row| row.proxy = proxy);
    }

    /// Takes the session with this gateway instance for the endpoint's link, unless another link has it.
    pub(super) fn claim(&self, endpoint: &Endpoint, connected: &Connected) -> bool {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |row: &Row| row.session.as_ref().is_some_and(|other| other.gateway == connected.gateway);
        if rows.iter().any(|(other, row)| other != endpoint && same(row)) {
            return false;
        }
        let row = rows.entry(endpoint.clone()).or_default();
        *row = Row { proxy: row.proxy.take(), session: Some(connected.clone()), ..Row::default() };
        true
    }

    pub(super) fn waiting(&self, endpoint: &Endpoint, why: Failure, next: Instant) {
        self.change(endpoint, |row| {
            row.session = None;
            row.last_error = Some(why);
            row.next_attempt = Some(next);
        });
    }

    /// The session's connection broke, or could not be replaced yet; the next attempt is made then, or right now.
    pub(super) fn resuming(&self, endpoint: &Endpoint, session: SessionId, why: Failure, next: Option<Instant>) {
        self.change_session(endpoint, session, |row| (row.last_error, row.next_attempt) = (Some(why), next));
    }

    /// The next attempt is being made.
    pub(super) fn tries(&self, endpoint: &Endpoint, session: SessionId) {
        self.change_session(endpoint, session, |row| row.next_attempt = None);
    }

    /// The session has a connection again.
    pub(super) fn resumed(&self, endpoint: &Endpoint, session: SessionId) {
        self.change_session(endpoint, session, |row| (row.last_error, row.next_attempt) = (None, None));
    }

    /// One that the link has left for another says nothing about it.
    fn change_session(&self, endpoint: &Endpoint, session: SessionId, change: impl FnOnce(&mut Row)) {
        self.change(endpoint, |row| {
            if row.session.as_ref().is_some_and(|held| held.session == session) {
                change(row);
            }
        });
    }

    fn change(&self, endpoint: &Endpoint, change: impl FnOnce(&mut Row)) {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(endpoint.clone()).or_default());
    }

    /// Every link, in the order of the endpoints.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().map(|(endpoint, row)| row.status(endpoint)).collect()
    }

    /// How long ago each session's last frame came.
    #[must_use]
    pub fn ages(&self) -> Vec<(Endpoint, Duration)> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().filter_map(|(endpoint, row)| Some((endpoint.clone(), row.session.as_ref()?.pulse.age()))).collect()
    }

    /// Whether at least one session is alive.
    #[must_use]
    pub fn connected(&self) -> bool {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.values().any(|row| row.session.as_ref().is_some_and(|session| session.pulse.alive()))
    }
}

impl Row {
    fn status(&self, endpoint: &Endpoint) -> LinkStatus {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let session = self.session.as_ref();
        let tunnel = match session {
            Some(session) if session.pulse.is_paused() => Tunnel::Resuming,
            Some(session) if session.pulse.alive() => Tunnel::Connected,
            Some(_) => Tunnel::Silent,
            None => Tunnel::Down,
        };
        let round_trip = session.and_then(|session| session.pulse.round_trip());
        LinkStatus {
            endpoint: endpoint.to_string(),
            tunnel,
            proxy: self.proxy.clone(),
            gateway: session.map(|session| session.gateway),
            session: session.map(|session| session.session),
            lanes: session.map(|session| session.lanes.load(Ordering::Relaxed)),
            connected_s: session.map(|session| session.since.elapsed().as_secs()),
            last_frame_age_ms: session.map(|session| millis(session.pulse.age())),
            round_trip_us: round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            next_attempt_ms: self.next_attempt.map(|at| millis(at.saturating_duration_since(Instant::now()))),
            last_error: self
                .last_error
                .as_ref()
                .map(|failure| ErrorStatus { code: failure.code.to_string(), detail: failure.detail.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::code::Code;

    fn connected(gateway: InstanceId) -> Connected {
        let lanes = Arc::new(AtomicUsize::new(1));
        Connected { gateway, session: SessionId::fresh(), pulse: Pulse::new(), lanes, since: Instant::now() }
    }

    fn tunnels(board: &Board) -> Vec<Tunnel> {
        board.links().into_iter().map(|link| link.tunnel).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_link_holds_the_session_with_a_gateway_instance_until_it_lets_go() {
        let endpoints: Vec<Endpoint> = ["wss://a", "wss://b"].iter().map(|text| text.parse().unwrap()).collect();
        let (a, b) = (&endpoints[0], &endpoints[1]);
        let board = Board::new(&endpoints);
        let (gateway, other) = (connected(InstanceId::fresh()), connected(InstanceId::fresh()));
        assert!(board.claim(a, &gateway));
        assert!(!board.claim(b, &connected(gateway.gateway)), "the same instance through another endpoint");
        assert!(board.claim(a, &connected(gateway.gateway)), "its own, anew");
        assert!(board.claim(b, &other));
        board.waiting(a, Failure::new(Code::LinkClosed, "x"), Instant::now());
        board.waiting(b, Failure::new(Code::LinkClosed, "x"), Instant::now());
        assert!(!board.connected());
        assert!(board.claim(b, &connected(gateway.gateway)), "let go by the first");
    }

    #[tokio::test(start_paused = true)]
    async fn connected_means_that_frames_come() {
        let endpoint: Endpoint = "wss://a".parse().unwrap();
        let board = Board::new(std::slice::from_ref(&endpoint));
        assert_eq!(tunnels(&board), [Tunnel::Down]);
        board.connecting(&endpoint);
        assert_eq!(tunnels(&board), [Tunnel::Down]);
        board.claim(&endpoint, &connected(InstanceId::fresh()));
        assert!(board.connected());
        assert_eq!(tunnels(&board), [Tunnel::Connected]);
        tokio::time::advance(crate::base::limits::DEAD_AFTER).await;
        assert!(!board.connected());
        assert_eq!(tunnels(&board), [Tunnel::Silent]);
        board.waiting(&endpoint, Failure::new(Code::LinkDead, "x"), Instant::now());
        assert_eq!(tunnels(&board), [Tunnel::Down]);
        assert_eq!(board.links()[0].last_error.as_ref().unwrap().code, "link_dead");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_shown_as_long_as_it_lasts_with_when_the_next_attempt_is() {
        let endpoint: Endpoint = "wss://a".parse().unwrap();
        let board = Board::new(std::slice::from_ref(&endpoint));
        let shown = || {
            let link = board.links().remove(0);
            (link.last_error.map(|error| error.code), link.next_attempt_ms)
        };
        let why = |code| Failure::new(code, "x");
        let within = |millis| Instant::now() + Duration::from_millis(millis);
        let session = connected(InstanceId::fresh());
        board.waiting(&endpoint, why(Code::GatewayRefused), within(900));
        assert_eq!(shown(), (Some("gateway_refused".to_owned()), Some(900)));
        board.claim(&endpoint, &session);
        assert_eq!(shown(), (None, None), "it is over");
        board.resuming(&endpoint, session.session, why(Code::LinkDead), None);
        board.resuming(&endpoint, session.session, why(Code::GatewayRefused), Some(within(400)));
        assert_eq!(shown(), (Some("gateway_refused".to_owned()), Some(400)));
        board.tries(&endpoint, session.session);
        assert_eq!(shown(), (Some("gateway_refused".to_owned()), None));
        board.resumed(&endpoint, session.session);
        assert_eq!(shown(), (None, None));
        // One that was left behind goes on trying.
        let next = connected(InstanceId::fresh());
        board.claim(&endpoint, &next);
        board.resuming(&endpoint, session.session, why(Code::GatewayRefused), Some(within(400)));
        assert_eq!(shown(), (None, None), "of the session that there is");
    }
}
