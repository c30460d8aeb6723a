//! Creating a ledger, and opening one by replaying its log.
//!
//! Takes: a folder and what is known of the ledger. Gives: the writer with its state rebuilt. Never: goes on from a
//! log that contradicts a signed checkpoint, its own or one that the caller knows.
//!
//! Leaves under the newest checkpoint are believed for its root's sake; those behind it are judged again, signatures
//! and all, by the same rules as at first.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;

use sluice_merkle::Hash;
use sluice_merkle::checkpoint::{Checkpoint, SignedCheckpoint};
use sluice_merkle::tree::Frontier;

use super::index::{Hashes, Index};
use super::segment::{BULK_BYTES, Disk, Kind, Scanner, write_frame};
use super::shared::{Durable, Shared};
use super::writer::Writer;
use super::{Known, Options, side_file};
use crate::ledger::entry::{Entry, Genesis, MapHead};
use crate::ledger::error::{Breach, LedgerError};
use crate::ledger::ids::{OpId, Timestamp};
use crate::ledger::proof::Trust;
use crate::ledger::records::SignedOp;
use crate::ledger::rules::authorize;
use crate::ledger::signature::PublicKey;
use crate::ledger::state::State;
use crate::ledger::types::{Finality, Head};

pub(super) const LOG: &str = "operations.log";
const LOG_NEW: &str = "operations.new";
const LOCK: &str = "lock";
/// Changed subjects that are gathered before they go into the map during a replay.
const MERGE_MIN: usize = 65_536;

/// Makes the folder and its log with the genesis leaf. Refuses where a log stands.
pub(super) fn create(options: &Options, administrator: PublicKey) -> Result<(), LedgerError> {
    fs::create_dir_all(&options.dir)?;
    let _lock = lock(&options.dir)?;
    if options.dir.join(LOG).try_exists()? {
        return Err(LedgerError::Storage("a ledger stands in this folder already".into()));
    }
    let genesis = Genesis {
        ledger: options.ledger.clone(),
        administrator,
        checkpoint_key: options.trust()?.key,
        time: (options.clock)(),
    };
    let mut bytes = Vec::new();
    write_frame(Kind::Entry, &Entry::Genesis(genesis).to_bytes(), &mut bytes);
    // A crash before the rename leaves no ledger; after it, a whole one that the first opening seals.
    let new = options.dir.join(LOG_NEW);
    let mut file = File::create(&new)?;
    file.append(&bytes)?;
    file.sync_all()?;
    fs::rename(new, options.dir.join(LOG))?;
    side_file::sync_dir(&options.dir)?;
    Ok(())
}

/// What opening gives: the writer, and the lock that is held as long as it lives.
pub(super) struct Opened {
    pub(super) writer: Writer,
    pub(super) lock: File,
}

/// Replays the log; `disk` wraps the file that the writer will append to.
pub(super) fn open(options: &Options, disk: impl FnOnce(File) -> Box<dyn Disk>) -> Result<Opened, LedgerError> {
    let trust = options.trust()?;
    let lock = lock(&options.dir)?;
    let path = options.dir.join(LOG);
    let append = OpenOptions::new().append(true).open(&path)?;
    let file = File::open(&path)?;
    let length = file.metadata()?.len();

    let mut replay = Replay::start(&file, length, &trust)?;
    replay.run(&trust)?;
    let known = match side_file::read(&options.dir)? {
        Some(text) => Some(verified(text.as_bytes(), &trust)?),
        None => None,
    };
    let Replay { scanner, frontier, index, state, sealed, time, .. } = replay;
    let end = scanner.offset();
    let newest = [known.map(|(checkpoint, _)| Known::from(&checkpoint)), options.known];
    for known in newest.into_iter().flatten() {
        hold_against(known, &frontier, &Hashes { index: &index, file: &file, end })?;
    }
    if end < length {
        // Nothing behind here was ever answered for: no checkpoint covers it, here or in what the caller knows.
        tracing::warn!(bytes = length - end, "cutting a torn end off the ledger's log");
        append.set_len(end)?;
    }
    // What replay read may stand in the page cache alone: make it durable before anyone relies on it.
    append.sync_all()?;

    let head = |finality, height, root| Head { ledger: options.ledger.clone(), height, root, time, finality };
    let seen = head(Finality::Seen, frontier.size(), frontier.root());
    let (sealed_head, checkpoint) = match sealed {
        Some(sealed) => {
            let root = *sealed.checkpoint.root();
            (Head { time: sealed.time, ..head(Finality::Final, sealed.checkpoint.size(), root) }, sealed.text)
        }
        None => (head(Finality::Final, 0, Frontier::new().root()), String::new()),
    };
    let durable = Durable { seen, sealed: sealed_head, end, closed: false };
    let shared = Arc::new(Shared::new(options.ledger.clone(), state, index, durable, file));
    let writer = Writer {
        shared,
        disk: disk(append),
        dir: options.dir.clone(),
        frontier,
        checkpoint,
        time,
        clock: Arc::clone(&options.clock),
        key: Arc::clone(&options.key),
        trust,
        beat: options.beat,
        group_ops_max: options.group_ops_max,
        map_ahead: false,
        poisoned: None,
    };
    Ok(Opened { writer, lock })
}

