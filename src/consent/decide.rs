//! The decision: policies, a request and the facets of a resource give permit, deny or undecidable, and why.
//!
//! Pure. A decision is a permit only if it would be one whatever the things that are not known turn out to be: every
//! criterion is judged yes, no or unknown, and where the unknown ones could change the answer it is undecidable.
//! Overall deny goes before undecidable, and undecidable before permit.

mod matching;
mod request;
mod said;
mod set;

use std::fmt;

use sluice_fhir::datetime::DateTime;

use super::codes::{ACT_REASON, Key, confidentiality_level};
use super::facets::{Facets, Subject, Subjects};
use super::policy::{Effect, Policy, ProvisionPath, Standing};
pub use request::{Ask, Request};
pub use said::{Said, Says, said};
use set::Member;
pub use set::PolicySet;

/// What was decided. Ordered as answers combine: the greater one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It may be collected, told or shown.
    Permit,
    /// It can't be decided with what is known: an outage, never a grant.
    Undecidable,
    /// It may not.
    Deny,
}

impl Outcome {
    /// The word in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Undecidable => "undecidable",
            Self::Deny => "deny",
        }
    }
}

/// What must be done to a record before it goes out. No R4 Consent demands one by itself; doors add theirs, and whoever
/// is handed one that it does not know must hold the record back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Obligation {
    /// Named elements are taken out.
    Redact,
    /// Identifying elements are taken out, shifted or generalized.
    Deidentify,
}

impl Obligation {
    /// The word in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::Redact => "redact",
            Self::Deidentify => "deidentify",
        }
    }
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A stable id, of [`rule`].
    pub rule: &'static str,
    /// Index of the Consent in the set, as it was given.
    pub consent: Option<usize>,
    /// FHIRPath of the provision in that Consent.
    pub provision: Option<ProvisionPath>,
}

/// The ids of the rules that decide.
pub mod rule {
    /// A provision permits.
    pub const PERMIT: &str = "consent.permit";
    /// A provision denies.
    pub const DENY: &str = "consent.deny";
    /// A provision asks for what is not known, or can't be read.
    pub const UNDECIDABLE: &str = "consent.undecidable";
    /// A Consent as a whole can't be read, or not whether it counts.
    pub const UNREADABLE: &str = "consent.unreadable";
    /// Which of two versions of a Consent is the later can't be told.
    pub const VERSIONS: &str = "consent.versions";
    /// No Consent speaks, and the implicit policy permits.
    pub const IMPLICIT_PERMIT: &str = "implicit.permit";
    /// No Consent speaks, and the implicit policy denies.
    pub const IMPLICIT_DENY: &str = "implicit.deny";
    /// The record can't be about a patient.
    pub const NOT_NEEDED: &str = "subject.not-needed";
    /// The record should name a patient by reference and does not.
    pub const UNNAMED: &str = "subject.unnamed";
    /// The record names what can't be resolved.
    pub const UNRESOLVABLE: &str = "subject.unresolvable";
    /// R4 knows no such type of resource.
    pub const UNKNOWN_TYPE: &str = "resource.unknown-type";
    /// There is no resource to decide on, or none that can be read.
    pub const NO_RESOURCE: &str = "resource.unreadable";
    /// The subject's record on the ledger says that nothing is permitted any more.
    pub const REVOKED: &str = "subject.revoked";
    /// The mirror of the ledger is older than allowed.
    pub const STALE: &str = "mirror.stale";
    /// A Consent of the subject is recorded and not on the ledger yet.
    pub const UNFILED: &str = "consent.unfiled";
    /// The subject's newest record permits and is not final yet.
    pub const COMING: &str = "consent.coming";
    /// The policies that the ledger commits to are not to be had.
    pub const OPENINGS: &str = "consent.openings";
    /// The self-test found that the doors do not decide as they must.
    pub const SELF_TEST: &str = "consent.self-test";
    /// A Consent is the subject's own word and needs no leave to be recorded.
    pub const ITSELF: &str = "consent.itself";
    /// The record should name a patient and names none that is known.
    pub const UNATTRIBUTED: &str = "subject.unattributed";
    /// The request can't be read.
    pub const REQUEST: &str = "request.unreadable";
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub outcome: Outcome,
    /// What must be done on a permit.
    pub obligations: Vec<Obligation>,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// A decision that no Consent made.
    pub fn plain(outcome: Outcome, rule: &'static str) -> Self {
        Self { outcome, obligations: Vec::new(), reason: Reason { rule, consent: None, provision: None } }
    }

    /// Of two decisions that both must permit. The obligations of both remain.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (mut decided, other) = if other.outcome > self.outcome { (other, self) } else { (self, other) };
        for obligation in other.obligations {
            if !decided.obligations.contains(&obligation) {
                decided.obligations.push(obligation);
            }
        }
        decided
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.outcome.code(), self.reason.rule)
    }
}

