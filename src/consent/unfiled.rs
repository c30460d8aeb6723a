//! Whose Consents are recorded here and not yet on the ledger.
//!
//! Takes: who is about to record a Consent, and what was filed. Gives: whether the ledger's word on a subject can be
//! relied on. Never: forgets a subject before its last Consent is filed; while one is not, doors answer undecidable.
//!
//! In memory. The rows of work that it counts are durable, and it is built from them at a start.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pseudonym::Pseudonym;

/// Pieces of filing that are not done, by subject. Cheap to clone: all clones count as one.
#[derive(Clone, Default)]
pub struct Unfiled(Arc<Mutex<HashMap<Pseudonym, usize>>>);

/// A count for a commit that is under way: given back unless the commit happened, or may have.
pub struct Mark {
    unfiled: Unfiled,
    subjects: Vec<Pseudonym>,
}

impl Unfiled {
    /// Whether something of this subject is to be filed.
    pub fn has(&self, subject: &Pseudonym) -> bool {
        self.counts().contains_key(subject)
    }

    /// Whether nothing is to be filed, of anybody.
    pub fn is_empty(&self) -> bool {
        self.counts().is_empty()
    }

    /// Counts one more for each; before the commit that makes them so, or a decision could slip between.
    pub fn mark(&self, subjects: Vec<Pseudonym>) -> Mark {
        let mut counts = self.counts();
        for subject in &subjects {
            *counts.entry(*subject).or_default() += 1;
        }
        drop(counts);
        Mark { unfiled: self.clone(), subjects }
    }

    /// Counts one less for each: a piece of work is done.
    pub fn done(&self, subjects: &[Pseudonym]) {
        let mut counts = self.counts();
        for subject in subjects {
            match counts.get_mut(subject) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(counts.remove(subject)),
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Pseudonym, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    /// The commit happened, or may have: the count stays until the work is done.
    pub fn keep(mut self) {
        self.subjects.clear();
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.unfiled.done(&self.subjects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_unfiled_until_its_last_consent_is_filed() {
        let (unfiled, who) = (Unfiled::default(), Pseudonym([1; 32]));
        unfiled.mark(vec![who]).keep();
        drop(unfiled.mark(vec![who]));
        assert!(unfiled.has(&who), "a commit that did not happen takes back only its own count");
        unfiled.mark(vec![who]).keep();
        unfiled.done(&[who]);
        assert!(unfiled.has(&who));
        unfiled.done(&[who]);
        assert!(!unfiled.has(&who));
    }
}
