//! The embedded ledger, `role = host`: one log of operations, one writer, a signed checkpoint over it all.
//!
//! Takes: a folder that no one else writes, and the ledger's key. Gives: a [`Ledger`] whose every answer is durable
//! and provable. Never: acknowledges before the sync, signs two histories, or cuts what it once signed.
//!
//! The log is a segment file of frames. A submission is judged, appended and synced together with whatever else waits
//! (group commit), then answered. On a beat, and for an anchor or a proof at once, the prefix map over the subjects is
//! brought up to date, its root becomes a leaf, and the ledger's key signs a C2SP checkpoint: the map sandwich. So
//! presence, revocation and absence are all provable under one signature, and the map is a pure function of the log.
//!
//! In memory a subject costs at most 100 bytes and an operation about 15; everything else is read from the file.

mod group;
mod index;
mod open;
mod segment;
mod shared;
mod side_file;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sluice_merkle::Hash;
use sluice_merkle::checkpoint::Checkpoint;
use tokio::sync::{Semaphore, oneshot};

use group::Prepared;
use segment::Disk;
use shared::Shared;
use writer::Command;

use super::Ledger;
use super::error::{Breach, LedgerError, Rejection};
use super::ids::{Name, OpId, Origin, Pseudonym, Timestamp};
use super::proof::Trust;
use super::records::{Anchor, Device, Institution, Operation, SignedOp};
use super::rules::View as _;
use super::signature::{PublicKey, Signer};
use super::types::{
    Assurance, Caps, Change, Cursor, Finality, FinalityModel, Head, Outcome, Proof, Receipt, Snapshot, Ticket,
};

/// Operations in one submission, at most.
const OPS_MAX: usize = 4096;
/// Operations that wait for the writer, at most; whoever brings more waits.
const OPS_WAITING_MAX: usize = 4 * OPS_MAX;
/// Signatures are checked on the caller's thread up to this many operations, on a blocking thread beyond.
const OPS_INLINE_MAX: usize = 4;

/// Where the ledger's time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How to open an embedded ledger.
#[derive(Clone)]
pub struct Options {
    /// Its folder; nothing else may be in it.
    pub dir: PathBuf,
    /// Its name, the origin of its checkpoints.
    pub ledger: Origin,
    /// Its key, Ed25519: signs checkpoints.
    pub key: Arc<dyn Signer>,
    /// The gateway's key on this ledger: signs anchors. Without one, nothing can be anchored.
    pub gateway: Option<Arc<dyn Signer>>,
    /// Longest time from an operation to the checkpoint over it. Zero: one checkpoint for each group.
    pub beat: Duration,
    /// Most operations in one group.
    pub group_ops_max: usize,
    /// A head that the caller has seen before: an older copy of the folder, or another history, is then refused.
    pub known: Option<Known>,
    /// The ledger's time.
    pub clock: Clock,
}

/// A head that someone saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Leaves.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// The embedded ledger. Dropping it seals what is open and waits for the writer.
pub struct Embedded {
    shared: Arc<Shared>,
    caps: Caps,
    trust: Trust,
    gateway: Option<Arc<dyn Signer>>,
    room: Semaphore,
    /// Whose signatures are checked: one submission after the other, each on all cores, in the order they came. So the first
    /// is on its way to the disk while the next is checked; all at once, they would all be late.
    checking: Semaphore,
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
    /// Held for as long as the writer may write.
    _lock: File,
}

impl Options {
    /// The usual settings: a beat of one second, groups of 1024, the system's clock.
    pub fn new(dir: PathBuf, ledger: Origin, key: Arc<dyn Signer>) -> Self {
        Self {
            dir,
            ledger,
            key,
            gateway: None,
            beat: Duration::from_secs(1),
            group_ops_max: 1024,
            known: None,
            clock: Arc::new(Timestamp::now),
        }
    }

    fn trust(&self) -> Result<Trust, LedgerError> {
        match self.key.public_key() {
            PublicKey::Ed25519(key) => Ok(Trust { ledger: self.ledger.clone(), key }),
            PublicKey::P256(_) => Err(Rejection::Unsupported("a ledger's key is Ed25519").into()),
        }
    }
}

