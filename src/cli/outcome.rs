//! What a command ends with: an exit code, or why it could not run; and the form of what it prints.
//!
//! Never: prints anything itself, or ends the process; that is `main`'s.

use std::fmt;
use std::io::{self, IsTerminal as _};

use crate::config::ConfigError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Fine,
    /// It ran, and found something: an invalid resource, a broken proof, a refused bundle.
    Findings,
    /// It could not run: a file that is not there, a peer that does not answer.
    CouldNotRun,
    /// Bad usage or bad settings (`EX_USAGE` of sysexits.h).
    Usage,
}

impl Exit {
    /// The exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Findings => 1,
            Self::CouldNotRun => 2,
            Self::Usage => 64,
        }
    }

    /// `Findings` if there are any.
    pub fn of_findings(any: bool) -> Self {
        if any { Self::Findings } else { Self::Fine }
    }

    /// The graver of two, for a command that does many things.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if other.code() > self.code() { other } else { self }
    }
}

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Bad usage, beyond what the parser of arguments sees.
    #[error("{0}")]
    Usage(String),
    /// The settings are not good; every error, a line each.
    #[error("{}", lines(.0))]
    Settings(Vec<ConfigError>),
    /// Something that it needs is not there or does not work.
    #[error("{0}")]
    CouldNotRun(String),
    /// Its answers could not be written, or its input not be read.
    #[error("{0}")]
    Stream(#[from] io::Error),
}

impl Failure {
    /// The exit code that tells of it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Settings(_) => Exit::Usage,
            Self::CouldNotRun(_) | Self::Stream(_) => Exit::CouldNotRun,
        }
    }

    /// Whether nobody reads the answers any more.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Stream(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// One of [`Failure::CouldNotRun`].
    pub fn could_not_run(error: &dyn fmt::Display) -> Self {
        Self::CouldNotRun(error.to_string())
    }

    /// What happened to a file.
    pub fn file(path: &std::path::Path, error: &dyn fmt::Display) -> Self {
        Self::CouldNotRun(format!("{}: {error}", path.display()))
    }
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// What was asked for; else people read a terminal, and programs read everything else.
    pub fn of(asked: Option<Self>) -> Self {
        asked.unwrap_or_else(|| if io::stdout().is_terminal() { Self::Human } else { Self::Json })
    }
}
