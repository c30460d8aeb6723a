//! Metrics: every name in one place.
//!
//! Takes: counts and times. Gives: what is told at `/metrics`. Never: a label that is not one of the words below, so that
//! nothing which was sent can become one, and their number is bounded.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use sluice_fhir::outcome::Severity;

use super::clock::now_micros;
use crate::error::{Error, Kind, Peer, Refusal};

/// Times from 100 µs to about 26 s, by factors of 4.
const SECONDS: [f64; 10] = [0.0001, 0.0004, 0.0016, 0.0064, 0.0256, 0.1024, 0.4096, 1.6384, 6.5536, 26.2144];

/// The value of a label that has a word for each of its variants.
macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$each])* $variant,)+
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                match self {
                    $(Self::$variant => EncodeLabelValue::encode(&$word, encoder),)+
                }
            }
        }
    };
}

label! {
    /// A stage that is timed, by its name in gateway.rs.
    #[expect(missing_docs, reason = "the stages of gateway.rs, by their names there")]
    Stage {
        Normalize = "normalize",
        Check = "check",
        Permit = "permit",
        Stage = "stage",
        Forward = "forward",
        Record = "record",
        Route = "route",
        Sequence = "sequence",
        Anchor = "anchor",
        Publish = "publish",
        Disclose = "disclose",
    }
}

label! {
    /// What became of a unit.
    Outcome {
        /// Recorded.
        Accepted = "accepted",
        /// Refused: the sender's or the policy's.
        Refused = "refused",
        /// A peer or a limit did not serve.
        Outage = "outage",
        /// A defect of ours.
        Defect = "defect",
    }
}

label! {
    /// Where consent is asked.
    #[expect(missing_docs, reason = "the doors of the design, by their names")]
    Door {
        Intake = "intake",
        Route = "route",
        Recheck = "recheck",
        Read = "read",
    }
}

label! {
    /// What consent says.
    #[expect(missing_docs, reason = "the three answers, by their names")]
    Decision {
        Permit = "permit",
        Deny = "deny",
        Undecidable = "undecidable",
    }
}

