//! One value as one line of JSON that a terminal can show: what audit and log have in common.
//! Refuses to know what the lines say.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use time::{OffsetDateTime, UtcOffset};

use crate::base::id::{is_plain, unprintable};

/// What a line takes, mostly.
const LINE: usize = 512;

/// A time as RFC 3339 in UTC with milliseconds, whatever the host's time zone. Digit by digit, since each line has one.
pub(super) fn rfc3339(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, milli) = time.to_hms_milli();
    let mut text = String::with_capacity("0000-00-00T00:00:00.000Z".len());
    push_digits(&mut text, year.unsigned_abs(), 4);
    for (before, value) in [('-', u8::from(month)), ('-', day), ('T', hour), (':', minute), (':', second)] {
        text.push(before);
        push_digits(&mut text, value.into(), 2);
    }
    text.push('.');
    push_digits(&mut text, milli.into(), 3);
    text.push('Z');
    text
}

fn push_digits(text: &mut String, value: u32, digits: u32) {
    for place in (0..digits).rev() {
        text.push(char::from_digit(value / 10_u32.pow(place) % 10, 10).expect("what is left of a division by ten is a digit"));
    }
}

/// The value as JSON with a final line feed. JSON itself escapes U+0000 to U+001F; what else could move a cursor or turn the
/// direction of the text is escaped too, so nothing in a record can forge another one.
pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(LINE);
    value
        .serialize(&mut Serializer::with_formatter(&mut out, Printable))
        .expect("records have text keys and memory takes every write");
    out.push(b'\n');
    out
}

struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if is_plain(fragment) {
            return writer.write_all(fragment.as_bytes());
        }
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
        let early = OffsetDateTime::from_unix_timestamp_nanos(1_009_999_999_999_999).unwrap();
        assert_eq!(rfc3339(early), "1970-01-12T16:33:19.999Z");
    }
}
