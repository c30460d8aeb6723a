//! Member names as small numbers.
//!
//! Every element name of FHIR R4 stands in `names.txt` (generated from the definitions, sorted by bytes) and has its line
//! number as id, the same in every tree, so that two known names compare in byte order by comparing their ids. A tree
//! numbers the names that it alone has after those.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use super::scan;

/// The id of a member name. Ids below [`known_len`] mean the same name in every tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId(pub(crate) u32);

impl NameId {
    /// The id as an index for tables by name. Below [`known_len`] it means the same name in every tree.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The id of an element name of FHIR R4 (choice types expanded, `_name` included), if it is one.
pub fn known(name: &str) -> Option<NameId> {
    KNOWN.find(name.as_bytes()).map(NameId)
}

/// The element name of FHIR R4 with this id, if it is one.
pub fn known_text(id: NameId) -> Option<&'static str> {
    KNOWN.names.get(id.index()).copied()
}

/// How many names are known; ids from here on belong to one tree alone.
pub fn known_len() -> usize {
    KNOWN.names.len()
}

pub(crate) static KNOWN: LazyLock<Known> = LazyLock::new(Known::new);

const LIST: &str = include_str!("names.txt");
const SLOTS: usize = 8192;

/// The table of known names: open addressing, filled once, a third full.
pub(crate) struct Known {
    pub(crate) names: Vec<&'static str>,
    slots: Box<[u16; SLOTS]>,
    /// `"name":` of every name, one after the other, for the canonical writer.
    rendered: Box<[u8]>,
    rendered_at: Vec<u32>,
    pub(crate) id: u32,
    pub(crate) last_updated: u32,
    pub(crate) meta: u32,
    pub(crate) reference: u32,
    pub(crate) resource_type: u32,
    pub(crate) version_id: u32,
}

impl Known {
    fn new() -> Self {
        let names: Vec<&'static str> = LIST.lines().collect();
        let mut slots = Box::new([u16::MAX; SLOTS]);
        let mut rendered = Vec::with_capacity(LIST.len() + names.len() * 2);
        let mut rendered_at = Vec::with_capacity(names.len() + 1);
        for (id, name) in names.iter().enumerate() {
            let mut slot = hash(name.as_bytes()) & (SLOTS - 1);
            while slots[slot] != u16::MAX {
                slot = (slot + 1) & (SLOTS - 1);
            }
            slots[slot] = u16::try_from(id).unwrap_or(u16::MAX);
            rendered_at.push(offset(rendered.len()));
            rendered.push(b'"');
            rendered.extend_from_slice(name.as_bytes());
            rendered.extend_from_slice(b"\":");
        }
        rendered_at.push(offset(rendered.len()));
        let mut known = Self {
            names,
            slots,
            rendered: rendered.into_boxed_slice(),
            rendered_at,
            id: 0,
            last_updated: 0,
            meta: 0,
            reference: 0,
            resource_type: 0,
            version_id: 0,
        };
        let of = |name: &str| known.find(name.as_bytes()).unwrap_or(u32::MAX);
        (known.id, known.last_updated, known.meta, known.reference, known.resource_type, known.version_id) =
            (of("id"), of("lastUpdated"), of("meta"), of("reference"), of("resourceType"), of("versionId"));
        known
    }

    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Option<u32> {
        let mut slot = hash(name) & (SLOTS - 1);
        loop {
            let id = self.slots[slot];
            if id == u16::MAX {
                return None;
            }
            if self.names.get(usize::from(id)).is_some_and(|known| known.as_bytes() == name) {
                return Some(u32::from(id));
            }
            slot = (slot + 1) & (SLOTS - 1);
        }
    }

    /// `"name":` of a known name.
    #[inline]
    pub(crate) fn rendered(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let (start, end) = (*self.rendered_at.get(id)?, *self.rendered_at.get(id + 1)?);
        self.rendered.get(start as usize..end as usize)
    }
}

/// The names that only one tree has: where their text stands, and a table over them keyed at random, so that nobody can
/// send names that collide.
#[derive(Default)]
pub(crate) struct Extra {
    places: Vec<Place>,
    /// Text of the names that are spelled with escapes.
    unescaped: String,
    slots: Vec<u32>,
    state: RandomState,
}

#[derive(Clone, Copy)]
enum Place {
    Document(u32, u32),
    Unescaped(u32, u32),
}

impl Extra {
    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The text of the `index`-th name.
    pub(crate) fn text<'a>(&'a self, document: &'a [u8], index: usize) -> &'a str {
        std::str::from_utf8(self.bytes(document, index)).unwrap_or_default()
    }

