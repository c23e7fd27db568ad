//! The simulated network: who dials whom, over which cables, and what goes wrong for whom. Refuses to know sessions and streams.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::cable::{Cable, Cut, End, Side};
use super::chance::Chance;
use super::trace::Trace;
use crate::base::code::{Code, Failure};

/// All cables, and who can't lay one.
pub(super) struct Network {
    trace: Arc<Trace>,
    narrow: bool,
    state: Mutex<State>,
}

struct State {
    chance: Chance,
    laid: u64,
    cables: Vec<Laid>,
    outages: Vec<Outage>,
    /// When the last trouble ends.
    troubles: Instant,
}

struct Laid {
    site: usize,
    cable: Weak<Cable>,
}

/// What becomes of a site's connections for a while.
#[derive(Clone, Copy)]
struct Outage {
    site: usize,
    until: Instant,
    refuses: bool,
}

/// When a gateway last heard something of an agent's process.
pub(super) type Heard = Arc<Mutex<Instant>>;

impl Network {
    pub(super) fn new(trace: Arc<Trace>, narrow: bool, chance: Chance) -> Self {
        let state = State { chance, laid: 0, cables: Vec::new(), outages: Vec::new(), troubles: Instant::now() };
        Self { trace, narrow, state: Mutex::new(state) }
    }

    /// Connects a site to the gateway, as long as that takes; the ends, the agent's first, and the address it comes from.
    ///
    /// # Errors
    /// `gateway_refused`.
    pub(super) async fn dial(&self, site: usize, heard: Heard) -> Result<(End, End, SocketAddr), Failure> {
        let took = self.state().chance.any_size(300);
        tokio::time::sleep(Duration::from_millis(took)).await;
        while let Some(outage) = self.outage(site) {
            if outage.refuses {
                return Err(Failure::new(Code::GatewayRefused, "as the simulation wants it"));
            }
            // A first packet is sent again after some time, too.
            let late = self.state().chance.any_size(1000);
            tokio::time::sleep_until(outage.until + Duration::from_millis(late)).await;
        }
        let mut state = self.state();
        state.laid += 1;
        let id = state.laid;
        let (cable, agent, gateway) = Cable::lay(id, self.trace.clone(), heard, self.narrow, &mut state.chance);
        state.cables.retain(|laid| laid.cable.strong_count() > 0);
        state.cables.push(Laid { site, cable: Arc::downgrade(&cable) });
        let port = 1024 + u16::try_from(id % 60_000).expect("below 65,536");
        Ok((agent, gateway, SocketAddr::from(([198, 51, 100, 1 + u8::try_from(site).unwrap_or(0)], port))))
    }

    /// The site's cables.
    pub(super) fn cables(&self, site: usize) -> Vec<Arc<Cable>> {
        self.state().cables.iter().filter(|laid| laid.site == site).filter_map(|laid| laid.cable.upgrade()).collect()
    }

    /// Cables of which an end is still held.
    pub(super) fn count(&self) -> usize {
        self.state().cables.iter().filter(|laid| laid.cable.strong_count() > 0).count()
    }

    /// Cuts one of the site's cables, mostly the newest, or all.
    pub(super) fn cut(&self, site: usize, cut: Cut, all: bool) {
        self.troubles(Duration::ZERO);
        let cables = self.cables(site);
        let chosen = if all || cables.is_empty() { None } else { Some(self.one_of(cables.len())) };
        for (index, cable) in cables.iter().enumerate() {
            if chosen.is_none_or(|chosen| chosen == index) {
                self.trace.note(format_args!("cable {} of site {site}: {cut:?}", cable.id()));
                cable.cut(cut);
            }
        }
    }

    /// Nothing of this site arrives for so long, one way or both; connections are not made either.
    pub(super) fn hush(&self, site: usize, sides: &[Side], time: Duration) {
        self.troubles(time);
        self.trace.note(format_args!("site {site}: nothing reaches {sides:?} for {time:?}"));
        for cable in self.cables(site) {
            sides.iter().for_each(|side| cable.hush(*side, time));
        }
        self.state().outages.push(Outage { site, until: Instant::now() + time, refuses: false });
    }

    /// New connections of this site are refused for so long.
    pub(super) fn refuse(&self, site: usize, time: Duration) {
        self.trace.note(format_args!("site {site}: connections are refused for {time:?}"));
        self.state().outages.push(Outage { site, until: Instant::now() + time, refuses: true });
    }

    /// What arrives at one end comes in small parts.
    pub(super) fn trickle(&self, site: usize, side: Side, time: Duration, part: usize, pause: Duration) {
        self.troubles(time);
        self.trace.note(format_args!("site {site}: {part} bytes reach {side:?} in {pause:?}, for {time:?}"));
        self.cables(site).iter().for_each(|cable| cable.trickle(side, time, part, pause));
    }

    /// The site's host is gone, without a word.
    pub(super) fn unplug(&self, site: usize) {
        self.troubles(Duration::ZERO);
        self.trace.note(format_args!("site {site}: unplugged"));
        self.cables(site).iter().for_each(|cable| cable.silence());
    }

    /// Whether nothing has gone wrong for so long that everything should be well again.
    pub(super) fn is_calm(&self) -> bool {
        self.state().troubles.elapsed() > Duration::from_secs(10)
    }

    /// Something goes wrong for so long.
    pub(super) fn troubles(&self, time: Duration) {
        let mut state = self.state();
        state.troubles = state.troubles.max(Instant::now() + time);
    }

    fn one_of(&self, cables: usize) -> usize {
        let chance = &mut self.state().chance;
        if chance.percent(60) { cables - 1 } else { chance.index(cables) }
    }

    fn outage(&self, site: usize) -> Option<Outage> {
        let now = Instant::now();
        let mut state = self.state();
        state.outages.retain(|outage| outage.until > now);
        state.outages.iter().filter(|outage| outage.site == site).max_by_key(|outage| outage.refuses).copied()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
