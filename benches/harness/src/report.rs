//! What a run's records look like to people. Refuses to know how they came about.

mod chart;
mod goals;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::record::Records;

/// Why goals are not met, by their names: written by hand, so that making the report anew keeps it.
pub(crate) type Reasons = BTreeMap<String, String>;

/// Reads the file of reasons; without the file there are none.
pub(crate) fn reasons(file: &Path) -> Result<Reasons> {
    match std::fs::read_to_string(file) {
        Ok(text) => toml::from_str(&text).with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Reasons::new()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// The goals and all figures, for the terminal.
pub(crate) fn text(records: &Records, reasons: &Reasons) -> String {
    let mut text = goals::table(records);
    let _ = write!(text, "\n{}{}", table::tables(records), goals::unmet(records, reasons));
    for note in &records.notes {
        let _ = writeln!(text, "{} · {}: {}", note.case, note.peer.name(), note.text);
    }
    text
}

/// What a smoke run says: what went wrong, or that nothing did. Its figures mean nothing.
pub(crate) fn smoke(records: &Records) -> String {
    let mut text = String::new();
    for note in &records.notes {
        let _ = writeln!(text, "{} · {}: {}", note.case, note.peer.name(), note.text);
    }
    let _ = writeln!(text, "{} measurements worked", records.records.len());
    text
}

/// Writes RESULTS.md, the charts it shows, and the records themselves.
pub(crate) fn write(records: &Records, reasons: &Reasons, dir: &Path) -> Result<()> {
    let charts = dir.join("charts");
    std::fs::create_dir_all(&charts)?;
    std::fs::write(dir.join("results.json"), records.to_json()?)?;
    let mut shown = String::new();
    for (name, alt, svg) in chart::charts(records) {
        std::fs::write(charts.join(format!("{name}.svg")), svg)?;
        let _ = writeln!(shown, "![{alt}](charts/{name}.svg)\n");
    }
    std::fs::write(dir.join("RESULTS.md"), document(records, reasons, &shown))?;
    Ok(())
}

fn document(records: &Records, reasons: &Reasons, charts: &str) -> String {
    let machine = &records.machine;
    let mut text = format!(
        "# Results\n\nMade by `benches/run` on {} UTC at commit {}, in {} round{}, in each of them every peer once, in turn. What the \
         cases do and how to read the figures is in [README.md](README.md); every single value is in \
         [results.json](results.json).\n\n| | |\n|-|-|\n",
        machine.date,
        machine.commit,
        records.rounds,
        if records.rounds == 1 { "" } else { "s" }
    );
    for (key, value) in [
        ("processor", format!("{} x {}", machine.cores, machine.processor)),
        ("kernel", format!("Linux {}, TCP congestion control {}", machine.kernel, machine.congestion_control)),
        ("load before the run", machine.load_before.clone()),
        ("peers", machine.versions.join("; ")),
    ] {
        let _ = writeln!(text, "| {key} | {value} |");
    }
    let _ = write!(
        text,
        "\n## Goals\n\nA figure is the median over the rounds, in parentheses the quartiles; one *of* a peer's is the ratio to it, \
         taken round by round.\n\n{}\n{}{}\n",
        goals::table(records),
        goals::unmet(records, reasons),
        charts.trim_end()
    );
    let _ = write!(text, "\n## All figures\n\nMedians, in parentheses the quartiles.\n\n{}", table::tables(records));
    if !records.notes.is_empty() {
        text += "## Notes\n\n";
        for note in &records.notes {
            let _ = writeln!(text, "- {}, {}: {}", note.case, note.peer.name(), note.text.replace('\n', " "));
        }
    }
    text.trim_end().to_owned() + "\n"
}
