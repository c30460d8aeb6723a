//! Provision tree -> rules: what each provision demands once it has inherited what it does not restate.
//!
//! A nested provision inherits each kind of criterion that it does not restate and replaces those that it does, so it
//! may widen; but it is never in force longer than its parents, and a permit that names authors alone still goes only to
//! the recipients that its parents name.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use sluice_fhir::datetime::Span;

use super::{Actor, Base, Coding, Data, Effect, Provision};
use crate::consent::codes::{CONFIDENTIALITY, Key, RESOURCE_TYPES, Role, confidentiality_level, role};

/// One provision with all that it demands.
#[derive(Clone, Debug)]
pub(in crate::consent) struct Rule {
    /// 0 for the root.
    pub(in crate::consent) depth: u8,
    /// FHIRPath of the provision.
    path: Box<str>,
    pub(in crate::consent) effect: Effect,
    /// The provision or one above it can't be read: it may match anything.
    pub(in crate::consent) unreadable: bool,
    /// Its own period and those of its parents: all must hold.
    pub(in crate::consent) periods: Box<[Span]>,
    pub(in crate::consent) criteria: Criteria,
}

/// FHIRPath of a provision in its Consent, such as `Consent.provision.provision[0]`. It shares the rules of its policy,
/// which a decision has just read: taking one reads no further memory.
#[derive(Clone)]
pub struct ProvisionPath {
    rules: Arc<[Rule]>,
    at: usize,
}

impl ProvisionPath {
    pub(super) fn new(rules: &Arc<[Rule]>, at: usize) -> Self {
        Self { rules: Arc::clone(rules), at }
    }
}

impl Deref for ProvisionPath {
    type Target = str;

    fn deref(&self) -> &str {
        self.rules.get(self.at).map_or("", |rule| &rule.path)
    }
}

impl fmt::Debug for ProvisionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for ProvisionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq for ProvisionPath {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ProvisionPath {}

/// What a rule demands, by kind; `None` demands nothing.
#[derive(Clone, Debug, Default)]
pub(in crate::consent) struct Criteria {
    pub(in crate::consent) actors: Option<Actors>,
    pub(in crate::consent) actions: Option<Alternatives>,
    pub(in crate::consent) purposes: Option<Alternatives>,
    pub(in crate::consent) labels: Option<Labels>,
    pub(in crate::consent) classes: Option<Alternatives>,
    pub(in crate::consent) codes: Option<Alternatives>,
    pub(in crate::consent) data_period: Option<Span>,
    pub(in crate::consent) data: Option<Box<[Named]>>,
}

/// A named record: how it is meant and which, each `None` if it can't be read.
pub(in crate::consent) type Named = (Option<DataMeaning>, Option<Key>);

/// Any of these; `unreadable` if one of them can't be read.
#[derive(Clone, Debug)]
pub(in crate::consent) struct Alternatives {
    pub(in crate::consent) keys: Box<[Key]>,
    pub(in crate::consent) unreadable: bool,
}

/// Who, by role.
#[derive(Clone, Debug, Default)]
pub(in crate::consent) struct Actors {
    pub(in crate::consent) recipients: Vec<Key>,
    pub(in crate::consent) authors: Vec<Key>,
    /// (role codes, reference) of roles that say neither.
    pub(in crate::consent) others: Vec<(Vec<Box<str>>, Key)>,
    pub(in crate::consent) unreadable: bool,
}

/// Labels: confidentiality by level, the rest by code.
#[derive(Clone, Debug)]
pub(in crate::consent) struct Labels {
    pub(in crate::consent) level_min: Option<u8>,
    pub(in crate::consent) level_max: Option<u8>,
    pub(in crate::consent) codes: Alternatives,
}

/// How a rule reaches out from a record that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataMeaning {
    /// That record alone.
    Instance,
    /// The encounter and what belongs to it.
    Related,
    /// The record and those that refer to it.
    Dependents,
    /// Records written by whom it names.
    AuthoredBy,
}

impl DataMeaning {
    /// Reads a code of `http://hl7.org/fhir/consent-data-meaning`.
    pub fn of(code: &str) -> Option<Self> {
        Some(match code {
            "instance" => Self::Instance,
            "related" => Self::Related,
            "dependents" => Self::Dependents,
            "authoredby" => Self::AuthoredBy,
            _ => return None,
        })
    }

    /// The code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Related => "related",
            Self::Dependents => "dependents",
            Self::AuthoredBy => "authoredby",
        }
    }
}

/// The rules of a provision tree, the deepest first.
pub(super) fn compile(root: &Provision, base: Option<Base>) -> Vec<Rule> {
    // No root type: the base rule speaks. None known, nothing permits: the root denies, and so do its permits.
    let permits = root.effect.is_some() || base.is_some();
    let effect = root.effect.unwrap_or(match base {
        Some(Base::OptIn) => Effect::Permit,
        Some(Base::OptOut) | None => Effect::Deny,
    });
    let mut rules = Vec::new();
    let top = Inherited {
        depth: 0,
        unreadable: false,
        periods: Vec::new(),
        as_permit: Criteria::default(),
        as_other: Criteria::default(),
    };
    add(&mut rules, root, effect, permits, String::from("Consent.provision"), &top);
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.depth));
    rules
}

/// What a provision takes from those above it, in the two readings.
struct Inherited {
    depth: u8,
    unreadable: bool,
    periods: Vec<Span>,
    /// For permits: recipients, authors and other roles are kinds apart, so that naming an author drops no recipient.
    as_permit: Criteria,
    /// For the rest: actors are one kind, so that a denial reaches as far as it was written to.
    as_other: Criteria,
}