/// One writer for a folder, for as long as the file is open.
fn lock(dir: &Path) -> Result<File, LedgerError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Storage("another process writes this ledger".into())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// A signed checkpoint of this ledger.
fn verified(note: &[u8], trust: &Trust) -> Result<(Checkpoint, String), LedgerError> {
    let signed = SignedCheckpoint::parse(note).map_err(|_| Breach::BadProof("a checkpoint that is not one"))?;
    trust.verify(&signed)?;
    Ok((signed.checkpoint().clone(), signed.to_string()))
}

/// The log must hold what was signed before, as it was.
fn hold_against(known: Known, frontier: &Frontier, hashes: &Hashes<'_>) -> Result<(), LedgerError> {
    let have = frontier.size();
    if known.size > have {
        return Err(Breach::Rollback { have, known: known.size }.into());
    }
    let then = Frontier::restore(known.size, hashes).map_err(|_| Breach::BadProof("the log's hashes"))?;
    if then.root() == known.root { Ok(()) } else { Err(Breach::Fork { height: known.size }.into()) }
}

/// The newest checkpoint found in the log.
struct Sealed {
    checkpoint: Checkpoint,
    text: String,
    time: Timestamp,
}

struct Replay<'f> {
    scanner: Scanner<'f>,
    frontier: Frontier,
    index: Index,
    state: State,
    sealed: Option<Sealed>,
    map_head: Option<MapHead>,
    /// Operations behind the newest checkpoint.
    tail: Vec<(Timestamp, SignedOp)>,
    time: Timestamp,
}

impl<'f> Replay<'f> {
    /// Reads the genesis leaf, which says whose log this is.
    fn start(file: &'f File, length: u64, trust: &Trust) -> Result<Self, LedgerError> {
        let mut scanner = Scanner::new(file, 0, length, BULK_BYTES);
        let frame = scanner.next()?.ok_or(Breach::Rot { offset: 0 })?;
        let Ok(Entry::Genesis(genesis)) = Entry::from_bytes(frame.payload) else {
            return Err(Breach::WrongLedger.into());
        };
        if genesis.ledger != trust.ledger || genesis.checkpoint_key != trust.key {
            return Err(Breach::WrongLedger.into());
        }
        let hash = frame.hash;
        let mut replay = Self {
            scanner,
            frontier: Frontier::new(),
            index: Index::default(),
            state: State::new(genesis.administrator),
            sealed: None,
            map_head: None,
            tail: Vec::new(),
            time: genesis.time,
        };
        replay.leaf(0, hash, None)?;
        Ok(replay)
    }

    fn run(&mut self, trust: &Trust) -> Result<(), LedgerError> {
        loop {
            let offset = self.scanner.offset();
            let Some(frame) = self.scanner.next()? else { break };
            match frame.kind {
                Kind::Checkpoint => {
                    let note = frame.payload.to_vec();
                    self.checkpoint(&note, trust)?;
                }
                Kind::Entry => {
                    // The check of the frame holds, so this is what was written, and we write no such thing.
                    let entry = Entry::from_bytes(frame.payload).map_err(|_| Breach::Rot { offset })?;
                    let hash = frame.hash;
                    let id = if let Entry::Op { op, .. } = &entry { Some(op.id()) } else { None };
                    self.leaf(offset, hash, id)?;
                    self.take(entry)?;
                }
            }
        }
        self.damage(trust)?;
        self.finish(trust)
    }

