//! Configuration files, as an operator writes them. Refuses to know what a setting does.

use serde::Serialize;

use super::told;
use crate::base::code::{Code, Failure};
use crate::base::id::unprintable;
use crate::config::{effective, parse_agent, parse_gateway};

/// Both configurations over an input: a text, refused in one line that begins with the file's name, or taken. What is in force is
/// written out so that it is read as the same.
///
/// # Panics
/// When that is not so.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    read(text, parse_gateway);
    read(text, parse_agent);
}

fn read<C: Serialize + PartialEq + std::fmt::Debug>(text: &str, parse: fn(&str, &str) -> Result<C, Failure>) {
    match parse("fuzz.yaml", text) {
        Ok(config) => {
            let shown = effective(&config);
            assert!(!shown.contains(|c| c != '\n' && unprintable(c)), "not printable: {shown:?}");
            let again = parse("fuzz.yaml", &shown);
            assert_eq!(again.as_ref(), Ok(&config), "as written out:\n{shown}");
            assert_eq!(again.as_ref().map(effective).as_ref(), Ok(&shown), "written out twice");
        }
        Err(failure) => {
            assert!(
                !matches!(failure.code, Code::Internal) && failure.detail.starts_with("fuzz.yaml:"),
                "an error without its place: {failure}"
            );
            told(&failure);
        }
    }
}
