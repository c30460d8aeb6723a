//! The one writer: groups, commits, seals.
//!
//! Takes: commands through a queue, in order. Gives: an answer to each once its effect is durable. Never: answers
//! before the sync, nor writes again after a sync that failed.
//!
//! The side effects of a commit, and what a crash before each leaves:
//!
//! 1. append the group's frames: nothing, or a torn tail, which replay cuts. Nobody was answered.
//! 2. sync: some or all frames, unanswered. Replay keeps the whole ones: a submitter that asks learns so.
//! 3. publish in memory and answer: everything, unanswered. As before.
//!
//! A seal is the same with two frames, the map's root and the checkpoint. A crash between them leaves a leaf that no
//! checkpoint follows: harmless, the next seal writes another. The file `checkpoint` comes last; it may lag behind the
//! log, never run ahead of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use sluice_merkle::Hash;
use sluice_merkle::checkpoint::{Checkpoint, SignedCheckpoint};
use sluice_merkle::note;
use sluice_merkle::tree::{Frontier, inclusion_proof};
use tokio::sync::oneshot;

use super::group::{Group, Prepared, Staged};
use super::index::Hashes;
use super::segment::{Disk, Kind, write_frame};
use super::shared::Shared;
use super::{Clock, side_file};
use crate::ledger::entry::{Entry, MapHead};
use crate::ledger::error::{Breach, LedgerError, Rejection};
use crate::ledger::ids::{OpId, Pseudonym, Timestamp};
use crate::ledger::proof::{SubjectProof, Trust, anchor_receipt};
use crate::ledger::signature::Signer;
use crate::ledger::state::Changes;
use crate::ledger::types::{Finality, Head, Outcome, Position, Receipt, Ticket};

type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// What the writer is asked. A requester that went away changes nothing.
pub(super) enum Command {
    Submit { ops: Vec<Prepared>, reply: Reply<Vec<Ticket>> },
    Outcome { op: OpId, reply: Reply<Outcome> },
    Prove { subject: Pseudonym, at: u64, reply: Reply<Vec<u8>> },
    Receipt { position: Position, reply: Reply<Receipt> },
    Seal { reply: Reply<Head> },
}

/// What the writer owns alone.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Box<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) frontier: Frontier,
    /// The newest checkpoint's text, with its signatures.
    pub(super) checkpoint: String,
    /// The ledger's time: never goes back.
    pub(super) time: Timestamp,
    pub(super) clock: Clock,
    pub(super) key: Arc<dyn Signer>,
    pub(super) trust: Trust,
    pub(super) beat: Duration,
    pub(super) group_ops_max: usize,
    /// The map holds more than the newest checkpoint covers: a seal began and did not end.
    pub(super) map_ahead: bool,
    /// Why the disk is not to be trusted any more.
    pub(super) poisoned: Option<String>,
}

struct Submission {
    ops: Vec<Prepared>,
    reply: Reply<Vec<Ticket>>,
}

/// The answer to a submission if the sync succeeds, and an operation that is in doubt if it does not.
struct Answer {
    reply: Reply<Vec<Ticket>>,
    result: Result<Vec<Ticket>, LedgerError>,
    doubt: Option<OpId>,
}

