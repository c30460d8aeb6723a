//! The canonical form `sluice-canonical-1` and the digests over it.
//!
//! Takes a node, gives its canonical bytes or their SHA-256. The form: UTF-8; members sorted by the UTF-8 bytes of their
//! unescaped names; no white space; strings with only the escapes that JSON demands (`\"` `\\` `\b` `\t` `\n` `\f` `\r`,
//! other characters below U+0020 as `\u00xx` in lower case), no Unicode normalization; numbers by their original text;
//! arrays as they are, nulls included. Not RFC 8785, which turns 1.00 into 1: another record in FHIR.
//! Never recurses on the depth of the tree.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::tree::{KNOWN, Kind, NameId, Node, text::write_string};

/// A SHA-256 digest; prints as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A string in canonical form, quotes included.
pub fn string(text: &str) -> String {
    let mut json = Vec::with_capacity(text.len() + 2);
    write_string(text, |piece| json.extend_from_slice(piece));
    // The pieces are of the text, cut at ASCII.
    String::from_utf8(json).unwrap_or_default()
}

/// Where canonical bytes go: a buffer or a hash.
pub trait Sink {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Hashes what it is given, in large pieces.
struct Hasher {
    sha: Sha256,
    buffer: Vec<u8>,
}

/// Large enough that most resources are hashed in one go, small enough for the first-level cache.
const BUFFER: usize = 16 << 10;

impl Hasher {
    fn new(expected: usize) -> Self {
        Self { sha: Sha256::new(), buffer: Vec::with_capacity(expected.min(BUFFER)) }
    }

    fn finish(mut self) -> Digest {
        self.sha.update(&self.buffer);
        Digest(self.sha.finalize().into())
    }
}

impl Sink for Hasher {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.sha.update(&self.buffer);
            self.buffer.clear();
            if bytes.len() >= BUFFER {
                self.sha.update(bytes);
                return;
            }
        }
        self.buffer.extend_from_slice(bytes);
    }
}

/// Writes the canonical form of a node, without its name.
pub fn write(node: Node<'_>, out: &mut impl Sink) {
    Writer { out, tasks: Vec::new(), omit: Omit::Nothing }.write(node);
}

/// The canonical form of a node.
pub fn to_vec(node: Node<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(node.span().len());
    write(node, &mut out);
    out
}

/// SHA-256 of the canonical form of a node.
pub fn digest(node: Node<'_>) -> Digest {
    digest_without(node, Omit::Nothing)
}

/// The digest that a leaf commits to: SHA-256 of the canonical form of a resource without its members `id`,
/// `meta.versionId` and `meta.lastUpdated`, which a server assigns. A `meta` that holds nothing else is left out too.
/// Members of resources within it (contained, Bundle entries) count.
pub fn evidence_digest(resource: Node<'_>) -> Digest {
    digest_without(resource, Omit::Assigned)
}

fn digest_without(node: Node<'_>, omit: Omit) -> Digest {
    let mut hasher = Hasher::new(node.span().len());
    Writer { out: &mut hasher, tasks: Vec::new(), omit }.write(node);
    hasher.finish()
}

/// The digest of a Bundle, over the digests of its entries, so that it can be had entry by entry in bounded memory:
///
/// `SHA-256("sluice-bundle-1\n" || digest(entry[0]) || … || digest(entry[n-1]) || n as 8 bytes, big-endian || digest(rest))`
///
/// where `rest` is the Bundle without its member `entry`. Feed it each entry in order.
#[derive(Clone)]
pub struct BundleDigest {
    sha: Sha256,
    entries: u64,
}

impl Default for BundleDigest {
    fn default() -> Self {
        Self { sha: Sha256::new_with_prefix(b"sluice-bundle-1\n"), entries: 0 }
    }
}

impl BundleDigest {
    /// Adds the digest of the next entry: of the whole entry, not of its resource.
    pub fn entry(&mut self, entry: Digest) {
        self.sha.update(entry.0);
        self.entries += 1;
    }

    /// Adds the digest of the Bundle without its entries, as [`rest_digest`] gives it.
    pub fn finish(mut self, rest: Digest) -> Digest {
        self.sha.update(self.entries.to_be_bytes());
        self.sha.update(rest.0);
        Digest(self.sha.finalize().into())
    }
}

/// The digest of a Bundle without its member `entry`; of all of it, if `entry` is not an array with items.
pub fn rest_digest(bundle: Node<'_>) -> Digest {
    let whole = entries(bundle).is_none();
    digest_without(bundle, if whole { Omit::Nothing } else { Omit::Entries })
}

/// The digest of a Bundle over its entries' digests; see [`BundleDigest`].
pub fn bundle_digest(bundle: Node<'_>) -> Digest {
    let mut digests = BundleDigest::default();
    for entry in entries(bundle).into_iter().flat_map(Node::items) {
        digests.entry(digest(entry));
    }
    digests.finish(rest_digest(bundle))
}

