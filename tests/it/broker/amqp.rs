//! AMQP on a real RabbitMQ: the suite, and what is AMQP's alone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use lapin::types::ShortString;
use lapin::{Channel, Connection, ConnectionProperties};
use sluice::broker::amqp::{Amqp, Settings};
use sluice::broker::{Broker as _, PublishError, State};
use sluice::config::{Broker as BrokerConfig, Topology};

use super::{Fixture, Received, SUBSCRIBERS, conformance, message, runtime};
use crate::rabbit::{self, LEAST_USER, Rabbit, USER};

pub(super) fn settings(config: &BrokerConfig) -> Settings {
    Settings::new(config, SUBSCRIBERS.map(str::to_owned)).unwrap()
}

/// Another client, to look and to consume with.
pub(crate) async fn channel(rabbit: &Rabbit) -> (Connection, Channel) {
    let connection = Connection::connect(&rabbit.url(USER), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Takes what lies in a queue until `count` were taken (0: all), or until nothing came for a while.
pub(super) async fn take(channel: &Channel, queue: &str, count: usize) -> Vec<lapin::message::Delivery> {
    let (mut taken, mut empty) = (Vec::new(), 0);
    // A quorum queue confirms before it delivers.
    while (count == 0 || taken.len() < count) && empty < if count == 0 { 5 } else { 100 } {
        match channel.basic_get(ShortString::from(queue), BasicGetOptions::default()).await.unwrap() {
            None => {
                empty += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Some(got) => {
                got.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
                taken.push(got.delivery);
            }
        }
    }
    taken
}

fn id(delivery: &lapin::message::Delivery) -> String {
    delivery.properties.message_id().as_ref().unwrap().to_string()
}

/// Waits until the state has a cause that holds the text.
async fn cause(broker: &Amqp, expected: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(3);
    loop {
        match broker.state() {
            State::Down(Some(cause)) if cause.contains(expected) => break,
            state => assert!(tokio::time::Instant::now() < deadline, "{expected} was expected, not {state}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn amqp_conforms() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        let broker = Arc::new(Amqp::start(settings(&rabbit.settings(USER, "suite", Topology::Declare))));
        let (_connection, channel) = channel(rabbit).await;
        let received = Box::new(move |subscriber, count| {
            let channel = channel.clone();
            async move {
                let queue = format!("suite.{subscriber}");
                let taken = take(&channel, &queue, count).await;
                taken
                    .into_iter()
                    .map(|delivery| Received {
                        id: id(&delivery),
                        content_type: delivery.properties.content_type().as_ref().unwrap().to_string(),
                        time: delivery.properties.timestamp().unwrap(),
                        body: delivery.data.into(),
                    })
                    .collect()
            }
            .boxed()
        });
        let fixture = Fixture { broker, received };
        for (name, case) in conformance::CASES {
            eprintln!("amqp conformance: {name}");
            case(&fixture).await;
            // Duplicates and the like of the case before.
            for subscriber in SUBSCRIBERS {
                (fixture.received)(subscriber, 0).await;
            }
        }
    });
}

#[test]
fn a_message_is_persistent_and_has_its_headers() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        let broker = Amqp::start(settings(&rabbit.settings(USER, "headers", Topology::Declare)));
        assert_eq!(broker.ready().await, State::Ready);
        broker.publish(message("insurer", 1)).await.unwrap();
        let (_connection, channel) = channel(rabbit).await;
        let got = take(&channel, "headers.insurer", 1).await;
        assert_eq!(*got[0].properties.delivery_mode(), Some(2));
        let headers = got[0].properties.headers().as_ref().unwrap();
        assert_eq!(headers.inner()["cloudEvents:id"].as_long_string().unwrap().to_string(), "1");
        assert_eq!(headers.inner()["cloudEvents:type"].as_long_string().unwrap().to_string(), "test");
        broker.close().await;
    });
}

/// Many in flight, and every fifth finds no queue: each verdict is its own message's.
#[test]
fn exactly_the_unroutable_are_returned() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        // An exchange without an alternate, and a queue for one of the two subscribers.
        let config = rabbit.settings(USER, "locked", Topology::Passive);
        let broker = Amqp::start(Settings::new(&config, ["insurer".to_owned()]).unwrap());
        assert_eq!(broker.ready().await, State::Ready);
        for round in 0..10 {
            let subscriber = |number: u32| if number.is_multiple_of(5) { "registry" } else { "insurer" };
            let sent = (0..500).map(|number| broker.publish(message(subscriber(number), format!("{round}-{number}"))));
            for (number, verdict) in (0_u32..).zip(join_all(sent).await) {
                let expected =
                    if number.is_multiple_of(5) { Err(PublishError::Returned { reply_code: 312 }) } else { Ok(()) };
                assert_eq!(verdict, expected, "message {number} of round {round}");
            }
        }
        broker.close().await;
    });
}

#[test]
fn with_the_declared_topology_the_unroutable_are_kept() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        let broker = Amqp::start(settings(&rabbit.settings(USER, "kept", Topology::Declare)));
        assert_eq!(broker.ready().await, State::Ready);
        broker.publish(message("stranger", 1)).await.unwrap();
        let (_connection, channel) = channel(rabbit).await;
        assert_eq!(id(&take(&channel, "kept.unrouted", 1).await[0]), "1");
        broker.close().await;
    });
}

