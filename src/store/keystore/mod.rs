//! The keystore: a key for each subject, in one small file of its own.
//!
//! Takes subjects by their keyed tag; gives each a key of 32 random bytes that is durable before anything is sealed under it. The
//! file is overwritten in place, so that destroying a key destroys it, here and in every segment and backup of the
//! store. Backups of the keystore itself are what may bring a destroyed key back: they have a retention of their own,
//! as short as the law's delay. Never holds a key in the clear on disk: each is wrapped under the master key. (A file
//! system that copies on write, or a flash disk, may keep an overwritten block for a while; the wrapping is then what
//! stands before it, until the master key is changed.)
//!
//! All calls block on the disk for about one fdatasync at most.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::slot::{HEADER_BYTES, Header, SLOT_BYTES, Slot, State, offset};
use super::fault::{Fault, Faults};
use crate::keys::{Keys, KeysError, Secret, WrapKey};

mod slot;

/// The keyed tag that stands for a subject within this tenant. Anything that is to be erased by itself may be one: a
/// staged body, by its operation's tag.
pub type SubjectKey = [u8; 32];

/// Slots are added in steps, so that the file's length seldom changes.
const GROWTH_SLOTS: u32 = 512;

/// Where a subject's key lies. The generation counts the keys that the slot has held: a sealed value names both, and
/// is erased for ever once the slot moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId {
    /// The slot's place in the file, from 0.
    pub index: u32,
    /// From 1.
    pub generation: u32,
}

/// An open keystore. Its file is locked for as long.
pub struct Keystore {
    file: File,
    path: PathBuf,
    keys: Arc<Keys>,
    header: Header,
    /// Held for reading while a slot is read, for writing while one is overwritten, so that none is read by half. Never
    /// held during an fdatasync.
    index: RwLock<Index>,
    /// Subjects that wait for a key: whoever holds the writer next serves them all with one fdatasync.
    waiting: Mutex<BTreeSet<SubjectKey>>,
    writer: Mutex<Writer>,
}

/// What is known of the file's contents: 30 bytes a subject at most.
#[derive(Default)]
struct Index {
    /// By the first eight bytes of the tag, which is a keyed hash and so spread evenly. The tag itself is compared on
    /// disk.
    live: HashMap<[u8; 8], u32>,
    /// Subjects whose first eight bytes another has as well.
    clash: HashMap<SubjectKey, u32>,
    /// Slots that can't be read. They are never used again, but destroyed with the subject that they seem to be of.
    damaged: Vec<(SubjectKey, u32)>,
}

struct Writer {
    /// Slots that are destroyed or were never used, below `slots`.
    free: Vec<u32>,
    /// Slots in the file.
    slots: u32,
    persists: u64,
    poisoned: bool,
    faults: Option<Faults>,
}

