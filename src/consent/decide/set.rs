//! Consents that are judged together: of each id the latest version alone.

use std::cmp::Ordering;
use std::collections::HashMap;

use sluice_fhir::datetime::DateTime;

use crate::consent::codes::Key;
use crate::consent::policy::{Policy, Standing};

/// Consents, in any order, of any patients, ready to be decided by.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    members: Box<[Member]>,
}

/// A Consent that counts.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its index as it was given.
    pub(super) index: usize,
    pub(super) policy: Policy,
    /// What the policy says of itself, here again so that most decisions need no more of it than its rules.
    pub(super) standing: Standing,
    pub(super) date: Option<DateTime>,
    /// Whose it is; `None` if it may be anyone's.
    pub(super) patient: Option<Key>,
    /// It can't be told whether it is the latest of its id.
    pub(super) unclear: bool,
}

impl PolicySet {
    /// Keeps of each id the latest version, by number and by time of update. Where these are missing or contradict each
    /// other, all that may be the latest stay, and are unclear.
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let policies: Vec<Policy> = policies.into_iter().collect();
        let mut by_id: HashMap<&str, Vec<&Policy>> = HashMap::new();
        for policy in &policies {
            if let Some(id) = policy.id() {
                by_id.entry(id).or_default().push(policy);
            }
        }
        let mut members = Vec::with_capacity(policies.len());
        for (index, policy) in policies.iter().enumerate() {
            let versions = policy.id().and_then(|id| by_id.get(id)).map(Vec::as_slice).unwrap_or_default();
            let orders = versions.iter().filter(|other| **other != policy).map(|other| age(policy, other));
            let mut unclear = false;
            let mut is_old = false;
            for order in orders {
                is_old |= order == Some(Ordering::Less);
                unclear |= order.is_none();
            }
            if !is_old {
                let (standing, date, patient) = (policy.standing(), policy.date(), policy.patient_key());
                members.push(Member { index, policy: policy.clone(), standing, date, patient, unclear });
            }
        }
        Self { members: members.into() }
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many Consents count.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether none counts.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Which of two different texts of one Consent is the older; `None` if it can't be told.
fn age(policy: &Policy, other: &Policy) -> Option<Ordering> {
    let (left, right) = (policy.version(), other.version());
    let number = left.number.zip(right.number).map(|(left, right)| left.cmp(&right));
    let updated = left.updated.as_ref().zip(right.updated.as_ref()).map(|((_, left), (_, right))| {
        left.start
            .compare(right.start)
            .filter(|order| *order == Ordering::Equal || left.span().overlaps(&right.span()) == Some(false))
    });
    let order = match (number, updated) {
        (Some(number), None) => number,
        (None, Some(updated)) => updated?,
        // Both must not contradict each other; times may be equal where numbers differ.
        (Some(number), Some(updated)) => match updated {
            Some(Ordering::Equal) | None => number,
            Some(updated) if updated == number => number,
            Some(_) => return None,
        },
        (None, None) => return None,
    };
    (order != Ordering::Equal).then_some(order)
}
