//! The doors: where the pure decision meets the clock, the ledger's mirror and the settings.
//!
//! Takes: who asks and what for, whom a resource is about, and its facets. Gives: a [`Judgement`] with its reason. Never:
//! takes what cannot be decided for a permit; asks a ledger for a resource; puts a value of a record into a reason.
//!
//! The intake door asks to `collect` ([`permit`]); each subscriber's event asks to `disclose`, when it is routed and
//! again before it is sent; each resource of each read asks for `access`. All go the same way ([`Door::disclose`]).
//! Where no Consent speaks, `consent.implicit.collect` holds at intake and `consent.implicit.disclose` everywhere else,
//! and so for the institution's own readers too: what may be collected is not thereby shown.
//!
//! A subject is undecidable while a Consent of it is recorded and not filed, while the mirror is older than
//! `consent.max_staleness`, and while the openings of its consent root are not to be had. None of these permits.

mod intake;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use sluice_fhir::datetime::{DateTime, Point, Precision};
use sluice_fhir::tree::Node;

use super::decide::{
    Ask, Combine, Decision, Implicit, Obligation, Outcome, PolicySet, Request, Settings, decide_subject, rule,
};
use super::facets::{self, Facets, Surroundings};
use super::identify::Pseudonyms;
use super::labels::Labeler;
use super::mirror::{Mirror, Moment, Record, State, View};
use super::openings::Openings;
use super::policy::ProvisionPath;
use super::pseudonym::Pseudonym;
use super::subjects::{PatientSource, Subjects};
use super::unfiled::Unfiled;
use crate::config::{self, ConsentMode};
use crate::ingest::unit::Caller;
use crate::keys::Keys;
use crate::observe::{self, Observer, now_micros};
use crate::store::Store;
use crate::store::vault::Vault;

pub use self::intake::{Again, Basis, Denied, Permitted, Verdict, permit, permit_again};

/// What a door is made of.
pub struct Parts {
    /// The settings.
    pub settings: config::Consent,
    /// The tenant's institution: who collects.
    pub tenant: Arc<str>,
    /// `[base]` of the tenant's FHIR server: an institution may be named by a whole URL under it.
    pub base_url: Arc<str>,
    /// What was recorded before.
    pub store: Arc<dyn Store>,
    /// What opens policies.
    pub vault: Arc<Vault>,
    /// For the keys of the index, and of slots.
    pub keys: Arc<Keys>,
    /// How patients are named.
    pub pseudonyms: Pseudonyms,
    /// The hospital's FHIR server, if there is one.
    pub upstream: Option<Arc<dyn PatientSource>>,
    /// What labels sensitive records.
    pub labeler: Labeler,
    /// Told of every decision.
    pub observer: Arc<Observer>,
}

/// What the doors decide by.
pub struct Door {
    parts: Parts,
    mirror: Arc<RwLock<Mirror>>,
    openings: Openings,
    unfiled: Unfiled,
    /// Whether the last self-test found that a deny denies. Until one has, nothing goes through.
    sound: AtomicBool,
}

/// Who asks. From a credential or from the settings; never from a body or a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The institution's id on the ledger. A Consent names it as `Organization/[id]`, or by the whole URL of that.
    pub institution: Arc<str>,
    /// References of organizations that it belongs to.
    pub member_of: Vec<String>,
    /// The role in which it asks.
    pub role: Option<String>,
    /// v3 PurposeOfUse code.
    pub purpose: Option<String>,
}

/// What a door says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What was decided.
    pub outcome: Outcome,
    /// The id of the rule that decided.
    pub rule: &'static str,
    /// FHIRPath of the provision within its Consent, if one decided.
    pub provision: Option<ProvisionPath>,
    /// What must be done on a permit. Whoever is handed one that it does not know holds the record back.
    pub obligations: Vec<Obligation>,
    /// The height of the ledger up to which the mirror had taken in every change.
    pub head: u64,
    /// For each subject the newest version of its record that was seen; none where it has none.
    pub versions: Vec<(Pseudonym, Option<u64>)>,
    /// Undecidable for want of something that may come by itself: ask again later. Other undecidable records stay so
    /// until their subject decides anew.
    pub pending: bool,
    passes: bool,
}

/// What is known of a subject at one moment.
struct Look {
    view: View,
    head: u64,
    fresh: bool,
}

