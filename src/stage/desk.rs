//! The desk: where units lie between stage and record.
//!
//! Takes: permitted units, and what is found out about them. Gives: their rows, and after a crash the units again. Never:
//! keeps plaintext; forgets a unit of which it is not known whether the upstream has it.
//!
//! Three rows of [`Table::Staged`] are committed together: the operation's state, its sealed body, and the mark by which
//! the same unit, sent again meanwhile, is known. The body is sealed under its subjects' keys and one of the operation's
//! own, so that it can be destroyed alone. The commit that takes them away leaves a fourth, which stays until that key is
//! destroyed: what was deleted can still lie on the disk.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::{Leftover, OperationId, Staged, State, Twin, carried};
use crate::consent::door::Permitted;
use crate::consent::subjects::Subjects;
use crate::error::{Error, Peer, Refusal, Result};
use crate::ingest::unit::{Interaction, Prefer, Received, Shape};
use crate::keys::{HmacKey, Keys};
use crate::normalize::{Normalized, Resource};
use crate::observe::now_micros;
use crate::store::vault::{SUBJECTS_MAX, Vault, VaultError, place};
use crate::store::{Batch, CommitError, Direction, KeyRange, Store, Table};

/// Rows read at a time.
const ROWS_MAX: usize = 256;

/// When the sender of a unit that is still under way may ask again.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// What a unit's record may take in one commit, in bytes: what the upstream has accepted must fit. Somewhat less than
/// what the store takes.
const RECORD_BYTES_MAX: usize = 28 << 20;

/// What the rows of one resource take in it beside its body, and those of one subject's decision: rather too much.
const ROWS_BYTES: usize = 4 << 10;

const STATE: u8 = 0;
const TWIN: u8 = 1;
const BODY: u8 = 2;
const DOOMED: u8 = 3;

/// Where staged units are kept.
pub struct Desk {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What seals bodies.
    pub vault: Arc<Vault>,
    /// For the names of rows.
    pub keys: Arc<Keys>,
    /// Whether every create gets an id of ours.
    pub client_ids: bool,
    /// The operations that a task of this process is busy with.
    pub busy: Busy,
}

/// The operations that a task of this process is busy with: recovery leaves them alone.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<Mutex<HashSet<OperationId>>>);

/// Says that a task is busy with an operation, until it is dropped.
#[derive(Debug)]
struct Claim(Busy, OperationId);

/// The rows of an operation, in the hand of one task.
#[derive(Debug)]
pub(super) struct Hold {
    /// Its row of state, as it was read or written last.
    row: Bytes,
    parsed: StateRow,
    twin: Option<Bytes>,
    claim: Claim,
}

