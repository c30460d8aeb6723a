//! The one byte form of everything that stands on a ledger.
//!
//! Takes: fields in a fixed order. Gives: big-endian, length-prefixed bytes without padding or options, so that equal
//! values have equal bytes and the other way round. Never: guesses; a reader refuses what the writer would not write.

/// Why bytes are not the canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end within a field.
    #[error("the bytes end within a field")]
    Short,
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    Trailing,
    /// More than the format allows.
    #[error("too long")]
    TooLong,
    /// An unknown tag.
    #[error("an unknown tag")]
    Tag,
    /// A name with characters that the format does not allow.
    #[error("a name may hold a-z, 0-9, '.', '_' and '-' only")]
    Name,
    /// A list that is not strictly ascending.
    #[error("a list must be strictly ascending")]
    Order,
    /// A public key that is not one.
    #[error("not a public key in canonical form")]
    Key,
    /// A number outside its range.
    #[error("a number is out of range")]
    Range,
    /// Fields that contradict one another.
    #[error("fields contradict one another")]
    Contradiction,
    /// Text that should be UTF-8 or base64 and is not.
    #[error("not the text that was expected")]
    Text,
}

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Bytes whose length the format fixes.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// At most 255 bytes under a one-byte length. The types bound them, so the cut is never reached.
    pub(crate) fn short(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        self.u8(length).fixed(&bytes[..usize::from(length)])
    }

    /// Bytes under a four-byte length; what is written this way is far below 4 GiB.
    pub(crate) fn long(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.fixed(bytes)
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Takes fields from a slice, from front to back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'b [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn short(&mut self) -> Result<&'b [u8], Malformed> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    pub(crate) fn long(&mut self) -> Result<&'b [u8], Malformed> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(usize::try_from(length).map_err(|_| Malformed::TooLong)?)
    }

    /// All that is left.
    pub(crate) fn rest(&self) -> &'b [u8] {
        self.0
    }

    /// Nothing may follow the last field.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}
