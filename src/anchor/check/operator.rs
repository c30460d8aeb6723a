//! The operator's view: the store itself, with what opens its leaves.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::tile::{Resource, TilePath, WIDTH};
use sluice_merkle::tree::leaf_hash;

use super::{Finding, Recomputed, Report};
use crate::anchor::{Log, rows};
use crate::error::{Error, Result};
use crate::record::leaf::unhex;
use crate::record::leaf::{Opening, leaf_bytes, mac};
use crate::store::vault::{Vault, VaultError};
use crate::store::{Direction, KeyRange, Row, Table};

/// Rows that are read at once.
const ROWS: usize = 4096;

/// How many leaves there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Leaves {
    /// Versions of resources.
    pub resource: u64,
    /// Decisions at any door.
    pub decision: u64,
    /// Who used what.
    pub audit: u64,
    /// Leaves that commit to nothing.
    pub dummy: u64,
    /// Decisions and audits about patients whose data were erased: nobody can tell any more.
    #[serde(skip_serializing_if = "is_zero")]
    pub erased: u64,
}

/// The member that says what a leaf's record is about.
#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// Checks the log of a store, every checkpoint that it ever signed, and what opens its leaves.
///
/// # Errors
/// An outage of the store.
pub async fn operator(log: &Log, vault: &Vault) -> Result<Report> {
    let head = log.head();
    let mut checkpoints = Vec::new();
    let mut unreadable = Vec::new();
    let mut range = KeyRange::all();
    loop {
        let found = scan(log, Table::Checkpoint, range.clone()).await?;
        let Some(last) = found.last() else { break };
        range = range.after(last.key.clone());
        for row in &found {
            let size = rows::read_number(&row.key).unwrap_or_default();
            // Signed since the check began.
            if size > head.size {
                continue;
            }
            match SignedCheckpoint::parse(&row.value) {
                Ok(signed) if signed.checkpoint().size() == size => checkpoints.push(signed),
                _ => unreadable.push(Finding::Signature { size }),
            }
        }
    }
    if let Ok(newest) = SignedCheckpoint::parse(head.checkpoint.as_bytes()) {
        checkpoints.push(newest);
    }
    let mut again = Recomputed::new(&checkpoints, Some(log.verifier_key()));
    again.findings.extend(unreadable);
    let mut leaves = Leaves::default();
    let mut range = KeyRange::all().before(rows::leaf(head.size));
    let mut next = 0;
    while next < head.size {
        let found = scan(log, Table::Leaf, range.clone()).await?;
        let Some(last) = found.last() else { break };
        range = range.after(last.key.clone());
        count(log, vault, &found, &mut leaves, &mut again.findings).await?;
        for row in &found {
            if row.key != rows::leaf(next) {
                // A leaf is missing: what follows has another place than was signed.
                break;
            }
            again.append(leaf_hash(&row.value)).map_err(|_| Error::defect("the log is larger than a log can be"))?;
            next += 1;
            if next % u64::from(WIDTH) == 0 {
                tiles(log, &mut again, head.size).await?;
            }
        }
        if found.last().is_some_and(|last| rows::read_number(&last.key) != next.checked_sub(1)) {
            break;
        }
    }
    if next < head.size {
        again.findings.push(Finding::Leaf { index: next });
    } else {
        tiles(log, &mut again, head.size).await?;
    }
    Ok(Report { size: head.size, root: head.root, signed: true, findings: again.finish(), leaves: Some(leaves) })
}

async fn scan(log: &Log, table: Table, range: KeyRange) -> Result<Vec<Row>> {
    log.store.scan(table, range, ROWS, Direction::Up).await.map_err(Error::from)
}

/// Compares the stored tiles with those that the leaves make.
async fn tiles(log: &Log, again: &mut Recomputed<'_>, size: u64) -> Result<()> {
    for made in again.tiles() {
        // A partial tile on the way to this size is the beginning of a later one, and compared with that.
        if TilePath::within(made.path.resource(), made.path.index(), size) != Some(made.path) {
            continue;
        }
        let Resource::Hashes { .. } = made.path.resource() else { continue };
        let stored = rows::read_tile(&*log.store, &made.path).await?;
        if stored.as_deref() != Some(&made.bytes[..]) {
            again.findings.push(Finding::Tile { path: made.path });
        }
    }
    Ok(())
}

/// Counts leaves by what opens them, and holds openings against their leaves.
async fn count(
    log: &Log,
    vault: &Vault,
    found: &[Row],
    leaves: &mut Leaves,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let commitment = |row: &Row| row.value.get(1..).map(Bytes::copy_from_slice).unwrap_or_default();
    let keys = |table| found.iter().map(|row| (table, commitment(row))).collect::<Vec<_>>();
    let indexes = log.store.read_many(keys(Table::LeafIndex)).await?;
    let openings = log.store.read_many(keys(Table::Opening)).await?;
    for ((row, index), opening) in found.iter().zip(indexes).zip(openings) {
        let place = rows::read_number(&row.key).unwrap_or_default();
        let Some(index) = index else {
            leaves.dummy += 1;
            continue;
        };
        if index != row.key {
            findings.push(Finding::Opening { index: place });
            continue;
        }
        let Some(opening) = opening else {
            // A resource's opening lies with its version.
            leaves.resource += 1;
            continue;
        };
        let mut aad = vec![Table::Opening.tag()];
        aad.extend_from_slice(&commitment(row));
        let plain = match vault.open(&aad, &opening) {
            Ok(plain) => plain,
            Err(VaultError::Erased) => {
                leaves.erased += 1;
                continue;
            }
            Err(VaultError::Corrupt) => {
                findings.push(Finding::Opening { index: place });
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match opened(&plain, &row.value).as_deref() {
            Some("decision") => leaves.decision += 1,
            Some("audit") => leaves.audit += 1,
            Some("resource") => leaves.resource += 1,
            _ => findings.push(Finding::Opening { index: place }),
        }
    }
    Ok(())
}

/// The kind of the record that a leaf commits to; none if the opening is another's.
fn opened(plain: &[u8], leaf: &[u8]) -> Option<String> {
    let opening: Opening = serde_json::from_slice(plain).ok()?;
    let r = unhex(&opening.r)?;
    if leaf_bytes(&mac(&r, opening.record.as_bytes())) != leaf {
        return None;
    }
    serde_json::from_str::<Kind>(&opening.record).ok().map(|it| it.kind)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
