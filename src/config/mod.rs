//! Settings: what was typed (`Raw`) becomes what is meant ([`Config`]), or a list of everything that is wrong with it.
//!
//! Takes: one TOML file, the files that it names, and from the environment [`PATH_VARIABLE`] alone. Gives: one plain
//! struct per room, paths resolved against the file's own folder, quantities as numbers with their unit in the type or
//! the name.
//! Never: reads a secret that stands in the settings themselves (secrets are `*_file` keys, see [`SecretFile`]), prints a
//! value in an error, stops at the first error, or takes a key that it does not know.

mod quantity;
mod raw;
mod resolve;
mod rooms;
mod schema;
mod secret;
mod source;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use rooms::{
    Broker, BrokerAddress, BrokerKind, BrokerTls, Budget, Caller, Check, Client, Combine, Config, Consent, ConsentMode,
    Credential, Feed, Granularity, Implicit, ImplicitPolicy, IntakeDeny, Keys, Ledger, LedgerRole, Limits, Listen, Log,
    LogFormat, LogLevel, Normalize, Observe, Payload, Resolve, Right, Severity, Store, Subscriber, Tenant, Terminology,
    Tls, Topology, Unknown, UnknownSubject, UnknownTerminology, Upstream, Wait,
};
pub use schema::schema;
pub use secret::{Secret, SecretFile};

/// The one environment variable that Sluice reads: the path of the settings file, where no argument gives it.
pub const PATH_VARIABLE: &str = "SLUICE_CONFIG";

/// The longest settings file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One thing wrong with the settings: where it stands and what was expected there. Never holds the value itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("{}:{line}:{column}: {key}: {expected}", file.display())]
pub struct ConfigError {
    /// The settings file, as named by whoever started Sluice.
    pub file: PathBuf,
    /// Line of the key or value, from 1. A missing key has the line of the table that should hold it.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Dotted key with indexes from 0, as in `caller[2].cert_sha256`; `-` for the file itself.
    pub key: String,
    /// What was expected there.
    pub expected: String,
}

impl Config {
    /// Reads the settings at `path` and checks that every file which they name is there and can be read.
    ///
    /// All errors are returned, in the order of their lines.
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        Self::build(&read(path)?, path, resolve::Files::MustExist)
    }

    /// Reads the settings at `path` without looking at the files which they name: for settings that are checked on
    /// another machine than the one that they are meant for.
    pub fn load_without_files(path: &Path) -> Result<Self, Vec<ConfigError>> {
        Self::build(&read(path)?, path, resolve::Files::Unseen)
    }

    /// Reads settings from `text`, as if it stood at `path`; the files which they name are not looked at.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Vec<ConfigError>> {
        Self::build(text, path, resolve::Files::Unseen)
    }

    fn build(text: &str, path: &Path, files: resolve::Files) -> Result<Self, Vec<ConfigError>> {
        let (source, raw) = source::Source::read::<raw::Raw>(text, path)?;
        resolve::resolve(&raw, source, files)
    }
}

/// The settings file to use: the argument if there is one, else what [`PATH_VARIABLE`] names.
#[expect(clippy::disallowed_methods, reason = "this room is the one reader of the environment")]
pub fn path(argument: Option<PathBuf>) -> Option<PathBuf> {
    // An empty variable is how shells and charts unset one.
    argument.or_else(|| std::env::var_os(PATH_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from))
}

/// The text of the settings file, bounded in size.
fn read(path: &Path) -> Result<String, Vec<ConfigError>> {
    use std::io::Read as _;
    let fail = |expected: String| {
        vec![ConfigError { file: path.to_owned(), line: 1, column: 1, key: "-".to_owned(), expected }]
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(format!("expected a settings file that can be read ({})", error.kind())))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fail("expected at most 1 MiB of settings".to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| fail("expected UTF-8 text".to_owned()))
}
