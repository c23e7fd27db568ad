//! What a configuration says to a request that nobody has made: for `agent check --explain`. It refuses to decide anything by itself:
//! the rules do.

use serde::Serialize;

use super::targets::http_rules;
use crate::base::code::{Code, Failure};
use crate::base::id::Name;
use crate::config::{AgentConfig, Kind, Target};
use crate::rules::http::{Decision, Question};
use crate::rules::path::Path;

/// A verdict, and what it rests on.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Whether the request would pass.
    pub allowed: bool,
    /// Where the rule stands that decides, and what it says.
    pub rule: String,
    /// Why the request would be refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// On what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Decides about a request in one line: `METHOD TARGET PATH …`, or `ldap TARGET OPERATION …`.
///
/// # Errors
/// `usage` for a line that is no request, `target_unknown`, `target_kind_mismatch`.
pub fn explain(config: &AgentConfig, line: &str) -> Result<Explanation, Failure> {
    let question: Question = line.parse()?;
    let target = of_kind(config, &question.target, Kind::Http)?;
    let listed = |place| format!("targets.{}.allow[{place}]", question.target);
    let path = match Path::parse(&question.path) {
        Ok(path) => path,
        Err(failure) => return Ok(denied("every target of kind http".to_owned(), failure)),
    };
    let rules = http_rules(target);
    Ok(match rules.decide(&question.ask(&path)) {
        Decision::Allow { place: Some(place), rule } => allowed(format!("{}: {rule}", listed(place))),
        Decision::Allow { place: None, .. } => allowed(format!("targets.{} has no `allow`", question.target)),
        Decision::Deny(denial) => {
            let nearest = denial.nearest.zip(rules.listed()).and_then(|(place, rules)| Some((place, rules.get(place)?)));
            let rule = match nearest {
                Some((place, rule)) => format!("{}: {rule}", listed(place)),
                None if rules.listed().is_some() => format!("targets.{}.allow", question.target),
                None => format!("targets.{} has no `allow`", question.target),
            };
            denied(rule, denial.failure)
        }
    })
}

fn allowed(rule: String) -> Explanation {
    Explanation { allowed: true, rule, code: None, why: None }
}

fn denied(rule: String, failure: Failure) -> Explanation {
    Explanation { allowed: false, rule, code: Some(failure.code), why: Some(failure.detail) }
}

fn of_kind<'a>(config: &'a AgentConfig, name: &Name, kind: Kind) -> Result<&'a Target, Failure> {
    let Some(target) = config.targets.get(name) else {
        return Err(Failure::new(Code::TargetUnknown, format_args!("the configuration has no target `{name}`")));
    };
    if target.kind != kind {
        let detail = format_args!("`{name}` is of kind {}, and this is a question about one of kind {kind}", target.kind);
        return Err(Failure::new(Code::TargetKindMismatch, detail));
    }
    Ok(target)
}
