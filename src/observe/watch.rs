//! A watch on one unit, or on one question.
//!
//! Takes: what each stage gave. Gives: the same, with the time noted that the stage took. Never: changes what passes.

use std::time::Instant;

use sluice_fhir::outcome::Issue;

use super::metrics::{Metrics, Outcome, Stage};
use crate::error::{Error, Kind, Refusal};

/// Times the stages of what is under way while this lives.
pub struct Watch<'a> {
    metrics: &'a Metrics,
    lap: Instant,
}

impl<'a> Watch<'a> {
    pub(super) fn new(metrics: &'a Metrics) -> Self {
        metrics.inflight.inc();
        Self { metrics, lap: Instant::now() }
    }

    /// Notes the time since the last call, or since the beginning, as this stage's. Rust has made `output` before this is
    /// called, so that is the time it took.
    pub fn lap<T>(&mut self, stage: Stage, output: T) -> T {
        let now = Instant::now();
        self.metrics.stage(stage, now - self.lap);
        self.lap = now;
        output
    }

    /// Begins a lap now: the time since the last one went by with others.
    pub fn resume(&mut self) {
        self.lap = Instant::now();
    }

    /// Counts what `check` found.
    pub fn found(&self, issues: &[Issue]) {
        for issue in issues {
            self.metrics.issue(issue.severity);
        }
    }

    /// Counts resources that were recorded.
    pub fn recorded(&self, resources: usize) {
        self.metrics.recorded(resources);
    }

    /// Counts the unit by what became of it.
    pub fn ended(self, failed: Option<&Error>) {
        if let Some(error) = failed.filter(|it| it.kind() == Kind::Refusal(Refusal::Invalid)) {
            self.found(error.issues());
        }
        self.metrics.unit(match failed.map(Error::kind) {
            None => Outcome::Accepted,
            Some(Kind::Refusal(_)) => Outcome::Refused,
            Some(Kind::Outage(_)) => Outcome::Outage,
            Some(Kind::Defect) => Outcome::Defect,
        });
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.metrics.inflight.dec();
    }
}
