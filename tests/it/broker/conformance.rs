//! The suite: one function a promise of [`Broker`].

use std::collections::BTreeSet;

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use sluice::broker::{BODY_BYTES_MAX, Limit, PublishError, State};

use super::{Fixture, message};

type Case = for<'a> fn(&'a Fixture) -> BoxFuture<'a, ()>;

/// In this order, on one broker; the last one closes it.
pub(super) const CASES: [(&str, Case); 6] = [
    ("a confirmed message reaches its subscriber as it was", |fixture| arrives(fixture).boxed()),
    ("many in flight each get a verdict and arrive once", |fixture| many(fixture).boxed()),
    ("what is confirmed one after the other stays in order", |fixture| order(fixture).boxed()),
    ("the same id again is confirmed and is known as the same", |fixture| twice(fixture).boxed()),
    ("a message beyond a limit is refused and not sent", |fixture| limits(fixture).boxed()),
    ("a closed broker takes nothing", |fixture| closed(fixture).boxed()),
];

async fn arrives(Fixture { broker, received }: &Fixture) {
    assert_eq!(broker.ready().await, State::Ready);
    assert_eq!(broker.state(), State::Ready);
    let sent = message("insurer", "arrives");
    broker.publish(sent.clone()).await.unwrap();
    let got = received("insurer", 1).await;
    assert_eq!(got.len(), 1);
    assert_eq!((&got[0].id, &got[0].body, got[0].time), (&sent.id, &sent.body, sent.time));
    assert_eq!(got[0].content_type, sent.content_type);
    assert_eq!(received("registry", 0).await, [], "it was addressed to another");
}

async fn many(Fixture { broker, received }: &Fixture) {
    let sent = (0..600).map(|number| broker.publish(message("insurer", format!("many-{number}"))));
    for verdict in join_all(sent).await {
        verdict.unwrap();
    }
    let got = received("insurer", 600).await;
    assert_eq!(got.len(), 600);
    assert_eq!(got.iter().map(|got| &got.id).collect::<BTreeSet<_>>().len(), 600);
}

async fn order(Fixture { broker, received }: &Fixture) {
    let ids: Vec<_> = (0..30).map(|number| format!("order-{number}")).collect();
    for id in &ids {
        broker.publish(message("registry", id)).await.unwrap();
    }
    assert_eq!(received("registry", 30).await.into_iter().map(|got| got.id).collect::<Vec<_>>(), ids);
}

async fn twice(Fixture { broker, received }: &Fixture) {
    broker.publish(message("insurer", "twice")).await.unwrap();
    let both = [broker.publish(message("insurer", "twice")), broker.publish(message("insurer", "twice"))];
    for verdict in join_all(both).await {
        verdict.unwrap();
    }
    let got = received("insurer", 1).await;
    assert!(!got.is_empty() && got.iter().all(|received| received.id == "twice" && *received == got[0]), "{got:?}");
}

async fn limits(Fixture { broker, received }: &Fixture) {
    let mut large = message("insurer", "large");
    large.body = vec![b' '; BODY_BYTES_MAX + 1].into();
    assert_eq!(broker.publish(large).await, Err(PublishError::Refused(Limit::Body)));
    let mut wild = message("insurer", "wild");
    wild.routing_key = "v1.#".into();
    assert_eq!(broker.publish(wild).await, Err(PublishError::Refused(Limit::RoutingKey)));
    assert_eq!(received("insurer", 0).await, []);
}

async fn closed(Fixture { broker, .. }: &Fixture) {
    // What is in flight when the close begins gets its verdict.
    let (sent, ()) = tokio::join!(broker.publish(message("insurer", "last")), broker.close());
    assert!(matches!(sent, Ok(()) | Err(PublishError::Unavailable)), "{sent:?}");
    assert_eq!(broker.publish(message("insurer", "late")).await, Err(PublishError::Unavailable));
    assert_eq!((broker.state(), broker.ready().await), (State::Closed, State::Closed));
    broker.close().await;
}
