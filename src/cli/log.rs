//! `sluice log`: whether a Merkle log is what it says, from outside or with the operator's view.
//!
//! Takes: a folder or URL of a log in C2SP's tlog-tiles layout, or the settings of a gateway that does not run. Gives:
//! size, root and what does not fit. Never: believes a key that the log came with; repairs anything.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::note::VerifierKey;

use super::{Exit, Failure, Format, aside, json_line, read, serve, settings};
use crate::anchor::check::{Finding, Folder, Remote, Report, Source, SourceError, files, operator};
use crate::anchor::{Log, OpenError};
use crate::config::Config;
use crate::keys::{Files, Keys};
use crate::observe::Observer;
use crate::publish::verify::Trust;
use crate::serve::tls;

/// What is done with a log.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Computes a log again and compares every tile and its root with what was signed
    #[command(
        after_help = "JSON: {size, root, ok}; what does not fit goes to stderr. With --config, of a gateway that does not \
        run, every checkpoint ever signed is compared, and `leaves` tells {resource, decision, audit, dummy}. Exit code 1 \
        if anything does not fit, 2 if there is no log to check or no trusted key for it.\n\nExamples:\n  \
        sluice log check https://hospital.example/log --ca ca.pem --trust trust.json\n  \
        sluice log check --config sluice.toml"
    )]
    Check(CheckArgs),
    /// Tells everything in a log that does not fit: gaps, forks, changed tiles
    #[command(
        after_help = "JSON, one line a finding: {finding, size | index | path, text}, and a last line {size, root, ok, \
        findings}. A finding is one of signature, fork, rollback, gap, tile, leaf. Checkpoints that others have seen, \
        as receipts and events name them, show whether all were shown the same log. Exit codes as of check.\n\nExample:\n  \
        sluice log audit https://hospital.example/log --ca ca.pem --trust trust.json --seen events/*.json"
    )]
    Audit(AuditArgs),
}

/// What `check` takes.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Folder or URL of the log
    #[arg(value_name = "DIR or URL", required_unless_present = "config", conflicts_with = "config")]
    log: Option<String>,
    /// The operator's view: the settings of a gateway that does not run
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    believed: Believed,
}

/// What `audit` takes.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// Folder or URL of the log
    #[arg(value_name = "DIR or URL")]
    log: String,
    #[command(flatten)]
    believed: Believed,
}

