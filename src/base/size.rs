//! Sizes as people write them. Refuses to know what is that large.

use super::id::printable;

const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a size in bytes, such as `16MiB`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[number.len()..].trim_start();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| digits).and_then(|number| number.checked_mul(factor?)).ok_or_else(|| {
        let text = printable(text, 80);
        format!("`{text}` is not a size: expected a whole number and a unit, such as 512KiB, 16MiB or 2GiB")
    })
}

/// Writes a size as it is read.
#[must_use]
pub fn show(value: &u64) -> String {
    let (unit, factor) = UNITS.into_iter().find(|(_, factor)| *value > 0 && value.is_multiple_of(*factor)).unwrap_or(("B", 1));
    format!("{}{unit}", value / factor)
}