impl Door {
    /// A door over its parts, with an empty mirror: closed until the mirror has caught up and the self-test has passed.
    pub fn new(parts: Parts) -> Self {
        let openings = Openings::new(Arc::clone(&parts.store), Arc::clone(&parts.vault), Arc::clone(&parts.keys));
        Self { parts, mirror: Arc::default(), openings, unfiled: Unfiled::default(), sound: AtomicBool::new(false) }
    }

    /// The mirror, for who fills it.
    pub fn mirror(&self) -> &Arc<RwLock<Mirror>> {
        &self.mirror
    }

    /// The policies, for who files them.
    pub fn openings(&self) -> &Openings {
        &self.openings
    }

    /// Whose Consents are to be filed.
    pub fn unfiled(&self) -> &Unfiled {
        &self.unfiled
    }

    /// The settings.
    pub fn settings(&self) -> &config::Consent {
        &self.parts.settings
    }

    /// Where decisions are counted.
    pub fn observer(&self) -> &Arc<Observer> {
        &self.parts.observer
    }

    /// What a decision needs to know of a resource, with the labels that it lacks. Drawn once, asked about often.
    pub fn facets(&self, resource: Node<'_>) -> Facets {
        self.facets_within(resource, &Surroundings::none())
    }

    /// The same of a resource that came in a Bundle with labels of its own: the JSON of its `meta.security`.
    pub fn facets_labelled(&self, resource: Node<'_>, security: Option<&str>) -> Facets {
        self.facets_within(resource, &Surroundings::none().labelled(security))
    }

    /// Whether this asker may be told, or shown, a resource about these subjects: all of them must permit. `at` says
    /// which door asks; the action is `access` where something is read, else `disclose`.
    pub async fn disclose(&self, at: observe::Door, asker: &Asker, subjects: &Subjects, facets: &Facets) -> Judgement {
        let judgement = if self.is_sound() {
            self.judge(at, asker, subjects, facets).await
        } else {
            self.plain(Decision::plain(Outcome::Undecidable, rule::SELF_TEST), true)
        };
        self.count(at, judgement.outcome);
        judgement
    }

    /// The same, whatever the last self-test found: what the self-test itself asks.
    pub(super) async fn judge(
        &self,
        at: observe::Door,
        asker: &Asker,
        subjects: &Subjects,
        facets: &Facets,
    ) -> Judgement {
        if let Some(decision) = without_consent(subjects, facets) {
            return self.plain(decision, false);
        }
        let action = if at == observe::Door::Read { "access" } else { "disclose" };
        let request = self.request(asker, action);
        let settings = self.how(self.parts.settings.implicit.disclose);
        let mut judgement = self.plain(Decision::plain(Outcome::Permit, rule::NOT_NEEDED), false);
        let mut decided: Option<Decision> = None;
        for subject in subjects.pseudonyms() {
            let (decision, pending, look) = self.subject(*subject, settings, &request, &[facets]).await;
            judgement.versions.push((*subject, look.view.version()));
            judgement.head = look.head;
            judgement.pending |= pending;
            decided = Some(match decided {
                Some(before) => before.and(decision),
                None => decision,
            });
        }
        if let Some(Decision { outcome, obligations, reason }) = decided {
            (judgement.outcome, judgement.obligations) = (outcome, obligations);
            (judgement.rule, judgement.provision) = (reason.rule, reason.provision);
        }
        judgement.pending &= judgement.outcome == Outcome::Undecidable;
        judgement.passes = self.lets_through(judgement.outcome);
        judgement
    }

