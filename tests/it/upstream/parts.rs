//! What recovery does with units of many parts, and with units that would not be accepted any more.

use std::time::{Duration, Instant};

use serde_json::json;
use sluice::check;
use sluice::config::{Granularity, Payload, Subscriber, Wait};
use sluice::consent::door::{Verdict, permit};
use sluice::consent::mirror::{Record, State};
use sluice::forward::Found;
use sluice::gateway::{Gateway, Ruling};
use sluice::normalize;
use sluice::record::Known;
use sluice::record::operation::Stands;
use sluice::route::Router;
use sluice::stage::OperationId;
use sluice::store::{Direction, KeyRange, Table};

use super::fake::{Fake, Mode};
use super::{admission, recorded, settings, staged_rows};
use crate::rig::{Rig, context, transaction};

const PATIENT: &str = r#"{"fullUrl":"urn:uuid:00000000-0000-4000-8000-000000000001","resource":{"resourceType":"Patient","identifier":[{"system":"urn:a","value":"7"}]},"request":{"method":"POST","url":"Patient"}}"#;
const CONDITIONAL: &str = r#"{"fullUrl":"urn:uuid:00000000-0000-4000-8000-000000000001","resource":{"resourceType":"Patient","identifier":[{"system":"urn:a","value":"7"}]},"request":{"method":"POST","url":"Patient","ifNoneExist":"identifier=urn:a|7"}}"#;
const OBSERVATION: &str = r#"{"fullUrl":"urn:uuid:00000000-0000-4000-8000-000000000002","resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"urn:uuid:00000000-0000-4000-8000-000000000001"}},"request":{"method":"POST","url":"Observation"}}"#;
const WARD: &str = r#"{"resource":{"resourceType":"Organization","id":"ward","name":"new"},"request":{"method":"PUT","url":"Organization/ward"}}"#;

/// However slow the machine, an answer is waited for: nothing here is silent.
async fn begun(resolve: &str, mode: Mode, body: &str, before: impl FnOnce(&Fake)) -> (Fake, Rig) {
    begun_within("60s", resolve, mode, body, before).await
}

async fn begun_within(timeout: &str, resolve: &str, mode: Mode, body: &str, before: impl FnOnce(&Fake)) -> (Fake, Rig) {
    let fake = Fake::start().await;
    before(&fake);
    let rig = Rig::with(&settings(&fake, resolve).replace("2s", timeout)).await;
    fake.turn(mode);
    assert_eq!(rig.admit(body).await.unwrap_err().kind().face().status, 504);
    fake.turn(Mode::Works);
    (fake, rig)
}

fn put(fake: &Fake, at: &str, resource: serde_json::Value) {
    fake.held.lock().unwrap().put("PUT", at, resource);
}

/// What is found by a part of it is not sent again, and does not undo what came after it.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_part_is_done_and_not_sent_again() {
    for resolve in ["client-ids", "tag-probe"] {
        let (fake, rig) = begun(resolve, Mode::BreaksAfter, &transaction(&[PATIENT, WARD]), |_| ()).await;
        put(&fake, "Organization/ward", json!({"resourceType": "Organization", "name": "newer"}));
        assert_eq!(rig.gateway.recover().await.unwrap(), 1, "{resolve}");
        assert_eq!(fake.writes(), 1, "{resolve}");
        assert_eq!(fake.held.lock().unwrap().stands["Organization/ward"].1["name"], "newer", "{resolve}");
        let ward = rig.gateway.recorder.read_current("Organization", "ward").await.unwrap().unwrap();
        assert_eq!(ward.about.upstream_version, None, "{resolve}: which version it was is not known any more");
        assert_eq!(recorded(&rig).await, (2, 2), "{resolve}");
    }
}

