//! The way in: what `admit` accepts, refuses, keeps and gives again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Request;
use serde_json::Value;
use sluice::error::Kind;
use sluice::ingest::units::Pass;
use sluice::record::version::ResourceKey;
use sluice::record::work::{self, Shared, Work};
use sluice::route::outbox;
use sluice::store::fault::Fault;
use sluice::store::{Batch, Direction, KeyRange, Table};

use crate::failing::Failing;
use crate::house::{House, Served, lines, sluice};
use crate::rig::{Rig, transaction};

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_recorded_and_the_same_one_gets_the_first_answer() {
    let rig = Rig::new().await;
    let bundle = transaction(&[
        r#"{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","identifier":[{"system":"urn:a","value":"7"}]},"request":{"method":"POST","url":"Patient"}}"#,
        r#"{"fullUrl":"urn:uuid:2","resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"urn:uuid:1"}},"request":{"method":"POST","url":"Observation"}}"#,
    ]);
    let first = rig.admit(&bundle).await.unwrap();
    assert_eq!(first.entries.iter().map(|it| it.status).collect::<Vec<_>>(), [201, 201]);
    let patient = &first.entries[0];
    let stored = rig.gateway.recorder.read_current("Observation", &first.entries[1].id).await.unwrap().unwrap();
    let body: Value = serde_json::from_slice(&stored.body).unwrap();
    assert_eq!(body["subject"]["reference"], format!("Patient/{}", patient.id));
    assert_eq!(body["id"], first.entries[1].id);
    assert_eq!(body["meta"]["versionId"], "1");
    assert_eq!(stored.about.subjects.len(), 1);
    let again = rig.admit(&bundle).await.unwrap();
    assert_eq!(again.operation, first.operation, "POST alone is told from a repetition by its digest");
}

