//! The way to the gateway: its endpoints in turn, with pauses between the rounds, for as long as what fails may pass by itself.
//! Refuses to know what is dialled there and said.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::time::Instant;

use super::{Event, Observer};
use crate::base::backoff::Backoff;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::Endpoint;
use crate::base::limits::{RECONNECT_BASE, REPLY_DEADLINE, RETRY_MAX};

/// What all searches of one client share.
pub(super) struct Way {
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last: the next search begins there.
    last: AtomicUsize,
    /// Somebody was told that the gateway is away.
    away: AtomicBool,
}

impl Way {
    /// Over these endpoints, of which there must be one.
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Self {
        assert!(!endpoints.is_empty(), "a way leads somewhere");
        Self { endpoints, last: AtomicUsize::new(0), away: AtomicBool::new(false) }
    }

    /// Begins to look for an endpoint that answers.
    pub(super) fn search(&self) -> Search<'_> {
        Search {
            way: self,
            at: self.last.load(Ordering::Relaxed),
            tried: 0,
            passing: false,
            waited: false,
            backoff: Backoff::new(RECONNECT_BASE, RETRY_MAX),
            deadline: Instant::now() + REPLY_DEADLINE,
        }
    }
}

/// One search: ask [`Search::endpoint`], then say [`Search::found`] or [`Search::missed`].
pub(super) struct Search<'a> {
    way: &'a Way,
    at: usize,
    /// In this round.
    tried: usize,
    /// Something in this round failed that may pass by itself.
    passing: bool,
    /// A whole round was in vain.
    waited: bool,
    backoff: Backoff,
    deadline: Instant,
}

