//! Lanes: the order of each patient, whatever a broker says and however slow one of them is.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use sluice::publish::parked;
use tokio::sync::Notify;

use super::*;
use crate::story;

/// Everybody may be told, so that a test is about the order alone.
pub(super) const OPEN: &str = "[consent.implicit]\ndisclose = \"permit\"\n";

/// A flow with these patients, whose events are tried for as long as it takes.
pub(super) async fn open(patients: &[&str]) -> Flow {
    let mut flow = Flow::open(subscriber(Wait::Log), OPEN).await;
    flow.publisher.attempts_max = u32::MAX;
    let entries: Vec<String> = patients.iter().map(|id| entry(&story::patient(id))).collect();
    flow.post(&entries).await;
    flow
}

pub(super) fn joint(id: &str, patients: &[&str]) -> String {
    entry(&story::observation(id, patients))
}

/// What came first of each id, in order; fails where something came again as something else.
pub(super) fn once(messages: &[Message]) -> Vec<Message> {
    let mut seen: HashMap<String, Message> = HashMap::new();
    let mut first = Vec::new();
    for message in messages {
        match seen.get(&message.id) {
            None => {
                seen.insert(message.id.clone(), message.clone());
                first.push(message.clone());
            }
            Some(before) => {
                assert_eq!(json(before)["delivery"], json(message)["delivery"], "a duplicate has the same number");
                assert_eq!(json(before)["data"], json(message)["data"]);
            }
        }
    }
    first
}

