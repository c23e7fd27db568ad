//! The full table: every figure of every case and peer. Refuses to know what is good and what is bad.

use std::fmt::Write;

use crate::case::CASES;
use crate::record::Records;

/// A Markdown table per case, its columns padded so that it reads as text, too.
pub(super) fn tables(records: &Records) -> String {
    let mut text = String::new();
    for case in CASES {
        let rows = rows(records, case.name);
        if rows.len() > 1 {
            let _ = write!(text, "### {}\n\n{}.\n\n{}\n", case.name, case.about, markdown(&rows));
        }
    }
    text
}

/// The head and a row for each peer.
fn rows(records: &Records, case: &str) -> Vec<Vec<String>> {
    let figures = records.figures(case);
    let mut rows = vec![vec!["peer".to_owned()]];
    rows[0].extend(figures.iter().map(|figure| figure.title().to_owned()));
    for peer in records.peers(case) {
        let mut row = vec![peer.name().to_owned()];
        row.extend(figures.iter().map(|figure| match records.spread(case, peer, *figure) {
            Some(spread) => spread.show(|value| figure.show(value)),
            None => "-".to_owned(),
        }));
        rows.push(row);
    }
    rows
}

/// A Markdown table of a head and rows, numbers to the right.
pub(super) fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells =
            row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
        let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(column, &width)| {
                if column == 0 { "-".repeat(width + 2) } else { format!("{}:", "-".repeat(width + 1)) }
            });
            let _ = writeln!(text, "|{}|", rules.collect::<Vec<_>>().join("|"));
        }
    }
    text
}
