//! The names of things on a ledger: institutions, patients under a pseudonym, operations, moments.
//!
//! Takes: text or bytes. Gives: values that are within their bounds. Never: an identifier of a patient in the clear.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;

use super::codec::{Malformed, Reader, Writer};

/// An institution's id: 1 to 63 of `a-z 0-9 . _ -`. A log's origin starts with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 63;

    /// Checks length and characters.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        if fits && plain { Ok(Self(text.into())) } else { Err(Malformed::Name) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.short(self.0.as_bytes());
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::parse(std::str::from_utf8(input.short()?).map_err(|_| Malformed::Text)?)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a log: 1 to 200 printable ASCII characters without space and `+`, as C2SP signed-note wants of key names.
///
/// By our rule it is an institution's id, alone or followed by `/` and a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Arc<str>);

impl Origin {
    /// Longest origin, in bytes.
    pub const BYTES_MAX: usize = 200;

    /// Checks length, characters and that an institution's id leads.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fits = text.len() <= Self::BYTES_MAX;
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'+');
        let owner = text.split_once('/').map_or(text, |(owner, _)| owner);
        if fits && plain && Name::parse(owner).is_ok() { Ok(Self(text.into())) } else { Err(Malformed::Name) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the origin is `institution`'s.
    pub fn belongs_to(&self, institution: &Name) -> bool {
        self.0.split_once('/').map_or(&*self.0, |(owner, _)| owner) == institution.as_str()
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.short(self.0.as_bytes());
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::parse(std::str::from_utf8(input.short()?).map_err(|_| Malformed::Text)?)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A patient, as the ledger knows one: HMAC-SHA-256 under the consortium's domain key. Uniform, so it is also the key
/// of the prefix map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym(pub [u8; 32]);

/// The name of an operation: SHA-256 of its canonical unsigned bytes. The same content has the same id everywhere, so
/// a replay is recognised for what it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub [u8; 32]);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpId({self})")
    }
}

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The end of time; an approval until then does not run out.
    pub const MAX: Self = Self(u64::MAX);

    /// The system clock; before 1970 it is 1970.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// How much later this is than `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
