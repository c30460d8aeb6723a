//! What every room asks of its keys: that they are set, within bounds, and that the files they name are there.
//!
//! Gives a value in any case; what is wrong goes to the source's list of errors.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::quantity::{Size, Span};
use super::super::raw::SecretPath;
use super::super::secret::SecretFile;
use super::super::source::Source;
use super::value;

/// Whether the files that the settings name are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Files {
    /// Each must be there and readable.
    MustExist,
    /// They may be on another machine.
    Unseen,
}

/// The settings under examination.
pub(super) struct Resolver<'t> {
    pub(super) source: Source<'t>,
    /// What relative paths start from.
    pub(super) folder: PathBuf,
    pub(super) files: Files,
}

impl Resolver<'_> {
    pub(super) fn fail(&mut self, key: &str, expected: &str) {
        self.source.error(key, expected);
    }

    /// An error at `key` unless `holds`, or unless the value is missing or in error anyway.
    pub(super) fn hold(&mut self, holds: bool, key: &str, expected: &str) {
        if !holds && !self.source.is_told(key) {
            self.fail(key, expected);
        }
    }

    /// The value, or a stand-in for one that is missing and told.
    pub(super) fn required(&mut self, key: &str, value: Option<&String>) -> String {
        if value.is_none() {
            self.hold(false, key, "expected this key to be set");
        }
        value.cloned().unwrap_or_default()
    }

    pub(super) fn required_file(&mut self, key: &str, path: Option<&PathBuf>) -> PathBuf {
        if let Some(path) = path {
            return self.file(key, path);
        }
        self.hold(false, key, "expected this key to be set");
        PathBuf::new()
    }

    pub(super) fn required_secret(&mut self, key: &str, path: Option<&SecretPath>) -> SecretFile {
        SecretFile::new(self.required_file(key, path.map(|path| &path.0)))
    }

    pub(super) fn file(&mut self, key: &str, path: &Path) -> PathBuf {
        let path = self.folder.join(path);
        if self.files == Files::MustExist {
            let readable = std::fs::File::open(&path).and_then(|file| file.metadata()).map(|about| about.is_file());
            match readable {
                Ok(true) => {}
                Ok(false) => self.fail(key, "expected a file, not a folder"),
                // The path is not repeated: in a secret's place it may be the secret.
                Err(error) => self.fail(key, &format!("expected a file that can be read ({})", error.kind())),
            }
        }
        path
    }

    pub(super) fn directory(&mut self, key: &str, path: &Path) -> PathBuf {
        let path = self.folder.join(path);
        self.hold(self.files == Files::Unseen || path.is_dir(), key, "expected a folder that is there");
        path
    }

    pub(super) fn secret(&mut self, key: &str, path: &SecretPath) -> SecretFile {
        SecretFile::new(self.file(key, &path.0))
    }

    /// A client certificate and its key: both or none.
    pub(super) fn client(
        &mut self,
        table: &str,
        cert: Option<&PathBuf>,
        key: Option<&SecretPath>,
    ) -> Option<(PathBuf, SecretFile)> {
        let (cert_key, key_key) = (format!("{table}.client_cert_file"), format!("{table}.client_key_file"));
        self.hold(cert.is_some() || key.is_none(), &cert_key, &format!("expected this key beside {key_key}"));
        self.hold(key.is_some() || cert.is_none(), &key_key, &format!("expected this key beside {cert_key}"));
        Some((self.file(&cert_key, cert?), self.secret(&key_key, key?)))
    }

    /// A log's origin: the name in its checkpoints, which is also the name of its key (C2SP signed-note).
    pub(super) fn origin(&mut self, key: &str, typed: Option<&String>, tenant: &str, name: &str) -> String {
        let origin = typed.cloned().unwrap_or_else(|| format!("{tenant}/{name}"));
        self.hold(typed.is_none() || value::is_origin(&origin), key, value::ORIGIN);
        origin
    }

    pub(super) fn time(&mut self, key: &str, typed: Span, min: Span, max: Span) -> Duration {
        self.bounds(key, &typed, &min, &max);
        typed.0
    }

    pub(super) fn optional_time(
        &mut self,
        key: &str,
        typed: Option<Span>,
        default: Span,
        min: Span,
        max: Span,
    ) -> Duration {
        self.time(key, typed.unwrap_or(default), min, max)
    }

    pub(super) fn size(&mut self, key: &str, typed: Size, min: Size, max: Size) -> u64 {
        self.bounds(key, &typed, &min, &max);
        typed.0
    }

    pub(super) fn memory(&mut self, key: &str, typed: Size, min: Size, max: Size) -> usize {
        usize::try_from(self.size(key, typed, min, max)).unwrap_or(usize::MAX)
    }

    pub(super) fn count<T: TryFrom<u32> + Default>(&mut self, key: &str, typed: u32, min: u32, max: u32) -> T {
        self.bounds(key, &typed, &min, &max);
        T::try_from(typed).unwrap_or_default()
    }

    pub(super) fn bounds<T: PartialOrd + Display>(&mut self, key: &str, typed: &T, min: &T, max: &T) {
        self.hold(min <= typed && typed <= max, key, &format!("expected from {min} to {max}"));
    }
}
