//! `sluice fhirpath`: what a FHIRPath expression gives for a resource.
//!
//! Takes an expression and a file; gives its items, one a line. Never: takes a misspelt element for an absent one.

use std::io::{Read, Write};
use std::path::PathBuf;

use serde_json::json;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::path::{Budget, Document, Environment, Expression, Mode, Offline, PathError, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::document::Form;
use super::{Exit, Failure, Format, aside, read};

/// Applies a FHIRPath expression to a resource
#[derive(Debug, clap::Args)]
#[command(
    after_help = "JSON, one line an item: {type, value}; dates without @, decimals as strings, by their text, computed \
    quantities as {value, code or unit}, elements as they stand in the file, those of XML as JSON. Elements that the definitions of FHIR R4 do \
    not have are errors. Exit code 1 if the expression is in error.\n\nExample:\n  \
    sluice fhirpath \"name.where(use = 'official').given\" patient.json"
)]
pub struct Args {
    /// The format of the file [default: xml if its name ends in .xml, else json]
    #[arg(long, value_name = "FORMAT", value_enum)]
    from: Option<Form>,
    /// The expression
    #[arg(value_name = "EXPR")]
    expression: String,
    /// The resource or Bundle; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs it.
///
/// # Errors
/// A file that can't be read, or that is not FHIR's JSON or XML. An expression that is in error is a finding.
pub fn run(args: &Args, format: Format, mut input: impl Read, out: &mut dyn Write) -> Result<Exit, Failure> {
    let text = read(&args.file, &mut input)?;
    let tree = Form::of(args.from, &args.file).read(text).map_err(|error| Failure::file(&args.file, &error))?;
    let definitions = Definitions::r4();
    let now = OffsetDateTime::now_utc().format(&Rfc3339).ok();
    let host = Offline::new(&definitions);
    // Whoever asks here waits for the answer, and is nobody else's cost.
    let budget = Budget { steps_max: 100 * Budget::default().steps_max, ..Budget::default() };
    let environment = Environment { now: now.as_deref(), budget, ..Environment::new(&host) };
    let document = Document::new(&tree);
    let expression = match Expression::compile(&args.expression, &definitions, tree.resource_type(), Mode::Strict) {
        Ok(expression) => expression,
        Err(error) => return Ok(refused(&error)),
    };
    let answer = match expression.evaluate(&document, tree.root(), &environment) {
        Ok(answer) => answer,
        Err(error) => return Ok(refused(&error)),
    };
    if !answer.is_known {
        aside(&"what lies outside of the file is not known; the answer may lack items");
    }
    for value in &answer.values {
        print(value, format, out)?;
    }
    Ok(Exit::Fine)
}

fn refused(error: &PathError) -> Exit {
    aside(error);
    Exit::Findings
}

fn print(value: &Value<'_>, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    let mut json = Vec::new();
    value.write_json(&mut json);
    match format {
        Format::Json => {
            write!(out, "{{\"type\":{},\"value\":", json!(value.type_name()))?;
            // As it stands in the file, but on one line.
            out.write_all(&one_line(json))?;
            writeln!(out, "}}")
        }
        Format::Human => {
            write!(out, "{}: ", value.type_name())?;
            if let Some(text) = value.text() {
                return writeln!(out, "{text}");
            }
            out.write_all(&one_line(json))?;
            writeln!(out)
        }
    }
}

/// JSON holds line ends only between its tokens, where a space does as well.
fn one_line(mut json: Vec<u8>) -> Vec<u8> {
    for byte in &mut json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    json
}
