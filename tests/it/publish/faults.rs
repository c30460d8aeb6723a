//! Faults in pairs at each commit of publish: what was written is lost, or is there and was not told.

use sluice::record::Recorder;
use sluice::store::fault::Fault;

use super::order::{in_order, joint, once, open};
use super::*;
use crate::failing::Failing;

impl Flow {
    /// A pass of a process that dies at this commit; its successor has what the store has, and nothing else.
    pub(super) async fn dying(&self, at: (usize, Fault)) {
        let failing = self.failing(at);
        // What it says does not count: its process is gone.
        let _ = self.publisher.pass(&failing, &self.rig.gateway.door).await;
        self.rig.gateway.recorder.counters().forget().await;
    }

    /// The same of a pass of route.
    pub(super) async fn dying_in_route(&self, at: (usize, Fault)) {
        let failing = self.failing(at);
        let _ = self.router.pass(&failing, &self.rig.gateway.door).await;
        self.rig.gateway.recorder.counters().forget().await;
    }

    fn failing(&self, at: (usize, Fault)) -> Recorder {
        let recorder = &self.rig.gateway.recorder;
        let store = Failing::at(Arc::clone(recorder.store()), at.0, at.1);
        Recorder::new(
            Arc::new(store),
            Arc::clone(recorder.vault()),
            Arc::clone(recorder.keys()),
            Arc::clone(recorder.tenant()),
            Duration::ZERO,
        )
    }
}

pub(super) const FAULTS: [Fault; 2] = [Fault::Undone, Fault::Done];

/// Commits are: the number of an event, its mark, the number of the next one, and so on.
#[tokio::test(flavor = "multi_thread")]
async fn two_crashes_at_any_two_commits_lose_nothing_and_turn_nothing() {
    let flow = open(&["p", "q"]).await;
    let mut posted = Vec::new();
    for (first, second) in (1..=5).flat_map(|first| (1..=5).map(move |second| (first, second))) {
        for kinds in FAULTS.iter().flat_map(|first| FAULTS.iter().map(move |second| (*first, *second))) {
            for about in [&["p"][..], &["p", "q"], &["q"]] {
                let id = format!("o{}", posted.len());
                flow.post(&[joint(&id, about)]).await;
                posted.push((id, about.to_vec()));
            }
            flow.route().await;
            flow.dying((first, kinds.0)).await;
            flow.dying((second, kinds.1)).await;
            flow.publish().await;
            assert_eq!(flow.rows(Table::Outbox).await, 0, "{first} {second} {kinds:?}");
        }
    }
    in_order(&flow.broker.taken(), &posted);
    let duplicates = flow.broker.taken().len() - posted.len();
    assert!(duplicates > 0, "an event that was sent and not marked was sent again");
}

/// With a broker that refuses as well: the commit of an attempt, and of parking.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_a_refusal_is_noted_keeps_the_number() {
    let flow = open(&["p"]).await;
    let mut posted = Vec::new();
    for error in [PublishError::Nacked, PublishError::Unconfirmed, PublishError::Unavailable] {
        for (commit, fault) in (1..=3).flat_map(|commit| FAULTS.map(|fault| (commit, fault))) {
            for _ in 0..2 {
                let id = format!("o{}", posted.len());
                flow.post(&[observation(&id, "p")]).await;
                posted.push((id, vec!["p"]));
            }
            flow.route().await;
            let already = flow.broker.tries().len();
            flow.broker.says(&[Err(error)]);
            flow.dying((commit, fault)).await;
            // Told or not: the verdict is used up before the next pass.
            flow.broker.verdicts.lock().unwrap().clear();
            while flow.rows(Table::Outbox).await > 0 {
                flow.publish().await;
            }
            let tries = flow.broker.tries().split_off(already);
            assert_eq!(once(&tries).len(), 2, "{error:?} {commit} {fault:?}: a try again has the same number");
        }
    }
    in_order(&flow.broker.taken(), &posted);
}

/// A revocation that is made durable, or not, when the process dies: nothing is sent, and the next number is the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_an_event_is_cancelled_sends_nothing() {
    for (commit, fault) in [(1, Fault::Undone), (1, Fault::Done)] {
        let flow = Flow::with(subscriber(Wait::Log), &["p"], &[("o", "p")]).await;
        flow.give("p", "deny").await;
        flow.dying((commit, fault)).await;
        flow.publish().await;
        assert!(flow.broker.tries().is_empty());
        assert_eq!(flow.rows(Table::Outbox).await, 0);
        flow.give("p", "permit").await;
        flow.post(&[observation("o2", "p")]).await;
        flow.route().await;
        assert_eq!(flow.publish().await.sent, 1);
        assert_eq!(sequences(&flow.broker.taken()), [1]);
    }
}
