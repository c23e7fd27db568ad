//! The metrics: one list of their names, units and labels, and a small function for each that is counted.
//! Refuses to know HTTP and who counts. Labels take values of small fixed sets (codes, directions, configured endpoints), never
//! a stranger's text.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::base::code::{Code, Failure, OrFail};
use crate::base::light::State;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values into buckets.
    Histogram,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name it is scraped under.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What one of it is.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $name:literal $kind:ident $unit:ident [$($label:literal)*] $help:literal)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*

        /// Every metric, in the order of the reference.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: &[$($label),*], help: $help }),*
        ];
    };
}

metrics! {
    BUILD_INFO "underpass_build_info" Gauge Count ["version" "role"]
        "1, with the version and the role of this process."
    SESSIONS "underpass_sessions" Gauge Count ["gateway"]
        "Established sessions: on an agent to the endpoint, on a gateway its own."
    LANES "underpass_lanes" Gauge Count ["gateway"]
        "Connections that carry the established sessions: one each, more where bulk streams ask for them."
    LANES_BROKEN "underpass_lanes_broken_total" Counter Count ["code"]
        "Connections of lanes that broke and were waited for, by why."
    LANE_PAUSE_SECONDS "underpass_lane_pause_seconds" Histogram Seconds []
        "From a lane's broken connection, as noticed, to the one that it went on with."
    SESSION_LAST_FRAME_AGE "underpass_session_last_frame_age_seconds" Gauge Seconds ["gateway"]
        "Since the last frame received from the endpoint; a dead peer shows here first."
    RECONNECTS "underpass_reconnects_total" Counter Count ["code"]
        "Sessions and attempts of the agent that ended, by why."
    LIGHTS "underpass_lights" Gauge Count ["light" "state"]
        "Lights by what they show: `tunnel` of the sessions (on an agent: the endpoints), `agent` of the sessions, `target` of each session's (on an agent: its own) targets."
    DUPLICATE_IDENTITIES "underpass_duplicate_identities" Gauge Count []
        "Agents whose identity several processes hold at the same time."
    CONNECTS_REFUSED "underpass_connects_refused_total" Counter Count ["code"]
        "Connections to the gateway that did not become a session or a lane of one, by why."
    ACCEPT_PAUSES "underpass_accept_pauses_total" Counter Count []
        "Times that a listener began to pause because descriptors or memory had run out."
    STREAMS_OPEN "underpass_streams_open" Gauge Count []
        "Streams open now."
    STREAMS_OPENED "underpass_streams_opened_total" Counter Count []
        "Streams accepted."
    REFUSALS "underpass_refusals_total" Counter Count ["code"]
        "Streams refused, by why."
    BYTES "underpass_bytes_total" Counter Bytes ["direction"]
        "Bytes carried: up is from client to target."
    OPEN_SECONDS "underpass_open_seconds" Histogram Seconds []
        "From a client's ask to the reply of the agent that accepted."
    HTTP_REQUESTS "underpass_http_requests_total" Counter Count ["status"]
        "HTTP requests answered, by the class of their status; none: they broke off before."
    HTTP_REQUEST_SECONDS "underpass_http_request_seconds" Histogram Seconds []
        "From an HTTP request to the end of its answer."
    HTTP_STREAMS_IDLE "underpass_http_streams_idle" Gauge Count []
        "Streams of the gateway that are kept for their caller's next HTTP request."
    LDAP_DENIALS "underpass_ldap_denials_total" Counter Count ["target" "rule"]
        "LDAP requests that did not pass, by target and by what they ran into."
    ENROLLMENTS "underpass_enrollments_total" Counter Count []
        "Certificates handed out to agents."
    ENROLLMENT_REFUSALS "underpass_enrollment_refusals_total" Counter Count ["code"]
        "Enrollments refused, by why."
    CERTIFICATE_NOT_AFTER "underpass_certificate_not_after_seconds" Gauge Seconds ["which"]
        "When a certificate of this process ends, in seconds since 1970."
    RELOADS "underpass_reloads_total" Counter Count ["outcome"]
        "Reloads of the configuration: done or refused."
    AUDIT_DROPPED "underpass_audit_dropped_total" Counter Count []
        "Audit rows that could not be written (on_full: drop)."
    AUDIT_FILES_DELETED "underpass_audit_files_deleted_total" Counter Count []
        "Audit files deleted to make room (on_full: drop)."
    AUDIT_SUPPRESSED "underpass_audit_suppressed_total" Counter Count []
        "Audit rows of refusals and broken lanes that were counted instead of written."
    LOG_DROPPED "underpass_log_dropped_total" Counter Count []
        "Log lines dropped because nobody read them in time."
    DESCRIPTORS_OPEN "underpass_descriptors_open" Gauge Count []
        "File descriptors this process has open."
    DESCRIPTORS_LIMIT "underpass_descriptors_limit" Gauge Count []
        "File descriptors this process may have."
    BUFFERED_BYTES "underpass_buffered_bytes" Gauge Bytes []
        "What waits for readers that are slower than what they read; at three eighths of the process's memory new streams are refused."
    RESIDENT_BYTES "underpass_resident_bytes" Gauge Bytes []
        "Memory this process has resident."
}

