//! Consent tree -> [`Form`]. Total: each function gives what it could read and raises a flag for what it could not.

use sluice_fhir::datetime::DateTime;
use sluice_fhir::tree::Node;

use super::{Actor, Base, Coding, Data, DataMeaning, Effect, Form, Period, Provision, Standing, Version};
use crate::consent::codes::{ACT_CODE, CONSENT_SCOPE};

/// Members of an R4 Consent that leave the decision alone, besides those read below.
const ASIDE: [&str; 12] = [
    "meta",
    "language",
    "text",
    "contained",
    "identifier",
    "category",
    "performer",
    "organization",
    "sourceAttachment",
    "sourceReference",
    "policy",
    "verification",
];

const READ: [&str; 8] =
    ["resourceType", "status", "scope", "patient", "dateTime", "policyRule", "provision", "implicitRules"];

pub(super) fn consent(node: Node<'_>) -> Form {
    if node.resource_type() != Some("Consent") {
        return Form::unreadable();
    }
    let mut sound = Sound(true);
    sound.members(node, &[&READ[..], &ASIDE[..]].concat());
    // FHIR R4 resource.html#implicitRules: rules that are not known must be taken to change the meaning of the content.
    sound.demand(node.member("implicitRules").is_none() && node.member("_implicitRules").is_none());
    for aside in ["policy", "verification"] {
        let mut within = node.member(aside).into_iter().flat_map(Node::descendants);
        // FHIR R4 extensibility.html#modifierExtension: the element that carries an unknown one must not be processed.
        sound.demand(within.all(|node| node.name() != Some("modifierExtension")));
        sound.demand(node.member(aside).is_none_or(Node::is_array));
    }
    let id = node.member("id").and_then(|id| sound.text(id));
    let meta = node.member("meta");
    let version = Version {
        number: meta.and_then(|meta| meta.member("versionId")).and_then(|id| id.as_str()?.parse().ok()),
        updated: meta.and_then(|meta| meta.member("lastUpdated")).and_then(moment),
    };
    let patient = node.member("patient").and_then(|patient| sound.reference(patient));
    // A Consent that does not say whose it is might be anyone's.
    sound.demand(patient.is_some());
    let date = node.member("dateTime").and_then(|date| sound.date(date));
    let base = node.member("policyRule").and_then(|rule| base(&mut sound, rule));
    let root = node.member("provision").map_or_else(Provision::empty, |root| provision(root, true));
    let standing = if sound.0 { standing(node) } else { Standing::Unreadable };
    Form { id, version, standing, patient, date, base, root }
}

fn standing(consent: Node<'_>) -> Standing {
    let status = consent.member("status").and_then(Node::as_str);
    let active = match status.as_deref() {
        Some("active") => true,
        Some("draft" | "proposed" | "rejected" | "inactive" | "entered-in-error") => false,
        _ => return Standing::Unreadable,
    };
    let mut sound = Sound(true);
    let scopes = consent.member("scope").map(|scope| sound.concept(scope)).unwrap_or_default();
    if !sound.0 || scopes.is_empty() {
        return Standing::Unreadable;
    }
    let is = |scope: &str| scopes.iter().flatten().any(|(system, code)| &**system == CONSENT_SCOPE && &**code == scope);
    if is("patient-privacy") {
        if active { Standing::Active } else { Standing::Silent }
    } else if ["research", "treatment", "adr"].into_iter().any(is) {
        Standing::Silent
    } else {
        // `scope` is a modifier: a scope that is not known can't be set aside.
        Standing::Unreadable
    }
}

fn base(sound: &mut Sound, rule: Node<'_>) -> Option<Base> {
    let codings = sound.concept(rule);
    let is = |base: &str| codings.iter().flatten().any(|(system, code)| &**system == ACT_CODE && &**code == base);
    // Where both are named the narrower one holds.
    if is("OPTOUT") {
        Some(Base::OptOut)
    } else if is("OPTIN") {
        Some(Base::OptIn)
    } else {
        None
    }
}