    fn leaf(&mut self, offset: u64, hash: Hash, id: Option<OpId>) -> Result<(), LedgerError> {
        let index = &mut self.index;
        self.frontier
            .append_with(hash, |at, hash| index.subtree(at, *hash))
            .map_err(|_| Breach::BadProof("more leaves than a log has"))?;
        self.index.leaf(offset, id);
        Ok(())
    }

    fn take(&mut self, entry: Entry) -> Result<(), LedgerError> {
        match entry {
            Entry::Genesis(_) => return Err(Breach::BadProof("a second genesis").into()),
            Entry::Op { time, op } => {
                self.time = self.time.max(time);
                self.tail.push((time, op));
            }
            Entry::MapHead(head) => {
                self.time = self.time.max(head.time);
                self.map_head = Some(head);
            }
        }
        Ok(())
    }

    /// A checkpoint in the log: it must be over what stands before it. Its signature is checked if it is the newest.
    fn checkpoint(&mut self, note: &[u8], trust: &Trust) -> Result<(), LedgerError> {
        let signed = SignedCheckpoint::parse(note).map_err(|_| Breach::BadProof("a checkpoint that is not one"))?;
        let checkpoint = signed.checkpoint().clone();
        let here = self.frontier.size();
        if checkpoint.origin() != trust.ledger.as_str() {
            return Err(Breach::WrongLedger.into());
        }
        if checkpoint.size() != here || *checkpoint.root() != self.frontier.root() {
            return Err(Breach::Fork { height: here }.into());
        }
        let covered = self.map_head.filter(|head| head.covers + 1 == here);
        let time = covered.ok_or(Breach::BadProof("a checkpoint that does not end in the map's root"))?.time;
        for (_, op) in self.tail.drain(..) {
            self.state.apply(op.operation);
        }
        if self.state.recent_len() >= MERGE_MIN {
            self.state.merge();
        }
        self.sealed = Some(Sealed { checkpoint, text: signed.to_string(), time });
        Ok(())
    }

    /// Where the frames end before the file does: a torn tail, unless a signed checkpoint stands behind it.
    ///
    /// One that is only a leaf ahead is no evidence: a seal writes the map's root and the checkpoint over it at once,
    /// and a crash may have kept the second and lost the first. If that checkpoint was ever shown to anyone, the file
    /// beside the log or the caller knows of it, and [`hold_against`] tells.
    fn damage(&mut self, trust: &Trust) -> Result<(), LedgerError> {
        let offset = self.scanner.offset();
        let mut ahead = self.scanner.fork();
        while !ahead.at_end() {
            if ahead.peek()? == Some(Kind::Checkpoint)
                && let Some(frame) = ahead.fork().next()?
                && let Ok((checkpoint, _)) = verified(frame.payload, trust)
                && checkpoint.size() > self.frontier.size() + 1
            {
                return Err(Breach::Rot { offset }.into());
            }
            ahead.skip_byte()?;
        }
        Ok(())
    }

    /// The newest checkpoint is signed by the ledger's key and the map is what it says; what follows is judged again.
    fn finish(&mut self, trust: &Trust) -> Result<(), LedgerError> {
        if let Some(sealed) = &self.sealed {
            verified(sealed.text.as_bytes(), trust)?;
            let root = self.state.merge();
            // The map's root of the newest checkpoint; a later one, which no checkpoint followed, is not relied on.
            let covers = sealed.checkpoint.size() - 1;
            let said = self.map_head_at(covers)?;
            if said.root != root {
                return Err(Breach::BadProof("the map's root").into());
            }
        }
        for (time, op) in std::mem::take(&mut self.tail) {
            op.verify(&trust.ledger).map_err(|_| Breach::BadProof("an operation's signature"))?;
            authorize(&self.state, &op, time).map_err(|_| Breach::BadProof("an operation that no rule allows"))?;
            self.state.apply(op.operation);
        }
        Ok(())
    }

    fn map_head_at(&self, leaf: u64) -> Result<MapHead, LedgerError> {
        let (file, end) = self.scanner.source();
        let mut scanner = self.index.scan(file, end, leaf)?.ok_or(Breach::BadProof("a leaf that is not there"))?;
        match Entry::from_bytes(super::index::next_entry(&mut scanner)?.0) {
            Ok(Entry::MapHead(head)) => Ok(head),
            _ => Err(Breach::BadProof("a checkpoint that does not end in the map's root").into()),
        }
    }
}
