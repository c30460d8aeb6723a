//! The self-test: the doors are asked for what they must permit, and for what they must deny.
//!
//! Takes: a door. Gives: its word on a synthetic subject, by the same path that every record goes. Never: lets the
//! gateway serve on when a deny does not deny: the doors close, intake answers 503 and the gateway is not ready.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sluice_fhir::tree::{Limits, Tree};

use super::decide::{Outcome, PolicySet, rule};
use super::door::{Asker, Door};
use super::mirror::{Record, State};
use super::policy::Policy;
use super::pseudonym::Pseudonym;
use super::subjects::Subjects;
use crate::error::{Error, Result};
use crate::observe::{self, Condition};

/// The synthetic subject: 32 bytes that are no keyed hash of anybody's identifier.
const SUBJECT: Pseudonym = Pseudonym(*b"sluice/consent/self-test/subject");
const ROOT: [u8; 32] = *b"sluice/consent/self-test/policy.";

const CONSENT: &str = r#"{"resourceType":"Consent","id":"self-test","status":"active",
"scope":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/consentscope","code":"patient-privacy"}]},
"patient":{"reference":"Patient/self-test"},
"provision":{"type":"permit","purpose":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActReason","code":"TREAT"}],
"provision":[{"type":"deny","purpose":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActReason","code":"HMARKT"}]}]}}"#;

const RECORD: &str = r#"{"resourceType":"Observation","id":"self-test","status":"final","code":{"text":"self-test"},
"subject":{"reference":"Patient/self-test"}}"#;

/// Puts the synthetic subject in place, with the Consent that permits treatment and denies marketing.
///
/// # Errors
/// A defect if that can't be read.
pub fn install(door: &Door) -> Result<()> {
    install_with(door, PolicySet::new([Policy::compile(parse(CONSENT)?.root())]));
    Ok(())
}

/// The same with other policies: a test shows by them what the self-test finds.
pub fn install_with(door: &Door, policies: PolicySet) {
    door.openings().pin(SUBJECT, ROOT, policies);
    let record = Record { version: 1, state: State::Active, root: ROOT };
    door.mirror().write().unwrap_or_else(PoisonError::into_inner).put(SUBJECT, record);
}

/// Asks once, and tells what was found: the doors open or close by it.
pub async fn run(door: &Door) -> Result<(), &'static str> {
    let found = ask(door).await;
    match found {
        Ok(()) => door.observer().set(Condition::ConsentSelfTest, Ok(())),
        Err(why) => {
            tracing::error!(why, "the consent self-test failed; the doors are closed");
            door.observer().set(Condition::ConsentSelfTest, Err(why.to_owned()));
        }
    }
    door.set_sound(found.is_ok());
    found
}

/// Asks again and again.
pub async fn repeat(door: Arc<Door>) {
    let mut beat = tokio::time::interval(door.settings().self_test_interval.max(Duration::from_millis(10)));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        // What was found is told where it is found.
        let _ = run(&door).await;
    }
}

async fn ask(door: &Door) -> Result<(), &'static str> {
    let record = parse(RECORD).map_err(|_| "the synthetic record can't be read")?;
    let facets = door.facets(record.root());
    let about = Subjects::Of(vec![SUBJECT]);
    let asker = |purpose: &str| Asker {
        institution: "self-test".into(),
        member_of: Vec::new(),
        role: None,
        purpose: Some(purpose.to_owned()),
    };
    for (purpose, expected) in [("TREAT", Outcome::Permit), ("HMARKT", Outcome::Deny)] {
        let judgement = door.judge(observe::Door::Route, &asker(purpose), &about, &facets).await;
        // An old mirror closes the doors by itself, and has a condition of its own.
        let stale = judgement.outcome == Outcome::Undecidable && judgement.rule == rule::STALE;
        if judgement.outcome != expected && !stale {
            return Err(if expected == Outcome::Deny { "a deny does not deny" } else { "a permit does not permit" });
        }
    }
    let unattributed = door.judge(observe::Door::Route, &asker("TREAT"), &Subjects::Unattributed, &facets).await;
    if unattributed.passes() { Err("a record of nobody known is shown") } else { Ok(()) }
}

fn parse(text: &'static str) -> Result<Tree> {
    Tree::parse(Bytes::from_static(text.as_bytes()), &Limits::default())
        .map_err(|_| Error::defect("the self-test's resources are not JSON"))
}
