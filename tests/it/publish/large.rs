//! Size: no unit that was accepted is too large to be routed, and no event too large to be sent.

use std::collections::BTreeMap;

use serde_json::json as value;
use sluice::record::leaf::Opening;
use sluice::route::event;
use sluice::store::vault::place;

use super::faults::FAULTS;
use super::order::OPEN;
use super::*;
use crate::story;

/// An Observation with so many bytes of notes.
fn long(id: &str, patient: &str, bytes: usize) -> serde_json::Value {
    let mut resource = story::observation(id, &[patient]);
    let notes: Vec<_> =
        (0..bytes.div_ceil(500_000)).map(|_| value!({"text": "x".repeat(bytes.min(500_000))})).collect();
    resource["note"] = notes.into();
    resource
}

/// Subscribers who get the whole of everything.
fn whole(count: usize) -> Vec<Subscriber> {
    let of = |at| Subscriber {
        id: format!("insurer-{at}"),
        payload: Payload::Full,
        granularity: Granularity::Unit,
        ..subscriber(Wait::Log)
    };
    (1..=count).map(of).collect()
}

/// What each subscriber was told, in order: the ids of the Observations of each event, and its number.
fn heard(flow: &Flow) -> BTreeMap<String, Vec<(Vec<String>, u64)>> {
    let mut heard: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for message in flow.broker.taken() {
        let event = json(&message);
        let entries = event["data"]["entry"].as_array().unwrap()[1..].iter();
        let ids = entries.map(|it| it["fullUrl"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect();
        let sequence = event["delivery"]["sequence"].as_u64().unwrap();
        heard.entry(message.subscriber.clone()).or_default().push((ids, sequence));
    }
    heard
}

/// Everybody has heard of exactly this.
fn all_heard(flow: &Flow, subscribers: usize, expected: &[(&[&str], u64)]) {
    let expected: Vec<(Vec<String>, u64)> =
        expected.iter().map(|(ids, number)| (ids.iter().map(ToString::to_string).collect(), *number)).collect();
    let heard = heard(flow);
    assert_eq!(heard.len(), subscribers);
    for (subscriber, events) in heard {
        assert_eq!(events, expected, "{subscriber}");
    }
}

/// The numbers of all leaves about a patient: none is missing, and none is there twice.
async fn no_gap_in_the_leaves(flow: &Flow, patient: &str, resources: &[(&str, &str)]) {
    let recorder = &flow.rig.gateway.recorder;
    let subject = recorder.read_current("Patient", patient).await.unwrap().unwrap().about.subjects[0].hex();
    let mut openings: Vec<Opening> = Vec::new();
    for (resource_type, id) in resources.iter().chain(&[("Patient", patient)]) {
        openings.push(recorder.read_current(resource_type, id).await.unwrap().unwrap().about.opening);
    }
    for row in recorder.store().scan(Table::Opening, KeyRange::all(), 10_000, Direction::Up).await.unwrap() {
        let plain = recorder.vault().open(&place(Table::Opening, &row.key), &row.value).unwrap();
        openings.push(serde_json::from_slice(&plain).unwrap());
    }
    let mut numbers: Vec<u64> =
        openings.iter().flat_map(|it| &it.subjects).filter(|it| it.subject == subject).map(|it| it.n).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_one_commit_goes_to_everybody_once() {
    let flow = Flow::telling(whole(40), OPEN).await;
    let patients = ["p", "q"].map(|id| entry(&story::patient(id)));
    flow.post(&patients).await;
    // 2 MB for each of forty: more than twice what the store takes at a time.
    flow.post(&["1", "2", "3", "4"].map(|id| entry(&long(id, "p", 500_000)))).await;
    flow.post(&[observation("5", "p"), observation("6", "q")]).await;
    let progress = flow.route().await;
    assert_eq!(progress.waiting, 0);
    assert_eq!(flow.rows(Table::Work).await, 0);
    while flow.publish().await.waiting > 0 {}
    let heard = heard(&flow);
    assert_eq!(heard.len(), 40);
    for (subscriber, events) in heard {
        let of = |it: &[&str]| -> Vec<String> {
            let about = |(ids, _): &(Vec<String>, u64)| it.contains(&&*ids[0]);
            events.iter().filter(|it| about(it)).flat_map(|(ids, _)| ids.clone()).collect()
        };
        assert_eq!(of(&["1", "2", "3", "4", "5"]), ["1", "2", "3", "4", "5"], "{subscriber}: {events:?}");
        assert_eq!(of(&["6"]), ["6"], "{subscriber}");
    }
    assert_eq!(flow.rows(Table::Outbox).await + flow.rows(Table::Event).await, 0, "nothing is left of them");
    let observations = ["1", "2", "3", "4", "5"].map(|id| ("Observation", id));
    no_gap_in_the_leaves(&flow, "p", &observations).await;
    assert!(flow.broker.taken().iter().step_by(17).all(|it| verify(&it.body, &flow.trust()).verified));
}

/// A process that dies between two commits of one piece of work: who had it does not get it again, and the others get it.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_parts_tells_nobody_twice() {
    let flow = Flow::telling(whole(20), OPEN).await;
    flow.post(&[entry(&story::patient("p"))]).await;
    flow.route().await;
    let mut expected: Vec<(Vec<String>, u64)> = Vec::new();
    for (commit, fault) in (1..=3).flat_map(|commit| FAULTS.map(|fault| (commit, fault))) {
        let id = format!("o{}", expected.len());
        flow.post(&[entry(&long(&id, "p", 900_000))]).await;
        flow.dying_in_route((commit, fault)).await;
        assert!(flow.rows(Table::Work).await > 0 || (commit, fault) == (3, FAULTS[1]), "{commit} {fault:?}");
        assert_eq!(flow.route().await.waiting, 0);
        assert_eq!(flow.rows(Table::Work).await, 0);
        while flow.publish().await.waiting > 0 {}
        expected.push((vec![id], expected.len() as u64 + 1));
    }
    let expected: Vec<(Vec<&str>, u64)> =
        expected.iter().map(|(ids, number)| (ids.iter().map(String::as_str).collect(), *number)).collect();
    let expected: Vec<(&[&str], u64)> = expected.iter().map(|(ids, number)| (&ids[..], *number)).collect();
    all_heard(&flow, 20, &expected);
}

/// What can't be decided stays alone, as far as its unit can be taken apart, and whole where it can't.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_large_unit_keeps_its_order() {
    for (large, first) in [(vec!["1", "2"], 24), (vec!["1"], 0)] {
        let subscribers: Vec<_> =
            whole(12).into_iter().map(|it| Subscriber { granularity: Granularity::Resource, ..it }).collect();
        let flow = Flow::telling(subscribers, "").await;
        for id in ["p", "q"] {
            flow.post(&[entry(&story::patient(id))]).await;
        }
        flow.give("p", "permit").await;
        flow.route().await;
        flow.post(&[entry(&consent("q", "permit"))]).await;
        let bytes = 900_000 / large.len();
        let mut unit = vec![observation("0", "q")];
        unit.extend(large.iter().map(|id| entry(&long(id, "p", bytes))));
        flow.post(&unit).await;
        flow.post(&[observation("9", "q"), observation("8", "p")]).await;
        let gateway = &flow.rig.gateway;
        let progress = flow.router.pass(&gateway.recorder, &gateway.door).await.unwrap();
        // On a slow machine the ledger's own beat may have come first: then nothing waits.
        assert!(progress.waiting == 0 || progress.events >= first, "{progress:?}");
        let head = flow.rig.ledger.seal().await.unwrap();
        while gateway.door.mirror().read().unwrap().height() < head.height {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(flow.route().await.waiting, 0);
        while flow.publish().await.waiting > 0 {}
        for (subscriber, events) in heard(&flow) {
            let of = |ids: &[&str]| -> Vec<String> {
                events.iter().filter(|(it, _)| ids.contains(&&*it[0])).map(|(it, _)| it[0].clone()).collect()
            };
            let of_p: Vec<&str> = large.iter().copied().chain(["8"]).collect();
            assert_eq!(of(&of_p), of_p, "{subscriber}");
            assert_eq!(of(&["0", "9"]), ["0", "9"], "{subscriber}");
            assert_eq!(events.len(), large.len() + 3, "{subscriber}");
        }
    }
}

/// Rather than parked, what no broker would take is told without its resources, and says so; what comes behind it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_broker_takes_is_told_by_reference() {
    let own = jsonschema::validator_for(&serde_json::from_str(event::SCHEMA).unwrap()).unwrap();
    let flow = Flow::telling(whole(2), OPEN).await;
    flow.post(&[entry(&story::patient("p"))]).await;
    for (id, bytes) in [("14M", 14_000_000), ("17M", 17_000_000), ("small", 10)] {
        flow.post(&[entry(&long(id, "p", bytes))]).await;
    }
    flow.route().await;
    // A large one is tried again as any other.
    flow.broker.says(&[Err(PublishError::Nacked), Err(PublishError::Nacked)]);
    while flow.publish().await.waiting > 0 {}
    assert_eq!(flow.rows(Table::Parked).await, 0);
    all_heard(&flow, 2, &[(&["14M"], 1), (&["17M"], 2), (&["small"], 3)]);
    for message in flow.broker.taken() {
        let event = json(&message);
        let (shown, large) = (&event["data"]["entry"][1], event["data"].to_string().contains("/17M"));
        assert_eq!(shown["resource"].is_object(), !large);
        assert_eq!(event.get("omitted"), large.then(|| value!("too-large")).as_ref());
        let header = message.headers.iter().find(|(name, _)| name == "cloudEvents:omitted").map(|(_, it)| &**it);
        assert_eq!(header, large.then_some("too-large"));
        assert!(verify(&message.body, &flow.trust()).verified);
        assert!(own.is_valid(&event));
        assert_eq!(message.body.len() > 14_000_000, shown["fullUrl"].as_str().unwrap().ends_with("/14M"));
    }
}
