//! Observe: metric names, health, logs and traces.
//!
//! Takes: what the stages count and how the adapters are. Gives: `/metrics`, the probes, JSON logs. Never: a label, a
//! log line or a span with a value of a health record, or with an unbounded set of values.

mod clock;
mod health;
mod logs;
mod metrics;
mod watch;

pub use clock::now_micros;
pub use health::Condition;
pub use logs::start as start_logs;
pub use metrics::{Asked, Decision, Door, Metrics, Outcome, Published, Reloaded, Stage};
pub use watch::Watch;

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

    /// Begins to watch a unit.
    pub fn watch(&self) -> Watch<'_> {
        Watch::new(&self.metrics)
    }

    /// Says how one part is: well, or why not. The text names no value.
    pub fn set(&self, condition: Condition, state: Result<(), String>) {
        self.health.set(condition, state);
    }

    /// Notes what is not as the operator wants it while new work is taken all the same; nothing, once it is. It stands in
    /// `/readyz` and names no value.
    pub fn note(&self, part: &'static str, note: Option<String>) {
        self.health.note(part, note);
    }

    /// The notes, a line each.
    pub fn notes(&self) -> String {
        self.health.notes()
    }

    /// Says that everything is built and bound.
    pub fn set_started(&self) {
        self.health.set_started();
    }

    /// `/livez`: whether the process can still come to be well by itself.
    ///
    /// # Errors
    /// Why only a restart helps.
    pub fn live(&self) -> Result<(), String> {
        self.health.live()
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

    /// `/metrics`: OpenMetrics 1.0 text, or Prometheus's text format 0.0.4.
    pub fn scrape(&self, open_metrics: bool) -> String {
        let text = self.metrics.scrape();
        if open_metrics { text } else { metrics::as_prometheus(&text) }
    }
}