/// A unit that writes over what stands there may have been done and undone since: nobody but an operator can tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_over_something_is_never_sent_again() {
    let old = |fake: &Fake| put(fake, "Organization/ward", json!({"resourceType": "Organization", "name": "old"}));
    for body in [transaction(&[PATIENT, WARD]), transaction(&[WARD])] {
        let (fake, rig) = begun("client-ids", Mode::BreaksBefore, &body, old).await;
        assert_eq!(rig.gateway.recover().await.unwrap(), 0);
        assert_eq!((fake.writes(), rig.gateway.parked(9).await.unwrap().0.len()), (1, 1));
        assert_eq!(recorded(&rig).await, (0, 0));
    }
    // Over nothing it is, and what stands as it was sent is done.
    for (mode, writes) in [(Mode::BreaksBefore, 2), (Mode::BreaksAfter, 1)] {
        let (fake, rig) = begun("client-ids", mode, &transaction(&[WARD]), |_| ()).await;
        assert_eq!(rig.gateway.recover().await.unwrap(), 1);
        assert_eq!((fake.writes(), fake.held.lock().unwrap().stands["Organization/ward"].0), (writes, 1));
    }
}

/// What stood there before the unit came and still does is written over, if it stays so until it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_over_what_stood_there_before_is_sent_on_condition() {
    let day = time::Duration::days(1);
    let ward = |name: &str, ago: time::Duration| {
        let written = sluice::record::instant(time::OffsetDateTime::now_utc() - ago);
        json!({"resourceType": "Organization", "name": name, "meta": {"lastUpdated": written}})
    };
    let version = |fake: &Fake| fake.held.lock().unwrap().stands["Organization/ward"].0;
    let matching = WARD.replace("\"url\"", "\"ifMatch\":\"W/\\\"1\\\"\",\"url\"");
    for body in [transaction(&[PATIENT, WARD]), transaction(&[WARD]), transaction(&[&matching])] {
        let resources = body.matches("resourceType").count() - 1;
        // What is demanded is looked at alone; else the time.
        let ago = if body.contains("ifMatch") { time::Duration::ZERO } else { day };
        let old = |fake: &Fake| put(fake, "Organization/ward", ward("old", ago));
        let (fake, rig) = begun("client-ids", Mode::BreaksBefore, &body, old).await;
        assert_eq!(rig.gateway.recover().await.unwrap(), 0);
        assert_eq!((fake.writes(), rig.gateway.parked(9).await.unwrap().0.len()), (1, 0), "it may still arrive");
        // Lost: once nobody can be at work on it any more it is sent again, and done once.
        let (fake, rig) = begun_within("1s", "client-ids", Mode::BreaksBefore, &body, old).await;
        let patience = Instant::now() + Duration::from_mins(1);
        while rig.gateway.recover().await.unwrap() == 0 {
            assert!(Instant::now() < patience, "it is never sent again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!((fake.writes(), version(&fake), recorded(&rig).await.0), (2, 2, resources));
        let (_, _, _, sent) = fake.held.lock().unwrap().last.clone();
        let sent = String::from_utf8_lossy(&sent).into_owned();
        assert!(sent.contains(r#""ifMatch":"W/\"1\"""#), "{sent}");
        // Done, and not seen.
        let (fake, rig) = begun("client-ids", Mode::BreaksAfter, &body, old).await;
        assert_eq!(rig.gateway.recover().await.unwrap(), 1);
        assert_eq!((fake.writes(), version(&fake), recorded(&rig).await.0), (1, 2, resources));
        // Lost, and somebody else has written since: what is newer is not undone.
        let (fake, rig) = begun("client-ids", Mode::BreaksBefore, &body, old).await;
        put(&fake, "Organization/ward", ward("newer", time::Duration::ZERO));
        assert_eq!(rig.gateway.recover().await.unwrap(), 0);
        assert_eq!((fake.writes(), version(&fake), rig.gateway.parked(9).await.unwrap().0.len()), (1, 2, 1));
        assert_eq!(fake.held.lock().unwrap().stands["Organization/ward"].1["name"], "newer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_create_is_found_by_its_search() {
    for resolve in ["client-ids", "tag-probe"] {
        for there in [false, true] {
            let before = |fake: &Fake| {
                if there {
                    let identifier = json!([{"system": "urn:a", "value": "7"}]);
                    let patient = json!({"resourceType": "Patient", "active": true, "identifier": identifier});
                    put(fake, "Patient/old", patient);
                }
            };
            let body = transaction(&[CONDITIONAL, OBSERVATION]);
            let (fake, rig) = begun(resolve, Mode::BreaksAfter, &body, before).await;
            assert_eq!(rig.gateway.recover().await.unwrap(), 1, "{resolve}, {there}");
            assert_eq!((fake.writes(), fake.count("Patient")), (1, 1), "{resolve}, {there}");
            assert_eq!(recorded(&rig).await.0, if there { 1 } else { 2 }, "{resolve}: what was found is not written");
        }
    }
}

/// The id of what others refer to must be known before they are sent, whatever the settings say of unanswered units.
#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_batch_find_each_other_at_the_upstream() {
    for resolve in ["client-ids", "tag-probe", "park"] {
        let fake = Fake::start().await;
        let rig = Rig::with(&settings(&fake, resolve)).await;
        let batch = transaction(&[OBSERVATION, PATIENT]).replace("\"transaction\"", "\"batch\"");
        let answers = rig.admit_each(&batch).await.unwrap();
        let patient = format!("Patient/{}", answers[0].entries[0].id);
        let observation = format!("Observation/{}", answers[1].entries[0].id);
        let held = fake.held.lock().unwrap();
        assert!(held.stands.contains_key(&patient), "{resolve}");
        assert_eq!(held.stands[&observation].1["subject"]["reference"], *patient, "{resolve}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mappings_had_changed_is_still_told() {
    let mapped = format!("[normalize]\nmappings = [\"{}/mappings/identifiers/us.json\"]\n", env!("CARGO_MANIFEST_DIR"));
    let fake = Fake::start().await;
    let rig = Rig::with(&format!("{mapped}{}", settings(&fake, "client-ids"))).await;
    fake.turn(Mode::BreaksAfter);
    let body = admission().replace("urn:a\",\"value\":\"7", "urn:oid:2.16.840.1.113883.4.1\",\"value\":\"999-12-3456");
    assert!(rig.admit(&body).await.is_err());
    fake.turn(Mode::Works);
    let rig = rig.restart().await;
    assert_eq!(rig.gateway.recover().await.unwrap(), 1);
    let answer = rig.admit(&body).await.unwrap();
    let operation = OperationId::parse(&answer.operation).unwrap();
    let stands = rig.gateway.recorder.operation(operation).await.unwrap().unwrap().stands;
    let types: Vec<&str> = stands.iter().map(|Stands { resource_type, .. }| &**resource_type).collect();
    assert_eq!(types, ["Patient", "Observation", "Provenance"]);
}

/// What the upstream has is recorded whatever rules and policies say by now; what it does not have is not sent any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_refused_today_is_looked_for_and_not_sent() {
    let body = admission().replace(r#""identifier""#, r#""photo":[{"contentType":"image/png"}],"identifier""#);
    let changes = ["[check.unknown_terminology]\nrequired = \"refuse\"\n", "[consent.implicit]\ncollect = \"deny\"\n"];
    for (change, announced) in changes.into_iter().zip([2, 0]) {
        let (fake, rig) = begun("client-ids", Mode::BreaksAfter, &body, |_| ()).await;
        let rig = rig.restart_with(change).await;
        assert_eq!(rig.gateway.recover().await.unwrap(), 1, "{change}");
        assert_eq!(recorded(&rig).await, (2, announced), "{change}");
        assert_eq!(fake.writes(), 1, "{change}");

        let (fake, rig) = begun_within("2s", "client-ids", Mode::BreaksBefore, &body, |_| ()).await;
        let rig = rig.restart_with(change).await;
        assert_eq!(rig.gateway.recover().await.unwrap(), 0, "{change}");
        assert!(!staged_rows(&rig).await.is_empty(), "{change}: it may still arrive");
        let deadline = Instant::now() + Duration::from_mins(2);
        while !staged_rows(&rig).await.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(rig.gateway.recover().await.unwrap(), 0, "{change}");
        }
        assert_eq!((staged_rows(&rig).await.len(), fake.writes()), (0, 1), "{change}");
        assert_eq!(recorded(&rig).await, (0, 0), "{change}");
    }
}

/// Between stage and record nothing lies there in the clear, and who erases the patient erases the unit.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_staged_is_sealed_and_goes_with_its_subject() {
    let fake = Fake::start().await;
    let rig = Rig::with(&settings(&fake, "client-ids")).await;
    let answer = rig.admit(&admission()).await.unwrap();
    let recorder = &rig.gateway.recorder;
    let patient = recorder.read_current("Patient", &answer.entries[0].id).await.unwrap().unwrap();
    fake.turn(Mode::BreaksAfter);
    let body = admission().replace("\"text\":\"x\"", "\"text\":\"CANARY\"");
    assert!(rig.admit(&body).await.is_err());
    let rows = recorder.store().scan(Table::Staged, KeyRange::prefix(vec![0]).before(vec![3]), 9, Direction::Up);
    let rows = rows.await.unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        for clear in ["CANARY", "Patient", "urn:a"] {
            assert!(!row.value.windows(clear.len()).any(|it| it == clear.as_bytes()), "{clear}");
        }
    }
    fake.turn(Mode::Works);
    recorder.vault().destroy(&patient.about.subjects[0].0).unwrap();
    assert_eq!(rig.gateway.recover().await.unwrap(), 0);
    assert_eq!(staged_rows(&rig).await, [0_u8; 0]);
}

/// Two entries at one place can't be recorded, however often it is tried: an operator decides.
#[tokio::test(flavor = "multi_thread")]
async fn two_entries_in_one_place_are_parked() {
    let other = PATIENT.replace("000000000001", "000000000009").replace("\"7\"", "\"8\"");
    let body = transaction(&[PATIENT, &other]);
    for resolve in ["client-ids", "tag-probe", "park"] {
        let (fake, rig) = begun(resolve, Mode::Doubles, &body, |_| ()).await;
        for _ in 0..2 {
            assert_eq!(rig.gateway.recover().await.unwrap(), 0, "{resolve}");
            let (parked, _) = rig.gateway.parked(9).await.unwrap();
            assert_eq!(parked.len(), 1, "{resolve}");
            assert!(parked[0].why.contains("one place"), "{resolve}: {}", parked[0].why);
        }
        assert_eq!((fake.writes(), recorded(&rig).await), (1, (0, 0)), "{resolve}");
        let (parked, _) = rig.gateway.parked(9).await.unwrap();
        let place = |id: &str| Found { resource_type: "Patient".to_owned(), id: id.to_owned(), version: None };
        let found = rig.gateway.decide(parked[0].operation, Ruling::Found(vec![place("a"), place("a")])).await;
        assert_eq!(found.unwrap_err().kind().face().status, 422, "{resolve}");
    }
}

/// A unit comes again, and is found to have no answer; before it is staged, the first one is recovered.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_recovered_while_it_comes_again_is_not_sent_again() {
    for resolve in ["client-ids", "tag-probe"] {
        let (fake, rig) = begun(resolve, Mode::BreaksAfter, &admission(), |_| ()).await;
        let Gateway { mappings, rules, door, stage, recorder, .. } = &*rig.gateway;
        let normalized = normalize::unit(rig.received(context(), &admission()).unwrap(), mappings).unwrap();
        let Known::New(twin) = recorder.known(&normalized).await.unwrap() else { panic!("it has no answer yet") };
        let Verdict::Permitted(permitted) = permit(check::unit(normalized, rules).await.unwrap(), door).await.unwrap()
        else {
            panic!("it may be collected");
        };
        assert_eq!(rig.gateway.recover().await.unwrap(), 1, "{resolve}");
        let refused = sluice::stage::unit(permitted, twin, stage).await.unwrap_err();
        assert_eq!(refused.kind().face().status, 504, "{resolve}");
        let answer = rig.admit(&admission()).await.unwrap();
        assert!(
            fake.held.lock().unwrap().stands.contains_key(&format!("Patient/{}", answer.entries[0].id)),
            "{resolve}"
        );
        assert_eq!((fake.writes(), fake.count("Patient")), (1, 1), "{resolve}");
        assert_eq!(staged_rows(&rig).await, [0_u8; 0], "{resolve}");
    }
}

/// What its subjects say can't be known for a moment, after the upstream has said yes: each subscriber is asked once it
/// can.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_undecidable_for_a_moment_is_announced_later() {
    let fake = Fake::start().await;
    let rig = Rig::with(&settings(&fake, "park")).await;
    let Gateway { mappings, rules, door, stage, upstream, recorder, .. } = &*rig.gateway;
    let normalized = normalize::unit(rig.received(context(), &admission()).unwrap(), mappings).unwrap();
    let Verdict::Permitted(permitted) = permit(check::unit(normalized, rules).await.unwrap(), door).await.unwrap()
    else {
        panic!("it may be collected");
    };
    let subject = permitted.basis()[0].subject;
    let staged = sluice::stage::unit(permitted, None, stage).await.unwrap();
    let answered = sluice::forward::unit(staged, upstream).await.unwrap();
    // A record of which nobody has the openings.
    let unserved = Record { version: 7, state: State::Active, root: [9; 32] };
    door.mirror().write().unwrap().put(subject, unserved);
    sluice::record::unit(&answered, recorder, door).await.unwrap();
    assert_eq!(recorded(&rig).await, (2, 2), "recorded, and to be announced");
    let subscriber = Subscriber {
        id: "insurer".into(),
        institution: "insurer".into(),
        role: None,
        purpose: "HPAYMT".into(),
        member_of: Vec::new(),
        domain: "care".into(),
        resource_types: Vec::new(),
        payload: Payload::IdOnly,
        granularity: Granularity::Resource,
        wait: Wait::Log,
    };
    let router = Router { subscribers: vec![subscriber].into(), source: "https://a.example/fhir".into() };
    for _ in 0..2 {
        let progress = router.pass(recorder, door).await.unwrap();
        assert_eq!((progress.done, progress.waiting), (0, 2), "it waits");
    }
    // The ledger itself knows of no such record, and nobody has decided anything.
    let rig = rig.restart_with("[consent.implicit]\ndisclose = \"permit\"\n").await;
    let progress = router.pass(&rig.gateway.recorder, &rig.gateway.door).await.unwrap();
    assert_eq!((progress.done, progress.waiting, progress.events), (2, 0, 2), "and is announced");
}

/// An upstream that gives one place to patient after patient, as one does that was set back: what stands there is about
/// all of them, and once they are too many, about nobody who can be asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_too_many_have_borne_is_nobody_s() {
    let fake = Fake::start().await;
    let mappings = format!("{}/mappings/identifiers/us.json", env!("CARGO_MANIFEST_DIR"));
    let rig = Rig::with(&format!("[normalize]\nmappings = [\"{mappings}\"]\n{}", settings(&fake, "tag-probe"))).await;
    for patients in 1..=10 {
        fake.held.lock().unwrap().next = 0;
        let number = format!("99900000{patients:02}");
        let patient =
            PATIENT.replace("urn:a", "http://hl7.org/fhir/sid/us-ssn").replace("\"7\"", &format!("\"{number}\""));
        let answer = rig.admit(&transaction(&[&patient, OBSERVATION])).await.unwrap();
        assert_eq!((&*answer.entries[0].id, &*answer.entries[1].id), ("up-1", "up-2"));
        for (resource_type, id) in [("Patient", "up-1"), ("Observation", "up-2")] {
            let stands = rig.gateway.recorder.read_current(resource_type, id).await.unwrap().unwrap().about;
            // The ninth is about all nine; by then the name is nobody's.
            let expected = if patients < 10 { (false, patients) } else { (true, 0) };
            assert_eq!((stands.unattributed, stands.subjects.len()), expected, "{resource_type} of patient {patients}");
        }
    }
}
