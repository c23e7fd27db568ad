//! The table of goals beside what was reached. Refuses to know how the figures came about.

use std::fmt::Write;

use super::Reasons;
use super::table::markdown;
use crate::goals::{Beside, Bound, GOALS, Goal, Verdict};
use crate::record::Records;
use crate::stats::Spread;

/// A Markdown table of every goal that the run has measured.
pub(super) fn table(records: &Records) -> String {
    let mut rows = vec![["figure", "in", "reached", "goal", ""].map(str::to_owned).to_vec()];
    for goal in GOALS {
        let Some(reached) = goal.reached(records) else { continue };
        let verdict = match goal.verdict(reached) {
            Verdict::Met => "met",
            Verdict::Exceeded => "met, stretch too",
            Verdict::NotMet => "**not met**",
            Verdict::Reported => "reported",
        };
        let spread = reached.show(|value| show(goal, value));
        rows.push(vec![goal.what.to_owned(), unit(goal), spread, bound(goal), verdict.to_owned()]);
    }
    if rows.len() > 1 { markdown(&rows) } else { String::new() }
}

/// The goals that were not met, each with its reason.
pub(super) fn unmet(records: &Records, reasons: &Reasons) -> String {
    let mut text = String::new();
    let missed = |goal: &&Goal| goal.reached(records).is_some_and(|reached: Spread| goal.verdict(reached) == Verdict::NotMet);
    for goal in GOALS.iter().filter(missed) {
        if text.is_empty() {
            text += "### Not met\n\n";
        }
        let id = goal.id();
        let reason = reasons.get(&id).map_or("no reason is known yet", |reason| reason.trim());
        let _ = writeln!(text, "- `{id}`: {reason}");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn unit(goal: &Goal) -> String {
    match goal.baseline {
        Some(peer) => match goal.beside {
            Beside::Ratio => format!("{}, of {}'s", goal.figure.title(), peer.name()),
            Beside::Difference => format!("{}, beyond {}'s", goal.figure.title(), peer.name()),
        },
        None => goal.figure.title().to_owned(),
    }
}

fn bound(goal: &Goal) -> String {
    let (sign, value) = match goal.bound {
        Bound::AtMost(most) => ("≤", most),
        Bound::AtLeast(least) => ("≥", least),
        Bound::Report => return "-".to_owned(),
    };
    let stretch = goal.stretch.map_or(String::new(), |value| format!(", stretch {}", show(goal, value)));
    format!("{sign} {}{stretch}", show(goal, value))
}

fn show(goal: &Goal, value: f64) -> String {
    match (goal.baseline, goal.beside) {
        (Some(_), Beside::Ratio) => format!("{value:.2}"),
        _ => goal.figure.show(value),
    }
}
