//! What a patient is called where its name must not stand: on the ledger, and towards subscribers.
//!
//! Takes an identifier (system and value, both normalized), gives 32 bytes of HMAC-SHA-256 under the consortium's domain
//! key. Every part goes in led by its length, so no two identifiers hash alike. Whoever has the domain key can
//! enumerate identifiers; nobody else can tell whose pseudonym it is. Which identifier systems are shared by the
//! consortium is the caller's knowledge: the local numbers of a hospital must not come here unscoped.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::keys::{HmacKey, Keys};

/// A subject's name on the ledger, or towards one subscriber. Debug and logs show only its first four bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym(pub [u8; 32]);

impl Pseudonym {
    /// The name of the subject on the ledger, the same from every institution of the consortium.
    pub fn ledger(keys: &Keys, system: &str, value: &str) -> Self {
        Self(keys.hmac(HmacKey::Domain, &[b"subject", system.as_bytes(), value.as_bytes()]))
    }

    /// The name of the subject towards one subscriber, the same from every gateway, so that two subscribers cannot join
    /// what they hold.
    pub fn pairwise(keys: &Keys, subscriber: &str, system: &str, value: &str) -> Self {
        Self(keys.hmac(HmacKey::Domain, &[b"pairwise", subscriber.as_bytes(), system.as_bytes(), value.as_bytes()]))
    }
}

impl Pseudonym {
    /// The name of this subject towards one subscriber, derived from its name on the ledger: the same from every
    /// gateway of the consortium.
    #[must_use]
    pub fn towards(&self, keys: &Keys, subscriber: &str) -> Self {
        Self(keys.hmac(HmacKey::Domain, &[b"towards", subscriber.as_bytes(), &self.0]))
    }

    /// Its 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// From its 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

/// The same subjects, each once, in their order.
pub fn each_once(mut subjects: Vec<Pseudonym>) -> Vec<Pseudonym> {
    subjects.sort_unstable();
    subjects.dedup();
    subjects
}

impl serde::Serialize for Pseudonym {
    /// As lower-case hex; only for what is sealed.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}", self.hex()))
    }
}

impl<'de> serde::Deserialize<'de> for Pseudonym {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("expected 64 hexadecimal digits"))
    }
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(out, "Pseudonym({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_identifiers_share_a_pseudonym() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(&Keys::create(&dir.path().join("keys")).unwrap()).unwrap();
        let all = [
            Pseudonym::ledger(&keys, "urn:a", "1"),
            Pseudonym::ledger(&keys, "urn:a|", "1"),
            Pseudonym::ledger(&keys, "urn:a", "|1"),
            Pseudonym::ledger(&keys, "", "urn:a1"),
            Pseudonym::pairwise(&keys, "s", "urn:a", "1"),
            Pseudonym::pairwise(&keys, "surn:a", "", "1"),
            Pseudonym::pairwise(&keys, "", "urn:a", "1"),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(Pseudonym::ledger(&keys, "urn:a", "1"), all[0]);
    }

    #[test]
    fn debug_does_not_print_the_whole() {
        assert_eq!(format!("{:?}", Pseudonym([0xab; 32])), "Pseudonym(abababab…)");
    }
}
