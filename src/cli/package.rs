//! `sluice package build`: packs the definitions of a FHIR package into the file that the validator reads.
//!
//! Takes a `.tgz` or a folder of an unpacked one; gives one file, and one line about it. The same package gives the same bytes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sluice_fhir::package::{Limits, Package, PackageError, pack};

use super::{Exit, Failure, Format};

/// What is done with packages.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Packs the definitions of a FHIR package into the file that the validator reads
    #[command(after_help = "JSON: {file, package, bytes}. The same package gives the same bytes.\n\n\
        Example:\n  sluice package build hl7.fhir.us.core.tgz us-core.pack")]
    Build {
        /// The package: a .tgz, or the folder of an unpacked one
        from: PathBuf,
        /// The file to write
        to: PathBuf,
    },
}

/// Runs it.
///
/// # Errors
/// As [`build`].
pub fn run(command: &Command, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Command::Build { from, to } = command;
    match build(from, to, format, out) {
        Ok(()) => Ok(Exit::Fine),
        Err(BuildError::Print(error)) => Err(Failure::Stream(error)),
        Err(error) => Err(Failure::could_not_run(&error)),
    }
}

/// Why a pack was not written.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The package is not one, or not readable as one.
    #[error("{}: {error}", path.display())]
    Package {
        /// Which.
        path: PathBuf,
        /// Why.
        error: PackageError,
    },
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The line could not be printed.
    #[error(transparent)]
    Print(#[from] io::Error),
}

/// Builds the pack of the package at `from` (a `.tgz` or a folder) and writes it to `to`.
///
/// # Errors
/// What could not be read or written; `to` is then as it was, since the pack replaces it whole.
pub fn build(from: &Path, to: &Path, format: Format, out: &mut dyn Write) -> Result<(), BuildError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |error| BuildError::File { path, error }
    };
    let of = |error| BuildError::Package { path: from.to_owned(), error };
    let package = if from.is_dir() {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(from).map_err(file(from))? {
            let path = entry.map_err(file(from))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push((name, std::fs::read(&path).map_err(file(&path))?.into()));
            }
        }
        Package::from_files(files)
    } else {
        Package::from_tgz(&std::fs::read(from).map_err(file(from))?, &Limits::default())
    };
    let package = package.map_err(of)?;
    let bytes = pack(&package).map_err(of)?;
    // A crash before the rename leaves the old file and a temporary one beside it.
    let mut temporary =
        tempfile::NamedTempFile::new_in(to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            .map_err(file(to))?;
    temporary.write_all(&bytes).map_err(file(to))?;
    temporary.persist(to).map_err(|error| BuildError::File { path: to.to_owned(), error: error.error })?;
    match format {
        Format::Human => writeln!(out, "{}: {} in {} bytes", to.display(), package.id(), bytes.len())?,
        Format::Json => {
            let line = serde_json::json!({ "file": to, "package": package.id(), "bytes": bytes.len() });
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_of_r4_becomes_the_pack_that_is_built_in() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("r4.pack");
        let mut out = Vec::new();
        build(Path::new("tests/data/definitions/hl7.fhir.r4.core-4.0.1.tgz"), &to, Format::Json, &mut out).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["package"], "hl7.fhir.r4.core#4.0.1");
        assert!(std::fs::read(&to).unwrap() == std::fs::read("mappings/definitions/r4-core-4.0.1.pack").unwrap());
    }

    #[test]
    fn a_failure_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a.pack");
        let error = build(folder.path(), &to, Format::Human, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, BuildError::Package { error: PackageError::Manifest, .. }));
        assert!(!to.exists());
    }
}