/// The upper bounds of [`OPEN_SECONDS`]: a local target answers in 1 ms, the reply's deadline is 15 s.
const OPEN_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];

/// The upper bounds of [`LANE_PAUSE_SECONDS`]: a reset on a near path takes 10 ms, the longest window five minutes.
const PAUSE_BUCKETS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The upper bounds of [`HTTP_REQUEST_SECONDS`]: a local origin answers in 1 ms, a report takes minutes.
const REQUEST_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The process's metrics, for whoever serves them.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Installs the recorder, once a process; later calls give the same. What was counted before is lost, and so are handles
/// ([`Held`], [`bytes_counter`]) taken before: call it first.
///
/// # Errors
/// `internal` if another recorder is installed.
pub fn install(role: &'static str) -> Result<Metrics, Failure> {
    static INSTALLED: OnceLock<Result<PrometheusHandle, Failure>> = OnceLock::new();
    let handle = INSTALLED.get_or_init(build).clone()?;
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "role" => role).set(1);
    Ok(Metrics(handle))
}

impl Metrics {
    /// Every metric in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Drains what histograms have gathered. The owner calls it every few seconds, or they grow while nobody scrapes.
    pub fn run_upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn build() -> Result<PrometheusHandle, Failure> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).or_fail(Code::Internal, "metrics")?;
    ALL.iter().for_each(describe);
    Ok(handle)
}

fn recorder() -> Result<PrometheusRecorder, Failure> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(OPEN_SECONDS.to_owned()), OPEN_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(LANE_PAUSE_SECONDS.to_owned()), PAUSE_BUCKETS))
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(HTTP_REQUEST_SECONDS.to_owned()), REQUEST_BUCKETS))
        .or_fail(Code::Internal, "metrics")?;
    Ok(builder.build_recorder())
}

/// Also begins the counters without labels at 0, so that a rate sees the first event.
fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => {
            describe_counter!(metric.name, metric.unit, metric.help);
            if metric.labels.is_empty() {
                counter!(metric.name).absolute(0);
            }
        }
        Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
        Kind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
    }
}

/// Adds one to a gauge for as long as it lives.
#[must_use]
pub struct Held(Gauge);

