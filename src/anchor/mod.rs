//! Anchor: leaves get their place in the gateway's own log, and its checkpoints one on the ledger.
//!
//! Takes: leaves that wait in [`Table::LeafPending`](crate::store::Table). Gives: an RFC 6962 tree in C2SP tiles, signed
//! checkpoints, proofs, and receipts of the ledger. Never: signs two trees of one size, shows a checkpoint that is not
//! durable, or tells a dummy from a leaf to anyone but the operator.
//!
//! The tree is a pure function of the leaf rows in the order of their indexes. There is one sequencer: every batch is
//! committed under the condition that the head which it goes on from still stands, so a second process loses the race
//! and signs nothing that is shown. What is shown is what this process knows to be durable.

mod beat;
pub mod check;
pub mod operation;
mod prove;
pub mod receipt;
mod rows;
mod sequence;
pub mod stream;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use sluice_merkle::Hash;
use sluice_merkle::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use sluice_merkle::note::{self, KeyKind, KeyName, VerifierKey};
use sluice_merkle::tile::Edge;
use sluice_merkle::tree::leaf_hash;
use tokio::sync::{Mutex, watch};

pub use self::beat::known;
pub use self::prove::LeafProof;
pub use self::receipt::{AnchorReceipt, Anchored};
pub use self::sequence::LEAVES_MAX;
use crate::config;
use crate::keys::{Keys, SigningKey};
use crate::ledger::Origin;
use crate::observe::Observer;
use crate::record::recent::Recent;
use crate::store::{Batch, CommitError, Direction, KeyRange, Store, StoreError, Table};

/// The newest signed checkpoint: the one row that every batch of leaves is conditional on.
const HEAD: &[u8] = b"anchor/head";

/// The gateway's own log. One for each process and store.
pub struct Log {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    observer: Arc<Observer>,
    origin: Origin,
    key: VerifierKey,
    /// Batches are filled up to a multiple of this.
    batch_multiple: usize,
    /// The tree's right edge as of the newest durable head. Held by the sequencer from its reading to its commit.
    edge: Mutex<Edge>,
    /// What may be shown.
    head: ArcSwap<Head>,
    anchored: ArcSwapOption<Anchored>,
    /// Held by whoever anchors, so that one is under way at a time.
    anchoring: Mutex<()>,
    progress: watch::Sender<Progress>,
    /// Where the leaves begin that wait for an index.
    waiting: Recent,
}

/// The newest checkpoint that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Leaves.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The signed checkpoint: a C2SP note.
    pub checkpoint: Arc<str>,
}

/// How far the log has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Leaves under the newest signed checkpoint.
    pub size: u64,
    /// Leaves under the newest checkpoint with a receipt of the ledger.
    pub anchored: u64,
}

/// Why a log is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The origin of the settings can't name a log.
    #[error("log.origin: expected an institution's id, alone or followed by / and a path")]
    Origin,
    /// There are leaves and no head.
    #[error("the log has leaves and no signed checkpoint")]
    Headless,
    /// The stored head is no checkpoint.
    #[error("the log's newest checkpoint can't be read: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The stored head is another log's, or signed by another key than the keyring's.
    #[error("the log's newest checkpoint is of another origin or key")]
    Stranger,
    /// The stored tree does not lead to the root that was signed.
    #[error("the stored tree is not the one that was signed at size {size}")]
    Mismatch {
        /// Leaves under the newest checkpoint.
        size: u64,
    },
    /// A row of the room is not what was written.
    #[error("a row of the log is not what was written")]
    Row,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the first checkpoint.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The tree's right edge and the head that was signed over it.
struct State {
    edge: Edge,
    head: Head,
}

impl Log {
    /// Opens the log of a store and compares the stored tree with the last checkpoint that was signed over it. In a
    /// store without one, a log without leaves begins.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is repaired.
    pub async fn open(
        store: Arc<dyn Store>,
        keys: Arc<Keys>,
        settings: &config::Log,
        observer: Arc<Observer>,
    ) -> Result<Self, OpenError> {
        let origin = Origin::parse(&settings.origin).map_err(|_| OpenError::Origin)?;
        let name = KeyName::new(origin.as_str()).map_err(|_| OpenError::Origin)?;
        let key = VerifierKey::new(name, KeyKind::Ed25519, keys.public_key(SigningKey::Log));
        let State { edge, head } = match load(&*store, &key).await? {
            Some(state) => state,
            None => begin(&*store, &keys, &key).await?,
        };
        let anchored = beat::newest(&*store).await?;
        let progress = Progress { size: head.size, anchored: anchored.as_ref().map_or(0, |it| it.size) };
        observer.metrics().log_leaves.set(i64::try_from(head.size).unwrap_or(i64::MAX));
        Ok(Self {
            store,
            keys,
            observer,
            origin,
            key,
            batch_multiple: usize::try_from(settings.batch_multiple.get()).unwrap_or(1),
            edge: Mutex::new(edge),
            head: ArcSwap::from_pointee(head),
            anchored: ArcSwapOption::new(anchored.map(Arc::new)),
            anchoring: Mutex::new(()),
            progress: watch::Sender::new(progress),
            waiting: Recent::default(),
        })
    }

