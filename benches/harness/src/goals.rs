//! The goals: which figure of which case must be how large, alone or beside a baseline's. Refuses to know how they are shown.

use crate::figure::Figure;
use crate::peer::Peer;
use crate::record::Records;
use crate::stats::Spread;

/// What Underpass must reach in one figure of one case.
pub(crate) struct Goal {
    /// What is measured, for the table.
    pub(crate) what: &'static str,
    pub(crate) case: &'static str,
    pub(crate) figure: Figure,
    /// Beside whose figure it counts; without one it counts by itself.
    pub(crate) baseline: Option<Peer>,
    pub(crate) beside: Beside,
    pub(crate) bound: Bound,
    /// A bound beyond the goal.
    pub(crate) stretch: Option<f64>,
}

/// How a figure is set beside a baseline's, round by round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Beside {
    /// Divided by it.
    Ratio,
    /// Less it.
    Difference,
}

/// Which side of a value is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// No bound: the figure is only reported.
    Report,
}

/// How a goal came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    /// The stretch, too.
    Exceeded,
    NotMet,
    Reported,
}

impl Goal {
    /// Names it in the file of reasons.
    pub(crate) fn id(&self) -> String {
        let baseline = self.baseline.map_or(String::new(), |peer| format!("/{}", peer.name()));
        format!("{}/{}{baseline}", self.case, self.figure.name())
    }

    /// The figure, or what it is beside the baseline's round by round; none when a run has left it out.
    pub(crate) fn reached(&self, records: &Records) -> Option<Spread> {
        match self.baseline {
            Some(baseline) => {
                let beside = |own: f64, base: f64| match self.beside {
                    Beside::Ratio => own / base,
                    Beside::Difference => own - base,
                };
                records.beside(self.case, Peer::Underpass, baseline, self.figure, beside)
            }
            None => records.spread(self.case, Peer::Underpass, self.figure),
        }
    }

    /// The median decides.
    pub(crate) fn verdict(&self, reached: Spread) -> Verdict {
        let within = |bound: Bound| match bound {
            Bound::AtMost(most) => reached.median <= most,
            Bound::AtLeast(least) => reached.median >= least,
            Bound::Report => false,
        };
        let stretch = self.stretch.map(|value| match self.bound {
            Bound::AtLeast(_) => Bound::AtLeast(value),
            _ => Bound::AtMost(value),
        });
        match self.bound {
            Bound::Report => Verdict::Reported,
            _ if stretch.is_some_and(within) => Verdict::Exceeded,
            bound if within(bound) => Verdict::Met,
            _ => Verdict::NotMet,
        }
    }
}

