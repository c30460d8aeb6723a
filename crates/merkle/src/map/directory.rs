//! The map's storage: buckets of neighbouring records under a heap of hashes.
//!
//! Takes records; gives look-ups, the root and the path to a key. Never shows a hash that is out
//! of date: every public change of the map ends in [`Directory::settle`].
//!
//! The binary tree's positions are numbered as in a heap: 1 is the root, `2n` and `2n + 1` are the
//! children of `n`. The buckets are its leaves, and they fill the positions `base .. 2 * base`:
//! those below a power of two are one level higher than those from it on. To grow, the front
//! bucket, at `base`, is split, its halves go to the back, at `2 * base` and `2 * base + 1`, and
//! `base` moves on by one. So growth never stops the world, and the bucket of a key is found by
//! looking at its first bits alone.

use std::collections::VecDeque;

use super::{EMPTY, MapProof, Value, bit, leaf_hash, node_hash};
use crate::Hash;

/// Records per bucket on average. More is smaller and slower.
const FILL: usize = 10;

/// Records in a bucket before it becomes a directory of its own. On uniform keys, with at most
/// twice [`FILL`] to be expected in a bucket, that does not happen.
const BUCKET_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Directory<V> {
    /// The key bit at which this directory begins.
    start: usize,
    /// The position of the first bucket, and how many there are.
    base: usize,
    /// By position; the first is not used.
    nodes: Vec<Node>,
    /// The bucket at position `base + i`.
    buckets: VecDeque<Bucket<V>>,
    /// Records in plain buckets: those that splitting spreads.
    plain: usize,
    /// Positions of buckets that changed since the last [`Directory::settle`].
    stale: Vec<usize>,
}

/// Records in the order of their keys.
type Records<V> = [(Hash, V)];

#[derive(Clone, Debug)]
enum Bucket<V> {
    /// Records in the order of their keys.
    Plain(Vec<(Hash, V)>),
    /// More records with the same first bits than a bucket holds.
    Deep(Box<Directory<V>>),
}

/// What stands under a position.
#[derive(Clone, Copy, Debug)]
struct Node {
    hash: Hash,
    weight: Weight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    None,
    One,
    Many,
    /// To be computed by `settle`.
    Stale,
}

impl<V: Value> Directory<V> {
    pub(super) fn new(start: usize) -> Self {
        Self {
            start,
            base: 1,
            nodes: vec![Node::NONE; 2],
            buckets: VecDeque::from([Bucket::Plain(Vec::new())]),
            plain: 0,
            stale: Vec::new(),
        }
    }

    pub(super) fn get(&self, key: &Hash) -> Option<&V> {
        match self.buckets.get(self.position(key) - self.base)? {
            Bucket::Plain(records) => {
                let at = records.binary_search_by(|(it, _)| it.cmp(key)).ok()?;
                records.get(at).map(|(_, value)| value)
            }
            Bucket::Deep(directory) => directory.get(key),
        }
    }

    /// Puts a record in place. The hashes are out of date until `settle`.
    pub(super) fn put(&mut self, key: Hash, value: V) -> Option<V> {
        let position = self.position(&key);
        let depth = position.ilog2() as usize;
        self.mark_stale(position);
        let bucket = &mut self.buckets[position - self.base];
        match bucket {
            Bucket::Deep(directory) => return directory.put(key, value),
            Bucket::Plain(records) => match records.binary_search_by(|(it, _)| it.cmp(&key)) {
                Ok(at) => return Some(std::mem::replace(&mut records[at].1, value)),
                Err(at) => {
                    // Exactly one more: doubling would cost as much as all the hashes do.
                    records.reserve_exact(1);
                    records.insert(at, (key, value));
                    self.plain += 1;
                    if records.len() > BUCKET_MAX {
                        self.plain -= records.len();
                        *bucket = Bucket::of(std::mem::take(records), self.start + depth);
                    }
                }
            },
        }
        if self.plain > FILL * self.base {
            self.split();
        }
        None
    }

