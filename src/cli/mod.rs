//! The commands: one file each, thin. Parse arguments, call the library, print.
//!
//! Takes arguments, gives answers on stdout (with `--format json`, one object a line) and an [`Exit`]. Never: prints
//! anything but answers on stdout; ends the process.

pub mod canonical;
mod client;
pub mod config;
pub mod consent;
pub mod demo;
mod document;
pub mod events;
pub mod fhirpath;
pub mod ingest;
pub mod keys;
pub mod log;
mod outcome;
pub mod package;
pub mod parked;
pub mod serve;
mod sse;
mod target;
pub mod validate;
pub mod verify;

use std::io::{BufReader, Read, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use outcome::{Exit, Failure, Format};

use crate::config::Config;

/// A streaming gateway between hospital FHIR systems and a ledger.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 fine, 1 findings, 2 could not run, 64 bad usage or settings.\n\n\
    Example:\n  sluice serve --config sluice.toml")]
pub struct Cli {
    /// How answers are printed [default: human on a terminal, else json]
    #[arg(long, global = true, value_enum)]
    format: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Ingest(ingest::Args),
    Validate(validate::Args),
    Fhirpath(fhirpath::Args),
    Verify(verify::Args),
    Canonicalize(canonical::CanonicalizeArgs),
    Digest(canonical::DigestArgs),
    /// Decides by FHIR Consents, and says why
    #[command(subcommand, after_help = "Example:\n  sluice consent decide < questions.ndjson")]
    Consent(consent::Command),
    /// Checks a Merkle log
    #[command(
        subcommand,
        after_help = "Example:\n  sluice log check https://hospital.example/log --ca ca.pem --trust trust.json"
    )]
    Log(log::Command),
    /// Reads the events of a gateway's own feed
    #[command(subcommand, after_help = "Example:\n  sluice events tail --config sluice.toml --follow")]
    Events(events::Command),
    /// Checks settings, and tells their schema
    #[command(subcommand, after_help = "Example:\n  sluice config check sluice.toml")]
    Config(config::Command),
    /// Makes keys and certificates
    #[command(subcommand, after_help = "Example:\n  sluice keys create keys")]
    Keys(keys::Command),
    /// Decides on units of which it is not known whether the upstream has them
    #[command(subcommand, after_help = "Example:\n  sluice parked list --config sluice.toml")]
    Parked(parked::Command),
    /// Works on FHIR packages
    #[command(subcommand, after_help = "Example:\n  sluice package build hl7.fhir.us.core.tgz us-core.pack")]
    Package(package::Command),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Why it could not run; what it found is no error.
    pub fn run(self, input: impl Read, out: &mut dyn Write) -> Result<Exit, Failure> {
        let format = Format::of(self.format);
        let exit = match self.command {
            Command::Serve(args) => serve::run(&args, format, out),
            Command::Demo(args) => demo::run(&args, format, out),
            Command::Ingest(args) => ingest::run(&args, format, out),
            Command::Validate(args) => validate::run(&args, format, input, out),
            Command::Fhirpath(args) => fhirpath::run(&args, format, input, out),
            Command::Verify(args) => verify::run(&args, format, out),
            Command::Parked(command) => parked::run(&command, format, out),
            Command::Canonicalize(args) => canonical::canonicalize(&args, input, out),
            Command::Digest(args) => canonical::digest(&args, format, input, out),
            Command::Consent(command) => consent::run(&command, format, BufReader::new(input), &mut *out),
            Command::Log(command) => log::run(&command, format, out),
            Command::Events(command) => events::run(&command, format, out),
            Command::Config(command) => config::run(command, format, out),
            Command::Keys(command) => keys::run(&command, format, out),
            Command::Package(command) => package::run(&command, format, out),
        }?;
        out.flush()?;
        Ok(exit)
    }
}

/// The settings at the path given, or at the one that the environment names.
fn settings(path: Option<PathBuf>) -> Result<Config, Failure> {
    let path = crate::config::path(path).ok_or_else(|| {
        Failure::Usage(format!("--config FILE is needed, or {} in the environment", crate::config::PATH_VARIABLE))
    })?;
    Config::load(&path).map_err(Failure::Settings)
}

/// Everything of a file, or of standard input where the path is `-`; at most as much as a document may have.
fn read(path: &std::path::Path, input: &mut impl Read) -> Result<bytes::Bytes, Failure> {
    // One byte more than is taken, so that a longer document is refused as such.
    let bytes_max = sluice_fhir::tree::Limits::default().bytes_max as u64 + 1;
    let mut text = Vec::new();
    let read = if path.as_os_str() == "-" {
        input.take(bytes_max).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut text))
    };
    read.map_err(|error| Failure::file(path, &error))?;
    Ok(text.into())
}

/// A line of JSON.
fn json_line(out: &mut dyn Write, value: &serde_json::Value) -> std::io::Result<()> {
    writeln!(out, "{value}")
}

/// Says something on stderr that is neither an answer nor an end.
fn aside(text: &dyn std::fmt::Display) {
    // Without stderr there is still the exit code.
    let _ = writeln!(std::io::stderr(), "sluice: {text}");
}
