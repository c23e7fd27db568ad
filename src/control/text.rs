//! How ids and times are written in records and answers. Refuses to know which records and answers.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes a value as it is displayed, and parses it.
pub(super) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The way back.
pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// Times as RFC 3339 in UTC, in whole seconds.
pub(super) mod utc {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};
    use time::format_description::well_known::Rfc3339;
    use time::{OffsetDateTime, UtcOffset};

    /// Writes it.
    pub(in crate::control) fn serialize<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = super::seconds(*time).to_offset(UtcOffset::UTC);
        serializer.serialize_str(&seconds.format(&Rfc3339).map_err(S::Error::custom)?)
    }

    /// The way back.
    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)
    }
}

/// Times that may be absent.
pub(super) mod optional_utc {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use time::OffsetDateTime;

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Utc(#[serde(with = "super::utc")] OffsetDateTime);

    /// Writes it.
    pub(in crate::control) fn serialize<S: Serializer>(time: &Option<OffsetDateTime>, s: S) -> Result<S::Ok, S::Error> {
        time.map(Utc).serialize(s)
    }

    /// The way back.
    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<OffsetDateTime>, D::Error> {
        Ok(Option::<Utc>::deserialize(d)?.map(|utc| utc.0))
    }
}

/// Cut to whole seconds: what is written is what was meant.
pub(super) fn seconds(time: time::OffsetDateTime) -> time::OffsetDateTime {
    time - time::Duration::nanoseconds(i64::from(time.nanosecond()))
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash as those digits.
pub(super) mod hex_bytes {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes it.
    pub(in crate::control) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::hex(bytes))
    }

    /// The way back.
    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Vec<_> = text.chars().map_while(|c| c.to_digit(16)).filter_map(|digit| u8::try_from(digit).ok()).collect();
        let bytes: Vec<_> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        let whole = text.len() == 64 && digits.len() == 64;
        bytes.try_into().ok().filter(|_| whole).ok_or_else(|| D::Error::custom("expected 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Hash(#[serde(with = "hex_bytes")] [u8; 32]);

    #[test]
    fn a_hash_is_written_in_hexadecimal_and_nothing_else_is_one() {
        let text = format!("\"{}a5\"", "0".repeat(62));
        let mut bytes = [0; 32];
        bytes[31] = 0xa5;
        assert_eq!(serde_json::to_string(&Hash(bytes)).unwrap(), text);
        assert_eq!(serde_json::from_str::<Hash>(&text).unwrap(), Hash(bytes));
        for bad in [text.replace("a5", "a"), text.replace("a5", "a55"), text.replace("a5", "g5"), text.replace("a5", "é")] {
            assert!(serde_json::from_str::<Hash>(&bad).is_err(), "{bad}");
        }
    }

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Times(#[serde(with = "utc")] time::OffsetDateTime, #[serde(with = "optional_utc")] Option<time::OffsetDateTime>);

    #[test]
    fn times_are_written_in_utc_and_whole_seconds() {
        let east = time::macros::datetime!(2026-07-01 02:00:00.75 +2);
        let text = serde_json::to_string(&Times(east, None)).unwrap();
        assert_eq!(text, r#"["2026-07-01T00:00:00Z",null]"#);
        assert_eq!(serde_json::from_str::<Times>(&text).unwrap(), Times(seconds(east), None));
        let both = Times(seconds(east), Some(seconds(east)));
        assert_eq!(serde_json::from_str::<Times>(&serde_json::to_string(&both).unwrap()).unwrap(), both);
        assert!(serde_json::from_str::<Times>(r#"["yesterday",null]"#).is_err());
        assert_eq!(hex(&[0, 0xa5, 0xff]), "00a5ff");
    }
}