/// How several Consents in force go together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Combine {
    /// A denial in one denies.
    #[default]
    DenyOverrides,
    /// The one of the latest `dateTime` that speaks decides; where dates are missing or touch, a denial goes first.
    MostRecent,
}

/// What holds where no Consent speaks. The last four are IHE PCF's (volume 1, 53.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Implicit {
    /// Everything is permitted.
    Permit,
    /// `Policy-basic-normal`: treatment, of records labelled normal or lower.
    BasicNormal,
    /// `Policy-all-normal`: any stated purpose, of records labelled normal or lower.
    AllNormal,
    /// `Policy-break-glass-only`: emergency treatment, as BTG or ETREAT declare it.
    BreakGlassOnly,
    /// `Policy-deny`: nothing.
    #[default]
    Deny,
}

/// How a door decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How several Consents go together.
    pub combine: Combine,
    /// What holds where none speaks.
    pub implicit: Implicit,
}

/// Decides on one resource, for all its patients. Each patient is judged by the Consents that name it.
pub fn decide(settings: Settings, policies: &PolicySet, request: &Request, facets: &Facets) -> Decision {
    decide_with(facets, |subject| decide_subject(settings, policies, Some(subject), request, facets))
}

/// Decides on one resource where the Consents of each patient are looked up elsewhere. A record about several patients
/// needs all of them; one that needs no consent is permitted; one whose patient is not told is denied.
pub fn decide_with(facets: &Facets, mut each: impl FnMut(&Subject) -> Decision) -> Decision {
    let patients = match facets.subjects() {
        Subjects::Patients(patients) => patients,
        Subjects::NotNeeded => return Decision::plain(Outcome::Permit, rule::NOT_NEEDED),
        Subjects::Unnamed => return Decision::plain(Outcome::Deny, rule::UNNAMED),
        Subjects::Unresolvable => return Decision::plain(Outcome::Deny, rule::UNRESOLVABLE),
        Subjects::UnknownType => return Decision::plain(Outcome::Deny, rule::UNKNOWN_TYPE),
    };
    let decisions = patients.iter().map(&mut each);
    decisions.reduce(Decision::and).unwrap_or_else(|| Decision::plain(Outcome::Deny, rule::UNNAMED))
}

/// Decides on one resource for one patient. With `subject` only the Consents that name it count, or whose patient can't
/// be read; without, all of them: the set is the patient's.
pub fn decide_subject(
    settings: Settings,
    policies: &PolicySet,
    subject: Option<&Subject>,
    request: &Request,
    facets: &Facets,
) -> Decision {
    let mut best: Option<(Voice<'_>, Option<DateTime>)> = None;
    let mut unsure: Option<Voice<'_>> = None;
    for member in policies.members() {
        let is_theirs = match (subject, member.patient) {
            (Some(subject), Some(patient)) => subject.names().contains(&patient),
            (None, _) | (_, None) => true,
        };
        if !is_theirs {
            continue;
        }
        let Some(voice) = speak(member, request, facets) else { continue };
        if voice.outcome == Outcome::Undecidable {
            // Another Consent does not lift what can't be read, whatever the dates.
            unsure.get_or_insert(voice);
            continue;
        }
        let date = member.date;
        let wins = best.as_ref().is_none_or(|(best, best_date)| match settings.combine {
            Combine::DenyOverrides => voice.outcome > best.outcome,
            Combine::MostRecent => match later(date, *best_date) {
                Some(is_later) => is_later,
                None => voice.outcome > best.outcome,
            },
        });
        if wins {
            best = Some((voice, date));
        }
    }
    match (best, unsure) {
        (Some((voice, _)), None) => voice.into_decision(),
        (Some((voice, _)), Some(_)) if voice.outcome == Outcome::Deny => voice.into_decision(),
        (_, Some(unsure)) => unsure.into_decision(),
        (None, None) => implicit(settings.implicit, request, facets),
    }
}

/// What one Consent says.
struct Voice<'p> {
    outcome: Outcome,
    rule: &'static str,
    consent: usize,
    /// The policy, and the index of the rule in it.
    provision: Option<(&'p Policy, usize)>,
}

impl Voice<'_> {
    fn into_decision(self) -> Decision {
        let provision = self.provision.map(|(policy, rule)| policy.provision_path(rule));
        let reason = Reason { rule: self.rule, consent: Some(self.consent), provision };
        Decision { outcome: self.outcome, obligations: Vec::new(), reason }
    }
}

