//! Health: what keeps the process from taking new work.
//!
//! Takes: the state of each part. Gives: ready or not, and why. Never: asks a part itself, so a probe costs nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The parts without which no new work is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The consent self-test: a deny denies and a permit permits on the live path.
    ConsentSelfTest,
    /// The doors of consent decide: the ledger's state is young enough, and the self-test holds.
    Doors,
    /// Drain has begun.
    Drain,
    /// The ledger's mirror is younger than its bound.
    Mirror,
    /// Nothing but a restart helps: whoever supervises the process is to end it.
    Restart,
    /// The store commits.
    Store,
}

impl Condition {
    fn name(self) -> &'static str {
        match self {
            Self::ConsentSelfTest => "consent self-test",
            Self::Doors => "doors",
            Self::Drain => "drain",
            Self::Mirror => "mirror",
            Self::Restart => "restart",
            Self::Store => "store",
        }
    }
}

/// The state of all parts.
#[derive(Default)]
pub(super) struct Health {
    started: AtomicBool,
    ill: Mutex<BTreeMap<Condition, String>>,
    /// What is not as it should be, and keeps nobody from working.
    notes: Mutex<BTreeMap<&'static str, String>>,
}

impl Health {
    pub(super) fn set(&self, condition: Condition, state: Result<(), String>) {
        let mut ill = self.ill.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            Ok(()) => ill.remove(&condition),
            Err(why) => ill.insert(condition, why),
        };
    }

    pub(super) fn note(&self, part: &'static str, note: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            None => notes.remove(part),
            Some(note) => notes.insert(part, note),
        };
    }

    pub(super) fn notes(&self) -> String {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().flat_map(|(part, note)| [part, ": ", note, "\n"]).collect()
    }

    pub(super) fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    pub(super) fn started(&self) -> Result<(), String> {
        if self.started.load(Ordering::Acquire) { Ok(()) } else { Err("not started yet".to_owned()) }
    }

    /// Whether the process can still come to be well without a restart.
    pub(super) fn live(&self) -> Result<(), String> {
        let ill = self.ill.lock().unwrap_or_else(PoisonError::into_inner);
        ill.get(&Condition::Restart).map_or(Ok(()), |why| Err(why.clone()))
    }

    pub(super) fn ready(&self) -> Result<(), String> {
        self.started()?;
        let ill = self.ill.lock().unwrap_or_else(PoisonError::into_inner);
        if ill.is_empty() {
            return Ok(());
        }
        Err(ill.iter().map(|(condition, why)| format!("{}: {why}", condition.name())).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_started_and_nothing_ill() {
        let health = Health::default();
        assert!(health.ready().is_err());
        health.set_started();
        assert_eq!(health.ready(), Ok(()));
        health.set(Condition::Store, Err("full".into()));
        assert_eq!(health.ready(), Err("store: full".into()));
        health.set(Condition::Store, Ok(()));
        assert_eq!((health.ready(), health.live()), (Ok(()), Ok(())));
        health.note("rules", Some("broken".into()));
        assert_eq!((health.ready(), &*health.notes()), (Ok(()), "rules: broken\n"));
        health.note("rules", None);
        assert_eq!(health.notes(), "");
        health.set(Condition::Restart, Err("the disk failed".into()));
        assert_eq!(health.live(), Err("the disk failed".into()));
        assert!(health.ready().is_err());
    }
}
