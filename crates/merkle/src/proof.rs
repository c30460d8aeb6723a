//! Receipts that are checked offline, c2sp.org/tlog-proof@v1.
//!
//! Takes the text of a proof; gives its index, hashes and checkpoint, and writes the same text
//! again. Never judges them: [`crate::receipt`] does.

use std::fmt;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::text::{base64, base64_hash, decimal, to_base64};
use crate::tree::{PROOF_HASHES_MAX, SIZE_MAX};
use crate::{Hash, note};

/// The largest proof accepted, in bytes.
pub const BYTES_MAX: usize = note::BYTES_MAX + 2 * EXTRA_BYTES_MAX;

/// The most extra data accepted, in bytes.
pub const EXTRA_BYTES_MAX: usize = 64 * 1024;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Why a text is not a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// More than [`BYTES_MAX`].
    #[error("a proof has at most {BYTES_MAX} bytes")]
    TooLarge,
    /// Not UTF-8.
    #[error("a proof is UTF-8")]
    NotUtf8,
    /// The first line is another.
    #[error("a proof's first line is {HEADER}")]
    Header,
    /// Extra data that is empty, too long, or not strict base64.
    #[error("extra data is strict base64 of 1 to {EXTRA_BYTES_MAX} bytes")]
    Extra,
    /// No index, or not a decimal without leading zeros below 2^63.
    #[error("a proof's index line is \"index\", a space and a decimal without leading zeros below 2^63")]
    Index,
    /// A hash that is not 32 bytes in strict base64.
    #[error("hash {line} of the proof is not the base64 of 32 bytes")]
    HashLine {
        /// Which hash, from 1.
        line: usize,
    },
    /// More than [`PROOF_HASHES_MAX`].
    #[error("an inclusion proof has at most {PROOF_HASHES_MAX} hashes")]
    TooManyHashes,
    /// No blank line before the checkpoint.
    #[error("a blank line separates the proof from its checkpoint")]
    NoBlankLine,
    /// The checkpoint is not one.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A leaf's place in a log, and the log's signed head. Nothing in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    extra: Option<Vec<u8>>,
    index: u64,
    hashes: Vec<Hash>,
    checkpoint: SignedCheckpoint,
}

impl TlogProof {
    /// The proof that a leaf stands at `index` in the tree of this checkpoint.
    pub fn new(index: u64, hashes: Vec<Hash>, checkpoint: SignedCheckpoint) -> Result<Self, TlogProofError> {
        if index >= SIZE_MAX {
            return Err(TlogProofError::Index);
        }
        if hashes.len() > PROOF_HASHES_MAX {
            return Err(TlogProofError::TooManyHashes);
        }
        Ok(Self { extra: None, index, hashes, checkpoint })
    }

    /// The same proof with extra data of the application's. No signature covers it.
    pub fn with_extra(self, extra: Vec<u8>) -> Result<Self, TlogProofError> {
        if extra.is_empty() || extra.len() > EXTRA_BYTES_MAX {
            return Err(TlogProofError::Extra);
        }
        Ok(Self { extra: Some(extra), ..self })
    }

