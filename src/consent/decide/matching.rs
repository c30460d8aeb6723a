//! Whether a rule speaks of a request and a resource: yes, no, or not known.
//!
//! A permit must be claimed and a denial must be ruled out, so the same criterion is read narrowly in a permit and widely
//! in a denial. A rule whose type can't be read is read both ways, and the wider answer holds.

use sluice_fhir::datetime::Span;

use super::Request;
use crate::consent::codes::Key;
use crate::consent::facets::{Facets, Keys, When};
use crate::consent::policy::{Actors, Alternatives, DataMeaning, Effect, Labels, Named, Rule};

/// Yes, no, or not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tri {
    No,
    Unknown,
    Yes,
}

impl Tri {
    /// The first, or else the second.
    fn of(yes: bool, or: Self) -> Self {
        if yes { Self::Yes } else { or }
    }

    /// Unknown if so, else no.
    fn unknown_if(unknown: bool) -> Self {
        if unknown { Self::Unknown } else { Self::No }
    }
}

impl From<Option<bool>> for Tri {
    fn from(known: Option<bool>) -> Self {
        known.map_or(Self::Unknown, |yes| Self::of(yes, Self::No))
    }
}

/// How a criterion is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Permit,
    Deny,
}

/// A rule matches if every kind of criterion that it names does.
pub(super) fn matches(rule: &Rule, request: &Request, facets: &Facets) -> Tri {
    // What can't be read could demand anything, or nothing.
    if rule.unreadable {
        return Tri::Unknown;
    }
    match rule.effect {
        Effect::Permit => all(rule, request, facets, Reading::Permit),
        Effect::Deny => all(rule, request, facets, Reading::Deny),
        Effect::Unreadable => {
            all(rule, request, facets, Reading::Permit).max(all(rule, request, facets, Reading::Deny))
        }
    }
}

fn all(rule: &Rule, request: &Request, facets: &Facets, reading: Reading) -> Tri {
    let criteria = &rule.criteria;
    // The cheap ones first; one "no" ends it.
    let mut all = Tri::Yes;
    macro_rules! demand {
        ($kind:ident, |$wanted:ident| $judge:expr) => {
            if let Some($wanted) = &criteria.$kind {
                all = all.min($judge);
                if all == Tri::No {
                    return all;
                }
            }
        };
    }
    demand!(purposes, |wanted| by_purpose(wanted, request));
    demand!(actions, |wanted| given(wanted, request.action()));
    demand!(actors, |wanted| by_actors(wanted, request, facets, reading));
    demand!(classes, |wanted| by_class(wanted, facets));
    demand!(labels, |wanted| by_labels(wanted, facets, reading));
    demand!(codes, |wanted| by_codes(wanted, facets, reading));
    demand!(data, |wanted| by_data(wanted, facets, reading));
    demand!(data_period, |wanted| by_data_period(wanted, facets, reading));
    rule.periods.iter().map(|period| in_force(period, request)).fold(all, Tri::min)
}

/// A code that the request may give. Missing where a rule asks for it, it is not known.
fn given(wanted: &Alternatives, given: Option<Key>) -> Tri {
    given.map_or(Tri::Unknown, |given| {
        Tri::of(wanted.keys.binary_search(&given).is_ok(), Tri::unknown_if(wanted.unreadable))
    })
}

/// Purpose: a rule's code covers the narrower codes, not the broader.
fn by_purpose(wanted: &Alternatives, request: &Request) -> Tri {
    let found = request.purposes().iter().any(|purpose| wanted.keys.contains(purpose));
    Tri::of(found, Tri::unknown_if(wanted.unreadable || request.purposes().is_empty()))
}

/// Class: the resource type.
fn by_class(wanted: &Alternatives, facets: &Facets) -> Tri {
    given(wanted, Some(facets.class))
}

/// In force: within period, by the precision given, in the zone given.
fn in_force(period: &Span, request: &Request) -> Tri {
    let Some(time) = request.time() else { return Tri::Unknown };
    match (time.within(period), time.overlaps(period)) {
        (Some(true), _) => Tri::Yes,
        (_, Some(false)) => Tri::No,
        _ => Tri::Unknown,
    }
}

/// dataPeriod: a permit needs all of the clinical time inside, any overlap wakes a denial; without a date a permit does
/// not cover the record and a denial cannot be ruled out.
fn by_data_period(period: &Span, facets: &Facets, reading: Reading) -> Tri {
    match (facets.when, reading) {
        (When::At(span), Reading::Permit) => span.within(period).into(),
        (When::At(span), Reading::Deny) => span.overlaps(period).into(),
        (When::Unknown, Reading::Permit) => Tri::No,
        (When::Unknown, Reading::Deny) => Tri::Unknown,
    }
}

