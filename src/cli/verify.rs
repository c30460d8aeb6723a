//! `sluice verify`: whether events are what a gateway decided to send, offline.
//!
//! Takes: files of events, and a trust file. Gives: a line for each. Never: asks the network, or trusts a key of an event.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::{Exit, Failure, Format, json_line, read};
use crate::publish::verify::{Trust, verify};

/// Verifies events offline
#[derive(Debug, clap::Args)]
#[command(
    after_help = "JSON, one line an event: {event, verified, assurance, broken_link}. Exit code 1 if a link broke, 2 \
    without a trusted key.\n\nExample:\n  sluice verify events/*.json --trust trust.json"
)]
pub struct Args {
    /// Events in CloudEvents' JSON format
    #[arg(required = true)]
    events: Vec<PathBuf>,
    /// Keys of logs, of sources of events and of the ledger
    #[arg(long)]
    trust: PathBuf,
}

/// Runs `verify`.
///
/// # Errors
/// A trust file without keys; a file that can't be read; output that can't be written.
pub fn run(args: &Args, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let text = read(&args.trust, &mut std::io::empty())?;
    let trust = Trust::parse(&text).map_err(|error| Failure::file(&args.trust, &std::io::Error::other(error)))?;
    let mut exit = Exit::Fine;
    for path in &args.events {
        let verdict = verify(&read(path, &mut std::io::empty())?, &trust);
        if !verdict.verified {
            exit = exit.and(Exit::Findings);
        }
        let link = json!(verdict.broken_link);
        match format {
            Format::Json => json_line(
                out,
                &json!({"event": path.display().to_string(), "verified": verdict.verified,
                    "assurance": verdict.assurance, "broken_link": link}),
            )?,
            Format::Human => {
                let path = path.display();
                match verdict.assurance {
                    Some(assurance) => writeln!(out, "{path}: verified, assurance {assurance}")?,
                    None => writeln!(out, "{path}: not verified, broken link {link}")?,
                }
            }
        }
    }
    Ok(exit)
}
