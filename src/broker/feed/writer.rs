//! The one writer of the feed: gives cursors, keeps each message id once, removes what is old.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};

use super::entry::{self, Entry, Head};
use super::{Body, ENTRIES_MAX, Heads, Retention, Seal, SealError};
use crate::broker::{Limit, Message, PublishError};
use crate::store::vault::place;
use crate::store::{Batch, CommitError, Direction, KeyRange, Store, Table};

/// How often the oldest entries are looked at.
const SWEEP: Duration = Duration::from_secs(10);

/// A message and where its verdict goes.
pub(super) struct Command {
    pub(super) message: Message,
    pub(super) verdict: oneshot::Sender<Result<(), PublishError>>,
}

/// The feed's task.
pub(super) struct Writer {
    store: Arc<dyn Store>,
    seal: Arc<dyn Seal>,
    heads: Arc<Heads>,
    retention: Retention,
    /// What the store holds, by subscriber; the commit's condition is that it still does.
    known: HashMap<String, Option<Head>>,
}

impl Writer {
    pub(super) fn new(store: Arc<dyn Store>, seal: Arc<dyn Seal>, heads: Arc<Heads>, retention: Retention) -> Self {
        Self { store, seal, heads, retention, known: HashMap::new() }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut closing: watch::Receiver<bool>) {
        let mut taken = Vec::with_capacity(ENTRIES_MAX);
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                count = commands.recv_many(&mut taken, ENTRIES_MAX) => {
                    if count == 0 {
                        break;
                    }
                    self.write(&mut taken).await;
                }
                _ = sweep.tick() => self.sweep().await,
                () = closing.wait_for(|closing| *closing).map(drop) => {
                    commands.close();
                    while commands.recv_many(&mut taken, ENTRIES_MAX).await > 0 {
                        self.write(&mut taken).await;
                    }
                    break;
                }
            }
        }
    }

    /// Writes all messages in one commit, and answers each.
    async fn write(&mut self, taken: &mut Vec<Command>) {
        let mut left = std::mem::take(taken);
        // Whoever asked has gone: nothing has happened yet, so nothing needs to.
        left.retain(|command| !command.verdict.is_closed());
        match self.plan(&left).await {
            Err(error) => answer(left, Err(error)),
            Ok(plan) => {
                // A crash before the commit leaves nothing; after it, the entries are there and the outbox sends the
                // same ids again, which are found.
                let committed = if plan.batch.is_empty() { Ok(()) } else { self.store.commit(plan.batch).await };
                let verdict = committed.map_err(|error| verdict(&error));
                if verdict.is_ok() {
                    for (subscriber, head) in plan.heads {
                        self.heads.grew(&subscriber, head.last);
                        self.known.insert(subscriber, Some(head));
                    }
                } else {
                    // What the store holds now is read again.
                    self.known.clear();
                }
                for (at, command) in left.into_iter().enumerate() {
                    let own = plan.refused.iter().find(|(refused, _)| *refused == at).map(|(_, error)| *error);
                    let _ = command.verdict.send(own.map_or(verdict, Err));
                }
            }
        }
    }

    async fn plan(&mut self, commands: &[Command]) -> Result<Plan, PublishError> {
        let ids = commands
            .iter()
            .map(|Command { message, .. }| (Table::Feed, entry::id_key(&message.subscriber, &message.id)));
        let held = self.store.read_many(ids.collect()).await.map_err(|_| PublishError::Unavailable)?;
        let mut plan = Plan::default();
        let mut before: HashMap<&str, Option<Head>> = HashMap::new();
        let mut seen = HashSet::new();
        for (at, (Command { message, .. }, held)) in commands.iter().zip(held).enumerate() {
            let subscriber = message.subscriber.as_str();
            if held.is_some() || !seen.insert((subscriber, message.id.as_str())) {
                continue;
            }
            if !before.contains_key(subscriber) {
                before.insert(subscriber, self.head(subscriber).await?);
            }
            let head = plan
                .heads
                .entry(subscriber.to_owned())
                .or_insert_with(|| before.get(subscriber).copied().flatten().unwrap_or_default());
            let cursor = head.last + 1;
            let key = entry::entry_key(subscriber, cursor);
            let sealed = match entry::encode(message) {
                None => Err(PublishError::Refused(Limit::ContentType)),
                Some(plain) => self
                    .seal
                    .seal(&message.lane, &place(Table::Feed, &key), &plain)
                    .map_err(|_| PublishError::Unavailable),
            };
            match sealed {
                Err(error) => plan.refused.push((at, error)),
                Ok(sealed) => {
                    head.last = cursor;
                    let id = entry::id_key(subscriber, &message.id);
                    let batch = std::mem::take(&mut plan.batch);
                    plan.batch =
                        batch.put(Table::Feed, key, sealed).put(Table::Feed, id, cursor.to_be_bytes().to_vec());
                }
            }
        }
        plan.heads.retain(|subscriber, head| {
            before.get(subscriber.as_str()).copied().flatten() != Some(*head) && head.last > 0
        });
        for (subscriber, head) in &plan.heads {
            let read = before.get(subscriber.as_str()).copied().flatten().map(Head::encode);
            let batch = std::mem::take(&mut plan.batch);
            plan.batch = batch.expect_read(Table::Feed, entry::head_key(subscriber), read).put(
                Table::Feed,
                entry::head_key(subscriber),
                head.encode(),
            );
        }
        Ok(plan)
    }

    async fn head(&mut self, subscriber: &str) -> Result<Option<Head>, PublishError> {
        if let Some(head) = self.known.get(subscriber) {
            return Ok(*head);
        }
        let row = self.store.read(Table::Feed, &entry::head_key(subscriber)).await;
        let head = match row.map_err(|_| PublishError::Unavailable)? {
            None => None,
            // Damaged: to go on would give a cursor twice.
            Some(row) => Some(Head::decode(&row).ok_or(PublishError::Unavailable)?),
        };
        self.known.insert(subscriber.to_owned(), head);
        Ok(head)
    }

    /// Removes the oldest entries of every subscriber, beyond the retention.
    async fn sweep(&mut self) {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let oldest_time = since_epoch.saturating_sub(self.retention.age).as_secs();
        // Each subscriber's first row leads to it, and the range after all of its rows to the next.
        let mut range = KeyRange::all();
        while let Ok(rows) = self.store.scan(Table::Feed, range, 1, Direction::Up).await {
            let Some(subscriber) = rows.first().and_then(|row| entry::subscriber_of(&row.key)) else { break };
            while let Ok(true) = self.sweep_some(&subscriber, oldest_time).await {}
            range = KeyRange::all().after(entry::end_of(&subscriber));
        }
    }

    /// Removes at most [`ENTRIES_MAX`]; whether there may be more. A crash leaves them for the next sweep.
    async fn sweep_some(&mut self, subscriber: &str, oldest_time: u64) -> Result<bool, PublishError> {
        let Some(head) = self.head(subscriber).await? else { return Ok(false) };
        let beyond = head.last.saturating_sub(self.retention.entries);
        let range = KeyRange::prefix(entry::entries_prefix(subscriber));
        let rows = self.store.scan(Table::Feed, range, ENTRIES_MAX, Direction::Up).await;
        let rows = rows.map_err(|_| PublishError::Unavailable)?;
        let (mut batch, mut removed) = (Batch::new(), head.removed);
        // Erased entries, whose time nobody can read any more: they go with the next one that goes.
        let mut erased = Vec::new();
        for row in &rows {
            let Some(cursor) = entry::cursor_of(subscriber, &row.key) else { break };
            let plain = self.seal.open(&place(Table::Feed, &row.key), &row.value);
            let (id, old) = match plain.as_deref().map(|plain| Entry::decode(cursor, plain).map(|it| it.body)) {
                Ok(Some(Body::Message { id, time, .. } | Body::Withdrawn { id, time })) => {
                    (Some(id), time < oldest_time)
                }
                Err(SealError::Erased) => (None, false),
                _ => break,
            };
            if cursor > beyond && !old {
                if id.is_some() {
                    break;
                }
                erased.push(row.key.clone());
                continue;
            }
            batch = erased.drain(..).fold(batch, |batch, key| batch.delete(Table::Feed, key));
            batch = batch.delete(Table::Feed, row.key.clone());
            // The id of an erased entry stays, so that its message does not come back.
            if let Some(id) = id {
                batch = batch.delete(Table::Feed, entry::id_key(subscriber, &id));
            }
            removed = cursor;
        }
        if removed == head.removed {
            return Ok(false);
        }
        let after = Head { removed, ..head };
        let batch = batch.expect_value(Table::Feed, entry::head_key(subscriber), head.encode()).put(
            Table::Feed,
            entry::head_key(subscriber),
            after.encode(),
        );
        let more = rows.len() == ENTRIES_MAX && removed - head.removed >= ENTRIES_MAX as u64;
        match self.store.commit(batch).await {
            Ok(()) => {
                self.known.insert(subscriber.to_owned(), Some(after));
                Ok(more)
            }
            Err(error) => {
                self.known.clear();
                Err(verdict(&error))
            }
        }
    }
}

#[derive(Default)]
struct Plan {
    batch: Batch,
    /// The heads as they are after the commit.
    heads: HashMap<String, Head>,
    /// What is not in the batch, by its place, and why.
    refused: Vec<(usize, PublishError)>,
}

fn answer(commands: Vec<Command>, verdict: Result<(), PublishError>) {
    for command in commands {
        let _ = command.verdict.send(verdict);
    }
}

fn verdict(error: &CommitError) -> PublishError {
    match error {
        // Another writer: nothing happened, and the next attempt reads anew.
        CommitError::Conflict { .. } | CommitError::Full | CommitError::Unavailable | CommitError::Poisoned => {
            PublishError::Unavailable
        }
        CommitError::Ambiguous => PublishError::Unconfirmed,
        CommitError::TooLarge => PublishError::Refused(Limit::Body),
    }
}
