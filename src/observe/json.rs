//! One value as one line of JSON that a terminal can show: what audit and log have in common.
//! Refuses to know what the lines say.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::base::id::unprintable;

const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A time as RFC 3339 in UTC with milliseconds, whatever the host's time zone.
pub(super) fn rfc3339(time: OffsetDateTime) -> String {
    time.to_offset(time::UtcOffset::UTC).format(MILLISECONDS).expect("the format has only parts that every time has")
}

/// The value as JSON with a final line feed. JSON itself escapes U+0000 to U+001F; what else could move a cursor or turn the
/// direction of the text is escaped too, so nothing in a record can forge another one.
pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    value
        .serialize(&mut Serializer::with_formatter(&mut out, Printable))
        .expect("records have text keys and memory takes every write");
    out.push(b'\n');
    out
}

struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| unprintable(*c)) {
            CompactFormatter.write_string_fragment(writer, &rest[..at])?;
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_no_character_that_moves_a_cursor_gets_through_and_none_is_lost() {
        let text = "a\r\n\0\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{2028}\u{feff}\"\\ä😀";
        let line = line(&text);
        let shown = std::str::from_utf8(&line).unwrap();
        assert_eq!(shown.matches('\n').count(), 1, "{shown}");
        assert!(!shown.trim_end_matches('\n').contains(unprintable), "{shown}");
        assert_eq!(serde_json::from_str::<String>(shown).unwrap(), text);
    }

    #[test]
    fn times_are_utc() {
        let there = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let shifted = there.to_offset(time::UtcOffset::from_hms(5, 30, 0).unwrap());
        assert_eq!(rfc3339(shifted), "2023-11-14T22:13:20.000Z");
    }
}
