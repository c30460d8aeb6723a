//! Stage: a permitted unit is durable before anything leaves the house.
//!
//! Takes: [`Permitted`]. Gives: [`Staged`], whose existence proves that the operation has an id and, if there is an
//! upstream to be told, that id and ciphertext are durable. Never: sends anything; keeps plaintext.
//!
//! Without an upstream nothing leaves before `record`, so stage and record are one commit and this stage only names
//! the operation. With one, three rows of [`Table::Staged`] are committed together: the operation's state, its sealed
//! body, and the mark by which the same unit, sent again meanwhile, is known. The body is sealed under its subjects'
//! keys and one of the operation's own, so that it can be destroyed alone.

mod kept;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use self::kept::Kept;
use crate::consent::door::Permitted;
use crate::consent::subjects::Subjects;
use crate::error::{Error, Peer, Result};
use crate::ingest::unit::{Interaction, Received, Shape};
use crate::keys::{HmacKey, Keys};
use crate::normalize::{Normalized, Resource};
use crate::store::vault::{Vault, VaultError, place};
use crate::store::{Batch, CommitError, Direction, KeyRange, Store, Table};
use sluice_fhir::tree::Node;

/// Leftovers read at a time.
const LEFTOVERS_MAX: usize = 256;

/// When the sender of a unit that is still under way may ask again.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// The id of an operation: random, so it tells nothing; what a receipt is asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(uuid::Uuid);

impl OperationId {
    /// A new one.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// From its text, as a receipt's URL has it.
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(Self)
    }

    /// Its 16 bytes, as keys of rows have them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of an operation between stage and record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Durable. After a restart that says nothing about whether it was sent.
    Staged,
    /// Sent, and not answered.
    Unknown,
    /// An operator decides.
    Parked,
    /// The upstream said no, with this HTTP status. No body is left.
    Refused(u16),
}

/// Where staged units are kept.
pub struct Desk {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What seals bodies.
    pub vault: Arc<Vault>,
    /// For the names of rows.
    pub keys: Arc<Keys>,
    /// Whether creates get ids of ours.
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

/// Whether units are staged.
pub enum Stage {
    /// No upstream: nothing leaves before it is recorded.
    Local,
    /// Before they are told to an upstream.
    Desk(Arc<Desk>),
}

/// A unit that a crash can no longer lose. Only `stage` makes one.
#[derive(Debug)]
pub struct Staged {
    permitted: Permitted,
    operation: OperationId,
    ids: Vec<Option<String>>,
    rows: Vec<Bytes>,
    state: Option<Bytes>,
    _claim: Option<Claim>,
}

/// An operation that an earlier task left behind.
#[derive(Debug)]
pub struct Leftover {
    operation: OperationId,
    ids: Vec<Option<String>>,
    twin: Option<Bytes>,
    state: Bytes,
    claim: Claim,
}

#[derive(Debug, Serialize, Deserialize)]
struct StateRow {
    state: State,
    /// When it became so: microseconds since 1970.
    since: i64,
    twin: Option<String>,
}

/// Stages a unit. `twin` is what the same unit, sent again, is known by.
///
/// # Errors
/// An outage of the store; of the upstream if the same unit is still under way.
pub async fn unit(permitted: Permitted, twin: Option<Bytes>, stage: &Stage) -> Result<Staged> {
    match stage {
        Stage::Local => Ok(local(permitted)),
        Stage::Desk(desk) => desk.stage(permitted, twin).await,
    }
}

/// Destroys what a recorded operation was kept under.
pub async fn close(operation: OperationId, stage: &Stage) {
    if let Stage::Desk(desk) = stage
        && let Err(error) = desk.destroy(operation).await
    {
        // Nothing is sealed under it any more: the record stands, and so does its answer.
        tracing::warn!(%operation, %error, "the key of a recorded operation stays");
    }
}

/// Names the operation of a unit that is told to nobody before it is recorded.
pub fn local(permitted: Permitted) -> Staged {
    let operation = OperationId::random();
    Staged { permitted, operation, ids: Vec::new(), rows: Vec::new(), state: None, _claim: None }
}

/// A leftover that has been permitted again goes on as the operation that it was.
pub fn again(permitted: Permitted, leftover: Leftover) -> Staged {
    let Leftover { operation, ids, twin, state, claim } = leftover;
    Staged { permitted, operation, ids, rows: rows(operation, twin.as_ref()), state: Some(state), _claim: Some(claim) }
}

impl Staged {
    /// The unit.
    pub fn permitted(&self) -> &Permitted {
        &self.permitted
    }

