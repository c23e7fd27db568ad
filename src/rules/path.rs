//! A request's path and query, read strictly, and the patterns of rules. What can be read in two ways is refused, so that the bytes
//! that were matched are the bytes that the origin reads. Refuses to know methods and rules.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::code::{Code, Failure};
use crate::base::id::printable;
use crate::base::limits::MAX_PATTERN_SEGMENTS;

/// What a pattern writes for any one segment, and for whatever follows.
const ANY: &str = "*";
const REST: &str = "**";

/// A path with its query, in origin form (RFC 9112, 3.2.1), of which there is one reading: `/`-separated segments of RFC 3986
/// characters, none empty but the last, no dot segments, nothing encoded that a second reader would take for a separator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    raw: &'a str,
    /// Where the path ends: at the `?`, or at the end.
    end: usize,
}

impl<'a> Path<'a> {
    /// Takes a request's target apart, or says why it won't.
    ///
    /// # Errors
    /// `request_path`.
    pub fn parse(raw: &'a str) -> Result<Self, Failure> {
        let end = raw.find('?').unwrap_or(raw.len());
        let (path, query) = raw.split_at(end);
        check_path(path).and_then(|()| check_query(query)).map_err(|why| {
            // A query may hold what nobody else is to read.
            let path = printable(path, 256);
            Failure::new(Code::RequestPath, format_args!("`{path}`: {why}"))
        })?;
        Ok(Self { raw, end })
    }

    /// What is forwarded: every byte as it was matched.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.raw
    }

    /// The path alone, which begins with a slash.
    #[must_use]
    pub fn path(&self) -> &'a str {
        &self.raw[..self.end]
    }

    /// What follows the first `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.raw.get(self.end + 1..)
    }

    /// The segments; the last is empty if the path ends with a slash.
    pub fn segments(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.path()[1..].split('/')
    }

    /// The keys of the query, with repetitions, as they are written. A `;` separates, too, since some origins take it so.
    pub fn query_keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let parts = self.query().unwrap_or_default().split(['&', ';']).filter(|part| !part.is_empty());
        parts.map(|part| part.split_once('=').map_or(part, |(key, _)| key))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.raw)
    }
}

/// The paths of a rule: whole segments, of which `*` stands for any one that is not empty and a last `**` for any that follow,
/// none included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    segments: Vec<Segment>,
    /// Whether it ends with `**`.
    rest: bool,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    /// Just this one, byte for byte.
    Literal(Box<str>),
    /// Any that is not empty.
    Any,
}

impl Pattern {
    /// Every path.
    #[must_use]
    pub fn everything() -> Self {
        Self { segments: Vec::new(), rest: true }
    }

    /// Whether it matches a path.
    #[must_use]
    pub fn matches(&self, path: &Path<'_>) -> bool {
        let mut given = path.segments();
        let begins = self.segments.iter().all(|segment| given.next().is_some_and(|given| segment.matches(given)));
        begins && (self.rest || given.next().is_none())
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn has_rest(&self) -> bool {
        self.rest
    }
}

impl Segment {
    fn matches(&self, given: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *given,
            Self::Any => !given.is_empty(),
        }
    }
}

impl FromStr for Pattern {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            let text = printable(text, 256);
            Failure::new(Code::ConfigInvalid, format_args!("`{text}` is no path of a rule: {why}"))
        };
        if text.contains('?') {
            return Err(wrong("keys of a query are listed under `query`"));
        }
        check_path(text).map_err(wrong)?;
        let (text, rest) = match text.strip_suffix(REST).and_then(|before| before.strip_suffix('/')) {
            Some(before) => (before, true),
            None => (text, false),
        };
        let mut segments = Vec::new();
        for segment in text.split('/').skip(1) {
            segments.push(match segment {
                ANY => Segment::Any,
                REST => return Err(wrong("`**` comes last and once")),
                _ if segment.contains('*') => return Err(wrong("`*` stands for a whole segment, not for a part of one")),
                literal => Segment::Literal(literal.into()),
            });
        }
        if segments.len() > MAX_PATTERN_SEGMENTS {
            return Err(wrong("more than 64 segments"));
        }
        Ok(Self { segments, rest })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write!(f, "/{literal}")?,
                Segment::Any => write!(f, "/{ANY}")?,
            }
        }
        if self.rest { write!(f, "/{REST}") } else { Ok(()) }
    }
}

impl TryFrom<String> for Pattern {
    type Error = Failure;
    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let Some(inner) = path.strip_prefix('/') else { return Err("a path begins with a slash") };
    path.bytes().try_for_each(check_byte)?;
    check_escapes(path)?;
    // An empty last segment is a trailing slash.
    let (before, last) = inner.rsplit_once('/').map_or((None, inner), |(before, last)| (Some(before), last));
    before.into_iter().flat_map(|before| before.split('/')).try_for_each(check_segment)?;
    if last.is_empty() { Ok(()) } else { check_segment(last) }
}

