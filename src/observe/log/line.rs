//! One line of the log, for people or for programs. Refuses to know where it goes.

use std::borrow::Cow;
use std::fmt::{Display, Write};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use time::OffsetDateTime;
use tracing::Level;

use super::Format;
use crate::base::id::printable;
use crate::observe::json;

/// Characters of a value, so that one line cannot take the whole queue.
const MAX_VALUE: usize = 4096;

/// What a line says.
pub(super) struct Line<'a> {
    time: OffsetDateTime,
    level: Level,
    target: Cow<'a, str>,
    message: Value,
    fields: Vec<(&'static str, Value)>,
}

impl<'a> Line<'a> {
    pub(super) fn new(time: OffsetDateTime, level: Level, target: &'a str) -> Self {
        Self { time, level, target: target.into(), message: Value::from(""), fields: Vec::new() }
    }

    /// Sets a field; the innermost of two with one name counts. What came over the `log` facade brings its target and its place
    /// as fields.
    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        match name {
            "message" => self.message = value,
            "log.target" => {
                if let Value::String(target) = value {
                    self.target = target.into();
                }
            }
            name if name.starts_with("log.") => {}
            name => match self.fields.iter_mut().find(|(other, _)| *other == name) {
                Some((_, old)) => *old = value,
                None => self.fields.push((name, value)),
            },
        }
    }

    pub(super) fn render(&self, format: Format, color: bool) -> Vec<u8> {
        match format {
            Format::Json => json::line(self),
            Format::Human => self.human(color).into_bytes(),
        }
    }

    /// Our own lines speak for themselves; those of other libraries name it.
    fn human(&self, color: bool) -> String {
        let mut out = String::with_capacity(128);
        paint(&mut out, color, "2", json::rfc3339(self.time));
        out.push(' ');
        let shade = match self.level {
            Level::ERROR => "31",
            Level::WARN => "33",
            Level::INFO => "32",
            _ => "34",
        };
        paint(&mut out, color, shade, format_args!("{:<5}", self.level));
        out.push(' ');
        if !self.target.starts_with(env!("CARGO_CRATE_NAME")) {
            out.push_str(&printable(&self.target, 64));
            out.push_str(": ");
        }
        out.push_str(&text(&self.message));
        for (name, value) in &self.fields {
            out.push(' ');
            paint(&mut out, color, "2", format_args!("{name}="));
            out.push_str(&quoted(value));
        }
        out.push('\n');
        out
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &json::rfc3339(self.time))?;
        map.serialize_entry("level", &self.level.as_str().to_ascii_lowercase())?;
        map.serialize_entry("target", &self.target)?;
        map.serialize_entry("message", &self.message)?;
        for (name, value) in &self.fields {
            // A field may not pass for one of the four.
            match *name {
                "time" | "level" | "target" => map.serialize_entry(&format!("field_{name}"), value)?,
                name => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

fn paint(out: &mut String, color: bool, shade: &str, what: impl Display) {
    let written = if color { write!(out, "\u{1b}[{shade}m{what}\u{1b}[0m") } else { write!(out, "{what}") };
    written.expect("a string takes every write");
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text, MAX_VALUE),
        other => other.to_string(),
    }
}

/// Quotes a value that would not read as one word. Backslashes are doubled, or one before a quote would end the value for whoever
/// reads the line.
fn quoted(value: &Value) -> String {
    let shown = text(value);
    let plain = !shown.is_empty() && !shown.contains([' ', '"', '=']);
    if plain { shown } else { format!("\"{}\"", shown.replace('\\', "\\\\").replace('"', "\\\"")) }
}
