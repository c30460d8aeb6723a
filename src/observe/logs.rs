//! Logs: to stderr, as JSON or as text.
//!
//! Takes: the settings. Gives: the process's subscriber for `tracing`. Never: writes to stdout, which belongs to the
//! answers of commands; repeats what a panic says.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Observe};

/// Starts logging for the process. A second start changes nothing: tests start many gateways in one process.
pub fn start(settings: &Observe) {
    let level = format!("{:?}", settings.level).to_ascii_lowercase();
    // Other crates' texts are not ours to vouch for: hyper may quote what it was sent: only warnings. lapin writes a returned
    // message with its body: nothing.
    let filter = EnvFilter::new(format!("warn,sluice={level},hyper=error,h2=error,lapin=off,rustls=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.log_format {
        // A line stands in one span, the request's: its fields once, not again as a list.
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    if started.is_ok() {
        // A panic's message may quote what the code had in hand, and that may be a record: only its place is told.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, "a panic: a defect of the gateway");
        }));
    }
}
