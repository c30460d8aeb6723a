//! `sluice ingest`: files go to a gateway.
//!
//! Takes: files and folders of Bundles, resources and NDJSON, gzip or not. Gives: for each file what became of it. Each
//! goes under an idempotency key of its own bytes, so that sending it again gives the first answer again. Never: judges
//! a file itself: what is wrong with it the gateway says.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use flate2::read::MultiGzDecoder;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sluice_fhir::reference::is_id;
use sluice_fhir::tree::{Limits, Node, Tree};

use super::client::{Answer, Ask, Client, ClientError, Identity, Payload};
use super::target::Target;
use super::{Exit, Failure, Format, aside, json_line, serve};
use crate::serve::respond::{RECEIPT, RECEIPT_EXTENSION};

/// Issues of one file that are told at most.
const ISSUES_MAX: usize = 1_000;

/// Sends files to a gateway: Bundles, resources and NDJSON
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Takes *.json and *.ndjson, also as .gz; of a folder, all of them in the order of their names. \
    JSON, one line a file: {file, status, accepted, refused, outcome, receipt}, counting resources. \
    Exit code 1 if anything was refused.\n\nExamples:\n  sluice ingest --config sluice.toml bundles/\n  \
    sluice ingest --to https://127.0.0.1:8443/fhir --ca ca.pem --cert me.pem --key me.key patient.json"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// Settings that are not good, and paths that are not there. A file that can't be sent is told, and the others go on.
pub fn run(args: &Args, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (base, identity) = args.target.resolve()?;
    let files = files(&args.paths)?;
    serve::runtime()?.block_on(async {
        let mut sender = Sender::new(&base, &identity)?;
        let bar = progress(&files);
        let mut exit = Exit::Fine;
        for file in &files {
            let told = match sender.file(file).await {
                Ok(told) => told,
                Err(error) => {
                    bar.suspend(|| aside(&format_args!("{}: {error}", file.display())));
                    Told::unsent(file)
                }
            };
            exit = exit.and(told.exit());
            bar.inc(size(file));
            bar.suspend(|| told.print(format, out))?;
        }
        bar.finish_and_clear();
        Ok(exit)
    })
}

/// What became of a file.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) file: PathBuf,
    /// None if there was no answer.
    pub(super) status: Option<StatusCode>,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// The OperationOutcome that says what was refused and why; null if nothing was.
    pub(super) outcome: Value,
    /// Null if nothing was acknowledged; for a batch, one of each entry.
    pub(super) receipt: Value,
}

impl Told {
    fn unsent(file: &Path) -> Self {
        let file = file.to_owned();
        Self { file, status: None, accepted: 0, refused: 0, outcome: Value::Null, receipt: Value::Null }
    }

    fn exit(&self) -> Exit {
        match self.status {
            Some(status) if status.is_success() => Exit::of_findings(self.refused > 0),
            Some(status) if status.is_client_error() => Exit::Findings,
            _ => Exit::CouldNotRun,
        }
    }

    fn print(&self, format: Format, out: &mut dyn Write) -> io::Result<()> {
        let status = self.status.map(|status| status.as_u16());
        match format {
            Format::Json => json_line(
                out,
                &serde_json::json!({
                    "file": self.file.to_string_lossy(), "status": status, "accepted": self.accepted,
                    "refused": self.refused, "outcome": self.outcome, "receipt": self.receipt,
                }),
            )?,
            Format::Human => {
                let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
                let (accepted, refused) = (self.accepted, self.refused);
                writeln!(out, "{}: {status}, {accepted} accepted, {refused} refused", self.file.display())?;
                for line in self.issues() {
                    writeln!(out, "  {line}")?;
                }
            }
        }
        out.flush()
    }

    /// The errors of the outcome, each in one line: where, which rule, what was expected.
    pub(super) fn issues(&self) -> impl Iterator<Item = String> {
        let issues = self.outcome["issue"].as_array().into_iter().flatten();
        issues.filter(|issue| matches!(issue["severity"].as_str(), Some("error" | "fatal"))).map(|issue| {
            let number = |name: &str| {
                let mut extensions = issue["extension"].as_array().into_iter().flatten();
                let found = extensions.find(|it| it["url"].as_str().is_some_and(|url| url.ends_with(name)));
                found.and_then(|it| it["valueInteger"].as_i64())
            };
            let mut line = String::new();
            if let (Some(row), Some(column)) = (number("issue-line"), number("issue-col")) {
                // Writing to a String does not fail.
                let _ = write!(line, "line {row}, column {column}: ");
            }
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let rule = text(&issue["details"]["coding"][0]["code"]);
            let _ = write!(line, "{rule} at {}: {}", text(&issue["expression"][0]), text(&issue["diagnostics"]));
            line
        })
    }
}

