//! Permit: the intake door.
//!
//! Takes: [`Checked`] and what the mirror says of its subjects. Gives: [`Permitted`], whose existence proves that for each
//! subject this institution may collect, by which version of its record and at which head; or [`Denied`]. Never: takes
//! what cannot be decided for a permit.
//!
//! Each subject is asked once, for all of the unit's resources about it. A Consent is not asked for leave to be recorded:
//! it is the patient's own word, and a denial of everything must not keep out the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::tree::Position;

use super::{Asker, Door};
use crate::check::Checked;
use crate::config::{ImplicitPolicy, IntakeDeny};
use crate::consent::decide::{Decision, Outcome, rule};
use crate::consent::facets::{Facets, Surroundings};
use crate::consent::policy::ProvisionPath;
use crate::consent::pseudonym::Pseudonym;
use crate::consent::subjects::{Resolver, Subjects};
use crate::error::{Error, Peer, Refusal, Result};
use crate::ingest::unit::Interaction;
use crate::observe;

/// A unit that may be collected. Only `consent` makes one.
#[derive(Debug)]
pub struct Permitted {
    checked: Checked,
    subjects: Vec<Subjects>,
    basis: Vec<Basis>,
    announced: bool,
}

/// A unit that may not be collected. What was decided is to be recorded before the sender is told.
#[derive(Debug)]
pub struct Denied {
    checked: Checked,
    basis: Vec<Basis>,
}

/// What the intake door says.
#[derive(Debug)]
pub enum Verdict {
    /// It may be collected.
    Permitted(Permitted),
    /// It may not.
    Denied(Denied),
}

/// What was decided on one subject's data, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// The subject.
    pub subject: Pseudonym,
    /// What was decided. Not a permit only where the settings let it through all the same.
    pub outcome: Outcome,
    /// The newest version of its record that was seen; none where it has none and the door's implicit policy spoke.
    pub version: Option<u64>,
    /// The height of the ledger's head that it was read at.
    pub head: u64,
    /// The rule that decided, by its id; never a value of the Consent.
    pub rule: &'static str,
    /// FHIRPath of the provision within its Consent, if one decided.
    pub provision: Option<ProvisionPath>,
}

/// What was decided when a unit was permitted again.
#[derive(Debug)]
pub struct Again {
    /// Each subject once, with why.
    pub basis: Vec<Basis>,
    /// Whether subscribers may hear of it.
    pub announced: bool,
}

/// What follows from what the subjects said.
enum Conclusion {
    Through { announced: bool },
    Denied,
    Undecidable,
}

/// Asks for each subject of a unit whether this institution may collect.
///
/// # Errors
/// An outage where it cannot be decided, where a patient is not known, and while the self-test finds the door broken.
pub async fn permit(checked: Checked, door: &Door) -> Result<Verdict> {
    let (subjects, basis) = asked(&checked, door).await?;
    match door.conclude(&basis) {
        Conclusion::Through { announced } => Ok(Verdict::Permitted(Permitted { checked, subjects, basis, announced })),
        Conclusion::Denied => Ok(Verdict::Denied(Denied { checked, basis })),
        Conclusion::Undecidable => Err(undecidable(first_undecidable(&basis))),
    }
}

/// Asks again for a unit that was permitted and staged, and that the upstream may have by now. Where a subject says no by
/// now it goes on unannounced, with the refusal beside it for who would send it once more.
///
/// # Errors
/// As [`permit`].
pub async fn permit_again(checked: Checked, door: &Door) -> Result<(Permitted, Option<Error>)> {
    let (subjects, basis) = asked(&checked, door).await?;
    let (announced, refusal) = match door.conclude(&basis) {
        Conclusion::Through { announced } => (announced, None),
        Conclusion::Denied => (false, Some(denied())),
        Conclusion::Undecidable => return Err(undecidable(first_undecidable(&basis))),
    };
    Ok((Permitted { checked, subjects, basis, announced }, refusal))
}