label! {
    /// What became of an attempt to publish.
    Published {
        /// Confirmed and not returned.
        Ack = "ack",
        /// Refused by the broker.
        Nack = "nack",
        /// No queue for it.
        Returned = "returned",
        /// Sent, and not confirmed in time.
        Unconfirmed = "unconfirmed",
        /// Not sent.
        Unavailable = "unavailable",
        /// Cancelled by recheck.
        Cancelled = "cancelled",
    }
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

label! {
    /// What became of a question to the terminology server.
    Asked {
        /// It was answered.
        Answered = "answered",
        /// It had been answered before.
        Cached = "cached",
        /// There was no answer.
        Failed = "failed",
        /// It was not asked: the server has failed, or too many questions were under way.
        Refrained = "refrained",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAsked {
    result: Asked,
}

label! {
    /// What became of rules that were read again.
    Reloaded {
        /// They are in force.
        Taken = "taken",
        /// They are those that were in force.
        Same = "same",
        /// They are broken, and those before stay.
        Refused = "refused",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReloaded {
    result: Reloaded,
}

/// Only ever a word that stands in this file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPeer {
    peer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySeverity {
    severity: &'static str,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    units: Family<ByOutcome, Counter>,
    resources: Counter,
    stages: Family<ByStage, Histogram>,
    issues: Family<BySeverity, Counter>,
    refused: Family<ByReason, Counter>,
    outages: Family<ByPeer, Counter>,
    defects: Counter,
    decisions: Family<ByDecision, Counter>,
    published: Family<ByPublished, Counter>,
    asked: Family<ByAsked, Counter>,
    reloads: Family<ByReloaded, Counter>,
    rules_refused: Gauge,
    /// Units and questions that are under way.
    pub inflight: Gauge,
    /// Requests that were turned away because the gateway was at its limit.
    pub shed: Counter,
    /// Bytes of bodies and answers that are being worked on, in memory and on disk.
    pub spool_bytes: Gauge,
    /// Rows of work: units that are recorded and not routed yet, and Consents that are not filed yet.
    pub work_depth: Gauge,
    /// Events that are parked until an operator decides.
    pub parked_events: Gauge,
    /// Leaves in the log.
    pub log_leaves: Gauge,
    /// Connections to the broker that had to be made anew.
    pub amqp_reconnects: Counter,
    outbox_depth: Gauge,
    outbox_oldest: Age,
    anchor_lag: Age,
    staleness: Age,
    upstream_open: Gauge,
    upstream_parked: Gauge,
    certificate: Gauge<f64, AtomicU64>,
    certificate_ends: AtomicI64,
}

/// The time since something, as it is at the moment of a scrape.
#[derive(Default)]
struct Age {
    /// Microseconds since 1970.
    since: AtomicI64,
    seconds: Gauge<f64, AtomicU64>,
}

/// It never happened.
const NEVER: i64 = i64::MIN;
/// There is nothing whose age could be told.
const NOTHING: i64 = i64::MAX;

impl Age {
    fn new(since: i64) -> Self {
        Self { since: AtomicI64::new(since), seconds: Gauge::default() }
    }

    fn set(&self, since: i64) {
        self.since.store(since, Ordering::Relaxed);
    }

    fn refresh(&self, now: i64) {
        self.seconds.set(match self.since.load(Ordering::Relaxed) {
            NEVER => f64::INFINITY,
            NOTHING => 0.0,
            since => Duration::from_micros(now.saturating_sub(since).max(0).unsigned_abs()).as_secs_f64(),
        });
    }
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
            issues: Family::default(),
            refused: Family::default(),
            outages: Family::default(),
            defects: Counter::default(),
            decisions: Family::default(),
            published: Family::default(),
            asked: Family::default(),
            reloads: Family::default(),
            rules_refused: Gauge::default(),
            inflight: Gauge::default(),
            shed: Counter::default(),
            spool_bytes: Gauge::default(),
            work_depth: Gauge::default(),
            parked_events: Gauge::default(),
            log_leaves: Gauge::default(),
            amqp_reconnects: Counter::default(),
            outbox_depth: Gauge::default(),
            outbox_oldest: Age::new(NOTHING),
            anchor_lag: Age::new(now_micros()),
            staleness: Age::new(NEVER),
            upstream_open: Gauge::default(),
            upstream_parked: Gauge::default(),
            certificate: Gauge::default(),
            certificate_ends: AtomicI64::new(NEVER),
            registry,
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("units", "Units, by what became of them", self.units.clone());
        registry.register("resources", "Resources that were recorded", self.resources.clone());
        registry.register("stage_duration_seconds", "Time that a unit or a pass spent in a stage", self.stages.clone());
        registry.register("validation_issues", "Issues that check found, by severity", self.issues.clone());
        registry.register("refused", "Requests and entries that were refused, by reason", self.refused.clone());
        registry.register("outages", "Requests and entries that met an outage, by peer", self.outages.clone());
        registry.register("defects", "Requests and entries that met a defect of the gateway", self.defects.clone());
        registry.register("consent_decisions", "Decisions, by door and outcome", self.decisions.clone());
        registry.register("publish", "Attempts to publish, by what became of them", self.published.clone());
        registry.register(
            "terminology",
            "Questions to the terminology server, by what became of them",
            self.asked.clone(),
        );
        registry.register("rules_reloads", "Rules that were read again, by what became of them", self.reloads.clone());
        let refused = self.rules_refused.clone();
        registry.register(
            "rules_refused",
            "1 while what stands in the folders of rules and packages is broken",
            refused,
        );
        registry.register("inflight", "Units and questions under way", self.inflight.clone());
        registry.register("shed", "Requests turned away at the limit", self.shed.clone());
        let spool = self.spool_bytes.clone();
        registry.register("spool_bytes", "Bodies and answers being worked on, in memory and on disk", spool);
        let work = self.work_depth.clone();
        registry.register("work_depth", "Work that waits: units to route, and Consents to file", work);
        let parked = self.parked_events.clone();
        registry.register("parked_events", "Events that an operator has to decide about", parked);
        registry.register("outbox_depth", "Events that are not sent yet", self.outbox_depth.clone());
        let oldest = self.outbox_oldest.seconds.clone();
        registry.register("outbox_oldest_unsent_seconds", "Age of the oldest event that is not sent yet", oldest);
        registry.register("log_leaves", "Leaves in the log, dummies included", self.log_leaves.clone());
        let lag = self.anchor_lag.seconds.clone();
        registry.register("ledger_anchor_lag_seconds", "Time since the log's checkpoint was last anchored", lag);
        let staleness = self.staleness.seconds.clone();
        registry.register("ledger_staleness_seconds", "Age of the ledger's state that decisions rest on", staleness);
        let reconnects = self.amqp_reconnects.clone();
        registry.register("amqp_reconnects", "Connections to the broker that were made anew", reconnects);
        let open = self.upstream_open.clone();
        registry.register("upstream_open", "Units between stage and record: the upstream is told, or asked", open);
        let parked = self.upstream_parked.clone();
        registry.register("upstream_parked", "Units that wait for an operator's word", parked);
        let certificate = self.certificate.clone();
        registry.register("cert_expiry_seconds", "Time until the server's certificate ends", certificate);
        // A rate can be told only of what stands there from the beginning.
        for outcome in [Outcome::Accepted, Outcome::Refused, Outcome::Outage, Outcome::Defect] {
            let _ = self.units.get_or_create(&ByOutcome { outcome });
        }
        for result in [Published::Ack, Published::Nack, Published::Returned, Published::Unconfirmed] {
            let _ = self.published.get_or_create(&ByPublished { result });
        }
        for result in [Asked::Answered, Asked::Cached, Asked::Failed, Asked::Refrained] {
            let _ = self.asked.get_or_create(&ByAsked { result });
        }
        for result in [Reloaded::Taken, Reloaded::Same, Reloaded::Refused] {
            let _ = self.reloads.get_or_create(&ByReloaded { result });
        }
        self
    }

    /// Counts a question to the terminology server.
    pub fn asked(&self, result: Asked) {
        self.asked.get_or_create(&ByAsked { result }).inc();
    }

    /// Counts rules that were read again.
    pub fn reloaded(&self, result: Reloaded) {
        self.reloads.get_or_create(&ByReloaded { result }).inc();
        self.rules_refused.set(i64::from(result == Reloaded::Refused));
    }

    /// Counts a unit.
    pub fn unit(&self, outcome: Outcome) {
        self.units.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// Counts resources that were recorded.
    pub fn recorded(&self, resources: usize) {
        self.resources.inc_by(resources as u64);
    }

    /// Notes how long a stage took.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages.get_or_create(&ByStage { stage }).observe(took.as_secs_f64());
    }

    /// Counts an issue that `check` found.
    pub fn issue(&self, severity: Severity) {
        let severity = match severity {
            Severity::Fatal => "fatal",
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Information => "information",
        };
        self.issues.get_or_create(&BySeverity { severity }).inc();
    }

    /// Counts what a request or an entry met in place of being accepted.
    pub fn failed(&self, error: &Error) {
        match error.kind() {
            Kind::Refusal(refusal) => self.refused.get_or_create(&ByReason { reason: reason(refusal) }).inc(),
            Kind::Outage(peer) => self.outages.get_or_create(&ByPeer { peer: peer_name(peer) }).inc(),
            Kind::Defect => self.defects.inc(),
        };
    }

    /// Counts a decision.
    pub fn decision(&self, door: Door, decision: Decision) {
        self.decisions.get_or_create(&ByDecision { door, decision }).inc();
    }

    /// Counts an attempt to publish.
    pub fn published(&self, result: Published) {
        self.published.get_or_create(&ByPublished { result }).inc();
    }

    /// Notes how many events wait, and since when the oldest does, in microseconds since 1970.
    pub fn outbox(&self, depth: usize, oldest_micros: Option<i64>) {
        self.outbox_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.outbox_oldest.set(oldest_micros.unwrap_or(NOTHING));
    }

    /// Notes how many units are between stage and record, and how many of them wait for an operator.
    pub fn upstream(&self, open: usize, parked: usize) {
        self.upstream_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.upstream_parked.set(i64::try_from(parked).unwrap_or(i64::MAX));
    }

    /// Notes that the log's checkpoint is anchored now.
    pub fn anchored(&self) {
        self.anchor_lag.set(now_micros());
    }

    /// Notes how old the ledger's state is: since when, in microseconds since 1970; none if there is none.
    pub fn ledger_as_of(&self, micros: Option<i64>) {
        self.staleness.set(micros.unwrap_or(NEVER));
    }

    /// Notes when the server's certificate ends, in seconds since 1970.
    pub fn certificate_ends(&self, seconds: i64) {
        self.certificate_ends.store(seconds, Ordering::Relaxed);
    }

    /// OpenMetrics 1.0.
    pub(super) fn scrape(&self) -> String {
        let now = now_micros();
        for age in [&self.outbox_oldest, &self.anchor_lag, &self.staleness] {
            age.refresh(now);
        }
        self.certificate.set(match self.certificate_ends.load(Ordering::Relaxed) {
            NEVER => f64::INFINITY,
            ends => {
                let left = ends.saturating_sub(now / 1_000_000);
                Duration::from_secs(left.max(0).unsigned_abs()).as_secs_f64()
            }
        });
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// The same as Prometheus's older text format: metadata carry a counter's full name, and the end is not marked.
pub(super) fn as_prometheus(open_metrics: &str) -> String {
    let typed = |line: &str| line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' ')).map(own);
    let types: std::collections::HashMap<String, String> = open_metrics.lines().filter_map(typed).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|it| *it != "# EOF") {
        let metadata = ["# HELP ", "# TYPE "].into_iter().find_map(|kind| Some((kind, line.strip_prefix(kind)?)));
        match metadata.and_then(|(kind, rest)| Some((kind, rest.split_once(' ')?))) {
            Some((kind, (name, rest))) => {
                let (suffix, rest) = match types.get(name).map(String::as_str) {
                    Some("counter") => ("_total", rest),
                    Some("info") => ("_info", if kind == "# TYPE " { "gauge" } else { rest }),
                    _ => ("", rest),
                };
                text.extend([kind, name, suffix, " ", rest]);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn own((name, kind): (&str, &str)) -> (String, String) {
    (name.to_owned(), kind.to_owned())
}

fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Ambiguous => "ambiguous",
        Refusal::Conflict => "conflict",
        Refusal::Forbidden => "forbidden",
        Refusal::Gone => "gone",
        Refusal::Invalid => "invalid",
        Refusal::Malformed => "malformed",
        Refusal::Method => "method",
        Refusal::NotFound => "not_found",
        Refusal::NotAcceptable => "not_acceptable",
        Refusal::Precondition => "precondition",
        Refusal::Timeout => "timeout",
        Refusal::TooLarge => "too_large",
        Refusal::TooMany => "too_many",
        Refusal::Unauthenticated => "unauthenticated",
        Refusal::UnsupportedMedia => "unsupported_media",
    }
}

fn peer_name(peer: Peer) -> &'static str {
    match peer {
        Peer::Broker => "broker",
        Peer::Capacity => "capacity",
        Peer::Custodian => "custodian",
        Peer::Ledger => "ledger",
        Peer::Store => "store",
        Peer::Terminology => "terminology",
        Peer::Upstream => "upstream",
        Peer::UpstreamSilent => "upstream_silent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_holds_what_was_counted_in_both_formats() {
        let metrics = Metrics::new();
        metrics.unit(Outcome::Accepted);
        metrics.decision(Door::Intake, Decision::Permit);
        metrics.stage(Stage::Record, Duration::from_millis(3));
        metrics.failed(&Error::refusal(Refusal::UnsupportedMedia, "http.content-type", "x"));
        let text = metrics.scrape();
        let prometheus = as_prometheus(&text);
        for line in [
            "sluice_units_total{outcome=\"accepted\"} 1",
            "sluice_consent_decisions_total{door=\"intake\",decision=\"permit\"} 1",
            "sluice_stage_duration_seconds_count{stage=\"record\"} 1",
            "sluice_refused_total{reason=\"unsupported_media\"} 1",
        ] {
            assert!(text.contains(line) && prometheus.contains(line), "{line} in\n{text}");
        }
        assert!(text.contains("# TYPE sluice_units counter\n") && text.ends_with("# EOF\n"));
        assert!(prometheus.contains("# TYPE sluice_units_total counter\n"));
        assert!(prometheus.contains("# TYPE sluice_build_info gauge\n") && !prometheus.contains("EOF"));
    }

    #[test]
    fn ages_are_those_of_the_moment_of_the_scrape() {
        let metrics = Metrics::new();
        metrics.outbox(3, Some(now_micros() - 5_000_000));
        let age = || {
            let text = metrics.scrape();
            let line = text.lines().find_map(|it| it.strip_prefix("sluice_outbox_oldest_unsent_seconds ")).unwrap();
            line.parse::<f64>().unwrap()
        };
        assert!((5.0..60.0).contains(&age()));
        metrics.outbox(0, None);
        assert!(age() < f64::EPSILON);
        assert!(metrics.scrape().contains("sluice_ledger_staleness_seconds inf"), "{}", metrics.scrape());
    }
}
