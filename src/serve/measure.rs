//! Measures: what waits, and how the parts are.
//!
//! Takes: the open parts. Gives: gauges, and what readiness rests on, again and again. Never: waits for what a part is doing;
//! takes a part's word for its own health where it can be asked: a loop that hangs says nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::settle::{stopped, told};
use crate::error::Result;
use crate::gateway::Gateway;
use crate::observe::Condition;
use crate::route::outbox;
use crate::store::spool::Spools;
use crate::store::{Health, KeyRange, Table};

/// How often the parts are asked.
const BEAT: Duration = Duration::from_millis(500);

/// How often rows are counted, if that is quick.
const COUNT_BEAT: Duration = Duration::from_secs(5);

/// The share of the time that counting may take: one in so many.
const COUNT_SHARE: u32 = 20;

/// Keys read at once.
const KEYS: usize = 4096;

/// What is measured.
pub(super) struct Measure {
    /// The gateway.
    pub(super) gateway: Arc<Gateway>,
    /// Where bodies and answers wait.
    pub(super) spools: Spools,
}

impl Measure {
    /// Measures until it is stopped.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut next = Instant::now();
        loop {
            self.ask();
            if Instant::now() >= next {
                let started = Instant::now();
                told("measure", self.count().await);
                next = Instant::now() + COUNT_BEAT.max(started.elapsed() * COUNT_SHARE);
            }
            if stopped(&mut stop, BEAT).await {
                return;
            }
        }
    }

    /// What readiness rests on.
    pub(super) fn ask(&self) {
        let Gateway { recorder, door, .. } = &*self.gateway;
        let observer = door.observer();
        let metrics = observer.metrics();
        metrics.spool_bytes.set(i64::try_from(self.spools.bytes()).unwrap_or(i64::MAX));
        let (store, restart) = match recorder.store().health() {
            Health::Ready => (Ok(()), Ok(())),
            Health::Stalled => (Err("a write has been under way for too long"), Ok(())),
            Health::Full => (Err("too little space is left on its disk"), Ok(())),
            Health::Poisoned => (Err("a write failed"), Err("the store takes nothing any more")),
        };
        observer.set(Condition::Store, store.map_err(str::to_owned));
        observer.set(Condition::Restart, restart.map_err(str::to_owned));
        observer.set(Condition::Doors, door.ready().map_err(str::to_owned));
    }

    /// What waits.
    async fn count(&self) -> Result<()> {
        let metrics = self.gateway.door.observer().metrics();
        let mut events = (0, None);
        // An event about several patients has marks in other lanes, which are no events.
        let tally = |key: &Bytes| {
            if let Some(since) = outbox::since(key) {
                events = (events.0 + 1, Some(events.1.map_or(since, |oldest: i64| oldest.min(since))));
            }
        };
        self.each_key(Table::Outbox, tally).await?;
        metrics.outbox(events.0, events.1);
        for (table, gauge) in [(Table::Work, &metrics.work_depth), (Table::Parked, &metrics.parked_events)] {
            let mut count = 0;
            self.each_key(table, |_| count += 1).await?;
            gauge.set(count);
        }
        Ok(())
    }

    /// Shows every key of a table.
    async fn each_key(&self, table: Table, mut show: impl FnMut(&Bytes)) -> Result<()> {
        let mut range = KeyRange::all();
        loop {
            let keys = self.gateway.recorder.store().keys(table, range.clone(), KEYS).await;
            let keys = keys?;
            let Some(last) = keys.last().cloned() else { return Ok(()) };
            keys.iter().for_each(&mut show);
            range = range.after(last);
        }
    }
}
