//! `sluice keys`: a gateway's keyring, and certificates for trying things out.
//!
//! Takes a folder; gives files, readable by their owner alone. Never: overwrites a file; prints a private key.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Exit, Failure, Format, json_line};
use crate::keys::{Keys, SigningKey};

pub(super) mod tls;

/// What is made.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Makes a keyring: every key that a gateway needs
    #[command(
        after_help = "JSON: {dir, log, event, institution}: the folder, and the public halves of the signing keys in \
        base64. Refuses, and changes nothing, if a file is there already.\n\nExample:\n  sluice keys create keys"
    )]
    Create {
        /// The folder; made if it is missing
        dir: PathBuf,
    },
    /// Makes a CA, a server's certificate and clients' certificates, for tests and demonstrations
    #[command(
        after_help = "JSON, one line a file: {file, subject}. Certificates hold for a year; the CA's key is kept \
        nowhere, so nobody can sign more of them.\n\nExample:\n  sluice keys tls tls --host localhost --host 127.0.0.1 \
        --client hospital-a"
    )]
    Tls(tls::Args),
}

/// Runs it.
///
/// # Errors
/// A file that is there already, or can't be written.
pub fn run(command: &Command, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    match command {
        Command::Create { dir } => create(dir, format, out),
        Command::Tls(args) => tls::run(args, format, out),
    }
}

fn create(dir: &Path, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let files = Keys::create(dir).map_err(|error| Failure::could_not_run(&error))?;
    let keys = Keys::open(&files).map_err(|error| Failure::could_not_run(&error))?;
    let [log, event, institution] =
        [SigningKey::Log, SigningKey::Event, SigningKey::Institution].map(|key| BASE64.encode(keys.public_key(key)));
    match format {
        Format::Human => {
            writeln!(out, "{}: a new keyring; the public halves of its signing keys:", dir.display())?;
            writeln!(out, "  log          {log}\n  event        {event}\n  institution  {institution}")?;
        }
        Format::Json => {
            let dir = dir.to_string_lossy();
            let line = serde_json::json!({ "dir": dir, "log": log, "event": event, "institution": institution });
            json_line(out, &line)?;
        }
    }
    Ok(Exit::Fine)
}