#[test]
fn a_full_queue_nacks_and_nothing_of_it_is_lost() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        let full = settings(&rabbit.settings(USER, "full", Topology::Declare)).queue_length_max(5);
        let broker = Amqp::start(full);
        assert_eq!(broker.ready().await, State::Ready);
        // The limit of a quorum queue is soft: the refusals come a little after it was reached.
        let (mut confirmed, mut nacked) = (Vec::new(), 0);
        for round in 0..100 {
            let ids: Vec<_> = (0..10).map(|number| format!("{round}-{number}")).collect();
            for (id, verdict) in
                ids.iter().zip(join_all(ids.iter().map(|id| broker.publish(message("insurer", id)))).await)
            {
                match verdict {
                    Ok(()) => confirmed.push(id.clone()),
                    Err(error) => {
                        assert_eq!(error, PublishError::Nacked);
                        nacked += 1;
                    }
                }
            }
            if nacked > 0 {
                break;
            }
        }
        assert!(nacked > 0 && confirmed.len() >= 5, "{nacked} refused, {} confirmed", confirmed.len());
        let (_connection, channel) = channel(rabbit).await;
        let got: HashSet<_> = take(&channel, "full.insurer", 0).await.iter().map(id).collect();
        assert!(confirmed.iter().all(|id| got.contains(id)));
        // There is room again, once the queue knows it.
        let again = async { while broker.publish(message("insurer", "again")).await.is_err() {} };
        tokio::time::timeout(Duration::from_mins(2), again).await.unwrap();
        broker.close().await;
    });
}

#[test]
fn what_nobody_can_process_becomes_a_dead_letter() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        let broker = Amqp::start(settings(&rabbit.settings(USER, "poison", Topology::Declare)).delivery_limit(3));
        assert_eq!(broker.ready().await, State::Ready);
        broker.publish(message("insurer", "poison")).await.unwrap();
        let (_connection, channel) = channel(rabbit).await;
        let mut deliveries = 0;
        while deliveries < 4 {
            if let Some(got) = channel.basic_get("poison.insurer".into(), BasicGetOptions::default()).await.unwrap() {
                deliveries += 1;
                got.delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
            }
        }
        assert_eq!(id(&take(&channel, "poison.insurer.dead", 1).await[0]), "poison");
        broker.close().await;
    });
}

#[test]
fn tls_with_a_client_certificate_needs_no_password() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        let broker = Amqp::start(settings(&rabbit.tls_settings("ca.pem", true, "tls")));
        assert_eq!(broker.ready().await, State::Ready);
        broker.publish(message("insurer", 1)).await.unwrap();
        broker.close().await;
    });
}

#[test]
fn a_broker_that_cannot_prove_its_name_gets_nothing() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        let broker = Amqp::start(settings(&rabbit.tls_settings("other-ca.pem", true, "tls")));
        cause(&broker, "UnknownIssuer").await;
        assert_eq!(broker.publish(message("insurer", 1)).await, Err(PublishError::Unavailable));
        broker.close().await;
        assert_eq!(broker.state(), State::Closed);
        // The other side: without a certificate of ours the broker refuses.
        let broker = Amqp::start(settings(&rabbit.tls_settings("ca.pem", false, "tls")));
        cause(&broker, "connecting to amqps://localhost:").await;
        broker.close().await;
    });
}

#[test]
fn a_user_without_rights_to_configure_publishes_to_what_is_there() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        let config = rabbit.settings(LEAST_USER, "locked", Topology::Passive);
        let broker = Amqp::start(Settings::new(&config, ["insurer".to_owned()]).unwrap());
        assert_eq!(broker.ready().await, State::Ready);
        broker.publish(message("insurer", "least")).await.unwrap();
        broker.close().await;
    });
}

#[test]
fn what_the_broker_refuses_is_named_with_its_code() {
    let rabbit = rabbit::shared();
    runtime().block_on(async {
        // To declare.
        let broker = Amqp::start(settings(&rabbit.settings(LEAST_USER, "locked", Topology::Declare)));
        cause(&broker, "exchange locked.unrouted: 403").await;
        broker.close().await;
        // To publish: it is there, and it may not be written to.
        let config = rabbit.settings(LEAST_USER, "closed", Topology::Passive);
        let broker = Amqp::start(Settings::new(&config, []).unwrap());
        assert_eq!(broker.ready().await, State::Ready);
        assert_eq!(broker.publish(message("insurer", 1)).await, Err(PublishError::Unconfirmed));
        cause(&broker, "403").await;
        broker.close().await;
        // What is not there.
        let broker = Amqp::start(settings(&rabbit.settings(USER, "missing", Topology::Passive)));
        cause(&broker, "exchange missing: 404").await;
        let State::Down(Some(text)) = broker.state() else { panic!("up") };
        assert!(!text.contains(rabbit::PASSWORD), "{text}");
        broker.close().await;
    });
}

#[test]
fn a_runtime_that_ends_after_the_close_disturbs_nothing() {
    let rabbit = rabbit::shared();
    for round in 0..3 {
        let runtime = runtime();
        let broker = runtime.block_on(async {
            let broker = Amqp::start(settings(&rabbit.settings(USER, "drain", Topology::Declare)));
            assert_eq!(broker.ready().await, State::Ready);
            let sent = join_all((0..300).map(|number| broker.publish(message("insurer", format!("{round}-{number}")))));
            let (verdicts, ()) = tokio::join!(sent, broker.close());
            let settled = |verdict: &Result<(), _>| matches!(verdict, Ok(()) | Err(PublishError::Unavailable));
            assert!(verdicts.iter().all(settled), "what was sent before the close is waited for: {verdicts:?}");
            broker
        });
        drop(runtime);
        assert_eq!(broker.state(), State::Closed);
    }
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.map(|thread| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default());
    // Other tests of this binary may have theirs.
    assert!(names.filter(|name| name.starts_with("lapin-io-loop")).count() < 24);
}