    /// Brings all hashes up to date.
    pub(super) fn settle(&mut self) {
        let mut stale = std::mem::take(&mut self.stale);
        // A bucket that was split since it changed has become an inner node; its halves are here.
        stale.retain(|&position| position >= self.base);
        stale.sort_unstable();
        for &position in &stale {
            let depth = position.ilog2() as usize;
            self.nodes[position] = self.buckets[position - self.base].settle(self.start + depth);
        }
        // Upwards level by level; the buckets of the upper of their two levels join on the way.
        let lower_level = 2 << self.base.ilog2();
        let upper_len = stale.partition_point(|&position| position < lower_level);
        let mut level = stale.split_off(upper_len);
        self.combine_parents(&mut level);
        level.extend(stale);
        level.sort_unstable();
        while level.first().is_some_and(|&position| position > 1) {
            self.combine_parents(&mut level);
        }
    }

    pub(super) fn root(&self) -> Hash {
        self.nodes[1].hash
    }

    pub(super) fn prove(&self, key: &Hash) -> MapProof {
        let mut root_first = Vec::new();
        let end = self.descend(key, &mut root_first);
        let other = end.filter(|(it, _)| *it != key).map(|(it, value)| (*it, value.value_hash()));
        root_first.reverse();
        MapProof::new(root_first, other)
    }

    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = (&Hash, &V)> + '_> {
        // The split buckets, at the back, hold the lower keys.
        let split = self.buckets.len() - 2 * (self.base - (1 << self.base.ilog2()));
        let in_order = self.buckets.range(split..).chain(self.buckets.range(..split));
        Box::new(in_order.flat_map(Bucket::iter))
    }

    /// Walks from the root to where the key is or would be, collecting siblings; gives the record
    /// at which the path ends, whoever's it is.
    fn descend<'a>(&'a self, key: &Hash, siblings: &mut Vec<Hash>) -> Option<(&'a Hash, &'a V)> {
        let bucket = self.position(key);
        let depth = bucket.ilog2();
        for height in (0..=depth).rev() {
            let position = bucket >> height;
            if height < depth {
                siblings.push(self.nodes[position ^ 1].hash);
            }
            match self.nodes[position].weight {
                Weight::None => return None,
                Weight::One => return self.only(position),
                Weight::Many | Weight::Stale => {}
            }
        }
        match &self.buckets[bucket - self.base] {
            Bucket::Deep(directory) => directory.descend(key, siblings),
            Bucket::Plain(records) => descend_records(records, self.start + depth as usize, key, siblings),
        }
    }

    /// The only record under a position.
    fn only(&self, mut position: usize) -> Option<(&Hash, &V)> {
        while position < self.base {
            position = 2 * position + usize::from(self.nodes[2 * position].weight == Weight::None);
        }
        self.buckets[position - self.base].iter().next()
    }

    /// The position of the bucket to which a key belongs.
    fn position(&self, key: &Hash) -> usize {
        let depth = self.base.ilog2() + 1;
        let lower = (1 << depth) + bits(key, self.start, depth);
        if lower < 2 * self.base { lower } else { lower >> 1 }
    }

    fn mark_stale(&mut self, position: usize) {
        if self.nodes[position].weight != Weight::Stale {
            self.nodes[position].weight = Weight::Stale;
            self.stale.push(position);
        }
    }

    /// Splits the front bucket in two.
    fn split(&mut self) {
        let Some(front) = self.buckets.pop_front() else { return };
        let at = self.start + self.base.ilog2() as usize;
        let (left, right) = match front {
            Bucket::Plain(mut records) => {
                let middle = records.partition_point(|(key, _)| !bit(key, at));
                let right = records.split_off(middle);
                records.shrink_to_fit();
                (Bucket::Plain(records), Bucket::Plain(right))
            }
            // Rare, and worth no cleverness: the records are dealt out anew.
            Bucket::Deep(directory) => {
                let mut records = directory.into_records();
                let middle = records.partition_point(|(key, _)| !bit(key, at));
                let right = records.split_off(middle);
                let halves = (Bucket::of(records, at + 1), Bucket::of(right, at + 1));
                self.plain += halves.0.plain() + halves.1.plain();
                halves
            }
        };
        self.buckets.extend([left, right]);
        self.nodes.extend([Node::NONE; 2]);
        self.mark_stale(2 * self.base);
        self.mark_stale(2 * self.base + 1);
        self.base += 1;
    }

    /// Computes the parents of these sorted positions, and leaves them in their place.
    fn combine_parents(&mut self, level: &mut Vec<usize>) {
        for position in &mut *level {
            *position >>= 1;
        }
        level.dedup();
        for &parent in &*level {
            self.nodes[parent] = self.nodes[2 * parent].beside(self.nodes[2 * parent + 1]);
        }
    }

    /// All records in the order of their keys.
    fn into_records(mut self) -> Vec<(Hash, V)> {
        let split = self.buckets.len() - 2 * (self.base - (1 << self.base.ilog2()));
        self.buckets.rotate_left(split);
        self.buckets
            .into_iter()
            .flat_map(|bucket| match bucket {
                Bucket::Plain(records) => records,
                Bucket::Deep(directory) => directory.into_records(),
            })
            .collect()
    }
}

