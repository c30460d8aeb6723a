//! Codes that the packages cannot tell, decided by a terminology server.
//!
//! Takes: what the validator has left open, and who is asked. Gives: an issue for each that is not in its value set, and for
//! each that nobody can tell; or an outage, where the settings want an answer before anything goes on. Never: takes a server
//! that does not answer for one that says yes.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt as _, stream};
use sluice_fhir::definitions::Strength;
use sluice_fhir::outcome::Issue;
use sluice_fhir::validate::{Coding, Undecided};

use crate::config;
use crate::error::{Error, Peer, Result};
use crate::terminology::{Membership, Question, Terminology, Unavailable};

/// Questions of one unit that are asked at once.
const WIDTH: usize = 16;

/// Decides what was left open.
///
/// # Errors
/// An outage, where the settings want an answer and there is none.
pub(super) async fn issues(
    undecided: Vec<Undecided>,
    terminology: &dyn Terminology,
    unknown: config::UnknownTerminology,
) -> Result<Vec<Issue>> {
    let questions: HashSet<Question> =
        undecided.iter().flat_map(|one| one.codings.iter().map(|coding| question(one, coding))).collect();
    let asked = stream::iter(questions.into_iter().map(|question| async {
        let answer = terminology.member(&question).await;
        (question, answer)
    }));
    let answers: HashMap<Question, Result<Membership, Unavailable>> = asked.buffered(WIDTH).collect().await;
    let mut issues = Vec::new();
    // Of a value set that nobody can tell, it is said once.
    let mut said = HashSet::new();
    for one in undecided {
        let setting = setting(one.strength, unknown);
        match member(&one, &answers) {
            Ok(Membership::In) => {}
            Ok(Membership::Out) => issues.push(one.broken),
            Ok(Membership::Unknown) => {
                if setting == config::Unknown::Outage {
                    return Err(outage(one.strength, None));
                }
                if said.insert(one.value_set) {
                    issues.push(one.not_checked);
                }
            }
            Err(silent) => {
                if setting != config::Unknown::Issue {
                    return Err(outage(one.strength, Some(silent)));
                }
                if said.insert(one.value_set) {
                    let text = format!("{}; the terminology server does not answer", one.not_checked.text);
                    issues.push(Issue { text, ..one.not_checked });
                }
            }
        }
    }
    Ok(issues)
}

/// What the settings say of a code that nobody can tell.
pub(super) fn setting(strength: Strength, unknown: config::UnknownTerminology) -> config::Unknown {
    match strength {
        Strength::Required => unknown.required,
        Strength::Extensible => unknown.extensible,
        Strength::Preferred | Strength::Example => config::Unknown::Issue,
    }
}

/// The outage of a code that has to be told and can't be.
pub(super) fn outage(strength: Strength, silent: Option<Unavailable>) -> Error {
    let strength = if strength == Strength::Required { "required" } else { "extensible" };
    let why = silent.map_or("nobody can tell what a value set holds", |silent| silent.why);
    let after = silent.map_or(RETRY_AFTER, |silent| silent.retry_after);
    Error::outage(Peer::Terminology, after, format!("a {strength} binding: {why}"))
}

/// When to come again where a server answers that it can't tell: what it knows changes seldom.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_mins(1);

fn question(one: &Undecided, coding: &Coding) -> Question {
    let Coding { system, version, code } = coding.clone();
    Question { value_set: one.value_set.clone(), system, version, code }
}

/// Whether one of the codes is in the value set.
fn member(
    one: &Undecided,
    answers: &HashMap<Question, Result<Membership, Unavailable>>,
) -> Result<Membership, Unavailable> {
    let mut whole = Ok(Membership::Out);
    for coding in &one.codings {
        match answers.get(&question(one, coding)) {
            Some(Ok(Membership::In)) => return Ok(Membership::In),
            Some(Ok(Membership::Out)) => {}
            Some(Ok(Membership::Unknown)) | None => whole = whole.and(Ok(Membership::Unknown)),
            Some(Err(silent)) => whole = Err(*silent),
        }
    }
    whole
}