    /// Whether the doors can decide at all.
    ///
    /// # Errors
    /// The id of the rule that keeps them closed.
    pub fn ready(&self) -> Result<(), &'static str> {
        let config::Consent { max_staleness, skew, .. } = self.parts.settings;
        let mirror = self.mirror.read().unwrap_or_else(PoisonError::into_inner);
        match (self.is_sound(), mirror.is_fresh(Moment::now(), max_staleness, skew)) {
            (true, true) => Ok(()),
            (false, _) => Err(rule::SELF_TEST),
            (true, false) => Err(rule::STALE),
        }
    }

    /// Whether what somebody decided is on its way: recorded and not on the ledger, or there and not final. Says nothing
    /// of whom.
    pub fn is_moving(&self) -> bool {
        !self.unfiled.is_empty() || self.mirror.read().unwrap_or_else(PoisonError::into_inner).is_moving()
    }

    /// Says what the self-test found.
    pub(super) fn set_sound(&self, sound: bool) {
        self.sound.store(sound, Ordering::Release);
    }

    fn is_sound(&self) -> bool {
        self.sound.load(Ordering::Acquire)
    }

    /// One subject's word on all of these: by the final record, and by those that are coming.
    async fn subject(
        &self,
        subject: Pseudonym,
        settings: Settings,
        request: &Request,
        facets: &[&Facets],
    ) -> (Decision, bool, Look) {
        // Before the mirror is looked at: once a Consent is filed the mirror holds it, and the mark is taken away after.
        let unfiled = self.unfiled.has(&subject);
        let look = self.look(subject);
        let pending = |rule| (Decision::plain(Outcome::Undecidable, rule), true);
        if unfiled || !look.fresh {
            let (decision, pending) = pending(if unfiled { rule::UNFILED } else { rule::STALE });
            return (decision, pending, look);
        }
        let nothing = PolicySet::default();
        let by = |policies: &PolicySet| {
            let each = facets.iter().map(|facets| decide_subject(settings, policies, None, request, facets));
            each.reduce(Decision::and).unwrap_or_else(|| Decision::plain(Outcome::Undecidable, rule::NO_RESOURCE))
        };
        let mut decided: Option<Decision> = None;
        let mut newest = (0, Outcome::Deny);
        let mut missing = false;
        for record in look.view.records() {
            let said = match record {
                None => by(&nothing),
                Some(Record { state: State::Revoked | State::Erased, .. }) => {
                    Decision::plain(Outcome::Deny, rule::REVOKED)
                }
                Some(Record { state: State::Active, root, .. }) => match self.openings.policies(subject, &root).await {
                    Ok(Some(policies)) => by(&policies),
                    unserved => {
                        if let Err(error) = unserved {
                            tracing::warn!(%error, "the policies of a subject are not to be had");
                        }
                        missing = true;
                        Decision::plain(Outcome::Undecidable, rule::OPENINGS)
                    }
                },
            };
            newest = newest.max((record.map_or(0, |it| it.version), said.outcome));
            decided = Some(and(decided, said));
        }
        let decision = decided.unwrap_or_else(|| Decision::plain(Outcome::Undecidable, rule::NO_RESOURCE));
        if decision.outcome == Outcome::Deny && newest.1 == Outcome::Permit {
            // The subject permits by now, and that is not final: no permit yet, and no denial that stands for ever either.
            let (decision, pending) = pending(rule::COMING);
            return (decision, pending, look);
        }
        (decision, missing, look)
    }

    fn look(&self, subject: Pseudonym) -> Look {
        let config::Consent { max_staleness, skew, .. } = self.parts.settings;
        let mirror = self.mirror.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = mirror.is_fresh(Moment::now(), max_staleness, skew);
        Look { view: mirror.view(subject), head: mirror.height(), fresh }
    }

    fn facets_within(&self, resource: Node<'_>, surroundings: &Surroundings<'_>) -> Facets {
        let mut facets = Facets::of(resource, surroundings);
        self.parts.labeler.label(resource, &mut facets);
        facets
    }

    fn request(&self, asker: &Asker, action: &str) -> Request {
        let actor = format!("Organization/{}", asker.institution);
        let url = format!("{}/{actor}", self.parts.base_url);
        let member_of: Vec<&str> = std::iter::once(&*url).chain(asker.member_of.iter().map(String::as_str)).collect();
        Request::new(&Ask {
            actor: Some(&actor),
            member_of: &member_of,
            role: asker.role.as_deref(),
            purpose: asker.purpose.as_deref(),
            action: Some(action),
            time: Some(self.now()),
        })
    }

    /// Now, by the gateway's clock, and as wide as it may be wrong: at the edge of a period a rule may be in force.
    fn now(&self) -> DateTime {
        let skew = i64::try_from(self.parts.settings.skew.as_micros()).unwrap_or(i64::MAX);
        let point = |utc_micros| Point { utc_micros, offset_s: Some(0) };
        let now = now_micros();
        let (start, end) = (now.saturating_sub(skew), now.saturating_add(skew).saturating_add(1));
        DateTime { precision: Precision::Fraction, start: point(start), end: point(end) }
    }

    fn how(&self, implicit: config::ImplicitPolicy) -> Settings {
        let combine = match self.parts.settings.combine {
            config::Combine::DenyOverrides => Combine::DenyOverrides,
            config::Combine::MostRecent => Combine::MostRecent,
        };
        let implicit = match implicit {
            config::ImplicitPolicy::Permit => Implicit::Permit,
            config::ImplicitPolicy::Deny => Implicit::Deny,
        };
        Settings { combine, implicit }
    }

    fn lets_through(&self, outcome: Outcome) -> bool {
        outcome == Outcome::Permit || self.parts.settings.mode == ConsentMode::Observe
    }

    /// A judgement that no subject made: it holds whatever the mode.
    fn plain(&self, decision: Decision, pending: bool) -> Judgement {
        Judgement {
            passes: decision.outcome == Outcome::Permit,
            outcome: decision.outcome,
            rule: decision.reason.rule,
            provision: decision.reason.provision,
            obligations: decision.obligations,
            head: self.mirror.read().unwrap_or_else(PoisonError::into_inner).height(),
            versions: Vec::new(),
            pending,
        }
    }

    fn count(&self, at: observe::Door, outcome: Outcome) {
        let decision = match outcome {
            Outcome::Permit => observe::Decision::Permit,
            Outcome::Undecidable => observe::Decision::Undecidable,
            Outcome::Deny => observe::Decision::Deny,
        };
        self.parts.observer.metrics().decision(at, decision);
    }
}

