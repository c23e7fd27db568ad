//! The three lights of an agent in one row, over all its sessions. It refuses to know what they are found out by.

use std::collections::BTreeMap;

use super::print;
use crate::base::id::Name;
use crate::base::light::{Light, Reach, Serving};
use crate::control::agents::{AgentInfo, LiveSession};

/// Failing targets that are named.
const NAMED: usize = 2;

/// Such as `connected x2`: the best of its sessions, and how many there are.
pub(super) fn tunnel(info: &AgentInfo) -> String {
    match info.sessions.len() {
        0 | 1 => info.tunnel.to_string(),
        several => format!("{} x{several}", info.tunnel),
    }
}

/// The worst of what is known: an agent that serves on one of two sessions has a fault.
pub(super) fn serving(sessions: &[LiveSession]) -> String {
    let lights = || sessions.iter().map(|session| session.lights.agent);
    let of = |state| lights().find(|light| light.state == state);
    match (of(Serving::NotServing), of(Serving::Serving)) {
        _ if sessions.is_empty() => "-".to_owned(),
        (Some(Light { state, since: Some(since), .. }), _) => format!("{state} since {}", print::time(since)),
        (Some(light), _) | (None, Some(light)) => light.state.to_string(),
        (None, None) => Serving::Unknown.to_string(),
    }
}

/// Such as `crm failing (target_refused), 3 reached, 1 unknown`. Of several sessions' lights of a target the latest counts.
pub(super) fn targets(sessions: &[LiveSession]) -> String {
    let mut latest: BTreeMap<&Name, Light<Reach>> = BTreeMap::new();
    for (name, light) in sessions.iter().flat_map(|session| &session.lights.targets) {
        let known = latest.entry(name).or_insert(*light);
        if known.since < light.since {
            *known = *light;
        }
    }
    if latest.is_empty() {
        return "-".to_owned();
    }
    let count = |state| latest.values().filter(|light| light.state == state).count();
    let failing = latest.iter().filter(|(_, light)| light.state == Reach::Failing);
    let mut parts: Vec<_> = failing
        .take(NAMED)
        .map(|(name, light)| {
            format!("{name} {}{}", light.state, light.code.map(|code| format!(" ({code})")).unwrap_or_default())
        })
        .collect();
    let more = count(Reach::Failing).saturating_sub(NAMED);
    let counted = [(more, "more failing"), (count(Reach::Reached), "reached"), (count(Reach::Unknown), "unknown")];
    parts.extend(counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    parts.join(", ")
}
