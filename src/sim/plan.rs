//! What a seed makes of a world: how large it is, how hard its life, and what goes wrong. Refuses to know how that is done.

use std::sync::Arc;
use std::time::Duration;

use super::cable::{Cut, Side};
use super::chance::Chance;
use super::world::{AgentEnd, World};
use crate::base::limits::RETAINED;
use crate::wire::notice::Notice;

/// The shape of a world.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) sites: usize,
    pub(super) streams: u64,
    pub(super) max_streams: usize,
    pub(super) max_lanes: usize,
    /// Whether connections hold few bytes.
    pub(super) narrow: bool,
    /// Whether the gateway names a direct address, and whether anybody answers there.
    pub(super) direct: bool,
    pub(super) direct_works: bool,
    pub(super) drain: Duration,
    /// How long a broken lane waits.
    pub(super) window: Duration,
    /// Bytes that are retained at most.
    pub(super) retained: usize,
    /// How many faults there will be.
    faults: u64,
    /// Milliseconds within which streams begin.
    pub(super) span: u64,
    /// Whether streams move much, all at once.
    pub(super) busy: bool,
    /// No stream may notice any of them.
    pub(super) strict: bool,
}

impl Plan {
    pub(super) fn lot(chance: &mut Chance) -> Self {
        let (faults, strict) = (chance.within(0..=12), chance.percent(60));
        let busy = chance.percent(25);
        Self {
            sites: chance.pick(&[1, 1, 2, 3]),
            streams: chance.within(8..=40),
            retained: chance.pick(&[128 << 10, 256 << 10, RETAINED]),
            span: if busy { 1000 } else { chance.pick(&[1000, 5000 * (1 + faults)]) },
            busy,
            max_streams: 1000,
            max_lanes: chance.pick(&[1, 2, 4]),
            narrow: chance.percent(30),
            direct: chance.percent(50),
            direct_works: chance.percent(50),
            drain: chance.millis(1000..=10_000),
            faults,
            strict,
            window: Duration::from_secs(if strict { 30 } else { chance.pick(&[0, 3, 30, 30]) }),
        }
    }
}

/// Lets things go wrong, one after the other, until as many have as are planned.
pub(super) async fn trouble(world: Arc<World>, mut chance: Chance) {
    for _ in 0..world.plan.faults {
        let most = chance.pick(&[10, 500, 6000]);
        tokio::time::sleep(chance.millis(0..=most)).await;
        let site = chance.index(world.plan.sites);
        if world.plan.strict { endure(&world, site, &mut chance).await } else { strike(&world, site, &mut chance).await }
    }
}

/// What no stream notices.
async fn endure(world: &World, site: usize, chance: &mut Chance) {
    match chance.within(0..=17) {
        0..=7 => {
            // Again and again, also while the cut before is being mended.
            for _ in 0..=chance.any_size(4) {
                world.network.cut(site, cut(chance), chance.percent(50));
                tokio::time::sleep(Duration::from_millis(chance.any_size(2000))).await;
            }
            // So that it can be mended within the window.
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        8 => {
            world.network.hush(site, &sides(chance), chance.millis(4000..=12_000));
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        9 => {
            world.network.refuse(site, chance.millis(100..=5000));
            world.network.cut(site, cut(chance), true);
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        10 | 11 => world.network.hush(site, &sides(chance), chance.millis(10..=2000)),
        12 | 13 => trickle(world, site, chance),
        14 | 15 => {
            world.sleeps(chance.percent(70).then_some(site));
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        _ => lanes(world, chance),
    }
}

/// What streams may notice, and must end well of.
async fn strike(world: &Arc<World>, site: usize, chance: &mut Chance) {
    match chance.within(0..=12) {
        0..=2 => world.network.cut(site, cut(chance), chance.percent(50)),
        3 => world.network.hush(site, &sides(chance), chance.millis(1000..=60_000)),
        4 => {
            world.network.refuse(site, chance.millis(100..=50_000));
            world.network.cut(site, cut(chance), true);
        }
        5 => world.replace_gateway(chance.percent(70)).await,
        6 | 7 => {
            let end = chance.pick(&[AgentEnd::Drains, AgentEnd::Killed, AgentEnd::Unplugged]);
            world.replace_agent(site, end).await;
        }
        8 | 9 => trickle(world, site, chance),
        10 => {
            if let Some(live) = world.pick() {
                live.lanes.close();
            }
        }
        _ => lanes(world, chance),
    }
}

fn cut(chance: &mut Chance) -> Cut {
    let told = chance.pick(&[Side::Agent, Side::Gateway]);
    chance.pick(&[Cut::Reset, Cut::EndOfFile, Cut::HalfOpen(told), Cut::Late(told), Cut::Late(Side::Agent)])
}

fn sides(chance: &mut Chance) -> Vec<Side> {
    chance.pick(&[&[Side::Agent][..], &[Side::Gateway], &[Side::Agent, Side::Gateway]]).to_vec()
}

fn trickle(world: &World, site: usize, chance: &mut Chance) {
    let (side, time) = (chance.pick(&[Side::Agent, Side::Gateway]), chance.millis(100..=3000));
    let part = usize::try_from(1 + chance.any_size(2000)).unwrap_or(1);
    world.network.trickle(site, side, time, part, chance.millis(1..=50));
}

fn lanes(world: &World, chance: &mut Chance) {
    if let Some(live) = world.pick() {
        let count = u32::try_from(chance.within(1..=world.plan.max_lanes as u64)).unwrap_or(1);
        live.notifier.tell(Notice::Lanes { count });
    }
}
