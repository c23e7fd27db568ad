//! What is wrong with a configuration file and where, in words that quote nothing but the key or value itself.
//! Refuses to know the keys.

use std::fmt::{self, Display};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Error, Location, Options, Spanned};

use crate::base::code::{Code, Failure};
use crate::base::id::printable;

/// A mistake that was found after parsing, in the value that `at` leads to.
pub(super) struct Problem {
    at: Vec<Step>,
    failure: Failure,
}

/// One step into the document.
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A mistake in the value that the steps lead to, or in the innermost part of it that is written in the file.
pub(super) fn problem<const N: usize>(at: [Step; N], code: Code, detail: impl Display) -> Problem {
    Problem { at: at.into(), failure: Failure::new(code, detail) }
}

impl Problem {
    /// Finds the line and column.
    pub(super) fn located(self, name: &str, text: &str) -> Failure {
        let location = serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options()).map(|root| {
            let mut node = &root;
            for step in &self.at {
                match node.value.child(step) {
                    Some(child) => node = child,
                    None => break,
                }
            }
            node.referenced
        });
        at(name, location.ok(), self.failure)
    }
}

/// Parses one document strictly.
pub(super) fn read<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, Failure> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let error = error.without_snippet();
        at(name, error.location(), Failure::new(Code::ConfigInvalid, words(error)))
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn at(name: &str, location: Option<Location>, failure: Failure) -> Failure {
    match location.filter(|location| location.line() > 0) {
        Some(location) => failure.context(format_args!("{name}:{}:{}", location.line(), location.column())),
        None => failure.context(name),
    }
}

/// The parser's error in our words. Those of its own that could quote what they stumbled over are not used.
fn words(error: &Error) -> String {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        Error::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{}` is there twice", printable(key, 64)),
        Error::DuplicateMappingKey { .. } => "a key is there twice".into(),
        Error::Message { msg, .. } => msg.strip_prefix("config_invalid: ").unwrap_or(msg).to_owned(),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => format!("expected {expected}"),
        Error::Unexpected { expected, .. } => format!("expected {}", plain(expected)),
        Error::InvalidScalar { ty, .. } => format!("expected {ty}"),
        Error::InvalidBooleanStrict { .. } => "expected true or false".into(),
        Error::NullIntoString { .. } => "expected a value, found nothing".into(),
        Error::MergeKeyNotAllowed { .. } => "merge keys (`<<`) are not supported".into(),
        Error::UnsupportedTag { .. } => "tags (`!…`) are not supported".into(),
        Error::UnknownAnchor { .. } => "the alias names no anchor".into(),
        Error::MultipleDocuments { .. } => "more than one document (`---`) in the file".into(),
        Error::Eof { .. } => "the file is empty or ends too early".into(),
        Error::Budget { .. } => "too large or too deeply nested for a configuration".into(),
        Error::AliasError { error, .. } => words(error),
        _ => "not well-formed YAML: look for wrong indentation, an unclosed quote or bracket, or a tab".into(),
    }
}

/// The parser's names for parts of a document.
fn plain(expected: &str) -> &str {
    match expected {
        text if text.contains("mapping") => "a mapping (`key: value`)",
        text if text.contains("sequence") => "a list (`- item` or `[item]`)",
        text if text.contains("scalar") || text.contains("string") => "a single value",
        text => text,
    }
}

fn unknown(what: &str, given: &str, allowed: &[&str]) -> String {
    let shown = printable(given, 64);
    match closest(given, allowed) {
        Some(close) => format!("unknown {what} `{shown}`; did you mean `{close}`?"),
        None => format!("unknown {what} `{shown}`; expected one of: {}", allowed.join(", ")),
    }
}

/// The allowed word that a slip of the fingers could have turned into the one given.
fn closest<'a>(given: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let given: Vec<char> = given.chars().take(64).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect();
    allowed
        .iter()
        .map(|word| (distance(&given, &word.chars().collect::<Vec<_>>()), *word))
        .filter(|(distance, word)| *distance <= 1 + word.len() / 5)
        .min()
        .map(|(_, word)| word)
}

/// How many letters must be put in, taken out or replaced, or neighbours swapped (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let one = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(replaced);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { one.min(rows[i - 2][j - 2] + 1) } else { one }
            };
        }
    }
    rows[a.len()][b.len()]
}

/// A document of which only the places count.
enum Tree {
    Map(Vec<(String, Spanned<Tree>)>),
    List(Vec<Spanned<Tree>>),
    Leaf,
}

impl Tree {
    fn child(&self, step: &Step) -> Option<&Spanned<Self>> {
        match (self, step) {
            (Self::Map(entries), Step::Key(key)) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            (Self::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

macro_rules! leaves {
    ($($visit:ident $type:ty)*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        })*
    };
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    leaves! { visit_bool bool visit_i64 i64 visit_u64 u64 visit_f64 f64 visit_str &str }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Tree::Leaf)
    }
}