async fn asked(checked: &Checked, door: &Door) -> Result<(Vec<Subjects>, Vec<Basis>)> {
    if !door.is_sound() {
        return Err(undecidable(rule::SELF_TEST));
    }
    let parts = &door.parts;
    let resolver = Resolver {
        store: &*parts.store,
        keys: &parts.keys,
        pseudonyms: &parts.pseudonyms,
        upstream: parts.upstream.as_deref(),
        unknown: parts.settings.unknown_subject,
        base_url: &parts.base_url,
        caller: &checked.normalized().context().caller.institution,
    };
    let subjects = resolver.unit(checked.normalized()).await?;
    of_whom(checked, &subjects)?;
    let basis = door.collect(checked, &subjects).await;
    Ok((subjects, basis))
}

/// A Consent of nobody who is known would be acknowledged and hold nowhere; so would one whose patient it does not refer
/// to, since by a name alone no policy is found again.
fn of_whom(checked: &Checked, subjects: &[Subjects]) -> Result<()> {
    let resources = checked.normalized().resources();
    let issues: Vec<Issue> = resources
        .iter()
        .zip(subjects)
        .filter(|(resource, subjects)| {
            let refers = || resource.tree().root().find(&["patient", "reference"]).next().is_some();
            &**resource.resource_type() == "Consent" && !(matches!(subjects, Subjects::Of(_)) && refers())
        })
        .map(|(resource, _)| {
            resource.place().relocate(Issue {
                severity: Severity::Error,
                code: IssueType::BusinessRule,
                rule: "consent.patient".into(),
                expression: Some("Consent.patient".to_owned()),
                position: Some(Position { line: 1, column: 1 }),
                text: "a Consent that refers to a patient who is known".to_owned(),
                about: None,
            })
        })
        .collect();
    if issues.is_empty() { Ok(()) } else { Err(Error::refused(Refusal::Invalid, issues)) }
}

impl Door {
    /// Whether a decision no longer rests on what the ledger says: a version moved, or a Consent was recorded meanwhile.
    pub fn moved(&self, basis: &[Basis]) -> bool {
        basis
            .iter()
            .filter(|basis| basis.rule != rule::ITSELF)
            .any(|basis| self.unfiled.has(&basis.subject) || self.look(basis.subject).view.version() != basis.version)
    }

    /// Asks again for a unit that was permitted and whose ground has moved. What was `forwarded` already is recorded
    /// whatever the subjects say now, and told to nobody if one of them says no.
    ///
    /// # Errors
    /// 403 where a policy says no by now; an outage where it cannot be decided.
    pub async fn again(&self, permitted: &Permitted, forwarded: bool) -> Result<Again> {
        let basis = self.collect(&permitted.checked, &permitted.subjects).await;
        let announced = match self.conclude(&basis) {
            Conclusion::Through { announced } => announced && permitted.announced,
            Conclusion::Denied if forwarded => false,
            // Who may hear of it is asked for each subscriber, and that waits for what is not known for a moment only.
            Conclusion::Undecidable if forwarded => {
                permitted.announced && basis.iter().all(|it| it.outcome != Outcome::Deny)
            }
            Conclusion::Denied => return Err(denied()),
            Conclusion::Undecidable => return Err(undecidable(first_undecidable(&basis))),
        };
        Ok(Again { basis, announced })
    }

