//! `sluice canonicalize` and `sluice digest`: the form that is hashed, and its hash.
//!
//! Takes JSON objects, or resources in FHIR's XML; gives the bytes of `sluice-canonical-1`, or their SHA-256. Never: gives a part of a document.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sluice_fhir::canonical;
use sluice_fhir::tree::Tree;

use super::document::Form;
use super::{Exit, Failure, Format, aside, json_line, read};

/// Writes a JSON object in canonical form: the exact bytes that are hashed, without a newline
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A document that has no canonical form (a member twice, half a surrogate pair, not an object) is \
    refused: exit code 1, nothing on stdout. A file whose name ends in .xml is FHIR's XML.\n\nExample:\n  sluice canonicalize patient.json | sha256sum"
)]
pub struct CanonicalizeArgs {
    /// A JSON object; `-` for standard input
    file: PathBuf,
}

/// Tells the SHA-256 of the canonical form of JSON objects
#[derive(Debug, clap::Args)]
#[command(after_help = "JSON, one line a file: {file, sha256}. What is refused has none, and the exit code is 1. \
    A file whose name ends in .xml is FHIR's XML, and has the digest of the same resource in JSON.\n\n\
    Example:\n  sluice digest patient.json bundle.json")]
pub struct DigestArgs {
    /// JSON objects; `-` for standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Runs `canonicalize`.
///
/// # Errors
/// A file that can't be read.
pub fn canonicalize(args: &CanonicalizeArgs, mut input: impl Read, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Some(tree) = object(&args.file, &mut input)? else { return Ok(Exit::Findings) };
    out.write_all(&canonical::to_vec(tree.root()))?;
    Ok(Exit::Fine)
}

/// Runs `digest`.
///
/// # Errors
/// Output that can't be written. A file that can't be read is told, and the others go on.
pub fn digest(args: &DigestArgs, format: Format, mut input: impl Read, out: &mut dyn Write) -> Result<Exit, Failure> {
    let mut exit = Exit::Fine;
    for file in &args.files {
        let tree = match object(file, &mut input) {
            Ok(Some(tree)) => tree,
            Ok(None) => {
                exit = exit.and(Exit::Findings);
                continue;
            }
            Err(failure) => {
                aside(&failure);
                exit = exit.and(failure.exit());
                continue;
            }
        };
        let sha256 = canonical::digest(tree.root()).to_string();
        match format {
            Format::Human => writeln!(out, "{sha256}  {}", file.display())?,
            Format::Json => json_line(out, &serde_json::json!({ "file": file.to_string_lossy(), "sha256": sha256 }))?,
        }
    }
    Ok(exit)
}

/// The object in a file; none, and the reason on stderr, if it holds something else.
fn object(file: &Path, input: &mut impl Read) -> Result<Option<Tree>, Failure> {
    match Form::of(None, file).read(read(file, input)?) {
        Ok(tree) if tree.root().is_object() => return Ok(Some(tree)),
        Ok(_) => aside(&format_args!("{}: expected a JSON object", file.display())),
        Err(error) => aside(&format_args!("{}: {error}", file.display())),
    }
    Ok(None)
}
