//! Why a decision is what it is: the decision itself, and below it what each Consent says of each patient's record.
//!
//! Takes: the line that [`exchange`] takes. Gives: the same decision, record by record and patient by
//! patient. Never: decides by itself: it asks the one function that decides.

use std::cell::RefCell;

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_fhir::tree::Node;

use super::decide::{Decision, Reason, Said, Says, Settings, decide, decide_subject, said};
use super::exchange::{self, Place};
use super::facets::{Facets, Subjects};
use super::policy::Policy;

/// A decision with what it was made of.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The `id` of the line, as it was given.
    pub id: Value,
    /// What was decided of all.
    pub decision: Decision,
    /// The ids of the Consents, as they were given.
    pub consents: Vec<Option<String>>,
    /// Each record in the resource: one, or those of a Bundle.
    pub records: Vec<Record>,
}

/// One record.
#[derive(Clone, Debug)]
pub struct Record {
    /// FHIRPath of it.
    pub place: String,
    /// Its type.
    pub resource_type: String,
    /// What was decided of it.
    pub decision: Decision,
    /// Whom it is about; nobody where no Consent is asked.
    pub patients: Vec<Patient>,
}

/// One patient of a record.
#[derive(Clone, Debug)]
pub struct Patient {
    /// The reference as the record has it.
    pub reference: String,
    /// What was decided for this patient.
    pub decision: Decision,
    /// What each Consent says.
    pub said: Vec<Said>,
}

/// Decides on one line and explains it.
pub fn explain(settings: Settings, line: Bytes) -> Explanation {
    let seen = RefCell::new((Vec::new(), Vec::new()));
    let each = |place: &Place<'_>, resource: Node<'_>, question: &exchange::Question, facets: &Facets| {
        let decision = decide(settings, &question.policies, &question.request, facets);
        let ids = || question.given.iter().map(Policy::id).map(|id| id.map(str::to_owned)).collect();
        let patients = match facets.subjects() {
            Subjects::Patients(patients) => patients.as_slice(),
            Subjects::NotNeeded | Subjects::Unnamed | Subjects::Unresolvable | Subjects::UnknownType => &[],
        };
        let of = |patient: &super::facets::Subject| Patient {
            reference: patient.reference().to_owned(),
            decision: decide_subject(settings, &question.policies, Some(patient), &question.request, facets),
            said: said(&question.policies, question.given.len(), patient, &question.request, facets),
        };
        let record = Record {
            place: place.to_string(),
            resource_type: resource.resource_type().unwrap_or_default().to_owned(),
            decision: decision.clone(),
            patients: patients.iter().map(of).collect(),
        };
        let mut seen = seen.borrow_mut();
        seen.0 = ids();
        seen.1.push(record);
        decision
    };
    let (id, decision) = exchange::asked(line, &each);
    let id = id.and_then(|id| serde_json::from_slice(&id).ok()).unwrap_or_default();
    let (consents, records) = seen.into_inner();
    Explanation { id, decision, consents, records }
}

impl Explanation {
    /// {id, decision, obligations, reason, records}; see `sluice consent explain --help`.
    pub fn to_json(&self) -> Value {
        let said = |it: &Said| {
            let reason = match &it.says {
                Says::Decides(_, reason) => Some(reason),
                Says::Nothing | Says::NotInForce | Says::AnotherPatient | Says::Superseded => None,
            };
            json!({
                "consent": it.consent,
                "id": self.consents.get(it.consent),
                "says": it.says.code(),
                "rule": reason.map(|it| it.rule),
                "provision": reason.and_then(|it| it.provision.as_deref()),
            })
        };
        let patient = |it: &Patient| {
            json!({
                "patient": it.reference, "decision": it.decision.outcome.code(), "reason": reason(&it.decision.reason),
                "consents": it.said.iter().map(said).collect::<Vec<_>>(),
            })
        };
        let record = |it: &Record| {
            json!({
                "resource": it.place, "type": it.resource_type, "decision": it.decision.outcome.code(),
                "reason": reason(&it.decision.reason), "patients": it.patients.iter().map(patient).collect::<Vec<_>>(),
            })
        };
        let obligations: Vec<_> = self.decision.obligations.iter().map(|it| it.code()).collect();
        json!({
            "id": self.id, "decision": self.decision.outcome.code(), "obligations": obligations,
            "reason": reason(&self.decision.reason), "records": self.records.iter().map(record).collect::<Vec<_>>(),
        })
    }
}

fn reason(reason: &Reason) -> Value {
    json!({ "rule": reason.rule, "consent": reason.consent, "provision": reason.provision.as_deref() })
}