    /// The operation's id.
    pub fn operation(&self) -> OperationId {
        self.operation
    }

    /// The id of ours that a resource of the unit gets at the upstream; none where the upstream chooses.
    pub fn client_id(&self, at: usize) -> Option<&str> {
        self.ids.get(at)?.as_deref()
    }

    /// How long it has been in the state that it is in.
    pub fn age(&self) -> Duration {
        let row = self.state.as_deref().and_then(|it| serde_json::from_slice::<StateRow>(it).ok());
        let micros = row.map_or(0, |row| now().saturating_sub(row.since));
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Adds to the commit of `record` that the operation is staged no more, if it still is: two tasks can't both
    /// record it.
    #[must_use]
    pub fn settle(&self, mut batch: Batch) -> Batch {
        if let (Some(state), Some(key)) = (&self.state, self.rows.first()) {
            batch = batch.expect_value(Table::Staged, key.clone(), state.clone());
        }
        for row in &self.rows {
            batch = batch.delete(Table::Staged, row.clone());
        }
        batch
    }
}

impl Leftover {
    /// The operation's id.
    pub fn operation(&self) -> OperationId {
        self.operation
    }
}

impl Desk {
    async fn stage(&self, permitted: Permitted, twin: Option<Bytes>) -> Result<Staged> {
        let unit = permitted.checked().normalized();
        let ids = if self.client_ids { chosen(unit) } else { vec![None; unit.resources().len()] };
        let operation = OperationId::random();
        let claim = self.busy.claim(operation).ok_or_else(|| Error::defect("an operation's id came twice"))?;
        let plain = Kept::of(unit, ids.clone())?.encode()?;
        let mut subjects: Vec<[u8; 32]> =
            permitted.subjects().iter().flat_map(Subjects::pseudonyms).map(|it| it.0).collect();
        subjects.push(self.tag(operation));
        subjects.sort_unstable();
        subjects.dedup();
        // A crash right here leaves keys that nothing is sealed with: harmless.
        self.vault.prepare(subjects.clone()).await.map_err(|error| sealed(&error))?;
        let body_key = key(BODY, operation.as_bytes());
        let body = self.vault.seal(&subjects, &place(Table::Staged, &body_key), &plain).map_err(|it| sealed(&it))?;
        let state = state_row(State::Staged, twin.as_ref())?;
        let mut batch = Batch::new();
        if let Some(twin) = &twin {
            let mark = operation.as_bytes().to_vec();
            batch = batch.expect_absent(Table::Staged, twin_key(twin)).put(Table::Staged, twin_key(twin), mark);
        }
        batch = batch.put(Table::Staged, key(STATE, operation.as_bytes()), state.clone());
        batch = batch.put(Table::Staged, body_key, body);
        // A crash before the commit leaves nothing, and nothing was sent. A crash after it leaves a leftover of which it
        // is not known whether it was sent.
        if let Err(error) = self.store.commit(batch).await {
            self.destroy(operation).await?;
            return Err(match error {
                CommitError::Conflict { .. } => {
                    Error::outage(Peer::UpstreamSilent, UNDER_WAY, "the same unit is still under way")
                }
                error => uncommitted(&error),
            });
        }
        Ok(Staged {
            permitted,
            operation,
            ids,
            rows: rows(operation, twin.as_ref()),
            state: Some(state),
            _claim: Some(claim),
        })
    }

    /// Notes what is known of an operation.
    ///
    /// # Errors
    /// An outage of the store, also if another task has gone on with the operation.
    pub async fn mark(&self, staged: &mut Staged, state: State) -> Result<()> {
        let (Some(before), Some(key)) = (staged.state.clone(), staged.rows.first()) else { return Ok(()) };
        let row: StateRow = serde_json::from_slice(&before).map_err(|_| broken())?;
        if row.state == state {
            return Ok(());
        }
        let value = encode(&StateRow { state, since: now(), twin: row.twin })?;
        let batch = Batch::new().expect_value(Table::Staged, key.clone(), before).put(
            Table::Staged,
            key.clone(),
            value.clone(),
        );
        // A crash around this leaves the state before: both are resolved alike.
        self.store.commit(batch).await.map_err(|error| uncommitted(&error))?;
        staged.state = Some(value);
        Ok(())
    }