/// All goals, in the order of the table.
pub(crate) const GOALS: &[Goal] = &[
    ratio("CPU, 1 stream down", "throughput-1-down", Figure::CpuPerGb, Peer::Relay, Bound::AtMost(2.0)),
    ratio("CPU, 1 stream up", "throughput-1-up", Figure::CpuPerGb, Peer::Relay, Bound::AtMost(2.0)),
    ratio("CPU, 1 stream down", "throughput-1-down", Figure::CpuPerGb, Peer::Haproxy, Bound::AtMost(0.62)),
    ratio("CPU, 1 stream up", "throughput-1-up", Figure::CpuPerGb, Peer::Haproxy, Bound::AtMost(0.85)),
    ratio("CPU, 1 stream down", "throughput-1-down", Figure::CpuPerGb, Peer::Rathole, Bound::AtMost(0.55)),
    ratio("CPU, 1 stream up", "throughput-1-up", Figure::CpuPerGb, Peer::Rathole, Bound::AtMost(0.55)),
    ratio("CPU, 8 streams down", "throughput-8-down", Figure::CpuPerGb, Peer::Haproxy, Bound::AtMost(0.65)),
    ratio("CPU, 8 streams up", "throughput-8-up", Figure::CpuPerGb, Peer::Haproxy, Bound::Report),
    ratio("throughput, 1 stream down", "throughput-1-down", Figure::Throughput, Peer::Haproxy, Bound::AtLeast(1.6)),
    ratio("throughput, 1 stream up", "throughput-1-up", Figure::Throughput, Peer::Haproxy, Bound::AtLeast(1.6)),
    ratio("throughput, 1 stream down", "throughput-1-down", Figure::Throughput, Peer::Rathole, Bound::AtLeast(1.6)),
    ratio("throughput, 1 stream up", "throughput-1-up", Figure::Throughput, Peer::Rathole, Bound::AtLeast(1.6)),
    ratio("throughput, 1 stream down", "throughput-1-down", Figure::Throughput, Peer::Relay, Bound::AtLeast(0.7)),
    ratio("throughput, 1 stream up", "throughput-1-up", Figure::Throughput, Peer::Relay, Bound::AtLeast(0.7)),
    ratio("throughput, 8 streams down", "throughput-8-down", Figure::Throughput, Peer::Haproxy, Bound::AtLeast(1.5)),
    Goal {
        stretch: Some(1.1),
        ..ratio("idle round trip, p50", "idle-latency", Figure::P50, Peer::Haproxy, Bound::AtMost(1.25))
    },
    ratio("head of line, 100 Mbit/s: ping p50", "wan-100mbit", Figure::P50, Peer::Relay, Bound::AtMost(1.05)),
    alone("head of line, 100 Mbit/s: bulk", "wan-100mbit", Figure::OfLink, Bound::AtLeast(97.0)),
    Goal {
        stretch: Some(500.0),
        ..alone("saturated by 4 bulk streams: ping p50", "latency-under-load", Figure::P50, Bound::AtMost(700.0))
    },
    Goal {
        stretch: Some(5_000.0),
        ..alone("saturated by 4 bulk streams: ping p99", "latency-under-load", Figure::P99, Bound::AtMost(7_000.0))
    },
    alone("saturated by 4 bulk streams: bulk kept", "latency-under-load", Figure::ThroughputKept, Bound::AtLeast(85.0)),
    ratio("opens, 32 at once", "opens-32", Figure::OpensPerSecond, Peer::Relay, Bound::AtLeast(1.5)),
    ratio("opens, one by one", "opens-1", Figure::OpensPerSecond, Peer::Relay, Bound::AtLeast(1.1)),
    alone("first echo at 80 ms", "first-echo-80", Figure::FirstEcho, Bound::AtMost(1.05)),
    alone("memory of 5,000 idle streams, the larger process", "memory", Figure::WorstPerStream, Bound::AtMost(10.0)),
    alone("5,000 streams on one tunnel", "memory", Figure::StreamsHeld, Bound::AtLeast(5_000.0)),
    alone("10,000 streams on one tunnel", "memory-10000", Figure::StreamsHeld, Bound::AtLeast(10_000.0)),
    ratio("1 Gbit/s, 80 ms, down, third second", "wan-gbit-down", Figure::ThroughputEarly, Peer::Direct, Bound::AtLeast(0.96)),
    ratio("1 Gbit/s, 80 ms, up, third second", "wan-gbit-up", Figure::ThroughputEarly, Peer::Direct, Bound::AtLeast(0.96)),
    alone("1 Gbit/s, 80 ms, down: peak of the agent", "wan-gbit-down", Figure::FarPeak, PEAK),
    alone("1 Gbit/s, 80 ms, down: peak of the gateway", "wan-gbit-down", Figure::NearPeak, PEAK),
    alone("1 Gbit/s, 80 ms, up: peak of the agent", "wan-gbit-up", Figure::FarPeak, PEAK),
    alone("1 Gbit/s, 80 ms, up: peak of the gateway", "wan-gbit-up", Figure::NearPeak, PEAK),
    ratio("HTTP, 64 connections", "http-requests", Figure::RequestsPerSecond, Peer::Nginx, Bound::AtLeast(0.8)),
    ratio("HTTP, 64 connections, p99", "http-requests", Figure::P99, Peer::Nginx, Bound::AtMost(1.0)),
    ratio("HTTP, 1 GiB down", "http-body-down", Figure::Throughput, Peer::UnderpassTcp, Bound::AtLeast(0.8)),
    ratio("HTTP, 1 GiB up", "http-body-up", Figure::Throughput, Peer::UnderpassTcp, Bound::AtLeast(0.8)),
    ratio("gRPC message there and back, p50", "grpc-stream", Figure::P50, Peer::Nginx, Bound::Report),
    ratio("gRPC message there and back, p99", "grpc-stream", Figure::P99, Peer::Nginx, Bound::Report),
    Goal {
        beside: Beside::Difference,
        ..ratio("LDAP search, p50", "ldap-search", Figure::P50, Peer::UnderpassTcp, Bound::AtMost(100.0))
    },
    alone("fairness of 16 streams", "fairness", Figure::Fairness, Bound::AtLeast(0.9)),
];

