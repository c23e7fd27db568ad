//! Values that people write: durations, sizes, counts, networks, addresses. Each is read strictly and written back in the same
//! form. Refuses to know which key they belong to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::{self, id::printable};

/// The word for "no limit".
const NONE: &str = "none";

/// Makes two modules for `#[serde(with = …)]` of a type: for a value, and for a value or `none`.
macro_rules! scalar {
    ($module:ident, $optional:ident, $type:ty, $read:path, $show:path) => {
        pub(super) mod $module {
            use super::*;

            pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                $read(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }

            pub(in super::super) fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                $show(value).serialize(serializer)
            }
        }

        pub(super) mod $optional {
            use super::*;

            pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
                let text = String::deserialize(deserializer)?;
                if text == NONE { Ok(None) } else { $read(&text).map(Some).map_err(serde::de::Error::custom) }
            }

            pub(in super::super) fn serialize<S: Serializer>(value: &Option<$type>, serializer: S) -> Result<S::Ok, S::Error> {
                match value {
                    None => NONE.serialize(serializer),
                    Some(value) => $show(value).serialize(serializer),
                }
            }
        }
    };
}

scalar!(duration, optional_duration, Duration, read_duration, show_duration);
scalar!(size, optional_size, u64, base::size::parse, base::size::show);
scalar!(count, optional_count, usize, read_count, Clone::clone);

/// In nanoseconds.
const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;

pub(super) fn read_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| wrong(text, "a duration: expected a number and a unit, such as 500ms, 10s, 5m, 2h or 30d"))
}

pub(super) fn show_duration(value: &Duration) -> String {
    let mut left = value.as_nanos();
    let mut shown = String::new();
    for (unit, length) in [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1_000_000), ("us", 1000), ("ns", 1)] {
        if left >= length {
            shown += &format!("{}{unit}", left / length);
            left %= length;
        }
    }
    if shown.is_empty() { "0s".into() } else { shown }
}

fn read_count(text: &str) -> Result<usize, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| wrong(text, "a whole number"))
}

/// An address to listen on.
pub(super) fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(wrong(&text, "an address to listen on: expected IP:PORT, such as 127.0.0.1:5432 or [::]:443"))
    })
}

/// Networks that may connect, or `[any]`.
pub(super) mod networks {
    use super::*;

    const ANY: &str = "any";

    /// One entry; parsed by itself, so that a mistake is told at its own place.
    enum Entry {
        Any,
        Network(IpNet),
    }

    impl<'de> Deserialize<'de> for Entry {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            if text == ANY { Ok(Self::Any) } else { read_network(&text).map(Self::Network).map_err(serde::de::Error::custom) }
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<IpNet>>, D::Error> {
        let entries = Vec::<Entry>::deserialize(deserializer)?;
        if entries.is_empty() {
            return Err(serde::de::Error::custom("an empty list would let nobody in; leave the key out to let everybody in"));
        }
        // With `any` among them, the networks restrict nothing.
        Ok(entries.into_iter().map(|entry| if let Entry::Network(network) = entry { Some(network) } else { None }).collect())
    }

    pub(in super::super) fn serialize<S: Serializer>(value: &Option<Vec<IpNet>>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            None => [ANY].serialize(serializer),
            Some(networks) => serializer.collect_seq(networks.iter().map(IpNet::to_string)),
        }
    }

    pub(super) fn read_network(text: &str) -> Result<IpNet, String> {
        let network: IpNet = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| wrong(text, "a network: expected an address with a prefix, such as 10.0.0.0/8 or fd00::/8"))?;
        let whole = network.trunc();
        if whole == network {
            Ok(network)
        } else {
            Err(format!("`{network}` has bits after its prefix; did you mean `{whole}`?"))
        }
    }
}

/// Networks of balancers, each of which is named: perhaps none, and never `any` or all addresses, whose clients could say of
/// themselves where they come from.
pub(super) mod balancers {
    use super::*;

    struct Network(IpNet);

    impl<'de> Deserialize<'de> for Network {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            match networks::read_network(&text) {
                Ok(network) if network.prefix_len() == 0 => Err(serde::de::Error::custom(format_args!(
                    "`{text}` is everybody, who could then claim any address: name the balancers"
                ))),
                read => read.map(Self).map_err(serde::de::Error::custom),
            }
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
        Ok(Vec::<Network>::deserialize(deserializer)?.into_iter().map(|Network(network)| network).collect())
    }

    pub(in super::super) fn serialize<S: Serializer>(value: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(value.iter().map(IpNet::to_string))
    }
}

fn wrong(text: &str, what: &str) -> String {
    format!("`{}` is not {what}", printable(text, 80))
}