fn add(rules: &mut Vec<Rule>, provision: &Provision, effect: Effect, permits: bool, path: String, above: &Inherited) {
    let mut periods = above.periods.clone();
    periods.extend(provision.period.as_ref().map(super::Period::span));
    let as_other = restate(provision, &above.as_other);
    let mut as_permit = restate(provision, &above.as_permit);
    as_permit.actors = apart(provision.actors.as_deref().map(actors), above.as_permit.actors.as_ref());
    let here = Inherited {
        depth: above.depth.saturating_add(1),
        unreadable: above.unreadable || provision.unreadable,
        periods,
        as_permit,
        as_other,
    };
    for (index, nested) in provision.nested.iter().enumerate() {
        let effect = match nested.effect {
            Some(Effect::Permit) if permits => Effect::Permit,
            Some(Effect::Permit | Effect::Deny) => Effect::Deny,
            Some(Effect::Unreadable) | None => Effect::Unreadable,
        };
        add(rules, nested, effect, permits, format!("{path}.provision[{index}]"), &here);
    }
    rules.push(Rule {
        depth: above.depth,
        path: path.into(),
        // What could turn its meaning could turn its type as well.
        effect: if here.unreadable { Effect::Unreadable } else { effect },
        unreadable: here.unreadable,
        periods: here.periods.into(),
        criteria: if effect == Effect::Permit { here.as_permit } else { here.as_other },
    });
}

fn restate(provision: &Provision, above: &Criteria) -> Criteria {
    fn or<T: Clone>(own: Option<T>, above: Option<&T>) -> Option<T> {
        own.or_else(|| above.cloned())
    }
    let concepts = |concepts: &Vec<Vec<Coding>>| any(concepts.iter().flatten());
    Criteria {
        actors: or(provision.actors.as_deref().map(actors), above.actors.as_ref()),
        actions: or(provision.actions.as_ref().map(concepts), above.actions.as_ref()),
        purposes: or(provision.purposes.as_ref().map(|purposes| any(purposes.iter())), above.purposes.as_ref()),
        labels: or(provision.labels.as_deref().map(labels), above.labels.as_ref()),
        classes: or(provision.classes.as_deref().map(classes), above.classes.as_ref()),
        codes: or(provision.codes.as_ref().map(concepts), above.codes.as_ref()),
        data_period: or(provision.data_period.as_ref().map(super::Period::span), above.data_period.as_ref()),
        data: or(provision.data.as_deref().map(data), above.data.as_ref()),
    }
}

fn any<'c>(codings: impl Iterator<Item = &'c Coding>) -> Alternatives {
    let (mut keys, mut unreadable) = (Vec::new(), false);
    for coding in codings {
        match coding {
            Some((system, code)) => keys.push(Key::code(system, code)),
            None => unreadable = true,
        }
    }
    sorted(keys, unreadable)
}

fn sorted(mut keys: Vec<Key>, unreadable: bool) -> Alternatives {
    keys.sort_unstable();
    keys.dedup();
    Alternatives { keys: keys.into(), unreadable }
}

/// A class of another system than the resource types (a document's media type, a profile) can't be judged here.
fn classes(codings: &[Coding]) -> Alternatives {
    let known = |coding: &&Coding| matches!(coding, Some((system, _)) if &**system == RESOURCE_TYPES);
    Alternatives { unreadable: !codings.iter().all(|coding| known(&coding)), ..any(codings.iter().filter(known)) }
}

fn labels(codings: &[Coding]) -> Labels {
    let level = |coding: &Coding| match coding {
        Some((system, code)) if &**system == CONFIDENTIALITY => confidentiality_level(code),
        _ => None,
    };
    Labels {
        level_min: codings.iter().filter_map(level).min(),
        level_max: codings.iter().filter_map(level).max(),
        codes: any(codings.iter().filter(|coding| level(coding).is_none())),
    }
}

fn actors(actors: &[Actor]) -> Actors {
    let mut by_role = Actors::default();
    for actor in actors {
        let Some(reference) = actor.reference.as_deref().map(Key::reference) else {
            by_role.unreadable = true;
            continue;
        };
        let mut roles: Vec<Role> = actor.role.iter().flatten().map(|(system, code)| role(system, code)).collect();
        roles.dedup();
        match roles[..] {
            [Role::Recipient] if !actor.role.contains(&None) => by_role.recipients.push(reference),
            [Role::Author] if !actor.role.contains(&None) => by_role.authors.push(reference),
            [] => by_role.unreadable = true,
            _ => {
                let codes = actor.role.iter().flatten().map(|(_, code)| code.clone()).collect();
                by_role.others.push((codes, reference));
            }
        }
    }
    by_role
}

/// A permit's actors where each role is a kind of its own.
fn apart(own: Option<Actors>, above: Option<&Actors>) -> Option<Actors> {
    let (own, above) = match (own, above) {
        (own, None) => return own,
        (None, above) => return above.cloned(),
        (Some(own), Some(above)) => (own, above),
    };
    let or = |own: Vec<Key>, above: &Vec<Key>| if own.is_empty() { above.clone() } else { own };
    Some(Actors {
        recipients: or(own.recipients, &above.recipients),
        authors: or(own.authors, &above.authors),
        others: if own.others.is_empty() { above.others.clone() } else { own.others },
        unreadable: own.unreadable,
    })
}

fn data(data: &[Data]) -> Box<[Named]> {
    data.iter().map(|data| (data.meaning, data.reference.as_deref().map(Key::reference))).collect()
}