impl From<&Checkpoint> for Known {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self { size: checkpoint.size(), root: *checkpoint.root() }
    }
}

impl Embedded {
    /// Makes a new ledger, administered by that key. Refuses a folder where one stands: opening never creates, so a
    /// wrong mount cannot fork a ledger.
    pub fn create(options: &Options, administrator: PublicKey) -> Result<(), LedgerError> {
        open::create(options, administrator)
    }

    /// Whether a ledger stands in this folder.
    pub fn stands(dir: &std::path::Path) -> Result<bool, LedgerError> {
        Ok(dir.join(open::LOG).try_exists()?)
    }

    /// Replays the log and starts the writer. A torn tail that no checkpoint covers is cut; anything else that does
    /// not fit is an [`LedgerError::Integrity`].
    pub fn open(options: &Options) -> Result<Self, LedgerError> {
        Self::open_on(options, |file| Box::new(file))
    }

    fn open_on(options: &Options, disk: impl FnOnce(File) -> Box<dyn Disk>) -> Result<Self, LedgerError> {
        let trust = options.trust()?;
        let open::Opened { mut writer, lock } = open::open(options, disk)?;
        // Whatever was durable and not yet sealed when it last stopped; and a new ledger's genesis.
        writer.seal()?;
        let shared = Arc::clone(&writer.shared);
        let (commands, queue) = mpsc::channel();
        let thread = std::thread::Builder::new().name("ledger-writer".into()).spawn(move || writer.run(&queue))?;
        Ok(Self {
            shared,
            caps: Caps {
                finality: FinalityModel::Checkpoint,
                absence_proof: true,
                native_cas: true,
                sponsor: true,
                p256: true,
                ops_max: OPS_MAX,
                assurance: Assurance::Operator,
            },
            trust,
            gateway: options.gateway.clone(),
            room: Semaphore::new(OPS_WAITING_MAX),
            checking: Semaphore::new(1),
            commands: Some(commands),
            writer: Some(thread),
            _lock: lock,
        })
    }

    /// What a verifier of its proofs needs.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// An institution as it stands.
    pub fn institution(&self, id: &Name) -> Option<Institution> {
        self.shared.state().institution(id).cloned()
    }

    /// A device as it stands.
    pub fn device(&self, key: &PublicKey) -> Option<Device> {
        self.shared.state().device(key).cloned()
    }

    /// Seals now instead of on the next beat.
    pub async fn seal(&self) -> Result<Head, LedgerError> {
        self.ask(|reply| Command::Seal { reply }).await
    }

    /// Bytes of memory that the index over the log holds, the subjects apart.
    pub fn index_bytes(&self) -> usize {
        self.shared.index().bytes()
    }

    fn send(&self, command: Command) -> Result<(), LedgerError> {
        self.commands.as_ref().and_then(|commands| commands.send(command).ok()).ok_or_else(gone)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> Command,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer.await.map_err(|_| gone())?
    }

    async fn submit_all(&self, ops: Vec<SignedOp>) -> Result<Vec<Ticket>, LedgerError> {
        let Some(first) = ops.first().map(SignedOp::id) else { return Ok(Vec::new()) };
        let count = u32::try_from(ops.len()).ok().filter(|_| ops.len() <= OPS_MAX);
        let count = count.ok_or(Rejection::Unsupported("more operations than one submission may hold"))?;
        let permit = self.room.acquire_many(count).await.map_err(|_| gone())?;
        let ledger = self.shared.ledger.clone();
        let ops = if ops.len() <= OPS_INLINE_MAX {
            prepare(ops, &ledger)
        } else {
            let _turn = self.checking.acquire().await.map_err(|_| gone())?;
            prepare_on_all_cores(ops, &ledger).await?
        };
        let (reply, answer) = oneshot::channel();
        self.send(Command::Submit { ops, reply })?;
        let tickets = answer.await.map_err(|_| LedgerError::Ambiguous { op: first })?;
        drop(permit);
        tickets
    }
}

