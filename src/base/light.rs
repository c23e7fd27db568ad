//! The three lights of a session: its tunnel, its agent, and each of its targets. Owns their words, which status, API and metrics
//! share. Refuses to know how what they show is found out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::code::{Code, Fault};
use super::id::Name;

/// What a light can show.
pub trait State: Copy + PartialEq + 'static {
    /// Every state, the best one first.
    const ALL: &[Self];

    /// The word for it.
    fn as_str(self) -> &'static str;
}

macro_rules! words {
    ($(#[$doc:meta])* $light:ident { $($(#[$what:meta])* $state:ident $word:literal)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $light { $($(#[$what])* #[serde(rename = $word)] $state,)* }

        impl State for $light {
            const ALL: &[Self] = &[$(Self::$state),*];

            fn as_str(self) -> &'static str {
                match self { $(Self::$state => $word,)* }
            }
        }

        impl fmt::Display for $light {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// Whether frames come.
    Tunnel {
        /// They do.
        Connected "connected"
        /// Its connection has broken, and a new one is being made.
        Resuming "resuming"
        /// None has come for too long.
        Silent "silent"
        /// There is no session.
        Down "down"
    }
}

words! {
    /// Whether the agent at the other end of a tunnel answers streams.
    Serving {
        /// It has answered the last canary.
        Serving "serving"
        /// It has not.
        NotServing "not serving"
        /// It was not asked yet, can't be asked while its tunnel is not connected, or is of a build that can't be.
        Unknown "unknown"
    }
}

words! {
    /// How the last attempt at a target went.
    Reach {
        /// It was reached.
        Reached "reached"
        /// It was not.
        Failing "failing"
        /// Nobody has tried.
        Unknown "unknown"
    }
}

/// What a light shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Light<S> {
    /// The word.
    pub state: S,
    /// Since when it is that; none while nothing is known.
    #[serde(with = "utc", default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub since: Option<OffsetDateTime>,
    /// Why it is not well.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// What is known of one session, seen from the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lights {
    /// Its tunnel.
    pub tunnel: Tunnel,
    /// Its agent.
    pub agent: Light<Serving>,
    /// Its targets by name.
    pub targets: BTreeMap<Name, Light<Reach>>,
}

/// A light that changes.
#[derive(Debug)]
pub struct Lamp<S>(Mutex<Light<S>>);

impl<S: State> Lamp<S> {
    /// One of which nothing is known yet, by this word.
    #[must_use]
    pub fn new(unknown: S) -> Self {
        Self(Mutex::new(Light { state: unknown, since: None, code: None }))
    }

    /// Shows this from now on; yields what it showed before if that was another state.
    pub fn show(&self, state: S, code: Option<Code>) -> Option<S> {
        let mut light = self.lock();
        light.code = code;
        if light.state == state {
            return None;
        }
        light.since = Some(OffsetDateTime::now_utc());
        Some(std::mem::replace(&mut light.state, state))
    }

    /// What it shows.
    #[must_use]
    pub fn light(&self) -> Light<S> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Light<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lamp<Reach> {
    /// An attempt at the target has ended, by this code if it was not reached. What says nothing of the target changes nothing.
    pub fn tried(&self, outcome: Result<(), Code>) {
        match outcome {
            Ok(()) => drop(self.show(Reach::Reached, None)),
            Err(code) if blames_target(code) => drop(self.show(Reach::Failing, Some(code))),
            Err(_) => {}
        }
    }
}

/// Whether a stream's end says that its target is not to be reached, and not that somebody has too many streams, say.
fn blames_target(code: Code) -> bool {
    let of_site = [Code::TargetUnknown, Code::TargetDnsFailed, Code::AddressForbidden, Code::LoopbackForbidden];
    code.fault() == Fault::Target || of_site.contains(&code)
}

/// RFC 3339 in UTC, to the second.
mod utc {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    #[allow(clippy::ref_option, reason = "serde's shape")]
    pub(super) fn serialize<S: Serializer>(time: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = time.and_then(|time| time.truncate_to_second().format(&Rfc3339).ok());
        match text {
            Some(text) => serializer.serialize_str(&text),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OffsetDateTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| OffsetDateTime::parse(&text, &Rfc3339).map_err(de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_light_says_since_when_it_is_so_and_why() {
        let lamp = Lamp::new(Reach::Unknown);
        assert_eq!(serde_json::to_string(&lamp.light()).unwrap(), r#"{"state":"unknown"}"#);
        assert_eq!(lamp.show(Reach::Failing, Some(Code::TargetRefused)), Some(Reach::Unknown));
        let failing = lamp.light();
        assert_eq!(lamp.show(Reach::Failing, Some(Code::TargetTimeout)), None, "still the same state");
        assert_eq!((lamp.light().since, lamp.light().code), (failing.since, Some(Code::TargetTimeout)));
        let text = serde_json::to_string(&lamp.light()).unwrap();
        let read: Light<Reach> = serde_json::from_str(&text).unwrap();
        assert_eq!((read.state, read.code), (Reach::Failing, Some(Code::TargetTimeout)), "{text}");
        assert!(read.since.is_some() && text.contains("Z\""), "{text}");
    }

    #[test]
    fn what_says_nothing_of_a_target_changes_nothing() {
        let lamp = Lamp::new(Reach::Unknown);
        for code in [Code::AgentStreams, Code::SessionLost, Code::QuotaExceeded, Code::ClientReset, Code::TargetStreams] {
            lamp.tried(Err(code));
            assert_eq!(lamp.light().state, Reach::Unknown, "{code}");
        }
        lamp.tried(Ok(()));
        assert_eq!(lamp.light().state, Reach::Reached);
        for code in [Code::TargetRefused, Code::TargetDnsFailed, Code::AddressForbidden, Code::TargetTlsUntrusted] {
            lamp.tried(Err(code));
            assert_eq!((lamp.light().state, lamp.light().code), (Reach::Failing, Some(code)));
        }
    }
}
