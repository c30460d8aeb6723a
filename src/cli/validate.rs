//! `sluice validate`: what the rules find in resources and Bundles, without a gateway.
//!
//! Takes files, or NDJSON on standard input; gives an outcome for each, in the order given, worked out on all cores.
//! Never: holds more than a batch of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::value::RawValue;
use sluice_fhir::outcome::{self, Issue, Severity};
use sluice_fhir::tree::{Limits, Node};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Runtime;

use super::document::Form;
use super::{Exit, Failure, Format, aside, read, settings};
use crate::check::{self, Asking, Rules, Sources};
use crate::config;
use crate::observe::Observer;
use crate::terminology::Remote;

/// Documents that are worked on before their outcomes are printed, for each core.
const BATCH_PER_CORE: usize = 16;

/// Bytes of standard input that are read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Holds resources and Bundles against the rules of FHIR R4, and of a site
#[derive(Debug, clap::Args)]
#[command(
    after_help = "JSON, one line a file: {file, valid, outcome}; of standard input, one resource or Bundle a line: \
    {line, valid, outcome}. Files whose names end in .xml are FHIR's XML. The outcome is an OperationOutcome with place, \
    path and rule id of each issue, and the profile or value set concerned. Documents are worked on on all cores, and answered \
    in their order. Exit code 1 if anything is invalid, 2 if a file can't be read.\n\nExamples:\n  \
    sluice validate patient.json bundle.xml\n  \
    sluice validate --format json *.json | jq -c 'select(.valid | not) | .file'\n  \
    sluice validate --config sluice.toml --sender lab.example report.json\n  \
    sluice validate --package hl7.fhir.us.core-6.1.0.tgz patient.json\n  zcat patients.ndjson.gz | sluice validate -"
)]
pub struct Args {
    /// Settings whose rules and severities count, beside those of FHIR R4
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// FHIR package (.tgz), unpacked folder or definition in JSON, whose profiles and extensions are held too; may be repeated
    #[arg(long, value_name = "PATH")]
    package: Vec<PathBuf>,
    /// Canonical of a profile that every document is held against, beside those that it claims; may be repeated
    #[arg(long, value_name = "URL")]
    profile: Vec<String>,
    /// Tells too, as information, which elements that a profile calls must-support are absent, and its obligations
    #[arg(long)]
    expectations: bool,
    /// Institution as whose resources they are checked, for rules of the settings that are for some senders
    #[arg(long, value_name = "ID")]
    sender: Option<String>,
    /// The format, whatever the names of the files are; of standard input, `xml` is one document
    #[arg(long, value_name = "FORMAT", value_enum)]
    from: Option<Form>,
    /// Resources and Bundles; `-` or none for NDJSON on standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// Settings that are not good; streams that break. A file that can't be read is told, and the others go on.
pub fn run(args: &Args, format: Format, input: impl Read, out: &mut dyn Write) -> Result<Exit, Failure> {
    let rules = Held::new(args)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut printer = Printer { format, out, exit: Exit::Fine };
    let standard_input = Path::new("-");
    match &args.files[..] {
        [] if args.from == Some(Form::Xml) => whole(&rules, input, &mut printer)?,
        [only] if only == standard_input && args.from == Some(Form::Xml) => whole(&rules, input, &mut printer)?,
        [] => lines(&rules, cores, input, &mut printer)?,
        [only] if only == standard_input => lines(&rules, cores, input, &mut printer)?,
        files if files.iter().any(|file| file == standard_input) => {
            return Err(Failure::Usage("`-` stands alone: files and standard input are not mixed".to_owned()));
        }
        files => {
            for batch in files.chunks(cores * BATCH_PER_CORE) {
                let found = in_order(batch, cores, |file| {
                    read(file, &mut io::empty()).and_then(|text| issues(&rules, text, Form::of(args.from, file)))
                });
                for (file, found) in batch.iter().zip(found) {
                    printer.file(file, found)?;
                }
            }
        }
    }
    Ok(printer.exit)
}

/// One document of XML on standard input.
fn whole(rules: &Held, mut input: impl Read, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let standard_input = Path::new("-");
    let text = read(standard_input, &mut input)?;
    printer.file(standard_input, issues(rules, text, Form::Xml))
}

/// NDJSON: what has come is answered before more is waited for.
fn lines(rules: &Held, cores: usize, input: impl Read, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let mut number = 0;
    loop {
        let mut batch: Vec<(u32, Bytes)> = Vec::new();
        while batch.len() < cores * BATCH_PER_CORE
            && (batch.is_empty() || memchr::memchr(b'\n', input.buffer()).is_some())
        {
            let Some(line) = line(&mut input)? else { break };
            number += 1;
            if !line.iter().all(u8::is_ascii_whitespace) {
                batch.push((number, line.into()));
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let found = in_order(&batch, cores, |(_, line)| issues(rules, line.clone(), Form::Json));
        for ((number, _), issues) in batch.iter().zip(found) {
            printer.line(*number, issues?)?;
        }
        // Who waits for the answer before sending more must get it.
        printer.out.flush()?;
    }
}

/// The next line without its end; none at the end. Of a line that is longer than a document may be, as much as shows it.
fn line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let bytes_max = Limits::default().bytes_max + 1;
    let mut line = Vec::new();
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok((!line.is_empty()).then_some(line));
        }
        let end = memchr::memchr(b'\n', buffer);
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        let room = bytes_max - line.len();
        line.extend_from_slice(&piece[..piece.len().min(room)]);
        let used = end.map_or(buffer.len(), |at| at + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

/// Every issue of a document. One that can't be read, or is no resource, has one that says so.
fn issues(rules: &Held, text: Bytes, from: Form) -> Result<Vec<Issue>, Failure> {
    match from.read(text) {
        Ok(tree) => rules.issues(tree.root()),
        Err(error) => Ok(vec![error.into_issue()]),
    }
}

/// The rules, and who is asked about codes that they cannot tell.
struct Held {
    rules: Rules,
    remote: Option<(Remote, Runtime)>,
    sender: Option<String>,
    now: Option<String>,
}

impl Held {
    fn new(args: &Args) -> Result<Self, Failure> {
        let config = args.config.as_ref().map(|path| settings(Some(path.clone()))).transpose()?;
        let default = config::Check::default();
        let check = config.as_ref().map_or(&default, |config| &config.check);
        let sources = Sources {
            tenant: config.as_ref().map_or("", |config| &config.tenant.id),
            packages: &args.package,
            profiles: &args.profile,
            before: None,
            expectations: args.expectations,
        };
        let rules = Rules::read(check, &sources).map_err(|error| Failure::Usage(error.to_string()))?;
        let remote = match config.as_ref().and_then(|config| config.terminology.as_ref()) {
            None => None,
            Some(settings) => {
                let remote = Remote::new(settings, Observer::new()).map_err(|it| Failure::Usage(it.to_string()))?;
                Some((remote, super::serve::runtime()?))
            }
        };
        let now = OffsetDateTime::now_utc().format(&Rfc3339).ok();
        Ok(Self { rules, remote, sender: args.sender.clone(), now })
    }

    fn issues(&self, root: Node<'_>) -> Result<Vec<Issue>, Failure> {
        let sender = self.sender.as_deref();
        let decides = self.remote.is_some();
        let asking = Asking { sender, now: self.now.as_deref(), resolve: None, profile: None, decides };
        let report = self.rules.document(root, asking);
        let Some((remote, runtime)) = &self.remote else { return Ok(report.issues) };
        let decided = check::decided(report, &self.rules, Some(remote), sender);
        runtime.block_on(decided).map_err(|error| Failure::could_not_run(&error))
    }
}

/// What `work` makes of each, in their order, on all cores.
fn in_order<T: Sync, R: Send>(items: &[T], cores: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..cores.min(items.len()) {
            scope.spawn(|| {
                while let Some((at, item)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    items.get(at).map(|item| (at, item))
                } {
                    let made = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, made));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, made)| made).collect()
}

/// One answer, as a line of JSON. Exactly one of `file` and `line` is there.
#[derive(serde::Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    valid: bool,
    outcome: &'a RawValue,
}

struct Printer<'o> {
    format: Format,
    out: &'o mut dyn Write,
    exit: Exit,
}

impl Printer<'_> {
    fn file(&mut self, file: &Path, found: Result<Vec<Issue>, Failure>) -> Result<(), Failure> {
        match found {
            Ok(issues) => self.print(Some(&file.to_string_lossy()), None, &issues),
            Err(failure) => {
                aside(&failure);
                self.exit = self.exit.and(failure.exit());
                Ok(())
            }
        }
    }