impl Ledger for Embedded {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn head(&self, at_least: Finality) -> BoxFuture<'_, Result<Head, LedgerError>> {
        let durable = self.shared.durable.borrow();
        let head = match at_least {
            Finality::Seen => durable.seen.clone(),
            Finality::Final => durable.sealed.clone(),
        };
        async move { Ok(head) }.boxed()
    }

    /// Never stale: the host's own state is the newest there is.
    fn lookup<'a>(
        &'a self,
        subjects: &'a [Pseudonym],
        _age_max: Duration,
    ) -> BoxFuture<'a, Result<Snapshot, LedgerError>> {
        async move {
            let state = self.shared.state();
            let records = subjects.iter().map(|subject| state.subject(subject)).collect();
            let head = self.shared.durable.borrow().seen.clone();
            Ok(Snapshot { head, records })
        }
        .boxed()
    }

    fn prove<'a>(&'a self, subject: &'a Pseudonym, at: &'a Head) -> BoxFuture<'a, Result<Proof, LedgerError>> {
        async move {
            if at.ledger != self.shared.ledger {
                return Err(Breach::WrongLedger.into());
            }
            let bytes = self.ask(|reply| Command::Prove { subject: *subject, at: at.height, reply }).await?;
            Ok(Proof { assurance: self.caps.assurance, subject: *subject, bytes })
        }
        .boxed()
    }

    fn submit<'a>(&'a self, ops: &'a [SignedOp]) -> BoxFuture<'a, Result<Vec<Ticket>, LedgerError>> {
        self.submit_all(ops.to_vec()).boxed()
    }

    fn outcome<'a>(&'a self, op: &'a OpId) -> BoxFuture<'a, Result<Outcome, LedgerError>> {
        self.ask(|reply| Command::Outcome { op: *op, reply }).boxed()
    }

    fn watch(&self, from: Cursor) -> BoxStream<'static, Result<Change, LedgerError>> {
        tail::watch(&self.shared, &from)
    }

    fn anchor<'a>(&'a self, anchor: &'a Anchor) -> BoxFuture<'a, Result<Receipt, LedgerError>> {
        async move {
            let gateway = self.gateway.as_ref().ok_or(Rejection::Unsupported("no gateway key was given"))?;
            let op = Operation::Anchor(anchor.clone()).sign(&self.shared.ledger, &[gateway.as_ref()]);
            let op = op.map_err(|_| LedgerError::Unavailable { retry_after: None, reason: "the gateway's key" })?;
            let ticket = self.submit_all(vec![op]).await?.pop().ok_or_else(gone)?;
            let position = ticket.committed()?;
            self.ask(|reply| Command::Receipt { position, reply }).await
        }
        .boxed()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The writer ends when the queue does, after a last seal; the lock is released after that.
        drop(self.commands.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Bounds and signatures: what needs no state, and most of the CPU time.
fn prepare(ops: Vec<SignedOp>, ledger: &Origin) -> Vec<Prepared> {
    let prepare = |op: SignedOp| {
        let checked = op.verify(ledger);
        Prepared { id: op.id(), bytes: op.to_bytes(), checked, op }
    };
    ops.into_iter().map(prepare).collect()
}

/// The same for many, in as many parts as there are processors, in their order.
async fn prepare_on_all_cores(mut ops: Vec<SignedOp>, ledger: &Origin) -> Result<Vec<Prepared>, LedgerError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = ops.len().div_ceil(cores).max(OPS_INLINE_MAX);
    let mut parts = Vec::with_capacity(cores);
    while !ops.is_empty() {
        let rest = ops.split_off(part.min(ops.len()));
        let (part, ledger) = (std::mem::replace(&mut ops, rest), ledger.clone());
        parts.push(tokio::task::spawn_blocking(move || prepare(part, &ledger)));
    }
    let mut prepared = Vec::new();
    for part in parts {
        prepared.extend(part.await.map_err(|error| LedgerError::Storage(error.to_string()))?);
    }
    Ok(prepared)
}

fn gone() -> LedgerError {
    LedgerError::Unavailable { retry_after: None, reason: "the ledger is closed" }
}
