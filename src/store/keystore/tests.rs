//! Tests of the keystore. Those with a process that is killed are in `tests/it/store`.

use std::os::unix::fs::FileExt;

use super::*;

struct Bed {
    dir: tempfile::TempDir,
    keys: Arc<Keys>,
}

impl Bed {
    fn new() -> (Self, Keystore) {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::open(&Keys::create(&dir.path().join("keys")).unwrap()).unwrap());
        let bed = Self { dir, keys };
        let keystore = Keystore::create(&bed.path(), Arc::clone(&bed.keys)).unwrap();
        (bed, keystore)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("keystore")
    }

    fn open(&self) -> Keystore {
        Keystore::open(&self.path(), Arc::clone(&self.keys)).unwrap()
    }

    fn open_with(&self, faults: Faults) -> Keystore {
        Keystore::open_with(&self.path(), Arc::clone(&self.keys), Some(faults)).unwrap()
    }

    /// The whole file, as someone who took the disk would read it.
    fn file(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }
}

/// Tags as spread out as real ones, which are keyed hashes.
fn subject(n: u32) -> SubjectKey {
    use sha2::Digest;
    sha2::Sha256::digest(n.to_be_bytes()).into()
}

fn key_of(keystore: &Keystore, n: u32) -> Option<[u8; 32]> {
    keystore.key_of(&subject(n)).unwrap().map(|(_, secret)| *secret.expose())
}

#[test]
fn keys_last() {
    let (bed, keystore) = Bed::new();
    assert!(keystore.is_empty());
    assert_eq!(keystore.slot(&subject(1)).unwrap(), None);
    keystore.ensure(&[subject(1), subject(2), subject(1)]).unwrap();
    keystore.ensure(&[]).unwrap();
    assert_eq!(keystore.len(), 2);
    let keys = [1, 2].map(|n| key_of(&keystore, n).unwrap());
    assert_ne!(keys[0], keys[1]);
    let (id, secret) = keystore.key_of(&subject(2)).unwrap().unwrap();
    assert_eq!(keystore.key(id).unwrap().expose(), secret.expose());
    keystore.ensure(&[subject(2), subject(3)]).unwrap();
    assert_eq!(key_of(&keystore, 2), Some(keys[1]), "a key is never replaced");
    drop(keystore);
    let keystore = bed.open();
    assert_eq!(keystore.len(), 3);
    assert_eq!([1, 2].map(|n| key_of(&keystore, n).unwrap()), keys);
    assert!(bed.file().windows(32).all(|window| window != keys[0]), "a key lies on disk in the clear");
}

#[test]
fn destroyed_is_gone_for_ever() {
    let (bed, keystore) = Bed::new();
    keystore.ensure(&[subject(1), subject(2)]).unwrap();
    let (id, secret) = keystore.key_of(&subject(1)).unwrap().unwrap();
    let slot = usize::try_from(offset(id.index)).unwrap();
    let before = bed.file()[slot..slot + SLOT_BYTES].to_vec();
    assert!(keystore.destroy(&subject(1)).unwrap());
    assert!(!keystore.destroy(&subject(1)).unwrap());
    assert!(matches!(keystore.key(id), Err(KeystoreError::Erased)));
    assert_eq!(keystore.slot(&subject(1)).unwrap(), None);
    assert_eq!(keystore.len(), 1);
    // Neither the wrapped key nor the tag is left in the file.
    let wrapped = &before[37..97];
    assert!(bed.file().windows(wrapped.len()).all(|window| window != wrapped));
    assert!(bed.file().windows(32).all(|window| window != subject(1)));
    // The slot goes to another; what named it before stays erased.
    keystore.ensure(&[subject(3)]).unwrap();
    let reused = keystore.slot(&subject(3)).unwrap().unwrap();
    assert_eq!((reused.index, reused.generation), (id.index, id.generation + 1));
    assert!(matches!(keystore.key(id), Err(KeystoreError::Erased)));
    keystore.ensure(&[subject(1)]).unwrap();
    assert_ne!(key_of(&keystore, 1).unwrap(), *secret.expose());
    drop(keystore);
    let keystore = bed.open();
    assert!(matches!(keystore.key(id), Err(KeystoreError::Erased)));
    assert_eq!(keystore.destroy_all(&[subject(1), subject(2), subject(9)]).unwrap(), 2);
    assert_eq!(keystore.len(), 1);
}

