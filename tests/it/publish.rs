//! Events, without sockets: from a recorded resource to a verified event, through every verdict of a broker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use sluice::broker::{Broker, Message, PublishError, State};
use sluice::config::{Granularity, Payload, Subscriber, Wait};
use sluice::keys::SigningKey;
use sluice::publish::verify::{Link, Trust, TrustError, verify};
use sluice::publish::{Progress, Publisher, Resting};
use sluice::route::Router;
use sluice::store::{Direction, KeyRange, Table};

use crate::rig::{Rig, transaction};
use crate::story::consent;

mod body;
mod faults;
mod large;
mod narrow;
mod order;
mod settings;

/// A broker that gives the verdicts that it was told to, then takes everything.
#[derive(Default)]
struct Fake {
    verdicts: Mutex<VecDeque<Result<(), PublishError>>>,
    /// Every try, with its verdict.
    seen: Mutex<Vec<(Message, bool)>>,
}

impl Fake {
    fn says(&self, verdicts: &[Result<(), PublishError>]) {
        self.verdicts.lock().unwrap().extend(verdicts.iter().copied());
    }

    fn tries(&self) -> Vec<Message> {
        self.seen.lock().unwrap().iter().map(|(message, _)| message.clone()).collect()
    }

    fn taken(&self) -> Vec<Message> {
        self.seen.lock().unwrap().iter().filter(|(_, taken)| *taken).map(|(message, _)| message.clone()).collect()
    }
}

impl Broker for Fake {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), PublishError>> {
        let verdict = message.check().and_then(|()| self.verdicts.lock().unwrap().pop_front().unwrap_or(Ok(())));
        self.seen.lock().unwrap().push((message, verdict.is_ok()));
        async move { verdict }.boxed()
    }

    fn state(&self) -> State {
        State::Ready
    }

    fn ready(&self) -> BoxFuture<'_, State> {
        async { State::Ready }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

struct Flow {
    rig: Rig,
    broker: Arc<Fake>,
    router: Router,
    publisher: Publisher,
}

fn subscriber(wait: Wait) -> Subscriber {
    Subscriber {
        id: "insurer-1".into(),
        institution: "insurer".into(),
        role: None,
        purpose: "HPAYMT".into(),
        member_of: Vec::new(),
        domain: "care".into(),
        resource_types: vec!["Observation".into()],
        payload: Payload::IdOnly,
        granularity: Granularity::Resource,
        wait,
    }
}

impl Flow {
    async fn new(subscriber: Subscriber) -> Self {
        Self::open(subscriber, "").await
    }

    /// One with these sections of settings besides.
    async fn open(subscriber: Subscriber, settings: &str) -> Self {
        Self::telling(vec![subscriber], settings).await
    }

    /// One with these subscribers.
    async fn telling(subscribers: Vec<Subscriber>, settings: &str) -> Self {
        let rig = Rig::with(settings).await;
        let broker = Arc::new(Fake::default());
        let subscribers: Arc<[_]> = subscribers.into();
        let source: Arc<str> = "https://a.example/fhir".into();
        let router = Router { subscribers: Arc::clone(&subscribers), source: Arc::clone(&source) };
        let publisher = Publisher {
            log: Arc::clone(&rig.log),
            broker: Arc::clone(&broker) as Arc<dyn Broker>,
            subscribers,
            source,
            window: 8,
            attempts_max: 3,
            retry_wait: Duration::ZERO,
            resting: Resting::default(),
        };
        Self { rig, broker, router, publisher }
    }

    async fn post(&self, entries: &[String]) {
        self.rig.admit(&transaction(entries)).await.unwrap();
    }

