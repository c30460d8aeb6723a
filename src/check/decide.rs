//! Codes that the packages cannot tell, decided by a terminology server.
//!
//! Takes: what the validator has left open, and who is asked. Gives: an issue for each that is not in its value set, and for
//! each that nobody can tell; or an outage, where the settings want an answer before anything goes on. Never: takes a server
//! that does not answer for one that says yes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use sluice_fhir::definitions::Strength;
use sluice_fhir::outcome::Issue;
use sluice_fhir::validate::{Coding, Undecided};
use tokio::time::Instant;

use crate::config;
use crate::error::{Error, Peer, Result};
use crate::terminology::{Membership, Question, Terminology, Unavailable};

/// Questions of one unit that are asked at once.
const WIDTH: usize = 16;
/// Questions of one unit that are asked at all, and the time for them; what is beyond, nobody can tell.
const QUESTIONS_MAX: usize = 1_000;
const ASKING_MAX: Duration = Duration::from_secs(30);
/// Bytes of a code, its system and version together. What is longer is no code; it may be anything, and stays in the house.
const CODING_BYTES_MAX: usize = 1024;

/// Decides what was left open.
///
/// # Errors
/// An outage, where the settings want an answer and there is none.
pub(super) async fn issues(
    undecided: Vec<Undecided>,
    terminology: &dyn Terminology,
    unknown: config::UnknownTerminology,
) -> Result<Vec<Issue>> {
    let questions: HashSet<Question> = undecided
        .iter()
        .flat_map(|one| one.codings.iter().map(|coding| question(one, coding)))
        .filter(is_short)
        .collect();
    let asked = stream::iter(questions.into_iter().take(QUESTIONS_MAX).map(|question| async {
        let answer = terminology.member(&question).await;
        (question, answer)
    }));
    let mut asked = std::pin::pin!(asked.buffered(WIDTH));
    let mut answers: HashMap<Question, Result<Membership, Unavailable>> = HashMap::new();
    // What is not answered by then, nobody can tell.
    let deadline = Instant::now() + ASKING_MAX;
    while let Ok(Some((question, answer))) = tokio::time::timeout_at(deadline, asked.next()).await {
        answers.insert(question, answer);
    }
    let mut issues = Vec::new();
    // Of a value set that nobody can tell, it is said once for each strength: a site may have them mean different things.
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
                if said.insert((one.value_set, one.strength)) {
                    issues.push(one.not_checked);
                }
            }
            Err(silent) => {
                if setting != config::Unknown::Issue {
                    return Err(outage(one.strength, Some(silent)));
                }
                if said.insert((one.value_set, one.strength)) {
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
const RETRY_AFTER: Duration = Duration::from_mins(1);

fn question(one: &Undecided, coding: &Coding) -> Question {
    let Coding { system, version, code } = coding.clone();
    Question { value_set: one.value_set.clone(), system, version, code }
}

fn is_short(question: &Question) -> bool {
    let Question { value_set: _, system, version, code } = question;
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    code.len() + optional(system) + optional(version) <= CODING_BYTES_MAX
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
