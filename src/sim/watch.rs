//! What must be so at any time, whatever goes wrong: looked at four times a second. Refuses to know why it might not be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::world::World;
use crate::base::id::SessionId;
use crate::base::limits::{MAX_SESSIONS_PER_AGENT, SENT_MESSAGE, SESSION_BUFFER};
use crate::gateway::registry::Live;
use crate::tunnel::mux::{Link, Standing};

/// A peer that is gone is noticed so soon.
const NOTICED: Duration = Duration::from_secs(6);

/// On a wide network without troubles what was sent is acknowledged within this: a round trip, some time in queues and what an
/// acknowledgement may wait; less than a heartbeat, which acknowledges, too.
const ACKNOWLEDGED: Duration = Duration::from_millis(1500);

/// Which connection each lane had when it was last looked at.
type Generations = BTreeMap<(SessionId, u32, bool), u64>;

/// Looks at everything, until it is dropped.
pub(super) async fn watch(world: Arc<World>) {
    let mut generations = Generations::new();
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let sessions = world.gateway().registry().sessions();
        if sessions.len() > world.plan.sites * MAX_SESSIONS_PER_AGENT {
            world.trace.wrong(format_args!("{} sessions", sessions.len()));
        }
        for live in &sessions {
            session(&world, live);
            replaced(&world, live, &sessions);
            lane(&world, (live.session, 0, true), &live.link, &mut generations);
        }
        for (session, agents) in world.lanes().iter() {
            lane(&world, (*session, agents.number(), false), agents.link(), &mut generations);
        }
    }
}

fn session(world: &World, live: &Live) {
    let plan = &world.plan;
    if live.usable() && world.silence(live.instance) > NOTICED {
        world.trace.wrong(format_args!("{} is gone, and given streams", live.agent));
    }
    if live.usable() && live.link.is_paused() {
        world.trace.wrong(format_args!("{} is between two connections, and given streams", live.agent));
    }
    if live.lanes.count() > plan.max_lanes || live.streams() > plan.max_streams {
        world.trace.wrong(format_args!("{}: {} lanes, {} streams", live.agent, live.lanes.count(), live.streams()));
    }
}

/// What waits for a process that another one has replaced waits in vain.
fn replaced(world: &World, live: &Live, sessions: &[Arc<Live>]) {
    let paused = live.link.standing().map_or(Duration::ZERO, |standing| standing.paused);
    let replaces =
        |other: &&Arc<Live>| other.agent == live.agent && other.instance != live.instance && other.began > live.began;
    if paused > Duration::from_secs(1) && !live.draining() && sessions.iter().any(|other| replaces(&other)) {
        world.trace.wrong(format_args!("{} has another process, and its first one is waited for", live.agent));
    }
}

/// What a lane keeps has its bounds: beyond its room it takes what it had begun to send, and answers. So has what it waits for.
fn lane(world: &World, key: (SessionId, u32, bool), link: &Link, generations: &mut Generations) {
    let Some(Standing { unread, generation, retained, paused, stuck, .. }) = link.standing() else { return };
    if retained > world.plan.retained + 2 * SENT_MESSAGE || unread > SESSION_BUFFER {
        world.trace.wrong(format_args!("a lane keeps {unread} bytes unread, {retained} for another connection"));
    }
    if paused > world.plan.window + Duration::from_secs(1) {
        world.trace.wrong(format_args!("a lane has waited {paused:?} for another connection"));
    }
    let acknowledges = !world.plan.window.is_zero() && !world.plan.narrow;
    if acknowledges && stuck > ACKNOWLEDGED && world.network.is_calm() {
        world.trace.wrong(format_args!("nothing was acknowledged for {stuck:?}"));
    }
    let before = generations.insert(key, generation).unwrap_or(0);
    if generation < before {
        world.trace.wrong(format_args!("connection {generation} took the place of connection {before}"));
    }
}