impl Held {
    fn one_of(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// What is kept for slow readers.
pub fn buffered(bytes: usize) {
    gauge!(BUFFERED_BYTES).set(bytes as f64);
}

/// A listener has run out of descriptors or memory.
pub fn accept_paused() {
    counter!(ACCEPT_PAUSES).increment(1);
}

/// Counts an established session while it lives. `gateway` is the endpoint on an agent, the own id on a gateway.
pub fn session(gateway: &str) -> Held {
    Held::one_of(gauge!(SESSIONS, "gateway" => gateway.to_owned()))
}

/// Counts a lane of a session while it lives, the first one included. `gateway` is as for [`session`].
pub fn lane(gateway: &str) -> Held {
    Held::one_of(gauge!(LANES, "gateway" => gateway.to_owned()))
}

/// A lane's connection broke for that reason, and the lane waits for another.
pub fn lane_broken(code: Code) {
    counter!(LANES_BROKEN, "code" => code.as_str()).increment(1);
}

/// A lane went on after so long.
pub fn lane_resumed(paused: Duration) {
    histogram!(LANE_PAUSE_SECONDS).record(paused);
}

/// The age of the last frame received from the endpoint.
pub fn last_frame_age(gateway: &str, age: Duration) {
    gauge!(SESSION_LAST_FRAME_AGE, "gateway" => gateway.to_owned()).set(age);
}

/// A session or an attempt of the agent ended with `code`, and it will try again.
pub fn reconnect(code: Code) {
    counter!(RECONNECTS, "code" => code.as_str()).increment(1);
}

/// A connection to the gateway was refused before it was a session.
pub fn connect_refused(code: Code) {
    counter!(CONNECTS_REFUSED, "code" => code.as_str()).increment(1);
}

/// What all lights of a kind show; `light` is `tunnel`, `agent` or `target`.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn lights<S: State>(light: &'static str, shown: &[S]) {
    for state in S::ALL {
        let count = shown.iter().filter(|shown| *shown == state).count();
        gauge!(LIGHTS, "light" => light, "state" => state.as_str()).set(count as f64);
    }
}

/// How many agents' identities are held by several processes.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn duplicate_identities(agents: usize) {
    gauge!(DUPLICATE_IDENTITIES).set(agents as f64);
}

/// Counts an accepted stream, and shows it as open while it lives.
pub fn stream() -> Held {
    counter!(STREAMS_OPENED).increment(1);
    Held::one_of(gauge!(STREAMS_OPEN))
}

/// A stream was refused.
pub fn refused(code: Code) {
    counter!(REFUSALS, "code" => code.as_str()).increment(1);
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From client to target.
    Up,
    /// From target to client.
    Down,
}

/// Bytes carried, for a loop that counts every buffer: a handle, looked up once.
pub fn bytes_counter(direction: Direction) -> Counter {
    match direction {
        Direction::Up => counter!(BYTES, "direction" => "up"),
        Direction::Down => counter!(BYTES, "direction" => "down"),
    }
}

/// How long a stream took to open.
pub fn opened(took: Duration) {
    histogram!(OPEN_SECONDS).record(took);
}

/// An HTTP request is over, with that status if it was answered. Its handles are looked up once.
pub fn http_request(status: Option<u16>, took: Duration) {
    static HANDLES: OnceLock<([Counter; 6], Histogram)> = OnceLock::new();
    let (requests, seconds) = HANDLES.get_or_init(|| {
        let classes = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        (classes.map(|class| counter!(HTTP_REQUESTS, "status" => class)), histogram!(HTTP_REQUEST_SECONDS))
    });
    let class = status.map_or(0, |status| usize::from(status / 100));
    requests.get(class).unwrap_or(&requests[0]).increment(1);
    seconds.record(took);
}

/// How many streams wait for their caller's next HTTP request.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn http_streams_idle(streams: usize) {
    gauge!(HTTP_STREAMS_IDLE).set(streams as f64);
}

/// An LDAP request for this target did not pass. Both are words of the configuration's.
pub fn ldap_denied(target: &str, rule: &'static str) {
    counter!(LDAP_DENIALS, "target" => target.to_owned(), "rule" => rule).increment(1);
}

