//! FHIR packages from disk: `.tgz` files, unpacked folders, and single definitions in JSON.
//!
//! Takes paths, gives a library of what they define. Never: follows what a package names to anywhere else; what is not there is
//! said by [`Library::missing`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use sluice_fhir::definitions::Definitions;
use sluice_fhir::package::{Limits, Package};
use sluice_fhir::profile::Library;

use super::error::RulesError;

/// The packages of a folder of the settings, by name: archives, unpacked folders, definitions.
pub(super) fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, RulesError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| at(folder, error))? {
        let entry = entry.map_err(|error| at(folder, error))?;
        let path = entry.path();
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        // What can't be looked at is not passed over: it may be what holds the rules.
        if !is_hidden
            && (is_archive(&path) || has_extension(&path, "json") || about(&path)?.is_some_and(|it| it.is_dir()))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Adds up what was read: whoever knows the sum knows which rules were held.
#[derive(Default)]
pub(super) struct Digester(Sha256);

impl Digester {
    /// A file that was read, or a setting.
    pub(super) fn add(&mut self, name: &Path, content: &[u8]) {
        // By its name alone: where the folder stands changes no rule.
        for part in [name.file_name().unwrap_or_default().as_encoded_bytes(), content] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    /// The first half of the sum, in hexadecimal.
    pub(super) fn id(self) -> Arc<str> {
        let sum = self.0.finalize();
        HEXLOWER.encode(&sum[..16]).into()
    }
}

/// The definitions of packages.
pub(super) fn library(paths: &[PathBuf], digester: &mut Digester) -> Result<Library, RulesError> {
    let packages: Result<Vec<_>, _> = paths.iter().map(|path| read(path, digester)).collect();
    Library::new(Definitions::r4(), &packages?).map_err(|error| RulesError::Package(error.to_string()))
}

fn read(path: &Path, digester: &mut Digester) -> Result<Package, RulesError> {
    let not_a_package = |error: &dyn std::fmt::Display| RulesError::Package(format!("{}: {error}", path.display()));
    if about(path)?.is_some_and(|it| it.is_dir()) {
        // As it is unpacked, with `package/` or without.
        let inner = path.join("package");
        let folder = if about(&inner)?.is_some_and(|it| it.is_dir()) { &*inner } else { path };
        digester.add(path, b"");
        let mut files = files_of(folder)?;
        files.sort();
        for (name, content) in &files {
            digester.add(Path::new(name), content);
        }
        return if files.iter().any(|(name, _)| name == "package.json") {
            Package::from_files(files).map_err(|error| not_a_package(&error))
        } else {
            Ok(Package::of_definitions(&name_of(path), files))
        };
    }
    let content = std::fs::read(path).map_err(|error| at(path, error))?;
    digester.add(path, &content);
    if is_archive(path) {
        return Package::from_tgz(&content, &Limits::default()).map_err(|error| not_a_package(&error));
    }
    let name = name_of(path);
    let file = if has_extension(path, "json") { name.clone() } else { format!("{name}.json") };
    Ok(Package::of_definitions(&name, [(file, Bytes::from(content))]))
}

fn files_of(folder: &Path) -> Result<Vec<(String, Bytes)>, RulesError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| at(folder, error))? {
        let path = entry.map_err(|error| at(folder, error))?.path();
        if has_extension(&path, "json") && about(&path)?.is_none_or(|it| it.is_file()) {
            let content = std::fs::read(&path).map_err(|error| at(&path, error))?;
            files.push((name_of(&path), content.into()));
        }
    }
    Ok(files)
}

/// What the system says of a path, links followed; none if there is nothing.
fn about(path: &Path) -> Result<Option<std::fs::Metadata>, RulesError> {
    match std::fs::metadata(path) {
        Ok(about) => Ok(Some(about)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path, error)),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn is_archive(path: &Path) -> bool {
    has_extension(path, "tgz") || has_extension(path, "gz")
}

fn at(file: &Path, error: std::io::Error) -> RulesError {
    RulesError::File { file: file.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_folders_and_single_definitions() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let definition = |name: &str| {
            format!(
                r#"{{"resourceType":"StructureDefinition","url":"http://x.example/{name}","type":"Patient","derivation":"constraint",
                "baseDefinition":"http://hl7.org/fhir/StructureDefinition/Patient","differential":{{"element":[{{"path":"Patient"}}]}}}}"#
            )
        };
        std::fs::create_dir_all(at("unpacked/package")).unwrap();
        std::fs::write(at("unpacked/package/package.json"), r#"{"name":"a","version":"1"}"#).unwrap();
        std::fs::write(at("unpacked/package/one.json"), definition("one")).unwrap();
        std::fs::create_dir(at("loose")).unwrap();
        std::fs::write(at("loose/two.json"), definition("two")).unwrap();
        std::fs::write(at("three.json"), definition("three")).unwrap();
        std::fs::copy("tests/data/packages/hl7.fhir.us.core-3.1.1.tgz", at("core.tgz")).unwrap();
        std::fs::write(at(".hidden.json"), "no").unwrap();
        let paths = in_folder(folder.path()).unwrap();
        assert_eq!(paths.len(), 4);
        let library = library(&paths, &mut Digester::default()).unwrap();
        let packages: Vec<_> = library.packages().skip(1).collect();
        assert_eq!(packages, ["hl7.fhir.us.core#3.1.1", "loose", "three.json", "a#1"]);
        for name in ["http://x.example/one", "http://x.example/two", "http://x.example/three"] {
            assert!(library.has(name), "{name}");
        }
        assert!(!library.has("http://x.example/four"));

        for (name, content) in [("broken.tgz", "nothing"), ("broken.json", "{")] {
            std::fs::write(at(name), content).unwrap();
            let error = super::library(&[at(name)], &mut Digester::default()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            std::fs::remove_file(at(name)).unwrap();
        }
    }
}