impl<V: Value> Bucket<V> {
    /// A bucket of these sorted records, which agree in their first `start` bits.
    fn of(records: Vec<(Hash, V)>, start: usize) -> Self {
        if records.len() <= BUCKET_MAX {
            return Self::Plain(records);
        }
        // By the time that a bucket of this directory overflows in its turn there have been
        // splits, so `start` grows with each nesting, and 256 bits bound their number.
        let mut directory = Directory::new(start);
        for (key, value) in records {
            directory.put(key, value);
        }
        Self::Deep(Box::new(directory))
    }

    fn plain(&self) -> usize {
        match self {
            Self::Plain(records) => records.len(),
            Self::Deep(_) => 0,
        }
    }

    fn settle(&mut self, start: usize) -> Node {
        match self {
            Self::Plain(records) => Node::over(records, start),
            Self::Deep(directory) => {
                directory.settle();
                directory.nodes[1]
            }
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = (&Hash, &V)> + '_> {
        match self {
            Self::Plain(records) => Box::new(records.iter().map(|(key, value)| (key, value))),
            Self::Deep(directory) => directory.iter(),
        }
    }
}

impl Node {
    const NONE: Self = Self { hash: EMPTY, weight: Weight::None };

    /// The tree over sorted records that agree in their first `start` bits.
    fn over<V: Value>(records: &Records<V>, start: usize) -> Self {
        match records {
            [] => Self::NONE,
            [(key, value)] => Self { hash: leaf_hash(key, &value.value_hash()), weight: Weight::One },
            _ => {
                let (left, right) = halves(records, start);
                Self::over(left, start + 1).beside(Self::over(right, start + 1))
            }
        }
    }

    /// The tree of two halves: a record alone stands as high as it can.
    fn beside(self, right: Self) -> Self {
        match (self.weight, right.weight) {
            (Weight::None, Weight::None | Weight::One) => right,
            (Weight::One, Weight::None) => self,
            _ => Self { hash: node_hash(&self.hash, &right.hash), weight: Weight::Many },
        }
    }
}

/// [`Directory::descend`] within a bucket.
fn descend_records<'a, V: Value>(
    mut records: &'a Records<V>,
    start: usize,
    key: &Hash,
    siblings: &mut Vec<Hash>,
) -> Option<(&'a Hash, &'a V)> {
    let mut at = start;
    while records.len() > 1 {
        let (left, right) = halves(records, at);
        let (own, sibling) = if bit(key, at) { (right, left) } else { (left, right) };
        at += 1;
        siblings.push(Node::over(sibling, at).hash);
        records = own;
    }
    records.first().map(|(key, value)| (key, value))
}

/// The records whose bit is 0, and those whose bit is 1.
fn halves<V>(records: &Records<V>, at: usize) -> (&Records<V>, &Records<V>) {
    records.split_at(records.partition_point(|(key, _)| !bit(key, at)))
}

/// `count` bits of a key from `start` on, as a number. Beyond the key's end come zeros.
fn bits(key: &Hash, start: usize, count: u32) -> usize {
    let mut window = [0; 16];
    let rest = key.get(start / 8..).unwrap_or_default();
    let len = rest.len().min(window.len());
    window[..len].copy_from_slice(&rest[..len]);
    let aligned = u128::from_be_bytes(window) << (start % 8);
    let top = aligned.checked_shr(u128::BITS - count).unwrap_or(0);
    usize::try_from(top).unwrap_or(usize::MAX)
}
