//! Logs: to stderr, as JSON or as text.
//!
//! Takes: the settings. Gives: the process's subscriber for `tracing`. Never: writes to stdout, which belongs to the
//! answers of commands.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Observe};

/// Starts logging for the process. A second start changes nothing: tests start many gateways in one process.
pub fn start(settings: &Observe) {
    let level = format!("{:?}", settings.level).to_ascii_lowercase();
    // Other crates' texts are not ours to vouch for: hyper may quote what it was sent: only warnings. lapin writes a returned
    // message with its body: nothing.
    let filter = EnvFilter::new(format!("warn,sluice={level},hyper=error,h2=error,lapin=off,rustls=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match settings.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
}
