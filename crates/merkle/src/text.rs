//! The two spellings that every C2SP text shares: decimal numbers and base64.
//!
//! Takes one word of a line; gives its value if the word is the only spelling of that value.
//! Never guesses: no sign, no leading zero, no white space, no missing or surplus padding, no
//! stray bits after the last byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Hash;

/// A number in ASCII decimal without leading zeros, as c2sp.org/tlog-checkpoint demands of a tree
/// size.
pub(crate) fn decimal(word: &str) -> Option<u64> {
    let digits = word.as_bytes();
    let canonical = digits.first().is_some_and(|&first| first != b'0' || digits.len() == 1)
        && digits.iter().all(u8::is_ascii_digit);
    // `parse` is what refuses a number beyond 64 bits.
    if canonical { word.parse().ok() } else { None }
}

/// Bytes in RFC 4648 §4 base64, padded, with the unused bits zero.
pub(crate) fn base64(word: &str) -> Option<Vec<u8>> {
    // The standard engine demands canonical padding and refuses trailing bits and white space.
    STANDARD.decode(word).ok()
}

/// A SHA-256 hash in base64: always 44 characters.
pub(crate) fn base64_hash(word: &str) -> Option<Hash> {
    if word.len() != 44 {
        return None;
    }
    base64(word)?.try_into().ok()
}

/// The one base64 spelling of `bytes`.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for word in ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "١", "18446744073709551616"] {
            assert_eq!(decimal(word), None, "{word:?}");
        }
    }

    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(base64("AQ=="), Some(vec![1]));
        for word in ["AQ", "AQ=", "AR==", "AQ==\n", " AQ==", "A-==", "AQ==AQ==", "A"] {
            assert_eq!(base64(word), None, "{word:?}");
        }
        assert_eq!(base64_hash(&to_base64(&[7; 32])), Some([7; 32]));
        assert_eq!(base64_hash(&to_base64(&[7; 31])), None);
        assert_eq!(base64_hash(&to_base64(&[7; 33])), None);
    }
}
