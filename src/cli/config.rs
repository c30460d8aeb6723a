//! `sluice config`: what is wrong with a settings file, and the schema of settings files.
//!
//! Takes the path of a settings file; gives one line per error, or one that says that it is good. Opens no port and
//! reads nothing of the files which the settings name, but that they are there.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Exit, Failure, Format};
use crate::config::{self, Config};

/// What is asked of settings.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Tells every error of a settings file, with its line, its key and what was expected
    #[command(
        after_help = "JSON, one line an error: {file, line, column, key, expected}; at last {file, ok, errors}. \
        Exit code 64 if there are errors.\n\nExample:\n  sluice config check sluice.toml"
    )]
    Check {
        /// Do not look at the files which the settings name: they are on another machine
        #[arg(long)]
        no_files: bool,
        /// The settings [default: what SLUICE_CONFIG names]
        file: Option<PathBuf>,
    },
    /// Prints the JSON Schema of settings files
    #[command(after_help = "Example:\n  sluice config schema > sluice.schema.json")]
    Schema,
}

/// Runs it.
///
/// # Errors
/// No file to check; output that can't be written.
pub fn run(command: Command, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    match command {
        Command::Check { no_files, file } => {
            let path = config::path(file).ok_or_else(|| {
                Failure::Usage(format!("expected a settings file, or {} in the environment", config::PATH_VARIABLE))
            })?;
            let files = if no_files { Files::Unseen } else { Files::MustExist };
            Ok(if check(&path, files, format, out)? { Exit::Fine } else { Exit::Usage })
        }
        Command::Schema => {
            schema(out)?;
            Ok(Exit::Fine)
        }
    }
}

/// Whether the files which the settings name are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Each must be there: the check on the machine that serves.
    MustExist,
    /// They may be elsewhere: the check of settings for another machine.
    Unseen,
}

/// `sluice config check`: tells every error of the settings at `path`. `true` if there is none; else the exit code is 64.
///
/// Errors are those of `out`.
pub fn check(path: &Path, files: Files, format: Format, out: &mut dyn Write) -> io::Result<bool> {
    let loaded = match files {
        Files::MustExist => Config::load(path),
        Files::Unseen => Config::load_without_files(path),
    };
    let errors = loaded.err().unwrap_or_default();
    for error in &errors {
        match format {
            Format::Human => writeln!(out, "{error}")?,
            Format::Json => writeln!(out, "{}", serde_json::to_string(error)?)?,
        }
    }
    match format {
        Format::Human if errors.is_empty() => writeln!(out, "{}: good", path.display())?,
        Format::Human => writeln!(out, "{}: {} to mend", path.display(), errors.len())?,
        Format::Json => {
            let summary = serde_json::json!({ "file": path, "ok": errors.is_empty(), "errors": errors.len() });
            writeln!(out, "{summary}")?;
        }
    }
    Ok(errors.is_empty())
}

/// `sluice config schema`: the JSON Schema of settings files.
///
/// Errors are those of `out`.
pub fn schema(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:#}", config::schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(path: &str, format: Format) -> (bool, String) {
        let mut out = Vec::new();
        let good = check(Path::new(path), Files::Unseen, format, &mut out).unwrap();
        (good, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_good_file_is_said_to_be_good() {
        let (good, text) = run("config/sluice.toml", Format::Human);
        assert!(good);
        assert_eq!(text, "config/sluice.toml: good\n");
    }

    #[test]
    fn every_error_has_its_line() {
        let (good, text) = run("tests/cases/config/folders.toml", Format::Json);
        assert!(!good);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[0]["line"], &lines[0]["key"]), (&6.into(), &"store.keystore_dir".into()));
        assert_eq!(
            lines[2],
            serde_json::json!({ "file": "tests/cases/config/folders.toml", "ok": false, "errors": 2 })
        );
    }

    #[test]
    fn the_schema_is_one_json_document() {
        let mut out = Vec::new();
        schema(&mut out).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap(), config::schema());
    }
}