impl Writer {
    /// Serves until every requester is gone, then seals.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let mut due: Option<Instant> = None;
        loop {
            let next = match due {
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => commands.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match next {
                Ok(command) => self.turn(command, commands),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if due.is_some_and(|due| due <= Instant::now()) || self.beat.is_zero() {
                // The reason was kept if it was the disk's; if the key did not sign, the next beat tries again.
                let _ = self.seal();
                due = None;
            }
            let open = self.poisoned.is_none() && self.frontier.size() > self.sealed().height;
            due = if open { due.or_else(|| Instant::now().checked_add(self.beat)) } else { None };
        }
        let _ = self.seal();
        self.shared.durable.send_modify(|durable| durable.closed = true);
    }

    /// One group of submissions, or one other command.
    fn turn(&mut self, first: Command, commands: &Receiver<Command>) {
        let mut group = Vec::new();
        let mut count = 0;
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Submit { ops, reply } => {
                    count += ops.len();
                    group.push(Submission { ops, reply });
                    if count < self.group_ops_max {
                        next = commands.try_recv().ok();
                    }
                }
                other => {
                    self.commit(std::mem::take(&mut group));
                    self.answer(other);
                }
            }
        }
        self.commit(group);
    }

    /// Commands are served in the order they came, so an outcome never misses a submission before it.
    fn answer(&mut self, command: Command) {
        match command {
            Command::Submit { ops, reply } => self.commit(vec![Submission { ops, reply }]),
            Command::Outcome { op, reply } => drop(reply.send(self.outcome(&op))),
            Command::Prove { subject, at, reply } => drop(reply.send(self.prove(&subject, at))),
            Command::Receipt { position, reply } => drop(reply.send(self.receipt(position))),
            Command::Seal { reply } => drop(reply.send(self.seal().map(|()| self.sealed()))),
        }
    }

    /// Judges, appends, syncs, publishes, answers.
    fn commit(&mut self, group: Vec<Submission>) {
        if group.is_empty() {
            return;
        }
        if let Some(why) = &self.poisoned {
            for submission in group {
                let _ = submission.reply.send(Err(LedgerError::Storage(why.clone())));
            }
            return;
        }
        let (answers, (bytes, staged, changes)) = self.judge(group);
        let written = if staged.is_empty() { Ok(()) } else { self.write(&bytes) };
        let published = written.and_then(|()| self.publish(staged, Some(changes), bytes.len(), None));
        for Answer { reply, result, doubt } in answers {
            let result = match (&published, doubt) {
                (Err(_), Some(op)) => Err(LedgerError::Ambiguous { op }),
                _ => result,
            };
            let _ = reply.send(result);
        }
    }

    /// Decides on every operation of a group, each in the light of those before it.
    fn judge(&mut self, submissions: Vec<Submission>) -> (Vec<Answer>, (Vec<u8>, Vec<Staged>, Changes)) {
        self.time = self.time.max((self.clock)());
        let state = self.shared.state();
        let count = submissions.iter().map(|submission| submission.ops.len()).sum();
        let mut group = Group::new(&self.shared, &state, self.frontier.size(), self.time, count);
        let answers = submissions.into_iter().map(|Submission { ops, reply }| {
            let mut doubt = None;
            let tickets = ops.into_iter().map(|prepared| {
                let op = prepared.id;
                let (outcome, undecided) = group.judge(prepared)?;
                doubt = doubt.or(undecided.then_some(op));
                Ok(Ticket { op, outcome })
            });
            let result = tickets.collect();
            Answer { reply, result, doubt }
        });
        let answers = answers.collect();
        (answers, group.finish())
    }

    /// The two side effects. One failure ends writing for good: what a failed sync left behind, no second sync tells.
    fn write(&mut self, bytes: &[u8]) -> Result<(), LedgerError> {
        self.disk.append(bytes).and_then(|()| self.disk.sync()).map_err(|error| {
            tracing::error!(%error, "the ledger's disk failed; nothing more is written until a restart");
            self.poison(error.to_string())
        })
    }

    fn poison(&mut self, why: String) -> LedgerError {
        self.poisoned = Some(why.clone());
        LedgerError::Storage(why)
    }

    /// Shows everyone what is durable now.
    fn publish(
        &mut self,
        staged: Vec<Staged>,
        changes: Option<Changes>,
        bytes: usize,
        sealed: Option<Head>,
    ) -> Result<(), LedgerError> {
        if staged.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state_mut();
        if let Some(changes) = changes {
            state.absorb(changes);
        }
        {
            let mut index = shared.index_mut();
            for Staged { offset, hash, op } in staged {
                let appended = self.frontier.append_with(hash, |at, hash| index.subtree(at, *hash));
                appended.map_err(|error| self.poison(error.to_string()))?;
                index.leaf(offset, op);
            }
        }
        let seen = self.head(Finality::Seen);
        shared.durable.send_modify(|durable| {
            durable.end += bytes as u64;
            durable.seen = seen;
            if let Some(sealed) = sealed {
                durable.sealed = sealed;
            }
        });
        Ok(())
    }

    /// Signs a checkpoint over everything durable, the map's root as its last leaf. Nothing to do, nothing done.
    pub(super) fn seal(&mut self) -> Result<(), LedgerError> {
        if let Some(why) = &self.poisoned {
            return Err(LedgerError::Storage(why.clone()));
        }
        let covers = self.frontier.size();
        if covers == self.sealed().height {
            return Ok(());
        }
        self.time = self.time.max((self.clock)());
        // Everything merged is durable already, so the map never holds more than the log.
        let root = self.shared.state_mut().merge();
        self.map_ahead = true;
        let mut bytes = Vec::new();
        let entry = Entry::MapHead(MapHead { time: self.time, covers, root });
        let offset = self.shared.end();
        let hash = write_frame(Kind::Entry, &entry.to_bytes(), &mut bytes);
        let mut frontier = self.frontier.clone();
        frontier.append(hash).map_err(|_| LedgerError::from(Rejection::Unsupported("the log is full")))?;
        let checkpoint = self.sign(&frontier)?;
        write_frame(Kind::Checkpoint, checkpoint.as_bytes(), &mut bytes);
        self.write(&bytes)?;
        let sealed = Head { height: covers + 1, root: frontier.root(), ..self.head(Finality::Final) };
        self.publish(vec![Staged { offset, hash, op: None }], None, bytes.len(), Some(sealed))?;
        self.checkpoint = checkpoint;
        self.map_ahead = false;
        // For monitors, and to notice a log that lost its end. A crash before it leaves an older one, which holds too.
        if let Err(error) = side_file::write(&self.dir, &self.checkpoint) {
            tracing::warn!(%error, "the file `checkpoint` lags behind the ledger");
        }
        Ok(())
    }

    fn sign(&self, frontier: &Frontier) -> Result<String, LedgerError> {
        let unsigned = |reason| LedgerError::Unavailable { retry_after: Some(self.beat), reason };
        let checkpoint = Checkpoint::new(self.trust.ledger.as_str(), frontier.size(), frontier.root())
            .map_err(|_| unsigned("the checkpoint cannot be written"))?;
        let text = checkpoint.to_string();
        let bytes = self.key.sign(text.as_bytes()).map_err(|_| unsigned("the ledger's key did not sign"))?;
        let signature = note::sign(&text, &self.trust.verifier_key()?, |_| bytes)
            .map_err(|_| unsigned("the note cannot be signed"))?;
        let signed =
            SignedCheckpoint::new(checkpoint, vec![signature]).map_err(|_| unsigned("the note cannot be made"))?;
        Ok(signed.to_string())
    }

    fn outcome(&self, op: &OpId) -> Result<Outcome, LedgerError> {
        match (self.shared.find(op)?, &self.poisoned) {
            (Some((position, _)), _) => Ok(Outcome::Committed(position)),
            // It may be in the part of the file that nobody can vouch for until a restart has replayed it.
            (None, Some(why)) => Err(LedgerError::Storage(why.clone())),
            (None, None) => Ok(Outcome::Unknown),
        }
    }

    fn prove(&mut self, subject: &Pseudonym, at: u64) -> Result<Vec<u8>, LedgerError> {
        self.seal_to(at)?;
        if self.map_ahead {
            self.seal()?;
        }
        let sealed = self.sealed();
        let index = sealed.height.saturating_sub(1);
        let (_, Entry::MapHead(map_head)) = self.shared.entry(index)? else {
            return Err(Breach::BadProof("a checkpoint that does not end in the map's root").into());
        };
        let state = self.shared.state();
        let proof = SubjectProof {
            checkpoint: self.checkpoint.clone(),
            map_head,
            inclusion: self.inclusion(index, sealed.height)?,
            map: state.sealed().prove(subject),
            record: state.sealed().get(subject),
        };
        Ok(proof.to_bytes())
    }

    fn receipt(&mut self, position: Position) -> Result<Receipt, LedgerError> {
        self.seal_to(position.height + 1)?;
        let sealed = self.sealed();
        let (entry, _) = self.shared.entry(position.height)?;
        let inclusion = self.inclusion(position.height, sealed.height)?;
        let form = |_| LedgerError::from(Breach::BadProof("a receipt cannot be written"));
        let checkpoint = SignedCheckpoint::parse(self.checkpoint.as_bytes()).map_err(|error| form(error.into()))?;
        anchor_receipt(position, entry, inclusion, checkpoint).map_err(form)
    }

    /// Has a checkpoint over at least `height` leaves.
    fn seal_to(&mut self, height: u64) -> Result<(), LedgerError> {
        let have = self.frontier.size();
        if height > have {
            return Err(Breach::Rollback { have, known: height }.into());
        }
        if height > self.sealed().height { self.seal() } else { Ok(()) }
    }

    fn inclusion(&self, leaf: u64, size: u64) -> Result<Vec<Hash>, LedgerError> {
        let index = self.shared.index();
        let hashes = Hashes { index: &index, file: &self.shared.file, end: self.shared.end() };
        inclusion_proof(leaf, size, &hashes).map_err(|error| match error {
            sluice_merkle::tree::ProveError::Source(error) => error,
            _ => Breach::BadProof("the log has no such leaf").into(),
        })
    }

    fn sealed(&self) -> Head {
        self.shared.durable.borrow().sealed.clone()
    }

    fn head(&self, finality: Finality) -> Head {
        Head {
            ledger: self.shared.ledger.clone(),
            height: self.frontier.size(),
            root: self.frontier.root(),
            time: self.time,
            finality,
        }
    }
}
