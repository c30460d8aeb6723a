//! What every kind of broker must do, run on each kind there is; and what is AMQP's alone.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluice::broker::{Broker, Message};

pub(crate) mod amqp;
mod conformance;
mod feed;
mod kill;

/// A broker under test, and a look at what a subscriber got.
struct Fixture {
    broker: Arc<dyn Broker>,
    /// Takes away what the subscriber has got since the last look: at least `count`, or all there is after a while.
    received: Box<dyn Fn(&'static str, usize) -> BoxFuture<'static, Vec<Received>> + Send + Sync>,
}

/// What every kind of broker hands on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Received {
    id: String,
    content_type: String,
    time: u64,
    body: Bytes,
}

const SUBSCRIBERS: [&str; 2] = ["insurer", "registry"];

#[expect(clippy::needless_pass_by_value, reason = "reads better where numbers are given")]
fn message(subscriber: &str, id: impl ToString) -> Message {
    let id = id.to_string();
    Message {
        body: format!("{{\"id\":\"{id}\"}}").into(),
        headers: vec![("cloudEvents:id".into(), id.clone()), ("cloudEvents:type".into(), "test".into())],
        lane: Bytes::from_static(&[7; 32]),
        routing_key: format!("v1.{subscriber}.care.observation.create"),
        content_type: "application/cloudevents+json".into(),
        time: 1_700_000_000,
        recall: Bytes::from_static(b"asked again"),
        subscriber: subscriber.into(),
        id,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
