//! The policies of subjects: the openings of their consent roots.
//!
//! Takes: a subject and the consent root that the ledger holds for it. Gives: its policies, compiled, and only if what
//! is kept here opens the root completely. Never: a policy set with one left out; an empty set in place of a missing
//! one. Openings are sealed under the subject's key, so erasing the subject makes its commitments mute.
//!
//! Under each slot stands a JSON array of Consents in canonical form. A slot is named by grantee and purpose where a
//! Consent speaks of one of each, so that an institution can be shown its own slots and the `*` slots alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_fhir::tree::{Limits, Tree};

use super::codes::{self, Role};
use super::decide::PolicySet;
use super::policy::{Actor, Coding, Policy, Provision};
use super::pseudonym::Pseudonym;
use crate::error::{Error, Peer, Result};
use crate::keys::{HmacKey, Keys};
use crate::ledger::root::{ANY, ConsentTree, Opening, RootError, Slot, SlotKey};
use crate::store::vault::{Vault, VaultError, place};
use crate::store::{Batch, Store, Table};

/// Bytes of canonical policies that are kept compiled, in each of two generations.
const CACHE_BYTES_MAX: usize = 32 << 20;
/// What a compiled set costs beside its text, about, in bytes.
const SET_BYTES: usize = 512;

/// Policy sets by subject and root.
pub struct Openings {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    keys: Arc<Keys>,
    cache: Mutex<Cache>,
}

/// Two generations: when the young one is full it becomes the old one, and what is asked for again becomes young again.
#[derive(Default)]
struct Cache {
    young: HashMap<Key, Cached>,
    old: HashMap<Key, Cached>,
    bytes: usize,
    /// Sets that never leave: those of the self-test.
    pinned: HashMap<Key, Arc<PolicySet>>,
}

type Key = (Pseudonym, [u8; 32]);

#[derive(Clone)]
struct Cached {
    set: Arc<PolicySet>,
    bytes: usize,
}

/// One opening, as a row holds it.
#[derive(Serialize, Deserialize)]
struct Kept {
    slot: String,
    r: String,
    policy: String,
}

impl Openings {
    /// Over an open store.
    pub fn new(store: Arc<dyn Store>, vault: Arc<Vault>, keys: Arc<Keys>) -> Self {
        Self { store, vault, keys, cache: Mutex::default() }
    }

    /// The policies under a root; none if its openings are not here, or were erased with the subject.
    ///
    /// # Errors
    /// An outage of the store; a defect if what is kept does not open the root.
    pub async fn policies(&self, subject: Pseudonym, root: &[u8; 32]) -> Result<Option<Arc<PolicySet>>> {
        let key = (subject, *root);
        if let Some(set) = self.cached(&key) {
            return Ok(Some(set));
        }
        let Some(tree) = self.tree(subject, root).await? else { return Ok(None) };
        let bytes = SET_BYTES + tree.openings().map(|opening| 4 * opening.policy.len()).sum::<usize>();
        let set = Arc::new(compile(&tree)?);
        self.remember(key, Cached { set: Arc::clone(&set), bytes });
        Ok(Some(set))
    }

    /// The openings of a root, all of them; none if they are not here.
    ///
    /// # Errors
    /// As [`Openings::policies`].
    pub async fn tree(&self, subject: Pseudonym, root: &[u8; 32]) -> Result<Option<ConsentTree>> {
        let key = row_key(subject, root);
        let row = self.store.read(Table::PolicySet, &key).await;
        let row = row.map_err(|error| unserved(&format!("openings: {error}")))?;
        let Some(row) = row else { return Ok(None) };
        let plain = match self.vault.open(&place(Table::PolicySet, &key), &row) {
            Ok(plain) => plain,
            Err(VaultError::Erased) => return Ok(None),
            Err(error) => return Err(unserved(&format!("openings: {error}"))),
        };
        let broken = || Error::defect("the openings of a consent root are not what was written");
        let kept: Vec<Kept> = serde_json::from_slice(&plain).map_err(|_| broken())?;
        let openings: Option<Vec<Opening>> = kept.into_iter().map(Kept::open).collect();
        let tree = ConsentTree::new(openings.ok_or_else(broken)?).map_err(|_| broken())?;
        // The root commits to every slot: equal roots mean that nothing was left out, added or changed.
        if tree.root() == *root { Ok(Some(tree)) } else { Err(broken()) }
    }

    /// A subject's policies under keyed slots, each with a fresh r.
    ///
    /// # Errors
    /// A defect if there is no randomness; else [`RootError`] told on: more than a subject may have.
    pub fn commit_to(&self, subject: Pseudonym, policies: &[Policy]) -> Result<ConsentTree, RootError> {
        let slots = SlotKey::new(&self.keys.hmac(HmacKey::Domain, &[b"consent-slots", &subject.0]));
        let mut by_slot: std::collections::BTreeMap<Slot, Vec<Vec<u8>>> = std::collections::BTreeMap::new();
        for policy in policies {
            let (grantee, purpose) = names(policy.root());
            by_slot.entry(slots.slot(&grantee, &purpose)).or_default().push(policy.to_json());
        }
        let openings = by_slot.into_iter().map(|(slot, mut texts)| {
            texts.sort_unstable();
            let mut array = b"[".to_vec();
            array.extend(texts.join(&b','));
            array.push(b']');
            Opening::new(slot, array)
        });
        ConsentTree::new(openings.collect::<Result<Vec<_>, _>>()?)
    }

