//! Observe: metric names, health, logs and traces.
//!
//! Takes: what the stages count and how the adapters are. Gives: `/metrics`, the probes, JSON logs. Never: a label, a
//! log line or a span with a value of a health record, or with an unbounded set of values.

mod health;
mod logs;
mod metrics;

pub use health::Condition;
pub use logs::start as start_logs;
pub use metrics::{Decision, Door, Metrics, Outcome, Published, Stage};

use std::sync::Arc;

/// What a process shows of itself.
pub struct Observer {
    metrics: Metrics,
    health: health::Health,
}

impl Observer {
    /// One that has not started yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { metrics: Metrics::new(), health: health::Health::default() })
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Says how one part is: well, or why not. The text names no value.
    pub fn set(&self, condition: Condition, state: Result<(), String>) {
        self.health.set(condition, state);
    }

    /// Says that everything is built and bound.
    pub fn set_started(&self) {
        self.health.set_started();
    }

    /// `/startupz`.
    ///
    /// # Errors
    /// A sentence, while the process is not built.
    pub fn started(&self) -> Result<(), String> {
        self.health.started()
    }

    /// `/readyz`: whether new work can be taken. A broker or a ledger that is down does not make it unready while
    /// there is room to wait for it.
    ///
    /// # Errors
    /// What is not well, by name.
    pub fn ready(&self) -> Result<(), String> {
        self.health.ready()
    }

    /// `/metrics`: OpenMetrics 1.0 text.
    pub fn scrape(&self) -> String {
        self.metrics.scrape()
    }
}
