//! What the settings of consent do where subscribers are told: at route, and at the moment of sending.

use serde_json::json;

use super::*;

/// A Consent of this id and date, about the insurer.
fn dated(id: &str, kind: &str, date: &str) -> String {
    let mut resource = consent("p", kind);
    resource["id"] = id.into();
    resource["dateTime"] = date.into();
    entry(&resource)
}

async fn sealed(flow: &Flow) {
    let head = flow.rig.ledger.seal().await.unwrap();
    while flow.rig.gateway.door.mirror().read().unwrap().height() < head.height {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn patient() -> String {
    entry(&json!({"resourceType": "Patient", "id": "p"}))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_recent_consent_decides_at_route_and_at_sending_where_the_settings_say_so() {
    for (combine, told) in [("most-recent", 1), ("deny-overrides", 0)] {
        let flow = Flow::open(subscriber(Wait::Log), &format!("[consent]\ncombine = \"{combine}\"\n")).await;
        flow.post(&[patient(), dated("c1", "deny", "2020-01-01"), dated("c2", "permit", "2021-01-01")]).await;
        sealed(&flow).await;
        flow.post(&[observation("o1", "p")]).await;
        assert_eq!(flow.route().await.events, told, "{combine}");
        assert_eq!(flow.publish().await.sent, told, "{combine}");
        // One that was routed and is denied before it is sent.
        flow.post(&[observation("o2", "p")]).await;
        assert_eq!(flow.route().await.events, told, "{combine}");
        flow.post(&[dated("c3", "deny", "2022-01-01")]).await;
        sealed(&flow).await;
        assert_eq!((flow.publish().await.sent, flow.rows(Table::Outbox).await), (0, 0), "{combine}");
        // And one that a permit of last year does not bring back, but one of today does.
        flow.post(&[dated("c4", "permit", "2021-06-01"), observation("o3", "p")]).await;
        sealed(&flow).await;
        assert_eq!(flow.route().await.events, 0, "{combine}");
        flow.post(&[dated("c5", "permit", "2023-01-01")]).await;
        sealed(&flow).await;
        flow.post(&[observation("o4", "p")]).await;
        assert_eq!(flow.route().await.events, told, "{combine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_holds_nothing_back_at_route_and_at_sending() {
    let flow = Flow::open(subscriber(Wait::Log), "[consent]\nmode = \"observe\"\n").await;
    flow.post(&[patient(), observation("o1", "p")]).await;
    assert_eq!(flow.route().await.events, 1, "where no Consent speaks");
    flow.give("p", "deny").await;
    assert_eq!(flow.publish().await.sent, 1, "denied since it was routed");
    flow.post(&[observation("o2", "p")]).await;
    assert_eq!((flow.route().await.events, flow.publish().await.sent), (1, 1));
    let counted = flow.rig.gateway.door.observer().scrape(true);
    assert!(counted.contains("door=\"route\",decision=\"deny\"} 2"), "it is counted as what it was:\n{counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_state_of_the_ledger_tells_nobody_and_loses_nothing() {
    let old = "[consent]\nmax_staleness = \"2s\"\nskew = \"1s\"\nself_test_interval = \"1s\"\n";
    let mut flow = Flow::open(subscriber(Wait::Log), old).await;
    flow.post(&[patient()]).await;
    flow.give("p", "permit").await;
    flow.post(&[observation("o1", "p")]).await;
    assert_eq!(flow.route().await.events, 1);
    flow.post(&[observation("o2", "p")]).await;
    // The mirror hears no more of the ledger.
    flow.rig.watching.abort_all();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let progress = flow.route().await;
    assert_eq!((progress.events, progress.waiting > 0), (0, true));
    assert_eq!(flow.publish().await.sent, 0);
    assert_eq!(flow.rows(Table::Outbox).await, 1, "it waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_collected_goes_on_unannounced_where_the_settings_say_so() {
    let settings = "[consent]\non_intake_deny = \"forward-unannounced\"\n";
    let flow = Flow::open(subscriber(Wait::Log), settings).await;
    flow.post(&[patient()]).await;
    flow.give("p", "permit").await;
    let mut no_collecting = consent("p", "deny");
    no_collecting["id"] = "no-collecting".into();
    no_collecting["provision"] = json!({"type": "deny", "action": [{"coding": [
        {"system": "http://terminology.hl7.org/CodeSystem/consentaction", "code": "collect"},
    ]}]});
    flow.post(&[entry(&no_collecting)]).await;
    sealed(&flow).await;
    flow.post(&[observation("o1", "p")]).await;
    let recorder = &flow.rig.gateway.recorder;
    assert!(recorder.read_current("Observation", "o1").await.unwrap().is_some(), "it is taken");
    assert_eq!((flow.route().await.events, flow.rows(Table::Outbox).await), (0, 0), "and nobody is told");
    // The insurer may be told of what may be collected.
    no_collecting["status"] = "inactive".into();
    flow.post(&[entry(&no_collecting)]).await;
    sealed(&flow).await;
    flow.post(&[observation("o2", "p")]).await;
    assert_eq!(flow.route().await.events, 1);
    // The default refuses.
    let flow = Flow::open(subscriber(Wait::Log), "").await;
    no_collecting["status"] = "active".into();
    flow.post(&[patient(), entry(&no_collecting)]).await;
    sealed(&flow).await;
    let refused = flow.rig.admit(&transaction(&[observation("o1", "p")])).await.unwrap_err();
    assert_eq!(refused.kind().face().status, 403);
}
