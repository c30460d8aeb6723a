//! The feed: the suite, cursors, retention, erasure, and what a restart leaves.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use sluice::broker::Broker as _;
use sluice::broker::feed::{Body, Entry, Feed, ReadError, Retention, Seal, SealError};
use sluice::store::Store;
use sluice::store::embedded::{Embedded, Options};

use super::{Fixture, Received, conformance, message, runtime};

/// Seals by turning every bit round, and forgets lanes.
#[derive(Default)]
struct Glass {
    erased: Mutex<HashSet<Vec<u8>>>,
}

impl Seal for Glass {
    fn seal(&self, lane: &[u8], place: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = vec![u8::try_from(lane.len()).unwrap()];
        sealed.extend(lane);
        sealed.extend(u32::try_from(place.len()).unwrap().to_be_bytes());
        sealed.extend(place);
        sealed.extend(plain.iter().map(|byte| !byte));
        Ok(sealed)
    }

    fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (lane, rest) = sealed[1..].split_at(usize::from(sealed[0]));
        let (length, rest) = rest.split_first_chunk::<4>().unwrap();
        let (bound, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        if bound != place {
            return Err(SealError::Damaged);
        }
        if self.erased.lock().unwrap().contains(lane) {
            return Err(SealError::Erased);
        }
        Ok(rest.iter().map(|byte| !byte).collect())
    }
}

fn store(dir: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(&Options { disk_reserve_bytes: 0, ..Options::new(dir) }).unwrap())
}

const ALL: Retention = Retention { age: Duration::from_secs(u64::MAX / 4), entries: u64::MAX };

fn ids(entries: &[Entry]) -> Vec<&str> {
    let id = |entry: &Entry| match &entry.body {
        Body::Message { id, .. } => id.clone(),
        Body::Withdrawn { .. } => "withdrawn".into(),
        Body::Erased => "erased".into(),
    };
    entries.iter().map(id).map(|id| &*Box::leak(id.into_boxed_str())).collect()
}

#[test]
fn feed_conforms() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let feed = Arc::new(Feed::start(store(dir.path()), Arc::new(Glass::default()), ALL));
        let cursors = Arc::new(tokio::sync::Mutex::new(std::collections::HashMap::<&str, u64>::new()));
        let read = feed.clone();
        let received = Box::new(move |subscriber, _| {
            let (feed, cursors) = (read.clone(), cursors.clone());
            async move {
                let mut cursors = cursors.lock().await;
                let cursor = cursors.entry(subscriber).or_default();
                let mut received = Vec::new();
                loop {
                    let entries = feed.read_after(subscriber, *cursor, 100).await.unwrap();
                    if entries.is_empty() {
                        return received;
                    }
                    for entry in entries {
                        assert_eq!(entry.cursor, *cursor + 1, "a gap");
                        *cursor = entry.cursor;
                        let Body::Message { id, time, content_type, bytes, .. } = entry.body else { panic!("erased") };
                        received.push(Received { id, content_type, time, body: bytes });
                    }
                }
            }
            .boxed()
        });
        let fixture = Fixture { broker: feed, received };
        for (name, case) in conformance::CASES {
            eprintln!("feed conformance: {name}");
            case(&fixture).await;
        }
    });
}

#[test]
fn an_id_stands_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        runtime().block_on(async {
            let feed = Feed::start(store(dir.path()), Arc::new(Glass::default()), ALL);
            for verdict in join_all((0..50).map(|id| feed.publish(message("insurer", id % 25)))).await {
                verdict.unwrap();
            }
            assert_eq!(feed.head("insurer").await.unwrap(), 25);
            assert_eq!(feed.read_after("insurer", 20, 256).await.unwrap().len(), 5);
            assert_eq!(feed.read_after("insurer", 26, 256).await, Err(ReadError::Ahead));
            assert_eq!(feed.read_after("nobody", 0, 256).await, Ok(Vec::new()));
            feed.close().await;
        });
    }
}

#[test]
fn a_reader_is_woken_by_the_next_entry() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let feed = Feed::start(store(dir.path()), Arc::new(Glass::default()), ALL);
        feed.publish(message("insurer", 1)).await.unwrap();
        feed.grown("insurer", 0).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), feed.grown("insurer", 1)).await;
        assert!(early.is_err(), "nothing has come");
        let (woken, sent) = tokio::join!(feed.grown("insurer", 1), feed.publish(message("insurer", 2)));
        woken.unwrap();
        sent.unwrap();
        let ((), woken) = tokio::join!(feed.close(), feed.grown("insurer", 2));
        woken.unwrap();
    });
}

#[test]
fn an_erased_entry_keeps_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let glass = Arc::new(Glass::default());
        let feed = Feed::start(store(dir.path()), glass.clone(), ALL);
        for id in 1..=3_u8 {
            let mut message = message("insurer", id);
            message.lane = vec![id; 32].into();
            feed.publish(message).await.unwrap();
        }
        glass.erased.lock().unwrap().insert(vec![2; 32]);
        assert_eq!(ids(&feed.read_after("insurer", 0, 10).await.unwrap()), ["1", "erased", "3"]);
    });
}

#[test]
fn retention_removes_the_oldest_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let retention = Retention { entries: 10, ..ALL };
        for round in 0..2 {
            // The sweep begins with the start; the second start finds what the first has left.
            let feed = Feed::start(store(dir.path()), Arc::new(Glass::default()), retention);
            for id in 0..30 {
                feed.publish(message("insurer", format!("{round}-{id}"))).await.unwrap();
            }
            if round == 1 {
                let deadline = tokio::time::Instant::now() + Duration::from_mins(3);
                while feed.read_after("insurer", 0, 256).await.unwrap().len() > 10 {
                    assert!(tokio::time::Instant::now() < deadline, "nothing was removed");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                assert_eq!(feed.read_after("insurer", 7, 1).await, Err(ReadError::Gone { oldest: 50 }));
                assert_eq!(feed.read_after("insurer", 50, 256).await.unwrap().len(), 10);
                assert_eq!(feed.head("insurer").await.unwrap(), 60);
            }
            feed.close().await;
        }
    });
}