/// What RFC 3986 (3.3) has in a path. Servers differ about everything else.
fn check_byte(byte: u8) -> Result<(), &'static str> {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'%' | b':' | b'@' => Ok(()),
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => Ok(()),
        b'\\' => Err("a backslash, which some servers take for a slash"),
        b'#' => Err("a fragment, which no request has"),
        0..=b' ' | 0x7f => Err("a control character or a blank"),
        0x80.. => Err("a character beyond ASCII that is not percent-encoded"),
        _ => Err("a character that is not percent-encoded and should be"),
    }
}

/// Each `%` with two hexadecimal digits, and nothing behind it that another reader would decode into structure.
fn check_escapes(path: &str) -> Result<(), &'static str> {
    for (at, _) in path.match_indices('%') {
        let after = &path[at + 1..];
        match escaped(after) {
            None => return Err("a `%` without two hexadecimal digits"),
            Some(b'/' | b'\\') => return Err("an encoded slash or backslash"),
            Some(b'.') => return Err("an encoded dot"),
            Some(b'\0'..=0x1f | 0x7f) => return Err("an encoded control character"),
            // Who decodes twice may find another escape here.
            Some(b'%') if after[2..].starts_with(|c: char| c == '%' || c.is_ascii_hexdigit()) => {
                return Err("something encoded twice");
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn escaped(digits: &str) -> Option<u8> {
    let digits = digits.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// A segment without its parameters, which some servers cut off before they look for dots (`..;x`).
fn check_segment(segment: &str) -> Result<(), &'static str> {
    let name = segment.split_once(';').map_or(segment, |(name, _)| name);
    let name = name.find("%3b").or_else(|| name.find("%3B")).map_or(name, |at| &name[..at]);
    let decoded = String::from_utf8(decoded(segment)).map_err(|_| "an escape that is no UTF-8")?;
    if decoded.contains(FOLDED) {
        return Err("a character that some servers take for a dot or a slash");
    }
    match name {
        "" => Err("an empty segment"),
        "." | ".." => Err("a dot segment"),
        // Some file systems don't heed dots and blanks at a name's end.
        name if String::from_utf8_lossy(&self::decoded(name)).trim_end_matches(['.', ' ']).is_empty() => {
            Err("a segment of dots and blanks alone")
        }
        _ => Ok(()),
    }
}

/// Characters that some servers fold into a dot, a slash or a backslash before they look for a file.
const FOLDED: [char; 6] = ['\u{2024}', '\u{2044}', '\u{2215}', '\u{ff0e}', '\u{ff0f}', '\u{ff3c}'];

/// What is meant by a text whose escapes have been checked.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        bytes.extend(escaped(after));
        rest = after.get(2..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// A query has one reader, the origin's program: here only what breaks a head, and `#`, is refused.
fn check_query(query: &str) -> Result<(), &'static str> {
    match query.bytes().find(|byte| !matches!(byte, 0x21..=0x7e) || *byte == b'#') {
        None => Ok(()),
        Some(b'#') => Err("a fragment, which no request has"),
        Some(0x80..) => Err("a character in the query beyond ASCII that is not percent-encoded"),
        Some(_) => Err("a control character or a blank in the query"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn c21_a_path_of_two_readings_is_refused() {
        for (raw, why) in [
            ("", "begins with a slash"),
            ("*", "begins with a slash"),
            ("a/b", "begins with a slash"),
            ("http://erp.corp.example/a", "begins with a slash"),
            ("?x=1", "begins with a slash"),
            ("//a", "empty segment"),
            ("/a//b", "empty segment"),
            ("/a//", "empty segment"),
            ("/;x/b", "empty segment"),
            ("/a/%c0%ae%c0%ae/b", "no UTF-8"),
            ("/a/%e0%80%ae./b", "no UTF-8"),
            ("/a/%ff", "no UTF-8"),
            ("/a/%ef%bc%8e%ef%bc%8e/b", "take for a dot"),
            ("/a/%E2%88%95b", "take for a dot"),
            ("/a/..%20/b", "dots and blanks"),
            ("/a/.../b", "dots and blanks"),
            ("/a/%20", "dots and blanks"),
            ("/a/%3b/b", "empty segment"),
            ("/./a", "dot segment"),
            ("/a/..", "dot segment"),
            ("/a/../b", "dot segment"),
            ("/a/..;x=1/b", "dot segment"),
            ("/a/.;/b", "dot segment"),
            ("/a/..%3Bx/b", "dot segment"),
            ("/a%2fb", "encoded slash"),
            ("/a%2Fb", "encoded slash"),
            ("/a%5cb", "encoded slash or backslash"),
            ("/%2e%2e/b", "encoded dot"),
            ("/a/%2E./b", "encoded dot"),
            ("/a%00", "encoded control"),
            ("/a%0d%0aX:1", "encoded control"),
            ("/a%7f", "encoded control"),
            ("/a%252fb", "encoded twice"),
            ("/a%25252fb", "encoded twice"),
            ("/a%25%32f", "encoded twice"),
            ("/a%", "two hexadecimal"),
            ("/a%2", "two hexadecimal"),
            ("/a%gg", "two hexadecimal"),
            ("/a%+2f", "two hexadecimal"),
            ("/a\\b", "backslash"),
            ("/a#b", "fragment"),
            ("/a?b#c", "fragment"),
            ("/a b", "blank"),
            ("/a\tb", "control"),
            ("/a\r\nHost: x", "control"),
            ("/a\0", "control"),
            ("/é", "beyond ASCII"),
            ("/a?é", "beyond ASCII"),
            ("/a?b c", "blank in the query"),
            ("/a?b\r\nX: 1", "control character or a blank in the query"),
            ("/{id}", "should be"),
            ("/a\"b", "should be"),
        ] {
            let failure = Path::parse(raw).expect_err(raw);
            assert!(failure.code == Code::RequestPath && failure.detail.contains(why), "{raw:?}: {failure}");
        }
    }

    #[test]
    fn c21_a_plain_path_is_kept_byte_for_byte() {
        for raw in [
            "/",
            "/a",
            "/a/",
            "/a/b;v=1/c",
            "/%C3%A9/~x",
            "/a?",
            "/a?x=%2F%00&y={\"z\"}",
            "/a...b/.well-known/x..",
            "/100%25",
            "/a?b?c/..",
        ] {
            let path = Path::parse(raw).unwrap();
            assert_eq!(path.as_str(), raw);
            assert_eq!(path.query().map_or(path.path().to_owned(), |query| format!("{}?{query}", path.path())), raw);
        }
    }

    #[test]
    fn the_keys_of_a_query_are_found_however_they_are_separated() {
        let keys = |raw| Path::parse(raw).unwrap().query_keys().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(keys("/a?page=1&limit=2;admin=1&&flag&=x&a=b=c"), ["page", "limit", "admin", "flag", "", "a"]);
        assert!(keys("/a").is_empty() && keys("/a?").is_empty());
    }

    #[test]
    fn c21_a_pattern_matches_whole_segments() {
        for (text, matched, other) in [
            ("/a", &["/a", "/a?x=1"][..], &["/a/", "/ab", "/a/b", "/", "/A", "/%61"][..]),
            ("/a/", &["/a/"], &["/a", "/a/b"]),
            ("/", &["/"], &["/a"]),
            ("/a/*", &["/a/b", "/a/b.c;d=1"], &["/a", "/a/", "/a/b/", "/a/b/c", "/ab"]),
            ("/a/*/c", &["/a/b/c"], &["/a/c", "/a/b/b/c", "/a/b/c/"]),
            ("/a/**", &["/a", "/a/", "/a/b", "/a/b/c/"], &["/", "/ab", "/b/a"]),
            ("/**", &["/", "/a", "/a/b/"], &[]),
            ("/*/**", &["/a", "/a/", "/a/b"], &["/"]),
        ] {
            let pattern = pattern(text);
            assert_eq!(pattern.to_string(), text);
            matched.iter().for_each(|path| assert!(pattern.matches(&Path::parse(path).unwrap()), "{text} {path}"));
            other.iter().for_each(|path| assert!(!pattern.matches(&Path::parse(path).unwrap()), "{text} {path}"));
        }
        assert_eq!(pattern("/**"), Pattern::everything());
    }

    #[test]
    fn a_pattern_that_could_never_match_as_meant_is_refused() {
        for (text, why) in [
            ("a", "begins with a slash"),
            ("/a/**/b", "`**` comes last"),
            ("/**/**", "`**` comes last"),
            ("/a*", "whole segment"),
            ("/a/***", "whole segment"),
            ("/a**", "whole segment"),
            ("/a?x", "listed under `query`"),
            ("/a/../b", "dot segment"),
            ("//a", "empty segment"),
            ("/a%2fb", "encoded slash"),
            ("/{id}", "should be"),
            (&"/a".repeat(65), "more than 64"),
        ] {
            let failure = text.parse::<Pattern>().expect_err(text);
            assert!(failure.code == Code::ConfigInvalid && failure.detail.contains(why), "{text:?}: {failure}");
        }
    }

    proptest! {
        /// A reader that decodes, cuts parameters off and resolves dots sees the same segments in number and place.
        #[test]
        fn c21_no_other_reading_of_a_taken_path_has_other_segments(raw in "/([a.;/%253bBeEfF0cC\\\\*]|%2e|%2f){0,12}") {
            if let Ok(path) = Path::parse(&raw) {
                let decoded = decode(&decode(path.path()));
                let other: Vec<_> = decoded.split('/').skip(1).map(|segment| segment.split(';').next().unwrap()).collect();
                prop_assert_eq!(other.len(), path.segments().count());
                prop_assert!(!other.iter().any(|segment| matches!(*segment, "." | "..")), "{}", raw);
                prop_assert!(other[..other.len() - 1].iter().all(|segment| !segment.is_empty()), "{}", raw);
            }
        }

        #[test]
        fn a_pattern_is_written_as_it_is_read(text in "(/([a-z.*;%25]{0,3}|\\*\\*?)){0,5}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }

    fn decode(text: &str) -> String {
        let mut parts = text.split('%');
        let mut out = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            match escaped(part) {
                Some(byte) => out.extend([&[byte], &part.as_bytes()[2..]].concat()),
                None => out.extend([b"%", part.as_bytes()].concat()),
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}