/// Whether the first date is wholly after the second; `None` if they touch or one is missing.
fn later(date: Option<DateTime>, than: Option<DateTime>) -> Option<bool> {
    let (date, than) = (date?, than?);
    match date.span().overlaps(&than.span()) {
        Some(false) => date.start.compare(than.start).map(std::cmp::Ordering::is_gt),
        Some(true) | None => None,
    }
}

/// What a Consent says of a request; `None` if it does not speak.
fn speak<'p>(member: &'p Member, request: &Request, facets: &Facets) -> Option<Voice<'p>> {
    let voice = |outcome, rule, provision: Option<usize>| {
        let provision = provision.map(|at| (&member.policy, at));
        Some(Voice { outcome, rule, consent: member.index, provision })
    };
    if member.unclear {
        return voice(Outcome::Undecidable, rule::VERSIONS, None);
    }
    match member.standing {
        Standing::Silent => return None,
        Standing::Unreadable => return voice(Outcome::Undecidable, rule::UNREADABLE, None),
        Standing::Active => {}
    }
    // The deepest matching provision decides, at equal depth deny wins. A provision that may match makes a world where it
    // does and one where it does not; `worlds` is what those say, and they must agree.
    let mut worlds = Worlds::default();
    let mut unknown: Option<usize> = None;
    let mut at = 0;
    for level in member.policy.rules().chunk_by(|left, right| left.depth == right.depth) {
        let mut certain: Option<(Effect, usize)> = None;
        for rule in level {
            match matching::matches(rule, request, facets) {
                matching::Tri::No => {}
                matching::Tri::Unknown => {
                    unknown.get_or_insert(at);
                    worlds.maybe(rule.effect);
                }
                matching::Tri::Yes => {
                    if certain.is_none_or(|(effect, _)| rank(rule.effect) > rank(effect)) {
                        certain = Some((rule.effect, at));
                    }
                }
            }
            at += 1;
        }
        if let Some((effect, at)) = certain {
            return match worlds.with(effect) {
                Some(Effect::Permit) => voice(Outcome::Permit, rule::PERMIT, Some(at)),
                Some(Effect::Deny) => voice(Outcome::Deny, rule::DENY, Some(at)),
                Some(Effect::Unreadable) => voice(Outcome::Undecidable, rule::UNDECIDABLE, Some(at)),
                None => voice(Outcome::Undecidable, rule::UNDECIDABLE, unknown),
            };
        }
        worlds.close_level();
    }
    unknown.and_then(|at| voice(Outcome::Undecidable, rule::UNDECIDABLE, Some(at)))
}

/// At equal depth deny wins, and what can't be read goes before a permit.
fn rank(effect: Effect) -> u8 {
    match effect {
        Effect::Permit => 0,
        Effect::Unreadable => 1,
        Effect::Deny => 2,
    }
}

/// The answers of provisions that may match.
#[derive(Default)]
struct Worlds {
    /// From levels deeper than the one that is being judged: each could decide by itself.
    deeper: [bool; 3],
    /// From this level: they count only where they outrank the certain one.
    level: [bool; 3],
}

impl Worlds {
    fn maybe(&mut self, effect: Effect) {
        if let Some(seen) = self.level.get_mut(usize::from(rank(effect))) {
            *seen = true;
        }
    }

    fn close_level(&mut self) {
        for (deeper, level) in self.deeper.iter_mut().zip(std::mem::take(&mut self.level)) {
            *deeper |= level;
        }
    }

    /// The answer of all worlds if a provision of this effect matches for certain; `None` if they do not agree.
    fn with(&self, certain: Effect) -> Option<Effect> {
        let own = usize::from(rank(certain));
        let agrees = |at: usize| at == own;
        let deeper = self.deeper.iter().enumerate().all(|(at, seen)| !seen || agrees(at));
        let level = self.level.iter().enumerate().all(|(at, seen)| !seen || at <= own);
        (deeper && level).then_some(certain)
    }
}

fn implicit(implicit: Implicit, request: &Request, facets: &Facets) -> Decision {
    let purpose_in = |code| request.purposes().contains(&Key::code(ACT_REASON, code));
    let is_normal = || {
        let level = facets.labels.level.max(facets.around.level);
        !facets.labels.unreadable && level.is_some_and(|level| Some(level) <= confidentiality_level("N"))
    };
    let permits = match implicit {
        Implicit::Permit => true,
        Implicit::BasicNormal => purpose_in("TREAT") && is_normal(),
        Implicit::AllNormal => !request.purposes().is_empty() && is_normal(),
        Implicit::BreakGlassOnly => purpose_in("ETREAT"),
        Implicit::Deny => false,
    };
    if permits {
        Decision::plain(Outcome::Permit, rule::IMPLICIT_PERMIT)
    } else {
        Decision::plain(Outcome::Deny, rule::IMPLICIT_DENY)
    }
}