/// Label: any label of the resource. Confidentiality is a high-water mark for permits: R covers R and lower. A denial of
/// R covers what is at least R and leaves N alone. An unlabelled resource is not taken for normal.
fn by_labels(wanted: &Labels, facets: &Facets, reading: Reading) -> Tri {
    let (own, around) = (&facets.labels, &facets.around);
    let has = |label: &Key| wanted.codes.keys.binary_search(label).is_ok();
    let level = own.level.max(around.level);
    let unreadable = Tri::unknown_if(own.unreadable || wanted.codes.unreadable);
    match reading {
        Reading::Permit => {
            if own.codes.iter().any(has) {
                return Tri::Yes;
            }
            let covered = matches!((level, wanted.level_max), (Some(level), Some(max)) if level <= max);
            // A label that can't be read may be higher than those that can.
            if covered && !own.unreadable && !around.unreadable { Tri::Yes } else { unreadable }
        }
        Reading::Deny => {
            if own.codes.iter().chain(&around.codes).any(has) {
                return Tri::Yes;
            }
            let by_level = match (level, wanted.level_min) {
                (_, None) => Tri::No,
                (Some(level), Some(min)) => Tri::of(level >= min, Tri::No),
                (None, Some(_)) => Tri::Unknown,
            };
            let unlooked = Tri::unknown_if(!wanted.codes.keys.is_empty() && !own.labelled && !around.labelled);
            by_level.max(unlooked).max(unreadable).max(Tri::unknown_if(around.unreadable))
        }
    }
}

/// Code: any coding of the element that says what the resource is.
fn by_codes(wanted: &Alternatives, facets: &Facets, reading: Reading) -> Tri {
    let found = facets.codes.keys.iter().any(|code| wanted.keys.binary_search(code).is_ok());
    Tri::of(found, Tri::unknown_if(wanted.unreadable || (reading == Reading::Deny && facets.codes.incomplete)))
}

/// Actor: the actor or one of its memberOf, in a recipient's role, as that rule demands; a rule about an author speaks of
/// authors. In a permit each of these kinds must hold, in a denial any.
fn by_actors(wanted: &Actors, request: &Request, facets: &Facets, reading: Reading) -> Tri {
    let recipients = (!wanted.recipients.is_empty()).then(|| by_recipient(&wanted.recipients, request, reading));
    let authors = (!wanted.authors.is_empty()).then(|| by_author(&wanted.authors, &facets.authors, reading));
    let others = wanted.others.iter().map(|(roles, actor)| by_other(roles, *actor, request)).max();
    let unreadable = wanted.unreadable.then_some(Tri::Unknown);
    let kinds = [recipients, authors, others, unreadable].into_iter().flatten();
    match reading {
        Reading::Permit => kinds.min(),
        Reading::Deny => kinds.max(),
    }
    .unwrap_or(Tri::Unknown)
}

fn by_recipient(wanted: &[Key], request: &Request, reading: Reading) -> Tri {
    let is_named = wanted.iter().any(|actor| request.is(*actor));
    // Whoever asks receives, whatever it calls itself: a denial can't be evaded by another role.
    let is_recipient = reading == Reading::Deny || request.is_recipient();
    Tri::of(is_named && is_recipient, Tri::unknown_if(!is_named && !request.has_actor()))
}

fn by_author(wanted: &[Key], authors: &Keys, reading: Reading) -> Tri {
    let found = authors.keys.iter().any(|author| wanted.contains(author));
    Tri::of(found, Tri::unknown_if(reading == Reading::Deny && authors.incomplete))
}

/// A role that is neither: it matches only whom the request says to be in it.
fn by_other(roles: &[Box<str>], actor: Key, request: &Request) -> Tri {
    if !request.role().is_some_and(|role| roles.iter().any(|wanted| &**wanted == role)) {
        return Tri::Unknown;
    }
    Tri::of(request.is(actor), Tri::unknown_if(!request.has_actor()))
}

/// data: the instance itself, what belongs to the encounter, what refers to it, or what somebody wrote.
fn by_data(wanted: &[Named], facets: &Facets, reading: Reading) -> Tri {
    let is_deny = reading == Reading::Deny;
    let judge = |(meaning, reference): &Named| {
        let (Some(meaning), Some(reference)) = (meaning, reference) else { return Tri::Unknown };
        // A record without an id that is not new may be the one that is named.
        let nameless = is_deny && facets.instance.is_empty() && !facets.is_new;
        let instance = Tri::of(facets.instance.contains(reference), Tri::unknown_if(nameless));
        let refers = || Tri::of(facets.references.binary_search(reference).is_ok(), Tri::No);
        match meaning {
            DataMeaning::Instance => instance,
            DataMeaning::Related => {
                let belongs = facets.encounters.keys.contains(reference) || (is_deny && refers() == Tri::Yes);
                instance.max(Tri::of(belongs, Tri::unknown_if(is_deny && facets.encounters.incomplete)))
            }
            DataMeaning::Dependents => instance.max(refers()),
            DataMeaning::AuthoredBy => by_author(&[*reference], &facets.authors, reading),
        }
    };
    wanted.iter().map(judge).max().unwrap_or(Tri::Unknown)
}
