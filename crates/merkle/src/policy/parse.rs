//! The text of a policy (c2sp.org/tlog-policy, policy file syntax and structure).
//!
//! Takes the bytes of a policy file; gives the policy, or the line that is wrong and why. URLs may
//! stand in it and are not kept: offline verification needs none.

use std::collections::HashMap;

use super::{KeysError, Policy, Quorum};
use crate::note::{KeyError, KeyKind, VerifierKey};
use crate::text::decimal;

/// The largest policy accepted, in bytes.
const BYTES_MAX: usize = 256 * 1024;

/// The most logs, witnesses and groups accepted, each. The specification asks for 32.
const ITEMS_MAX: usize = 256;

/// Where and why a text is no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct PolicyError {
    /// The line, from 1; the last one if something is missing.
    pub line: usize,
    /// Why.
    pub kind: PolicyErrorKind,
}

/// Why a line is no line of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyErrorKind {
    /// More bytes, logs, witnesses or groups than are accepted.
    #[error("a policy has at most {BYTES_MAX} bytes and {ITEMS_MAX} logs, witnesses and groups each")]
    TooLarge,
    /// A control character other than tab and newline, or DEL.
    #[error("the only control characters of a policy are tab and newline")]
    ControlCharacter,
    /// The last line does not end.
    #[error("every line of a policy ends in a newline")]
    LineEnd,
    /// The first word is none of log, witness, group, quorum.
    #[error("a line of a policy starts with log, witness, group or quorum")]
    Keyword,
    /// Too few or too many words.
    #[error("the line has too few or too many words")]
    Words,
    /// Not a key.
    #[error(transparent)]
    Key(KeyError),
    /// Keys that do not go together.
    #[error(transparent)]
    Keys(KeysError),
    /// The name is taken, or is `none`.
    #[error("a name is defined once, and none is predefined")]
    NameTaken,
    /// The name is not defined on a line before.
    #[error("a name is defined before it is used")]
    NameUnknown,
    /// The name is a member of a group already.
    #[error("a name is a member of at most one group")]
    MemberTwice,
    /// A threshold that is no number from 1 to the number of members.
    #[error("a group's threshold is all, any, or a number from 1 to that of its members")]
    Threshold,
    /// Two quorum lines, or none.
    #[error("a policy has exactly one quorum line")]
    QuorumCount,
}

#[derive(Default)]
struct Parser<'t> {
    logs: Vec<VerifierKey>,
    witnesses: Vec<VerifierKey>,
    groups: usize,
    /// What each name stands for, and whether it is a member of a group.
    names: HashMap<&'t [u8], (Quorum, bool)>,
    quorum: Option<Quorum>,
}

impl Policy {
    /// Reads a policy file.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let at = |line: usize| move |kind| PolicyError { line, kind };
        if bytes.len() > BYTES_MAX {
            return Err(at(1)(PolicyErrorKind::TooLarge));
        }
        let mut parser = Parser::default();
        let mut last = 1;
        for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
            let line = line.strip_suffix(b"\n").ok_or_else(|| at(number)(PolicyErrorKind::LineEnd))?;
            parser.line(line).map_err(at(number))?;
            last = number;
        }
        let quorum = parser.quorum.ok_or_else(|| at(last)(PolicyErrorKind::QuorumCount))?;
        Self::with_quorum(parser.logs, parser.witnesses, quorum).map_err(PolicyErrorKind::Keys).map_err(at(last))
    }
}

impl<'t> Parser<'t> {
    fn line(&mut self, line: &'t [u8]) -> Result<(), PolicyErrorKind> {
        if line.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
            return Err(PolicyErrorKind::ControlCharacter);
        }
        let words: Vec<&[u8]> =
            line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", vkey] | [b"log", vkey, _] => {
                let key = key(vkey, KeyKind::Ed25519, &self.logs)?;
                self.logs.push(key);
                Ok(())
            }
            [b"witness", name, vkey] | [b"witness", name, vkey, _] => {
                let key = key(vkey, KeyKind::Cosignature, &self.witnesses)?;
                self.witnesses.push(key);
                self.define(name, Quorum::Witness(self.witnesses.len() - 1))
            }
            [b"group", name, threshold, members @ ..] if !members.is_empty() => self.group(name, threshold, members),
            [b"quorum", name] => {
                if self.quorum.is_some() {
                    return Err(PolicyErrorKind::QuorumCount);
                }
                self.quorum = Some(match *name {
                    b"none" => Quorum::None,
                    name => self.names.get(name).ok_or(PolicyErrorKind::NameUnknown)?.0.clone(),
                });
                Ok(())
            }
            [b"log" | b"witness" | b"group" | b"quorum", ..] => Err(PolicyErrorKind::Words),
            _ => Err(PolicyErrorKind::Keyword),
        }
    }

    fn group(&mut self, name: &'t [u8], threshold: &[u8], members: &[&'t [u8]]) -> Result<(), PolicyErrorKind> {
        self.groups += 1;
        if self.groups > ITEMS_MAX {
            return Err(PolicyErrorKind::TooLarge);
        }
        let threshold = match threshold {
            b"all" => Some(members.len()),
            b"any" => Some(1),
            number => std::str::from_utf8(number).ok().and_then(decimal).and_then(|it| usize::try_from(it).ok()),
        };
        let threshold = threshold.filter(|it| (1..=members.len()).contains(it)).ok_or(PolicyErrorKind::Threshold)?;
        let members = members
            .iter()
            .map(|member| match self.names.get_mut(member) {
                None => Err(PolicyErrorKind::NameUnknown),
                Some((_, true)) => Err(PolicyErrorKind::MemberTwice),
                Some((meaning, member)) => {
                    *member = true;
                    Ok(meaning.clone())
                }
            })
            .collect::<Result<_, _>>()?;
        self.define(name, Quorum::Group { threshold, members })
    }

    fn define(&mut self, name: &'t [u8], meaning: Quorum) -> Result<(), PolicyErrorKind> {
        if name == b"none" || self.names.insert(name, (meaning, false)).is_some() {
            return Err(PolicyErrorKind::NameTaken);
        }
        Ok(())
    }
}

fn key(vkey: &[u8], kind: KeyKind, others: &[VerifierKey]) -> Result<VerifierKey, PolicyErrorKind> {
    if others.len() >= ITEMS_MAX {
        return Err(PolicyErrorKind::TooLarge);
    }
    let vkey = std::str::from_utf8(vkey).map_err(|_| PolicyErrorKind::Key(KeyError::Parts))?;
    let key = VerifierKey::parse(vkey).map_err(PolicyErrorKind::Key)?;
    if key.kind() != kind {
        return Err(PolicyErrorKind::Keys(KeysError::WrongKind));
    }
    if others.iter().any(|other| other.public_key() == key.public_key()) {
        return Err(PolicyErrorKind::Keys(KeysError::Duplicate));
    }
    Ok(key)
}