/// Sends files to one gateway.
pub(super) struct Sender {
    client: Client,
    /// The path of `[base]`.
    base: String,
}

impl Sender {
    pub(super) fn new(base: &Uri, identity: &Identity) -> Result<Self, Failure> {
        Ok(Self { client: Client::new(base, identity)?, base: base.path().trim_end_matches('/').to_owned() })
    }

    /// Sends a file.
    pub(super) async fn file(&mut self, file: &Path) -> Result<Told, ClientError> {
        let failed = |error| ClientError::File { file: file.to_owned(), error };
        let looked = Looked::at(file).map_err(failed)?;
        let gzip = is_gzip(file);
        let mut headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static(looked.media_type())),
            (header::HeaderName::from_static("idempotency-key"), looked.key()),
        ];
        if gzip {
            headers.push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        }
        let (method, path) = looked.interaction(&self.base);
        let payload = Payload::File(file.to_owned());
        let answer = self.client.send(&Ask { method, path, headers, payload, repeatable: true }).await?;
        Ok(told(file, &looked, &answer))
    }
}

/// What can be seen of a file without judging it.
struct Looked {
    sha256: [u8; 32],
    lines: bool,
    /// Of a resource that is no Bundle: its type, and its id.
    alone: Option<(String, Option<String>)>,
    /// Resources in it, as far as can be seen.
    resources: u64,
}

impl Looked {
    fn at(file: &Path) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        io::copy(&mut std::fs::File::open(file)?, &mut hasher)?;
        let lines = stem(file).ends_with(".ndjson");
        let mut looked = Self { sha256: hasher.finalize().into(), lines, alone: None, resources: 1 };
        let opened = std::fs::File::open(file)?;
        let mut text: Box<dyn Read> =
            if is_gzip(file) { Box::new(MultiGzDecoder::new(opened)) } else { Box::new(opened) };
        if lines {
            // What can't be inflated to its end is the gateway's to refuse.
            looked.resources = count_lines(&mut text).unwrap_or(1);
            return Ok(looked);
        }
        // A document that is larger than a resource may be is a Bundle, and is not held here.
        let limits = Limits::default();
        let mut held = Vec::new();
        let whole = text.take(limits.bytes_max as u64 + 1).read_to_end(&mut held).is_ok();
        if whole && let Ok(tree) = Tree::parse(held.into(), &limits) {
            let root = tree.root();
            match root.resource_type() {
                Some("Bundle") => {
                    looked.resources = root.member("entry").map_or(0, |entries| entries.items().count() as u64);
                }
                Some(name) => {
                    let id = root.member("id").and_then(Node::as_str).filter(|id| is_id(id));
                    looked.alone = Some((name.to_owned(), id.map(std::borrow::Cow::into_owned)));
                }
                None => {}
            }
        }
        Ok(looked)
    }

    fn media_type(&self) -> &'static str {
        if self.lines { "application/fhir+ndjson" } else { "application/fhir+json" }
    }

    /// Of the file's bytes, so that the same file has the same for ever.
    fn key(&self) -> HeaderValue {
        HeaderValue::from_str(&format!("sluice-file-{}", HEXLOWER.encode(&self.sha256)))
            .unwrap_or_else(|_| HeaderValue::from_static("sluice-file"))
    }

    fn interaction(&self, base: &str) -> (Method, String) {
        match &self.alone {
            _ if self.lines => (Method::POST, format!("{base}/$ingest")),
            Some((name, Some(id))) => (Method::PUT, format!("{base}/{name}/{id}")),
            Some((name, None)) => (Method::POST, format!("{base}/{name}")),
            None => (Method::POST, base.to_owned()),
        }
    }
}