impl Keystore {
    /// Makes a new, empty keystore; refuses if the file exists. Done once for a store: a second keystore would not
    /// open what was sealed under the first.
    pub fn create(path: &Path, keys: Arc<Keys>) -> Result<Self, KeystoreError> {
        if path.symlink_metadata().is_ok() {
            return Err(KeystoreError::Exists(path.to_path_buf()));
        }
        let header = Header::new(&keys)?;
        let fresh = path.with_extension("new");
        let dir = path.parent().unwrap_or(Path::new("."));
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
        // A crash before the rename leaves a file that nothing reads; a crash after it leaves an empty keystore, which
        // `open` takes and nothing has used.
        written
            .and_then(|file| file.write_all_at(&header.encode(), 0).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&fresh, path))
            .and_then(|()| File::open(dir)?.sync_all())
            .map_err(|source| KeystoreError::io(path, source))?;
        Self::open(path, keys)
    }

    /// Opens a keystore; refuses another master key, and a file that another process has open.
    pub fn open(path: &Path, keys: Arc<Keys>) -> Result<Self, KeystoreError> {
        Self::open_with(path, keys, None)
    }

    /// The same, with faults for tests of failure.
    pub fn open_with(path: &Path, keys: Arc<Keys>, faults: Option<Faults>) -> Result<Self, KeystoreError> {
        let failed = |source| KeystoreError::io(path, source);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => KeystoreError::Locked(path.to_path_buf()),
            TryLockError::Error(source) => failed(source),
        })?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let header = Header::decode(&header).ok_or_else(|| KeystoreError::Form(path.to_path_buf()))?;
        header.check(&keys).map_err(|_| KeystoreError::WrongMaster(path.to_path_buf()))?;
        let (index, free, slots) = load(&file).map_err(failed)?;
        let writer = Mutex::new(Writer { free, slots, persists: 0, poisoned: false, faults });
        let path = path.to_path_buf();
        Ok(Self { file, path, keys, header, index: RwLock::new(index), waiting: Mutex::default(), writer })
    }

    /// The keystore's own id, made with it: 16 random bytes.
    pub fn id(&self) -> [u8; 16] {
        self.header.id
    }

    /// Gives each subject that has none a key, which is durable when this returns. One fdatasync serves all callers
    /// that wait for one.
    pub fn ensure(&self, subjects: &[SubjectKey]) -> Result<(), KeystoreError> {
        let missing = self.missing(subjects.iter())?;
        if missing.is_empty() {
            return Ok(());
        }
        self.waiting().extend(&missing);
        let mut writer = self.writer();
        // Whoever held the writer before may have served these too.
        if self.missing(missing.iter())?.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut *self.waiting());
        let wanted = self.missing(waiting.iter().chain(&missing))?;
        self.write_keys(&mut writer, &wanted)
    }

    /// Whether each of these subjects has a key that is durable.
    pub fn has_all(&self, subjects: &[SubjectKey]) -> Result<bool, KeystoreError> {
        let index = self.index();
        for subject in subjects {
            if self.find(&index, subject)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where a subject's key lies; `None` when it has none.
    pub fn slot(&self, subject: &SubjectKey) -> Result<Option<SlotId>, KeystoreError> {
        let index = self.index();
        Ok(self.find(&index, subject)?.map(|(place, slot)| SlotId { index: place, generation: slot.generation }))
    }

    /// A subject's key and where it lies; `None` when it has none.
    pub fn key_of(&self, subject: &SubjectKey) -> Result<Option<(SlotId, Secret)>, KeystoreError> {
        let index = self.index();
        let Some((place, slot)) = self.find(&index, subject)? else { return Ok(None) };
        drop(index);
        let id = SlotId { index: place, generation: slot.generation };
        Ok(Some((id, self.unwrap(place, &slot)?)))
    }

    /// The key of a slot: [`KeystoreError::Erased`] once it is destroyed.
    pub fn key(&self, id: SlotId) -> Result<Secret, KeystoreError> {
        let index = self.index();
        let slot = self.read(id.index)?;
        drop(index);
        let slot = slot.ok_or(KeystoreError::Damaged)?;
        match slot.state {
            State::Live if slot.generation == id.generation => self.unwrap(id.index, &slot),
            State::Live | State::Destroyed if slot.generation > id.generation => Err(KeystoreError::Erased),
            State::Destroyed if slot.generation == id.generation => Err(KeystoreError::Erased),
            // A slot that has not come so far: another keystore's value, or an older keystore put back.
            State::Live | State::Destroyed | State::Free => Err(KeystoreError::Damaged),
        }
    }

    /// Destroys a subject's key; `false` when it has none. When this returns the key is gone from the file; if it
    /// fails, or the machine crashes in between, it is to be called again.
    pub fn destroy(&self, subject: &SubjectKey) -> Result<bool, KeystoreError> {
        Ok(self.destroy_all(std::slice::from_ref(subject))? == 1)
    }

    /// Destroys the keys of many subjects with one fdatasync; gives how many had one.
    pub fn destroy_all(&self, subjects: &[SubjectKey]) -> Result<usize, KeystoreError> {
        let mut writer = self.writer();
        writer.usable()?;
        let mut index = self.index_mut();
        let mut places = Vec::new();
        let mut destroyed = 0;
        for subject in subjects {
            let (place, generation) = match self.find(&index, subject) {
                Ok(Some((place, slot))) => (place, slot.generation),
                Ok(None) => continue,
                // Damaged since it was indexed: destroyed all the same, and never used again.
                Err(KeystoreError::Damaged) => match index.place(subject) {
                    Some(place) => (place, u32::MAX),
                    None => continue,
                },
                Err(error) => return Err(error),
            };
            index.remove(subject);
            places.push((place, generation));
            destroyed += 1;
        }
        let is_named = |(subject, _): &(SubjectKey, u32)| subjects.contains(subject);
        let damaged: Vec<u32> = index.damaged.iter().filter(|entry| is_named(entry)).map(|(_, place)| *place).collect();
        // Of a damaged slot the generation is not known; one above all makes sure that it never serves again.
        places.extend(damaged.iter().map(|place| (*place, u32::MAX)));
        if places.is_empty() {
            return Ok(0);
        }
        // From here on nothing more is sealed or opened under these keys, whether or not the writes succeed. A crash
        // before the fdatasync ends leaves each slot as it was or destroyed: 128 bytes within one sector of the disk.
        let fault = writer.next_fault();
        let mut written = Ok(());
        if fault != Some(Fault::Undone) {
            for (place, generation) in &places {
                let slot = Slot::destroyed(*generation);
                written = written.and(self.file.write_all_at(&slot.encode(*place), offset(*place)));
            }
        }
        drop(index);
        self.sync(&mut writer, written, fault)?;
        self.index_mut().damaged.retain(|entry| !is_named(entry));
        let reusable = places.iter().filter(|(_, generation)| *generation < u32::MAX);
        writer.free.extend(reusable.map(|(place, _)| *place));
        Ok(destroyed)
    }

    /// From here on, faults for tests of failure; persists are counted from 1 again.
    pub fn fail(&self, faults: Faults) {
        let mut writer = self.writer();
        (writer.faults, writer.persists) = (Some(faults), 0);
    }

    /// How many subjects have a key.
    pub fn len(&self) -> usize {
        let index = self.index();
        index.live.len() + index.clash.len()
    }

    /// Whether no subject has a key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots can't be read: more than none is a damaged disk.
    pub fn damaged(&self) -> usize {
        self.index().damaged.len()
    }

    fn missing<'a>(&self, subjects: impl Iterator<Item = &'a SubjectKey>) -> Result<Vec<SubjectKey>, KeystoreError> {
        let index = self.index();
        let mut missing = BTreeSet::new();
        for subject in subjects {
            if self.find(&index, subject)?.is_none() {
                missing.insert(*subject);
            }
        }
        Ok(missing.into_iter().collect())
    }

    fn write_keys(&self, writer: &mut Writer, subjects: &[SubjectKey]) -> Result<(), KeystoreError> {
        writer.usable()?;
        let mut slots = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let place = self.free_slot(writer)?;
            // A destroyed slot goes on counting; a fresh one begins at 1.
            let generation = self.read(place)?.map_or(0, |slot| slot.generation) + 1;
            let wrapped = self.keys.wrap(
                WrapKey::Keystore,
                &self.header.place(place, generation, subject),
                &Secret::random()?,
            )?;
            slots.push((place, Slot { state: State::Live, generation, subject: *subject, wrapped }));
        }
        let fault = writer.next_fault();
        let mut written = Ok(());
        if fault != Some(Fault::Undone) {
            // Nobody reads these slots yet, but a value sealed under a key that one of them held may be asked for.
            let _index = self.index_mut();
            for (place, slot) in &slots {
                written = written.and(self.file.write_all_at(&slot.encode(*place), offset(*place)));
            }
        }
        // A crash before the fdatasync ends leaves keys that nothing is sealed under: the subjects have them at the next
        // start, or get others.
        self.sync(writer, written, fault)?;
        let mut index = self.index_mut();
        for (place, slot) in slots {
            index.insert(slot.subject, place);
        }
        Ok(())
    }

    fn free_slot(&self, writer: &mut Writer) -> Result<u32, KeystoreError> {
        if let Some(place) = writer.free.pop() {
            return Ok(place);
        }
        let first = writer.slots;
        let slots = first.checked_add(GROWTH_SLOTS).ok_or(KeystoreError::Exhausted)?;
        // Zeros are free slots. A crash here leaves some, or none.
        self.file.set_len(offset(slots)).map_err(|source| KeystoreError::io(&self.path, source))?;
        writer.slots = slots;
        writer.free.extend((first + 1..slots).rev());
        Ok(first)
    }

    /// The one fdatasync of a change; a failure ends all writing, since what the disk holds is then not known.
    fn sync(&self, writer: &mut Writer, written: io::Result<()>, fault: Option<Fault>) -> Result<(), KeystoreError> {
        let synced = written.and_then(|()| self.file.sync_data());
        let synced = synced.and_then(|()| fault.map_or(Ok(()), |_| Err(io::Error::other("a fault on purpose"))));
        synced.map_err(|source| {
            writer.poisoned = true;
            KeystoreError::io(&self.path, source)
        })
    }

    /// A subject's slot, by the index and then by what the slot says.
    fn find(&self, index: &Index, subject: &SubjectKey) -> Result<Option<(u32, Slot)>, KeystoreError> {
        let Some(place) = index.place(subject) else { return Ok(None) };
        // A slot that was sound when it was indexed.
        let slot = self.read(place)?.ok_or(KeystoreError::Damaged)?;
        Ok((slot.state == State::Live && slot.subject == *subject).then_some((place, slot)))
    }

    /// A slot as it stands; `None` when it is damaged.
    fn read(&self, place: u32) -> Result<Option<Slot>, KeystoreError> {
        let mut bytes = [0; SLOT_BYTES];
        match self.file.read_exact_at(&mut bytes, offset(place)) {
            Ok(()) => Ok(Slot::decode(place, &bytes)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(KeystoreError::io(&self.path, source)),
        }
    }

    fn unwrap(&self, place: u32, slot: &Slot) -> Result<Secret, KeystoreError> {
        let aad = self.header.place(place, slot.generation, &slot.subject);
        self.keys.unwrap(WrapKey::Keystore, &aad, &slot.wrapped).map_err(|_| KeystoreError::Damaged)
    }

    // A thread that panicked with one of these locks left no half of a change: each is one assignment or insertion.
    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<SubjectKey>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the whole file once, in order.
fn load(file: &File) -> io::Result<(Index, Vec<u32>, u32)> {
    let bytes = file.metadata()?.len().saturating_sub(HEADER_BYTES as u64);
    // A last slot that is cut short was being added when the machine crashed: nothing was sealed under it.
    let slots = u32::try_from(bytes / SLOT_BYTES as u64).unwrap_or(u32::MAX);
    let mut index = Index::default();
    let mut free = Vec::new();
    let mut block = vec![0; SLOT_BYTES * GROWTH_SLOTS as usize];
    let mut first = 0;
    while first < slots {
        let count = GROWTH_SLOTS.min(slots - first);
        let block = &mut block[..SLOT_BYTES * count as usize];
        file.read_exact_at(block, offset(first))?;
        for (place, bytes) in (first..).zip(block.as_chunks::<SLOT_BYTES>().0) {
            match Slot::decode(place, bytes) {
                Some(Slot { state: State::Live, subject, .. }) => index.insert(subject, place),
                Some(Slot { state: State::Destroyed, generation: u32::MAX, .. }) => {}
                Some(_) => free.push(place),
                None => index.damaged.push((Slot::damaged_subject(bytes), place)),
            }
        }
        first += count;
    }
    free.reverse();
    Ok((index, free, slots))
}

impl Index {
    fn place(&self, subject: &SubjectKey) -> Option<u32> {
        self.clash.get(subject).or_else(|| self.live.get(&lead(subject))).copied()
    }

    fn insert(&mut self, subject: SubjectKey, place: u32) {
        match self.live.entry(lead(&subject)) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(place);
            }
            std::collections::hash_map::Entry::Occupied(_) => {
                self.clash.insert(subject, place);
            }
        }
    }

    /// Removes a subject that was found.
    fn remove(&mut self, subject: &SubjectKey) {
        if self.clash.remove(subject).is_none() {
            self.live.remove(&lead(subject));
        }
    }
}

