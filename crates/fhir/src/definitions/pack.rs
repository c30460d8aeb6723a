//! The file format of packed definitions. Takes the plain structures below and gives one deterministic file, and the
//! reverse; knows nothing of FHIR's rules.
//!
//! A file is gzip over: `SLDF`, one byte of version, then sections {tag: 4 bytes, length: u32 LE, content}. A reader
//! skips sections that it does not know, so new kinds of data (constraints, slices, hierarchies) come as new sections; the version
//! changes only when an existing section does. Numbers are LEB128. Every string stands once in `STRS`, sorted, and is named
//! by its place there; so a sorted list of codes is a list of small differences.

use std::io::Read as _;

pub(crate) const VERSION: u8 = 1;
const MAGIC: &[u8; 4] = b"SLDF";
/// What a pack may unfold to. R4 core takes about 1 MB.
const UNPACKED_MAX: u64 = 256 << 20;

/// Why a pack was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Not gzip, cut short, or beyond the size limit.
    #[error("the pack is not readable as gzip within its size limit")]
    Compression,
    /// The first four bytes are not those of a pack.
    #[error("the file is not a pack of definitions")]
    Magic,
    /// Written by another version of this format.
    #[error("the pack has format version {0}, expected {VERSION}")]
    Version(u8),
    /// A section that must be there is not.
    #[error("the pack lacks its section {0}")]
    Missing(&'static str),
    /// A number or a string reaches beyond its section.
    #[error("the pack is damaged in section {0}")]
    Damaged(&'static str),
}

/// Writes sections; strings by their place in the sorted table.
pub(crate) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        Self { out }
    }

    pub(crate) fn section(&mut self, tag: [u8; 4], content: &[u8]) {
        self.out.extend_from_slice(&tag);
        self.out.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.out.extend_from_slice(content);
    }

    /// Gzip without time, name or system, so that equal content gives equal bytes.
    pub(crate) fn finish(self) -> std::io::Result<Vec<u8>> {
        use std::io::Write as _;
        let mut gzip = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
        gzip.write_all(&self.out)?;
        gzip.finish()
    }
}

pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(0x80 | low);
    }
}

/// Ascending numbers as differences, count first.
pub(crate) fn put_ascending(out: &mut Vec<u8>, numbers: &[u32]) {
    put(out, numbers.len() as u64);
    let mut last = 0;
    for &number in numbers {
        put(out, u64::from(number.wrapping_sub(last)));
        last = number;
    }
}

/// The unfolded payload and where its sections are.
pub(crate) struct Sections {
    pub(crate) payload: Vec<u8>,
    places: Vec<([u8; 4], std::ops::Range<usize>)>,
}

impl Sections {
    pub(crate) fn read(pack: &[u8]) -> Result<Self, PackError> {
        let mut payload = Vec::new();
        flate2::read::GzDecoder::new(pack)
            .take(UNPACKED_MAX + 1)
            .read_to_end(&mut payload)
            .map_err(|_| PackError::Compression)?;
        if payload.len() as u64 > UNPACKED_MAX {
            return Err(PackError::Compression);
        }
        if payload.get(..4) != Some(MAGIC) {
            return Err(PackError::Magic);
        }
        match payload.get(4) {
            Some(&VERSION) => {}
            Some(&other) => return Err(PackError::Version(other)),
            None => return Err(PackError::Magic),
        }
        let mut places = Vec::new();
        let mut at = 5;
        while at < payload.len() {
            let head = payload.get(at..at + 8).ok_or(PackError::Damaged("heads"))?;
            let tag = [head[0], head[1], head[2], head[3]];
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let content = at + 8..at + 8 + length;
            if content.end > payload.len() {
                return Err(PackError::Damaged("heads"));
            }
            at = content.end;
            places.push((tag, content));
        }
        Ok(Self { payload, places })
    }

    pub(crate) fn section(&self, name: &'static str) -> Result<std::ops::Range<usize>, PackError> {
        let found = self.places.iter().find(|(tag, _)| tag == name.as_bytes());
        found.map(|(_, range)| range.clone()).ok_or(PackError::Missing(name))
    }
}

/// Reads numbers from a part of the payload; every read is checked.
#[derive(Clone)]
pub(crate) struct Reader<'p> {
    bytes: &'p [u8],
    at: usize,
    section: &'static str,
}

