//! A configuration written out as YAML that can be read back. Refuses to know what it says.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::base::id::unprintable;

/// The value as block-style YAML. Scalars are written as in JSON, whose quoted strings are YAML too; keys must be plain words.
pub(super) fn to_yaml(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut out, Block::default()))
        .expect("configurations have text keys and memory takes every write");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    // A key whose value begins on the next line has a blank after its colon.
    text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// Turns the serializer's steps into lines and indentation.
#[derive(Default)]
struct Block {
    /// The mappings and lists that are being written.
    depth: usize,
    /// The innermost one has no entry yet.
    empty: bool,
    /// A mapping's key is being written.
    key: bool,
    /// The line has only a list's dash, which the next key may follow.
    dash: bool,
}

impl Block {
    fn begin(&mut self) {
        self.depth += 1;
        self.empty = true;
    }

    fn end<W: ?Sized + Write>(&mut self, writer: &mut W, if_empty: &str) -> io::Result<()> {
        self.depth -= 1;
        let empty = std::mem::take(&mut self.empty);
        if empty { writer.write_all(if_empty.as_bytes()) } else { Ok(()) }
    }

    fn new_line<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        let very_first = self.depth == 1 && self.empty;
        self.empty = false;
        if std::mem::take(&mut self.dash) || very_first {
            return Ok(());
        }
        write!(writer, "\n{:width$}", "", width = (self.depth - 1) * 2)
    }
}

impl Formatter for Block {
    fn begin_object<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.begin();
        Ok(())
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, "{}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, _first: bool) -> io::Result<()> {
        self.new_line(writer)?;
        self.key = true;
        Ok(())
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.key = false;
        Ok(())
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn begin_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if self.key && fragment == "null" {
            // The one name that is nothing to YAML.
            return writer.write_all(b"\"null\"");
        }
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| unreadable(*c)) {
            write!(writer, "{}\\u{:04x}", &rest[..at], u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.begin();
        Ok(())
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, "[]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, _first: bool) -> io::Result<()> {
        self.new_line(writer)?;
        self.dash = true;
        writer.write_all(b"- ")
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.dash = false;
        Ok(())
    }
}

/// What YAML does not allow (5.1), and what nobody could see; all of it has four digits.
fn unreadable(c: char) -> bool {
    unprintable(c) || matches!(c, '\u{fffe}' | '\u{ffff}')
}