    fn line(&mut self, number: u32, mut issues: Vec<Issue>) -> Result<(), Failure> {
        for position in issues.iter_mut().filter_map(|issue| issue.position.as_mut()) {
            // A line of NDJSON is one line: within all that was sent, this one.
            position.line = number;
        }
        self.print(None, Some(number), &issues)
    }

    fn print(&mut self, file: Option<&str>, line: Option<u32>, issues: &[Issue]) -> Result<(), Failure> {
        let valid = !issues.iter().any(|issue| matches!(issue.severity, Severity::Error | Severity::Fatal));
        self.exit = self.exit.and(Exit::of_findings(!valid));
        match self.format {
            Format::Json => {
                let outcome = String::from_utf8_lossy(&outcome::to_json(issues)).into_owned();
                let outcome = RawValue::from_string(outcome).map_err(io::Error::from)?;
                let line = Answer { file, line, valid, outcome: &outcome };
                serde_json::to_writer(&mut *self.out, &line).map_err(io::Error::from)?;
                writeln!(self.out)?;
            }
            Format::Human => {
                let name = file.unwrap_or("-");
                for issue in issues {
                    let place = issue.position.map(|at| format!("{}:{}: ", at.line, at.column)).unwrap_or_default();
                    let path = issue.expression.as_deref().unwrap_or("-");
                    let (severity, rule) = (issue.severity.code(), &issue.rule);
                    writeln!(self.out, "{name}:{place}{severity} {rule} at {path}: {}", issue.text)?;
                }
                let line = line.map(|number| format!(":{number}")).unwrap_or_default();
                writeln!(self.out, "{name}{line}: {}", if valid { "valid" } else { "invalid" })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_lines(text: &str) -> (Exit, Vec<serde_json::Value>) {
        let mut out = Vec::new();
        let args = Args {
            config: None,
            package: Vec::new(),
            profile: Vec::new(),
            expectations: false,
            sender: None,
            from: None,
            files: vec!["-".into()],
        };
        let exit = run(&args, Format::Json, text.as_bytes(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        (exit, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn lines_keep_their_order_and_numbers() {
        let good = r#"{"resourceType":"Patient"}"#;
        let text = format!("{}\n\n{{\"resourceType\":\"Patient\",\n{good}", vec![good; 200].join("\n"));
        let (exit, answers) = run_lines(&text);
        assert_eq!(exit, Exit::Findings);
        assert_eq!(answers.len(), 202);
        let numbers: Vec<u64> = answers.iter().map(|answer| answer["line"].as_u64().unwrap()).collect();
        assert_eq!(numbers[..200], (1..=200).collect::<Vec<_>>());
        assert_eq!(numbers[200..], [202, 203]);
        assert_eq!(answers[200]["valid"], false);
        assert_eq!(answers[200]["outcome"]["issue"][0]["extension"][0]["valueInteger"], 202);
        assert_eq!(answers[201]["valid"], true);
    }

    #[test]
    fn nothing_sent_is_nothing_found() {
        assert_eq!(run_lines("\n"), (Exit::Fine, vec![]));
    }
}