    /// Parks a leftover that can't go on by itself.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn park(&self, leftover: OperationId) -> Result<()> {
        let key = key(STATE, leftover.as_bytes());
        let row = self.store.read(Table::Staged, &key).await.map_err(|error| unread(&error))?;
        let Some(row) = row else { return Ok(()) };
        let parsed: StateRow = serde_json::from_slice(&row).map_err(|_| broken())?;
        let value = encode(&StateRow { state: State::Parked, since: now(), twin: parsed.twin })?;
        let batch = Batch::new().expect_value(Table::Staged, key.clone(), row).put(Table::Staged, key, value);
        self.store.commit(batch).await.map_err(|error| uncommitted(&error))
    }

    /// Takes a unit back: it has not happened and never will. The body's key is destroyed; with a status, the refusal
    /// stays on record.
    ///
    /// # Errors
    /// An outage of the store. Then it stays staged.
    pub async fn take_back(&self, staged: Staged, refused: Option<u16>) -> Result<()> {
        let mut batch = staged.settle(Batch::new());
        if let Some(status) = refused {
            let row = encode(&StateRow { state: State::Refused(status), since: now(), twin: None })?;
            batch = batch.put(Table::Staged, key(REFUSED, staged.operation.as_bytes()), row);
        }
        // A crash before this leaves a leftover, which is asked about and refused again; a crash after it leaves a key
        // that nothing is sealed with.
        self.store.commit(batch).await.map_err(|error| uncommitted(&error))?;
        self.destroy(staged.operation).await
    }

    /// Destroys the key of an operation's staged body, which no row holds any more. A crash before it leaves a key that
    /// nothing is sealed with.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn destroy(&self, operation: OperationId) -> Result<()> {
        let (vault, tag) = (Arc::clone(&self.vault), self.tag(operation));
        let destroyed = tokio::task::spawn_blocking(move || vault.destroy(&tag)).await;
        let destroyed = destroyed.map_err(|_| Error::defect("a key's destruction was cut short"))?;
        destroyed.map(drop).map_err(|error| sealed(&error))
    }

    /// What an operation between stage and record is; also one that the upstream refused. None for any other.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn state(&self, operation: OperationId) -> Result<Option<State>> {
        for kind in [STATE, REFUSED] {
            let row = self.store.read(Table::Staged, &key(kind, operation.as_bytes())).await;
            if let Some(row) = row.map_err(|error| unread(&error))? {
                let row: StateRow = serde_json::from_slice(&row).map_err(|_| broken())?;
                return Ok(Some(row.state));
            }
        }
        Ok(None)
    }

    /// What earlier tasks left behind and no operator is asked about, as it was received. What was erased meanwhile is
    /// dropped.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn leftovers(&self) -> Result<Vec<(Received, Leftover)>> {
        let mut found = Vec::new();
        let mut range = KeyRange::prefix(vec![STATE]);
        loop {
            let page = self.store.scan(Table::Staged, range.clone(), LEFTOVERS_MAX, Direction::Up).await;
            let page = page.map_err(|error| unread(&error))?;
            let Some(last) = page.last() else { return Ok(found) };
            range = range.after(last.key.clone());
            for row in page {
                let bytes = row.key.get(1..).and_then(|it| <[u8; 16]>::try_from(it).ok()).ok_or_else(broken)?;
                let operation = OperationId(uuid::Uuid::from_bytes(bytes));
                let parsed: StateRow = serde_json::from_slice(&row.value).map_err(|_| broken())?;
                if parsed.state == State::Parked {
                    continue;
                }
                let Some(claim) = self.busy.claim(operation) else { continue };
                found.extend(self.reopen(operation, row.value, parsed.twin, claim).await?);
            }
        }
    }

    async fn reopen(
        &self,
        operation: OperationId,
        state: Bytes,
        twin: Option<String>,
        claim: Claim,
    ) -> Result<Option<(Received, Leftover)>> {
        let twin = twin.as_deref().map(unhex).transpose()?;
        let body_key = key(BODY, operation.as_bytes());
        let body = self.store.read(Table::Staged, &body_key).await.map_err(|error| unread(&error))?;
        // Its task finished between the scan and here.
        let Some(body) = body else { return Ok(None) };
        match self.vault.open(&place(Table::Staged, &body_key), &body) {
            Ok(plain) => {
                let kept = Kept::decode(&plain)?;
                let ids = kept.ids.clone();
                Ok(Some((kept.received()?, Leftover { operation, ids, twin, state, claim })))
            }
            Err(VaultError::Erased) => {
                let mut batch = Batch::new();
                for row in rows(operation, twin.as_ref()) {
                    batch = batch.delete(Table::Staged, row);
                }
                self.store.commit(batch).await.map_err(|error| uncommitted(&error))?;
                Ok(None)
            }
            Err(error) => Err(sealed(&error)),
        }
    }

    /// The name under which an operation has a key of its own.
    fn tag(&self, operation: OperationId) -> [u8; 32] {
        self.keys.hmac(HmacKey::Index, &[b"operation", operation.as_bytes()])
    }
}

