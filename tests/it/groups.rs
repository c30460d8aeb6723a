//! Units of a stream that are recorded together: each is a unit of its own all the same, whatever befalls the others or the
//! commit that they share.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice::error::Result;
use sluice::record::Answer;
use sluice::record::leaf::LEAF_BYTES;
use sluice::stage::OperationId;
use sluice::store::fault::Fault;
use sluice::store::{Batch, CommitError, Direction, KeyRange, Row, Table};

use crate::failing::{Failing, Fate};
use crate::rig::Rig;

/// What the first commit of more than one unit meets.
#[derive(Clone, Copy, PartialEq)]
enum Meets {
    Nothing,
    Conflict,
    TooLarge,
}

/// A gateway that knows Patient/p, and the number of commits since.
async fn rig(meets: Meets) -> (Rig, Arc<AtomicUsize>) {
    let rig = Rig::new().await;
    let known = all(&rig, &[put("Patient", "p", "")]).await;
    assert_eq!(known[0].as_ref().unwrap().entries[0].status, 201);
    let commits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&commits);
    let fate = move |number: usize, batch: &Batch| {
        counted.fetch_add(1, Ordering::AcqRel);
        let operations = batch.written().filter(|(table, _)| *table == Table::Operation).count();
        let is_first = number == 1 && operations > 1;
        match meets {
            Meets::Conflict if is_first => Fate::Refused(CommitError::Conflict { expect: 0 }),
            Meets::TooLarge if is_first => Fate::Refused(CommitError::TooLarge),
            _ => Fate::Taken,
        }
    };
    (rig.over(|inner| Arc::new(Failing::by(inner, fate))), commits)
}