    /// Whether two trees open to the same policies under the same slots, whatever their r.
    pub fn same(left: &ConsentTree, right: &ConsentTree) -> bool {
        let content = |opening: &Opening| (opening.slot, opening.policy.clone());
        left.openings().map(content).eq(right.openings().map(content))
    }

    /// Keeps the openings of a tree; durable when this returns.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn keep(&self, subject: Pseudonym, tree: &ConsentTree) -> Result<()> {
        let kept: Option<Vec<Kept>> = tree.openings().map(Kept::of).collect();
        let plain = kept.and_then(|kept| serde_json::to_vec(&kept).ok());
        let plain = plain.ok_or_else(|| Error::defect("openings can't be written"))?;
        let key = row_key(subject, &tree.root());
        let failed = |error: &VaultError| unserved(&format!("openings: {error}"));
        self.vault.prepare(vec![subject.0]).await.map_err(|error| failed(&error))?;
        let sealed = self.vault.seal(&[subject.0], &place(Table::PolicySet, &key), &plain);
        let batch = Batch::new().put(Table::PolicySet, key, sealed.map_err(|error| failed(&error))?);
        self.store.commit(batch).await.map_err(|error| unserved(&format!("openings: {error}")))
    }

    /// Gives up openings whose root never came to stand on the ledger.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn forget(&self, subject: Pseudonym, root: &[u8; 32]) -> Result<()> {
        let batch = Batch::new().delete(Table::PolicySet, row_key(subject, root));
        self.store.commit(batch).await.map_err(|error| unserved(&format!("openings: {error}")))
    }

    /// Puts a set in place for as long as the process lives; for a subject that is no patient.
    pub(super) fn pin(&self, subject: Pseudonym, root: [u8; 32], set: PolicySet) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.pinned.insert((subject, root), Arc::new(set));
    }

    fn cached(&self, key: &Key) -> Option<Arc<PolicySet>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = cache.young.get(key).map(|cached| &cached.set).or_else(|| cache.pinned.get(key)) {
            return Some(Arc::clone(set));
        }
        let cached = cache.old.remove(key)?;
        let set = Arc::clone(&cached.set);
        cache.insert(*key, cached);
        Some(set)
    }

    fn remember(&self, key: Key, cached: Cached) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(key, cached);
    }
}

impl Cache {
    fn insert(&mut self, key: Key, cached: Cached) {
        if self.bytes + cached.bytes > CACHE_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += cached.bytes;
        if let Some(before) = self.young.insert(key, cached) {
            self.bytes -= before.bytes;
        }
    }
}

impl Kept {
    fn of(opening: &Opening) -> Option<Self> {
        let policy = String::from_utf8(opening.policy.clone()).ok()?;
        Some(Self { slot: Pseudonym(opening.slot.0).hex(), r: Pseudonym(opening.r).hex(), policy })
    }

    fn open(self) -> Option<Opening> {
        let [slot, r] = [&self.slot, &self.r].map(|text| Pseudonym::from_hex(text).map(|it| it.0));
        Some(Opening { slot: Slot(slot?), r: r?, policy: self.policy.into_bytes() })
    }
}

/// Whom and what for a Consent speaks, where it speaks of one recipient and one purpose throughout; else `*`. Reading
/// all slots gives every policy whatever their names; these say only to whom a slot may be shown alone.
fn names(root: &Provision) -> (String, String) {
    let restated = |of: &dyn Fn(&Provision) -> bool| root.nested.iter().any(|nested| anywhere(nested, of));
    let grantee = match root.actors.as_deref() {
        Some([actor]) if receives(actor) && !restated(&|it| it.actors.is_some()) => actor.reference.as_deref(),
        _ => None,
    };
    let purpose = match root.purposes.as_deref() {
        Some([Some((_, code))]) if !restated(&|it| it.purposes.is_some()) => Some(&**code),
        _ => None,
    };
    (grantee.unwrap_or(ANY).to_owned(), purpose.unwrap_or(ANY).to_owned())
}

fn anywhere(provision: &Provision, of: &dyn Fn(&Provision) -> bool) -> bool {
    of(provision) || provision.nested.iter().any(|nested| anywhere(nested, of))
}

fn receives(actor: &Actor) -> bool {
    let is =
        |coding: &Coding| coding.as_ref().is_some_and(|(system, code)| codes::role(system, code) == Role::Recipient);
    !actor.role.is_empty() && actor.role.iter().all(is)
}

fn compile(tree: &ConsentTree) -> Result<PolicySet> {
    let mut policies = Vec::new();
    for opening in tree.openings() {
        let bytes = Bytes::copy_from_slice(&opening.policy);
        let parsed = Tree::parse(bytes, &Limits::default());
        let parsed = parsed.map_err(|_| Error::defect("a policy under a consent root is not JSON"))?;
        policies.extend(parsed.root().items().map(Policy::compile));
    }
    Ok(PolicySet::new(policies))
}

fn row_key(subject: Pseudonym, root: &[u8; 32]) -> Vec<u8> {
    [subject.0, *root].concat()
}

fn unserved(text: &str) -> Error {
    Error::outage(Peer::Store, Duration::from_secs(1), text.to_owned())
}