impl Busy {
    fn claim(&self, operation: OperationId) -> Option<Claim> {
        let inserted = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(operation);
        inserted.then(|| Claim(self.clone(), operation))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// The ids of ours. A conditional create keeps its search, which is what makes it repeatable; what may be signed is not
/// rewritten.
fn chosen(unit: &Normalized) -> Vec<Option<String>> {
    let new = |resource: &Resource| {
        let promised = resource.full_url().and_then(|url| unit.neighbours()?.find(url)).map(|it| it.id);
        Some(promised.unwrap_or_else(uuid::Uuid::new_v4).to_string())
    };
    let of = |resource: &Resource| match resource.interaction() {
        _ if unit.shape() == Shape::Sealed => None,
        Interaction::Create { if_none_exist: None } => new(resource),
        Interaction::Keep if carried(resource).is_none() => new(resource),
        Interaction::Create { .. } | Interaction::Update { .. } | Interaction::Keep => None,
    };
    unit.resources().iter().map(of).collect()
}

/// The id that a resource carries, if it is one.
pub fn carried(resource: &Resource) -> Option<String> {
    let id = resource.tree().root().member("id").and_then(Node::as_str)?;
    sluice_fhir::reference::is_id(&id).then(|| id.into_owned())
}

const STATE: u8 = 0;
const TWIN: u8 = 1;
const BODY: u8 = 2;
const REFUSED: u8 = 3;

fn key(kind: u8, name: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + name.len());
    key.put_u8(kind);
    key.put_slice(name);
    key.freeze()
}

fn twin_key(twin: &[u8]) -> Bytes {
    key(TWIN, twin)
}

/// The rows of an operation, its state first.
fn rows(operation: OperationId, twin: Option<&Bytes>) -> Vec<Bytes> {
    let mut rows = vec![key(STATE, operation.as_bytes()), key(BODY, operation.as_bytes())];
    rows.extend(twin.map(|it| twin_key(it)));
    rows
}

fn state_row(state: State, twin: Option<&Bytes>) -> Result<Bytes> {
    let twin = twin.map(|it| HEXLOWER.encode(it));
    encode(&StateRow { state, since: now(), twin })
}

fn encode(row: &StateRow) -> Result<Bytes> {
    serde_json::to_vec(row).map(Bytes::from).map_err(|_| Error::defect("a state can't be written"))
}

fn unhex(text: &str) -> Result<Bytes> {
    HEXLOWER.decode(text.as_bytes()).map(Bytes::from).map_err(|_| broken())
}

fn now() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000).unwrap_or(0)
}

fn broken() -> Error {
    Error::defect("a staged row is not what was written")
}

fn unread(error: &crate::store::StoreError) -> Error {
    Error::outage(Peer::Store, Duration::from_secs(1), format!("read: {error}"))
}

fn uncommitted(error: &CommitError) -> Error {
    Error::outage(Peer::Store, Duration::from_secs(5), format!("stage: {error}"))
}

fn sealed(error: &VaultError) -> Error {
    Error::outage(Peer::Store, Duration::from_secs(5), format!("vault: {error}"))
}
