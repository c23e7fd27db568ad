//! The log: what the process tells its operator, as lines to read or as JSON, in UTC, to standard error.
//! Owns the form of a line and which ones are wanted. Refuses to know who logs what. A reader that stops reading costs lines,
//! never time: see `queue`.

use std::fmt::Debug;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as Recorded};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use self::line::Line;
use self::queue::Queue;
use crate::base::code::{Code, Failure, OrFail};

mod line;
mod queue;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// The form of a line.
    pub format: Format,
    /// The least severe level that is written.
    pub level: Level,
    /// Whether lines for people are coloured.
    pub color: Color,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `TIME LEVEL message key=value`.
    #[default]
    Human,
    /// One object a line: `time`, `level`, `target`, `message`, and the fields.
    Json,
}

/// How severe a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody must act.
    Error,
    /// Somebody may have to act.
    Warn,
    /// What happens in normal operation, seldom.
    #[default]
    Info,
    /// Every stream.
    Debug,
}

/// Whether lines for people are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// The installed log. Dropping it waits, a little, until what was logged is written: keep it until the process ends.
#[must_use]
pub struct Log(Queue);

/// Installs the log for the process, and has panics logged.
///
/// # Errors
/// `internal` if a log is installed already or standard error is closed.
pub fn init(settings: &LogSettings) -> Result<Log, Failure> {
    let stderr = std::io::stderr();
    let color = settings.color == Color::Auto && stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Through a descriptor of its own: whoever blocks on it holds no lock that a panic's message would need.
    let sink = stderr.as_fd().try_clone_to_owned().or_fail(Code::Internal, "log to standard error")?;
    let (lines, queue) = Lines::new(settings.format, color, File::from(sink))?;
    tracing_subscriber::registry().with(lines.with_filter(wanted(settings.level))).try_init().or_fail(Code::Internal, "log")?;
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(Log(queue))
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Ours at the level that is asked for; of other libraries only what is wrong.
fn wanted(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(env!("CARGO_CRATE_NAME"), level)
}

/// Turns events into lines; a span's fields are repeated on every event in it.
struct Lines {
    format: Format,
    color: bool,
    queue: Queue,
}

impl Lines {
    fn new(format: Format, color: bool, sink: impl Write + Send + 'static) -> Result<(Self, Queue), Failure> {
        let queue = Queue::start(sink, move |lost| {
            let mut line = Line::new(OffsetDateTime::now_utc(), tracing::Level::WARN, module_path!());
            line.set("message", Value::from("log lines were dropped: nobody read them in time"));
            line.set("lines", Value::from(lost));
            line.render(format, color)
        })?;
        Ok((Self { format, color, queue: queue.clone() }, queue))
    }
}

/// A span's own fields.
struct SpanFields(Vec<(&'static str, Value)>);

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Vec::new();
            attributes.record(&mut Collect(|name, value| fields.push((name, value))));
            span.extensions_mut().insert(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Recorded<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(fields)) = span.extensions_mut().get_mut()
        {
            values.record(&mut Collect(|name, value| fields.push((name, value))));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::new(OffsetDateTime::now_utc(), *metadata.level(), metadata.target());
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(SpanFields(fields)) = span.extensions().get() {
                fields.iter().for_each(|(name, value)| line.set(name, value.clone()));
            }
        }
        event.record(&mut Collect(|name, value| line.set(name, value)));
        self.queue.push(line.render(self.format, self.color));
    }
}

/// Reads the fields of an event or span as JSON values.
struct Collect<F>(F);

impl<F: FnMut(&'static str, Value)> Visit for Collect<F> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        (self.0)(field.name(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        (self.0)(field.name(), Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        (self.0)(field.name(), Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        (self.0)(field.name(), Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        (self.0)(field.name(), Value::from(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        (self.0)(field.name(), Value::from(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes lines one by one, and none before it is let.
    struct Reader {
        lines: Sender<String>,
        gate: Option<Receiver<()>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            if let Some(gate) = self.gate.take() {
                let _ = gate.recv();
            }
            let _ = self.lines.send(String::from_utf8(line.to_vec()).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, color: bool, level: Level, log: impl FnOnce()) -> Vec<String> {
        let (lines, received) = channel();
        let (layer, queue) = Lines::new(format, color, Reader { lines, gate: None }).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(wanted(level)));
        tracing::subscriber::with_default(subscriber, log);
        queue.flush();
        received.try_iter().collect()
    }

    #[test]
    fn a_line_for_people_has_time_level_message_and_fields() {
        let lines = logged(Format::Human, false, Level::Info, || {
            let span = tracing::info_span!("stream", request = "r1", bytes = tracing::field::Empty);
            span.record("bytes", 5);
            span.in_scope(|| tracing::info!(target = "acme/dc1/db", detail = "no route", ok = true, "opened"));
            tracing::debug!("not wanted");
            tracing::info!(target: "yamux", "not wanted either");
            tracing::warn!(target: "yamux", "wanted");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        let (time, rest) = lines[0].split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() == 24, "{time}");
        assert_eq!(rest, "INFO  opened request=r1 bytes=5 target=acme/dc1/db detail=\"no route\" ok=true\n");
        assert!(lines[1].ends_with("WARN  yamux: wanted\n"), "{}", lines[1]);
    }

    #[test]
    fn r2_a_backslash_before_a_quote_does_not_end_a_value() {
        let lines = logged(Format::Human, false, Level::Info, || tracing::info!(detail = "a\\\" code=ok", "refused"));
        assert!(lines[0].ends_with("refused detail=\"a\\\\\\\" code=ok\"\n"), "{}", lines[0]);
    }

    #[test]
    fn a_line_of_json_has_the_same() {
        let lines = logged(Format::Json, false, Level::Debug, || tracing::debug!(code = "no_agent", bytes = 5u64, "refused"));
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&line["level"], &line["message"], &line["bytes"]), (&"debug".into(), &"refused".into(), &5.into()));
        assert_eq!(line["code"], "no_agent");
        assert!(line["target"].as_str().unwrap().starts_with("underpass"), "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn r2_a_strangers_text_stays_inside_its_line() {
        let hostile = "x\r\n2026-01-01T00:00:00.000Z ERROR forged\u{1b}[2J\u{9b}31m\u{202e}\0";
        for format in [Format::Human, Format::Json] {
            let lines = logged(format, false, Level::Info, || tracing::info!(name = hostile, other = ?hostile, "{hostile}"));
            assert_eq!(lines.len(), 1);
            let line = lines[0].strip_suffix('\n').unwrap();
            assert!(!line.contains(crate::base::id::unprintable), "{format:?}: {line:?}");
        }
    }

    #[test]
    fn colours_are_there_only_when_asked_for() {
        assert!(logged(Format::Human, true, Level::Info, || tracing::info!("x"))[0].contains("\u{1b}[32m"));
        assert!(!logged(Format::Human, false, Level::Info, || tracing::info!("x"))[0].contains('\u{1b}'));
    }

    #[test]
    fn f46_a_reader_that_stops_reading_costs_lines_and_no_time() {
        let (lines, received) = channel();
        let (open, gate) = channel();
        let (layer, queue) = Lines::new(Format::Human, false, Reader { lines, gate: Some(gate) }).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        // Returns although nothing is read; a log that waited would hang here.
        tracing::subscriber::with_default(subscriber, || (0..20_000).for_each(|number| tracing::info!(number, "line")));
        open.send(()).unwrap();
        queue.flush();
        let lines: Vec<String> = received.try_iter().collect();
        assert!(lines.len() < 20_000);
        assert!(lines[0].contains("number=0"), "{}", lines[0]);
        let told: usize = lines
            .iter()
            .filter_map(|line| line.split_once("nobody read them in time lines=")?.1.trim_end().parse::<usize>().ok())
            .sum();
        let written = lines.iter().filter(|line| line.contains("number=")).count();
        assert_eq!(told + written, 20_000, "every line was written or counted");
    }
}
