//! Follows the ledger: every change goes into the mirror.
//!
//! Takes: [`Ledger::watch`] and, at each beat, the ledger's word for how far it has come. Gives: a mirror that is as old
//! as the last beat at which it held everything. Never: calls a mirror fresh that lacks a change; goes on after the
//! ledger contradicted itself: the doors close at once, and stay so until somebody has looked and started anew.
//!
//! At a start the mirror is filled from the ledger's beginning. Until it has caught up it is not fresh, so a crash
//! anywhere here costs time and never an older decision.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;

use super::mirror::{Mirror, Moment, Record};
use super::pseudonym::Pseudonym;
use crate::ledger::{Change, Cursor, FinalityModel, Ledger, LedgerError, Operation};
use crate::observe::{Condition, Observer, now_micros};

/// The pause before a watch that ended is begun again.
const RETRY: Duration = Duration::from_secs(1);

/// What following needs.
pub struct Follower {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// What is filled.
    pub mirror: Arc<RwLock<Mirror>>,
    /// Told whether the mirror is young enough.
    pub observer: Arc<Observer>,
    /// The oldest that it may be.
    pub staleness_max: Duration,
}

impl Follower {
    /// Follows until the task is dropped.
    pub async fn run(self) {
        let mut cursor = Cursor::start();
        loop {
            match self.watch(&mut cursor).await {
                Err(LedgerError::Integrity(breach)) => {
                    // Who stops using a ledger serves nobody by it, and never grants.
                    self.mirror.write().unwrap_or_else(PoisonError::into_inner).contradict();
                    tracing::error!(%breach, "the ledger contradicts itself; consent is not decided any more");
                    self.observer.set(Condition::Mirror, Err(format!("the ledger contradicts itself: {breach}")));
                    return;
                }
                Err(error) => tracing::warn!(%error, "the ledger is not followed; going on from the last change"),
                Ok(()) => tracing::info!("the ledger's changes ended; going on from the last one"),
            }
            self.tell();
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Takes in changes from the cursor on, which moves along, until the watch ends.
    async fn watch(&self, cursor: &mut Cursor) -> Result<(), LedgerError> {
        let mut changes = self.ledger.watch(cursor.clone());
        // Four beats within the bound: one late answer does not close the doors.
        let mut beat = tokio::time::interval((self.staleness_max / 4).clamp(Duration::from_millis(10), RETRY));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                change = changes.next() => match change {
                    Some(change) => {
                        let change = change?;
                        *cursor = change.cursor().clone();
                        self.take_in(change);
                    }
                    None => return Ok(()),
                },
                _ = beat.tick() => {
                    match self.confirm().await {
                        Err(error @ LedgerError::Integrity(_)) => return Err(error),
                        Err(error) => tracing::warn!(%error, "the ledger does not say how far it has come"),
                        Ok(()) => {}
                    }
                    self.tell();
                }
            }
        }
    }

    fn take_in(&self, change: Change) {
        let mut mirror = self.mirror.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Applied { position, op, .. } => {
                if let Operation::Subject(record) = &op.operation {
                    mirror.see(Pseudonym(record.pseudonym.0), Record::from(record), op.id(), position.height);
                }
                // Where heights count leaves each is one operation; a block may hold more of them.
                let counts_leaves = self.ledger.caps().finality == FinalityModel::Checkpoint;
                mirror.reach(position.height + u64::from(counts_leaves));
            }
            Change::Retracted { op, .. } => mirror.retract(op),
            Change::Finalized { head, .. } => mirror.finalize(head.height),
        }
    }

    /// Asks how far the ledger has come; if the mirror is there, it is as young as the question.
    async fn confirm(&self) -> Result<(), LedgerError> {
        let asked = Moment::now();
        let snapshot = self.ledger.lookup(&[], self.staleness_max).await?;
        let mut mirror = self.mirror.write().unwrap_or_else(PoisonError::into_inner);
        if mirror.height() >= snapshot.head.height {
            let millis = i64::try_from(snapshot.head.time.0).unwrap_or(i64::MAX);
            mirror.confirm(asked, millis.saturating_mul(1000));
        }
        Ok(())
    }

    fn tell(&self) {
        let age = self.mirror.read().unwrap_or_else(PoisonError::into_inner).age(Moment::now());
        let micros = |age: Duration| i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        self.observer.metrics().ledger_as_of(age.map(|age| now_micros().saturating_sub(micros(age))));
        let state = match age {
            Some(age) if age <= self.staleness_max => Ok(()),
            Some(_) => Err("older than consent.max_staleness".to_owned()),
            None => Err("not caught up with the ledger yet".to_owned()),
        };
        self.observer.set(Condition::Mirror, state);
    }
}
