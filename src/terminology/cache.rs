//! What was answered, for a while and within a number of entries.
//!
//! Two generations: what is asked for moves to the younger one, and when that is full the older one is forgotten. So what is
//! asked for often stays, and nothing is kept in order.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Membership, Question};

/// Answers by question.
pub(super) struct Cache {
    entries_max: usize,
    keep: Duration,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Question, Kept>,
    old: HashMap<Question, Kept>,
}

#[derive(Clone, Copy)]
struct Kept {
    answer: Membership,
    since: Instant,
}

impl Cache {
    /// At most so many entries, each for so long.
    pub(super) fn new(entries_max: usize, keep: Duration) -> Self {
        Self { entries_max, keep, generations: Mutex::default() }
    }

    /// What was answered, if that is not too long ago.
    pub(super) fn get(&self, question: &Question, now: Instant) -> Option<Membership> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |kept: &Kept| now.saturating_duration_since(kept.since) < self.keep;
        if let Some(kept) = generations.young.get(question) {
            return is_fresh(kept).then_some(kept.answer);
        }
        let (question, kept) = generations.old.remove_entry(question)?;
        if !is_fresh(&kept) {
            return None;
        }
        self.put(&mut generations, question, kept);
        Some(kept.answer)
    }

    /// Keeps an answer.
    pub(super) fn insert(&self, question: Question, answer: Membership, now: Instant) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&mut generations, question, Kept { answer, since: now });
    }

    fn put(&self, generations: &mut Generations, question: Question, kept: Kept) {
        if generations.young.len() >= self.entries_max.div_ceil(2) && !generations.young.contains_key(&question) {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(question, kept);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let generations = self.generations.lock().unwrap();
        generations.young.len() + generations.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_is_asked_for_within_its_bounds_and_its_time() {
        let question = |code: usize| Question {
            value_set: "http://x.example/v".to_owned(),
            system: None,
            version: None,
            code: code.to_string(),
        };
        let cache = Cache::new(100, Duration::from_mins(1));
        let now = Instant::now();
        for code in 0..10_000 {
            cache.insert(question(code), Membership::In, now);
            assert_eq!(cache.get(&question(0), now), Some(Membership::In), "after {code}");
            assert!(cache.len() <= 100);
        }
        assert_eq!(cache.get(&question(1), now), None);
        assert_eq!(cache.get(&question(0), now + Duration::from_secs(61)), None);
        cache.insert(question(0), Membership::Out, now + Duration::from_secs(61));
        assert_eq!(cache.get(&question(0), now + Duration::from_secs(62)), Some(Membership::Out));
    }
}
