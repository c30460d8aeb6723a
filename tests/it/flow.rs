//! From POST /fhir to an event taken from RabbitMQ that verifies offline: whatever dies, refuses or is revoked on the way.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use lapin::options::{BasicAckOptions, BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use serde_json::Value;
use sluice::publish::verify::{Trust, verify};

use crate::broker::amqp::channel;
use crate::house::{OPERATOR, Served, admin};
use crate::rabbit::{self, Rabbit, USER};
use crate::story::{consent, heard, observation, patient, put, told, trust};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A broker by user and password, as settings.
fn broker(rabbit: &Rabbit, exchange: &str, more: &str) -> String {
    let file = rabbit.file(&format!("url-{exchange}"));
    std::fs::write(&file, rabbit.url(USER)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.display();
    format!(
        "broker = {{ kind = \"amqp\", url_file = \"{file}\", exchange = \"{exchange}\", timeout = \"10s\", \
         reconnect_wait_max = \"300ms\"{more} }}"
    )
}

/// What was posted: the id of an Observation, and whom it is about.
type Posted = Vec<(String, Vec<&'static str>)>;

/// Takes from a queue until as many different events came as are wanted; fails after the time.
async fn take(channel: &Channel, queue: &str, taken: &mut Vec<Value>, distinct: usize, time: Duration) {
    let deadline = Instant::now() + time;
    while ids(taken).len() < distinct {
        assert!(Instant::now() < deadline, "{} of {distinct} events came", ids(taken).len());
        match channel.basic_get(ShortString::from(queue), BasicGetOptions::default()).await.unwrap() {
            None => tokio::time::sleep(Duration::from_millis(50)).await,
            Some(got) => {
                got.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
                taken.push(serde_json::from_slice(&got.delivery.data).unwrap());
            }
        }
    }
}

/// The ids of the Observations that events are about, each where it came first.
fn ids(events: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for event in events {
        let id = event["data"]["entry"][1]["fullUrl"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

/// Holds what came against what was posted: each verifies, each patient's came in order, and what came twice came as the
/// same. Gives how many came twice.
fn judge(events: &[Value], posted: &Posted, trust: &Trust) -> usize {
    let mut seen: HashMap<String, &Value> = HashMap::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut duplicates = 0;
    for event in events {
        let verdict = verify(event.to_string().as_bytes(), trust);
        assert!(verdict.verified, "{verdict:?}");
        let id = event["id"].as_str().unwrap().to_owned();
        if let Some(before) = seen.get(&id) {
            assert_eq!((&before["data"], &before["delivery"]), (&event["data"], &event["delivery"]));
            duplicates += 1;
            continue;
        }
        seen.insert(id, event);
        let sequence = event["delivery"]["sequence"].as_u64().unwrap();
        let before = last.insert(event["subject"].to_string(), sequence).unwrap_or(0);
        assert_eq!(sequence, before + 1, "a gap, or another order");
    }
    let came = ids(events);
    let patients: std::collections::BTreeSet<&str> = posted.iter().flat_map(|(_, about)| about.clone()).collect();
    for patient in patients {
        let of: Vec<&String> = posted.iter().filter(|(_, it)| it.contains(&patient)).map(|(id, _)| id).collect();
        let came: Vec<&String> = came.iter().filter(|id| of.contains(id)).collect();
        assert_eq!(came, of, "the order of patient {patient}");
    }
    duplicates
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_over_tls_with_its_trace_and_verifies_offline() {
    let rabbit = rabbit::shared();
    let key = rabbit.file("client.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let house = told(
        "permit",
        &format!(
            "broker = {{ kind = \"amqp\", url = \"{}\", ca_file = \"{}\", client_cert_file = \"{}\", \
             client_key_file = \"{}\", exchange = \"flow-tls\" }}",
            rabbit.tls_url(),
            rabbit.file("ca.pem").display(),
            rabbit.file("client.pem").display(),
            key.display(),
        ),
    );
    let served = house.serve();
    let hospital = house.client(Some("tls/hospital"));
    put(&hospital, &served, &patient("p"), &[]).await;
    put(&hospital, &served, &observation("o", &["p"]), &[("traceparent", TRACE)]).await;
    let deadline = Instant::now() + Duration::from_mins(3);
    // The queue is there once the gateway has declared it, and to ask for one that is not ends the channel.
    loop {
        let (_, metrics) = admin(&served, "GET", "/metrics", "").await;
        if metrics
            .as_str()
            .unwrap()
            .lines()
            .any(|it| it.contains("publish_total{result=\"ack\"}") && !it.ends_with(" 0"))
        {
            break;
        }
        assert!(Instant::now() < deadline, "nothing was published");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_connection, channel) = channel(rabbit).await;
    let got = loop {
        assert!(Instant::now() < deadline, "no event came");
        match channel.basic_get(ShortString::from("flow-tls.insurer"), BasicGetOptions::default()).await {
            Ok(Some(got)) => break got,
            Ok(None) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    };
    got.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    let verdict = verify(&got.delivery.data, &trust(&house));
    assert!(verdict.verified, "{verdict:?}");
    let event: Value = serde_json::from_slice(&got.delivery.data).unwrap();
    assert_eq!(event["traceparent"], TRACE);
    assert_eq!(got.delivery.routing_key.as_str(), "v1.insurer.care.observation.create");
    let headers = got.delivery.properties.headers().as_ref().unwrap();
    let header = |name: &str| headers.inner()[name].as_long_string().unwrap().to_string();
    for name in
        ["id", "source", "specversion", "type", "subject", "time", "datacontenttype", "dataschema", "traceparent"]
    {
        assert_eq!(event[name], header(&format!("cloudEvents:{name}")), "{name}");
    }
    assert_eq!(got.delivery.properties.message_id().as_ref().unwrap().as_str(), event["id"]);
    // The schema that it names is published for anybody.
    for path in ["event/v1", event["type"].as_str().unwrap()] {
        let request = Request::get(format!("https://localhost/schemas/{path}")).body(Bytes::new()).unwrap();
        let (status, schema) = house.client(None).try_send(&served, request).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert!(jsonschema::validator_for(&schema).unwrap().is_valid(&event));
    }
    let request = Request::get("https://localhost/schemas/nonsense").body(Bytes::new()).unwrap();
    assert_eq!(house.client(None).try_send(&served, request).await.unwrap().0, StatusCode::NOT_FOUND);
}

/// Broker and gateway are killed by SIGKILL, both twice or once, while events flow; and one patient revokes while what was
/// routed about it can't be sent.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_broker_and_gateway_are_killed() {
    const PATIENTS: [&str; 4] = ["a", "b", "c", "d"];
    let mut rabbit = tokio::task::block_in_place(Rabbit::start);
    let house = told("deny", &broker(&rabbit, "flow-kill", ""));
    let mut served = house.serve();
    let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
    for id in PATIENTS.into_iter().chain(["revoked"]) {
        put(&hospital, &served, &patient(id), &[]).await;
        put(&hospital, &served, &consent(id, "permit"), &[]).await;
        heard(&insurer, &served, id, StatusCode::OK).await;
    }
    let mut posted: Posted = Vec::new();
    let mut post = async |served: &Served, count: usize| {
        for _ in 0..count {
            let number = posted.len();
            let id = format!("o{number}");
            let one = PATIENTS[number % 4];
            let about = if number.is_multiple_of(3) { vec![one, PATIENTS[(number + 1) % 4]] } else { vec![one] };
            put(&hospital, served, &observation(&id, &about), &[]).await;
            posted.push((id, about));
        }
    };
    post(&served, 30).await;
    let mut taken = Vec::new();
    {
        let (_connection, channel) = channel(&rabbit).await;
        take(&channel, "flow-kill.insurer", &mut taken, 5, Duration::from_mins(1)).await;
        post(&served, 10).await;
        rabbit.kill();
    }
    post(&served, 10).await;
    // What is routed now waits for the broker; then the patient revokes.
    for number in 0..3 {
        put(&hospital, &served, &observation(&format!("r{number}"), &["revoked"]), &[]).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    put(&hospital, &served, &consent("revoked", "deny"), &[]).await;
    heard(&insurer, &served, "revoked", StatusCode::NOT_FOUND).await;
    // SIGKILL, with events under way to a broker that is not there.
    drop(served);
    served = house.serve();
    post(&served, 10).await;
    tokio::task::block_in_place(|| rabbit.restart());
    let (_connection, channel) = channel(&rabbit).await;
    take(&channel, "flow-kill.insurer", &mut taken, 40, Duration::from_mins(2)).await;
    post(&served, 20).await;
    drop(served);
    served = house.serve();
    post(&served, 10).await;
    take(&channel, "flow-kill.insurer", &mut taken, posted.len(), Duration::from_mins(2)).await;
    // Whatever else lies there: duplicates, if anything.
    while let Some(got) =
        channel.basic_get(ShortString::from("flow-kill.insurer"), BasicGetOptions::default()).await.unwrap()
    {
        got.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        taken.push(serde_json::from_slice(&got.delivery.data).unwrap());
    }
    assert!(!ids(&taken).iter().any(|id| id.starts_with('r')), "it was sent though it was revoked");
    let duplicates = judge(&taken, &posted, &trust(&house));
    eprintln!("{} events, {duplicates} duplicates", posted.len());
    assert_eq!(served.stop(), Some(0));
}

/// An exchange and queues that an operator made: `X.insurer` with these arguments, bound if it is asked for.
async fn operator_made(channel: &Channel, exchange: &str, arguments: FieldTable, bound: bool) {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(ShortString::from(exchange), ExchangeKind::Topic, durable, FieldTable::default())
        .await
        .unwrap();
    for (subscriber, arguments) in [("insurer", arguments), ("registry", FieldTable::default())] {
        let queue = ShortString::from(format!("{exchange}.{subscriber}"));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue, durable, arguments).await.unwrap();
    }
    if bound {
        bind(channel, exchange).await;
    }
}

async fn bind(channel: &Channel, exchange: &str) {
    let (queue, exchange) = (ShortString::from(format!("{exchange}.insurer")), ShortString::from(exchange));
    let key = ShortString::from("v1.insurer.#");
    channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_at_its_limit_slows_down_and_loses_nothing() {
    let rabbit = rabbit::shared();
    let (_connection, channel) = channel(rabbit).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(3));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    operator_made(&channel, "flow-narrow", arguments, true).await;
    let house = told("permit", &broker(rabbit, "flow-narrow", ", topology = \"passive\", attempts_max = 1000"));
    let served = house.serve();
    let hospital = house.client(Some("tls/hospital"));
    let patients = ["a", "b", "c", "d", "e"];
    for id in patients {
        put(&hospital, &served, &patient(id), &[]).await;
    }
    let mut posted: Posted = Vec::new();
    for number in 0..30 {
        let about = vec![patients[number % 5]];
        put(&hospital, &served, &observation(&format!("o{number}"), &about), &[]).await;
        posted.push((format!("o{number}"), about));
    }
    // In mid-window: some were taken, and some were refused.
    let deadline = Instant::now() + Duration::from_mins(3);
    loop {
        let (_, metrics) = admin(&served, "GET", "/metrics", "").await;
        let nacks = metrics.as_str().unwrap().lines().find(|it| it.contains("publish_total{result=\"nack\"}"));
        if nacks.is_some_and(|line| !line.ends_with(" 0")) {
            break;
        }
        assert!(Instant::now() < deadline, "nothing was refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut taken = Vec::new();
    take(&channel, "flow-narrow.insurer", &mut taken, posted.len(), Duration::from_mins(3)).await;
    judge(&taken, &posted, &trust(&house));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_queue_is_parked_until_an_operator_acts() {
    let rabbit = rabbit::shared();
    let (_connection, channel) = channel(rabbit).await;
    operator_made(&channel, "flow-unbound", FieldTable::default(), false).await;
    let house = told("permit", &broker(rabbit, "flow-unbound", ", topology = \"passive\""));
    let served = house.serve();
    let hospital = house.client(Some("tls/hospital"));
    put(&hospital, &served, &patient("p"), &[]).await;
    let mut posted: Posted = Vec::new();
    for id in ["o1", "o2", "o3"] {
        put(&hospital, &served, &observation(id, &["p"]), &[]).await;
        posted.push((id.to_owned(), vec!["p"]));
    }
    let deadline = Instant::now() + Duration::from_mins(3);
    let parked = loop {
        let (status, list) = admin(&served, "GET", "/events/parked", OPERATOR).await;
        assert_eq!(status, StatusCode::OK);
        if let [parked] = &list["parked"].as_array().unwrap()[..] {
            break parked.clone();
        }
        assert!(Instant::now() < deadline, "nothing was parked");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(parked["cause"].as_str().unwrap().contains("312"), "{parked}");
    assert_eq!(parked["event"]["subscriber"], "insurer");
    // Once the queue is bound the lane stays parked: only the operator knows that it is mended.
    bind(&channel, "flow-unbound").await;
    let key = parked["key"].as_str().unwrap();
    for (method, path, token, status) in [
        ("GET", "/events/parked".to_owned(), "another", 401),
        ("POST", "/events/parked/retry".to_owned(), "", 401),
        ("POST", format!("/events/parked/{key}/nonsense"), OPERATOR, 404),
        ("POST", "/events/parked/00/retry".to_owned(), OPERATOR, 404),
        ("POST", format!("/events/parked/{key}/retry"), OPERATOR, 204),
        ("POST", format!("/events/parked/{key}/retry"), OPERATOR, 404),
    ] {
        assert_eq!(admin(&served, method, &path, token).await.0.as_u16(), status, "{method} {path}");
    }
    let mut taken = Vec::new();
    take(&channel, "flow-unbound.insurer", &mut taken, 3, Duration::from_mins(1)).await;
    assert_eq!(judge(&taken, &posted, &trust(&house)), 0, "a returned event was got by nobody");
    assert_eq!(admin(&served, "POST", "/events/parked/retry", OPERATOR).await.1["retried"], 0);
}