/// A unit that waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its operation.
    pub operation: OperationId,
    /// Since when: microseconds since 1970.
    pub since_micros: i64,
    /// Why it could not go on by itself.
    pub why: String,
    /// The institution that sent it; none once it has been erased.
    pub sender: Option<String>,
    /// How many resources of each type it holds.
    pub resources: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StateRow {
    state: State,
    /// When it became so: microseconds since 1970.
    since: i64,
    twin: Option<String>,
    /// Why it is parked: words of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Desk {
    /// The rows that say of each operation how it stands.
    pub fn states() -> KeyRange {
        KeyRange::prefix(vec![STATE])
    }

    pub(super) async fn stage(&self, permitted: Permitted, twin: Option<Twin>) -> Result<Staged> {
        let unit = permitted.checked().normalized();
        fits(&permitted)?;
        let ids = chosen(unit, self.client_ids);
        let operation = OperationId::random();
        let claim = self.busy.claim(operation).ok_or_else(|| Error::defect("an operation's id came twice"))?;
        let plain = Kept::of(unit, ids.clone())?.encode()?;
        let mut subjects: Vec<[u8; 32]> =
            permitted.subjects().iter().flat_map(Subjects::pseudonyms).map(|it| it.0).collect();
        subjects.push(self.tag(operation));
        subjects.sort_unstable();
        subjects.dedup();
        if subjects.len() > SUBJECTS_MAX {
            return Err(too_large());
        }
        // A crash right here leaves keys that nothing is sealed with: harmless.
        self.vault.prepare(subjects.clone()).await?;
        let body_key = key(BODY, operation.as_bytes());
        let body = self.vault.seal(&subjects, &place(Table::Staged, &body_key), &plain)?;
        let parsed = StateRow {
            state: State::Staged,
            since: now_micros(),
            twin: twin.as_ref().map(|it| HEXLOWER.encode(&it.key)),
            why: None,
        };
        let row = encode(&parsed)?;
        let mut batch = Batch::new();
        if let Some(twin) = &twin {
            let mark = operation.as_bytes().to_vec();
            let row = key(TWIN, &twin.key);
            batch = batch.expect_absent(Table::Staged, row.clone()).put(Table::Staged, row, mark);
            // It may have been recorded between the look at its answer and now, and is staged no more then.
            batch = batch.expect_read(Table::Idempotency, twin.key.clone(), twin.answer.clone());
        }
        batch = batch.put(Table::Staged, key(STATE, operation.as_bytes()), row.clone());
        batch = batch.put(Table::Staged, body_key, body);
        // A crash before the commit leaves nothing, and nothing was sent. A crash after it leaves a leftover of which it
        // is not known whether it was sent.
        if let Err(error) = self.store.commit(batch).await {
            // It may have happened all the same: then the leftover can't be opened any more, and is swept away.
            self.destroy(operation).await?;
            return Err(match error {
                CommitError::Conflict { .. } => {
                    Error::outage(Peer::UpstreamSilent, UNDER_WAY, "the same unit is still under way")
                }
                CommitError::TooLarge => too_large(),
                error => uncommitted(&error),
            });
        }
        let twin = twin.map(|twin| twin.key);
        Ok(Staged { permitted, operation, ids, hold: Some(Hold { row, parsed, twin, claim }) })
    }

    /// Notes what is known of an operation, and why it can't go on by itself if it is parked.
    ///
    /// # Errors
    /// An outage of the store, also if another task has gone on with the operation.
    pub async fn mark(&self, staged: &mut Staged, state: State, why: Option<&str>) -> Result<()> {
        match &mut staged.hold {
            Some(hold) if hold.parsed.state != state => self.note(hold, state, why).await,
            _ => Ok(()),
        }
    }

    /// The same for a leftover that has not gone the way in again.
    ///
    /// # Errors
    /// As [`Desk::mark`].
    pub async fn mark_leftover(&self, leftover: &mut Leftover, state: State, why: Option<&str>) -> Result<()> {
        self.note(&mut leftover.hold, state, why).await
    }

    async fn note(&self, hold: &mut Hold, state: State, why: Option<&str>) -> Result<()> {
        let why = why.map(str::to_owned);
        let parsed = StateRow { state, since: now_micros(), why, twin: hold.parsed.twin.clone() };
        let row = encode(&parsed)?;
        let key = key(STATE, hold.operation().as_bytes());
        let batch = Batch::new().expect_value(Table::Staged, key.clone(), hold.row.clone());
        // A crash before this leaves the state before: the upstream is asked in both. A crash after it leaves an
        // operation that waits, for the next pass or for an operator.
        self.store.commit(batch.put(Table::Staged, key, row.clone())).await.map_err(|error| uncommitted(&error))?;
        (hold.row, hold.parsed) = (row, parsed);
        Ok(())
    }

    /// Takes a unit back: it has not happened and never will. Its key is destroyed.
    ///
    /// # Errors
    /// An outage of the store. Then it stays staged.
    pub async fn take_back(&self, staged: Staged) -> Result<()> {
        match &staged.hold {
            Some(hold) => self.discard(hold).await,
            None => Ok(()),
        }
    }

    /// The same for a leftover.
    ///
    /// # Errors
    /// As [`Desk::take_back`].
    pub async fn take_back_leftover(&self, leftover: Leftover) -> Result<()> {
        self.discard(&leftover.hold).await
    }

    async fn discard(&self, hold: &Hold) -> Result<()> {
        // A crash before this leaves a leftover, about which the upstream is asked again; a crash after it leaves a key
        // that is swept.
        self.store.commit(hold.settle(Batch::new())).await.map_err(|error| uncommitted(&error))?;
        self.destroy(hold.operation()).await
    }

    /// Destroys the key of an operation's staged body, which no row holds any more. A crash before it leaves a key that
    /// is swept, or that nothing was sealed with.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn destroy(&self, operation: OperationId) -> Result<()> {
        let (vault, tag) = (Arc::clone(&self.vault), self.tag(operation));
        let destroyed = tokio::task::spawn_blocking(move || vault.destroy(&tag)).await;
        let destroyed = destroyed.map_err(|_| Error::defect("a key's destruction was cut short"))?;
        destroyed.map(drop).map_err(Error::from)
    }

    /// What is known of an operation between stage and record; none for any other.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn state(&self, operation: OperationId) -> Result<Option<State>> {
        Ok(self.row(operation).await?.map(|(_, parsed)| parsed.state))
    }

    /// What earlier tasks left behind and no operator is asked about.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn leftovers(&self) -> Result<Vec<OperationId>> {
        let mut found = Vec::new();
        self.each(|operation, parsed| {
            if parsed.state != State::Parked && !self.busy.has(operation) {
                found.push(operation);
            }
            true
        })
        .await?;
        Ok(found)
    }

    /// How many units are open, and how many of them wait for an operator.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn count(&self) -> Result<(usize, usize)> {
        let (mut open, mut parked) = (0, 0);
        self.each(|_, parsed| {
            open += 1;
            parked += usize::from(parsed.state == State::Parked);
            true
        })
        .await?;
        Ok((open, parked))
    }

    /// The units that wait for an operator, the first `limit` of them, and whether there are more.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn parked(&self, limit: usize) -> Result<(Vec<Parked>, bool)> {
        let mut rows = Vec::new();
        self.each(|operation, parsed| {
            if parsed.state == State::Parked {
                rows.push((operation, parsed));
            }
            rows.len() <= limit
        })
        .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let mut found = Vec::with_capacity(rows.len());
        for (operation, parsed) in rows {
            let (sender, resources) = match self.kept(operation).await? {
                Some(kept) => (Some(kept.sender().to_owned()), kept.types()),
                None => (None, BTreeMap::new()),
            };
            let (since_micros, why) = (parsed.since, parsed.why.unwrap_or_default());
            found.push(Parked { operation, since_micros, why, sender, resources });
        }
        Ok((found, more))
    }

    /// Takes up an operation, as it was received. None if another task has it or it is over; what was erased meanwhile
    /// is swept away.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn take(&self, operation: OperationId) -> Result<Option<(Received, Leftover)>> {
        let Some(claim) = self.busy.claim(operation) else { return Ok(None) };
        let Some((row, parsed)) = self.row(operation).await? else { return Ok(None) };
        let twin = parsed.twin.as_deref().map(unhex).transpose()?;
        let hold = Hold { row, parsed, twin, claim };
        if let Some(kept) = self.kept(operation).await? {
            let (ids, provenance) = (kept.ids.clone(), kept.provenance.clone());
            return Ok(Some((kept.received()?, Leftover { ids, provenance, hold })));
        }
        // A crash before this leaves rows that nobody can open, for the next pass.
        self.store.commit(hold.settle(Batch::new())).await.map_err(|error| uncommitted(&error))?;
        Ok(None)
    }

    /// Shows every operation's state until `go_on` says no.
    async fn each(&self, mut go_on: impl FnMut(OperationId, StateRow) -> bool) -> Result<()> {
        let mut range = Self::states();
        loop {
            let page = self.store.scan(Table::Staged, range.clone(), ROWS_MAX, Direction::Up).await?;
            let Some(last) = page.last() else { return Ok(()) };
            range = range.after(last.key.clone());
            for row in page {
                let parsed: StateRow = serde_json::from_slice(&row.value).map_err(|_| broken())?;
                if !go_on(operation_of(&row.key)?, parsed) {
                    return Ok(());
                }
            }
        }
    }

    async fn row(&self, operation: OperationId) -> Result<Option<(Bytes, StateRow)>> {
        let row = self.store.read(Table::Staged, &key(STATE, operation.as_bytes())).await;
        let Some(row) = row? else { return Ok(None) };
        let parsed = serde_json::from_slice(&row).map_err(|_| broken())?;
        Ok(Some((row, parsed)))
    }

    /// What is kept of a unit; none if it was erased.
    async fn kept(&self, operation: OperationId) -> Result<Option<Kept>> {
        let body_key = key(BODY, operation.as_bytes());
        let body = self.store.read(Table::Staged, &body_key).await?;
        let Some(body) = body else { return Ok(None) };
        match self.vault.open(&place(Table::Staged, &body_key), &body) {
            Ok(plain) => Kept::decode(&plain).map(Some),
            Err(VaultError::Erased) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Destroys the keys of operations that are over, and of which a crash or a failure may have left one.
    ///
    /// # Errors
    /// An outage of the store or the keystore; what is left is swept by the next call.
    pub async fn sweep(&self) -> Result<()> {
        loop {
            let range = KeyRange::prefix(vec![DOOMED]);
            let rows = self.store.keys(Table::Staged, range, ROWS_MAX).await?;
            let operations = rows.iter().map(|key| operation_of(key)).collect::<Result<Vec<_>>>()?;
            if operations.is_empty() {
                return Ok(());
            }
            let tags: Vec<_> = operations.into_iter().map(|it| self.tag(it)).collect();
            let vault = Arc::clone(&self.vault);
            let destroyed = tokio::task::spawn_blocking(move || vault.keystore().destroy_all(&tags)).await;
            destroyed.map_err(|_| Error::defect("a key's destruction was cut short"))?.map_err(VaultError::from)?;
            // A crash before this leaves rows of keys that are gone: the next sweep destroys nothing and deletes them.
            let batch = rows.into_iter().fold(Batch::new(), |batch, key| batch.delete(Table::Staged, key));
            self.store.commit(batch).await.map_err(|error| uncommitted(&error))?;
        }
    }

    /// The name under which an operation has a key of its own.
    fn tag(&self, operation: OperationId) -> [u8; 32] {
        self.keys.hmac(HmacKey::Index, &[b"operation", operation.as_bytes()])
    }
}

impl Hold {
    pub(super) fn operation(&self) -> OperationId {
        self.claim.1
    }

    pub(super) fn state(&self) -> State {
        self.parsed.state
    }

    pub(super) fn age(&self) -> Duration {
        Duration::from_micros(u64::try_from(now_micros().saturating_sub(self.parsed.since)).unwrap_or(0))
    }

    /// Adds that the operation is staged no more, if it still is as it was, and that its key is to be destroyed.
    pub(super) fn settle(&self, mut batch: Batch) -> Batch {
        let name = self.operation();
        let state = key(STATE, name.as_bytes());
        batch = batch.expect_value(Table::Staged, state.clone(), self.row.clone());
        batch = batch.delete(Table::Staged, state).delete(Table::Staged, key(BODY, name.as_bytes()));
        batch = batch.put(Table::Staged, key(DOOMED, name.as_bytes()), Bytes::new());
        match &self.twin {
            Some(twin) => batch.delete(Table::Staged, key(TWIN, twin)),
            None => batch,
        }
    }
}

impl Busy {
    fn claim(&self, operation: OperationId) -> Option<Claim> {
        let inserted = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(operation);
        inserted.then(|| Claim(self.clone(), operation))
    }

    fn has(&self, operation: OperationId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&operation)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Whether the record of a unit will fit into one commit, before anybody is told of the unit.
fn fits(permitted: &Permitted) -> Result<()> {
    let unit = permitted.checked().normalized();
    let bodies: usize = unit.resources().iter().map(|it| it.tree().bytes().len()).sum();
    // Kept once, and once more in the answer that a repetition gets.
    let times = if unit.context().prefer == Prefer::Representation { 2 } else { 1 };
    let rows = unit.resources().len() + permitted.basis().len();
    if bodies * times + rows * ROWS_BYTES > RECORD_BYTES_MAX { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Error {
    let text = "a unit that fits into one commit of the store; a larger Bundle can be sent as a batch";
    Error::refusal(Refusal::TooLarge, "limits.unit", text)
}

/// The ids of ours: for every create if `all`, else only for what others of the same batch or stream may refer to, whose
/// id must be known before they are sent. A conditional create keeps its search, which is what makes it repeatable; what
/// may be signed is not rewritten.
fn chosen(unit: &Normalized, all: bool) -> Vec<Option<String>> {
    let new = |resource: &Resource| {
        let promised = resource.full_url().and_then(|url| unit.neighbours()?.find(url)).map(|it| it.id);
        promised.or_else(|| all.then(uuid::Uuid::new_v4)).map(|it| it.to_string())
    };
    let of = |resource: &Resource| match resource.interaction() {
        _ if unit.shape() == Shape::Sealed => None,
        Interaction::Create { if_none_exist: None } => new(resource),
        Interaction::Keep if carried(resource).is_none() => new(resource),
        Interaction::Create { .. } | Interaction::Update { .. } | Interaction::Keep => None,
    };
    unit.resources().iter().map(of).collect()
}

fn key(kind: u8, name: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + name.len());
    key.put_u8(kind);
    key.put_slice(name);
    key.freeze()
}

fn operation_of(key: &[u8]) -> Result<OperationId> {
    let bytes = key.get(1..).and_then(|it| it.try_into().ok()).ok_or_else(broken)?;
    Ok(OperationId::from_bytes(bytes))
}

fn encode(row: &StateRow) -> Result<Bytes> {
    serde_json::to_vec(row).map(Bytes::from).map_err(|_| Error::defect("a state can't be written"))
}

fn unhex(text: &str) -> Result<Bytes> {
    HEXLOWER.decode(text.as_bytes()).map(Bytes::from).map_err(|_| broken())
}

fn broken() -> Error {
    Error::defect("a staged row is not what was written")
}

fn uncommitted(error: &CommitError) -> Error {
    Error::outage(Peer::Store, Duration::from_secs(5), format!("stage: {error}"))
}