    /// Reads a proof. Whatever is accepted is given back byte for byte by `Display`.
    pub fn parse(bytes: &[u8]) -> Result<Self, TlogProofError> {
        if bytes.len() > BYTES_MAX {
            return Err(TlogProofError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| TlogProofError::NotUtf8)?;
        let rest = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n')).ok_or(TlogProofError::Header)?;
        let (head, checkpoint) = rest.split_once("\n\n").ok_or(TlogProofError::NoBlankLine)?;
        let mut lines = head.split('\n').peekable();
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(extra) => {
                lines.next();
                Some(base64(extra).ok_or(TlogProofError::Extra)?)
            }
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or(TlogProofError::Index)?;
        let mut hashes = Vec::new();
        for (line, hash) in (1..).zip(lines) {
            if line > PROOF_HASHES_MAX {
                return Err(TlogProofError::TooManyHashes);
            }
            hashes.push(base64_hash(hash).ok_or(TlogProofError::HashLine { line })?);
        }
        let proof = Self::new(index, hashes, SignedCheckpoint::parse(checkpoint.as_bytes())?)?;
        match extra {
            Some(extra) => proof.with_extra(extra),
            None => Ok(proof),
        }
    }

    /// Extra data of the application's, not authenticated.
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// The leaf's index, from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The audit path, the leaf's sibling first (RFC 6962 §2.1.1).
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The log's head.
    pub fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", to_base64(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", to_base64(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=";
    const CHECKPOINT: &str = "example.com/fancylog\n109482\nsFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=\n\n\u{2014} example.com/fancylog AAAAAAE=\n";

    #[test]
    fn the_example_of_the_specification_reads() {
        // Its signatures are abridged there, and stand as short ones here. Its extra line, too, is no strict base64.
        let text = format!(
            "c2sp.org/tlog-proof@v1\nextra YWdlLXYxLjIuMQ==\nindex 73894\n{HASH}\nB95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\nEKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=\nRoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=\nAHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=\n\n{CHECKPOINT}"
        );
        let proof = TlogProof::parse(text.as_bytes()).unwrap();
        assert_eq!((proof.index(), proof.hashes().len()), (73_894, 5));
        assert_eq!(proof.extra(), Some(&b"age-v1.2.1"[..]));
        assert_eq!(proof.checkpoint().checkpoint().size(), 109_482);
        assert_eq!(proof.to_string(), text);
    }

    #[test]
    fn a_proof_is_refused_for_its_exact_cause() {
        use TlogProofError as E;
        let head = "c2sp.org/tlog-proof@v1\n";
        let many = format!("{HASH}\n").repeat(PROOF_HASHES_MAX + 1);
        for (text, cause) in [
            (String::new(), E::Header),
            (format!("c2sp.org/tlog-proof@v2\nindex 0\n\n{CHECKPOINT}"), E::Header),
            (format!("{head}index 0\n"), E::NoBlankLine),
            (format!("{head}extra \nindex 0\n\n{CHECKPOINT}"), E::Extra),
            (format!("{head}extra AR==\nindex 0\n\n{CHECKPOINT}"), E::Extra),
            (format!("{head}extra AQ==\nextra AQ==\nindex 0\n\n{CHECKPOINT}"), E::Index),
            (format!("{head}{HASH}\n\n{CHECKPOINT}"), E::Index),
            (format!("{head}index 00\n\n{CHECKPOINT}"), E::Index),
            (format!("{head}index 9223372036854775807\n\n{CHECKPOINT}"), E::Index),
            (format!("{head}index 0\n{HASH}\n{HASH} \n\n{CHECKPOINT}"), E::HashLine { line: 2 }),
            (format!("{head}index 0\n{many}\n{CHECKPOINT}"), E::TooManyHashes),
            (format!("{head}index 0\n\n"), E::Checkpoint(CheckpointError::Note(note::NoteError::NoBlankLine))),
            (format!("{head}index 0\n\n\n{CHECKPOINT}"), E::Checkpoint(CheckpointError::Origin)),
        ] {
            assert_eq!(TlogProof::parse(text.as_bytes()), Err(cause), "{text:?}");
        }
        assert_eq!(TlogProof::parse(&vec![b'a'; BYTES_MAX + 1]), Err(E::TooLarge));
        assert_eq!(TlogProof::parse(b"\xff"), Err(E::NotUtf8));
    }

    proptest! {
        #[test]
        fn what_parses_is_given_back_byte_for_byte(head in "(extra [A-D]{4}\n)?index [0-9]{1,3}\n(\n|CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n){0,3}") {
            let text = format!("{HEADER}\n{head}\n{CHECKPOINT}");
            if let Ok(proof) = TlogProof::parse(text.as_bytes()) {
                prop_assert_eq!(proof.to_string(), text);
            }
        }
    }
}
