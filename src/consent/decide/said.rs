//! What each Consent says by itself: the material of a decision, for whoever asks why.

use super::{Facets, Outcome, PolicySet, Reason, Request, Standing, Subject, Voice, speak};

/// What one Consent says of one patient's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its index as it was given.
    pub consent: usize,
    /// What it says.
    pub says: Says,
}

/// See [`Said`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// It speaks, and this is why.
    Decides(Outcome, Reason),
    /// None of its provisions matches.
    Nothing,
    /// It is not active, or about something other than privacy.
    NotInForce,
    /// It is about another patient.
    AnotherPatient,
    /// There is a later version of it.
    Superseded,
}

impl Says {
    /// The word in JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decides(outcome, _) => outcome.code(),
            Self::Nothing => "nothing-matches",
            Self::NotInForce => "not-in-force",
            Self::AnotherPatient => "another-patient",
            Self::Superseded => "superseded",
        }
    }
}

/// What each of `count` Consents says, in the order given; `policies` was made of them.
pub fn said(policies: &PolicySet, count: usize, subject: &Subject, request: &Request, facets: &Facets) -> Vec<Said> {
    let mut said: Vec<Said> = (0..count).map(|consent| Said { consent, says: Says::Superseded }).collect();
    for member in policies.members() {
        let another = member.patient.is_some_and(|patient| !subject.names().contains(&patient));
        let says = if another {
            Says::AnotherPatient
        } else if member.standing == Standing::Silent && !member.unclear {
            Says::NotInForce
        } else {
            let voice = speak(member, request, facets);
            voice.map(Voice::into_decision).map_or(Says::Nothing, |it| Says::Decides(it.outcome, it.reason))
        };
        if let Some(said) = said.get_mut(member.index) {
            said.says = says;
        }
    }
    said
}
