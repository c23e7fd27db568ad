//! A request in one line, as `agent check --explain` takes it: `METHOD TARGET PATH [upgrade] [body=SIZE]`. Refuses to know rules.

use std::str::FromStr;

use super::Ask;
use super::rule::is_token;
use crate::base::code::{Code, Failure};
use crate::base::id::{Name, printable};
use crate::base::size;
use crate::rules::path::Path;

/// A request that somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its method.
    pub method: String,
    /// The target it is for.
    pub target: Name,
    /// Path and query, not yet looked at.
    pub path: String,
    /// Whether it asks for an upgrade.
    pub upgrade: bool,
    /// How long its body is, in bytes.
    pub body: Option<u64>,
}

impl Question {
    /// What rules look at of it.
    #[must_use]
    pub fn ask<'a>(&'a self, path: &'a Path<'a>) -> Ask<'a> {
        Ask { method: &self.method, path, upgrade: self.upgrade, body: self.body }
    }
}

impl FromStr for Question {
    type Err = Failure;
    /// `usage`, if the line is no such question. Its path is parsed by who decides.
    fn from_str(line: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            let line = printable(line, 256);
            Failure::new(Code::Usage, format_args!("`{line}`: {why}; write `METHOD TARGET PATH [upgrade] [body=SIZE]`"))
        };
        let mut words = line.split_ascii_whitespace();
        let (Some(method), Some(target), Some(path)) = (words.next(), words.next(), words.next()) else {
            return Err(wrong("a method, a target and a path are needed"));
        };
        if !is_token(method) {
            return Err(wrong("the first word is no method"));
        }
        let target = Name::parse(target).map_err(|error| wrong(&error.to_string()))?;
        let mut question = Self { method: method.to_owned(), target, path: path.to_owned(), upgrade: false, body: None };
        for word in words {
            match word.split_once('=') {
                None if word == "upgrade" => question.upgrade = true,
                Some(("body", size)) => question.body = Some(size::parse(size).map_err(|error| wrong(&error))?),
                _ => return Err(wrong("a further word is neither `upgrade` nor `body=SIZE`")),
            }
        }
        Ok(question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d9_a_question_is_a_method_a_target_and_a_path() {
        let question: Question = "GET erp-api /api/v1/orders?page=2".parse().unwrap();
        assert_eq!((question.method.as_str(), question.target.as_str()), ("GET", "erp-api"));
        let path = Path::parse(&question.path).unwrap();
        let ask = question.ask(&path);
        assert_eq!((ask.path.query(), ask.upgrade, ask.body), (Some("page=2"), false, None));
        let question: Question = "POST erp-api /up body=2MiB upgrade".parse().unwrap();
        assert_eq!((question.upgrade, question.body), (true, Some(2 * 1024 * 1024)));
    }

    #[test]
    fn d9_a_question_that_is_none_says_how_one_is_written() {
        for line in [
            "",
            "GET",
            "GET erp-api",
            "GET Erp_api /",
            "G(T erp-api /",
            "GET erp-api / more",
            "GET erp-api / body=1",
            "GET erp-api / upgrade=1",
        ] {
            let failure = line.parse::<Question>().expect_err(line);
            assert!(failure.code == Code::Usage && failure.detail.contains("METHOD TARGET PATH"), "{failure}");
        }
    }
}