/// An agent got its certificate.
pub fn enrolled() {
    counter!(ENROLLMENTS).increment(1);
}

/// An enrollment was refused.
pub fn enrollment_refused(code: Code) {
    counter!(ENROLLMENT_REFUSALS, "code" => code.as_str()).increment(1);
}

/// When a certificate ends; `which` is `agent`, `gateway` or `issuing`.
pub fn certificate_not_after(which: &'static str, unix_seconds: i64) {
    #[allow(clippy::cast_precision_loss, reason = "exact for the next 285 million years")]
    gauge!(CERTIFICATE_NOT_AFTER, "which" => which).set(unix_seconds as f64);
}

/// A reload was done or refused.
pub fn reloaded(done: bool) {
    counter!(RELOADS, "outcome" => if done { "done" } else { "refused" }).increment(1);
}

/// What the process has open and may open, and its resident memory in bytes.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn process(descriptors_open: u64, descriptors_limit: u64, resident: u64) {
    gauge!(DESCRIPTORS_OPEN).set(descriptors_open as f64);
    gauge!(DESCRIPTORS_LIMIT).set(descriptors_limit as f64);
    gauge!(RESIDENT_BYTES).set(resident as f64);
}

pub(super) fn audit_dropped() {
    counter!(AUDIT_DROPPED).increment(1);
}

pub(super) fn audit_file_deleted() {
    counter!(AUDIT_FILES_DELETED).increment(1);
}

pub(super) fn audit_suppressed() {
    counter!(AUDIT_SUPPRESSED).increment(1);
}

pub(super) fn log_dropped(lines: u64) {
    counter!(LOG_DROPPED).increment(lines);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::light::Tunnel;

    #[test]
    fn what_is_counted_is_rendered_under_the_listed_names() {
        let recorder = recorder().unwrap();
        let metrics = Metrics(recorder.handle());
        let held = metrics::with_local_recorder(&recorder, || {
            ALL.iter().for_each(describe);
            refused(Code::NoAgent);
            bytes_counter(Direction::Up).increment(5);
            opened(Duration::from_millis(3));
            lights("tunnel", &[Tunnel::Connected, Tunnel::Silent, Tunnel::Connected]);
            (session("wss://gw.example:443"), stream())
        });
        let text = metrics.render();
        for line in [
            "underpass_refusals_total{code=\"no_agent\"} 1",
            "underpass_bytes_total{direction=\"up\"} 5",
            "underpass_open_seconds_bucket{le=\"0.005\"} 1",
            "underpass_sessions{gateway=\"wss://gw.example:443\"} 1",
            "underpass_streams_open 1",
            "underpass_lights{light=\"tunnel\",state=\"connected\"} 2",
            "underpass_lights{light=\"tunnel\",state=\"down\"} 0",
            "underpass_enrollments_total 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        drop(held);
        metrics.run_upkeep();
        let text = metrics.render();
        assert!(text.contains("underpass_streams_open 0") && text.contains("underpass_streams_opened_total 1"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let name = line.split(['{', ' ']).next().unwrap();
            let parts = ["", "_bucket", "_sum", "_count"];
            let listed = |metric: &Metric| name.strip_prefix(metric.name).is_some_and(|rest| parts.contains(&rest));
            assert!(ALL.iter().any(listed), "{name} is not in the list");
        }
    }

    #[test]
    fn both_roles_of_one_process_share_the_recorder() {
        let (agent, gateway) = (install("agent").unwrap(), install("gateway").unwrap());
        for text in [agent.render(), gateway.render()] {
            for role in ["agent", "gateway"] {
                let line = format!("underpass_build_info{{version=\"{}\",role=\"{role}\"}} 1", env!("CARGO_PKG_VERSION"));
                assert!(text.contains(&line), "{text}");
            }
        }
    }

    #[test]
    fn names_say_their_unit() {
        for metric in ALL {
            assert!(metric.name.starts_with("underpass_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
