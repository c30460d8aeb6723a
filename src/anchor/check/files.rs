//! A log as a monitor sees it: a checkpoint and tiles, as c2sp.org/tlog-tiles lays them out.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sluice_merkle::checkpoint::{CheckpointError, SignedCheckpoint};
use sluice_merkle::note::VerifierKey;
use sluice_merkle::tile::{Resource, TilePath, WIDTH, decode_entries};
use sluice_merkle::tree::leaf_hash;

use super::{Finding, Recomputed, Report};

/// No file of a log is longer: 256 entries of 64 KiB.
pub(super) const FILE_BYTES_MAX: u64 = 256 * (2 + 65_535);

/// Where a log's files come from.
pub trait Source: Send + Sync {
    /// A file by its path below the log's prefix, such as `checkpoint` or `tile/0/000`; none if there is none, or none
    /// for us.
    fn file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, SourceError>>;
}

/// Why a log can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no checkpoint.
    #[error("there is no checkpoint")]
    NoCheckpoint,
    /// What should be one is none.
    #[error("the checkpoint can't be read: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A file could not be read.
    #[error("{path}: {text}")]
    Unreadable {
        /// Its path.
        path: String,
        /// The reason.
        text: String,
    },
}

/// A folder in which a log was fetched.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Source for Folder {
    fn file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, SourceError>> {
        async move {
            let unreadable = |text: String| SourceError::Unreadable { path: path.to_owned(), text };
            let full = self.0.join(path);
            match tokio::fs::metadata(&full).await {
                Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(unreadable("too long".to_owned())),
                Ok(metadata) if !metadata.is_file() => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(unreadable(error.to_string())),
            }
            tokio::fs::read(&full).await.map(|bytes| Some(bytes.into())).map_err(|error| unreadable(error.to_string()))
        }
        .boxed()
    }
}

/// Checks a log from its files. The signature is checked by `key` alone; `earlier` are checkpoints that the caller has
/// seen before, from which the log must go on. Entry tiles are checked where the source gives them.
///
/// # Errors
/// [`SourceError`] if there is nothing to check, or it can't be read.
pub async fn files(
    source: &dyn Source,
    key: Option<&VerifierKey>,
    earlier: &[SignedCheckpoint],
) -> Result<Report, SourceError> {
    let text = source.file("checkpoint").await?.ok_or(SourceError::NoCheckpoint)?;
    let newest = SignedCheckpoint::parse(&text)?;
    let size = newest.checkpoint().size();
    let mut log = Recomputed::new(earlier.iter().chain([&newest]), key);
    let mut wrong = Vec::new();
    for index in 0..size.div_ceil(u64::from(WIDTH)) {
        let Some(path) = TilePath::within(Resource::Hashes { level: 0 }, index, size) else { break };
        let Some(hashes) = tile(source, &path).await? else {
            // Nothing can be said of what follows.
            log.findings.push(Finding::Missing { path });
            break;
        };
        let (hashes, _) = hashes.as_chunks::<32>();
        for hash in hashes {
            if log.append(*hash).is_err() {
                break;
            }
        }
        entries(source, index, size, hashes, &mut wrong).await?;
        // Of the tiles of this size alone: the log has no partial tiles of sizes that were never published.
        for made in log.tiles() {
            if made.path.is_partial()
                && TilePath::within(made.path.resource(), made.path.index(), size) != Some(made.path)
            {
                continue;
            }
            match tile(source, &made.path).await? {
                None => wrong.push(Finding::Missing { path: made.path }),
                Some(shown) if shown != made.bytes[..] => wrong.push(Finding::Tile { path: made.path }),
                Some(_) => {}
            }
        }
    }
    let root = *newest.checkpoint().root();
    let mut findings = log.finish();
    findings.extend(wrong);
    Ok(Report { size, root, signed: key.is_some(), findings, leaves: None })
}

/// The tile at a path, or the beginning of the full one: logs may drop partial tiles once that is there.
async fn tile(source: &dyn Source, path: &TilePath) -> Result<Option<Bytes>, SourceError> {
    let bytes = usize::from(path.width()) * 32;
    let mut found = source.file(&path.to_string()).await?;
    if found.is_none()
        && let Ok(full) = TilePath::new(path.resource(), path.index(), WIDTH)
    {
        found = source.file(&full.to_string()).await?;
    }
    Ok(found.filter(|found| found.len() >= bytes).map(|found| found.slice(..bytes)))
}

async fn entries(
    source: &dyn Source,
    index: u64,
    size: u64,
    hashes: &[[u8; 32]],
    wrong: &mut Vec<Finding>,
) -> Result<(), SourceError> {
    let Some(path) = TilePath::within(Resource::Entries, index, size) else { return Ok(()) };
    let Some(bundle) = source.file(&path.to_string()).await? else { return Ok(()) };
    let first = index * u64::from(WIDTH);
    let Ok(entries) = decode_entries(&bundle, path.width()) else {
        wrong.push(Finding::Tile { path });
        return Ok(());
    };
    let unlike = (first..).zip(entries.iter().zip(hashes)).filter(|(_, (entry, hash))| leaf_hash(entry) != **hash);
    wrong.extend(unlike.map(|(index, _)| Finding::Leaf { index }));
    Ok(())
}