/// By what a log is judged.
#[derive(Debug, clap::Args)]
struct Believed {
    /// Trust file with the log's key; without it signatures are not checked
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// PEM: who signs the server's certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Checkpoints, receipts or events seen before, which the log must go on from
    #[arg(long, value_name = "FILE", num_args = 1..)]
    seen: Vec<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// No log to check, or none that can be read; no trusted key for it; settings that are not good.
pub fn run(command: &Command, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let runtime = serve::runtime()?;
    match command {
        Command::Check(CheckArgs { log: Some(log), believed, .. }) => {
            let judged = runtime.block_on(from_outside(log, believed))?;
            check(&judged, format, out)
        }
        Command::Check(CheckArgs { config, believed, .. }) => {
            if believed.trust.is_some() || believed.ca.is_some() || !believed.seen.is_empty() {
                let text = "--trust, --ca and --seen are for a log that is looked at from outside";
                return Err(Failure::Usage(text.to_owned()));
            }
            let config = settings(config.clone())?;
            let report = runtime.block_on(from_inside(&config))?;
            check(&Judged::Report(report), format, out)
        }
        Command::Audit(AuditArgs { log, believed }) => {
            let judged = runtime.block_on(from_outside(log, believed))?;
            audit(&judged, format, out)
        }
    }
}

/// What a log was found to be.
enum Judged {
    Report(Report),
    /// There is a checkpoint, and it is none: nothing else can be said.
    NoCheckpoint(String),
}

async fn from_outside(log: &str, believed: &Believed) -> Result<Judged, Failure> {
    let source = source(log, believed.ca.as_deref())?;
    let failed = |error: SourceError| Failure::CouldNotRun(format!("{log}: {error}"));
    let text = source.file("checkpoint").await.map_err(failed)?;
    let text = text.ok_or_else(|| failed(SourceError::NoCheckpoint))?;
    let newest = match SignedCheckpoint::parse(&text) {
        Ok(newest) => newest,
        Err(error) => return Ok(Judged::NoCheckpoint(SourceError::from(error).to_string())),
    };
    let key = match &believed.trust {
        None => {
            aside(&"no --trust: the signature is not checked, only that the log is of one piece");
            None
        }
        Some(file) => Some(trusted(file, newest.checkpoint().origin())?),
    };
    let seen: Vec<SignedCheckpoint> =
        believed.seen.iter().map(|file| seen(file)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    match files(&*source, key.as_ref(), &seen).await {
        Ok(report) => Ok(Judged::Report(report)),
        Err(SourceError::Checkpoint(error)) => Ok(Judged::NoCheckpoint(SourceError::from(error).to_string())),
        Err(error) => Err(failed(error)),
    }
}

fn source(log: &str, ca: Option<&Path>) -> Result<Box<dyn Source>, Failure> {
    if !log.starts_with("http://") && !log.starts_with("https://") {
        return Ok(Box::new(Folder(log.into())));
    }
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    let roots = ca.map(tls::roots).transpose().map_err(|error| usage(&error))?;
    if log.starts_with("https://") && roots.is_none() {
        return Err(Failure::Usage("https needs --ca FILE: the system's roots are never used".to_owned()));
    }
    Remote::new(log, roots).map(|it| Box::new(it) as Box<dyn Source>).map_err(|error| usage(&error))
}

/// The key of this log in a trust file. Without one there is nothing to say of a log.
fn trusted(file: &Path, origin: &str) -> Result<VerifierKey, Failure> {
    let trust = Trust::parse(&read(file, &mut std::io::empty())?).map_err(|error| Failure::file(file, &error))?;
    let key = trust.log(origin).next().cloned();
    key.ok_or_else(|| Failure::CouldNotRun(format!("{}: no key of the log {origin}", file.display())))
}

/// The checkpoints in a file: a note, or what stands in an event or a receipt.
fn seen(file: &Path) -> Result<Vec<SignedCheckpoint>, Failure> {
    let text = read(file, &mut std::io::empty())?;
    let parsed = |text: &[u8]| SignedCheckpoint::parse(text).map_err(|error| Failure::file(file, &error));
    let Ok(value) = serde_json::from_slice::<Value>(&text) else { return Ok(vec![parsed(&text)?]) };
    let receipts = value["resources"].as_array().into_iter().flatten().map(|it| &it["checkpoint"]);
    let named = receipts.chain([&value["proof"]["checkpoint"]]).filter_map(Value::as_str);
    let found = named.map(|text| parsed(text.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        return Err(Failure::file(file, &"expected a checkpoint, a receipt or an event"));
    }
    Ok(found)
}

async fn from_inside(config: &Config) -> Result<Report, Failure> {
    let could_not = |error: &dyn std::fmt::Display| Failure::CouldNotRun(error.to_string());
    if !config.store.dir.is_dir() {
        // To open it would make one.
        return Err(could_not(&format_args!("{}: no store is there", config.store.dir.display())));
    }
    let keys = Keys::open(&Files::from(&config.keys)).map_err(|error| Failure::Usage(error.to_string()))?;
    let keys = std::sync::Arc::new(keys);
    let opened = crate::store::open(&config.store, std::sync::Arc::clone(&keys)).await;
    let opened = opened.map_err(|error| could_not(&error))?;
    let log = Log::open(opened.store, keys, &config.log, Observer::new()).await.map_err(|error| match error {
        OpenError::Origin => Failure::Usage(error.to_string()),
        error => could_not(&error),
    })?;
    operator(&log, &opened.vault).await.map_err(|error| could_not(&error))
}

fn check(judged: &Judged, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    match judged {
        Judged::NoCheckpoint(text) => aside(text),
        Judged::Report(report) => report.findings.iter().for_each(|finding| aside(finding)),
    }
    conclude(judged, None, format, out)
}

fn audit(judged: &Judged, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let found = match judged {
        Judged::NoCheckpoint(text) => vec![json!({ "finding": "checkpoint", "path": "checkpoint", "text": text })],
        Judged::Report(report) => report.findings.iter().map(told).collect(),
    };
    for finding in &found {
        match format {
            Format::Json => json_line(out, finding)?,
            Format::Human => writeln!(out, "{}: {}", plain(&finding["finding"]), plain(&finding["text"]))?,
        }
    }
    conclude(judged, Some(found.len()), format, out)
}

fn conclude(judged: &Judged, findings: Option<usize>, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let report = match judged {
        Judged::Report(report) => Some(report),
        Judged::NoCheckpoint(_) => None,
    };
    let ok = report.is_some_and(Report::is_ok);
    let mut line = json!({
        "size": report.map(|it| it.size), "root": report.map(|it| STANDARD.encode(it.root)), "ok": ok,
    });
    if let Some(leaves) = report.and_then(|it| it.leaves.as_ref()) {
        line["leaves"] = json!(leaves);
    }
    if let Some(findings) = findings {
        line["findings"] = json!(findings);
    }
    match (format, report) {
        (Format::Json, _) => json_line(out, &line)?,
        (Format::Human, None) => writeln!(out, "not a log")?,
        (Format::Human, Some(report)) => {
            let says = match (ok, report.signed || report.leaves.is_some()) {
                (true, true) => "fine",
                (true, false) => "of one piece; its signature was not checked",
                (false, _) => "not what was signed",
            };
            writeln!(out, "{} leaves, root {}: {says}", report.size, plain(&line["root"]))?;
            if let Some(leaves) = line.get("leaves").and_then(Value::as_object) {
                let kinds: Vec<_> = leaves.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
                writeln!(out, "  {}", kinds.join(", "))?;
            }
        }
    }
    Ok(Exit::of_findings(!ok))
}

/// A finding as JSON.
fn told(finding: &Finding) -> Value {
    let (name, member, place) = match finding {
        Finding::Signature { size } => ("signature", "size", json!(size)),
        Finding::Root { size } => ("fork", "size", json!(size)),
        Finding::Rollback { size } => ("rollback", "size", json!(size)),
        Finding::Missing { path } => ("gap", "path", json!(path.to_string())),
        Finding::Tile { path } => ("tile", "path", json!(path.to_string())),
        Finding::Leaf { index } => ("leaf", "index", json!(index)),
        Finding::Opening { index } => ("opening", "index", json!(index)),
    };
    json!({ "finding": name, member: place, "text": finding.to_string() })
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
