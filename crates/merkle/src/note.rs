//! Signed notes, c2sp.org/signed-note@v1.0.0, and the cosignatures of c2sp.org/tlog-cosignature.
//!
//! Takes a note's bytes and the keys that the caller trusts; gives its text and who signed it.
//! Never holds a private key and never computes a signature: the caller hands in how.
//!
//! Two signature types are spoken, since the specification asks to keep to those needed: 0x01
//! (Ed25519 over the text) and 0x04 (Ed25519 over a time and the text of a checkpoint). Lines of
//! other types and of unknown keys are kept as they are and count for nothing.

mod cosignature;
mod key;
mod sign;

pub use cosignature::{cosign, cosignature_message};
pub use key::{KeyError, KeyId, KeyKind, KeyName, NAME_BYTES_MAX, VerifierKey};
pub use sign::{Signed, Verifier, VerifyError, sign};

use crate::text::{base64, to_base64};

/// The largest note accepted, in bytes. Leaves room for 64 signatures of post-quantum size.
pub const BYTES_MAX: usize = 512 * 1024;

/// The most signature lines accepted. The specification asks for at least 16.
pub const SIGNATURES_MAX: usize = 64;

/// Why bytes are not a signed note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// More than [`BYTES_MAX`].
    #[error("a note has at most {BYTES_MAX} bytes")]
    TooLarge,
    /// Not UTF-8.
    #[error("a note is UTF-8")]
    NotUtf8,
    /// A character below U+0020 other than newline.
    #[error("a note has no control character but newline")]
    ControlCharacter,
    /// The text does not end in a newline.
    #[error("a note's text ends in a newline")]
    TextEnd,
    /// No blank line between text and signatures.
    #[error("a blank line separates a note's text from its signatures")]
    NoBlankLine,
    /// No signature line.
    #[error("a note has at least one signature line")]
    NoSignature,
    /// More than [`SIGNATURES_MAX`].
    #[error("a note has at most {SIGNATURES_MAX} signature lines")]
    TooManySignatures,
    /// The last line does not end in a newline.
    #[error("every signature line ends in a newline")]
    SignatureEnd,
    /// A line that is not em dash, space, name, space, base64.
    #[error("signature line {line} is not: em dash, space, key name, space, base64")]
    SignatureLine {
        /// Which signature line, from 1.
        line: usize,
    },
    /// A key name that is empty or holds a space or a plus.
    #[error("the key name of signature line {line} is empty or holds a space or a plus")]
    SignatureName {
        /// Which signature line, from 1.
        line: usize,
    },
    /// Not strict base64, or not longer than the key id.
    #[error("signature line {line} does not carry the base64 of a key id and a signature")]
    SignatureBase64 {
        /// Which signature line, from 1.
        line: usize,
    },
}

/// Why a text could not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is for the other kind of signature.
    #[error("the key is for another kind of signature")]
    WrongKind,
    /// The time is zero or beyond 2^63 - 1.
    #[error("the time of a cosignature lies between 1 and 2^63-1 seconds")]
    Time,
    /// The text cannot stand in a note.
    #[error(transparent)]
    Text(NoteError),
}

impl From<NoteError> for SignError {
    fn from(error: NoteError) -> Self {
        Self::Text(error)
    }
}

/// A text and the signatures under it. No signature has been checked: see [`Note::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// One signature line: who claims to have signed, and what they made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    name: KeyName,
    id: KeyId,
    bytes: Vec<u8>,
}

impl Note {
    /// Reads a note. Whatever is accepted is given back byte for byte by [`Note`]'s `Display`.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > BYTES_MAX {
            return Err(NoteError::TooLarge);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::NotUtf8)?;
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::ControlCharacter);
        }
        // "the text is separated from the signatures by the last empty line in the note"
        let blank = note.rfind("\n\n").ok_or(NoteError::NoBlankLine)?;
        let (text, signatures) = (&note[..=blank], &note[blank + 2..]);
        Ok(Self { text: text.to_owned(), signatures: Signature::parse_lines(signatures)? })
    }

    /// A note of this text and these signatures.
    pub fn new(text: impl Into<String>, signatures: Vec<Signature>) -> Result<Self, NoteError> {
        let text = text.into();
        check_text(&text)?;
        if signatures.is_empty() {
            return Err(NoteError::NoSignature);
        }
        if signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        let note = Self { text, signatures };
        if note.to_string().len() > BYTES_MAX {
            return Err(NoteError::TooLarge);
        }
        Ok(note)
    }

    /// The text that is signed, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, in order.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The same note with more signatures, such as those that witnesses answered. A line that it
    /// carries already is not repeated.
    pub fn with_signatures(mut self, more: impl IntoIterator<Item = Signature>) -> Result<Self, NoteError> {
        for signature in more {
            if !self.signatures.contains(&signature) {
                self.signatures.push(signature);
            }
        }
        Self::new(self.text, self.signatures)
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| write!(f, "{signature}"))
    }
}

impl Signature {
    /// A signature line of this key name and id. `bytes` is what follows the id: for type 0x01
    /// the signature, for 0x04 time and signature.
    pub fn new(name: KeyName, id: KeyId, bytes: Vec<u8>) -> Result<Self, NoteError> {
        if bytes.is_empty() {
            return Err(NoteError::SignatureBase64 { line: 1 });
        }
        Ok(Self { name, id, bytes })
    }

    /// Reads one or more signature lines, each ending in a newline: the end of a note, or what a
    /// witness answers (c2sp.org/tlog-witness, add-checkpoint).
    pub fn parse_lines(lines: &str) -> Result<Vec<Self>, NoteError> {
        if lines.len() > BYTES_MAX {
            return Err(NoteError::TooLarge);
        }
        if lines.is_empty() {
            return Err(NoteError::NoSignature);
        }
        let lines = lines.strip_suffix('\n').ok_or(NoteError::SignatureEnd)?;
        let mut signatures = Vec::new();
        for (line, content) in (1..).zip(lines.split('\n')) {
            if line > SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            let (name, signature) = content
                .strip_prefix("\u{2014} ")
                .and_then(|rest| rest.split_once(' '))
                .ok_or(NoteError::SignatureLine { line })?;
            let name = KeyName::new(name).map_err(|_| NoteError::SignatureName { line })?;
            let bytes = base64(signature).ok_or(NoteError::SignatureBase64 { line })?;
            match bytes.split_first_chunk::<4>() {
                Some((id, bytes)) if !bytes.is_empty() => {
                    signatures.push(Self { name, id: KeyId(*id), bytes: bytes.to_vec() });
                }
                _ => return Err(NoteError::SignatureBase64 { line }),
            }
        }
        Ok(signatures)
    }

    /// The name of the key that is said to have signed.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The id of the key that is said to have signed.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What follows the key id.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let signature = to_base64(&[&self.id.0, self.bytes.as_slice()].concat());
        writeln!(f, "\u{2014} {} {signature}", self.name)
    }
}

/// A text that can be signed: UTF-8 without control characters, ending in a newline.
fn check_text(text: &str) -> Result<(), NoteError> {
    if text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
        return Err(NoteError::ControlCharacter);
    }
    if !text.ends_with('\n') {
        return Err(NoteError::TextEnd);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
