//! The rules of an HTTP target, and which of them permits a request: the first that allows all of it. Refuses to know HTTP's framing
//! and what becomes of a request that is permitted.

use serde::{Deserialize, Serialize};

use super::path::{Path, Pattern};
use crate::base::code::{Code, Failure};
use crate::base::limits::MAX_RULES;

mod index;
mod question;
mod rule;

use index::{Bucket, Node};
pub use question::Question;
use rule::Flaw;
pub use rule::{Header, List, Method, QueryKey, Rule};

/// What a rule looks at of a request.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Its method, in the case in which it came.
    pub method: &'a str,
    /// Its path and query.
    pub path: &'a Path<'a>,
    /// Whether it asks for another protocol on its connection.
    pub upgrade: bool,
    /// How long its body is, in bytes, if it says so beforehand. One that doesn't is counted while it passes.
    pub body: Option<u64>,
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'r> {
    /// It passes.
    Allow {
        /// The rule's place in the list, from 0; none if the target has no list.
        place: Option<usize>,
        /// What further it says: headers and the largest body.
        rule: &'r Rule,
    },
    /// It doesn't.
    Deny(Denial),
}

/// Why a request doesn't pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The code, and what the nearest rule did not allow.
    pub failure: Failure,
    /// That rule's place in the list, from 0; none if no rule is for the path.
    pub nearest: Option<usize>,
}

/// The rules of one target, in the order of its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<Rule>", into = "Vec<Rule>")]
pub struct Rules {
    rules: Vec<Rule>,
    index: Node,
    /// Whether they are an operator's own.
    listed: bool,
}

impl Rules {
    /// These rules. An empty list permits nothing.
    ///
    /// # Errors
    /// `config_invalid` if there are more than [`MAX_RULES`].
    pub fn new(rules: Vec<Rule>) -> Result<Self, Failure> {
        if rules.len() > MAX_RULES {
            let detail = format!("`allow` has {} rules; a target has at most {MAX_RULES}", rules.len());
            return Err(Failure::new(Code::ConfigInvalid, detail));
        }
        Ok(Self::of(rules, true))
    }

    /// What is in force where nothing is said: everything but CONNECT, TRACE and upgrades.
    #[must_use]
    pub fn any() -> Self {
        Self::of(vec![Rule::on(Pattern::everything())], false)
    }

    fn of(rules: Vec<Rule>, listed: bool) -> Self {
        let mut index = Node::default();
        rules.iter().enumerate().for_each(|(place, rule)| index.add(place, rule));
        Self { rules, index, listed }
    }

    /// The rules in their order; none where nothing is said.
    #[must_use]
    pub fn listed(&self) -> Option<&[Rule]> {
        self.listed.then_some(&self.rules)
    }

    /// Whether a request passes, and by which rule.
    #[must_use]
    pub fn decide(&self, ask: &Ask<'_>) -> Decision<'_> {
        if rule::never(ask.method) {
            let detail = format!("{} is never passed on, whatever the rules say", ask.method);
            return Decision::Deny(Denial { failure: Failure::new(Code::RequestDenied, detail), nearest: None });
        }
        let mut first = None;
        self.index.visit(ask.path, &mut |bucket| {
            let found = bucket.of(ask.method).filter_map(|places| self.first_without_flaw(places, ask)).min();
            first = first.into_iter().chain(found).min();
        });
        match first {
            Some(place) => Decision::Allow { place: self.listed.then_some(place), rule: &self.rules[place] },
            None => Decision::Deny(self.denial(ask)),
        }
    }

    fn first_without_flaw(&self, places: &[usize], ask: &Ask<'_>) -> Option<usize> {
        places.iter().copied().find(|place| self.rules[*place].flaw(ask).is_none())
    }

    /// The rule that is against the request at the latest point speaks for all; of several the first.
    fn denial(&self, ask: &Ask<'_>) -> Denial {
        let mut nearest: Option<(Flaw<'_>, usize)> = None;
        self.index.visit(ask.path, &mut |bucket| {
            let flaws = self.flaws(bucket, ask).chain(nearest);
            nearest = flaws.max_by(|one, other| one.0.step().cmp(&other.0.step()).then(other.1.cmp(&one.1)));
        });
        let (method, path) = (ask.method, ask.path.path());
        let Some((flaw, place)) = nearest else {
            let why =
                if self.rules.is_empty() { "`allow` is empty, which permits nothing" } else { "no rule is for this path" };
            let failure = Failure::new(Code::RequestDenied, format_args!("{method} {path}: {why}"));
            return Denial { failure, nearest: None };
        };
        let by = if self.listed { format!("rule {}", place + 1) } else { "without rules".to_owned() };
        let failure = Failure::new(flaw.code(), format_args!("{method} {path}: {by}: {flaw}"));
        Denial { failure, nearest: self.listed.then_some(place) }
    }

    /// What is against a request in those rules of a bucket that are for its method, or else in its first.
    fn flaws<'a>(&'a self, bucket: &'a Bucket, ask: &'a Ask<'a>) -> impl Iterator<Item = (Flaw<'a>, usize)> {
        let first = bucket.first().map(|place| (Flaw::Method, place));
        let places = bucket.of(ask.method).flatten();
        let flawed = places.filter_map(|place| self.rules[*place].flaw(ask).map(|flaw| (flaw, *place)));
        first.into_iter().chain(flawed)
    }
}

/// Two lists of the same rules decide the same.
impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        (self.listed, &self.rules) == (other.listed, &other.rules)
    }
}

impl Eq for Rules {}

impl Default for Rules {
    fn default() -> Self {
        Self::any()
    }
}

impl TryFrom<Vec<Rule>> for Rules {
    type Error = Failure;
    fn try_from(rules: Vec<Rule>) -> Result<Self, Failure> {
        Self::new(rules)
    }
}

impl From<Rules> for Vec<Rule> {
    fn from(rules: Rules) -> Self {
        rules.rules
    }
}

#[cfg(test)]
mod tests;
