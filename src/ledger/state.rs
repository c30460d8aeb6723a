//! What a sequence of operations comes to.
//!
//! Takes: operations in the order of the log, each allowed by the rules. Gives: the records that stand. Never: refuses
//! an operation; whoever applies one has asked the rules before.

use std::collections::HashMap;

use sluice_merkle::Hash;

use super::ids::{Name, Origin, Pseudonym};
use super::records::{Anchor, Device, Institution, Operation, SubjectRecord};
use super::rules::View;
use super::signature::PublicKey;
use super::subjects::Subjects;

/// All records. The subjects of the last checkpoint stand in the prefix map; those that changed since stand beside it,
/// so that proofs under that checkpoint stay possible.
#[derive(Debug)]
pub(crate) struct State {
    administrator: PublicKey,
    institutions: HashMap<Name, Institution>,
    devices: HashMap<PublicKey, Device>,
    anchors: HashMap<Origin, Anchor>,
    sealed: Subjects,
    recent: HashMap<Pseudonym, SubjectRecord>,
}

impl State {
    pub(crate) fn new(administrator: PublicKey) -> Self {
        Self {
            administrator,
            institutions: HashMap::new(),
            devices: HashMap::new(),
            anchors: HashMap::new(),
            sealed: Subjects::new(),
            recent: HashMap::new(),
        }
    }

    pub(crate) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Institution(record) => {
                self.institutions.insert(record.id.clone(), record);
            }
            Operation::Device(record) => {
                self.devices.insert(record.key, record);
            }
            Operation::Subject(record) => {
                self.recent.insert(record.pseudonym, record);
            }
            Operation::Anchor(anchor) => {
                self.anchors.insert(anchor.origin.clone(), anchor);
            }
        }
    }

    /// Takes over what a group came to, once the group is durable.
    pub(crate) fn absorb(&mut self, changes: Changes) {
        let State { institutions, devices, anchors, recent, .. } = changes.0;
        self.institutions.extend(institutions);
        self.devices.extend(devices);
        self.anchors.extend(anchors);
        self.recent.extend(recent);
    }

    /// Moves what changed into the prefix map and gives its root.
    pub(crate) fn merge(&mut self) -> Hash {
        self.sealed.update(self.recent.drain().map(|(_, record)| record))
    }

    /// The subjects as of the last [`Self::merge`].
    pub(crate) fn sealed(&self) -> &Subjects {
        &self.sealed
    }

    /// How many subjects changed since.
    pub(crate) fn recent_len(&self) -> usize {
        self.recent.len()
    }
}

impl View for State {
    fn administrator(&self) -> PublicKey {
        self.administrator
    }

    fn institution(&self, id: &Name) -> Option<&Institution> {
        self.institutions.get(id)
    }

    fn device(&self, key: &PublicKey) -> Option<&Device> {
        self.devices.get(key)
    }

    fn subject(&self, pseudonym: &Pseudonym) -> Option<SubjectRecord> {
        self.recent.get(pseudonym).cloned().or_else(|| self.sealed.get(pseudonym))
    }

    fn anchor(&self, origin: &Origin) -> Option<&Anchor> {
        self.anchors.get(origin)
    }
}

/// What a group of operations changes.
pub(crate) struct Changes(State);

/// A state and operations that are not durable yet: what the next operation of a group is judged by.
pub(crate) struct Ahead<'s> {
    below: &'s State,
    above: State,
}

impl<'s> Ahead<'s> {
    pub(crate) fn new(below: &'s State) -> Self {
        Self { below, above: State::new(below.administrator) }
    }

    pub(crate) fn apply(&mut self, operation: Operation) {
        self.above.apply(operation);
    }

    /// What the operations came to.
    pub(crate) fn into_changes(self) -> Changes {
        Changes(self.above)
    }
}

impl View for Ahead<'_> {
    fn administrator(&self) -> PublicKey {
        self.below.administrator()
    }

    fn institution(&self, id: &Name) -> Option<&Institution> {
        self.above.institution(id).or_else(|| self.below.institution(id))
    }

    fn device(&self, key: &PublicKey) -> Option<&Device> {
        self.above.device(key).or_else(|| self.below.device(key))
    }

    fn subject(&self, pseudonym: &Pseudonym) -> Option<SubjectRecord> {
        self.above.recent.get(pseudonym).cloned().or_else(|| self.below.subject(pseudonym))
    }

    fn anchor(&self, origin: &Origin) -> Option<&Anchor> {
        self.above.anchor(origin).or_else(|| self.below.anchor(origin))
    }
}