    /// The log's name.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The key that verifies its checkpoints, as C2SP signed-note writes it.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    /// The newest checkpoint.
    pub fn head(&self) -> Arc<Head> {
        self.head.load_full()
    }

    /// The newest checkpoint with a receipt of the ledger; none until there is one.
    pub fn anchored(&self) -> Option<Arc<Anchored>> {
        self.anchored.load_full()
    }

    /// How far the log has come, and a way to wait for more: `changed` returns once it has come further.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Shows a head that is durable.
    fn show(&self, head: Head) {
        let size = head.size;
        self.head.store(Arc::new(head));
        self.observer.metrics().log_leaves.set(i64::try_from(size).unwrap_or(i64::MAX));
        self.progress.send_modify(|progress| progress.size = size);
    }
}

/// Signs a checkpoint over a tree. What is signed counts only once it is durable.
fn sign(keys: &Keys, key: &VerifierKey, size: u64, root: Hash) -> Result<Head, CheckpointError> {
    let checkpoint = Checkpoint::new(key.name().as_str(), size, root)?;
    let text = checkpoint.to_string();
    let signature = note::sign(&text, key, |message| keys.sign(SigningKey::Log, message));
    let signature = signature.map_err(|_| CheckpointError::Origin)?;
    let signed = SignedCheckpoint::new(checkpoint, vec![signature])?;
    Ok(Head { size, root, checkpoint: signed.to_string().into() })
}

/// Whether a signature is that of a message: what the checks of notes ask.
pub(crate) fn ed25519(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    crate::ledger::PublicKey::Ed25519(*public_key).verify(message, signature)
}

/// The head of an empty log, made durable.
async fn begin(store: &dyn Store, keys: &Keys, key: &VerifierKey) -> Result<State, OpenError> {
    let edge = Edge::new();
    let head = sign(keys, key, 0, edge.root())?;
    let batch = Batch::new().expect_absent(Table::Meta, HEAD).append_head(&head);
    // A crash before the commit leaves a store without a log; after it, a log without leaves.
    store.commit(batch).await?;
    Ok(State { edge, head })
}

/// The stored log, held against what was signed; none if the store has none.
async fn load(store: &dyn Store, key: &VerifierKey) -> Result<Option<State>, OpenError> {
    let Some(row) = store.read(Table::Meta, HEAD).await? else {
        let leaves = store.scan(Table::Leaf, KeyRange::all(), 1, Direction::Up).await?;
        return if leaves.is_empty() { Ok(None) } else { Err(OpenError::Headless) };
    };
    let signed = SignedCheckpoint::parse(&row)?;
    let by = signed.note().verify([key], &ed25519).map_err(|_| OpenError::Stranger)?;
    let checkpoint = signed.checkpoint();
    if by.is_empty() || checkpoint.origin() != key.name().as_str() {
        return Err(OpenError::Stranger);
    }
    let size = checkpoint.size();
    let mismatch = || OpenError::Mismatch { size };
    let edge = rows::with_tiles(store, |read| Edge::restore(size, read)).await?.map_err(|_| mismatch())?;
    if edge.root() != *checkpoint.root() {
        return Err(mismatch());
    }
    // The leaves of the last tile, and that none follows them. `log check` looks at all.
    let first = size.saturating_sub(1) / u64::from(rows::WIDTH) * u64::from(rows::WIDTH);
    let range = KeyRange { from: std::ops::Bound::Included(rows::leaf(first)), ..KeyRange::all() };
    let leaves = store.scan(Table::Leaf, range, usize::from(rows::WIDTH) + 1, Direction::Up).await?;
    let tile = store.read(Table::Tile, &rows::tile(0, first / u64::from(rows::WIDTH))).await?.unwrap_or_default();
    let hashes: Vec<u8> = leaves.iter().flat_map(|row| leaf_hash(&row.value)).collect();
    if hashes != tile || leaves.len() as u64 != size - first {
        return Err(mismatch());
    }
    let text = String::from_utf8(row.to_vec()).map_err(|_| OpenError::Row)?;
    Ok(Some(State { edge, head: Head { size, root: *checkpoint.root(), checkpoint: text.into() } }))
}

impl Batch {
    /// Adds the rows of a head.
    fn append_head(self, head: &Head) -> Self {
        let text = bytes::Bytes::copy_from_slice(head.checkpoint.as_bytes());
        self.put(Table::Meta, HEAD, text.clone()).put(Table::Checkpoint, rows::number(head.size), text)
    }
}
