//! Metrics: every name in one place.
//!
//! Takes: counts and times. Gives: OpenMetrics text. Never: a label that is not one of the enums below.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Times from 100 µs to about 26 s, by factors of 4.
const SECONDS: [f64; 10] = [0.0001, 0.0004, 0.0016, 0.0064, 0.0256, 0.1024, 0.4096, 1.6384, 6.5536, 26.2144];

/// A stage that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "the stages of gateway.rs, by their names there")]
pub enum Stage {
    Receive,
    Normalize,
    Check,
    Permit,
    Stage,
    Forward,
    Record,
    Route,
    Sequence,
    Anchor,
    Publish,
    Disclose,
}

/// What became of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Recorded.
    Accepted,
    /// Refused: the sender's or the policy's.
    Refused,
    /// A peer or a limit did not serve.
    Outage,
    /// A defect of ours.
    Defect,
}

/// Where consent is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "the doors of the design, by their names")]
pub enum Door {
    Intake,
    Route,
    Recheck,
    Read,
}

/// What consent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "the three answers, by their names")]
pub enum Decision {
    Permit,
    Deny,
    Undecidable,
}

/// What became of an attempt to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Published {
    /// Confirmed and not returned.
    Ack,
    /// Refused by the broker.
    Nack,
    /// No queue for it.
    Returned,
    /// Sent, and not confirmed in time.
    Unconfirmed,
    /// Not sent.
    Unavailable,
    /// Cancelled by recheck.
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStage {
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDecision {
    door: Door,
    decision: Decision,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPublished {
    result: Published,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    units: Family<ByOutcome, Counter>,
    resources: Counter,
    stages: Family<ByStage, Histogram>,
    decisions: Family<ByDecision, Counter>,
    published: Family<ByPublished, Counter>,
    /// Units that are under way.
    pub in_flight: Gauge,
    /// Requests that were turned away because the gateway was at its limit.
    pub shed: Counter,
    /// Rows of work that settle has not done.
    pub work_waiting: Gauge,
    /// Events that are not sent yet.
    pub outbox_waiting: Gauge,
    /// The age of the oldest of them.
    pub outbox_oldest_seconds: Gauge<f64, AtomicU64>,
    /// Leaves in the log.
    pub log_leaves: Gauge,
    /// The time since the log's checkpoint was last anchored.
    pub anchor_lag_seconds: Gauge<f64, AtomicU64>,
    /// The time since the ledger was last heard of.
    pub mirror_age_seconds: Gauge<f64, AtomicU64>,
    /// Connections to the broker that had to be made anew.
    pub broker_reconnects: Counter,
    upstream_open: Gauge,
    upstream_parked: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("sluice");
        let build = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The build that runs", Info::new(build));
        let stages = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let metrics = Self {
            units: Family::default(),
            resources: Counter::default(),
            stages,
            decisions: Family::default(),
            published: Family::default(),
            in_flight: Gauge::default(),
            shed: Counter::default(),
            work_waiting: Gauge::default(),
            outbox_waiting: Gauge::default(),
            outbox_oldest_seconds: Gauge::default(),
            log_leaves: Gauge::default(),
            anchor_lag_seconds: Gauge::default(),
            mirror_age_seconds: Gauge::default(),
            broker_reconnects: Counter::default(),
            upstream_open: Gauge::default(),
            upstream_parked: Gauge::default(),
            registry,
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("units", "Units, by what became of them", self.units.clone());
        registry.register("resources_recorded", "Versions of resources that were recorded", self.resources.clone());
        registry.register("stage_duration_seconds", "Time that a unit spent in a stage", self.stages.clone());
        registry.register("consent_decisions", "Decisions, by door and outcome", self.decisions.clone());
        registry.register("publish_attempts", "Attempts to publish, by what became of them", self.published.clone());
        registry.register("units_in_flight", "Units under way", self.in_flight.clone());
        registry.register("requests_shed", "Requests turned away at the limit", self.shed.clone());
        registry.register("work_waiting", "Rows of work that settle has not done", self.work_waiting.clone());
        registry.register("outbox_waiting", "Events that are not sent yet", self.outbox_waiting.clone());
        let oldest = self.outbox_oldest_seconds.clone();
        registry.register("outbox_oldest_seconds", "Age of the oldest event that is not sent yet", oldest);
        registry.register("log_leaves", "Leaves in the log", self.log_leaves.clone());
        let lag = self.anchor_lag_seconds.clone();
        registry.register("anchor_lag_seconds", "Time since the checkpoint was last anchored", lag);
        let age = self.mirror_age_seconds.clone();
        registry.register("mirror_age_seconds", "Time since the ledger was last heard of", age);
        let reconnects = self.broker_reconnects.clone();
        registry.register("broker_reconnects", "Connections to the broker that were made anew", reconnects);
        let open = self.upstream_open.clone();
        registry.register("upstream_open", "Units between stage and record: the upstream is told, or asked", open);
        let parked = self.upstream_parked.clone();
        registry.register("upstream_parked", "Units that wait for an operator's word", parked);
        self
    }

    /// Counts a unit.
    pub fn unit(&self, outcome: Outcome) {
        self.units.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// Counts versions that were recorded.
    pub fn recorded(&self, versions: u64) {
        self.resources.inc_by(versions);
    }

    /// Notes how long a stage took.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages.get_or_create(&ByStage { stage }).observe(took.as_secs_f64());
    }

    /// Counts a decision.
    pub fn decision(&self, door: Door, decision: Decision) {
        self.decisions.get_or_create(&ByDecision { door, decision }).inc();
    }

    /// Counts an attempt to publish.
    pub fn published(&self, result: Published) {
        self.published.get_or_create(&ByPublished { result }).inc();
    }

    /// Notes how many units are between stage and record, and how many of them wait for an operator.
    pub fn upstream(&self, open: usize, parked: usize) {
        self.upstream_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.upstream_parked.set(i64::try_from(parked).unwrap_or(i64::MAX));
    }

    pub(super) fn scrape(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_holds_what_was_counted() {
        let metrics = Metrics::new();
        metrics.unit(Outcome::Accepted);
        metrics.decision(Door::Intake, Decision::Permit);
        metrics.stage(Stage::Record, Duration::from_millis(3));
        let text = metrics.scrape();
        for line in [
            "sluice_units_total{outcome=\"Accepted\"} 1",
            "sluice_consent_decisions_total{door=\"Intake\",decision=\"Permit\"} 1",
            "sluice_stage_duration_seconds_count{stage=\"Record\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
