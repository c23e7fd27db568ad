//! Rules found by a path: a tree over segments, so that ten thousand rules cost a request no more than its own segments do.
//! Refuses to know what else of a request a rule looks at.

use std::collections::HashMap;

use super::rule::Rule;
use crate::rules::path::{Path, Segment};

/// A place in the tree: what the segments so far have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    literals: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// Rules whose path ends here.
    ends: Bucket,
    /// Rules whose path goes on with whatever follows.
    rest: Bucket,
}

/// Rules of one pattern by their place in the list, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    all: Vec<usize>,
    by_method: HashMap<Box<str>, Vec<usize>>,
    any_method: Vec<usize>,
}

impl Node {
    /// Adds the next rule of the list.
    pub(super) fn add(&mut self, place: usize, rule: &Rule) {
        let mut node = self;
        for segment in rule.path.segments() {
            node = match segment {
                Segment::Literal(literal) => node.literals.entry(literal.clone()).or_default(),
                Segment::Any => node.any.get_or_insert_default(),
            };
        }
        let bucket = if rule.path.has_rest() { &mut node.rest } else { &mut node.ends };
        bucket.add(place, rule);
    }

    /// Shows each bucket of rules whose pattern matches. A node is met once at most, so the work is bounded by the tree.
    pub(super) fn visit<'r>(&'r self, path: &Path<'_>, seen: &mut impl FnMut(&'r Bucket)) {
        self.descend(Some(&path.path()[1..]), seen);
    }

    /// The recursion is as deep as the tree, which the longest pattern limits.
    fn descend<'r>(&'r self, left: Option<&str>, seen: &mut impl FnMut(&'r Bucket)) {
        seen(&self.rest);
        let Some(left) = left else { return seen(&self.ends) };
        let (segment, left) = left.split_once('/').map_or((left, None), |(segment, left)| (segment, Some(left)));
        if let Some(node) = self.literals.get(segment) {
            node.descend(left, seen);
        }
        if let Some(node) = self.any.as_ref().filter(|_| !segment.is_empty()) {
            node.descend(left, seen);
        }
    }
}

impl Bucket {
    fn add(&mut self, place: usize, rule: &Rule) {
        self.all.push(place);
        match &rule.methods {
            None => self.any_method.push(place),
            Some(methods) => {
                for method in methods.iter() {
                    self.by_method.entry(method.as_str().into()).or_default().push(place);
                }
            }
        }
    }

    /// The rules for a method, those that name it before those for any.
    pub(super) fn of(&self, method: &str) -> impl Iterator<Item = &[usize]> {
        self.by_method.get(method).map(Vec::as_slice).into_iter().chain([self.any_method.as_slice()])
    }

    /// The first rule, whatever its method.
    pub(super) fn first(&self) -> Option<usize> {
        self.all.first().copied()
    }
}