    /// Each subject of a unit once.
    async fn collect(&self, checked: &Checked, subjects: &[Subjects]) -> Vec<Basis> {
        let resources = checked.normalized().resources();
        let mut about: HashMap<Pseudonym, Vec<usize>> = HashMap::new();
        for (at, (resource, subjects)) in resources.iter().zip(subjects).enumerate() {
            for subject in subjects.pseudonyms() {
                let asked = about.entry(*subject).or_default();
                if &**resource.resource_type() != "Consent" {
                    asked.push(at);
                }
            }
        }
        let mut everyone: Vec<Pseudonym> = about.keys().copied().collect();
        everyone.sort_unstable();
        let surroundings =
            Surroundings::of_entries(resources.iter().map(|it| (it.full_url().map(|url| &**url), it.tree().root())))
                .labelled(checked.normalized().context().labels.as_deref());
        // Few subjects have a record on the ledger that has to be asked about; each resource is looked at once.
        let mut facets: HashMap<usize, Facets> = HashMap::new();
        let purpose = checked.normalized().context().caller.purpose.as_deref().map(str::to_owned);
        let asker = Asker { institution: Arc::clone(&self.parts.tenant), member_of: Vec::new(), role: None, purpose };
        let request = self.request(&asker, "collect");
        let settings = self.how(self.parts.settings.implicit.collect);
        let mut basis = Vec::with_capacity(everyone.len());
        for subject in everyone {
            let resources_about = about.remove(&subject).unwrap_or_default();
            let look = self.look(subject);
            let (decision, look) = if resources_about.is_empty() {
                (Decision::plain(Outcome::Permit, rule::ITSELF), look)
            } else if look.view.version().is_none() && look.fresh && !self.unfiled.has(&subject) {
                (self.implicit(), look)
            } else {
                for at in &resources_about {
                    if let (None, Some(resource)) = (facets.get(at), resources.get(*at)) {
                        let drawn = self.facets_within(resource.tree().root(), &surroundings);
                        let is_new = matches!(resource.interaction(), Interaction::Create { .. });
                        facets.insert(*at, if is_new { drawn.as_new() } else { drawn });
                    }
                }
                let asked: Vec<&Facets> = resources_about.iter().filter_map(|at| facets.get(at)).collect();
                let (decision, _, look) = self.subject(subject, settings, &request, &asked).await;
                (decision, look)
            };
            self.count(observe::Door::Intake, decision.outcome);
            basis.push(Basis {
                subject,
                outcome: decision.outcome,
                version: look.view.version(),
                head: look.head,
                rule: decision.reason.rule,
                provision: decision.reason.provision,
            });
        }
        basis
    }

    /// Where a subject has no record, there is nothing to ask a resource about.
    fn implicit(&self) -> Decision {
        match self.parts.settings.implicit.collect {
            ImplicitPolicy::Permit => Decision::plain(Outcome::Permit, rule::IMPLICIT_PERMIT),
            ImplicitPolicy::Deny => Decision::plain(Outcome::Deny, rule::IMPLICIT_DENY),
        }
    }

    fn conclude(&self, basis: &[Basis]) -> Conclusion {
        let is = |outcome| basis.iter().any(|basis| basis.outcome == outcome);
        let denied = is(Outcome::Deny);
        if self.lets_through(basis.iter().map(|basis| basis.outcome).max().unwrap_or(Outcome::Permit)) {
            return Conclusion::Through { announced: true };
        }
        match self.parts.settings.on_intake_deny {
            IntakeDeny::Refuse if denied => Conclusion::Denied,
            _ if is(Outcome::Undecidable) => Conclusion::Undecidable,
            IntakeDeny::Refuse | IntakeDeny::ForwardUnannounced => Conclusion::Through { announced: !denied },
        }
    }
}

impl Permitted {
    /// The unit.
    pub fn checked(&self) -> &Checked {
        &self.checked
    }

    /// Whom each resource is about, in the order of the unit.
    pub fn subjects(&self) -> &[Subjects] {
        &self.subjects
    }

    /// Each subject once, with why.
    pub fn basis(&self) -> &[Basis] {
        &self.basis
    }

    /// Whether subscribers may hear of it; not so where a denial at intake was forwarded unannounced.
    pub fn announced(&self) -> bool {
        self.announced
    }
}

impl Denied {
    /// The unit.
    pub fn checked(&self) -> &Checked {
        &self.checked
    }

    /// Each subject once, with why.
    pub fn basis(&self) -> &[Basis] {
        &self.basis
    }

    /// What the sender is told.
    pub fn error(&self) -> Error {
        denied()
    }
}

fn denied() -> Error {
    Error::refusal(Refusal::Forbidden, "consent.collect", "a Consent of the subject that permits to collect")
}

fn undecidable(rule: &'static str) -> Error {
    Error::outage(Peer::Custodian, Duration::from_secs(5), format!("consent can't be decided: {rule}"))
}

fn first_undecidable(basis: &[Basis]) -> &'static str {
    basis.iter().find(|it| it.outcome == Outcome::Undecidable).map_or(rule::UNDECIDABLE, |it| it.rule)
}
