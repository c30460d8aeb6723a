//! `sluice config`: what is wrong with a settings file, and the schema of settings files.
//!
//! Takes the path of a settings file; gives one line per error, or one that says that it is good. Opens no port and
//! reads nothing of the files which the settings name, but that they are there.

use std::io::{self, Write};
use std::path::Path;

use crate::config::{self, Config};

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people: `file:line:column: key: what was expected`.
    Text,
    /// One JSON object a line: {file, line, column, key, expected} per error, at last {file, ok, errors}.
    Json,
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
            Format::Text => writeln!(out, "{error}")?,
            Format::Json => writeln!(out, "{}", serde_json::to_string(error)?)?,
        }
    }
    match format {
        Format::Text if errors.is_empty() => writeln!(out, "{}: good", path.display())?,
        Format::Text => writeln!(out, "{}: {} to mend", path.display(), errors.len())?,
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
        let (good, text) = run("config/sluice.toml", Format::Text);
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
