//! `underpass quickstart`: shows what happens as it happens. It refuses to know how.

use std::net::SocketAddr;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::args::QuickstartArgs;
use super::{Outcome, print};
use crate::app::quickstart::{self, Shown};
use crate::base::code::Exit;

/// As in the audit, whose rows stand beside it.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

pub(super) async fn run(args: QuickstartArgs, json: bool) -> Outcome {
    let own = args.target.is_none();
    let show = |shown| if json { event(&shown) } else { text(&shown, own) };
    quickstart::run(args.target, args.listen, show).await
}

fn event(shown: &Shown) {
    match shown {
        Shown::Ready { url, target, open, .. } => {
            let mut event = json!({ "event": "ready", "url": url, "target": target });
            if let Some(at) = open {
                event["warning"] = warning(*at).into();
            }
            print::json(&event);
        }
        Shown::Cut => print::json(&json!({ "time": now(), "event": "cut" })),
        Shown::Row(row) => print::line(row),
        Shown::Draining(limit) => print::json(&json!({ "event": "draining", "seconds": limit.as_secs() })),
        Shown::Ended(exit) => print::json(&json!({ "event": "ended", "cut": *exit == Exit::Cut })),
    }
}

fn text(shown: &Shown, own: bool) {
    match shown {
        Shown::Ready { .. } => ready(shown, own).into_iter().for_each(print::line),
        Shown::Row(row) => {
            if let Some(line) = serde_json::from_str(row).ok().and_then(|row: Value| stream_line(&row)) {
                print::line(line);
            }
        }
        Shown::Cut => {
            print::line(format!("{}  cut      every connection between agent and gateway, by a reset", of_day(&now())))
        }
        Shown::Draining(limit) => {
            print::line(format!("ending: open streams may finish for {} s; Ctrl-C again cuts them", limit.as_secs()));
        }
        Shown::Ended(Exit::Cut) => print::line("ended: what was open has been cut"),
        Shown::Ended(_) => print::line("ended"),
    }
}

/// Where to go, and what can be done there.
fn ready(shown: &Shown, own: bool) -> Vec<String> {
    let Shown::Ready { url, target, keys, open } = shown else { return Vec::new() };
    let what = if own { "a sample server" } else { target };
    let mut lines = vec![format!("ready: {url} leads through gateway and agent to {what}")];
    lines.push(if own { format!("       try  curl {url}    Ctrl-C ends") } else { "       Ctrl-C ends".to_owned() });
    if *keys {
        lines.push("       Enter cuts the link between the two: what is open goes on".to_owned());
    } else if own {
        lines.push(format!("       curl -X POST {url}/cut  cuts the link between the two: what is open goes on"));
    }
    lines.extend(open.map(|at| format!("       warning: {}", warning(at))));
    lines
}

fn warning(open: SocketAddr) -> String {
    format!("whoever reaches {open} reaches the target; nobody is asked who it is")
}

fn now() -> String {
    OffsetDateTime::now_utc().format(TIME).unwrap_or_default()
}

/// The time alone.
fn of_day(time: &str) -> &str {
    time.get(11..23).unwrap_or_default()
}

/// Rows about streams and their link; the others are for the audit.
fn stream_line(row: &Value) -> Option<String> {
    let field = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
    let time = of_day(field("time"));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(keys: bool, open: Option<&str>) -> Shown {
        let (url, target) = ("http://127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
        Shown::Ready { url, target, keys, open: open.map(|at| at.parse().unwrap()) }
    }

    #[test]
    fn what_is_announced_can_be_done() {
        let lines = ready(&shown(true, None), true);
        assert!(lines[1].ends_with("curl http://127.0.0.1:1    Ctrl-C ends") && lines[2].contains("Enter cuts"), "{lines:?}");
        let lines = ready(&shown(false, None), true);
        assert!(lines[2].contains("curl -X POST http://127.0.0.1:1/cut"), "nobody can press Enter: {lines:?}");
        assert_eq!(ready(&shown(false, None), false).len(), 2, "a target of one's own knows no /cut");
    }

    #[test]
    fn a_target_that_is_open_to_others_has_a_warning() {
        let warned =
            |open| ready(&shown(true, open), true).iter().any(|line| line.contains("warning: whoever reaches 0.0.0.0:7"));
        assert!(warned(Some("0.0.0.0:7")) && !warned(None));
    }
}
