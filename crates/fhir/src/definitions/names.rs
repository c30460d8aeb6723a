//! A small open-addressing index from strings to numbers. Takes the strings of a definition, gives back their place;
//! never owns a string, so that one table of strings serves every index. Keys come from definitions alone (a caller's
//! text is only looked up), so a caller cannot provoke collisions.

/// An index over `n` names; which name stands at place `i` is told by the owner at each call.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Place plus one, 0 where the cell is free. The length is a power of two and at least twice the number of names.
    cells: Box<[u32]>,
}

impl Names {
    /// Indexes `names` by their order. Of equal names the first wins.
    pub(crate) fn new<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let size = (names.len() * 2).next_power_of_two().max(4);
        let mut cells = vec![0_u32; size].into_boxed_slice();
        for (place, name) in names.enumerate() {
            let mut at = start(name, size);
            while cells[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            cells[at] = u32::try_from(place + 1).unwrap_or(u32::MAX);
        }
        Self { cells }
    }

    /// The place of `key`, if one of the names equals it.
    #[inline]
    pub(crate) fn find<'a>(&self, key: &str, name_at: impl Fn(usize) -> &'a str) -> Option<usize> {
        let size = self.cells.len();
        if size == 0 {
            return None;
        }
        let mut at = start(key, size);
        loop {
            let place = self.cells[at];
            if place == 0 {
                return None;
            }
            let place = place as usize - 1;
            if name_at(place) == key {
                return Some(place);
            }
            at = (at + 1) & (size - 1);
        }
    }
}

#[inline]
fn start(name: &str, size: usize) -> usize {
    // The upper half is the better mixed one.
    (hash(name.as_bytes()) >> 32) as usize & (size - 1)
}

/// Eight bytes at a time, multiply and fold. Quality is enough for fixed keys, speed is what counts.
#[inline]
fn hash(bytes: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut h = bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        h = (h ^ u64::from_le_bytes(word)).wrapping_mul(K);
        h ^= h >> 29;
    }
    let mut tail = 0;
    for &byte in chunks.remainder() {
        tail = (tail << 8) | u64::from(byte);
    }
    h = (h ^ tail).wrapping_mul(K);
    h ^ (h << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_at_its_place_and_nothing_else_is() {
        let names: Vec<String> = (0..1000).map(|i| format!("http://example.org/{}/{i}", i % 7)).collect();
        let index = Names::new(names.iter().map(String::as_str));
        for (place, name) in names.iter().enumerate() {
            assert_eq!(index.find(name, |i| &names[i]), Some(place));
            assert_eq!(index.find(&format!("{name}x"), |i| &names[i]), None);
        }
        assert_eq!(index.find("", |i| &names[i]), None);
        assert_eq!(Names::default().find("a", |_| "a"), None);
    }
}
