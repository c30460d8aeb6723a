//! Byte scanning, eight bytes at a time in plain arithmetic: where a string ends, where white space ends.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The low bits of a hash as an index.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the caller masks the index; the high bits are not wanted")]
pub(crate) fn low(hash: u64) -> usize {
    hash as usize
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk))
}

/// A high bit for each byte of `word` that is zero; bytes above the first hit may be false hits.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// The first `"`, `\` or character below U+0020 at or after `at`; the length of `bytes` if there is none.
#[inline]
pub(crate) fn string_stop(bytes: &[u8], mut at: usize) -> usize {
    // Most strings of FHIR end within the first words.
    for _ in 0..4 {
        let Some(word) = word(bytes, at) else { return string_stop_bytes(bytes, at) };
        let stops = zeros(word ^ (ONES * 0x22))
            | zeros(word ^ (ONES * 0x5c))
            | (word.wrapping_sub(ONES * 0x20) & !word & HIGHS);
        if stops != 0 {
            return at + (stops.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    // Narrative and attachments: blocks that the compiler turns into vector compares.
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<64>()) {
        if holds_stop(block) {
            break;
        }
        at += 64;
    }
    string_stop_bytes(bytes, at)
}

#[inline]
#[expect(clippy::needless_bitwise_bool, reason = "without branches the compiler makes vector compares of it")]
fn holds_stop(block: &[u8; 64]) -> bool {
    block.iter().fold(false, |stop, &byte| stop | (byte == b'"') | (byte == b'\\') | (byte < 0x20))
}

fn string_stop_bytes(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20).unwrap_or(rest.len())
}

/// The first byte at or after `at` that is not JSON white space; the length of `bytes` if there is none.
#[inline]
pub(crate) fn space_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes.get(at) {
            Some(b'\n') => {
                at += 1;
                // Indentation: runs of spaces after a line break.
                while let Some(word) = word(bytes, at) {
                    let other = word ^ (ONES * 0x20);
                    if other != 0 {
                        at += (other.trailing_zeros() / 8) as usize;
                        break;
                    }
                    at += 8;
                }
            }
            Some(b' ' | b'\t' | b'\r') => at += 1,
            _ => return at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stop_is_found_at_every_place() {
        for len in 0..200 {
            for stop in [b'"', b'\\', 0x00, 0x1f, b'\n'] {
                let mut bytes = vec![b'x'; len];
                for (index, byte) in bytes.iter_mut().enumerate() {
                    // Neighbours of the stops, DEL and bytes of UTF-8 sequences.
                    *byte = [b'x', b'!', b'#', b'[', b']', b' ', 0x7f, 0x80, 0xa2, 0xdc, 0xff][index % 11];
                }
                assert_eq!(string_stop(&bytes, 0), len);
                bytes.push(stop);
                bytes.extend_from_slice(b"\"\\tail");
                assert_eq!(string_stop(&bytes, 0), len);
                assert_eq!(string_stop(&bytes, len / 2), len);
            }
        }
    }

    #[test]
    fn white_space_ends_at_the_first_other_byte() {
        for len in 0..40 {
            for end in ["x", "", "\u{a0}", "\u{b}"] {
                let text = format!("\n{}\r\n\t {}{end}", " ".repeat(len), " ".repeat(len / 2));
                assert_eq!(space_end(text.as_bytes(), 0), text.len() - end.len());
            }
        }
    }
}