fn provision(node: Node<'_>, is_root: bool) -> Provision {
    let mut sound = Sound(true);
    sound.members(
        node,
        &[
            "type",
            "period",
            "actor",
            "action",
            "securityLabel",
            "purpose",
            "class",
            "code",
            "dataPeriod",
            "data",
            "provision",
        ],
    );
    let effect = match (node.member("type"), node.member("_type")) {
        (None, None) if is_root => None,
        (None, _) => Some(Effect::Unreadable),
        (Some(kind), _) if kind.is_str("permit") => Some(Effect::Permit),
        (Some(kind), _) if kind.is_str("deny") => Some(Effect::Deny),
        (Some(_), _) => Some(Effect::Unreadable),
    };
    let mut read = Provision { effect, ..Provision::empty() };
    read.period = node.member("period").map(|period| sound.period(period));
    read.data_period = node.member("dataPeriod").map(|period| sound.period(period));
    read.actors = sound.list(node, "actor", |sound, actor| {
        sound.members(actor, &["role", "reference"]);
        Actor {
            role: actor.member("role").map(|role| sound.concept(role)).unwrap_or_default(),
            reference: actor.member("reference").and_then(|reference| sound.reference(reference)),
        }
    });
    read.actions = sound.list(node, "action", Sound::concept);
    read.labels = sound.list(node, "securityLabel", Sound::coding);
    read.purposes = sound.list(node, "purpose", Sound::coding);
    read.classes = sound.list(node, "class", Sound::coding);
    read.codes = sound.list(node, "code", Sound::concept);
    read.data = sound.list(node, "data", |sound, data| {
        sound.members(data, &["meaning", "reference"]);
        Data {
            meaning: data.member("meaning").and_then(Node::as_str).and_then(|code| DataMeaning::of(&code)),
            reference: data.member("reference").and_then(|reference| sound.reference(reference)),
        }
    });
    read.nested = sound.list(node, "provision", |_, nested| provision(nested, false)).unwrap_or_default();
    read.unreadable = !sound.0;
    read
}

fn moment(node: Node<'_>) -> Option<(Box<str>, DateTime)> {
    let text = node.as_str()?;
    let read = DateTime::parse(&text).ok()?;
    Some((text.into(), read))
}

/// Whether all that was read so far was understood.
struct Sound(bool);

impl Sound {
    fn demand(&mut self, holds: bool) {
        self.0 &= holds;
    }

    /// An object with no member but the known ones, `id` and `extension`. A plain extension may be ignored by the rules
    /// of FHIR; modifierExtension is never among the known.
    fn members(&mut self, node: Node<'_>, known: &[&str]) {
        self.demand(node.is_object() && !node.is_empty());
        self.demand(node.members().all(|member| {
            let name = member.name().unwrap_or_default();
            let plain = name.strip_prefix('_').unwrap_or(name);
            matches!(name, "id" | "extension") || known.contains(&plain)
        }));
    }

    fn text(&mut self, node: Node<'_>) -> Option<Box<str>> {
        let text = node.as_str().filter(|text| !text.is_empty());
        self.demand(text.is_some());
        text.map(Into::into)
    }

    fn date(&mut self, node: Node<'_>) -> Option<(Box<str>, DateTime)> {
        let read = moment(node);
        self.demand(read.is_some());
        read
    }

    fn reference(&mut self, node: Node<'_>) -> Option<Box<str>> {
        self.members(node, &["reference", "type", "identifier", "display"]);
        node.member("reference").and_then(|reference| self.text(reference))
    }

    /// An unreadable coding is one alternative that can't be judged, and no reason to give up on the others.
    fn coding(&mut self, node: Node<'_>) -> Coding {
        self.members(node, &["system", "version", "code", "display", "userSelected"]);
        let text = |name| node.member(name).and_then(Node::as_str).filter(|text| !text.is_empty());
        Some((text("system")?.into(), text("code")?.into()))
    }

    fn concept(&mut self, node: Node<'_>) -> Vec<Coding> {
        self.members(node, &["coding", "text"]);
        let codings = self.list(node, "coding", Self::coding).unwrap_or_default();
        // By its text alone a concept can't be compared.
        if codings.is_empty() { vec![None] } else { codings }
    }

    fn period(&mut self, node: Node<'_>) -> Period {
        self.members(node, &["start", "end"]);
        let period = Period {
            start: node.member("start").and_then(|start| self.date(start)),
            end: node.member("end").and_then(|end| self.date(end)),
        };
        // A bound given by an extension alone is a bound all the same.
        for (bound, is_read) in [("_start", period.start.is_some()), ("_end", period.end.is_some())] {
            self.demand(is_read || node.member(bound).is_none());
        }
        self.demand((period.start.is_some() || period.end.is_some()) && !period.span().is_empty());
        period
    }

    fn list<T>(
        &mut self,
        node: Node<'_>,
        name: &str,
        mut read: impl FnMut(&mut Self, Node<'_>) -> T,
    ) -> Option<Vec<T>> {
        let list = node.member(name)?;
        self.demand(list.is_array() && !list.is_empty());
        Some(list.items().map(|item| read(self, item)).collect())
    }
}
