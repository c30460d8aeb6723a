//! An event of several resources of which one may not be told any more: the others still are.

use serde_json::json as value;

use super::faults::FAULTS;
use super::*;

/// What the patient says after all: the insurer is told, but not of this Observation.
async fn but_not(flow: &Flow, patient: &str, id: &str) {
    let mut consent = consent(patient, "permit");
    let data = value!([{"meaning": "instance", "reference": {"reference": format!("Observation/{id}")}}]);
    consent["provision"]["provision"] = value!([{"type": "deny", "data": data}]);
    flow.post(&[entry(&consent)]).await;
    let head = flow.rig.ledger.seal().await.unwrap();
    while flow.rig.gateway.door.mirror().read().unwrap().height() < head.height {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Three Observations of one unit and a later one, all routed.
async fn three() -> Flow {
    let granularity = Granularity::Unit;
    let flow = Flow::with(Subscriber { granularity, ..subscriber(Wait::Log) }, &["p"], &[]).await;
    flow.post(&["1", "2", "3"].map(|id| observation(id, "p"))).await;
    flow.post(&[observation("4", "p")]).await;
    assert_eq!(flow.route().await.events, 2);
    flow
}

async fn settled(flow: &Flow) {
    while flow.rig.log.sequence().await.unwrap() > 0 {}
}

fn resources(message: &Message) -> Vec<String> {
    let event = json(message);
    let entries = event["data"]["entry"].as_array().unwrap()[1..].to_vec();
    entries.iter().map(|it| it["fullUrl"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_still_be_told_goes_in_the_place_of_the_whole() {
    let flow = three().await;
    but_not(&flow, "p", "2").await;
    let before = flow.rows(Table::LeafPending).await;
    let progress = flow.publish().await;
    assert_eq!(
        (progress.sent, progress.waiting),
        (0, 2),
        "its new leaf is not in the log, and what is behind it waits"
    );
    assert!(flow.broker.tries().is_empty());
    assert_eq!(flow.rows(Table::LeafPending).await - before, 2, "the one that cancels, and the new one's own");
    settled(&flow).await;
    assert_eq!(flow.publish().await.sent, 2);
    let taken = flow.broker.taken();
    assert_eq!(taken.iter().map(resources).collect::<Vec<_>>(), [vec!["1", "3"], vec!["4"]]);
    assert_eq!(sequences(&taken), [1, 2]);
    for message in &taken {
        let verdict = verify(&message.body, &flow.trust());
        assert!(verdict.verified, "{:?}", verdict.broken_link);
        let event = json(message);
        assert_eq!(event["proof"]["decision"]["door"], "route", "nothing shows that there was another");
        assert!(!event.to_string().contains("Observation/2"));
        let members = |it: &serde_json::Value| it.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(members(&event), members(&json(&taken[1])));
        assert_eq!(members(&event["proof"]["decision"]), members(&json(&taken[1])["proof"]["decision"]));
    }
    assert_eq!(flow.rows(Table::Outbox).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_that_may_not_be_told_ends_it() {
    let flow = three().await;
    but_not(&flow, "p", "2").await;
    flow.publish().await;
    settled(&flow).await;
    flow.give("p", "deny").await;
    let progress = flow.publish().await;
    assert_eq!((progress.sent, progress.cancelled), (0, 2));
    assert_eq!(flow.rows(Table::Outbox).await, 0);
    assert!(flow.broker.tries().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_it_is_replaced_loses_nothing() {
    for fault in FAULTS {
        let flow = three().await;
        but_not(&flow, "p", "2").await;
        flow.dying((1, fault)).await;
        assert!(flow.broker.tries().is_empty());
        for _ in 0..2 {
            flow.publish().await;
            settled(&flow).await;
        }
        flow.publish().await;
        let taken = flow.broker.taken();
        assert_eq!(taken.iter().map(resources).collect::<Vec<_>>(), [vec!["1", "3"], vec!["4"]], "{fault:?}");
        assert_eq!(sequences(&taken), [1, 2], "{fault:?}");
    }
}

/// A broker that may have the whole event: its number is not given to another.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_sent_keeps_its_number() {
    let flow = three().await;
    flow.broker.says(&[Err(PublishError::Unconfirmed)]);
    assert_eq!(flow.publish().await.sent, 0);
    let first = flow.broker.tries().remove(0);
    but_not(&flow, "p", "2").await;
    flow.publish().await;
    settled(&flow).await;
    assert_eq!(flow.publish().await.sent, 2);
    let taken = flow.broker.taken();
    assert_eq!((sequences(std::slice::from_ref(&first)), sequences(&taken)), (vec![1], vec![2, 3]));
    assert_ne!(first.id, taken[0].id, "another event");
}