/// Holds what was taken against what was posted: all of it, in the order of each patient, numbered without a gap.
pub(super) fn in_order(taken: &[Message], posted: &[(String, Vec<&str>)]) {
    let taken = once(taken);
    let ids = about(&taken);
    assert_eq!(ids.len(), posted.len(), "{ids:?}");
    let patients: std::collections::BTreeSet<&str> = posted.iter().flat_map(|(_, about)| about.clone()).collect();
    for patient in patients {
        let of: Vec<&String> = posted.iter().filter(|(_, it)| it.contains(&patient)).map(|(id, _)| id).collect();
        let came: Vec<&String> = ids.iter().filter(|id| of.contains(id)).collect();
        assert_eq!(came, of, "the order of patient {patient}");
    }
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in &taken {
        let event = json(message);
        let sequence = event["delivery"]["sequence"].as_u64().unwrap();
        numbers.entry(event["subject"].to_string()).or_default().push(sequence);
    }
    for sequences in numbers.values() {
        assert_eq!(*sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_about_two_patients_has_its_place_in_the_order_of_both() {
    let flow = open(&["p", "q"]).await;
    let posted = [("1", vec!["p"]), ("2", vec!["q"]), ("3", vec!["p", "q"]), ("4", vec!["p"]), ("5", vec!["q"])];
    let posted = posted.map(|(id, about)| (id.to_owned(), about));
    for (id, about) in &posted {
        flow.post(&[joint(id, about)]).await;
    }
    assert_eq!(flow.route().await.events, 5);
    assert_eq!(flow.rows(Table::Outbox).await, 6, "the third stands in two lanes");
    // Whichever of the first two is tried first stays, and what is about both patients stays with it.
    flow.broker.says(&[Err(PublishError::Nacked)]);
    assert_eq!(flow.publish().await.sent, 1);
    let first = about(&flow.broker.taken());
    assert!(first == ["1"] || first == ["2"], "{first:?}");
    assert_eq!(flow.publish().await.sent, 4);
    in_order(&flow.broker.taken(), &posted);
    assert_eq!(flow.rows(Table::Outbox).await, 0);
    for message in flow.broker.taken() {
        assert!(verify(&message.body, &flow.trust()).verified);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_event_about_two_patients_frees_both_lanes() {
    let flow = Flow::with(subscriber(Wait::Log), &["p", "q"], &[]).await;
    flow.post(&[joint("both", &["p", "q"])]).await;
    flow.post(&[observation("one", "q")]).await;
    assert_eq!(flow.route().await.events, 2);
    flow.give("p", "deny").await;
    let progress = flow.publish().await;
    assert_eq!((progress.sent, progress.cancelled, progress.waiting), (1, 1, 0));
    assert_eq!(about(&flow.broker.taken()), ["one"]);
    assert_eq!(flow.rows(Table::Outbox).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_verdicts_keep_the_order_of_every_patient() {
    let patients = ["p", "q", "r"];
    let flow = open(&patients).await;
    let mut posted = Vec::new();
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..12 {
        for number in 0..8 {
            let mask = 1 + random(7);
            let about: Vec<&str> = (0..3).filter(|at| mask >> at & 1 == 1).map(|at: usize| patients[at]).collect();
            let id = format!("o{round}-{number}");
            flow.post(&[joint(&id, &about)]).await;
            posted.push((id, about));
        }
        flow.route().await;
        let verdicts: Vec<_> = (0..12)
            .map(|_| match random(5) {
                0 => Err(PublishError::Nacked),
                1 => Err(PublishError::Unconfirmed),
                2 => Err(PublishError::Unavailable),
                _ => Ok(()),
            })
            .collect();
        flow.broker.says(&verdicts);
        for _ in 0..random(6) {
            flow.publish().await;
        }
    }
    for _ in 0..200 {
        if flow.rows(Table::Outbox).await == 0 {
            break;
        }
        flow.publish().await;
    }
    in_order(&flow.broker.taken(), &posted);
}

/// A broker that keeps one event waiting until it is told not to.
#[derive(Default)]
struct Slow {
    fake: Fake,
    gate: Notify,
}

impl Broker for Slow {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), PublishError>> {
        async move {
            if about(std::slice::from_ref(&message)) == ["slow"] {
                self.gate.notified().await;
            }
            self.fake.publish(message).await
        }
        .boxed()
    }
    fn state(&self) -> State {
        State::Ready
    }
    fn ready(&self) -> BoxFuture<'_, State> {
        self.fake.ready()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.fake.close()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_lane_holds_up_no_other() {
    const PATIENTS: usize = 300;
    let names: Vec<String> = (0..PATIENTS).map(|number| format!("p{number}")).collect();
    let flow = open(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    flow.post(&[observation("slow", "p7")]).await;
    let all: Vec<String> = names.iter().map(|id| observation(&format!("o-{id}"), id)).collect();
    flow.post(&all).await;
    assert_eq!(flow.route().await.events, PATIENTS + 1);
    let slow = Arc::new(Slow::default());
    let broker = Arc::clone(&slow) as Arc<dyn Broker>;
    let publisher = Publisher { broker, window: 2, ..flow.publisher.clone() };
    let gateway = &flow.rig.gateway;
    let taken = async |count: usize| {
        let deadline = Instant::now() + Duration::from_mins(3);
        while slow.fake.taken().len() < count {
            assert!(Instant::now() < deadline, "{} of {count}", slow.fake.taken().len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (passed, ()) = tokio::join!(publisher.pass(&gateway.recorder, &gateway.door), async {
        // All others, in a window of two of which the slow one holds one.
        taken(PATIENTS - 1).await;
        // And what comes while the pass is still under way.
        flow.post(&[observation("late", "p3")]).await;
        flow.route().await;
        taken(PATIENTS).await;
        slow.gate.notify_one();
    });
    assert_eq!(passed.unwrap().sent, PATIENTS + 2);
    let ids = about(&slow.fake.taken());
    let place = |id: &str| ids.iter().position(|it| it == id).unwrap();
    assert!(place("slow") < place("o-p7"), "its own lane waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lets_a_parked_event_go_on_or_gives_it_up() {
    let flow = open(&["p"]).await;
    let recorder = &flow.rig.gateway.recorder;
    for id in ["1", "2", "3"] {
        flow.post(&[observation(id, "p")]).await;
    }
    flow.route().await;
    flow.broker.says(&[Err(PublishError::Returned { reply_code: 312 })]);
    assert_eq!(flow.publish().await.parked, 1);
    let list = parked::list(None, recorder).await.unwrap();
    let event = list[0].event.as_ref().unwrap();
    assert_eq!((list.len(), &*event.subscriber, event.attempts), (1, "insurer-1", 1));
    assert!(list[0].cause.contains("312"), "{}", list[0].cause);
    let key: Bytes = (0..list[0].key.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&list[0].key[at..at + 2], 16).unwrap())
        .collect::<Vec<_>>()
        .into();
    assert_eq!(flow.publish().await.sent, 0);
    assert!(parked::retry(&key, recorder).await.unwrap());
    assert!(!parked::retry(&key, recorder).await.unwrap(), "it is not parked any more");
    flow.broker.says(&[Ok(()), Err(PublishError::Returned { reply_code: 312 })]);
    let progress = flow.publish().await;
    assert_eq!((progress.sent, progress.parked), (1, 1));
    let list = parked::list(None, recorder).await.unwrap();
    let before = flow.rows(Table::LeafPending).await;
    let key: Bytes = data_encoding::HEXLOWER.decode(list[0].key.as_bytes()).unwrap().into();
    assert!(parked::discard(&key, recorder).await.unwrap());
    assert_eq!(flow.rows(Table::LeafPending).await - before, 1, "a leaf says so");
    assert_eq!(flow.publish().await.sent, 1);
    assert_eq!(about(&flow.broker.taken()), ["1", "3"]);
    assert_eq!(sequences(&flow.broker.taken()), [1, 2], "nobody has seen the one that was given up");
    assert!(parked::list(None, recorder).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_refused_makes_a_pause() {
    let mut flow = open(&["p"]).await;
    flow.publisher.retry_wait = Duration::from_millis(400);
    flow.post(&[observation("1", "p")]).await;
    flow.route().await;
    flow.broker.says(&[Err(PublishError::Nacked)]);
    assert_eq!(flow.publish().await.sent, 0);
    for _ in 0..3 {
        let progress = flow.publish().await;
        assert_eq!((progress.sent, progress.waiting), (0, 1));
    }
    assert_eq!(flow.broker.tries().len(), 1, "it was not tried again at once");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(flow.publish().await.sent, 1);
}