async fn all(rig: &Rig, entries: &[String]) -> Vec<Result<Answer>> {
    let body = format!(r#"{{"resourceType":"Bundle","type":"batch","entry":[{}]}}"#, entries.join(","));
    rig.admit_all(&body).await.unwrap()
}

fn put(resource_type: &str, id: &str, more: &str) -> String {
    format!(
        r#"{{"resource":{{"resourceType":"{resource_type}","id":"{id}"}},"request":{{"method":"PUT","url":"{resource_type}/{id}"{more}}}}}"#
    )
}

fn observation(text: &str, patient: &str, more: &str) -> String {
    format!(
        r#"{{"resource":{{"resourceType":"Observation","status":"final","code":{{"text":"{text}"}},"subject":{{"reference":"Patient/{patient}"}}{more}}},"request":{{"method":"POST","url":"Observation"}}}}"#
    )
}

async fn rows(rig: &Rig, table: Table) -> Vec<Row> {
    rig.gateway.recorder.store().scan(table, KeyRange::all(), 10_000, Direction::Up).await.unwrap()
}

/// Leaves that wait, and what the counts of all subjects come to.
async fn leaves(rig: &Rig) -> (usize, u64) {
    let pending = rows(rig, Table::LeafPending).await;
    let counts = rows(rig, Table::Subject).await;
    let counts = counts.iter().map(|row| u64::from_be_bytes(row.value[..].try_into().unwrap()));
    (pending.iter().map(|row| row.value.len() / LEAF_BYTES).sum(), counts.sum())
}

fn statuses(answers: &[Result<Answer>]) -> Vec<u16> {
    let status = |it: &Result<Answer>| match it {
        Ok(answer) => answer.entries[0].status,
        Err(error) => error.kind().face().status.as_u16(),
    };
    answers.iter().map(status).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_one_commit_and_each_of_its_units_has_its_own_answer() {
    let (rig, commits) = rig(Meets::Nothing).await;
    let before = [Table::Work, Table::LeafPending, Table::Body].map(|table| (table, rows(&rig, table)));
    let mut counted = Vec::new();
    for (table, rows) in before {
        counted.push((table, rows.await.len()));
    }
    let entries: Vec<String> = (0..40).map(|n| observation(&format!("x{n}"), "p", "")).collect();
    let answers: Vec<Answer> = all(&rig, &entries).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(commits.load(Ordering::Acquire), 1);
    for (table, before) in counted {
        assert_eq!(rows(&rig, table).await.len(), before + 1, "{table:?}");
    }
    assert_eq!(answers.iter().map(|it| &it.operation).collect::<HashSet<_>>().len(), 40);
    for (n, answer) in answers.iter().enumerate() {
        let stored = rig.gateway.recorder.read_current("Observation", &answer.entries[0].id).await.unwrap().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&stored.body).unwrap();
        assert_eq!(body["code"]["text"], format!("x{n}"), "in the order sent");
        assert_eq!(stored.about.operation, answer.operation);
        let operation = OperationId::parse(&answer.operation).unwrap();
        let operation = rig.gateway.recorder.operation(operation).await.unwrap().unwrap();
        assert_eq!((operation.stands.len(), &operation.stands[0].id), (1, &answer.entries[0].id));
    }
    let (leaves, counts) = leaves(&rig).await;
    assert_eq!(leaves as u64, counts, "each leaf is about the patient, and has a number");
    let again: Vec<Answer> = all(&rig, &entries).await.into_iter().map(Result::unwrap).collect();
    let operations = |answers: &[Answer]| answers.iter().map(|it| it.operation.clone()).collect::<Vec<_>>();
    assert_eq!(operations(&again), operations(&answers));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_befalls_one_unit_of_a_group_befalls_no_other() {
    let (rig, _) = rig(Meets::Nothing).await;
    let organization = r#"{"resource":{"resourceType":"Organization","identifier":[{"system":"urn:o","value":"1"}],"name":"O"},"request":{"method":"POST","url":"Organization","ifNoneExist":"identifier=urn:o|1"}}"#;
    let entries = [
        observation("first", "p", ""),
        observation("unknown member", "p", r#","colour":"red""#),
        put("Device", "d", ""),
        put("Device", "e", r#","ifMatch":"W/\"9\"""#),
        observation("of whom", "nobody", ""),
        put("Device", "d", ""),
        observation("first", "p", ""),
        organization.to_owned(),
        organization.to_owned(),
        observation("last", "p", ""),
    ];
    let answers = all(&rig, &entries).await;
    assert_eq!(statuses(&answers), [201, 422, 201, 412, 503, 200, 201, 201, 200, 201]);
    let answer = |at: usize| answers[at].as_ref().unwrap();
    assert_eq!(answer(5).entries[0].version, "2", "a second PUT acts on what the first one made");
    assert_eq!(answer(6).operation, answer(0).operation, "the same POST is one operation");
    assert_eq!(answer(8).entries[0].id, answer(7).entries[0].id);
    assert!(rig.gateway.recorder.read_current("Device", "e").await.unwrap().is_none());
    assert_eq!(rows(&rig, Table::Operation).await.len(), 1 + 6, "the first Patient, and what was accepted since");
    // Two of a device's versions and one organization are about nobody.
    let (leaves, counts) = leaves(&rig).await;
    assert_eq!(leaves as u64, counts + 3, "no number was given and not used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_goes_alone() {
    let (rig, commits) = rig(Meets::Nothing).await;
    let consent = r#"{"resource":{"resourceType":"Consent","status":"active","scope":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/consentscope","code":"patient-privacy"}]},"category":[{"coding":[{"system":"http://loinc.org","code":"59284-0"}]}],"patient":{"reference":"Patient/p"},"policyRule":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"OPTIN"}]},"provision":{"type":"permit"}},"request":{"method":"POST","url":"Consent"}}"#;
    let entries = [observation("a", "p", ""), consent.to_owned(), observation("b", "p", "")];
    let answers = all(&rig, &entries).await;
    assert_eq!(statuses(&answers), [201; 3]);
    assert!(commits.load(Ordering::Acquire) >= 2);
    let (leaves, counts) = leaves(&rig).await;
    assert_eq!(leaves as u64, counts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_can_t_be_committed_goes_unit_by_unit() {
    for meets in [Meets::Conflict, Meets::TooLarge] {
        let (rig, commits) = rig(meets).await;
        let entries: Vec<String> = (0..5).map(|n| observation(&format!("x{n}"), "p", "")).collect();
        assert_eq!(statuses(&all(&rig, &entries).await), [201; 5]);
        assert_eq!(commits.load(Ordering::Acquire), 1 + 5);
        let (leaves, counts) = leaves(&rig).await;
        assert_eq!(leaves as u64, counts, "what the group had counted is not counted on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_not_seen_leaves_all_of_each_unit_or_nothing() {
    for fault in [Fault::Undone, Fault::Done] {
        let (rig, _) = rig(Meets::Nothing).await;
        let rig = rig.over(|store| Arc::new(Failing::at(store, 1, fault)));
        let entries: Vec<String> = (0..5).map(|n| observation(&format!("x{n}"), "p", "")).collect();
        assert_eq!(statuses(&all(&rig, &entries).await), [503; 5], "nobody was told that it stands");
        let rig = rig.restart().await;
        let stands = if fault == Fault::Done { 5 } else { 0 };
        assert_eq!(rows(&rig, Table::Operation).await.len(), 1 + stands);
        assert_eq!(rows(&rig, Table::Resource).await.len(), 1 + stands);
        // The sender sends again, and each stands once.
        assert_eq!(statuses(&all(&rig, &entries).await), [201; 5]);
        assert_eq!(rows(&rig, Table::Operation).await.len(), 1 + 5);
        assert_eq!(rows(&rig, Table::Resource).await.len(), 1 + 5);
        let (leaves, counts) = leaves(&rig).await;
        assert_eq!(leaves as u64, counts);
    }
}