impl Judgement {
    /// Whether the record may go out. On a permit without obligations; and, where the mode is `observe`, whatever the
    /// subjects' Consents say. A record whose patient is not known stays in every mode.
    pub fn passes(&self) -> bool {
        self.passes && self.obligations.is_empty()
    }
}

impl From<&Caller> for Asker {
    /// The first role of a caller is the one in which it asks if it does not say.
    fn from(caller: &Caller) -> Self {
        Self {
            institution: Arc::clone(&caller.institution),
            member_of: Vec::new(),
            role: caller.roles.first().cloned(),
            purpose: caller.purpose.as_deref().map(str::to_owned),
        }
    }
}

impl From<&config::Subscriber> for Asker {
    fn from(subscriber: &config::Subscriber) -> Self {
        Self {
            institution: subscriber.institution.as_str().into(),
            member_of: subscriber.member_of.clone(),
            role: subscriber.role.clone(),
            purpose: Some(subscriber.purpose.clone()),
        }
    }
}

/// What is decided before any Consent is asked: what needs none passes on institutional authority; what should name a
/// patient, and does not name one that is known, is never shown. Two readings of a resource must agree: the one that
/// named its subjects when it was recorded, and its facets.
fn without_consent(subjects: &Subjects, facets: &Facets) -> Option<Decision> {
    let deny = |rule| Some(Decision::plain(Outcome::Deny, rule));
    match (subjects, facets.subjects()) {
        (Subjects::Unattributed, _) => deny(rule::UNATTRIBUTED),
        (_, facets::Subjects::UnknownType) => deny(rule::UNKNOWN_TYPE),
        (_, facets::Subjects::Unnamed) => deny(rule::UNNAMED),
        (_, facets::Subjects::Unresolvable) => deny(rule::UNRESOLVABLE),
        (Subjects::Nobody, facets::Subjects::NotNeeded) => Some(Decision::plain(Outcome::Permit, rule::NOT_NEEDED)),
        // It names a patient whom nobody asked.
        (Subjects::Nobody, facets::Subjects::Patients(_)) => deny(rule::UNRESOLVABLE),
        (Subjects::Of(known), facets::Subjects::Patients(named)) if named.len() > known.len() => {
            deny(rule::UNRESOLVABLE)
        }
        (Subjects::Of(known), _) if known.is_empty() => deny(rule::UNATTRIBUTED),
        (Subjects::Of(_), facets::Subjects::NotNeeded | facets::Subjects::Patients(_)) => None,
    }
}

fn and(before: Option<Decision>, decision: Decision) -> Decision {
    match before {
        Some(before) => before.and(decision),
        None => decision,
    }
}
