//! Checkpoints: what a log signs, c2sp.org/tlog-checkpoint@v1.0.0.
//!
//! Takes a note's text; gives origin, size and root, and writes the same text again. Never
//! decides who is believed: [`crate::policy`] does.

use std::fmt;

use crate::Hash;
use crate::note::{Note, NoteError, Signature};
use crate::text::{base64_hash, decimal, to_base64};
use crate::tree::{EMPTY_ROOT, SIZE_MAX};

/// The largest text accepted, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Why a text is not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it is not one.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("a checkpoint's text has at most {TEXT_BYTES_MAX} bytes")]
    TooLarge,
    /// Not lines that each end in a newline.
    #[error("every line of a checkpoint ends in a newline")]
    LineEnd,
    /// Fewer than three lines.
    #[error("a checkpoint has an origin, a size and a root hash")]
    TooFewLines,
    /// The origin is empty, or has a control character.
    #[error("a checkpoint's first line is its origin, not empty and without control characters")]
    Origin,
    /// The size is not a decimal without leading zeros up to 2^63 - 1.
    #[error("a checkpoint's second line is its size in decimal, without leading zeros, at most 2^63-1")]
    Size,
    /// The root hash is not 32 bytes in strict base64.
    #[error("a checkpoint's third line is the base64 of its 32-byte root hash")]
    Root,
    /// Size 0 with another root than that of the empty tree (c2sp.org/tlog-witness answers 422).
    #[error("the root hash at size 0 is that of the empty tree")]
    EmptyTreeRoot,
    /// An extension line is empty or has a control character.
    #[error("extension lines are not empty and have no control characters")]
    Extension,
}

/// A log's head: its name, how many leaves it has, and the root over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// A checkpoint without extension lines, which the specification recommends against.
    pub fn new(origin: impl Into<String>, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        Self::with_extensions(origin, size, root, Vec::new())
    }

    /// A checkpoint with extension lines. No witness vouches for them.
    pub fn with_extensions(
        origin: impl Into<String>,
        size: u64,
        root: Hash,
        extensions: Vec<String>,
    ) -> Result<Self, CheckpointError> {
        let origin = origin.into();
        if !is_line(&origin) {
            return Err(CheckpointError::Origin);
        }
        if size > SIZE_MAX {
            return Err(CheckpointError::Size);
        }
        if size == 0 && root != EMPTY_ROOT {
            return Err(CheckpointError::EmptyTreeRoot);
        }
        if !extensions.iter().all(|line| is_line(line)) {
            return Err(CheckpointError::Extension);
        }
        let checkpoint = Self { origin, size, root, extensions };
        if checkpoint.to_string().len() > TEXT_BYTES_MAX {
            return Err(CheckpointError::TooLarge);
        }
        Ok(checkpoint)
    }

    /// Reads a note's text. Whatever is accepted is given back byte for byte by `Display`.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(CheckpointError::TooLarge);
        }
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::LineEnd)?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::TooFewLines);
        };
        if !is_line(origin) {
            return Err(CheckpointError::Origin);
        }
        let size = decimal(size).ok_or(CheckpointError::Size)?;
        let root = base64_hash(root).ok_or(CheckpointError::Root)?;
        Self::with_extensions(origin, size, root, lines.map(str::to_owned).collect())
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over these leaves (RFC 6962 §2.1).
    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// Lines after the third.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, to_base64(&self.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A checkpoint as it is published: its text within a note. No signature has been checked: see
/// [`crate::policy::Policy::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Reads a note whose text is a checkpoint.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        Self::from_note(Note::parse(bytes)?)
    }

    /// Takes a note whose text is a checkpoint.
    pub fn from_note(note: Note) -> Result<Self, CheckpointError> {
        Ok(Self { checkpoint: Checkpoint::parse(note.text())?, note })
    }

    /// A checkpoint and the signatures under it, the log's own first.
    pub fn new(checkpoint: Checkpoint, signatures: Vec<Signature>) -> Result<Self, CheckpointError> {
        let note = Note::new(checkpoint.to_string(), signatures)?;
        Ok(Self { checkpoint, note })
    }

    /// The same checkpoint with more signatures, such as those that witnesses answered.
    pub fn with_signatures(self, more: impl IntoIterator<Item = Signature>) -> Result<Self, CheckpointError> {
        Ok(Self { checkpoint: self.checkpoint, note: self.note.with_signatures(more)? })
    }

    /// What is signed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note around it.
    pub fn note(&self) -> &Note {
        &self.note
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// A line that a note's text can hold: not empty, no newline, no other control character.
fn is_line(line: &str) -> bool {
    !line.is_empty() && line.bytes().all(|byte| byte >= 0x20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";

    #[test]
    fn the_example_of_the_specification_reads() {
        let text = format!("example.com/behind-the-sofa\n20852163\n{ROOT}\n");
        let checkpoint = Checkpoint::parse(&text).unwrap();
        assert_eq!(checkpoint.origin(), "example.com/behind-the-sofa");
        assert_eq!(checkpoint.size(), 20_852_163);
        assert_eq!(checkpoint.extensions(), [""; 0]);
        assert_eq!(checkpoint.to_string(), text);
    }

    #[test]
    fn a_text_is_refused_for_its_exact_cause() {
        use CheckpointError as E;
        let empty = to_base64(&EMPTY_ROOT);
        for (text, cause) in [
            (String::new(), E::LineEnd),
            (format!("o\n1\n{ROOT}"), E::LineEnd),
            ("o\n1\n".to_owned(), E::TooFewLines),
            (format!("\n1\n{ROOT}\n"), E::Origin),
            (format!("o\r\n1\n{ROOT}\n"), E::Origin),
            (format!("o\n01\n{ROOT}\n"), E::Size),
            (format!("o\n-1\n{ROOT}\n"), E::Size),
            (format!("o\n9223372036854775808\n{ROOT}\n"), E::Size),
            (format!("o\n1\n{}\n", &ROOT[..40]), E::Root),
            (format!("o\n1\n{ROOT} \n"), E::Root),
            (format!("o\n1\n{}3=\n", &ROOT[..42]), E::Root),
            (format!("o\n0\n{ROOT}\n"), E::EmptyTreeRoot),
            (format!("o\n1\n{ROOT}\n\n"), E::Extension),
            (format!("o\n1\n{ROOT}\nx\n\n"), E::Extension),
            (format!("o\n1\n{ROOT}\n{}\n", "x".repeat(TEXT_BYTES_MAX)), E::TooLarge),
        ] {
            assert_eq!(Checkpoint::parse(&text), Err(cause), "{text:?}");
        }
        assert!(Checkpoint::parse(&format!("o\n0\n{empty}\n")).is_ok());
        assert!(Checkpoint::parse(&format!("o\n9223372036854775807\n{ROOT}\nx\n")).is_ok());
    }
}