#[test]
fn unknown_slots_are_not_erased_ones() {
    let (_bed, keystore) = Bed::new();
    keystore.ensure(&[subject(1)]).unwrap();
    let id = keystore.slot(&subject(1)).unwrap().unwrap();
    for id in [
        SlotId { index: id.index + 1, ..id },
        SlotId { index: u32::MAX, ..id },
        SlotId { generation: id.generation + 1, ..id },
    ] {
        assert!(matches!(keystore.key(id), Err(KeystoreError::Damaged)));
    }
}

#[test]
fn clashing_tags_are_told_apart() {
    let (bed, keystore) = Bed::new();
    let mut other = subject(1);
    other[31] ^= 1;
    keystore.ensure(&[subject(1)]).unwrap();
    assert_eq!(keystore.slot(&other).unwrap(), None);
    keystore.ensure(&[other]).unwrap();
    for keystore in [keystore, bed.reopened()] {
        assert_ne!(keystore.slot(&other).unwrap().unwrap(), keystore.slot(&subject(1)).unwrap().unwrap());
        drop(keystore);
    }
    let keystore = bed.open();
    assert!(keystore.destroy(&subject(1)).unwrap());
    assert_eq!(keystore.slot(&subject(1)).unwrap(), None);
    assert!(keystore.slot(&other).unwrap().is_some());
    keystore.ensure(&[subject(1)]).unwrap();
    assert!(keystore.destroy(&other).unwrap());
    assert!(keystore.slot(&subject(1)).unwrap().is_some());
}

#[test]
fn one_sync_serves_many() {
    let (bed, keystore) = Bed::new();
    drop(keystore);
    let syncs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&syncs);
    let keystore = bed.open_with(Faults::new(move |persist| {
        counted.store(persist, std::sync::atomic::Ordering::Relaxed);
        // Long enough for all the others to come and wait.
        std::thread::park_timeout(std::time::Duration::from_millis(30));
        None
    }));
    std::thread::scope(|scope| {
        for n in 0..16 {
            let keystore = &keystore;
            scope.spawn(move || keystore.ensure(&[subject(n), subject(n + 100), subject(7)]).unwrap());
        }
    });
    assert_eq!(keystore.len(), 32);
    let syncs = syncs.load(std::sync::atomic::Ordering::Relaxed);
    assert!(syncs <= 4, "{syncs} syncs for 16 callers");
}

#[test]
fn failed_writes_end_writing_until_a_restart() {
    for (fault, done) in [(Fault::Undone, false), (Fault::Done, true)] {
        let (bed, keystore) = Bed::new();
        keystore.ensure(&[subject(1)]).unwrap();
        drop(keystore);
        let keystore = bed.open_with(Faults::new(move |_| Some(fault)));
        assert!(matches!(keystore.ensure(&[subject(2)]), Err(KeystoreError::Io { .. })));
        assert!(matches!(keystore.ensure(&[subject(2)]), Err(KeystoreError::Poisoned)));
        assert!(matches!(keystore.destroy(&subject(1)), Err(KeystoreError::Poisoned)));
        assert_eq!(keystore.slot(&subject(2)).unwrap(), None, "nothing is sealed under a key that may not last");
        assert!(key_of(&keystore, 1).is_some(), "reads go on");
        drop(keystore);
        let keystore = bed.open();
        assert_eq!(keystore.slot(&subject(2)).unwrap().is_some(), done);
        keystore.ensure(&[subject(2)]).unwrap();
        let id = keystore.slot(&subject(1)).unwrap().unwrap();
        drop(keystore);

        let keystore = bed.open_with(Faults::new(move |_| Some(fault)));
        assert!(matches!(keystore.destroy(&subject(1)), Err(KeystoreError::Io { .. })));
        assert_eq!(keystore.slot(&subject(1)).unwrap(), None, "nothing more is sealed under it");
        drop(keystore);
        let keystore = bed.open();
        assert_eq!(matches!(keystore.key(id), Err(KeystoreError::Erased)), done);
        assert_eq!(keystore.destroy(&subject(1)).unwrap(), !done);
        assert!(matches!(keystore.key(id), Err(KeystoreError::Erased)));
    }
}

/// A slot that was written by half: noticed, never used, and gone once its subject is destroyed.
#[test]
fn torn_slots_are_noticed() {
    for cut in 1..101 {
        let (bed, keystore) = Bed::new();
        keystore.ensure(&[subject(1), subject(2)]).unwrap();
        let id = keystore.slot(&subject(1)).unwrap().unwrap();
        drop(keystore);
        let at = offset(id.index);
        let file = OpenOptions::new().write(true).open(bed.path()).unwrap();
        file.write_all_at(&vec![0; SLOT_BYTES - cut], at + cut as u64).unwrap();
        let keystore = bed.open();
        assert_eq!((keystore.damaged(), keystore.len()), (1, 1), "cut at {cut}");
        assert!(matches!(keystore.key(id), Err(KeystoreError::Damaged)));
        // The subject gets a new key, in another slot.
        keystore.ensure(&[subject(1)]).unwrap();
        assert_ne!(keystore.slot(&subject(1)).unwrap().unwrap().index, id.index);
        assert!(keystore.destroy(&subject(1)).unwrap());
        let whole_tag = cut >= 37;
        assert_eq!(keystore.damaged(), usize::from(!whole_tag));
        assert_eq!(matches!(keystore.key(id), Err(KeystoreError::Erased)), whole_tag);
    }
}

