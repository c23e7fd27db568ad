//! How things look: errors, tables, JSON. Colours on a terminal alone. It refuses to know what is printed.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use time::{OffsetDateTime, UtcOffset};

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

/// A time as every text shows it, in UTC to the minute: `2026-01-31 12:00 UTC`.
pub(super) fn time(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute())
}

/// A duration as every text shows it, in its largest unit: `15 s`; of less than ten there is a digit more: `2.5 min`, `0.28 ms`.
pub(super) fn duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 4] =
        [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("min", 60_000_000_000), ("s", 1_000_000_000)];
    let nanos = duration.as_nanos();
    let (unit, length) = UNITS.into_iter().find(|(_, length)| nanos >= *length).unwrap_or(("ms", 1_000_000));
    let (whole, hundredths) = (nanos / length, format!("{:02}", nanos * 100 / length % 100));
    let digits = match (whole, unit) {
        (10.., _) => 0,
        (_, "ms") => 2,
        _ => 1,
    };
    match hundredths[..digits].trim_end_matches('0') {
        "" => format!("{whole} {unit}"),
        fraction => format!("{whole}.{fraction} {unit}"),
    }
}

/// A cell of a table, where there may be nothing to show.
pub(super) fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_of_its_largest_unit() {
        for (micros, shown) in [
            (0, "0 ms"),
            (280, "0.28 ms"),
            (300, "0.3 ms"),
            (235_900, "235 ms"),
            (999_999, "999 ms"),
            (1_000_000, "1 s"),
            (2_540_000, "2.5 s"),
            (15_071_000, "15 s"),
            (104_000_000, "1.7 min"),
            (3_599_000_000, "59 min"),
            (90 * 60_000_000, "1.5 h"),
            (100 * 24 * 3_600_000_000, "100 d"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), shown);
        }
    }

    #[test]
    fn a_time_is_in_utc_and_to_the_minute() {
        assert_eq!(time(time::macros::datetime!(2026-12-23 00:02:34 +1:30)), "2026-12-22 22:32 UTC");
    }
}