fn count_lines(text: &mut impl Read) -> io::Result<u64> {
    let mut text = io::BufReader::with_capacity(256 << 10, text);
    let (mut count, mut blank) = (0, true);
    loop {
        let buffer = io::BufRead::fill_buf(&mut text)?;
        if buffer.is_empty() {
            return Ok(count + u64::from(!blank));
        }
        for byte in buffer {
            if *byte == b'\n' {
                count += u64::from(!blank);
                blank = true;
            } else {
                blank &= byte.is_ascii_whitespace();
            }
        }
        let used = buffer.len();
        io::BufRead::consume(&mut text, used);
    }
}

/// What the answer says of the file.
fn told(file: &Path, looked: &Looked, answer: &Answer) -> Told {
    let receipt = answer.headers.get(RECEIPT).and_then(|it| it.to_str().ok()).map_or(Value::Null, Value::from);
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let mut told = Told {
        file: file.to_owned(),
        status: Some(answer.status),
        accepted: 0,
        refused: looked.resources,
        outcome: Value::Null,
        receipt: Value::Null,
    };
    if !answer.status.is_success() {
        told.outcome = body;
        return told;
    }
    (told.accepted, told.refused, told.receipt) = (looked.resources, 0, receipt);
    if body["resourceType"] == "Parameters" {
        let parameters = || body["parameter"].as_array().into_iter().flatten();
        let named = |name: &str| parameters().find(|it| it["name"] == name);
        let number = |name: &str| named(name).and_then(|it| it["valueUnsignedInt"].as_u64()).unwrap_or_default();
        (told.accepted, told.refused) = (number("accepted"), number("refused"));
        told.outcome = named("outcome").map(|it| it["resource"].clone()).unwrap_or_default();
        told.receipt = named("receipt").map(|it| it["valueString"].clone()).unwrap_or_default();
    } else if body["type"] == "batch-response" {
        batch(&body, &mut told);
    }
    told
}

/// A batch: each entry was accepted or refused for itself, and has a receipt of its own.
fn batch(body: &Value, told: &mut Told) {
    (told.accepted, told.refused) = (0, 0);
    let (mut issues, mut receipts) = (Vec::new(), Vec::new());
    for response in body["entry"].as_array().into_iter().flatten().map(|entry| &entry["response"]) {
        if response["status"].as_str().is_some_and(|status| status.starts_with('2')) {
            told.accepted += 1;
            let mut extensions = response["extension"].as_array().into_iter().flatten();
            receipts.extend(extensions.find(|it| it["url"] == RECEIPT_EXTENSION).map(|it| it["valueString"].clone()));
        } else {
            told.refused += 1;
            let found = response["outcome"]["issue"].as_array().into_iter().flatten();
            issues.extend(found.take(ISSUES_MAX - issues.len()).cloned());
        }
    }
    if !issues.is_empty() {
        told.outcome = serde_json::json!({ "resourceType": "OperationOutcome", "issue": issues });
    }
    if !receipts.is_empty() {
        told.receipt = receipts.into();
    }
}

/// The files of these paths: a folder's, and those of the folders in it, in the order of their names.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            std::fs::metadata(path).map_err(|error| Failure::file(path, &error))?;
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        let mut open = vec![path.clone()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).map_err(|error| Failure::file(&folder, &error))? {
                let entry = entry.map_err(|error| Failure::file(&folder, &error))?;
                let kind = entry.file_type().map_err(|error| Failure::file(&folder, &error))?;
                let stem = stem(&entry.path());
                if kind.is_dir() {
                    open.push(entry.path());
                } else if has_extension(&stem, "json") || has_extension(&stem, "ndjson") {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

/// The name without `.gz`.
fn stem(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".gz").unwrap_or(&name).to_owned()
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it.eq_ignore_ascii_case(extension))
}

fn is_gzip(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "gz")
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |about| about.len())
}

/// A bar on stderr, if that is a terminal.
fn progress(files: &[PathBuf]) -> ProgressBar {
    let bar = ProgressBar::new(files.iter().map(|file| size(file)).sum());
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_bar_knows_how_much_there_is_to_send() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [("a.json", 10), ("b.ndjson", 5)].map(|(name, bytes)| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![b' '; bytes]).unwrap();
            path
        });
        let bar = progress(&paths);
        assert_eq!((bar.length(), bar.position()), (Some(15), 0));
        bar.inc(size(&paths[0]));
        assert_eq!((bar.position(), bar.is_finished()), (10, false));
    }
}
