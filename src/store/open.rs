//! Opens all of the store as the settings say: rows, keystore and vault, spool.
//!
//! Rows and keystore belong together: a keystore is made only for a store that has none yet, and from then on a store
//! opens with that one alone. A wrong mount is an error, not a new keystore under which nothing old opens.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use super::embedded::{Embedded, Options};
use super::keystore::Keystore;
use super::spool::{Limits, Spools};
use super::vault::Vault;
use super::{Batch, OpenError, Store, Table};
use crate::config;
use crate::keys::Keys;

/// The row that names the store's keystore by its id.
const KEYSTORE_ROW: &[u8] = b"store/keystore";

/// The keystore's file in its directory.
const KEYSTORE_FILE: &str = "subjects";

/// An open store in all its parts.
pub struct Opened {
    /// The rows.
    pub store: Arc<dyn Store>,
    /// What seals them.
    pub vault: Arc<Vault>,
    /// What holds bodies and answers for as long as they are worked on.
    pub spools: Spools,
}

/// Opens the store of these settings, or makes a new one where there is none. Directories that are missing are made.
pub async fn open(settings: &config::Store, keys: Arc<Keys>) -> Result<Opened, OpenError> {
    for dir in [&settings.dir, &settings.keystore_dir, &settings.spool_dir] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| OpenError::Io { dir: dir.display().to_string(), source })?;
    }
    let store = Embedded::open(&Options::from(settings))?;
    let keystore = Arc::new(bound_keystore(&store, settings, &keys).await?);
    let vault = Arc::new(Vault::new(&keys, keystore)?);
    let spools = Spools::new(&settings.spool_dir, Limits::default());
    Ok(Opened { store: Arc::new(store), vault, spools })
}

async fn bound_keystore(store: &dyn Store, settings: &config::Store, keys: &Arc<Keys>) -> Result<Keystore, OpenError> {
    let path = settings.keystore_dir.join(KEYSTORE_FILE);
    let wrong = |path: &Path| OpenError::WrongKeystore {
        keystore: path.to_path_buf(),
        store: settings.dir.display().to_string(),
    };
    let there = path.symlink_metadata().is_ok();
    if let Some(id) = store.read(Table::Meta, KEYSTORE_ROW).await? {
        if !there {
            return Err(wrong(&path));
        }
        let keystore = Keystore::open(&path, Arc::clone(keys))?;
        return if id == keystore.id()[..] { Ok(keystore) } else { Err(wrong(&path)) };
    }
    let keystore =
        if there { Keystore::open(&path, Arc::clone(keys))? } else { Keystore::create(&path, Arc::clone(keys))? };
    // A crash before this commit leaves a keystore that is bound the next time: nothing was sealed under it, as
    // nothing opens without the binding.
    let row = Batch::new().expect_absent(Table::Meta, KEYSTORE_ROW);
    store.commit(row.put(Table::Meta, KEYSTORE_ROW, keystore.id().to_vec())).await?;
    Ok(keystore)
}

impl From<&config::Store> for Options {
    fn from(settings: &config::Store) -> Self {
        Self {
            cache_bytes: settings.cache_bytes as u64,
            disk_reserve_bytes: settings.free_bytes_min,
            ..Self::new(&settings.dir)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(dir: &Path) -> config::Store {
        config::Store {
            dir: dir.join("store"),
            keystore_dir: dir.join("keystore"),
            spool_dir: dir.join("spool"),
            cache_bytes: 1 << 20,
            free_bytes_min: 0,
            idempotency_window: Duration::from_secs(1),
        }
    }

    fn keyring(dir: &Path) -> Arc<Keys> {
        Arc::new(Keys::open(&Keys::create(dir).unwrap()).unwrap())
    }

    #[tokio::test]
    async fn a_store_opens_with_its_keystore_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keyring(&dir.path().join("keys"));
        let settings = settings(dir.path());
        let opened = open(&settings, Arc::clone(&keys)).await.unwrap();
        opened.vault.prepare(vec![[1; 32]]).await.unwrap();
        let sealed = opened.vault.seal(&[[1; 32]], b"", b"text").unwrap();
        drop(opened);
        let opened = open(&settings, Arc::clone(&keys)).await.unwrap();
        assert_eq!(opened.vault.open(b"", &sealed).unwrap(), b"text");
        drop(opened);

        let file = settings.keystore_dir.join(KEYSTORE_FILE);
        let away = file.with_extension("away");
        std::fs::rename(&file, &away).unwrap();
        let missing = open(&settings, Arc::clone(&keys)).await;
        assert!(matches!(missing, Err(OpenError::WrongKeystore { .. })));
        assert!(!file.exists(), "no keystore is made for a store that has one");
        drop(Keystore::create(&file, Arc::clone(&keys)).unwrap());
        let other = open(&settings, Arc::clone(&keys)).await;
        assert!(matches!(other, Err(OpenError::WrongKeystore { .. })));
        std::fs::rename(&away, &file).unwrap();
        open(&settings, keys).await.unwrap();
    }
}