impl<'p> Reader<'p> {
    pub(crate) fn new(bytes: &'p [u8], section: &'static str) -> Self {
        Self { bytes, at: 0, section }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn damaged(&self) -> PackError {
        PackError::Damaged(self.section)
    }

    pub(crate) fn number(&mut self) -> Result<u32, PackError> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.damaged())?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| self.damaged());
            }
        }
        Err(self.damaged())
    }

    /// A number of things that follow, each of at least one byte: so a false count cannot ask for memory.
    pub(crate) fn count(&mut self) -> Result<usize, PackError> {
        let count = self.number()? as usize;
        if count > self.bytes.len() - self.at { Err(self.damaged()) } else { Ok(count) }
    }

    /// The next `length` bytes, as a place in the section.
    pub(crate) fn block(&mut self, length: usize) -> Result<std::ops::Range<usize>, PackError> {
        let range = self.at..self.at.checked_add(length).ok_or_else(|| self.damaged())?;
        if range.end > self.bytes.len() {
            return Err(self.damaged());
        }
        self.at = range.end;
        Ok(range)
    }

    pub(crate) fn ascending(&mut self) -> Result<Box<[u32]>, PackError> {
        let count = self.count()?;
        let mut last = 0_u32;
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            last = last.checked_add(self.number()?).ok_or_else(|| self.damaged())?;
            numbers.push(last);
        }
        Ok(numbers.into_boxed_slice())
    }
}

/// The one table of strings.
#[derive(Debug)]
pub(crate) struct Strings {
    text: Box<str>,
    ends: Box<[u32]>,
}

impl Strings {
    /// `sorted` must be sorted and without repetition.
    pub(crate) fn write(sorted: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, sorted.len() as u64);
        for text in sorted {
            put(&mut out, text.len() as u64);
        }
        for text in sorted {
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    pub(crate) fn read(section: &[u8]) -> Result<Self, PackError> {
        let mut reader = Reader::new(section, "STRS");
        let count = reader.count()?;
        let mut ends = Vec::with_capacity(count);
        let mut end = 0_u32;
        for _ in 0..count {
            end = end.checked_add(reader.number()?).ok_or_else(|| reader.damaged())?;
            ends.push(end);
        }
        let range = reader.block(end as usize)?;
        let text = std::str::from_utf8(&section[range]).map_err(|_| PackError::Damaged("STRS"))?;
        if ends.iter().any(|&end| !text.is_char_boundary(end as usize)) {
            return Err(PackError::Damaged("STRS"));
        }
        Ok(Self { text: text.into(), ends: ends.into() })
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The string at a place; empty for a place that does not exist.
    #[inline]
    pub(crate) fn at(&self, place: u32) -> &str {
        let place = place as usize;
        let Some(&end) = self.ends.get(place) else { return "" };
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.text[begin as usize..end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(sections: &[([u8; 4], &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new();
        for (tag, content) in sections {
            writer.section(*tag, content);
        }
        writer.finish().unwrap()
    }

    #[test]
    fn numbers_and_strings_come_back() {
        let mut out = Vec::new();
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX)] {
            put(&mut out, number);
        }
        put_ascending(&mut out, &[3, 4, 900]);
        let mut reader = Reader::new(&out, "TEST");
        for number in [0, 1, 127, 128, 300, u32::MAX] {
            assert_eq!(reader.number(), Ok(number));
        }
        assert_eq!(&*reader.ascending().unwrap(), &[3, 4, 900]);
        assert_eq!(reader.number(), Err(PackError::Damaged("TEST")));
        let strings = Strings::read(&Strings::write(&["", "a", "é"])).unwrap();
        assert_eq!((strings.at(0), strings.at(1), strings.at(2), strings.at(3)), ("", "a", "é", ""));
    }

    #[test]
    fn unknown_sections_are_skipped_and_damage_is_named() {
        let file = pack(&[(*b"XXXX", b"later"), (*b"STRS", b"abc")]);
        let sections = Sections::read(&file).unwrap();
        assert_eq!(&sections.payload[sections.section("STRS").unwrap()], b"abc");
        assert_eq!(sections.section("TYPE").err(), Some(PackError::Missing("TYPE")));
        assert_eq!(Sections::read(b"no gzip").err(), Some(PackError::Compression));
        assert_eq!(Sections::read(&file[..file.len() / 2]).err(), Some(PackError::Compression));
    }

    #[test]
    fn a_false_count_asks_for_no_memory() {
        let mut section = Vec::new();
        put(&mut section, u64::from(u32::MAX));
        assert_eq!(Strings::read(&section).err(), Some(PackError::Damaged("STRS")));
    }
}
