//! `sluice consent`: decisions by FHIR Consents, one a line, and why one is what it is.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;
use sluice_fhir::tree::{Limits, Node, Tree};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Exit, Failure, Format, json_line, read};
use crate::consent::decide::{Decision, Reason, Says, Settings};
use crate::consent::exchange;
use crate::consent::explain::{Explanation, Patient, explain};

/// Longest line that is read; a longer one is answered as unreadable.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What is asked of Consents.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Decides by the Consents that each line holds
    #[command(
        after_help = "NDJSON in, one question a line: {id, consents, request, resource}; NDJSON out, in the same \
        order: {id, decision, obligations, reason}. What can't be read leads to deny or undecidable, never to an error.\n\n\
        Example:\n  sluice consent decide < questions.ndjson"
    )]
    Decide {
        /// `-`: standard input, which is also the default
        #[arg(value_parser = ["-"], hide_possible_values = true)]
        input: Option<String>,
    },
    /// Says why a record may or may not be told: what each Consent says of it, and which provision decided
    #[command(
        after_help = "Of files, or with `-` of questions as `decide` takes them. JSON, one line a question: {id, decision, \
        obligations, reason, records}; a record is {resource, type, decision, reason, patients}, a patient {patient, \
        decision, reason, consents}, a Consent {consent, id, says, rule, provision}: `says` is permit, deny, undecidable, \
        nothing-matches, not-in-force, another-patient or superseded.\n\nExample:\n  \
        sluice consent explain --consent consent.json --actor Organization/insurer --role IRCP --purpose HPAYMT \
        --action disclose claim.json"
    )]
    Explain(ExplainArgs),
}

/// What `explain` takes.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The record, or a Bundle of records; `-`: questions on standard input
    #[arg(value_name = "RESOURCE or -")]
    resource: PathBuf,
    /// A Consent, or a Bundle whose Consents are taken
    #[arg(long, value_name = "FILE", num_args = 1..)]
    consent: Vec<PathBuf>,
    /// Who asks: a reference
    #[arg(long, value_name = "REFERENCE")]
    actor: Option<String>,
    /// What the asker belongs to: references
    #[arg(long, value_name = "REFERENCE")]
    member_of: Vec<String>,
    /// In which role: a code of v3-ParticipationType or v3-RoleClass
    #[arg(long, value_name = "CODE")]
    role: Option<String>,
    /// What for: a code of v3-ActReason
    #[arg(long, value_name = "CODE")]
    purpose: Option<String>,
    /// collect, access, use, disclose or correct
    #[arg(long, value_name = "CODE")]
    action: Option<String>,
    /// When: an instant [default: now]
    #[arg(long, value_name = "INSTANT")]
    time: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Streams that break; files that can't be read or are no JSON.
pub fn run(command: &Command, format: Format, input: impl BufRead, out: &mut dyn Write) -> Result<Exit, Failure> {
    match command {
        Command::Decide { .. } => decide(input, out)?,
        Command::Explain(args) if args.resource.as_os_str() == "-" => {
            each_line(input, |line| tell(&explain(Settings::default(), line), format, out))?;
        }
        Command::Explain(args) => tell(&explain(Settings::default(), question(args)?), format, out)?,
    }
    Ok(Exit::Fine)
}

/// Answers each line of `input` with one on `output`, in order; empty lines are passed over. Every line has an answer,
/// so the only error is that of reading or writing itself.
pub fn decide(input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    each_line(input, |line| {
        output.write_all(&exchange::answer(Settings::default(), line))?;
        output.write_all(b"\n")?;
        output.flush()
    })
}

fn each_line(mut input: impl BufRead, mut each: impl FnMut(Bytes) -> io::Result<()>) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        if io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            // What was read is no whole line, even if it happens to be whole JSON: it is answered as one that can't be
            // read, and the rest is skipped.
            skip_line(&mut input)?;
            line = b"{".to_vec();
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        each(Bytes::from(line))?;
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        input.consume(used);
        if end.is_some() || used == 0 {
            return Ok(());
        }
    }
}

/// The line that asks what the arguments ask.
fn question(args: &ExplainArgs) -> Result<Bytes, Failure> {
    let mut consents = Vec::new();
    for file in &args.consent {
        let tree = tree(file)?;
        let root = tree.root();
        if root.resource_type() == Some("Bundle") {
            let entries = root.member("entry").into_iter().flat_map(Node::items);
            let resources = entries.filter_map(|entry| entry.member("resource"));
            consents.extend(resources.filter(|it| it.resource_type() == Some("Consent")).map(|it| it.raw().to_vec()));
        } else {
            consents.push(root.raw().to_vec());
        }
    }
    let time = match &args.time {
        Some(time) => time.clone(),
        None => OffsetDateTime::now_utc().format(&Rfc3339).map_err(|error| Failure::could_not_run(&error))?,
    };
    let mut request = json!({ "memberOf": args.member_of, "time": time });
    for (name, value) in
        [("actor", &args.actor), ("role", &args.role), ("purpose", &args.purpose), ("action", &args.action)]
    {
        if let Some(value) = value {
            request[name] = json!(value);
        }
    }
    let resource = tree(&args.resource)?;
    let mut line = b"{\"consents\":[".to_vec();
    line.extend(consents.join(&b','));
    line.extend_from_slice(format!("],\"request\":{request},\"resource\":").as_bytes());
    line.extend_from_slice(resource.root().raw());
    line.push(b'}');
    Ok(line.into())
}

fn tree(file: &Path) -> Result<Tree, Failure> {
    let text = read(file, &mut io::empty())?;
    Tree::parse(text, &Limits::default()).map_err(|_| Failure::file(file, &"expected a FHIR resource in JSON"))
}

fn tell(explanation: &Explanation, format: Format, out: &mut dyn Write) -> io::Result<()> {
    if format == Format::Json {
        return json_line(out, &explanation.to_json());
    }
    writeln!(out, "{}", decided(&explanation.decision))?;
    for record in &explanation.records {
        writeln!(out, "  {} ({}): {}", record.place, record.resource_type, decided(&record.decision))?;
        for Patient { reference, decision, said } in &record.patients {
            writeln!(out, "    {reference}: {}", decided(decision))?;
            for said in said {
                let id = explanation.consents.get(said.consent).and_then(Option::as_deref).unwrap_or("without id");
                let says = match &said.says {
                    Says::Decides(outcome, reason) => format!("says {}, {}", outcome.code(), by(reason)),
                    Says::Nothing => "says nothing: no provision of it matches".to_owned(),
                    Says::NotInForce => "says nothing: it is not active, or not about privacy".to_owned(),
                    Says::AnotherPatient => "says nothing: it is about another patient".to_owned(),
                    Says::Superseded => "says nothing: there is a later version of it".to_owned(),
                };
                writeln!(out, "      Consent {} ({id}) {says}", said.consent)?;
            }
        }
    }
    Ok(())
}

fn decided(decision: &Decision) -> String {
    let Reason { consent, .. } = &decision.reason;
    let of = consent.map_or_else(String::new, |consent| format!(" of Consent {consent}"));
    format!("{}, {}{of}", decision.outcome.code(), by(&decision.reason))
}

/// The provision where there is one, else the rule.
fn by(reason: &Reason) -> String {
    match &reason.provision {
        Some(provision) => format!("by {provision} ({})", reason.rule),
        None => format!("by {}", reason.rule),
    }
}