/// What the README's arithmetic allows one fast stream: some 20 MiB of an idle process, 16 MiB of windows, and buffers.
const PEAK: Bound = Bound::AtMost(64.0);

const fn ratio(what: &'static str, case: &'static str, figure: Figure, baseline: Peer, bound: Bound) -> Goal {
    Goal { what, case, figure, baseline: Some(baseline), beside: Beside::Ratio, bound, stretch: None }
}

const fn alone(what: &'static str, case: &'static str, figure: Figure, bound: Bound) -> Goal {
    Goal { what, case, figure, baseline: None, beside: Beside::Ratio, bound, stretch: None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::CASES;
    use crate::record::Record;

    fn verdict(bound: Bound, stretch: Option<f64>, median: f64) -> Verdict {
        let goal = Goal { stretch, ..alone("", "", Figure::P50, bound) };
        goal.verdict(Spread { median, low: median, high: median })
    }

    #[test]
    fn a_goal_is_met_at_its_bound_and_exceeded_at_its_stretch() {
        assert_eq!(verdict(Bound::AtMost(2.0), Some(1.5), 2.1), Verdict::NotMet);
        assert_eq!(verdict(Bound::AtMost(2.0), Some(1.5), 2.0), Verdict::Met);
        assert_eq!(verdict(Bound::AtMost(2.0), Some(1.5), 1.5), Verdict::Exceeded);
        assert_eq!(verdict(Bound::AtLeast(0.9), None, 0.89), Verdict::NotMet);
        assert_eq!(verdict(Bound::AtLeast(0.9), None, 0.9), Verdict::Met);
        assert_eq!(verdict(Bound::Report, None, 0.0), Verdict::Reported);
    }

    #[test]
    fn a_figure_is_set_beside_the_baseline_of_the_same_round() {
        let record =
            |peer, round, value| Record { case: "ldap-search".to_owned(), peer, round, figures: [(Figure::P50, value)].into() };
        let (own, base) = (Peer::Underpass, Peer::UnderpassTcp);
        // The third round lacks its baseline.
        let rows =
            [record(own, 1, 150.0), record(base, 1, 50.0), record(own, 2, 90.0), record(base, 2, 30.0), record(own, 3, 7.0)];
        let records = Records { records: rows.into(), ..Records::default() };
        let goal = |beside| Goal { beside, ..ratio("", "ldap-search", Figure::P50, base, Bound::Report) };
        assert_eq!(goal(Beside::Difference).reached(&records).map(|reached| reached.median), Some(80.0));
        assert_eq!(goal(Beside::Ratio).reached(&records).map(|reached| reached.median), Some(3.0));
    }

    #[test]
    fn every_goal_is_measured_and_has_its_own_name() {
        let cases: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        for goal in GOALS {
            assert!(cases.contains(goal.case), "{}", goal.case);
            let case = CASES.iter().find(|case| case.name == goal.case).expect("checked above");
            assert!(case.measures(Peer::Underpass) && goal.baseline.is_none_or(|peer| case.measures(peer)), "{}", goal.id());
        }
        let ids: BTreeSet<_> = GOALS.iter().map(Goal::id).collect();
        assert_eq!(ids.len(), GOALS.len());
    }
}