#[test]
fn a_file_cut_short_keeps_the_rest() {
    let (bed, keystore) = Bed::new();
    keystore.ensure(&[subject(1), subject(2)]).unwrap();
    drop(keystore);
    let file = OpenOptions::new().write(true).open(bed.path()).unwrap();
    file.set_len(offset(2) + 50).unwrap();
    let keystore = bed.open();
    assert_eq!(keystore.len(), 2);
    for n in 3..1000 {
        keystore.ensure(&[subject(n)]).unwrap();
        if n == 10 {
            break;
        }
    }
    assert_eq!(keystore.len(), 10);
    drop(keystore);
    assert_eq!(bed.open().len(), 10);
}

#[test]
fn what_is_no_keystore_is_refused() {
    let (bed, keystore) = Bed::new();
    let path = bed.path();
    let open = || Keystore::open(&path, Arc::clone(&bed.keys));
    assert!(matches!(open(), Err(KeystoreError::Locked(_))));
    drop(keystore);
    assert!(matches!(Keystore::create(&path, Arc::clone(&bed.keys)), Err(KeystoreError::Exists(_))));
    let other = Keys::open(&Keys::create(&bed.dir.path().join("other")).unwrap()).unwrap();
    assert!(matches!(Keystore::open(&path, Arc::new(other)), Err(KeystoreError::WrongMaster(_))));
    let good = bed.file();
    for at in [0, 15, 20, 40, 91, 93] {
        let mut changed = good.clone();
        changed[at] ^= 1;
        std::fs::write(&path, changed).unwrap();
        assert!(matches!(open(), Err(KeystoreError::Form(_))), "byte {at}");
    }
    std::fs::write(&path, &good[..500]).unwrap();
    assert!(matches!(open(), Err(KeystoreError::Io { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(open(), Err(KeystoreError::Io { .. })), "a missing keystore is not a new one");
}

/// The slot of one subject put in the place of another's opens for neither.
#[test]
fn swapped_slots_are_refused() {
    let (bed, keystore) = Bed::new();
    keystore.ensure(&[subject(1), subject(2)]).unwrap();
    let ids = [1, 2].map(|n| keystore.slot(&subject(n)).unwrap().unwrap());
    drop(keystore);
    let bytes = bed.file();
    let file = OpenOptions::new().write(true).open(bed.path()).unwrap();
    for (from, to) in [(ids[0], ids[1]), (ids[1], ids[0])] {
        let from = usize::try_from(offset(from.index)).unwrap();
        file.write_all_at(&bytes[from..from + SLOT_BYTES], offset(to.index)).unwrap();
    }
    let keystore = bed.open();
    assert_eq!(keystore.damaged(), 2);
    assert!(ids.into_iter().all(|id| matches!(keystore.key(id), Err(KeystoreError::Damaged))));
}

#[test]
fn the_index_is_small() {
    const SUBJECTS: u32 = 120_000;
    let (bed, keystore) = Bed::new();
    let subjects: Vec<_> = (0..SUBJECTS).map(subject).collect();
    for some in subjects.chunks(10_000) {
        keystore.ensure(some).unwrap();
    }
    drop(keystore);
    let keystore = bed.open();
    assert_eq!(keystore.len(), SUBJECTS as usize);
    let index = keystore.index();
    // A table of the standard library: a power of two of buckets, one byte beside each.
    let buckets = (index.live.capacity() * 8 / 7).next_power_of_two();
    let bytes = buckets * (size_of::<([u8; 8], u32)>() + 1);
    assert!(bytes <= 40 * SUBJECTS as usize, "{} bytes a subject", bytes / SUBJECTS as usize);
}

impl Bed {
    /// Opens a copy of the file, beside the one that is open.
    fn reopened(&self) -> Keystore {
        let copy = self.dir.path().join("copy");
        std::fs::copy(self.path(), &copy).unwrap();
        Keystore::open(&copy, Arc::clone(&self.keys)).unwrap()
    }
}