impl Writer {
    fn usable(&self) -> Result<(), KeystoreError> {
        if self.poisoned { Err(KeystoreError::Poisoned) } else { Ok(()) }
    }

    fn next_fault(&mut self) -> Option<Fault> {
        self.persists += 1;
        self.faults.as_ref().and_then(|faults| faults.at(self.persists))
    }
}

fn lead(subject: &SubjectKey) -> [u8; 8] {
    let mut lead = [0; 8];
    lead.copy_from_slice(&subject[..8]);
    lead
}

impl fmt::Debug for Keystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keystore({}, {} subjects)", self.path.display(), self.len())
    }
}

/// Why a keystore did not do as asked. Names no subject.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// The key was destroyed; nothing sealed under it opens again.
    #[error("the key was destroyed")]
    Erased,
    /// The slot is not what it should be: a damaged disk, another keystore, or an older one put back.
    #[error("a key's slot is damaged, or of another keystore")]
    Damaged,
    /// A write failed before; no key is made or destroyed until a restart.
    #[error("the keystore accepts no writes since one failed; restart to recover")]
    Poisoned,
    /// The operating system refused.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The keystore's file.
        file: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The file exists already.
    #[error("{}: exists already", .0.display())]
    Exists(PathBuf),
    /// Another process has the file open.
    #[error("{}: in use by another process", .0.display())]
    Locked(PathBuf),
    /// The file is no keystore of this version.
    #[error("{}: not a keystore of this version", .0.display())]
    Form(PathBuf),
    /// The keystore belongs to another master key.
    #[error("{}: wrapped under another master key", .0.display())]
    WrongMaster(PathBuf),
    /// The file holds as many slots as can be numbered.
    #[error("the keystore is full")]
    Exhausted,
    /// The keyring failed.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl KeystoreError {
    fn io(file: &Path, source: io::Error) -> Self {
        Self::Io { file: file.to_path_buf(), source }
    }
}

#[cfg(test)]
mod tests;