    /// Lets, or no longer lets, the insurer be told of a patient, for payment.
    async fn give(&self, patient: &str, kind: &str) {
        self.post(&[entry(&consent(patient, kind))]).await;
        let head = self.rig.ledger.seal().await.unwrap();
        while self.rig.gateway.door.mirror().read().unwrap().height() < head.height {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn route(&self) -> sluice::route::Progress {
        let gateway = &self.rig.gateway;
        let progress = self.router.pass(&gateway.recorder, &gateway.door).await.unwrap();
        while self.rig.log.sequence().await.unwrap() > 0 {}
        progress
    }

    async fn publish(&self) -> Progress {
        let gateway = &self.rig.gateway;
        self.publisher.pass(&gateway.recorder, &gateway.door).await.unwrap()
    }

    async fn rows(&self, table: Table) -> usize {
        let rows = self.rig.gateway.recorder.store().scan(table, KeyRange::all(), 1000, Direction::Up).await;
        rows.unwrap().len()
    }

    /// Patients who permit, and Observations of theirs, routed.
    async fn with(subscriber: Subscriber, patients: &[&str], observations: &[(&str, &str)]) -> Self {
        let flow = Self::new(subscriber).await;
        for id in patients {
            flow.post(&[entry(&serde_json::json!({"resourceType": "Patient", "id": id}))]).await;
            flow.give(id, "permit").await;
        }
        for (id, patient) in observations {
            flow.post(&[observation(id, patient)]).await;
        }
        assert_eq!(flow.route().await.events, observations.len());
        flow
    }

    fn trust(&self) -> Trust {
        Trust::parse(self.trust_file().to_string().as_bytes()).unwrap()
    }

    fn trust_file(&self) -> serde_json::Value {
        let keys = self.rig.gateway.recorder.keys();
        let ledger = sluice::ledger::proof::Trust {
            ledger: sluice::ledger::Origin::parse("ledger.example/consortium").unwrap(),
            key: keys.public_key(SigningKey::Institution),
        };
        serde_json::json!({
            "logs": [{"origin": "hospital-a/log", "key": self.rig.log.verifier_key().to_string()}],
            "events": [{"source": "https://a.example/fhir", "key": STANDARD.encode(keys.public_key(SigningKey::Event))}],
            "ledger": {"origin": "ledger.example/consortium", "key": ledger.verifier_key().unwrap().to_string()},
        })
    }
}

fn entry(resource: &serde_json::Value) -> String {
    let url = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
    serde_json::json!({"resource": resource, "request": {"method": "PUT", "url": url}}).to_string()
}

fn observation(id: &str, patient: &str) -> String {
    entry(&serde_json::json!({
        "resourceType": "Observation", "id": id, "status": "final", "code": {"text": "CANARY"},
        "subject": {"reference": format!("Patient/{patient}")},
    }))
}

fn json(message: &Message) -> serde_json::Value {
    serde_json::from_slice(&message.body).unwrap()
}

/// The ids of the Observations that events are about, in order.
fn about(messages: &[Message]) -> Vec<String> {
    let url = |it: &Message| json(it)["data"]["entry"][1]["fullUrl"].as_str().unwrap().to_owned();
    messages.iter().map(|it| url(it).rsplit('/').next().unwrap().to_owned()).collect()
}

fn sequences(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|it| json(it)["delivery"]["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permitted_event_is_sent_once_and_verifies() {
    let flow = Flow::with(subscriber(Wait::Log), &["p"], &[("o", "p")]).await;
    assert_eq!(flow.publish().await.sent, 1);
    assert_eq!(flow.publish().await, Progress::default(), "nothing is sent twice");
    let sent = flow.broker.taken();
    assert_eq!(sent[0].routing_key, "v1.insurer-1.care.observation.create");
    let verdict = verify(&sent[0].body, &flow.trust());
    assert_eq!((verdict.verified, verdict.assurance.as_deref()), (true, Some("self")), "{:?}", verdict.broken_link);
    let text = String::from_utf8(sent[0].body.to_vec()).unwrap();
    assert!(!text.contains("CANARY") && !text.contains("Patient/"), "an id-only event holds nothing of the record");
    assert_eq!(flow.rows(Table::Outbox).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_permit_there_is_a_leaf_and_no_event() {
    let flow = Flow::new(subscriber(Wait::Log)).await;
    flow.post(&[entry(&serde_json::json!({"resourceType": "Patient", "id": "p"})), observation("o", "p")]).await;
    let before = flow.rows(Table::LeafPending).await;
    let gateway = &flow.rig.gateway;
    let progress = flow.router.pass(&gateway.recorder, &gateway.door).await.unwrap();
    assert_eq!((progress.events, progress.waiting), (0, 0));
    assert_eq!(flow.rows(Table::LeafPending).await - before, 1, "the denial of the Observation");
    assert_eq!(flow.rows(Table::Outbox).await, 0);
}

/// A hospital that files a Consent and sends a record at once: the record is not decided on by what held before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_permitted_and_not_final_waits_and_is_not_lost() {
    let flow = Flow::new(subscriber(Wait::Log)).await;
    flow.post(&[entry(&serde_json::json!({"resourceType": "Patient", "id": "p"}))]).await;
    let patient = entry(&consent("p", "permit"));
    flow.post(&[patient]).await;
    flow.post(&[observation("o", "p")]).await;
    let gateway = &flow.rig.gateway;
    let progress = flow.router.pass(&gateway.recorder, &gateway.door).await.unwrap();
    assert_eq!((progress.events, progress.waiting), (0, 1), "neither told nor denied");
    let head = flow.rig.ledger.seal().await.unwrap();
    while gateway.door.mirror().read().unwrap().height() < head.height {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(flow.route().await.events, 1);
    assert_eq!(flow.publish().await.sent, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_waits_for_the_ledger_carries_its_receipt() {
    let flow = Flow::with(subscriber(Wait::Ledger), &["p"], &[("o", "p")]).await;
    assert_eq!(flow.publish().await.sent, 0, "no checkpoint with the leaf is on the ledger");
    flow.rig.log.anchor(&*flow.rig.ledger).await.unwrap();
    assert_eq!(flow.publish().await.sent, 1);
    let event = &flow.broker.taken()[0];
    assert!(verify(&event.body, &flow.trust()).verified);
    let mut without = json(event);
    without["proof"]["receipt"] = serde_json::Value::Null;
    assert_eq!(verify(without.to_string().as_bytes(), &flow.trust()).broken_link, Some(Link::Receipt));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_between_route_and_recheck_cancels() {
    let flow = Flow::with(subscriber(Wait::Log), &["p"], &[("o", "p")]).await;
    flow.give("p", "deny").await;
    let before = flow.rows(Table::LeafPending).await;
    let progress = flow.publish().await;
    assert_eq!((progress.sent, progress.cancelled), (0, 1));
    assert!(flow.broker.tries().is_empty(), "nothing is sent");
    assert_eq!(flow.rows(Table::LeafPending).await - before, 1, "a leaf says so");
    // The next event of the patient has the first number: the subscriber can't tell that there was another.
    flow.give("p", "permit").await;
    flow.post(&[observation("o2", "p")]).await;
    flow.route().await;
    assert_eq!(flow.publish().await.sent, 1);
    assert_eq!(sequences(&flow.broker.taken()), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_two_faults_in_a_row_keep_order_id_and_number() {
    let faults = [PublishError::Nacked, PublishError::Unconfirmed, PublishError::Unavailable];
    let flow = Flow::with(subscriber(Wait::Log), &["p"], &[]).await;
    let mut posted = 0;
    for first in faults {
        for second in faults {
            let before = flow.broker.taken().len();
            for _ in 0..3 {
                posted += 1;
                flow.post(&[observation(&format!("o{posted}"), "p")]).await;
            }
            flow.route().await;
            flow.broker.says(&[Ok(()), Err(first), Err(second)]);
            let tried = flow.broker.tries().len();
            assert_eq!(flow.publish().await.sent, 1, "the lane stops where the broker did not confirm");
            assert_eq!(flow.publish().await.sent, 0);
            assert_eq!(flow.publish().await.sent, 2);
            let tries = flow.broker.tries()[tried..].to_vec();
            let same: Vec<_> =
                tries[1..4].iter().map(|it| (it.id.clone(), sequences(std::slice::from_ref(it)))).collect();
            assert!(same.iter().all(|it| *it == same[0]), "{first:?} {second:?}: the same id and number");
            assert_eq!(flow.broker.taken().len() - before, 3);
        }
    }
    let taken = flow.broker.taken();
    assert_eq!(about(&taken), (1..=posted).map(|it| format!("o{it}")).collect::<Vec<_>>());
    assert_eq!(sequences(&taken), (1..=posted).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_parks_its_lane_and_no_other() {
    let flow =
        Flow::with(subscriber(Wait::Log), &["p", "q"], &[("p1", "p"), ("p2", "p"), ("q1", "q"), ("q2", "q")]).await;
    flow.broker.says(&[Err(PublishError::Returned { reply_code: 312 })]);
    let progress = flow.publish().await;
    assert_eq!((progress.parked, progress.sent, progress.waiting), (1, 2, 1));
    let taken = about(&flow.broker.taken());
    assert!(taken == ["p1", "p2"] || taken == ["q1", "q2"], "{taken:?}");
    assert_eq!(flow.publish().await.sent, 0, "a parked lane stays");
    assert_eq!((flow.rows(Table::Parked).await, flow.rows(Table::Outbox).await), (1, 2));
}

/// A crash after the commit of recheck and before the mark: the row is as that commit left it.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_mark_sends_the_same_event_again() {
    /// A broker whose caller dies while it has the message.
    struct Dying(Fake);
    impl Broker for Dying {
        fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), PublishError>> {
            let taken = self.0.publish(message);
            async move {
                let _ = taken.await;
                std::future::pending().await
            }
            .boxed()
        }
        fn state(&self) -> State {
            State::Ready
        }
        fn ready(&self) -> BoxFuture<'_, State> {
            self.0.ready()
        }
        fn close(&self) -> BoxFuture<'_, ()> {
            self.0.close()
        }
    }
    let flow = Flow::with(subscriber(Wait::Log), &["p"], &[("o", "p")]).await;
    let dying = Arc::new(Dying(Fake::default()));
    let publisher = Publisher { broker: Arc::clone(&dying) as Arc<dyn Broker>, ..flow.publisher.clone() };
    let gateway = &flow.rig.gateway;
    let pass = publisher.pass(&gateway.recorder, &gateway.door);
    tokio::select! {
        _ = pass => panic!("it was told what became of the event"),
        () = async {
            while dying.0.taken().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        } => {}
    }
    let lost = dying.0.taken();
    assert_eq!(flow.publish().await.sent, 1);
    let again = flow.broker.taken();
    assert_eq!(lost[0].id, again[0].id);
    assert_eq!(sequences(&lost), sequences(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_changed_bit_is_found() {
    for wait in [Wait::Log, Wait::Ledger] {
        let flow = Flow::with(subscriber(wait), &["p"], &[("o", "p")]).await;
        flow.rig.log.anchor(&*flow.rig.ledger).await.unwrap();
        assert_eq!(flow.publish().await.sent, 1);
        let event: Bytes = flow.broker.taken()[0].body.clone();
        let trust = flow.trust();
        assert!(verify(&event, &trust).verified);
        for at in 0..event.len() {
            for bit in 0..8 {
                let mut changed = event.to_vec();
                changed[at] ^= 1 << bit;
                let context = String::from_utf8_lossy(&event[at.saturating_sub(20)..event.len().min(at + 20)]);
                assert!(!verify(&changed, &trust).verified, "{wait:?} byte {at} bit {bit} near {context}");
            }
        }
        proptest!(ProptestConfig::with_cases(2000), |(at in 0..event.len(), byte: u8)| {
            let mut changed = event.to_vec();
            prop_assume!(changed[at] != byte);
            changed[at] = byte;
            prop_assert!(!verify(&changed, &trust).verified);
            prop_assert!(!verify(&event[..at], &trust).verified);
        });
        // The trace alone stands outside.
        let mut traced = json(&flow.broker.taken()[0]);
        traced["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        assert!(verify(traced.to_string().as_bytes(), &trust).verified);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_keys_do_not_verify_and_no_keys_are_an_error() {
    let flow = Flow::with(subscriber(Wait::Log), &["p"], &[("o", "p")]).await;
    flow.publish().await;
    let event = flow.broker.taken()[0].body.clone();
    let stranger = Flow::new(subscriber(Wait::Log)).await;
    assert_eq!(verify(&event, &stranger.trust()).broken_link, Some(Link::Checkpoint));
    let mut file = flow.trust_file();
    file["events"] = stranger.trust_file()["events"].clone();
    let trust = Trust::parse(file.to_string().as_bytes()).unwrap();
    assert_eq!(verify(&event, &trust).broken_link, Some(Link::Delivery));
    file["events"] = serde_json::json!([]);
    assert_eq!(Trust::parse(file.to_string().as_bytes()).unwrap_err(), TrustError::Empty);
}