#[tokio::test(flavor = "multi_thread")]
async fn put_acts_on_the_current_version_and_if_match_holds() {
    let rig = Rig::new().await;
    let put = |family: &str, if_match: &str| {
        transaction(&[&format!(
            r#"{{"resource":{{"resourceType":"Patient","id":"p","name":[{{"family":"{family}"}}]}},"request":{{"method":"PUT","url":"Patient/p"{if_match}}}}}"#
        )])
    };
    for (family, version) in [("A", "1"), ("B", "2"), ("A", "3")] {
        let answer = rig.admit(&put(family, "")).await.unwrap();
        assert_eq!(answer.entries[0].version, version);
        assert_eq!(answer.entries[0].status, if version == "1" { 201 } else { 200 });
    }
    let refused = rig.admit(&put("C", r#","ifMatch":"W/\"2\"""#)).await.unwrap_err();
    assert_eq!(refused.kind().face().status, 412);
    assert_eq!(rig.admit(&put("C", r#","ifMatch":"W/\"3\"""#)).await.unwrap().entries[0].version, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_create_finds_what_stands_there() {
    let rig = Rig::new().await;
    let create = transaction(&[
        r#"{"resource":{"resourceType":"Organization","identifier":[{"system":"urn:o","value":"1"}],"name":"O"},"request":{"method":"POST","url":"Organization","ifNoneExist":"identifier=urn:o|1"}}"#,
    ]);
    let first = rig.admit(&create).await.unwrap();
    let second = rig.admit(&create).await.unwrap();
    assert_eq!((first.entries[0].status, second.entries[0].status), (201, 200));
    assert_eq!(first.entries[0].id, second.entries[0].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_refused_transaction_is_kept() {
    let rig = Rig::new().await;
    let bundle = transaction(&[
        r#"{"resource":{"resourceType":"Patient","id":"q"},"request":{"method":"PUT","url":"Patient/q"}}"#,
        r#"{"resource":{"resourceType":"Patient","id":"r"},"request":{"method":"PUT","url":"Patient/r","ifMatch":"W/\"9\""}}"#,
    ]);
    assert_eq!(rig.admit(&bundle).await.unwrap_err().kind().face().status, 412);
    assert!(rig.gateway.recorder.read_current("Patient", "q").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_of_whom_nothing_is_known_is_an_outage() {
    let rig = Rig::new().await;
    let of_unknown = transaction(&[
        r#"{"resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/gone"}},"request":{"method":"POST","url":"Observation"}}"#,
    ]);
    assert_eq!(rig.admit(&of_unknown).await.unwrap_err().kind().face().status, 503);
    let patient = transaction(&[
        r#"{"resource":{"resourceType":"Patient","id":"gone"},"request":{"method":"PUT","url":"Patient/gone"}}"#,
    ]);
    rig.admit(&patient).await.unwrap();
    rig.admit(&of_unknown).await.unwrap();
}

/// A unit about two patients and about both at once, its bodies too large for one row each.
fn about_two() -> String {
    let note = "x".repeat(2_000);
    let mut entries = vec![
        r#"{"resource":{"resourceType":"Patient","id":"p"},"request":{"method":"PUT","url":"Patient/p"}}"#.to_owned(),
        r#"{"resource":{"resourceType":"Patient","id":"q"},"request":{"method":"PUT","url":"Patient/q"}}"#.to_owned(),
        r#"{"resource":{"resourceType":"Organization","id":"o","name":"O"},"request":{"method":"PUT","url":"Organization/o"}}"#.to_owned(),
    ];
    for n in 0..90 {
        let (patient, performer) = [("p", ""), ("q", ""), ("p", r#","performer":[{"reference":"Patient/q"}]"#)][n % 3];
        entries.push(format!(
            r#"{{"resource":{{"resourceType":"Observation","id":"o{n}","status":"final","code":{{"text":"{note}{n}"}},"subject":{{"reference":"Patient/{patient}"}}{performer}}},"request":{{"method":"PUT","url":"Observation/o{n}"}}}}"#
        ));
    }
    transaction(&entries)
}

#[tokio::test(flavor = "multi_thread")]
async fn erasing_a_patient_erases_all_that_is_about_her_and_nothing_else() {
    let rig = Rig::new().await;
    rig.admit(&about_two()).await.unwrap();
    let recorder = &rig.gateway.recorder;
    let read = async |resource_type: &str, id: &str| recorder.read_current(resource_type, id).await.unwrap();
    for n in 0..90 {
        let stored = read("Observation", &format!("o{n}")).await.unwrap();
        let body: Value = serde_json::from_slice(&stored.body).unwrap();
        assert_eq!(body["id"], format!("o{n}"));
        assert!(body["code"]["text"].as_str().unwrap().ends_with(&format!("x{n}")));
        assert_eq!(stored.about.subjects.len(), if n % 3 == 2 { 2 } else { 1 });
    }
    let subject = read("Patient", "p").await.unwrap().about.subjects[0];
    assert!(recorder.vault().destroy(&subject.0).unwrap());
    assert!(read("Patient", "p").await.is_none());
    assert!(read("Patient", "q").await.is_some());
    assert!(read("Organization", "o").await.is_some());
    for n in 0..90 {
        let is_left = read("Observation", &format!("o{n}")).await.is_some();
        assert_eq!(is_left, n % 3 == 1, "o{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_has_few_rows_and_each_of_its_versions_is_read_by_its_number() {
    let rig = Rig::new().await;
    rig.admit(&about_two()).await.unwrap();
    let recorder = &rig.gateway.recorder;
    let count = async |table| {
        let rows = recorder.store().scan(table, KeyRange::all(), 10_000, Direction::Up).await.unwrap();
        (rows.len(), rows.iter().map(|row| row.value.len()).sum::<usize>())
    };
    assert_eq!(count(Table::Resource).await.0, 93);
    assert_eq!(count(Table::Version).await.0, 0, "of the current version the head says where it lies");
    let (bodies, bytes) = count(Table::Body).await;
    assert!(bodies <= 8 && bytes > 180_000, "{bodies} rows of {bytes} bytes");
    assert_eq!(count(Table::LeafPending).await, (1, 33 * (93 + 2)), "a leaf for each resource and each decision");
    assert_eq!(count(Table::Work).await.0, 1);
    for version in 2..4 {
        let again = rig.admit(&about_two()).await.unwrap();
        assert!(again.entries.iter().all(|it| it.version == version.to_string()));
    }
    let key = ResourceKey::of(recorder.keys(), "Observation", "o7");
    for version in 1..4 {
        let stored = recorder.read_version(&key, version).await.unwrap().unwrap();
        let body: Value = serde_json::from_slice(&stored.body).unwrap();
        assert_eq!((stored.about.version, &body["meta"]["versionId"]), (version, &version.to_string().into()));
    }
    assert!(recorder.read_version(&key, 4).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_leads_to_another_resource_is_not_followed() {
    let rig = Rig::new().await;
    rig.admit(&about_two()).await.unwrap();
    let recorder = &rig.gateway.recorder;
    let [one, other] = ["o1", "o4"].map(|id| ResourceKey::of(recorder.keys(), "Observation", id).head());
    let head = recorder.store().read(Table::Resource, &other).await.unwrap().unwrap();
    recorder.store().commit(Batch::new().put(Table::Resource, one, head)).await.unwrap();
    assert_eq!(recorder.read_current("Observation", "o1").await.unwrap_err().kind(), Kind::Defect);
    assert!(recorder.read_current("Observation", "o4").await.unwrap().is_some());
}

/// A clock that was set back over a restart: what is recorded then does not overtake, nor write over, what is there.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_above_what_is_there_whatever_the_clock_says() {
    let mut rig = Rig::new().await;
    let year = 365 * 24 * 3_600_000_000;
    let mut last = rig.gateway.recorder.next_sequence();
    let lane = [7; 24];
    for at in 0..4_u64 {
        let ahead = last + year;
        let shared = Shared::default();
        let work = Work { pieces: Vec::new(), shared }.encode().unwrap();
        let (table, key, value) = match at {
            0 => (Table::Work, work::key(work::Kind::Route, ahead), work),
            1 => (Table::LeafPending, ahead.to_be_bytes().to_vec().into(), Vec::new().into()),
            2 => (Table::Outbox, outbox::key(&lane, ahead), Vec::new().into()),
            // A mark has the number of its event; beside it stands the one that is asked for.
            _ => (Table::Outbox, outbox::key(&[6; 24], ahead), outbox::also()),
        };
        rig.gateway.recorder.store().commit(Batch::new().put(table, key, value)).await.unwrap();
        assert!(rig.gateway.recorder.next_sequence() < ahead, "this process does not know of it");
        rig = rig.restart().await;
        let next = rig.gateway.recorder.next_sequence();
        assert!(next > ahead, "{table:?}");
        assert!(rig.gateway.recorder.next_sequence() > next);
        last = next;
    }
    let mark = outbox::beside(&lane, &outbox::key(&lane, last + year));
    rig.gateway.recorder.store().commit(Batch::new().put(Table::Outbox, mark, outbox::also())).await.unwrap();
    let rig = rig.restart().await;
    assert!(rig.gateway.recorder.next_sequence() < last + year, "a mark's key ends with something else");
}

/// A batch of a Patient with this identifier and of an Observation that means it by its `fullUrl`; the words of the
/// Observation are always the same.
fn batch(identifier: &str) -> String {
    let entries = [
        format!(
            r#"{{"fullUrl":"urn:uuid:1","resource":{{"resourceType":"Patient","identifier":[{{"system":"urn:a","value":"{identifier}"}}]}},"request":{{"method":"POST","url":"Patient"}}}}"#
        ),
        r#"{"fullUrl":"urn:uuid:2","resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"urn:uuid:1"}},"request":{"method":"POST","url":"Observation"}}"#.to_owned(),
    ];
    transaction(&entries).replace("\"transaction\"", "\"batch\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_words_about_another_patient_are_another_unit() {
    let rig = Rig::new().await;
    let one = rig.admit_each(&batch("7")).await.unwrap();
    let other = rig.admit_each(&batch("8")).await.unwrap();
    assert_ne!(one[1].entries[0].id, other[1].entries[0].id);
    for answers in [&one, &other] {
        let recorder = &rig.gateway.recorder;
        let patient = recorder.read_current("Patient", &answers[0].entries[0].id).await.unwrap().unwrap();
        let about = recorder.read_current("Observation", &answers[1].entries[0].id).await.unwrap().unwrap();
        assert_eq!(about.about.subjects, patient.about.subjects);
        let body: Value = serde_json::from_slice(&about.body).unwrap();
        assert_eq!(body["subject"]["reference"], format!("Patient/{}", answers[0].entries[0].id));
    }
    let again = rig.admit_each(&batch("8")).await.unwrap();
    for (again, first) in again.iter().zip(&other) {
        assert_eq!(again.operation, first.operation, "the same batch gets the first answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_which_a_part_was_taken_goes_on_with_that_part() {
    let rig = Rig::new().await;
    let patient = rig.admit_passes(&batch("7"), &[Pass::Patients]).await.unwrap().remove(0);
    let all = rig.admit_each(&batch("7")).await.unwrap();
    assert_eq!(all[0].operation, patient.operation);
    let about = rig.gateway.recorder.read_current("Observation", &all[1].entries[0].id).await.unwrap().unwrap();
    let body: Value = serde_json::from_slice(&about.body).unwrap();
    assert_eq!(body["subject"]["reference"], format!("Patient/{}", patient.entries[0].id));
    assert_eq!(about.about.subjects.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_answer_is_given_within_the_window_and_then_forgotten() {
    let patient = |family: &str| {
        transaction(&[&format!(
            r#"{{"resource":{{"resourceType":"Patient","name":[{{"family":"{family}"}}]}},"request":{{"method":"POST","url":"Patient"}}}}"#
        )])
    };
    let rig = Rig::new().await;
    let rows = async |rig: &Rig| {
        let rows = rig.gateway.recorder.store().scan(Table::Idempotency, KeyRange::all(), 100, Direction::Up);
        rows.await.unwrap().len()
    };
    let keyed = rig.admit_under("k", &patient("A")).await.unwrap();
    let plain = rig.admit(&patient("B")).await.unwrap();
    assert_eq!(rig.admit_under("k", &patient("A")).await.unwrap().operation, keyed.operation);
    assert_eq!(rig.admit_under("k", &patient("B")).await.unwrap_err().kind().face().status, 422);
    assert_eq!(rig.admit(&patient("B")).await.unwrap().operation, plain.operation);
    assert_eq!((rig.gateway.recorder.forget_answers().await.unwrap(), rows(&rig).await), (0, 4), "all are young");

    let rig = rig.remembering(Duration::ZERO);
    let again = rig.admit_under("k", &patient("C")).await.unwrap();
    assert_ne!(again.operation, keyed.operation, "the key is free again");
    assert_eq!(rows(&rig).await, 5, "one answer under the key, and two rows by time");
    let rig = rig.remembering(Duration::from_hours(24));
    assert_eq!(rig.admit_under("k", &patient("C")).await.unwrap().operation, again.operation);
    let rig = rig.remembering(Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!((rig.gateway.recorder.forget_answers().await.unwrap(), rows(&rig).await), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_labels_of_a_bundle_are_kept_with_each_of_its_entries() {
    let rig = Rig::new().await;
    let security = r#"[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"PSY"}]"#;
    let labelled =
        |body: String| body.replacen("\"type\"", &format!("\"meta\":{{\"security\":{security}}},\"type\""), 1);
    for answer in
        [&rig.admit(&labelled(about_two())).await.unwrap(), &rig.admit_each(&labelled(batch("7"))).await.unwrap()[1]]
    {
        for entry in &answer.entries {
            let stored = rig.gateway.recorder.read_current(&entry.resource_type, &entry.id).await.unwrap().unwrap();
            assert_eq!(stored.about.labels.as_deref(), Some(security));
        }
    }
    let long = labelled(batch("7")).replace("PSY", &"x".repeat(9_000));
    assert_eq!(rig.admit_each(&long).await.unwrap_err().kind().face().status, 413);
}

/// Without an upstream, stage and record are one commit: the one write that can be lost, or be there and not be told.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_is_made_good_without_an_upstream() {
    let entry = |n: usize, resource: &str, kind: &str| {
        format!(
            r#"{{"fullUrl":"urn:uuid:00000000-0000-4000-8000-00000000000{n}","resource":{resource},"request":{{"method":"POST","url":"{kind}"}}}}"#
        )
    };
    let unit = transaction(&[
        entry(1, r#"{"resourceType":"Patient","identifier":[{"system":"urn:a","value":"7"}]}"#, "Patient"),
        entry(
            2,
            r#"{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"urn:uuid:00000000-0000-4000-8000-000000000001"}}"#,
            "Observation",
        ),
    ]);
    for fault in [Fault::Undone, Fault::Done] {
        let rig = Rig::new().await.over(|inner| Arc::new(Failing::at(inner, 1, fault)));
        let failed = rig.admit(&unit).await.unwrap_err();
        assert!(matches!(failed.kind(), Kind::Outage(_)), "{fault:?}: not acknowledged: {failed}");
        let rig = rig.restart().await;
        let counted = async || {
            let store = rig.gateway.recorder.store();
            let rows = async |table| store.scan(table, KeyRange::all(), 100, Direction::Up).await.unwrap();
            let leaves: usize = rows(Table::LeafPending).await.iter().map(|row| row.value.len() / 33).sum();
            (rows(Table::Resource).await.len(), leaves, rows(Table::Work).await.len())
        };
        let before = counted().await;
        assert_eq!(before.0, if fault == Fault::Done { 2 } else { 0 }, "{fault:?}: all of it or nothing");
        let first = rig.admit(&unit).await.unwrap();
        let after = counted().await;
        assert_eq!((after.0, after.2), (2, 1), "{fault:?}: once");
        assert!(fault == Fault::Undone || before == after, "{fault:?}: the first answer, and no second leaf");
        assert_eq!(rig.admit(&unit).await.unwrap().operation, first.operation, "{fault:?}");
        assert_eq!(counted().await, after, "{fault:?}");
    }
}

/// SIGKILL with units under way and nobody behind the gateway: what was acknowledged stands, once, with its first answer.
#[tokio::test(flavor = "multi_thread")]
async fn killed_with_units_under_way_without_an_upstream() {
    const UNITS: usize = 8;
    let house = House::new("[log]\nbeat = \"20ms\"\n");
    let wire = house.client(Some("tls/hospital"));
    let post = async |served: &Served, n: usize| {
        let body = transaction(&[format!(
            r#"{{"resource":{{"resourceType":"Patient","identifier":[{{"system":"urn:a","value":"{n}"}}]}},"request":{{"method":"POST","url":"Patient"}}}}"#
        )]);
        let request = Request::post("https://localhost/fhir").header("content-type", "application/fhir+json");
        let request = request.header("idempotency-key", format!("key-{n}")).body(Bytes::from(body)).unwrap();
        let answer = wire.try_send(served, request).await;
        let location = |body: &Value| body["entry"][0]["response"]["location"].as_str().unwrap_or_default().to_owned();
        (n, answer.map(|(status, body)| (status.as_u16(), location(&body))))
    };
    let mut acknowledged: BTreeMap<usize, String> = BTreeMap::new();
    let mut units = 0;
    // By time, or by the number of answers: what a slow machine reaches too.
    for (millis, answers_max) in [(5, UNITS), (60_000, 1), (20, UNITS), (60_000, 3), (60_000, 6)] {
        let served = house.serve();
        let mut posts: FuturesUnordered<_> = (units..units + UNITS).map(|n| post(&served, n)).collect();
        units += UNITS;
        let mut time = std::pin::pin!(tokio::time::sleep(Duration::from_millis(millis)));
        for _ in 0..answers_max {
            tokio::select! {
                () = &mut time => break,
                Some((n, answer)) = posts.next() => if let Some((status, location)) = answer {
                    assert_eq!(status, 200, "{n}");
                    assert!(acknowledged.insert(n, location).is_none());
                },
            }
        }
        drop(posts);
        // SIGKILL.
        drop(served);
    }
    let served = house.serve();
    let mut stand = BTreeSet::new();
    for n in 0..units {
        let (status, location) = post(&served, n).await.1.expect("an answer");
        assert_eq!(status, 200, "{n}");
        assert_eq!(acknowledged.get(&n).unwrap_or(&location), &location, "{n}: the first answer");
        assert!(stand.insert(location), "{n}: one place each");
    }
    assert!(acknowledged.len() >= 3, "{} acknowledged", acknowledged.len());
    assert_eq!(served.stop(), Some(0));
    // By the operator's view of the log, each was accepted once.
    let check = sluice(&["log", "check", "--format", "json", "--config", &house.path("sluice.toml")], b"");
    let log = lines(&check).remove(0);
    assert_eq!((&log["ok"], &log["leaves"]["resource"]), (&true.into(), &units.into()), "{log}");
}
