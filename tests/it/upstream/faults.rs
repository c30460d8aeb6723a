//! Faults in pairs at each write between stage and record, and crashes at each point where a task waits: whatever happens,
//! nothing that was acknowledged is lost, nothing is posted twice, and in the end the unit stands once on both sides.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sluice::gateway::Ruling;
use sluice::store::fault::{Fault, Faults};
use sluice::store::{Direction, KeyRange, Table};

use super::fake::{Fake, Mode};
use super::{admission, recorded, settings, staged_rows};
use crate::failing::Failing;
use crate::rig::Rig;

/// After whatever happened: the gateway recovers, the sender sends again until it has an answer, and all stands once.
async fn ends_well(rig: Rig, fake: &Fake, at: &str) -> Rig {
    fake.turn(Mode::Works);
    let rig = rig.restart().await;
    for round in 0.. {
        rig.gateway.recover().await.unwrap();
        for parked in rig.gateway.parked(10).await.unwrap().0 {
            // Of what may still arrive the tag is looked for until time is over; then an operator decides.
            let ruling = if fake.count("Patient") == 0 { Ruling::Drop } else { Ruling::Look };
            rig.gateway.decide(parked.operation, ruling).await.unwrap();
        }
        match rig.admit(&admission()).await {
            Ok(_) => break,
            Err(error) => assert!(round < 40, "{at}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((fake.count("Patient"), fake.count("Observation")), (1, 1), "{at}");
    assert_eq!(recorded(&rig).await, (2, 2), "{at}");
    assert_eq!(staged_rows(&rig).await, [0_u8; 0], "{at}");
    assert_eq!(rig.gateway.recover().await.unwrap(), 0, "{at}");
    rig
}

fn quick(fake: &Fake, resolve: &str) -> String {
    settings(fake, resolve).replace("timeout = \"2s\"", "timeout = \"300ms\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_is_made_good() {
    for resolve in ["client-ids", "tag-probe"] {
        for mode in [Mode::Works, Mode::BreaksAfter, Mode::BreaksBefore, Mode::Refuses] {
            for (nth, fault) in [(1, Fault::Undone), (1, Fault::Done), (2, Fault::Undone), (2, Fault::Done)] {
                let at = format!("{resolve}, {mode:?}, commit {nth} {fault:?}");
                let fake = Fake::start().await;
                let rig = Rig::with(&quick(&fake, resolve)).await;
                let rig = rig.over(|inner| Arc::new(Failing::at(inner, nth, fault)));
                fake.turn(mode);
                assert!(rig.admit(&admission()).await.is_err(), "{at}");
                assert_eq!(fake.writes(), nth - 1, "{at}: not staged, not sent");
                ends_well(rig, &fake, &at).await;
            }
        }
    }
}

/// What is written to the keystore: first the keys of the patients and of the operation, before anything is staged; last
/// the operation's key is destroyed, once it is recorded or taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_written_or_not_destroyed_is_made_good() {
    for resolve in ["client-ids", "tag-probe"] {
        let untouched = {
            let fake = Fake::start().await;
            let rig = Rig::with(&quick(&fake, resolve)).await;
            rig.admit(&admission()).await.unwrap();
            rig.gateway.recorder.vault().keystore().len()
        };
        for mode in [Mode::Works, Mode::Refuses, Mode::BreaksAfter, Mode::BreaksBefore] {
            for (nth, fault) in [(1, Fault::Undone), (1, Fault::Done), (2, Fault::Undone), (2, Fault::Done)] {
                let at = format!("{resolve}, {mode:?}, write {nth} {fault:?}");
                let fake = Fake::start().await;
                let rig = Rig::with(&quick(&fake, resolve)).await;
                let faults = Faults::new(move |persist| (persist == nth).then_some(fault));
                rig.gateway.recorder.vault().keystore().fail(faults);
                fake.turn(mode);
                let answered = rig.admit(&admission()).await;
                let acknowledged = answered.as_ref().ok().map(|it| it.operation.clone());
                assert_eq!(acknowledged.is_some(), (nth, mode) == (2, Mode::Works), "{at}: {answered:?}");
                assert_eq!(fake.writes(), usize::from(nth == 2), "{at}: not staged, not sent");
                // Where the answer was missed it is recovery that destroys the key.
                fake.turn(Mode::Works);
                let _ = rig.gateway.recover().await;
                let rig = ends_well(rig, &fake, &at).await;
                if let Some(operation) = acknowledged {
                    assert_eq!(rig.admit(&admission()).await.unwrap().operation, operation, "{at}: the first answer");
                }
                rig.gateway.recover().await.unwrap();
                // A key that was written and told to be not is one that nothing was ever sealed with.
                let stray = usize::from((nth, fault) == (1, Fault::Done));
                assert_eq!(rig.gateway.recorder.vault().keystore().len(), untouched + stray, "{at}: no key is left");
                let rows = rig.gateway.recorder.store().scan(Table::Staged, KeyRange::all(), 9, Direction::Up).await;
                assert!(rows.unwrap().is_empty(), "{at}");
            }
        }
    }
}

/// Ends a task where it waits for the nth time.
async fn cut<F: Future>(task: F, waits: usize) -> Option<F::Output> {
    let mut task = Box::pin(task);
    let mut left = waits;
    std::future::poll_fn(move |context| match task.as_mut().poll(context) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_anywhere_is_made_good() {
    for resolve in ["client-ids", "tag-probe"] {
        for waits in 0.. {
            let fake = Fake::start().await;
            let rig = Rig::with(&quick(&fake, resolve)).await;
            let ended = cut(rig.admit(&admission()), waits).await.is_some();
            // What was under way without it comes to its end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            ends_well(rig, &fake, &format!("{resolve}, cut after {waits}")).await;
            if ended {
                assert!(waits >= 3, "stage, forward and record wait");
                break;
            }
        }
    }
}
