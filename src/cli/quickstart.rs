//! `underpass quickstart`: shows what happens as it happens. It refuses to know how.

use serde_json::{Value, json};

use super::args::QuickstartArgs;
use super::{Outcome, print};
use crate::app::quickstart::{self, Shown};

pub(super) async fn run(args: QuickstartArgs, json: bool) -> Outcome {
    let own = args.target.is_none();
    quickstart::run(args.target, args.listen, |shown| if json { event(&shown) } else { text(&shown, own) }).await
}

fn event(shown: &Shown) {
    match shown {
        Shown::Ready { url, target, .. } => print::json(&json!({ "event": "ready", "url": url, "target": target })),
        Shown::Cut => print::json(&json!({ "event": "cut" })),
        Shown::Row(row) => print::line(row),
        Shown::Draining => print::json(&json!({ "event": "draining" })),
    }
}

fn text(shown: &Shown, own: bool) {
    match shown {
        Shown::Ready { url, target, keys } => {
            let what = if own { "a sample server".to_owned() } else { target.clone() };
            print::line(format!("ready: {url} leads through gateway and agent to {what}"));
            if own {
                print::line(format!("       try  curl {url}    Ctrl-C ends"));
            }
            if *keys {
                print::line("       Enter cuts the link between the two: what is open goes on");
            }
        }
        Shown::Row(row) => {
            if let Some(line) = serde_json::from_str(row).ok().and_then(|row: Value| stream_line(&row)) {
                print::line(line);
            }
        }
        Shown::Cut => print::line("              cut      the link between agent and gateway, by a reset"),
        Shown::Draining => print::line("ending: open streams may finish; Ctrl-C again cuts them"),
    }
}

/// Rows about streams and their link; the others are for the audit.
fn stream_line(row: &Value) -> Option<String> {
    let field = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
    let time = field("time").get(11..23).unwrap_or_default();
    // The last part of a UUIDv7 is random: enough to tell streams apart.
    let id = field("request").rsplit('-').next().unwrap_or_default();
    match field("event") {
        "opened" => Some(format!("{time}  opened   {id}  {} from {}", field("target"), field("source"))),
        "refused" => Some(format!("{time}  refused  {id}  {} {}: {}", field("target"), field("code"), field("detail"))),
        "lane_broken" => Some(format!("{time}  broken   lane {}: {}", number("lane"), field("detail"))),
        "lane_resumed" => {
            Some(format!("{time}  resumed  lane {} after {} ms, with every stream", number("lane"), number("paused_ms")))
        }
        "closed" => {
            let ended = row.get("code").and_then(Value::as_str).map(|code| format!(", {code}")).unwrap_or_default();
            let (up, down) = (bytes(number("up")), bytes(number("down")));
            Some(format!("{time}  closed   {id}  {up} up, {down} down, {} ms{ended}", number("millis")))
        }
        _ => None,
    }
}

fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let unit = (0..3).find(|unit| count < 1 << (10 * (unit + 1))).unwrap_or(3);
    if unit == 0 {
        return format!("{count} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
    let value = count as f64 / (1u64 << (10 * unit)) as f64;
    format!("{value:.1} {}", units[unit])
}