fn entries(bundle: Node<'_>) -> Option<Node<'_>> {
    bundle.member("entry").filter(|entries| entries.is_array() && !entries.is_empty())
}

/// What is left out of the node that is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Omit {
    Nothing,
    /// What a server assigns; see [`evidence_digest`].
    Assigned,
    /// The entries of a Bundle.
    Entries,
}

impl Omit {
    fn omits(self, root: Node<'_>, child: Node<'_>) -> bool {
        let (Some(name), Some(parent)) = (child.name_id(), child.parent()) else { return false };
        match self {
            Self::Nothing => false,
            Self::Entries => parent == root && KNOWN.names.get(name.index()) == Some(&"entry"),
            Self::Assigned if parent == root => {
                name.0 == KNOWN.id || (name.0 == KNOWN.meta && child.is_object() && child.members().all(is_assigned))
            }
            Self::Assigned => {
                is_assigned(child) && parent.name_id() == Some(NameId(KNOWN.meta)) && parent.parent() == Some(root)
            }
        }
    }
}

fn is_assigned(member: Node<'_>) -> bool {
    member.name_id().is_some_and(|name| name.0 == KNOWN.version_id || name.0 == KNOWN.last_updated)
}

/// Writes a node and all it holds, from a stack of what is still to be written.
struct Writer<'o, S> {
    out: &'o mut S,
    /// A task is a node, or the end of an object or array. Above the low half stands the id of its name, so that members
    /// of FHIR's names sort as numbers.
    tasks: Vec<u64>,
    omit: Omit,
}

const NODE: u64 = (1 << 28) - 1;
const COMMA: u64 = 1 << 28;
const OBJECT_END: u64 = 1 << 29;
const ARRAY_END: u64 = 1 << 30;
const NAMED: u64 = 1 << 31;

impl<S: Sink> Writer<'_, S> {
    fn write(&mut self, root: Node<'_>) {
        self.value(root, root);
        while let Some(task) = self.tasks.pop() {
            if task & COMMA != 0 {
                self.out.put(b",");
            }
            if task & OBJECT_END != 0 {
                self.out.put(b"}");
            } else if task & ARRAY_END != 0 {
                self.out.put(b"]");
            } else {
                let node = root.tree().node(crate::tree::NodeId(low(task & NODE)));
                if task & NAMED != 0 {
                    self.name(node, low(task >> 32));
                }
                self.value(root, node);
            }
        }
    }

    #[inline]
    fn name(&mut self, node: Node<'_>, id: u32) {
        if let Some(rendered) = KNOWN.rendered(id) {
            self.out.put(rendered);
        } else {
            write_string(node.tree().name(NameId(id)), |piece| self.out.put(piece));
            self.out.put(b":");
        }
    }

    #[inline]
    fn value(&mut self, root: Node<'_>, node: Node<'_>) {
        // Nothing is left out but members of the root and of its `meta`.
        let whole = self.omit == Omit::Nothing || (node != root && node.name_id() != Some(NameId(KNOWN.meta)));
        if whole && node.is_verbatim() {
            self.out.put(node.raw());
            return;
        }
        match node.kind() {
            Kind::Object => {
                self.out.put(b"{");
                self.tasks.push(OBJECT_END);
                self.members(root, node);
            }
            Kind::Array => {
                self.out.put(b"[");
                self.tasks.push(ARRAY_END);
                let from = self.tasks.len();
                self.tasks.extend(node.children().map(|item| u64::from(item.id().0) | COMMA));
                self.reverse(from);
            }
            Kind::String if !node.is_verbatim() => {
                write_string(&node.as_str().unwrap_or_default(), |piece| self.out.put(piece));
            }
            Kind::Null | Kind::Bool | Kind::Number | Kind::String => self.out.put(node.raw()),
        }
    }

    fn members(&mut self, root: Node<'_>, object: Node<'_>) {
        let from = self.tasks.len();
        for member in object.children() {
            if self.omit == Omit::Nothing || !self.omit.omits(root, member) {
                let name = member.name_id().map_or(0, |name| u64::from(name.0));
                self.tasks.push(name << 32 | NAMED | COMMA | u64::from(member.id().0));
            }
        }
        let tasks = self.tasks.get_mut(from..).unwrap_or_default();
        if tasks.iter().any(|task| (task >> 32) as usize >= KNOWN.names.len()) {
            let name = |task: &u64| object.tree().name(NameId(low(task >> 32)));
            tasks.sort_unstable_by(|a, b| name(a).as_bytes().cmp(name(b).as_bytes()));
        } else {
            tasks.sort_unstable();
        }
        self.reverse(from);
    }

    /// Turns the tasks from `from` on around, so that the first is done first, and takes the comma before the first.
    fn reverse(&mut self, from: usize) {
        if let Some(tasks) = self.tasks.get_mut(from..) {
            tasks.reverse();
            if let Some(first) = tasks.last_mut() {
                *first &= !COMMA;
            }
        }
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "tasks hold two halves of 32 bits")]
fn low(half: u64) -> u32 {
    half as u32
}

#[cfg(test)]
mod tests;