impl<'a> Search<'a> {
    /// The one to be tried now.
    pub(super) fn endpoint(&self) -> &'a Endpoint {
        &self.way.endpoints[self.at]
    }

    /// It answered.
    pub(super) fn found(self) {
        self.way.last.store(self.at, Ordering::Relaxed);
        self.way.away.store(false, Ordering::Relaxed);
    }

    /// Whether a refusal of the gateway's is about itself, and soon over. One that was away a moment ago has its agents back in
    /// seconds.
    pub(super) fn may_pass(&self, refusal: &Failure) -> bool {
        refusal.code == Code::Stopping || (refusal.code == Code::NoAgent && self.waited)
    }

    /// It did not answer: goes on to the next, after a pause if that begins another round.
    ///
    /// # Errors
    /// The failure, when the deadline has passed or nothing in the round could pass by itself.
    pub(super) async fn missed(&mut self, failure: Failure, observer: &Observer) -> Result<(), Failure> {
        self.at = (self.at + 1) % self.way.endpoints.len();
        self.tried += 1;
        self.passing |= passes(&failure) || self.may_pass(&failure);
        if Instant::now() >= self.deadline {
            return Err(failure);
        }
        if self.tried < self.way.endpoints.len() {
            return Ok(());
        }
        let pause = self.backoff.draw();
        if !self.passing || Instant::now() + pause >= self.deadline {
            return Err(failure);
        }
        (self.tried, self.passing, self.waited) = (0, false, true);
        if !self.way.away.swap(true, Ordering::Relaxed) {
            observer(Event::Waiting(&failure));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// A gateway that restarts and a network that comes back look like this. The rest is somebody's decision or mistake.
fn passes(failure: &Failure) -> bool {
    matches!(
        failure.code,
        Code::GatewayDnsFailed
            | Code::GatewayRefused
            | Code::GatewayUnreachable
            | Code::GatewayTimeout
            | Code::ProxyUnreachable
            | Code::ProxyBadGateway
            | Code::TlsFailed
            | Code::LinkClosed
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    /// What a search did: the endpoints' ports in the order of its attempts, what was told, and how it ended.
    struct Trace {
        asked: Vec<u16>,
        told: Vec<Code>,
        ended: Result<(), Code>,
        took: Duration,
    }

    fn way(ports: &[u16]) -> Way {
        Way::new(ports.iter().map(|port| format!("wss://gw.example:{port}").parse().unwrap()).collect())
    }

    /// Searches; `answers` says what the endpoint with that port does at the attempt of that number, after which time.
    async fn search(way: &Way, answers: impl Fn(u16, usize) -> (u64, Result<(), Code>)) -> Trace {
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = told.clone();
        let observer: Observer = Arc::new(move |event: Event<'_>| match event {
            Event::Waiting(failure) => kept.lock().unwrap().push(failure.code),
            Event::Failed { .. } => unreachable!("of no connection"),
        });
        let (start, mut asked, mut search) = (Instant::now(), Vec::new(), way.search());
        let ended = loop {
            let port = search.endpoint().0.port;
            let (millis, answer) = answers(port, asked.len());
            asked.push(port);
            tokio::time::sleep(Duration::from_millis(millis)).await;
            match answer {
                Ok(()) => {
                    search.found();
                    break Ok(());
                }
                Err(code) => {
                    if let Err(failure) = search.missed(Failure::new(code, "as the test says"), &observer).await {
                        break Err(failure.code);
                    }
                }
            }
        };
        let told = told.lock().unwrap().clone();
        Trace { asked, told, ended, took: start.elapsed() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_endpoints_are_tried_in_turn_and_the_next_search_begins_with_the_one_that_answered() {
        let way = way(&[1, 2, 3]);
        let third = |port, _| (0, if port == 3 { Ok(()) } else { Err(Code::GatewayRefused) });
        let first = search(&way, third).await;
        assert_eq!((first.asked, first.ended), (vec![1, 2, 3], Ok(())));
        assert!(first.told.is_empty() && first.took.is_zero(), "within a round nobody waits");
        assert_eq!(search(&way, third).await.asked, [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_comes_back_in_time_is_found_and_one_line_told_for_each_time_it_was_away() {
        let way = way(&[1]);
        for _ in 0..2 {
            let trace = search(&way, |_, number| (0, if number == 3 { Ok(()) } else { Err(Code::GatewayRefused) })).await;
            assert_eq!((trace.asked.len(), trace.told, trace.ended), (4, vec![Code::GatewayRefused], Ok(())));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_away_is_given_up_after_the_deadline_and_not_told_of_again() {
        let way = way(&[1]);
        let trace = search(&way, |_, _| (0, Err(Code::GatewayUnreachable))).await;
        assert_eq!((trace.told.len(), trace.ended), (1, Err(Code::GatewayUnreachable)));
        assert!(trace.took <= REPLY_DEADLINE && trace.took > REPLY_DEADLINE - RETRY_MAX, "{:?}", trace.took);
        assert!(trace.asked.len() > 8, "{} attempts", trace.asked.len());
        assert!(search(&way, |_, _| (0, Err(Code::GatewayUnreachable))).await.told.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_of_silent_endpoints_takes_no_longer() {
        let ports: Vec<_> = (1..=16).collect();
        let trace = search(&way(&ports), |_, _| (5000, Err(Code::GatewayTimeout))).await;
        assert_eq!((trace.asked, trace.ended), (vec![1, 2, 3], Err(Code::GatewayTimeout)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_by_itself_is_told_after_one_round() {
        for code in [Code::TlsIntercepted, Code::GatewayName, Code::ProxyDenied, Code::TlsPlaintext] {
            let trace = search(&way(&[1, 2]), |_, _| (0, Err(code))).await;
            assert_eq!((trace.asked, trace.ended), (vec![1, 2], Err(code)));
            assert!(trace.told.is_empty());
        }
        let second_restarts = |port, number| {
            (0, if number == 3 { Ok(()) } else { Err([Code::GatewayName, Code::GatewayRefused][port as usize - 1]) })
        };
        assert_eq!(search(&way(&[1, 2]), second_restarts).await.asked, [1, 2, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_ends_is_waited_for_and_its_agents_only_after_that() {
        let observer: Observer = Arc::new(|_: Event<'_>| ());
        let way = way(&[1]);
        let mut search = way.search();
        let refusal = |code| Failure::new(code, "");
        assert!(search.may_pass(&refusal(Code::Stopping)));
        assert!(!search.may_pass(&refusal(Code::NoAgent)), "an agent that isn't there is told at once");
        search.missed(refusal(Code::Stopping), &observer).await.unwrap();
        assert!(search.may_pass(&refusal(Code::NoAgent)));
        for code in [Code::NotGranted, Code::LoginFailed, Code::TargetRefused, Code::SessionLost, Code::OutcomeUnknown] {
            assert!(!search.may_pass(&refusal(code)), "{code}");
        }
    }
}
