//! How things look: errors, tables, JSON. Colours on a terminal alone. It refuses to know what is printed.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use crate::base::code::Failure;

/// Prints an error: what, then what it means and what to do; as JSON on standard output for programs.
pub(super) fn failure(failure: &Failure, json: bool) {
    if json { self::json(&error(failure)) } else { explained(failure) }
}

/// The same with all of it on standard error, where standard output carries something else.
pub(super) fn failure_beside(failure: &Failure, json: bool) {
    if json { note(error(failure)) } else { explained(failure) }
}

/// An error for programs.
pub(super) fn error(failure: &Failure) -> serde_json::Value {
    let code = failure.code;
    json!({ "error": {
        "code": code, "detail": failure.detail, "cause": code.cause(), "remedy": code.remedy(), "fault": code.fault().as_str()
    }})
}

fn explained(failure: &Failure) {
    let code = failure.code;
    let (red, bold, plain) = if colours(&std::io::stderr()) { ("\x1b[31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    eprintln!("{red}error{plain} {bold}{code}{plain}: {}", failure.detail);
    eprintln!("  {}", code.cause());
    eprintln!("  {}", code.remedy());
}

/// Prints one JSON value on a line.
pub(super) fn json<T: Serialize>(value: &T) {
    line(serde_json::to_string(value).unwrap_or_default());
}

/// Prints a line; a reader that has gone is no error.
pub(super) fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a note beside the result.
pub(super) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints rows under a heading, in columns as wide as they need to be.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) {
    let mut widths = heading.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let (bold, plain) = if colours(&std::io::stdout()) { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    line(format!("{bold}{}{plain}", aligned(&widths, heading.map(str::to_owned))));
    for row in rows {
        line(aligned(&widths, row.clone()));
    }
}

fn aligned<const N: usize>(widths: &[usize; N], cells: [String; N]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
