//! The broker dies by SIGKILL in mid-stream, and comes back.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluice::broker::amqp::Amqp;
use sluice::broker::{Broker as _, PublishError, State};
use sluice::config::Topology;

use super::amqp::{channel, settings, take};
use super::{message, runtime};
use crate::rabbit::{Rabbit, USER};

/// Sends until it is confirmed, as an outbox does; notes what went wrong meanwhile.
async fn insist(broker: &Amqp, number: usize, confirmed: &AtomicUsize) -> Vec<PublishError> {
    let mut errors = Vec::new();
    loop {
        match broker.publish(message("insurer", number)).await {
            Ok(()) => {
                confirmed.fetch_add(1, Ordering::Relaxed);
                return errors;
            }
            Err(error) => {
                errors.push(error);
                tokio::time::sleep(Duration::from_millis(10)).await;
                broker.ready().await;
            }
        }
    }
}

#[test]
fn nothing_confirmed_is_lost_when_the_broker_is_killed() {
    const MESSAGES: usize = 6000;
    const LANES: usize = 200;
    let mut rabbit = Rabbit::start();
    let runtime = runtime();
    let (broker, confirmed) = (
        runtime.block_on(async {
            let broker = Amqp::start(settings(&rabbit.settings(USER, "kill", Topology::Declare)));
            assert_eq!(broker.ready().await, State::Ready);
            Arc::new(broker)
        }),
        Arc::new(AtomicUsize::new(0)),
    );
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let (broker, confirmed) = (broker.clone(), confirmed.clone());
            runtime.spawn(async move {
                let mut errors = Vec::new();
                for number in (lane..MESSAGES).step_by(LANES) {
                    errors.extend(insist(&broker, number, &confirmed).await);
                }
                errors
            })
        })
        .collect();
    // In mid-stream: some are confirmed, and all lanes have one in flight.
    while confirmed.load(Ordering::Relaxed) < MESSAGES / 6 {
        std::thread::yield_now();
    }
    rabbit.kill();
    let before = confirmed.load(Ordering::Relaxed);
    assert!(before < MESSAGES, "the kill came too late");
    runtime.block_on(async {
        while broker.state() == State::Ready {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(broker.publish(message("insurer", "down")).await, Err(PublishError::Unavailable));
    });
    rabbit.restart();
    runtime.block_on(async {
        let mut errors = Vec::new();
        for lane in lanes {
            errors.extend(tokio::time::timeout(Duration::from_mins(2), lane).await.unwrap().unwrap());
        }
        assert_eq!(confirmed.load(Ordering::Relaxed), MESSAGES);
        assert!(errors.contains(&PublishError::Unconfirmed), "{errors:?}");
        let allowed = [PublishError::Unconfirmed, PublishError::Unavailable];
        assert!(errors.iter().all(|error| allowed.contains(error)), "{errors:?}");
        let (_connection, channel) = channel(&rabbit).await;
        let taken = take(&channel, "kill.insurer", usize::MAX).await;
        let ids: BTreeSet<_> =
            taken.iter().map(|got| got.properties.message_id().as_ref().unwrap().to_string()).collect();
        assert_eq!(ids.len(), MESSAGES, "lost: {}", MESSAGES - ids.len());
        // Those that were sent again. Order within a lane, once each id is counted where it came first.
        let mut seen = HashSet::new();
        let mut last = [None; LANES];
        for got in &taken {
            let number: usize = got.properties.message_id().as_ref().unwrap().as_str().parse().unwrap();
            if seen.insert(number) {
                assert!(last[number % LANES] < Some(number), "lane {} turned round", number % LANES);
                last[number % LANES] = Some(number);
            }
        }
        eprintln!("confirmed before the kill {before}, duplicates {}", taken.len() - MESSAGES);
        broker.close().await;
    });
}