    fn bytes<'a>(&'a self, document: &'a [u8], index: usize) -> &'a [u8] {
        let (bytes, start, end) = match self.places.get(index) {
            Some(&Place::Document(start, end)) => (document, start, end),
            Some(&Place::Unescaped(start, end)) => (self.unescaped.as_bytes(), start, end),
            None => return &[],
        };
        bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The index of a name that may be there.
    pub(crate) fn find(&self, document: &[u8], name: &[u8]) -> Option<usize> {
        self.slot(document, name).ok()
    }

    /// The index of the name at `start..end` of the document, which holds no escapes; added if new.
    pub(crate) fn intern(&mut self, document: &[u8], start: usize, end: usize) -> usize {
        let name = document.get(start..end).unwrap_or_default();
        self.slot(document, name)
            .unwrap_or_else(|slot| self.add(document, name, slot, Place::Document(offset(start), offset(end))))
    }

    /// The index of a name that the document spells with escapes; added if new.
    pub(crate) fn intern_unescaped(&mut self, document: &[u8], name: &str) -> usize {
        self.slot(document, name.as_bytes()).unwrap_or_else(|slot| {
            let start = self.unescaped.len();
            self.unescaped.push_str(name);
            let place = Place::Unescaped(offset(start), offset(self.unescaped.len()));
            self.add(document, name.as_bytes(), slot, place)
        })
    }

    /// The index of the name, or the free slot for it.
    fn slot(&self, document: &[u8], name: &[u8]) -> Result<usize, usize> {
        let Some(mask) = self.slots.len().checked_sub(1) else { return Err(0) };
        let mut slot = scan::low(self.state.hash_one(name)) & mask;
        loop {
            match self.slots.get(slot) {
                Some(&index) if index != u32::MAX => {
                    if self.bytes(document, index as usize) == name {
                        return Ok(index as usize);
                    }
                }
                _ => return Err(slot),
            }
            slot = (slot + 1) & mask;
        }
    }

    fn add(&mut self, document: &[u8], name: &[u8], slot: usize, place: Place) -> usize {
        let index = self.places.len();
        self.places.push(place);
        if self.places.len() * 2 > self.slots.len() {
            self.grow(document);
        } else if let Some(free) = self.slots.get_mut(slot) {
            *free = offset(index);
        }
        debug_assert_eq!(self.slot(document, name), Ok(index));
        index
    }

    fn grow(&mut self, document: &[u8]) {
        let len = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(len, u32::MAX);
        for index in 0..self.places.len() {
            let mut slot = scan::low(self.state.hash_one(self.bytes(document, index))) & (len - 1);
            while self.slots.get(slot).is_some_and(|&taken| taken != u32::MAX) {
                slot = (slot + 1) & (len - 1);
            }
            if let Some(free) = self.slots.get_mut(slot) {
                *free = offset(index);
            }
        }
    }
}

/// Offsets are below `u32::MAX`: the parser refuses longer documents.
fn offset(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Mixes the ends and the length: cheap, and enough for a fixed list of names.
#[inline]
fn hash(name: &[u8]) -> usize {
    let (head, tail) = if let (Some(head), Some(tail)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (u64::from_le_bytes(*head), u64::from_le_bytes(*tail))
    } else if let (Some(head), Some(tail)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (u64::from(u32::from_le_bytes(*head)), u64::from(u32::from_le_bytes(*tail)))
    } else {
        let byte = |index: usize| u64::from(name.get(index).copied().unwrap_or(0));
        (byte(0) | byte(1) << 8 | byte(2) << 16, 0)
    };
    let mixed = (head ^ tail.rotate_left(29) ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    scan::low(mixed >> 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_every_name_finds_itself() {
        assert!(KNOWN.names.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
        assert!(KNOWN.names.len() < usize::from(u16::MAX));
        for (id, name) in KNOWN.names.iter().enumerate() {
            assert_eq!(known(name).map(NameId::index), Some(id), "{name}");
            assert_eq!(KNOWN.rendered(offset(id)), Some(format!("\"{name}\":").as_bytes()));
        }
        assert_eq!(known("noSuchElement"), None);
        assert_eq!(known(""), None);
    }

    #[test]
    fn extra_names_are_found_however_spelled() {
        let document = b"alpha beta";
        let mut extra = Extra::default();
        assert_eq!(extra.intern(document, 0, 5), 0);
        assert_eq!(extra.intern(document, 6, 10), 1);
        assert_eq!(extra.intern_unescaped(document, "alpha"), 0);
        for index in 0..1000 {
            assert_eq!(extra.intern_unescaped(document, &format!("n{index}")), index + 2);
        }
        assert_eq!(extra.find(document, b"n500"), Some(502));
        assert_eq!(extra.text(document, 1), "beta");
        assert_eq!(extra.find(document, b"gamma"), None);
    }
}
